"""A whole stack against one reference: every scene aligned, refused with its reason, or failed with its reason."""

from __future__ import annotations

import logging
from itertools import pairwise

import bottleneck
import numpy as np
import pandas as pd
import xarray as xr

from geoalign import chunked
from geoalign.errors import ConfigError, MatchError, NoUsableData, StackError
from geoalign.kernels.refine import band_pass
from geoalign.registration.joint import Joint
from geoalign.registration.neighbours import tie_through_neighbours
from geoalign.registration.phase import SEARCH_BAND, NothingToMatch, PhaseMatcher
from geoalign.registration.select import model_name
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import REPORT_COLUMNS, TIE_POINT_COLUMNS, Alignment, Match
from geoalign.types.stack import SAR_BANDS, check_stack, geobox_of, is_sar, pixel_size_m
from geoalign.types.warp import Affine, Chain, Projective, Shift, mean_displacement

log = logging.getLogger("geoalign")

TRIAL_PAIRS = 4
"""Pairs of scenes matched in each band to choose the band."""
UNMATCHED_PX = 1.0
"""What a pair that can't be matched at all counts in that choice."""
KEEP_BYTES = 256 * 2**20
"""Scenes are remembered between passes where all of them together take no more than this."""


def align_stack(stack, matcher, *, reference, band, seed, refine) -> Alignment:
    """What `coregister` does once its options are known to be right; see there."""
    check_stack(stack)
    band = sharpest_band(stack, seed) if band == "auto" else band
    bands = matching_band(stack, band)
    geobox, shape = geobox_of(stack), (stack.sizes["y"], stack.sizes["x"])
    names = [str(v) for v in stack["scene"].values] if "scene" in stack.coords else [str(t) for t in stack.time.values]
    keep = 4 * shape[0] * shape[1] * len(names) <= KEEP_BYTES
    scenes = [Image(bands.isel(time=k).data, keep=keep) for k in range(len(names))]
    label, at, target = _reference(reference, stack, bands, names, scenes, band)

    results: dict[int, Match | Exception] = {}
    for k, scene in enumerate(scenes):
        if k == at:
            continue
        try:
            if hasattr(matcher, "align"):
                results[k] = matcher.align(target, scene, seed=seed)
            else:
                results[k] = matcher(*(image.tiles([None])[0] for image in (target, scene)), seed=seed)
        except (MatchError, OSError) as err:
            results[k] = err
        log.info("align %s: %s", names[k], _one_line(results[k]))

    if hasattr(matcher, "align"):
        times = stack.time.values
        results = tie_through_neighbours(results, scenes, at, times, matcher, seed, shape)
    extra = 0.0
    found = {k: m for k, m in results.items() if isinstance(m, Match)}
    if refine is None:
        # of a large image the many windows average the speckle already, and reading every tile again is what costs
        refine = is_sar(stack) and not target.by_tiles
    if refine and hasattr(matcher, "align") and len(found) >= Joint.MIN_SCENES:
        joint = Joint(target, scenes, at, matcher.model, seed)
        found, extra = joint.refined(found)
        results.update(found)

    rows, points, warps = [], [], {}
    metre = pixel_size_m(stack)
    frame = None
    if isinstance(reference, str) and reference == "median":
        frame, label = _middle(found, shape), "median"
    for k, name in enumerate(names):
        if k == at:
            warps[name] = frame or Shift(0.0, 0.0)
            rows.append(_reference_row(name, frame))
            continue
        result = results[k]
        if isinstance(result, Match):
            warps[name] = result.warp if frame is None else after(frame, result.warp)
            table = result.tie_points.assign(scene=name)[["scene", *TIE_POINT_COLUMNS]]
            if frame is not None:
                table = table.assign(row=table.row - frame.dy, col=table.col - frame.dx)
            points.append(table)
            rows.append(_row(name, "aligned", result, warps[name], scenes[k], shape, metre, extra, ""))
        else:
            status = "failed" if isinstance(result, NothingToMatch | OSError) else "rejected"
            rows.append(_row(name, status, None, None, scenes[k], shape, metre, 0.0, str(result)))
    report = pd.DataFrame(rows, columns=list(REPORT_COLUMNS))
    empty = pd.DataFrame(columns=["scene", *TIE_POINT_COLUMNS])
    table = pd.concat(points, ignore_index=True) if points else empty
    return Alignment(label, warps, report, geobox, shape, table)


