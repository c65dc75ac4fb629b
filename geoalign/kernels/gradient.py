"""How steep an image is: what a residual shift of the scenes turns into noise."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def median_gradient(window):
    """Squared gradient of the temporal median image.

    window : (time, row, col) float32, NaN = not observed
    Returns (row, col) float32, the sum of the squared central differences along rows and columns, units^2 / px^2;
    one-sided beside a gap or the image's edge, 0 along an axis with no neighbour.
    """
    n_time, n_row, n_col = window.shape
    middle = np.full((n_row, n_col), np.nan)
    values = np.empty(n_time)
    for i in range(n_row):
        for j in range(n_col):
            n = 0
            for t in range(n_time):
                if np.isfinite(window[t, i, j]):
                    values[n] = window[t, i, j]
                    n += 1
            if n > 0:
                middle[i, j] = np.median(values[:n])
    out = np.zeros((n_row, n_col), np.float32)
    for i in range(n_row):
        for j in range(n_col):
            if np.isnan(middle[i, j]):
                continue
            total = 0.0
            for di, dj in ((1, 0), (0, 1)):
                back = middle[i - di, j - dj] if i >= di and j >= dj else np.nan
                ahead = middle[i + di, j + dj] if i + di < n_row and j + dj < n_col else np.nan
                if np.isfinite(back) and np.isfinite(ahead):
                    total += ((ahead - back) / 2) ** 2
                elif np.isfinite(ahead):
                    total += (ahead - middle[i, j]) ** 2
                elif np.isfinite(back):
                    total += (middle[i, j] - back) ** 2
            out[i, j] = total
    return out
