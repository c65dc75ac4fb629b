"""Scenes that match the reference badly are tied through scenes of the same season that match it well."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from geoalign.errors import MatchError
from geoalign.registration import quality
from geoalign.registration.select import FIELD_POINTS, choose, fit
from geoalign.registration.tiepoints import windows_for
from geoalign.types.alignment import Match

log = logging.getLogger("geoalign")

FEW_POINTS = 25
"""Tie points below which a scene is looked at again through its neighbours."""
ENOUGH_POINTS = 10
"""Tie points a scene of a stack needs at the least: fewer are easily all wrong in the same way."""
ANCHORS = 3
"""Neighbours a weak scene is tied to."""
STEADY_PX = 0.05
"""Predicted error below which an aligned scene may serve as an anchor."""


def tie_through_neighbours(results, scenes, at, times, matcher, seed, shape):
    """Match weak scenes again, to well aligned ones of their season, and fit one warp to all their tie points.

    A summer reference and a cloudy winter scene have little in common; the same scene and another of that winter have
    much. Anchors are taken from the first pass only, in a fixed order, so that the answer does not depend on the order
    in which weak scenes are treated.

    Parameters
    ----------
    results : dict scene number -> Match, or the error that refused it
    scenes : Images; at : number of the reference among them, or None
    times : datetime64 (time,)

    Returns
    -------
    dict, with the weak scenes' results replaced where this tied them better; a scene of a stack that in the end has
    fewer than `ENOUGH_POINTS` tie points (a quarter of its windows, where that is less) is refused.
    """
    out = dict(results)
    # small images have few windows: half of them is as much as can be asked
    windows = len(windows_for(shape).start)
    few, enough = min(FEW_POINTS, windows // 2), min(ENOUGH_POINTS, max(3, windows // 4))
    good = [k for k, m in results.items() if isinstance(m, Match) and m.n_points >= few]
    steady = [k for k in good if _sigma(results[k], shape) < STEADY_PX]
    steady += [] if at is None else [at]
    for k, first in results.items():
        if k in good:
            continue
        if isinstance(first, Exception) and not isinstance(first, MatchError):
            continue
        anchors = sorted(steady, key=lambda a: (_season_days(times[a], times[k]), a))[:ANCHORS]
        second = _tied(k, [a for a in anchors if a != at], results, scenes, matcher, seed, shape, first, enough)
        kept = isinstance(first, Match) and first.n_points >= enough
        if isinstance(second, Match) and not (kept and _sigma(first, shape) <= _sigma(second, shape)):
            log.debug("scene %d is tied through %d neighbours", k, len(anchors))
            out[k] = second
        if isinstance(out[k], Match) and out[k].n_points < enough:
            out[k] = MatchError(
                f"only {out[k].n_points} tie points agree on a warp; a scene of this stack needs {enough}, "
                "because fewer can all be wrong in the same way."
            )
    return out


def _tied(k, anchors, results, scenes, matcher, seed, shape, first, enough):
    """One warp through the tie points of scene k to all its anchors (and to the reference); None where too few."""
    tables = [first.tie_points] if isinstance(first, Match) else []
    for a in anchors:
        try:
            match = matcher.align(scenes[a], scenes[k], seed=seed)
        except MatchError:
            continue
        table = match.tie_points.copy()
        # the points were measured in the anchor's frame: bring them into the reference's
        table["row"], table["col"] = results[a].warp.inverse().pull(table["row"], table["col"])
        table["sigma_px"] = np.hypot(table["sigma_px"], _sigma(results[a], shape))
        tables.append(table)
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True)
    table = table[table["use"] != "rejected"].reset_index(drop=True)
    if len(table) < enough:
        return None
    at, found = table[["row", "col"]].to_numpy(), table[["row_moving", "col_moving"]].to_numpy()
    # points of one window to several anchors share the scene's own noise: they count as one measurement
    covariance = np.eye(2) * (table["sigma_px"].to_numpy() ** 2)[:, None, None] * len(tables)
    check = quality.check_points(np.ones(len(table), bool), seed)
    options = {"use": ~check, "shape": shape}
    if matcher.model == "auto":
        # several looks at one window do not make it two windows: a field would follow their noise
        ladder = ("shift", "similarity", "affine")
        fitted = choose(at, found, covariance, ladder=ladder, **options)
    elif matcher.model == "field" and (~check).sum() < FIELD_POINTS:
        return None
    else:
        fitted = fit(matcher.model, at, found, covariance, **options)
    if fitted is None:
        return None
    outlier = np.where(check, fitted.length > 6.0, fitted.weight <= 0)
    use = np.where(outlier, "rejected", np.where(check, "check", "fit")).astype(object)
    reason = np.where(outlier, "outlier", "").astype(object)
    sigma, score = table["sigma_px"].to_numpy(), table["score"].to_numpy()
    return Match(
        warp=fitted.warp,
        covariance=fitted.covariance,
        score=float(np.median(score[~outlier])) if (~outlier).any() else 0.0,
        rmse_px=quality.rms_length(fitted.residual, use == "fit"),
        n_points=int((use == "fit").sum()),
        method="phase",
        tie_points=quality.point_table(at, found, fitted.residual, sigma, score, use, reason),
        cv_px=quality.rms_length(fitted.residual, use == "check"),
    )


def _sigma(match, shape) -> float:
    rows, cols = np.meshgrid(*(np.linspace(0, n - 1, 7) for n in shape), indexing="ij")
    return float(np.sqrt((match.sigma_px(rows, cols) ** 2).mean()))


def _season_days(one, other) -> float:
    """Days between two dates within the year, and a little for every year between them."""
    days = abs(float((one - other) / np.timedelta64(1, "D")))
    within = days % 365.25
    return min(within, 365.25 - within) + 0.05 * days