def matching_band(stack, band) -> xr.DataArray:
    """The image that is matched, (time, y, x), lazy where the stack is.

    band : a band's name, or "sar": the mean of the logarithms of vv and vh (of what is there of hh, hv where neither
        is), in which speckle is additive. A SAR band is always taken in logarithms.
    """
    names = list(map(str, stack.data_vars))
    if band == "sar":
        picked = [name for name in SAR_BANDS[:2] if name in names] or [name for name in SAR_BANDS if name in names]
    else:
        picked = [band]
    if not picked or picked[0] not in names:
        raise StackError(f"band {band!r} is missing (bands: {', '.join(names)}); give one of them, or band='auto'.")
    if picked[0] not in SAR_BANDS:
        return stack[picked[0]].transpose("time", "y", "x")
    total = logarithm(stack[picked[0]])
    for name in picked[1:]:
        total = total + logarithm(stack[name])
    return (total / np.float32(len(picked))).transpose("time", "y", "x")


def sharpest_band(stack, seed) -> str:
    """The band to match: "sar", or the one of near infrared, red and short-wave infrared that ties scenes best.

    A few pairs of scenes are matched in each; the band whose tie points agree best wins. Which one it is depends on the
    land cover and the season, not on the sensor.
    """
    names = list(map(str, stack.data_vars))
    if is_sar(stack):
        return "sar"
    candidates = [name for name in ("nir", "red", "swir1") if name in names] or names[:3]
    if len(candidates) == 1 or stack.sizes["time"] < 2:
        return candidates[0]
    first = Image(stack[candidates[0]].transpose("time", "y", "x").isel(time=0).data)
    factor = first.factor
    clear = []
    for k in range(stack.sizes["time"]):
        image = Image(stack[candidates[0]].transpose("time", "y", "x").isel(time=k).data, keep=False)
        try:
            clear.append(float(np.isfinite(image.coarse(factor)).mean()))
        except OSError:
            clear.append(0.0)
    # of the clearer half, some spread over time: which band holds its looks best over the seasons is the question
    half = np.flatnonzero(np.array(clear) >= np.median(clear))
    picks = np.linspace(0, len(half) - 1, min(TRIAL_PAIRS + 1, len(half))).round().astype(int)
    tried = [int(half[k]) for k in picks]
    if len(tried) < 2:
        return candidates[0]
    cost = []
    for name in candidates:
        band = stack[name].transpose("time", "y", "x")
        images = [Image(band.isel(time=k).data) for k in tried]
        errors = []
        for first, moving in pairwise(images):
            try:
                found = PhaseMatcher("affine").align(first, moving, seed=seed)
                errors.append(float(found.sigma_px(*(np.array(moving.shape) / 2))))
            except (MatchError, OSError):
                errors.append(UNMATCHED_PX)
        # geometric mean: no single pair of seasons decides
        cost.append(float(np.exp(np.mean(np.log(errors)))))
    best = candidates[int(np.argmin(cost))]
    log.info("matched band: %s (errors %s px)", best, ", ".join(f"{n} {c:.3f}" for n, c in zip(candidates, cost)))
    return best


def logarithm(power):
    """Natural logarithm of SAR power; what is not positive is not observed."""
    return np.log(power.where(power > 0))


def _reference(reference, stack, bands, names, scenes, band):
    """(label, index of the scene or None, Image) of what the scenes are matched to."""
    if isinstance(reference, str):
        if reference in ("auto", "median"):
            at = best_scene(scenes)
            log.info("reference: %s", names[at])
            return names[at], at, scenes[at]
        if reference in names:
            at = names.index(reference)
            return reference, at, scenes[at]
        from difflib import get_close_matches

        near = get_close_matches(reference, [*names, "auto", "median"], 1, 0.0)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"reference {reference!r} is neither 'auto', 'median' nor a scene of the stack.{hint}")
    shape = tuple(scenes[0].shape)
    if isinstance(reference, xr.Dataset):
        check_stack(reference)
        image, label = _median(matching_band(reference, "sar" if is_sar(reference) else band)), "stack"
    elif isinstance(reference, xr.DataArray):
        image, label = reference.transpose("y", "x"), str(reference.name or "image")
        image = (logarithm(image) if reference.name in SAR_BANDS else image).data
    else:
        image, label = np.asarray(reference, np.float32), "image"
    if tuple(image.shape) != shape:
        raise StackError(
            f"the reference has shape {tuple(image.shape)}, the stack {shape}; bring it onto the stack's grid."
        )
    here, there = geobox_of(stack), geobox_of(reference) if isinstance(reference, xr.Dataset | xr.DataArray) else None
    if here is not None and there is not None and here != there:
        raise StackError("the reference lies on another grid than the stack; open it with like=stack.")
    return label, None, Image(image.astype(np.float32))


