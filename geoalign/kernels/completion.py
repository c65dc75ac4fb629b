"""When ground that was cleared was built over: one lasting rise of an index after the clearing."""

from __future__ import annotations

import numpy as np
from numba import njit

LEAST = 3
"""Observations that a level takes."""

SURE = 9.0
"""Likelihood ratio (chi-squared, less what the number of places costs) from which there are two phases."""


@njit(nogil=True, cache=True)
def complete(series, date, least_rise):
    """The scene from which an index stays at its last level, and that level.

    series : (n_pixel, n_time) float32, NaN = not observed; date : (n_pixel,) scene of the clearing, -1 none
    least_rise : smaller rises than this are no second phase

    Observations from `date` on are each replaced by the median of it and its two neighbours (a lone cloud goes), and
    are taken as one level, or as two, the second higher: the better place for the second to begin, where the likelihood
    says so. Two levels only: what was built is not unbuilt.
    Returns ready (n_pixel,) int32, the first scene at the last level (`date` where there is one level, -1 where fewer
    than three observations follow), last and first level, and the standard error of the last one, (n_pixel,) float32.
    """
    n_pixel, n_time = series.shape
    ready = np.full(n_pixel, -1, np.int32)
    last = np.full(n_pixel, np.nan, np.float32)
    first = np.full(n_pixel, np.nan, np.float32)
    doubt = np.full(n_pixel, np.nan, np.float32)
    at = np.empty(n_time, np.int64)
    raw = np.empty(n_time)
    v = np.empty(n_time)
    for pixel in range(n_pixel):
        if date[pixel] < 0:
            continue
        n = 0
        for t in range(date[pixel], n_time):
            if np.isfinite(series[pixel, t]):
                at[n] = t
                raw[n] = series[pixel, t]
                n += 1
        if n < LEAST:
            continue
        for i in range(n):
            a, b, c = raw[max(i - 1, 0)], raw[i], raw[min(i + 1, n - 1)]
            v[i] = max(min(a, b), min(max(a, b), c))
        total, square = 0.0, 0.0
        for i in range(n):
            total += v[i]
            square += v[i] * v[i]
        whole = max(square - total * total / n, 1e-9 * n)
        best, place, run = whole, 0, 0.0
        for i in range(1, n - LEAST + 1):
            run += v[i - 1]
            if i < LEAST:
                continue
            rise = (total - run) / (n - i) - run / i
            left = square - run * run / i - (total - run) ** 2 / (n - i)
            if rise > least_rise and left < best:
                best, place = left, i
        if place > 0 and n * np.log(whole / max(best, 1e-9 * n)) - 2.0 * np.log(n) < SURE:
            place = 0
        ready[pixel] = at[place]
        last[pixel] = np.median(v[place:n])
        first[pixel] = np.median(v[:place]) if place > 0 else last[pixel]
        spread = np.median(np.abs(v[place:n] - last[pixel])) / 0.6745
        doubt[pixel] = spread / np.sqrt((n - place) / 2.0)
    return ready, last, first, doubt
