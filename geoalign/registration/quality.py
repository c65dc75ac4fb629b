"""How good a match is: is there any evidence at all, which points check it, and the table of points."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoalign.types.alignment import TIE_POINT_COLUMNS

EVIDENCE = 6.0
"""Standard deviations the pooled correlation must stand above that of wrong lags. Of two images of noise the best lag
of a whole search stands at 2 to 5."""


def evidence(surfaces, shared, offset) -> float:
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
    if peak <= pooled[lags > 3.5].max():
        return 0.0
    # windows are independent: the mean over them is steadier than one by the root of their (weighted) number
    return peak / np.sqrt(spread2 / total * total2 / total**2)


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