def _median(bands):
    def middle(series):
        return bottleneck.nanmedian(series.astype(np.float64), axis=1)

    return chunked.per_pixel(middle, bands, outputs={"median": "float32"})["median"].data


def best_scene(scenes) -> int:
    """The scene with the greatest product of clear share and sharpness; the earliest of equals.

    Sharpness is how well the scene shows the structure that the stack has in common: the correlation of its
    band-passed image with that of the median of all. Haze, undetected clouds, snow and blur all lower it.
    """
    factor = scenes[0].factor
    images = []
    for scene in scenes:
        try:
            images.append(scene.coarse(factor))
        except OSError:
            images.append(np.full(tuple(n // factor for n in scene.shape), np.nan, np.float32))
    cube = np.stack(images)
    clear = np.isfinite(cube).mean(axis=(1, 2))
    if not clear.max() > 0:
        raise NoUsableData("no scene of the stack has a valid pixel: nothing can be aligned.")
    common, common_ok = band_pass(bottleneck.nanmedian(cube, axis=0), SEARCH_BAND, 4 * SEARCH_BAND)
    score = np.zeros(len(scenes))
    for k, image in enumerate(images):
        values, ok = band_pass(image, SEARCH_BAND, 4 * SEARCH_BAND)
        both = ok & common_ok
        norm = np.sqrt((values[both] ** 2).sum() * (common[both] ** 2).sum())
        sharpness = (values[both] * common[both]).sum() / norm if norm > 0 else 0.0
        score[k] = clear[k] * (0.01 + max(sharpness, 0.0))
    return int(np.argmax(np.round(score, 6)))


def _middle(found, shape) -> Shift:
    """Where the middle of the stack lies in the reference: the median over the scenes of their mean displacement."""
    moved = np.array([(0.0, 0.0), *(mean_displacement(m.warp, shape) for m in found.values())])
    return Shift(*(-np.median(moved, axis=0)).tolist())


def after(shift, warp):
    """A shift and then a warp as one warp, of the warp's own kind where there is one."""
    if isinstance(warp, Shift):
        return Shift(shift.dy + warp.dy, shift.dx + warp.dx)
    if isinstance(warp, Affine | Projective):
        m = np.array(warp.matrix)
        m[:, 2] += m[:, :2] @ (shift.dy, shift.dx)
        return type(warp)(m)
    return Chain((shift, warp))


def _reference_row(name, frame):
    row = dict.fromkeys(REPORT_COLUMNS, float("nan"))
    row |= {"scene": name, "status": "reference", "n_points": 0, "sigma_px": 0.0} | dict.fromkeys(
        ("method", "model", "reason"), ""
    )
    return row | {"dy": frame.dy if frame else 0.0, "dx": frame.dx if frame else 0.0}


def _row(name, status, match, warp, scene, shape, metre, extra, reason):
    nan = float("nan")
    row = dict.fromkeys(REPORT_COLUMNS, nan) | {"scene": name, "status": status, "n_points": 0, "reason": reason}
    row |= {"method": "", "model": ""}
    if match is not None:
        dy, dx = _mean_over_valid(warp, scene)
        rows, cols = np.meshgrid(*(np.linspace(0, n - 1, 15) for n in shape), indexing="ij")
        sigma = float(np.sqrt((match.sigma_px(rows, cols) ** 2).mean() + extra**2))
        row |= {
            "dy": dy, "dx": dx, "rmse_px": match.rmse_px, "cv_px": match.cv_px, "n_points": match.n_points,
            "sigma_px": sigma, "method": match.method, "model": model_name(match.warp),
            "rmse_m": match.rmse_px * (metre or nan), "cv_m": match.cv_px * (metre or nan),
            "ce90_px": match.ce90_px, "ce90_m": match.ce90_px * (metre or nan),
        }  # fmt: skip
    return row


def _mean_over_valid(warp, scene):
    """Mean (dy, dx) of a warp over the valid area of a scene, px, at the centres of its decimated pixels."""
    factor = scene.factor
    i, j = np.nonzero(np.isfinite(scene.coarse(factor)))
    rows, cols = (i + 0.5) * factor - 0.5, (j + 0.5) * factor - 0.5
    r, c = warp.pull(rows, cols)
    return float((r - rows).mean()), float((c - cols).mean())


def _one_line(result):
    if isinstance(result, Match):
        return f"{result.n_points} points, rmse {result.rmse_px:.2f} px"
    return str(result)
