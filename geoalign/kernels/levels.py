"""How a series lay before and after a date: quantiles of each side, one pixel at a time."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def levels(series, date, over, share):
    """Quantiles of a series before and after a date.

    series : (n_pixel, n_time) float32, NaN = not observed
    date : (n_pixel,) index of the first changed scene, below 0 for none: then all observations are "before"
    over : (n_pixel,) index of the first scene that is no longer changed, below 0 where it lasts
    share : 0..0.5, how many observations lie outside the low and the high quantile
    Returns (n_pixel, 7) float32: low, median, high before; low, median, high after; number of observations after.
    NaN where there are no observations. Quantiles are observations (no interpolation), so single bad ones stay out.
    """
    n_pixel, n_time = series.shape
    out = np.full((n_pixel, 7), np.nan, np.float32)
    values = np.empty(n_time, np.float32)
    for p in range(n_pixel):
        turn = date[p] if date[p] >= 0 else n_time
        end = over[p] if over[p] >= 0 else n_time
        out[p, 6] = 0
        for side in range(2):
            n = 0
            for t in range(turn if side == 0 else n_time):
                if t >= (0 if side == 0 else turn) and (side == 0 or t < end) and np.isfinite(series[p, t]):
                    values[n] = series[p, t]
                    n += 1
            if side == 1:
                out[p, 6] = n
            if n == 0:
                continue
            ordered = np.sort(values[:n])
            cut = int(share * n)
            out[p, 3 * side] = ordered[cut]
            out[p, 3 * side + 1] = ordered[n // 2]
            out[p, 3 * side + 2] = ordered[n - 1 - cut]
    return out
