"""Two dates of an optical scene: which pair of values a pixel has, and how sure each pixel's change is."""

from __future__ import annotations

import numpy as np
from numba import njit

WINDOW_PX = 2
"""Radius of the window over which evidence is averaged."""
WEIGHT_SD_PX = 0.7
"""Standard deviation of the window's Gaussian weights, px: about the point spread of a resampled scene."""
HEAD = 9
N_LEVEL = 16
"""Numbers at the head of a fit; levels of the ground between which its noise may differ."""
HALF_LN_2PI = 0.9189385332046727
LEAST_ODDS, MOST_ODDS = -5.0, 8.0
"""Log odds that one pixel brings to its neighbours' average: none may outvote them all."""


@njit(nogil=True, cache=True)
def pair(series, split):
    """The values of a pixel before and after, all bands of the same scenes.

    series : (n_pixel, band, n_time) float32, NaN = not observed
    split : scenes before; 0 takes the first and the last scene in which every band is observed, a positive number the
        medians of all such scenes before and from scene `split` on

    Returns before and after (n_pixel, band) float32, NaN where either has no scene; the last scene of the first group
    and the first one of the second (n_pixel,), -1 without; and the number of complete scenes.
    """
    n_pixel, n_band, n_time = series.shape
    before = np.full((n_pixel, n_band), np.nan, np.float32)
    after = np.full((n_pixel, n_band), np.nan, np.float32)
    last = np.full(n_pixel, -1, np.int32)
    first = np.full(n_pixel, -1, np.int32)
    count = np.zeros(n_pixel, np.int32)
    whole = np.empty(n_time, np.int64)
    values = np.empty(n_time, np.float32)
    for p in range(n_pixel):
        n, early = 0, 0
        for t in range(n_time):
            complete = True
            for b in range(n_band):
                if not np.isfinite(series[p, b, t]):
                    complete = False
            if complete:
                whole[n] = t
                n += 1
                early += t < split
        count[p] = n
        if split == 0:
            early = 1
            late = n - 1
        else:
            late = early
        if n < 2 or early < 1 or late >= n:
            continue
        last[p] = whole[early - 1]
        first[p] = whole[late]
        for b in range(n_band):
            for i in range(early):
                values[i] = series[p, b, whole[i]]
            before[p, b] = np.median(values[:early])
            for i in range(late, n):
                values[i - late] = series[p, b, whole[i]]
            after[p, b] = np.median(values[: n - late])
    return before, after, last, first, count


def unpack(fit, n_band):
    """The parts of a fit in the order of `irmad.pack`: head, means and weights before and after, slope and level of the
    normalisation, weights of the ground's level, its bins, noise in them."""
    b = n_band
    sizes = (HEAD, b, b, b * b, b * b, b, b, b, N_LEVEL, N_LEVEL)
    parts = np.split(np.asarray(fit, np.float64), np.cumsum(sizes)[:-1])
    parts[3:5] = [p.reshape(b, b) for p in parts[3:5]]
    return tuple(np.ascontiguousarray(p) for p in parts)


def decide(before, after, shift, fit, prior):
    """Change, pixel by pixel, from the evidence in a small window.

    Parameters
    ----------
    before, after : (band, row, col) float32
    shift : (row, col) float32, squared sigma_px of the difference of the two dates; 0 without
    fit : (size,) float64, see `irmad.pack`
    prior : share of change to assume; NaN takes the fitted one

    Returns
    -------
    changed (row, col) bool; probability float32; distance float32 in standard deviations; trend int8: 1 where all bands
    rose against unchanged ground, -1 where all fell; sector uint16: bit b is set where band b rose; excused bool: only
    the residual shift keeps it from being change.
    """
    return _decide(before, after, shift, *unpack(fit, before.shape[0]), prior)


