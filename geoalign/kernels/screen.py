"""Screening: growing gaps, and one-date excursions in a series."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def grow(flags, radius_px):
    """Flags grown by a disc. flags : (row, col) uint8; radius_px : >= 0. Returns uint8 of the same shape."""
    n_row, n_col = flags.shape
    reach = int(radius_px)
    limit = radius_px * radius_px
    out = flags.copy()
    for r in range(n_row):
        for c in range(n_col):
            if flags[r, c] == 0:
                continue
            for i in range(max(0, r - reach), min(n_row, r + reach + 1)):
                for j in range(max(0, c - reach), min(n_col, c + reach + 1)):
                    if (i - r) * (i - r) + (j - c) * (j - c) <= limit:
                        out[i, j] = 1
    return out


@njit(nogil=True, cache=True)
def excursions(series, high_sigma, low_sigma, floor):
    """Single dates that leave the series and come back.

    series : (n_pixel, n_time) float32, NaN = not observed; high_sigma, low_sigma : how far above or below the median
    of the series counts, in robust sigmas (1.4826 MAD, at least `floor`); inf turns a side off.
    An observation is flagged where it lies that far out while the observations before and after it lie within half of
    that on the same side; the first and last observations are never flagged, because what comes after (or was before)
    is not known: a change that stays is not an excursion. Fewer than five observations: nothing is flagged.
    Returns (n_pixel, n_time) uint8.
    """
    n_pixel, n_time = series.shape
    out = np.zeros(series.shape, np.uint8)
    at = np.empty(n_time, np.int64)
    values = np.empty(n_time)
    for p in range(n_pixel):
        n = 0
        for t in range(n_time):
            if not np.isnan(series[p, t]):
                at[n] = t
                values[n] = series[p, t]
                n += 1
        if n < 5:
            continue
        middle = np.median(values[:n])
        sigma = max(1.4826 * np.median(np.abs(values[:n] - middle)), floor)
        for k in range(1, n - 1):
            off = (values[k] - middle) / sigma
            before = (values[k - 1] - middle) / sigma
            after = (values[k + 1] - middle) / sigma
            above = off > high_sigma and before < high_sigma / 2 and after < high_sigma / 2
            below = off < -low_sigma and before > -low_sigma / 2 and after > -low_sigma / 2
            if above or below:
                out[p, at[k]] = 1
    return out
