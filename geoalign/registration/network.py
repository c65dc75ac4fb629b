"""A whole stack against one reference: every scene aligned, refused with its reason, or failed with its reason."""

from __future__ import annotations

import logging
from dataclasses import replace
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
    seen_from_reference,
    solve,
)
from geoalign.registration.auto import AutoMatcher
from geoalign.registration.joint import Joint
from geoalign.registration.neighbours import KEEP_BYTES, Held, Pairs, pairs_along_time, season_days
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
TRIED_REFERENCES = 3
"""Scenes tried as the reference, and scenes each is tried on."""
BASELINE_ANCHORS = 4
"""Scenes of a frozen baseline that a new one is tied to, besides the baseline's reference."""
BENT_MODELS = ("field", "projective")


def align_stack(stack, matcher, *, reference, band, seed, refine, network, frozen) -> Alignment:
    """What `coregister` does once its options are known to be right; see there."""
    check_stack(stack)
    if frozen is not None:
        return align_to_baseline(stack, reference, frozen, matcher, band=band, seed=seed)
    if isinstance(reference, xr.Dataset) and is_sar(reference) != is_sar(stack):
        options = {"seed": seed, "refine": refine, "network": network}
        return align_across(stack, reference, matcher, band=band, **options)
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
        solved = _solved(pairs, results, root, stack.time.values, matcher.model, frame)
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
        row, warp, table = _told(name, results[k], scenes[k], stack, moved, extra)
        row |= {"closure_px": closure.get(k, np.nan), "reason": row["reason"] or notes.get(k, "")}
        rows.append(row)
        if warp is not None:
            warps[name] = warp
            points.append(table)
    return _alignment(label, warps, rows, points, stack)


def _first_pass(reference, stack, bands, names, scenes, band, matcher, seed):
    """Every scene to the reference: (Pairs, label, the reference's index or None, scene -> Match or error)."""
    if isinstance(reference, str) and reference in ("auto", "median"):
        pairs = Pairs(scenes, matcher, seed)
        at = _simple_reference(pairs, scene_scores(scenes))
        label = names[at]
    else:
        label, at, target = _reference(reference, stack, names, scenes, band)
        pairs = Pairs(scenes if at is not None else [*scenes, target], matcher, seed)
    log.info("reference: %s", label)
    root, results = len(scenes) if at is None else at, {}
    for k, name in enumerate(names):
        if k != at:
            results[k] = pairs.match(root, k)
            log.info("align %s: %s", name, _one_line(results[k]))
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


def _solved(pairs, results, root, times, model, frame):
    """The network of the stack, matched and adjusted; see `adjust.solve`."""
    few, _ = limits(frame.shape)
    able = [k for k, r in results.items() if not isinstance(r, NothingToMatch | OSError)]
    weak = {k for k in able if not isinstance(results[k], Match) or results[k].n_points < few}
    warps = {k: results[k].warp for k in able if k not in weak} | {root: Shift(0.0, 0.0)}
    bent = {k for k, w in warps.items() if not isinstance(w, Shift | Affine)}
    edges = [edge(root, k, m, frame) for k, m in results.items() if isinstance(m, Match)]
    inside = able if root == len(times) else [*able, root]
    for i, j in pairs_along_time(times, inside, weak):
        if root in (i, j):
            continue
        start = None
        if i in warps and j in warps:
            start = frame.warp(frame.params(compose(warps[i].inverse(), warps[j])))
        straight = "affine" if model == "auto" and not {i, j} & bent else None
        match = pairs.match(i, j, start=start, model=straight)
        log.debug("pair %d, %d: %s", i, j, _one_line(match))
        if isinstance(match, Match):
            edges.append(edge(i, j, match, frame))
    return solve(edges, results, root, model, frame)


