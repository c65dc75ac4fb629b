"""How good a match is: is there any evidence at all, which points check it, and the table of points."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoalign.errors import MatchError
from geoalign.kernels.refine import orientation_agreement, orientation_agreements
from geoalign.registration.select import distance_px
from geoalign.types.alignment import TIE_POINT_COLUMNS
from geoalign.types.warp import Shift, mean_displacement

JUDGE_BAND = 1.4
"""Scale (px) of the edges whose directions judge a warp."""
APART_PX = 0.3
"""Warps nearer to each other than this can't be told apart by the directions of edges."""

EVIDENCE = 6.0
"""Standard deviations the pooled correlation must stand above that of wrong lags. Of two images of noise the best lag
of a whole search stands at 2 to 5."""
RIDGE = 1.5
"""Standard deviations the peak must stand above the best of the lags around it."""


def evidence(surfaces, shared, offset, ridge=RIDGE) -> float:
    """How far the pooled correlation at the matched place stands out from other lags, in standard deviations.

    surfaces : (n, lags, lags) correlation of each window around the place the search expected; shared : (n,) part of
        the window compared; offset : (n, 2) where the final warp lies on each surface, px from its centre
    """
    n, side, _ = surfaces.shape
    inner = side // 2 - 1
    lags = np.hypot(*np.mgrid[-inner : inner + 1, -inner : inner + 1])
    pooled, total, total2, spread2 = np.zeros(lags.shape), 0.0, 0.0, 0.0
    shift = np.rint(offset).astype(int)
    for k in range(n):
        if shared[k] < 0.25 or np.abs(shift[k]).max() > 1:
            continue
        i, j = 1 + shift[k]
        surface = surfaces[k, i : i + 2 * inner + 1, j : j + 2 * inner + 1]
        pooled += shared[k] * surface
        total += shared[k]
        total2 += shared[k] ** 2
        spread2 += shared[k] * float((surface[lags > 3.5] ** 2).mean())
    if total <= 0 or spread2 <= 0:
        return 0.0
    pooled /= total
    peak = float(pooled[lags <= 1.5].max())
    # windows are independent: the mean over them is steadier than one by the root of their (weighted) number
    noise = float(np.sqrt(spread2 / total * total2 / total**2))
    # of waves and furrows a lag along the crests does as well as the right one: the images say nothing about it
    if peak - pooled[lags > 3.5].max() <= ridge * noise:
        return 0.0
    return peak / noise


def refuse_worse(level, warp, check, used, shape, sigma_px=0.0):
    """MatchError where held-out windows like no motion, or a plain shift, better than the warp.

    They are asked with another similarity than the one that found it: do the edges of the two images run in the same
    directions, whatever their contrast? Windows used in the fit are asked where fewer than three were held out.
    """
    judge = check if check.sum() >= 3 else check | used
    score = None
    for other, name in ((Shift(0.0, 0.0), "no motion"), (Shift(*mean_displacement(warp, shape)), "a plain shift")):
        apart = distance_px(warp, other, shape)
        if apart <= max(APART_PX, 4 * sigma_px):
            continue
        if score is None:
            score = edge_agreement(level, warp)[judge]
        gain = score - edge_agreement(level, other)[judge]
        if not np.nanmean(gain) > 0:
            raise MatchError(
                f"the warp found is no better than {name} on held-out windows, {apart:.2f} px apart: the edges agree "
                f"by {np.nanmean(score):.3f} against {np.nanmean(score - gain):.3f}."
            )


def edge_agreement(level, warp):
    """How well the directions of edges agree in each window, -1..1 (0 by chance); NaN where too little is seen."""
    size = level.windows.size
    rows, cols = warp.pull(*level.windows.grid())
    if level.whole:
        tiles = (*level.prepared("ref", 0, JUDGE_BAND), *level.prepared("mov", 0, JUDGE_BAND))
        return level.over_windows(orientation_agreements, *tiles, rows, cols)
    out = np.full(len(rows), np.nan)
    for k in range(len(rows)):
        values, valid = level.prepared("ref", k, JUDGE_BAND)
        coef, ok = level.prepared("mov", k, JUDGE_BAND)
        r, c = level.windows.start[k] - level.ref_at[k]
        at = level.mov_at[k]
        out[k] = orientation_agreement(values, valid, r, c, size, size, coef, ok, rows[k] - at[0], cols[k] - at[1])
    return out


def check_points(usable, seed) -> np.ndarray:
    """A sixth of the usable points, drawn by `seed`, held out of the fit; none where there are fewer than nine."""
    check = np.zeros(usable.size, bool)
    places = np.flatnonzero(usable)
    if places.size >= 9:
        check[np.random.default_rng(seed).permutation(places)[: places.size // 6]] = True
    return check


def rms_length(residual, use) -> float:
    """Root mean square length of the residuals of some points, px; NaN where there are none."""
    return float(np.sqrt((residual[use] ** 2).sum(axis=1).mean())) if use.any() else float("nan")


def point_table(points, found, residual, sigma, score, use, reason) -> pd.DataFrame:
    """The tie points of a match as a DataFrame with columns `TIE_POINT_COLUMNS`."""
    columns = {
        "row": points[:, 0], "col": points[:, 1], "row_moving": found[:, 0], "col_moving": found[:, 1],
        "dy_residual": residual[:, 0], "dx_residual": residual[:, 1], "sigma_px": sigma, "score": score,
        "use": use, "reason": reason,
    }  # fmt: skip
    return pd.DataFrame({name: np.asarray(columns[name], kind) for name, kind in TIE_POINT_COLUMNS.items()})
