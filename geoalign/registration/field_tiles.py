"""A field of images too large to be held: fitted to decimated ones, then to windows at full resolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels import flow
from geoalign.kernels.field_tiles import point_normal, weights_at
from geoalign.kernels.fit import tukey
from geoalign.registration import quality
from geoalign.registration.nodes import Nodes, node_values, refuse_folds
from geoalign.registration.points import FLOOR_PX, points_of, response_of
from geoalign.registration.select import fit
from geoalign.registration.tiepoints import Image, full_level
from geoalign.types.alignment import Match

TRUST = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Error of the decimated field over what it was said to be: the windows tell which, as far as they can. A priori it is
within a factor of two: windows that are noisier than the field know nothing of it, and it would pass for perfect."""
STILL_PX = 0.003
"""What fitting the decimated images leaves open, in their pixels; it is alike over wide areas, and windows that are
noisy do not show it."""
ROUNDS = 3
"""Times the windows are measured at the most, each around what the last ones gave."""
SETTLED_PX = 0.05
"""Change of the field, rms, from which measuring once more would change nothing."""
LEAST_PX = 0.002
"""Error of a window that no amount of structure removes, an axis; what aliasing does is measured with the rest."""
DRAWS = 96
"""Draws from the error of the field: its variance at the nodes is theirs, known to 15 %."""


def field_by_tiles(reference: Image, moving: Image, nodes: Nodes, prior, windows, check, fine, seed, method) -> Match:
    """The Match by a field, from one fitted to decimated images and windows at full resolution.

    nodes : the field so far; prior : inverse covariance of its coefficients up to a factor, px^-2, as `flow.banded`
    gives it; windows, check : where full resolution is read, and those of them held out; fine : scale (px) of the
    structure there

    What both say is put together by least squares. How far each is to be trusted is asked of the windows: the field's
    error by the evidence of their residuals (MacKay 1992, doi:10.1162/neco.1992.4.3.415), and the result's by the
    windows held out, whose residuals scale the covariance.
    """
    warp = nodes.warp()
    # what the filter reaches, and a few px for what the field left over
    level = full_level(reference, moving, warp, windows, margin=int(np.ceil(14 * fine)) + 8)
    checked = level.part(check)
    for _ in range(ROUNDS):
        response = response_of(checked, warp, fine)
        points = points_of(level, warp, fine, response)
        points = _calibrated(points, _scatter(checked, warp, fine, response))
        kept = points.use & ~check
        if kept.sum() < 12:
            raise MatchError(f"only {int(kept.sum())} of {len(kept)} windows could be matched at full resolution.")
        blind = _joined(nodes, prior, points, kept)[0].warp()
        moved = _residual(points, blind) - _residual(points, warp)
        warp = blind
        if np.sqrt((moved[kept] ** 2).sum(axis=1).mean()) < SETTLED_PX:
            break
    floor_px = STILL_PX * max(reference.base, moving.base)
    return _measured(level, points, nodes, prior, blind, check, seed, method, reference.shape, floor_px)


def _residual(points, warp):
    return points.found - np.stack(warp.pull(*points.at.T), axis=1)


def _scatter(level, warp, fine, response):
    """Variance of the windows' errors over what they were predicted to be, apart from the floor.

    From how the quarters of a window differ among themselves: the field is the same to them, so that its error does not
    pass for theirs.
    """
    half = level.windows.size // 2
    quarters = np.array([(0, 0), (0, half), (half, 0), (half, half)])
    points = points_of(level.with_parts(quarters, half), warp, fine, response)
    left = _residual(points, warp).reshape(-1, 4, 2)
    use = points.use.reshape(-1, 4).all(axis=1)
    if use.sum() < 9:
        return 1.0
    left = left - left.mean(axis=1, keepdims=True)
    error = np.trace(points.covariance, axis1=1, axis2=2).reshape(-1, 4) / 2 - FLOOR_PX**2
    # each axis of four residuals from their mean has three quarters of their variance
    ratio = (left**2).sum(axis=2) / (0.75 * error)
    return float(np.median(ratio[use])) / 1.3863


def _calibrated(points, factor):
    """The points with the errors that they have: what was predicted times a factor."""
    own = (points.covariance - np.eye(2) * FLOOR_PX**2) * factor + np.eye(2) * LEAST_PX**2
    return replace(points, covariance=np.where(points.use[:, None, None], own, np.eye(2)))