def align_to_baseline(stack, baseline, frozen, matcher, *, band, seed) -> Alignment:
    """New scenes on a baseline whose alignment is kept: each to baseline scenes alone, so that no order can matter."""
    if not isinstance(baseline, xr.Dataset):
        raise ConfigError("frozen= keeps the alignment of a baseline; give the baseline's Stack as reference=.")
    check_stack(baseline)
    shape = (stack.sizes["y"], stack.sizes["x"])
    if (baseline.sizes["y"], baseline.sizes["x"]) != shape or tuple(frozen.shape) != shape:
        raise StackError(
            f"the new scenes have {shape} px, the baseline {(baseline.sizes['y'], baseline.sizes['x'])} and its "
            f"alignment {tuple(frozen.shape)}; open all on one grid with like=."
        )
    if geobox_of(stack) != geobox_of(baseline):
        raise StackError("the baseline lies on another grid than the new scenes; open them with like=baseline.")
    known = names_of(baseline)
    anchors = [k for k, name in enumerate(known) if name in frozen.warps]
    if not anchors:
        raise StackError("no scene of the baseline has a warp in the frozen alignment; was it made of another stack?")
    # of the baseline alone: a band chosen with the new scenes would depend on what else has arrived
    band = sharpest_band(baseline, seed) if band == "auto" else band
    old, new = images_of(matching_band(baseline, band)), images_of(matching_band(stack, band))
    sigma = dict(zip(frozen.report["scene"].astype(str), frozen.report["sigma_px"].astype(float)))
    times = {k: baseline.time.values[k] for k in anchors}
    frame, rows, points, warps = Frame(shape), [], [], {}
    for k, name in enumerate(names_of(stack)):
        pairs = Pairs([*old, new[k]], matcher, seed)
        result, closure, note = _tied(
            pairs, [a for a in anchors if known[a] != name], known, frozen, times, sigma, stack.time.values[k], frame
        )
        new[k].forget()
        log.info("align %s: %s", name, _one_line(result))
        row, warp, table = _told(name, result, new[k], stack, None, 0.0)
        rows.append(row | {"closure_px": closure, "reason": row["reason"] or note})
        if warp is not None:
            warps[name] = warp
            points.append(table)
    return _alignment(frozen.reference, warps, rows, points, stack)


def _tied(pairs, anchors, known, frozen, times, sigma, when, frame):
    """(Match or error, closure px, note) of the last scene of `pairs` with the frame of a frozen alignment."""
    new, root = len(pairs.scenes) - 1, -1
    model = getattr(pairs.matcher, "model", "auto")
    anchors = sorted(anchors, key=lambda a: (season_days(times[a], when), a))
    plain = [a for a in anchors if isinstance(frozen.warps[known[a]], Shift | Affine)]
    anchors = (plain or anchors)[:BASELINE_ANCHORS]
    if frozen.reference in known and frozen.reference in frozen.warps:
        first = known.index(frozen.reference)
        anchors = [first, *(a for a in anchors if a != first)]
    edges, start, reason, bent = [], None, None, None
    for a in anchors:
        lies = frozen.warps[known[a]]
        near = None if start is None else compose(frame.warp(frame.params(lies)).inverse(), start)
        # that a scene is bent is only asked of the first anchor, the others would each be answered another field
        plain = "affine" if model == "auto" and (edges or reason is not None) else None
        match = pairs.match(a, new, start=near, model=plain)
        if isinstance(match, NothingToMatch | OSError):
            return match, np.nan, ""
        if not isinstance(match, Match):
            reason = reason or match
            continue
        if not edges and not isinstance(match.warp, Shift | Affine) and isinstance(lies, Shift):
            bent = replace(match, warp=compose(lies.inverse(), match.warp))
        seen = seen_from_reference(match, lies, np.nan_to_num(sigma.get(known[a], 0.0)), frame)
        edges.append(edge(root, new, seen, frame))
        start = seen.warp if start is None else start
    if not edges:
        return reason, np.nan, ""
    solved = solve(edges, {new: edges[0].match}, root, "affine" if model in BENT_MODELS else model, frame)
    closure = solved.closure_px.get(new, np.nan)
    if bent is not None:
        return bent, closure, ""
    result = solved.matches[new]
    tied = isinstance(result, Match)
    return result, closure, f"tied to {len(edges)} scenes of the baseline" if tied else ""


