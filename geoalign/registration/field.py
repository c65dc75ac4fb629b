"""A displacement field fitted to all pixels, coarse to fine, and measured on windows held out of a first fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels import flow
from geoalign.kernels.field_fit import node_grid
from geoalign.kernels.refine import band_pass, spline
from geoalign.kernels.spline import spline_coefficients, spline_eval
from geoalign.registration import quality
from geoalign.registration.field_tiles import field_by_tiles
from geoalign.registration.nodes import Nodes, displacements, node_values, refuse_folds
from geoalign.registration.points import points_of
from geoalign.registration.tiepoints import Image, block_mean, dense_windows, full_level, windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Field

BENDS_PX = (0.01, 0.03, 0.1, 0.3, 0.55, 1.0, 3.0)
"""Bending tried, px: standard deviation of the third difference of the displacement from node to node."""
ORDER = 3
"""Differences that the prior of the field holds small: a quadratic costs nothing, so that gaps are bridged well."""
SPACING_PX = 32.0
"""Nodes of the finest field: the shortest wave it can follow is some five times this."""
COARSEST_PX = 100
"""Shortest side of the coarsest image."""
COARSE_BAND = 0.7
"""Scale (px) of the structure used in decimated images."""
BESIDE_GAPS = 0.9
"""Share of a pixel's neighbourhood that must have been observed for it to take part."""
STILL_PX, STILL_COARSE_PX = 0.003, 0.02
"""Change of the field below which the finest level is done, and one that only leads to the next."""
SETTLED_PX = 0.1
"""Change of the field below which gain and noise stay as they are."""
MOST_STEPS = 8
TRUSTED = 0.7
"""Variance of a field's error over what curvature and scatter of scores give: measured on pairs of known displacement,
clean, clouded and across sensors (benchmarks/registration.py)."""
DRAWS = 96
"""Draws from the error of the field: its variance at the nodes is theirs, known to 15 %."""


@dataclass(frozen=True)
class _Fitted:
    nodes: Nodes
    factor: np.ndarray  # Cholesky factor of the information about the coefficients
    bend: float
    information: np.ndarray  # what the images alone say about them, as `flow.banded` gives it