def _joined(nodes, prior, points, use):
    """(Nodes, Cholesky factor, weights): the field, changed by the windows as far as they know better."""
    left = _residual(points, nodes.warp())
    level = fit("affine", points.at, points.at + left, points.covariance, use=use, shape=_extent(nodes.grid))
    n_r, n_c, row0, col0, step_r, step_c = nodes.grid
    coef = nodes.coef.copy()
    if level is not None:
        # what all windows agree on is no error of single nodes
        rows, cols = np.meshgrid(row0 + step_r * np.arange(n_r), col0 + step_c * np.arange(n_c), indexing="ij")
        r, c = level.warp.pull(rows, cols)
        coef += np.stack([r - rows, c - cols])
        left = left - (np.stack(level.warp.pull(*points.at.T), axis=1) - points.at)
    basis = (
        *weights_at((points.at[:, 0] - row0) / step_r, n_r),
        *weights_at((points.at[:, 1] - col0) / step_c, n_c),
    )
    inverse = np.linalg.inv(points.covariance)
    weight, _ = tukey(np.einsum("ni,nij,nj->n", left, inverse, left), use, 0)
    trust, solution = TRUST, np.zeros_like(coef)
    for step in range(3):
        hessian, right = point_normal(*basis, inverse * weight[:, None, None], left, n_r, n_c)
        normal, right = flow.banded(hessian, 1.0), np.moveaxis(right, 0, -1).ravel()
        trials = [(*flow.evidence(normal, prior, right, t, len(right)), t) for t in trust]
        _, delta, cholesky, best = min(trials, key=lambda trial: trial[0] + np.log2(trial[3]) ** 2)
        solution = np.moveaxis(delta.reshape(n_r, n_c, 2), -1, 0)
        if step == 2:
            break
        # what the field can't follow is an outlier now
        after = left - _at(solution, basis)
        weight, _ = tukey(np.einsum("ni,nij,nj->n", after, inverse, after), use, 0)
        trust = TRUST[max(TRUST.index(best) - 1, 0) : TRUST.index(best) + 2] if step == 0 else (best,)
    return Nodes(nodes.grid, coef + solution), cholesky, weight


def _at(coef, basis):
    """Value of the field's coefficients at the points, (n, 2)."""
    left_r, w_r, left_c, w_c = basis
    rows, cols = left_r[:, None] + np.arange(4), left_c[:, None] + np.arange(4)
    patch = coef[:, rows[:, :, None], cols[:, None, :]]
    return np.einsum("anij,ni,nj->na", patch, w_r, w_c)


def _extent(grid):
    return tuple(int(round(step * (n - 5))) + 1 for n, step in zip(grid[:2], grid[4:]))


def _measured(level, points, nodes, prior, blind, check, seed, method, shape, floor_px):
    """The Match by the field with all windows; those held out against the one without them, `blind`."""
    residual = _residual(points, blind)
    nodes, cholesky, weight = _joined(nodes, prior, points, points.use)
    warp = nodes.warp()
    refuse_folds(warp, shape)
    draws = flow.posterior_draws(cholesky, DRAWS, seed).reshape(DRAWS, *nodes.grid[:2], 2)
    variance = np.mean([[node_values(draw[..., a]) ** 2 for a in (0, 1)] for draw in draws], axis=(0, 1))
    residual[~check] = _residual(points, warp)[~check]
    own = np.trace(points.covariance, axis1=1, axis2=2) / 2
    field = _sigma2(warp, variance, points.at)
    told = own + field
    ratio = (residual**2).sum(axis=1) / told
    scale = float(np.median(ratio[check & points.use])) / 1.3863 if (check & points.use).sum() >= 9 else 1.0
    # held-out windows speak of the field as far as its error is not hidden in theirs
    scale = max(1.0 + (scale - 1.0) * float(np.median((field / told)[points.use])), 1.0)
    away = points.use & (ratio > 36 * max(scale, 1.0))
    away |= points.use & ~check & (weight <= 0)
    reason = points.reason.copy()
    reason[away] = "outlier"
    use = np.where(points.use & ~away, np.where(check, "check", "fit"), "rejected").astype(object)
    in_fit, in_check = use == "fit", use == "check"
    if in_fit.sum() < 3:
        raise MatchError(f"only {int(in_fit.sum())} windows bear the field out; 3 are needed at the least.")
    judge = in_check if in_check.sum() >= 3 else in_fit
    everything = np.ones(int(judge.sum()), bool)
    quality.refuse_worse(level.part(judge), blind, everything, everything, shape)
    return Match(
        warp=warp,
        covariance=variance * scale + floor_px**2,
        score=float(np.median(points.score[in_fit])),
        rmse_px=quality.rms_length(residual, in_fit),
        n_points=int(in_fit.sum()),
        method=method,
        tie_points=quality.point_table(points.at, points.found, residual, np.sqrt(own), points.score, use, reason),
        cv_px=quality.rms_length(residual, in_check),
    )


def _sigma2(warp, variance, at):
    return Match(warp, variance, 0.0, 0.0, 0, "", None).sigma_px(*at.T) ** 2