@njit(nogil=True, cache=True)
def _decide(
    before, after, shift, head, mean0, mean1, weight0, weight1, slope, level, ground, bins, noise, prior
):  # fmt: skip
    n_band, n_row, n_col = before.shape
    odds = np.full((n_row, n_col), np.nan)
    plain = np.full((n_row, n_col), np.nan)
    widened = np.full((n_row, n_col), np.nan)
    distance = np.full((n_row, n_col), np.nan, np.float32)
    trend = np.zeros((n_row, n_col), np.int8)
    sector = np.zeros((n_row, n_col), np.uint16)
    u, down, right = np.zeros(n_band), np.zeros(n_band), np.zeros(n_band)
    lift = 0.0
    if np.isfinite(prior):
        lift = np.log(prior / (1 - prior)) - np.log(head[5] / (1 - head[5]))
    for r in range(n_row):
        for c in range(n_col):
            at = 0.0
            for b in range(n_band):
                at += ground[b] * before[b, r, c]
            if not (np.isfinite(at) and head[0] > 0):
                continue
            sd = np.interp(at, bins, noise)
            narrow = 0.0
            for i in range(n_band):
                u[i] = 0.0
                for b in range(n_band):
                    u[i] += weight0[i, b] * (before[b, r, c] - mean0[b]) - weight1[i, b] * (after[b, r, c] - mean1[b])
                u[i] /= sd
                narrow += u[i] * u[i]
            total = narrow
            if shift[r, c] > 0:
                steepest(before, after, weight0, weight1, r, c, 1, 0, down)
                steepest(before, after, weight0, weight1, r, c, 0, 1, right)
                total = narrow - explained(u, down, right, shift[r, c] / sd**2)
            if not np.isfinite(narrow):
                continue
            distance[r, c] = np.sqrt(narrow)
            widened[r, c] = np.sqrt(total)
            odds[r, c] = log_odds(np.sqrt(total), head)
            plain[r, c] = log_odds(np.sqrt(narrow), head)
            rising = 0
            for b in range(n_band):
                if slope[b] * after[b, r, c] + level[b] > before[b, r, c]:
                    rising += 1
                    if b < 16:
                        sector[r, c] |= np.uint16(1 << b)
            trend[r, c] = 1 if rising == n_band else -1 if rising == 0 else 0
    changed = np.zeros((n_row, n_col), np.bool_)
    excused = np.zeros((n_row, n_col), np.bool_)
    probability = np.full((n_row, n_col), np.nan, np.float32)
    for r in range(n_row):
        for c in range(n_col):
            if np.isnan(odds[r, c]):
                continue
            mean = _average(odds, r, c) + lift
            probability[r, c] = 1.0 / (1.0 + np.exp(-mean))
            if np.isfinite(head[8]):
                changed[r, c] = widened[r, c] > head[8]
                excused[r, c] = distance[r, c] > head[8] and not changed[r, c]
            else:
                changed[r, c] = mean > 0
                excused[r, c] = not changed[r, c] and _average(plain, r, c) + lift > 0
    return changed, probability, distance, trend, sector, excused


@njit(nogil=True, cache=True)
def log_odds(distance, head):
    """ln odds of change at a distance: the classes of `mixture.two_classes`.

    Beyond its mean, change counts as at its mean: what lies farther out is not less likely changed. Far
    below the centre of "no change" it counts as at 1/e of it, where else the classes' tails would decide.
    """
    dof, scale, nu = head[1], head[2], head[3]
    x = max(np.log(distance + 1e-9), scale + 0.5 * np.log(dof) - 1.0)
    u = 2.0 * (x - scale)
    ln0 = head[7] + 0.5 * dof * u - 0.5 * (dof + nu) * np.log1p(np.exp(u) / nu)
    far = min((x - head[4]) / head[6], 0.0)
    ln1 = -0.5 * far * far - np.log(head[6]) - HALF_LN_2PI
    return np.log(head[5] / (1 - head[5])) + ln1 - ln0


@njit(nogil=True, cache=True)
def steepest(before, after, weight0, weight1, r, c, dr, dc, out):
    """Fills out (variate,) with the largest difference to a neighbour along one axis, at either date.

    One-sided differences: at a sharp edge a central one is half of what a shift of a pixel changes.
    """
    n_band, n_row, n_col = before.shape
    most = 0.0
    out[:] = 0.0
    step = np.empty(n_band)
    for date in range(2):
        image, weight = (before, weight0) if date == 0 else (after, weight1)
        for sign in (-1, 1):
            i, j = r + sign * dr, c + sign * dc
            if not (0 <= i < n_row and 0 <= j < n_col):
                continue
            size = 0.0
            for k in range(n_band):
                step[k] = 0.0
                for b in range(n_band):
                    step[k] += sign * weight[k, b] * (image[b, i, j] - image[b, r, c])
                size += step[k] ** 2
            if np.isfinite(size) and size > most:
                most = size
                out[:] = step


@njit(nogil=True, cache=True)
def explained(u, down, right, variance):
    """How much of u'u a shift explains: u'u - u' (I + variance (down down' + right right'))^-1 u, by Woodbury."""
    a, b, d = 1.0 / variance, 0.0, 1.0 / variance
    ud, ur = 0.0, 0.0
    for k in range(u.size):
        a += down[k] ** 2
        b += down[k] * right[k]
        d += right[k] ** 2
        ud += u[k] * down[k]
        ur += u[k] * right[k]
    return (d * ud * ud - 2.0 * b * ud * ur + a * ur * ur) / (a * d - b * b)


@njit(nogil=True, cache=True)
def _average(odds, r, c):
    """Gaussian mean of the log odds around a pixel, over the pixels that have some."""
    n_row, n_col = odds.shape
    total, weights = 0.0, 0.0
    for i in range(max(0, r - WINDOW_PX), min(n_row, r + WINDOW_PX + 1)):
        for j in range(max(0, c - WINDOW_PX), min(n_col, c + WINDOW_PX + 1)):
            if np.isfinite(odds[i, j]):
                w = np.exp(-0.5 * ((i - r) ** 2 + (j - c) ** 2) / WEIGHT_SD_PX**2)
                total += w * min(max(odds[i, j], LEAST_ODDS), MOST_ODDS)
                weights += w
    return total / weights