class _Prepared:
    """Both images at one decimation, ready for Gauss-Newton steps.

    held : (row, col) bool, pixels of the reference that take no part
    """

    def __init__(self, ref, mov, factor, fine):
        self.factor, self.shape = factor, ref.shape
        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(band_pass, mov, fine, 4 * fine, BESIDE_GAPS)
            self.ref, ok = band_pass(ref, fine, 4 * fine, BESIDE_GAPS)
            mov, self.mov_ok = moving.result()
            moving = pool.submit(spline, mov)
            self.by_row, self.by_col, self.known = flow.slopes(self.ref, ok)
            self.mov = moving.result()

    def settle(self, nodes, linear, turn, bends, *, held=None, steps=MOST_STEPS, still=STILL_PX, tries=0) -> _Fitted:
        """Gauss-Newton steps until the field stands still.

        linear : (2, n_row, n_col) coefficients of the start, which the prior does not see; turn : see `flow`
        still : px, change below which it does; tries : steps after the first that choose among neighbouring bends
        """
        n_r, n_c, row0, col0, step_row, step_col = nodes.grid
        f = self.factor
        left_r, w_r = flow.basis(self.shape[0], (row0 + 0.5) / f - 0.5, step_row / f, n_r)
        left_c, w_c = flow.basis(self.shape[1], (col0 + 0.5) / f - 0.5, step_col / f, n_c)
        full_r, full_c = flow.dense_basis(left_r, w_r, n_r), flow.dense_basis(left_c, w_c, n_c)
        known = self.known if held is None else self.known & ~held
        prior = flow.banded(flow.bending(n_r, n_c, ORDER), 1.0)
        rank = 2 * (n_r * n_c - ORDER * (ORDER + 1) // 2)
        coef, response, last = nodes.coef.copy(), 1.0, None
        every = max(1, int(min(step_row, step_col) / f) // 4)
        for step in range(steps):
            mov, seen = flow.warped(self.mov, self.mov_ok, *(full_r @ (c / f) @ full_c.T for c in coef))
            both = (known & seen).astype(np.float64)
            if both.sum() < 256:
                raise MatchError("the images share fewer than 256 pixels where a field is looked for.")
            if last is None or last[3] > SETTLED_PX:
                gain, noise = flow.gain_and_noise(self.ref, mov, both, max(step_row / f, 8.0))
                noise = np.maximum(noise, 1e-3 * float(np.median(noise[both > 0])) + 1e-300)
            hessian, score, spread, trace = flow.normal_and_score(
                self.ref, self.by_row, self.by_col, known, mov, seen, gain, noise, turn,
                left_r, w_r, left_c, w_c, n_r, n_c,
            )  # fmt: skip
            normal, score = flow.banded(hessian, 1.0 / f**2), np.moveaxis(score, 0, -1).ravel() / f
            # neighbouring pixels err together: their scores scatter more than the pixels of a sum should
            scatter = max(spread / max(trace, 1e-300), 1e-12)
            if last is not None and last[3] > 0.03:
                # noise in the reference's gradient makes each step too short by a common factor; the last one tells
                moved = np.moveaxis(coef - last[0], 0, -1).ravel()
                expected = float(moved @ flow.product(last[2], moved))
                if expected > 0:
                    response = float(np.clip((score - last[1]) @ moved / expected, 0.2, 1.2))
            information = normal * (response**2 / scatter)
            away = np.moveaxis(coef - linear, 0, -1).ravel()
            target = flow.product(information, away) - response / scatter * score
            trials = [(*flow.evidence(information, prior, target, b, rank), b) for b in bends]
            _, solution, factor, bend = min(trials, key=lambda t: t[0])
            bends = _around(bend) if len(bends) > 1 and step < tries else (bend,)
            new = linear + np.moveaxis(solution.reshape(n_r, n_c, 2), -1, 0)
            moved = [full_r[::every] @ c @ full_c[::every].T for c in new - coef]
            size = float(np.sqrt((moved[0] ** 2 + moved[1] ** 2).mean()))
            last = (coef, score, normal, size)
            coef = new
            if size < still:
                break
        return _Fitted(Nodes(nodes.grid, coef), factor, bend, information)


def field_match(reference: Image, moving: Image, start, fine, seed, method, *, spacing=SPACING_PX) -> Match:
    """The field that leads from a linear start, measured on windows held out of a first fit.

    fine : scale (px) of the structure at full resolution, from the linear match
    """
    shape = reference.shape
    base = max(reference.base, moving.base)
    factors = [base]
    while min(shape) / (2 * factors[-1]) >= COARSEST_PX:
        factors.append(2 * factors[-1])
    turn = np.linalg.inv(start.jacobian(np.array((shape[0] - 1) / 2), np.array((shape[1] - 1) / 2))).T
    large = reference.by_tiles or moving.by_tiles
    level = None if large else full_level(reference, moving, start).with_windows(windows_for(shape, finer=True))
    windows = dense_windows(shape) if large else level.windows
    check = quality.check_points(np.ones(len(windows.start), bool), seed)
    nodes, bends = None, BENDS_PX
    for factor in reversed(factors):
        grid = node_grid(shape, max(spacing * base, 16.0 * factor))
        linear = displacements(start, grid)
        nodes = Nodes(grid, linear if nodes is None else _onto(nodes, grid, linear))
        pair = (reference.coarse(factor), moving.coarse(factor)) if factor > 1 else _whole(reference, moving)
        images = _Prepared(*pair, factor, fine if factor == 1 else COARSE_BAND)
        held = _held(images.shape, factor, windows, check) if factor == base else None
        still = STILL_PX if factor == base else STILL_COARSE_PX
        fitted = images.settle(nodes, linear, turn, bends, held=held, still=still, tries=0 if factor == base else 2)
        nodes, bends = fitted.nodes, _around(fitted.bend)
    if large:
        del images, pair
        prior = fitted.information + flow.banded(flow.bending(*grid[:2], ORDER), 1.0 / fitted.bend**2)
        return field_by_tiles(reference, moving, nodes, prior, windows, check, fine, seed, method)
    without = fitted.nodes.warp()
    fitted = images.settle(nodes, linear, turn, (fitted.bend,), steps=3)
    warp = fitted.nodes.warp()
    refuse_folds(warp, shape)
    draws = flow.posterior_draws(fitted.factor, DRAWS, seed).reshape(DRAWS, *grid[:2], 2)
    variance = TRUSTED * np.mean([[node_values(draw[..., a]) ** 2 for a in (0, 1)] for draw in draws], axis=(0, 1))
    return _measured(level, warp, without, variance, fine, check, method, shape, start)


def turned_round(match: Match) -> Match:
    """A match by a field of the images in their other roles."""
    back, w = match.warp.inverse(), match.warp
    n_row, n_col = w.dy.shape
    grid = (n_row, n_col, w.row0, w.col0, w.step_row, w.step_col)
    places = {"row": "row_moving", "col": "col_moving", "row_moving": "row", "col_moving": "col"}
    points = match.tie_points.rename(columns=places)[list(match.tie_points.columns)]
    points[["dy_residual", "dx_residual"]] *= -1
    dy, dx = displacements(back, grid)
    return replace(match, warp=Field(dy, dx, *grid[2:]), tie_points=points)


def _whole(*images):
    return tuple(block_mean(image.tiles([None])[0], 1) for image in images)


def _held(shape, factor, windows, check):
    """Pixels of an image decimated by `factor` that lie in the windows held out."""
    held = np.zeros(shape, bool)
    for r, c in windows.start[check] // factor:
        held[r : r + -(-windows.size // factor), c : c + -(-windows.size // factor)] = True
    return held


def _measured(level, warp, without, variance, fine, check, method, shape, start):
    """The Match: residuals of the windows, those held out against the field that was fitted without them."""
    points = points_of(level, warp, fine)
    rows, cols = warp.pull(*points.at.T)
    residual = points.found - np.stack([rows, cols], 1)
    blind = points_of(level, without, fine)
    rows, cols = without.pull(*blind.at.T)
    residual[check] = (blind.found - np.stack([rows, cols], 1))[check]
    usable = points.use & blind.use
    length = np.hypot(*residual.T)
    expected = np.sqrt(np.trace(points.covariance, axis1=1, axis2=2))
    scale = float(np.median((length / expected)[usable])) / 1.1774 if usable.sum() >= 3 else 1.0
    away = usable & (length > 6 * max(scale, 0.3) * expected)
    reason = points.reason.copy()
    reason[~usable & (reason == "")] = "no structure"
    reason[away] = "outlier"
    use = np.where(usable & ~away, np.where(check, "check", "fit"), "rejected").astype(object)
    in_fit, in_check = use == "fit", use == "check"
    if in_fit.sum() < 3:
        raise MatchError(f"only {int(in_fit.sum())} windows bear the field out; 3 are needed at the least.")
    quality.refuse_worse(level, without if in_check.sum() >= 3 else warp, in_check, in_fit, shape)
    return Match(
        warp=warp,
        covariance=variance,
        score=float(np.median(points.score[in_fit])),
        rmse_px=quality.rms_length(residual, in_fit),
        n_points=int(in_fit.sum()),
        method=method,
        tie_points=quality.point_table(
            points.at, points.found, residual, expected / np.sqrt(2) * max(scale, 0.3), points.score, use, reason
        ),
        cv_px=quality.rms_length(residual, in_check),
    )


def _around(bend):
    at = BENDS_PX.index(bend)
    return BENDS_PX[max(at - 1, 0) : at + 2]


def _onto(nodes, grid, linear):
    """The same field on another grid; what is linear of it is carried over exactly."""
    n_row, n_col, row0, col0, step_row, step_col = grid
    _, _, r0, c0, s_r, s_c = nodes.grid
    u = (row0 + step_row * np.arange(n_row) - r0) / s_r
    v = (col0 + step_col * np.arange(n_col) - c0) / s_c
    u, v = np.meshgrid(u, v, indexing="ij")
    values = np.stack([spline_eval(c, u, v) for c in nodes.coef]) - linear
    return linear + np.stack([spline_coefficients(v) for v in values])
