"""One image out of several: per-band medians, the medoid observation, the geometric median of all bands."""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.tmask import median_of

MEDIAN, MEDOID, GEOMEDIAN = 0, 1, 2

NEAR = 1e-7
"""Distances count as so much at the least, so that a place on top of an observation keeps a finite weight."""


@njit(nogil=True, cache=True)
def compose(cube, begins, how):
    """One value a band out of the observations of each period.

    cube : (n_pixel, n_band, n_time) float32, NaN = not observed
    begins : (n_period + 1,) places in time at which periods begin, and the end of the last
    how : MEDIAN (each band by itself), MEDOID (the observation that is nearest to all others together, the earliest of
        equals), GEOMEDIAN (the point nearest to all, Weiszfeld); the last two take observations with all bands only

    Returns values (n_pixel, n_band, n_period) float32, NaN where nothing was observed; n (n_pixel, n_period) uint16,
    observations with all bands.
    """
    n_pixel, n_band, n_time = cube.shape
    n_period = begins.size - 1
    out = np.full((n_pixel, n_band, n_period), np.nan, np.float32)
    count = np.zeros((n_pixel, n_period), np.uint16)
    at = np.empty(n_time, np.int64)
    room = np.empty(n_time)
    points = np.empty((n_time, n_band))
    center = np.empty(n_band)
    for pixel in range(n_pixel):
        for period in range(n_period):
            n = 0
            for t in range(begins[period], begins[period + 1]):
                seen = True
                for b in range(n_band):
                    seen = seen and np.isfinite(cube[pixel, b, t])
                if seen:
                    at[n] = t
                    n += 1
            count[pixel, period] = min(n, 65535)
            if how == MEDIAN:
                for b in range(n_band):
                    m = 0
                    for t in range(begins[period], begins[period + 1]):
                        if np.isfinite(cube[pixel, b, t]):
                            room[m] = cube[pixel, b, t]
                            m += 1
                    if m > 0:
                        out[pixel, b, period] = median_of(room, m)
                continue
            if n == 0:
                continue
            for i in range(n):
                for b in range(n_band):
                    points[i, b] = cube[pixel, b, at[i]]
            if how == MEDOID:
                k = medoid(points, n, n_band)
                for b in range(n_band):
                    out[pixel, b, period] = cube[pixel, b, at[k]]
            else:
                for b in range(n_band):
                    for i in range(n):
                        room[i] = points[i, b]
                    center[b] = median_of(room, n)
                geometric_median(points, n, n_band, center)
                for b in range(n_band):
                    out[pixel, b, period] = center[b]
    return out, count


@njit(nogil=True, cache=True)
def medoid(points, n, n_band):
    """Number of the point of points[:n] (n, n_band) whose distances to the others add up to least."""
    best, least = 0, np.inf
    for i in range(n):
        total = 0.0
        for j in range(n):
            square = 0.0
            for b in range(n_band):
                square += (points[i, b] - points[j, b]) ** 2
            total += np.sqrt(square)
            if total >= least:
                break
        if total < least:
            best, least = i, total
    return best


@njit(nogil=True, cache=True)
def geometric_median(points, n, n_band, center):
    """Move center (n_band,) to where its distances to points[:n] add up to least (Weiszfeld's iteration), in place."""
    fresh = np.empty(n_band)
    for _ in range(200):
        for b in range(n_band):
            fresh[b] = 0.0
        weight = 0.0
        for i in range(n):
            square = NEAR * NEAR
            for b in range(n_band):
                square += (points[i, b] - center[b]) ** 2
            w = 1.0 / np.sqrt(square)
            weight += w
            for b in range(n_band):
                fresh[b] += w * points[i, b]
        moved, size = 0.0, 0.0
        for b in range(n_band):
            value = fresh[b] / weight
            moved += (value - center[b]) ** 2
            size += value * value
            center[b] = value
        if moved <= 1e-14 * size:
            break
