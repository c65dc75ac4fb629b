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
from geoalign.registration.adjust import (
    Frame,
    compose,
    edge,
    enough_points,
    limits,
    rms_sigma_px,
    solve,
)
from geoalign.registration.joint import Joint
from geoalign.registration.neighbours import KEEP_BYTES, Pairs, pairs_along_time, season_days
from geoalign.registration.phase import SEARCH_BAND, NothingToMatch, PhaseMatcher
from geoalign.registration.select import model_name
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import REPORT_COLUMNS, TIE_POINT_COLUMNS, Alignment, Match
from geoalign.types.stack import SAR_BANDS, check_stack, geobox_of, is_sar, pixel_size_m
from geoalign.types.warp import Affine, Shift, mean_displacement

log = logging.getLogger("geoalign")

TRIAL_PAIRS = 4
"""Pairs of scenes matched in each band to choose the band."""
UNMATCHED_PX = 1.0
"""What a pair that can't be matched at all counts in that choice."""
NETWORK_SCENES = 4
"""Scenes from which a stack is solved as a network."""
OPTICAL_BANDS = ("nir", "red", "swir1")
"""Bands that scenes of an optical sensor are matched in."""
PAIR_POINTS = 5
"""Tie points below which a pair is not used: three of them lie on any affine."""
UNSURE_PX = 0.04
"""Predicted error, an axis, from which a scene of an optical network is looked at again in all of them."""
SECOND_ANCHORS = 10
"""Well tied scenes of its season that it is then matched to."""
TRIED_REFERENCES = 3
"""Scenes tried as the reference, and scenes each is tried on."""


def align_stack(stack, matcher, *, reference, band, seed, refine, network) -> Alignment:
    """What `coregister` does once its options are known to be right; see there."""
    check_stack(stack)
    others = _other_bands(stack) if band == "auto" else []
    band = sharpest_band(stack, seed) if band == "auto" else band
    bands = matching_band(stack, band)
    scenes, names = images_of(bands), names_of(stack)
    pairs, label, at, results = _first_pass(reference, stack, bands, names, scenes, band, matcher, seed)
    root = len(scenes) if at is None else at
    frame = Frame(tuple(scenes[0].shape))

    if network is None:
        network = len(names) >= NETWORK_SCENES
    closure, notes = {}, {}
    if network and hasattr(matcher, "align"):
        others = [images_of(matching_band(stack, name)) for name in others if name != band]
        solved = _solved(pairs, results, root, stack.time.values, matcher.model, frame, others)
        results, closure, notes = solved.matches, solved.closure_px, solved.notes
    elif hasattr(matcher, "align"):
        results = {k: enough_points(r, frame.shape) for k, r in results.items()}
    extra = 0.0
    found = {k: m for k, m in results.items() if isinstance(m, Match)}
    target = pairs.scenes[root]
    if refine is None:
        # of a large image the many windows average the speckle already, and reading every tile again is what costs
        refine = is_sar(stack) and not target.by_tiles
    if refine and hasattr(matcher, "align") and len(found) >= Joint.MIN_SCENES:
        found, extra = Joint(target, scenes, at, matcher.model, seed).refined(found)
        results.update(found)

    moved = None
    if isinstance(reference, str) and reference == "median":
        moved, label = _middle(found, frame.shape), "median"
    rows, points, warps = [], [], {}
    for k, name in enumerate(names):
        if k == at:
            warps[name] = moved or Shift(0.0, 0.0)
            rows.append(_reference_row(name, moved) | {"closure_px": closure.get(k, np.nan)})
            continue
        row, warp, table = told(name, results[k], scenes[k], stack, moved, extra)
        row |= {"closure_px": closure.get(k, np.nan), "reason": row["reason"] or notes.get(k, "")}
        rows.append(row)
        if warp is not None:
            warps[name] = warp
            points.append(table)
    return assembled(label, warps, rows, points, stack, band)


def _first_pass(reference, stack, bands, names, scenes, band, matcher, seed):
    """Every scene to the reference: (Pairs, label, the reference's index or None, scene -> Match or error)."""
    if isinstance(reference, str) and reference in ("auto", "median"):
        pairs = Pairs(scenes, matcher, seed)
        at = _simple_reference(pairs, scene_scores(scenes))
        label = names[at]
    else:
        label, at, target = _reference(reference, stack, names, scenes, band)
        given = at is None  # an image from elsewhere may be of another kind
        pairs = Pairs([*scenes, target] if given else scenes, matcher, seed, across=given)
    log.info("reference: %s", label)
    root, results = len(scenes) if at is None else at, {}
    for k, name in enumerate(names):
        if k != at:
            results[k] = pairs.match(root, k)
            log.info("align %s: %s", name, one_line(results[k]))
    return pairs, label, at, results