def align_across(stack, reference, matcher, *, band, seed, refine, network) -> Alignment:
    """A stack of one kind of sensor on one of another: within itself first, then composite on composite.

    The mean of the aligned SAR scenes' logarithms has little speckle, the median of the optical ones no clouds; one
    match of the two holds for all scenes.
    """
    within = AutoMatcher(getattr(matcher, "model", "auto"), getattr(matcher, "max_shift_px", None))
    own = align_stack(
        stack, within, reference="auto", band=band, seed=seed, refine=refine, network=network, frozen=None
    )
    check_stack(reference)
    if (reference.sizes["y"], reference.sizes["x"]) != tuple(own.shape) or geobox_of(reference) != geobox_of(stack):
        raise StackError("the reference lies on another grid than the stack; open it with like=stack.")
    shown = _composite(own.apply(stack), band, seed)
    match = Pairs([_composite(reference, "auto", seed), shown], matcher, seed).match(0, 1)
    log.info("composite of the stack on that of the reference: %s", _one_line(match))
    report = own.report.copy()
    lies = report["scene"].isin(list(own.warps))
    if not isinstance(match, Match):
        blank = [c for c in REPORT_COLUMNS if c not in ("scene", "status", "n_points", "method", "model", "reason")]
        report.loc[lies, blank] = np.nan
        report.loc[lies, ["status", "method", "model"]] = "rejected", "", ""
        report.loc[lies, "reason"] = f"the stack's composite can't be tied to the reference's: {match}"
        return Alignment("stack", {}, report, own.geobox, own.shape)
    shape = tuple(own.shape)
    warps = {name: compose(match.warp, warp) for name, warp in own.warps.items()}
    moved = {name: mean_displacement(warp, shape) for name, warp in warps.items()}
    report.loc[lies, "dy"] = [moved[name][0] for name in report.loc[lies, "scene"]]
    report.loc[lies, "dx"] = [moved[name][1] for name in report.loc[lies, "scene"]]
    report.loc[lies, "model"] = [model_name(warps[name]) for name in report.loc[lies, "scene"]]
    report.loc[lies, "sigma_px"] = np.hypot(report.loc[lies, "sigma_px"], rms_sigma_px(match, shape))
    report.loc[lies, ["status", "method"]] = "aligned", match.method
    metre = pixel_size_m(stack) or np.nan
    common = {"rmse_px": match.rmse_px, "cv_px": match.cv_px, "ce90_px": match.ce90_px}
    for name, value in common.items():
        # within the stack and across sensors, one after the other
        report.loc[lies, name] = np.hypot(report.loc[lies, name].fillna(0.0), value)
        report.loc[lies, name.replace("_px", "_m")] = report.loc[lies, name] * metre
    points = own.points.copy()
    if len(points):
        back = match.warp.inverse().pull(points["row"].to_numpy(float), points["col"].to_numpy(float))
        points["row"], points["col"] = back
    return Alignment("stack", warps, report, own.geobox, own.shape, points)


def _composite(stack, band, seed) -> Held:
    """What a stack of aligned scenes shows without its noise: the mean of logarithms for SAR, else the median."""
    if band == "auto":
        band = sharpest_band(stack, seed)
    bands = matching_band(stack, band)
    if not is_sar(stack):
        return Held(_median(bands))

    def mean(series):
        return bottleneck.nanmean(series.astype(np.float64), axis=1)

    return Held(chunked.per_pixel(mean, bands, outputs={"mean": "float32"})["mean"].data)


def images_of(bands) -> list[Held]:
    """The scenes of (time, y, x) as images read on demand."""
    return [Held(bands.isel(time=k).data) for k in range(bands.sizes["time"])]


def names_of(stack) -> list[str]:
    """Scene ids, or the times where there are none."""
    return [str(v) for v in (stack["scene"] if "scene" in stack.coords else stack["time"]).values]


def _told(name, result, scene, stack, moved, extra):
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


def _alignment(label, warps, rows, points, stack) -> Alignment:
    report = pd.DataFrame(rows, columns=list(REPORT_COLUMNS))
    empty = pd.DataFrame(columns=["scene", *TIE_POINT_COLUMNS])
    table = pd.concat(points, ignore_index=True) if points else empty
    return Alignment(label, warps, report, geobox_of(stack), (stack.sizes["y"], stack.sizes["x"]), table)


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
        image, label = _median(matching_band(reference, band)), "stack"
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
    return label, None, Held(image.astype(np.float32))


def _median(bands):
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


def _one_line(result):
    if isinstance(result, Match):
        return f"{result.n_points} points, rmse {result.rmse_px:.2f} px"
    return str(result)
