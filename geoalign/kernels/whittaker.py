"""A smooth curve through a pixel's observations on any dates: Whittaker's smoother with robust weights."""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.tmask import median_of

BISQUARE = 4.685
"""Tuning constant of Tukey's bisquare: 95 % efficiency under normal noise."""

ROUNDS = 5
"""Times that the weights are set anew."""


def penalty(days):
    """Upper half of the matrix that sums up squared curvature over time, (3, n_time): its diagonals 0, 1 and 2.

    days : (n_time,) increasing. Curvature at a date is the second divided difference there; it counts
    for half the time between its neighbours.
    """
    days = np.asarray(days, np.float64)
    out = np.zeros((3, days.size))
    for i in range(1, days.size - 1):
        before, after = days[i] - days[i - 1], days[i + 1] - days[i]
        both = before + after
        row = 2.0 * np.array([1 / (before * both), -1 / (before * after), 1 / (after * both)])
        for a in range(3):
            for b in range(a, 3):
                out[b - a, i - 1 + a] += row[a] * row[b] * both / 2
    return out


@njit(nogil=True, cache=True)
def smooth(series, days, curved, stiff, gap_days):
    """Every pixel's curve at all dates.

    series : (n_pixel, n_time) float32, NaN = not observed; days : (n_time,) float64, increasing
    curved : `penalty` of days; stiff : (details shorter than it are smoothed away / 2 pi) ^ 4, days^4
    gap_days : the curve is left out between observations further apart

    The curve z minimises sum of w (y - z)^2 + stiff / step * integral of z''^2, step the mean time between a pixel's
    observations, so that what is smoothed away does not depend on how many there are. Weights w are Tukey's bisquare of
    the residuals over their scale (MAD / 0.6745), 0 where not observed.
    Returns (n_pixel, n_time) float32; NaN before the first and after the last observation, in long gaps, and for pixels
    with fewer than four observations.
    """
    n_pixel, n_time = series.shape
    out = np.full((n_pixel, n_time), np.nan, np.float32)
    at = np.empty(n_time, np.int64)
    w = np.empty(n_time)
    y = np.zeros(n_time)
    z = np.zeros(n_time)
    size = np.empty(n_time)
    room = np.empty(n_time)
    band = np.empty((3, n_time))
    for pixel in range(n_pixel):
        n = 0
        level = 0.0
        for t in range(n_time):
            v = series[pixel, t]
            w[t] = 1.0 if np.isfinite(v) else 0.0
            y[t] = v if np.isfinite(v) else 0.0
            level += abs(y[t])
            if np.isfinite(v):
                at[n] = t
                n += 1
        if n < 4:
            continue
        first, last = at[0], at[n - 1]
        weight = stiff * (n - 1) / (days[last] - days[first])
        floor = 1e-6 * level / n + 1e-12
        for _ in range(ROUNDS):
            if not solve(y, w, curved, weight, band, z):
                break
            for i in range(n):
                size[i] = abs(y[at[i]] - z[at[i]])
                room[i] = size[i]
            scale = max(median_of(room, n) / 0.6745, floor)
            moved = 0.0
            for i in range(n):
                u = size[i] / (BISQUARE * scale)
                fresh = (1.0 - u * u) ** 2 if u < 1.0 else 0.0
                moved = max(moved, abs(fresh - w[at[i]]))
                w[at[i]] = fresh
            if moved < 1e-3:
                break
        for i in range(n - 1):
            if days[at[i + 1]] - days[at[i]] <= gap_days:
                for t in range(at[i], at[i + 1] + 1):
                    out[pixel, t] = z[t]
            else:
                out[pixel, at[i]] = z[at[i]]
                out[pixel, at[i + 1]] = z[at[i + 1]]
    return out


@njit(nogil=True, cache=True)
def solve(y, w, curved, weight, band, z):
    """z with (diag(w) + weight * penalty) z = w y, by L D L' of its three diagonals; False, z as it was, where that is
    singular (weights on fewer than two dates)."""
    n = y.size
    d, one, two = band[0], band[1], band[2]
    largest = 0.0
    for i in range(n):
        pivot = w[i] + weight * curved[0, i]
        largest = max(largest, pivot)
        a = weight * curved[1, i]
        if i >= 1:
            pivot -= one[i - 1] * one[i - 1] * d[i - 1]
            a -= two[i - 1] * one[i - 1] * d[i - 1]
        if i >= 2:
            pivot -= two[i - 2] * two[i - 2] * d[i - 2]
        if not pivot > 1e-14 * largest:
            return False
        d[i] = pivot
        one[i] = a / pivot
        two[i] = weight * curved[2, i] / pivot
    for i in range(n):
        value = w[i] * y[i]
        if i >= 1:
            value -= one[i - 1] * z[i - 1]
        if i >= 2:
            value -= two[i - 2] * z[i - 2]
        z[i] = value
    for i in range(n):
        z[i] /= d[i]
    for i in range(n - 2, -1, -1):
        z[i] -= one[i] * z[i + 1]
        if i + 2 < n:
            z[i] -= two[i] * z[i + 2]
    return True