def _simple_reference(pairs, score) -> int:
    """The best scene that is not itself bent: most others lie on it by a shift or an affine, not by a field.

    The best scene is tried on the next best ones, matches that are needed anyway; only where most of them bend are
    other scenes tried.
    """
    order = [int(k) for k in np.argsort(-np.round(score, 6), kind="stable") if score[k] > 0]
    best = None
    for at in order[:TRIED_REFERENCES]:
        tried = [k for k in order if k != at][:TRIED_REFERENCES]
        matches = [m for m in (pairs.match(at, k) for k in tried) if isinstance(m, Match)]
        share = float(np.mean([not isinstance(m.warp, Shift | Affine) for m in matches])) if matches else 1.0
        if best is None or share < best[0]:
            best = (share, at)
        if share <= 0.5 or not matches:
            break
    return best[1]


def _solved(pairs, results, root, times, model, frame, others):
    """The network of the stack, matched and adjusted; see `adjust.solve`. others : its scenes in other bands."""
    few, _ = limits(frame.shape)
    able = [k for k, r in results.items() if not isinstance(r, NothingToMatch | OSError)]
    weak = {k for k in able if not isinstance(results[k], Match) or results[k].n_points < few}
    warps = {k: results[k].warp for k in able if k not in weak} | {root: Shift(0.0, 0.0)}
    bent = {k for k, w in warps.items() if not isinstance(w, Shift | Affine)}
    edges = [e for k, m in results.items() for e in _measured(root, k, m, frame)]
    inside = able if root == len(times) else [*able, root]
    for i, j in pairs_along_time(times, inside, weak):
        if root in (i, j):
            continue
        straight = "affine" if model == "auto" and not {i, j} & bent else None
        edges += _edges(pairs, i, j, warps, straight, frame)
    solved = solve(edges, results, root, model, frame)
    more = _second_look(pairs, solved, root, times, model, frame, others)
    return solve(edges + more, results, root, model, frame) if more else solved


def _edges(pairs, i, j, warps, model, frame) -> list:
    """The pair i, j measured, from where both are known to lie if they are; nothing where it can't be."""
    start = None
    if i in warps and j in warps:
        start = frame.warp(frame.params(compose(warps[i].inverse(), warps[j])))
    match = pairs.match(i, j, start=start, model=model)
    log.debug("pair %d, %d: %s", i, j, one_line(match))
    return _measured(i, j, match, frame)


def _measured(i, j, match, frame) -> list:
    """The edge of a pair that is a Match of enough points."""
    few = not isinstance(match, Match) or 0 < match.n_points < PAIR_POINTS
    return [] if few else [edge(i, j, match, frame)]


def _second_look(pairs, solved, root, times, model, frame, others) -> list:
    """More measurements of the scenes that are tied badly: to more scenes of their season, and in other bands.

    What little a cloudy scene shows is placed by a few edges, and what the season has done to them in one band it has
    not done in another.
    """
    if not others or model == "field":
        return []
    few, _ = limits(frame.shape)
    warps, unsure = {root: Shift(0.0, 0.0)}, []
    for k, match in sorted(solved.matches.items()):
        if isinstance(match, NothingToMatch | OSError):
            continue
        known = isinstance(match, Match) and match.n_points >= few
        if known and not isinstance(match.warp, Shift | Affine):
            continue
        if known and rms_sigma_px(match, frame.shape) <= UNSURE_PX:
            warps[k] = match.warp
        else:
            unsure.append(k)
    looks = [pairs, *(Pairs(images, pairs.matcher, pairs.seed) for images in others)]
    straight = "affine" if model == "auto" else None
    out = []
    for k in unsure:
        near = sorted((a for a in warps if a < len(times)), key=lambda a: (season_days(times[a], times[k]), a))
        match = solved.matches[k]
        here = warps | ({k: match.warp} if isinstance(match, Match) and isinstance(match.warp, Shift | Affine) else {})
        for a in near[:SECOND_ANCHORS]:
            for number, look in enumerate(looks):
                if number == 0 and ((a, k) in look.found or (k, a) in look.found):
                    continue
                out += _edges(look, a, k, here, straight, frame)
    return out


def images_of(bands) -> list[Image]:
    """The scenes of (time, y, x) as images read on demand."""
    return [Image(bands.isel(time=k).data) for k in range(bands.sizes["time"])]


