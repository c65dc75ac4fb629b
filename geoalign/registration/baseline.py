"""New scenes on a baseline whose alignment is frozen: each tied to baseline scenes alone."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import xarray as xr

from geoalign.errors import ConfigError, StackError
from geoalign.registration.adjust import Frame, compose, edge, seen_from_reference, solve
from geoalign.registration.neighbours import Pairs, season_days
from geoalign.registration.network import assembled, images_of, matching_band, names_of, one_line, sharpest_band, told
from geoalign.registration.phase import NothingToMatch
from geoalign.types.alignment import Alignment, Match
from geoalign.types.stack import check_stack, geobox_of
from geoalign.types.warp import Affine, Shift

log = logging.getLogger("geoalign")

BASELINE_ANCHORS = 4
"""Scenes of a frozen baseline that a new one is tied to, besides the baseline's reference."""
BENT_MODELS = ("field", "projective", "polynomial2")


def align_to_baseline(stack, baseline, frozen, matcher, *, band, seed) -> Alignment:
    """New scenes on a baseline whose alignment is kept: each to baseline scenes alone, so that no order can matter."""
    check_stack(stack)
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
        log.info("align %s: %s", name, one_line(result))
        row, warp, table = told(name, result, new[k], stack, None, 0.0)
        rows.append(row | {"closure_px": closure, "reason": row["reason"] or note})
        if warp is not None:
            warps[name] = warp
            points.append(table)
    return assembled(frozen.reference, warps, rows, points, stack, band)


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
