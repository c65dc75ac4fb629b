"""What all pixels of a SAR scene do together, and what orbits differ by: neither is change on the ground."""

import math

import numpy as np
from numba import njit

from geoalign.kernels.gamma_glr import pool

LOW, STEP, BINS = -4.0, 0.01, 800
"""Fixed histogram of ln(ratio of a neighbourhood to its own mean in time)."""
MIN_PIXELS = 100
"""Neighbourhoods below which a scene's common factor is not told from the change of its parts."""
ROUNDS = 20


@njit(nogil=True, cache=True)
def one_level(series, orbit, block, n_orbit, n_block):
    """Each pixel's series with its orbits brought to one level.

    series : (n_pixel, n_time) intensities, NaN or <= 0 = not observed
    orbit, block : (n_time,) numbers from 0: which orbit, and which stretch of the series, a date belongs to
    Returns (n_pixel, n_time) float32: ln x = orbit + block + noise is fitted by turns, and the orbit's part taken off,
    so that a step in time stays even where one orbit saw more of it than another.
    """
    n_pixel, n_time = series.shape
    out = np.full(series.shape, np.nan, np.float32)
    logs = np.empty(n_time)
    level = np.empty(n_orbit)
    course = np.empty(n_block)
    total = np.empty(max(n_orbit, n_block))
    count = np.empty(max(n_orbit, n_block))
    for p in range(n_pixel):
        for t in range(n_time):
            value = series[p, t]
            logs[t] = math.log(value) if value > 0 and not math.isinf(value) else np.nan
        level[:] = 0.0
        course[:] = 0.0
        for _ in range(ROUNDS if n_block > 1 else 1):
            for half in range(2):
                total[:] = 0.0
                count[:] = 0.0
                for t in range(n_time):
                    if not math.isnan(logs[t]):
                        k = block[t] if half == 0 else orbit[t]
                        total[k] += logs[t] - (level[orbit[t]] if half == 0 else course[block[t]])
                        count[k] += 1
                for k in range(n_block if half == 0 else n_orbit):
                    if count[k] > 0:
                        if half == 0:
                            course[k] = total[k] / count[k]
                        else:
                            level[k] = total[k] / count[k]
        # the mean over the observations stays what it was
        mean = 0.0
        n = 0
        for t in range(n_time):
            if not math.isnan(logs[t]):
                mean += level[orbit[t]]
                n += 1
        for t in range(n_time):
            if not math.isnan(logs[t]):
                out[p, t] = math.exp(logs[t] - level[orbit[t]] + mean / n)
    return out


@njit(nogil=True, cache=True)
def ratio_histogram(series, radius):
    """Counts of ln(neighbourhood / its mean in time), (band, time, BINS); series (band, time, row, col)."""
    n_band, n_time, n_row, n_col = series.shape
    out = np.zeros((n_band, n_time, BINS))
    pooled = pool(series, radius)
    for b in range(n_band):
        for t in range(n_time):
            for r in range(n_row):
                for c in range(n_col):
                    value = pooled[b, t, r, c]
                    if value > 0:
                        place = int((math.log(value) - LOW) / STEP)
                        out[b, t, min(max(place, 0), BINS - 1)] += 1
    return out


def common_factor(parts):
    """ln of what most of each scene was multiplied with, (band * time,); 0 where too few pixels tell.

    parts : from `ratio_histogram`. The centre of the shortest interval that holds half of the neighbourhoods, then the
    mean around it: what up to two fifths of the scene do besides does not count.
    """
    counts = np.sum(parts, axis=0)
    return np.array([_mode(row) for band in counts for row in band])


def _mode(counts):
    cumulative = np.append(0.0, np.cumsum(counts))
    if cumulative[-1] < MIN_PIXELS:
        return 0.0
    edges = LOW + STEP * np.arange(BINS + 1)
    shares = np.linspace(0.0, 0.5, 201)
    low, high = (np.interp((shares + k) * cumulative[-1], cumulative, edges) for k in (0.0, 0.5))
    at = int(np.argmin(high - low))
    centre, spread = 0.5 * (low[at] + high[at]), max((high[at] - low[at]) / 1.349, STEP)
    x = 0.5 * (edges[1:] + edges[:-1])
    for _ in range(5):
        near = counts * (np.abs(x - centre) < 1.5 * spread)
        centre = float((near * x).sum() / max(near.sum(), 1.0))
    return centre


@njit(nogil=True, cache=True)
def divide(series, ln_factor):
    """series (n_pixel, n_time) / exp(ln_factor (n_time,)), float32."""
    out = np.empty(series.shape, np.float32)
    for t in range(series.shape[1]):
        factor = math.exp(-ln_factor[t])
        for p in range(series.shape[0]):
            out[p, t] = series[p, t] * factor
    return out