def names_of(stack) -> list[str]:
    """Scene ids, or the times where there are none."""
    return [str(v) for v in (stack["scene"] if "scene" in stack.coords else stack["time"]).values]


def told(name, result, scene, stack, moved, extra):
    """(row of the report, warp, tie points) of a scene; the latter two None where it was not aligned."""
    metre = pixel_size_m(stack)
    if not isinstance(result, Match):
        status = "failed" if isinstance(result, NothingToMatch | OSError) else "rejected"
        return _row(name, status, None, None, scene, metre, 0.0, str(result)), None, None
    warp = result.warp if moved is None else compose(moved, result.warp)
    table = result.tie_points.assign(scene=name)[["scene", *TIE_POINT_COLUMNS]]
    if moved is not None:
        table = table.assign(row=table.row - moved.dy, col=table.col - moved.dx)
    return _row(name, "aligned", result, warp, scene, metre, extra, ""), warp, table


def assembled(label, warps, rows, points, stack, band) -> Alignment:
    """The Alignment of a stack from its rows and tables."""
    report = pd.DataFrame(rows, columns=list(REPORT_COLUMNS))
    empty = pd.DataFrame(columns=["scene", *TIE_POINT_COLUMNS])
    table = pd.concat(points, ignore_index=True) if points else empty
    return Alignment(label, warps, report, geobox_of(stack), (stack.sizes["y"], stack.sizes["x"]), table, band)


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


def _other_bands(stack) -> list[str]:
    """Bands in which the scenes of an optical stack that fits into memory may be matched besides the sharpest."""
    names = [name for name in OPTICAL_BANDS if name in stack.data_vars]
    small = not names or not Image(stack[names[0]].transpose("time", "y", "x").isel(time=0).data).by_tiles
    return [] if is_sar(stack) or not small else names


def sharpest_band(stack, seed) -> str:
    """The band to match: "sar", or the one of near infrared, red and short-wave infrared that ties scenes best.

    A few pairs of scenes are matched in each; the band whose tie points agree best wins. Which one it is depends on the
    land cover and the season, not on the sensor.
    """
    names = list(map(str, stack.data_vars))
    if is_sar(stack):
        return "sar"
    candidates = [name for name in OPTICAL_BANDS if name in names] or names[:3]
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


def _reference(reference, stack, names, scenes, band):
    """(label, index of the scene or None, image) of what the scenes are matched to, where it was named or given."""
    if isinstance(reference, str):
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
        image, label = median_of(matching_band(reference, band)), "stack"
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


def median_of(bands):
    """The median over time of (time, y, x), lazy where that is."""

    def middle(series):
        return bottleneck.nanmedian(series.astype(np.float64), axis=1)

    return chunked.per_pixel(middle, bands, outputs={"median": "float32"})["median"].data


def best_scene(scenes) -> int:
    """The scene with the greatest product of clear share and sharpness; the earliest of equals."""
    return int(np.argmax(np.round(scene_scores(scenes), 6)))


def scene_scores(scenes) -> np.ndarray:
    """Clear share times sharpness of each scene.

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
        if scene.bytes * len(scenes) > KEEP_BYTES:
            scene.forget()
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
    return score


def _middle(found, shape) -> Shift:
    """Where the middle of the stack lies in the reference: the median over the scenes of their mean displacement."""
    moved = np.array([(0.0, 0.0), *(mean_displacement(m.warp, shape) for m in found.values())])
    return Shift(*(-np.median(moved, axis=0)).tolist())


def _reference_row(name, frame):
    row = dict.fromkeys(REPORT_COLUMNS, float("nan"))
    row |= {"scene": name, "status": "reference", "n_points": 0, "sigma_px": 0.0} | dict.fromkeys(
        ("method", "model", "reason"), ""
    )
    return row | {"dy": frame.dy if frame else 0.0, "dx": frame.dx if frame else 0.0}


def _row(name, status, match, warp, scene, metre, extra, reason):
    nan = float("nan")
    row = dict.fromkeys(REPORT_COLUMNS, nan) | {"scene": name, "status": status, "n_points": 0, "reason": reason}
    row |= {"method": "", "model": ""}
    if match is not None:
        dy, dx = _mean_over_valid(warp, scene)
        sigma = float(np.hypot(rms_sigma_px(match, scene.shape), extra))
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


def one_line(result):
    """A match or an error for the log."""
    if isinstance(result, Match):
        return f"{result.n_points} points, rmse {result.rmse_px:.2f} px"
    return str(result)
