"""Tie points: what one pass over the windows measures around a warp, and how sure each is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.registration.tiepoints import Level
from geoalign.types.warp import Chain, Shift

FLOOR_PX = 0.01
"""Error of a tie point that no amount of structure removes (aliasing, interpolation), an axis."""


@dataclass(frozen=True)
class Points:
    """Tie points as one pass over the windows measured them; (n, ...) over all windows."""

    at: np.ndarray  # (n, 2) reference row, col: the centre of the structure in the window
    found: np.ndarray  # (n, 2) moving row, col
    covariance: np.ndarray  # (n, 2, 2) px^2, right up to a common factor
    use: np.ndarray
    score: np.ndarray
    reason: np.ndarray


def points_of(level: Level, warp, fine, response=1.0) -> Points:
    """Measure every window once around `warp`. `response`: the part of a displacement that one step answers with."""
    out = level.step(warp, fine)
    left, size = out[:, :2] / response, level.windows.size
    reason = np.full(len(out), "", object)
    sigma2 = 0.5 * (out[:, 2] + out[:, 3]) / response**2
    with np.errstate(invalid="ignore"):
        reason[~(sigma2 < 9.0)] = "no structure"
        reason[~(np.abs(left).max(axis=1) < 3.0) & (reason == "")] = "beyond the refinement's reach"
        reason[out[:, 6] < 0.25 * size**2] = "masked or outside"
    use = reason == ""
    middle = np.where(use[:, None], level.windows.start + out[:, 7:9], level.windows.centre)
    left = np.where(use[:, None], left, 0.0)
    rows, cols = warp.pull(middle[:, 0] + left[:, 0], middle[:, 1] + left[:, 1])
    error = np.broadcast_to(np.eye(2), (len(out), 2, 2)).copy()
    error[use] = np.stack([out[use, 2], out[use, 4], out[use, 4], out[use, 3]], 1).reshape(-1, 2, 2) / response**2
    jac = warp.jacobian(middle[:, 0], middle[:, 1])
    error = jac @ error @ jac.transpose(0, 2, 1) + np.eye(2) * FLOOR_PX**2
    score = np.where(use, np.clip(np.nan_to_num(out[:, 5]), 0.0, 1.0), 0.0)
    return Points(middle, np.stack([rows, cols], 1), error, use, score, reason)


def response_of(level: Level, warp, fine, probe=0.3) -> float:
    """The part of a displacement that one least-squares step answers with.

    Noise in the reference's gradient makes each step too short by a common factor. It is measured, not modelled: the
    windows are asked again with the warp displaced by +-`probe` px.
    """
    near, far = (level.step(_displaced(warp, h), fine) for h in (probe, -probe))
    answer = (far[:, :2] - near[:, :2]).mean(axis=1) / (2 * probe)
    info = 1.0 / (near[:, 2:4].mean(axis=1) + far[:, 2:4].mean(axis=1) + FLOOR_PX**2)
    good = np.isfinite(answer) & np.isfinite(info) & (np.abs(answer) < 3)
    if not good.any():
        return 1.0
    return float(np.clip((answer * info)[good].sum() / info[good].sum(), 0.15, 1.5))


def _displaced(warp, h):
    return Chain((Shift(h, h), warp))
