"""Slow change: median slope, rank test freed of autocorrelation, and whether a step explains the series better."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geoalign.kernels.harmonic import choose_order, predict, robust_fit

LEAST_PERIODS = 8
"""Periods with a value below which no trend can be told."""
LEAST_SHARE = 0.6
"""Share of the periods that must have a value."""
CLEAR_STEP = 8.0
"""2 ln likelihood by which a step must beat a straight line to be told as a step. Chance alone reaches it in few series
without change (a step may choose its place), a step of four times the noise in 20 periods nearly always."""
DOUBT, DOUBT_PERIOD, FROM = 2.0, 0.1, 12
"""A series is no trend where a step beats the line by more than DOUBT up to 20 periods, DOUBT_PERIOD more for every
further one, and the autocorrelation more, up to CLEAR_STEP; of fewer than FROM periods, where the step is clear: they
could hardly show a trend."""
EDGE = 2
"""Periods on either side of a step at the least."""
FIELDS = 9
SIZES = np.array([8, 12, 16, 20, 30, 40, 60, 80, 120], np.float64)
SCALES = np.array(
    [
        [1.069, 0.504, 0.280], [1.112, 0.564, 0.251], [1.056, 1.161, -0.157], [0.991, 1.031, 0.050],
        [0.940, 0.723, -0.010],
        [0.963, 0.248, 0.354], [0.992, 0.119, 0.188], [0.987, 0.000, 0.314], [0.989, 0.002, 0.145],
    ]
)  # fmt: skip
"""Standard deviation, by its 5 % tails, of the prewhitened score of n values without trend: a + b r + c r^2 of their
estimated autocorrelation r. Simulated with AR(1) noise of 0 to 0.75, 3000 to 6000 series each; see the benchmark."""
SHARES = np.array([0.975, 0.90, 0.74, 0.67, 0.89, 0.92, 0.95, 0.975, 0.975])
"""The limit of 5 % is so much of that, since series without trend that a step explains as well are out already; that of
1 % stays. Simulated likewise."""
MOST_R = 0.95
FEW = 0.3
"""Share of a pixel's usual observations a period below which a period has no value: a first or last one that was just
begun is so much noisier than the others that it makes trends."""
CLIP = 1.5
"""Noise sd from the median of its period beyond which an observation counts no more (Huber)."""


@njit(nogil=True, cache=True)
def deseasoned_periods(series, x, period, n_period, order):
    """Robust means by period of a series less its season.

    series : (n_pixel, n_time) float32, NaN = not observed; x : (n_time, p) regressors of `harmonic.regressors`
    period : (n_time,) number of each scene's period; order : harmonics of the season, 0 for none
    Returns (n_pixel, n_period) float64, NaN where a period was hardly observed (FEW); and the number of observations.

    A mean is one step of Huber's from the median: nearly as exact as the plain mean, though a missed cloud counts for
    no more than CLIP sd of the noise.
    """
    n_pixel, n_time = series.shape
    out = np.full((n_pixel, n_period), np.nan)
    count = np.zeros(n_pixel, np.int32)
    width = x.shape[1]
    rows, y, at = np.empty((n_time, width)), np.empty(n_time), np.empty(n_time, np.int64)
    keep, inverse, beta = np.empty(n_time), np.empty((width, width)), np.empty(width)
    values, size_of, period_of = np.empty(n_time), np.empty(n_period), np.empty(n_period, np.int64)
    for p in range(n_pixel):
        n = 0
        for t in range(n_time):
            if np.isfinite(series[p, t]):
                rows[n] = x[t]
                y[n] = series[p, t]
                at[n] = t
                n += 1
        count[p] = n
        size = choose_order(n, order) if order > 0 else 0
        if size > 2 and robust_fit(rows, y, n, size, 0.0, keep, inverse, beta) >= 0:
            # the season only: level and trend stay
            beta[0] = 0.0
            beta[3] = 0.0
            for i in range(n):
                y[i] -= predict(rows[i], beta, size)
        i = 0
        while i < n:
            m = 0
            number = period[at[i]]
            while i < n and period[at[i]] == number:
                values[m] = y[i]
                m += 1
                i += 1
            out[p, number] = np.median(values[:m])
        for i in range(n):
            values[i] = abs(y[i] - out[p, period[at[i]]])
        most = CLIP * np.median(values[:n]) / 0.6745 if n > 0 else 0.0
        i, seen = 0, 0
        while i < n:
            number = period[at[i]]
            period_of[seen] = number
            centre, off, m = out[p, number], 0.0, 0
            while i < n and period[at[i]] == number:
                off += min(max(y[i] - centre, -most), most)
                m += 1
                i += 1
            out[p, number] = centre + off / m
            size_of[seen] = m
            seen += 1
        least = FEW * np.median(size_of[:seen]) if seen > 0 else 0.0
        for k in range(seen):
            if size_of[k] < least:
                out[p, period_of[k]] = np.nan
    return out, count


@njit(nogil=True, cache=True)
def mann_kendall(y, n):
    """Standard normal score of Kendall's S of y[:n], ties and continuity corrected; 0 for fewer than 3 values."""
    if n < 3:
        return 0.0
    s = 0
    for i in range(n):
        for j in range(i + 1, n):
            if y[j] > y[i]:
                s += 1
            elif y[j] < y[i]:
                s -= 1
    variance = n * (n - 1.0) * (2.0 * n + 5.0)
    ordered = np.sort(y[:n])
    i = 0
    while i < n:
        k = i
        while k < n and ordered[k] == ordered[i]:
            k += 1
        tied = float(k - i)
        variance -= tied * (tied - 1.0) * (2.0 * tied + 5.0)
        i = k
    variance /= 18.0
    if variance <= 0 or s == 0:
        return 0.0
    return (s - 1.0) / math.sqrt(variance) if s > 0 else (s + 1.0) / math.sqrt(variance)


@njit(nogil=True, cache=True)
def lag_one(y, t, n):
    """Autocorrelation of y[:n] between neighbouring periods t (integers); pairs across a gap are left out."""
    mean = 0.0
    for i in range(n):
        mean += y[i]
    mean /= n
    above, below, pairs = 0.0, 0.0, 0
    for i in range(n):
        below += (y[i] - mean) ** 2
        if i > 0 and t[i] == t[i - 1] + 1:
            above += (y[i] - mean) * (y[i - 1] - mean)
            pairs += 1
    if pairs < 3 or below <= 0:
        return 0.0
    return (above / pairs) / (below / n)


@njit(nogil=True, cache=True)
def whitened(y, t, n, r, out):
    """Fills out with y[i] - r y[i - 1] over neighbouring periods; returns how many there are."""
    m = 0
    for i in range(1, n):
        if t[i] == t[i - 1] + 1:
            out[m] = y[i] - r * y[i - 1]
            m += 1
    return m


@njit(nogil=True, cache=True)
def unbiased(r, n):
    """Lag-one autocorrelation of n values without its bias beside a line, (n r + 2) / (n - 4), in 0..0.95."""
    return min(max((n * r + 2.0) / (n - 4.0), 0.0), MOST_R)


@njit(nogil=True, cache=True)
def normal_score(score, n, r):
    """The prewhitened score of n values with autocorrelation r as a standard normal one: 1.96 where it exceeds that of
    95 % of series without trend, 2.576 where that of 99 %."""
    k = 0
    while k < SIZES.size - 2 and n > SIZES[k + 1]:
        k += 1
    part = (math.log(n) - math.log(SIZES[k])) / (math.log(SIZES[k + 1]) - math.log(SIZES[k]))
    part = min(max(part, 0.0), 1.0)
    low = SCALES[k, 0] + SCALES[k, 1] * r + SCALES[k, 2] * r * r
    high = SCALES[k + 1, 0] + SCALES[k + 1, 1] * r + SCALES[k + 1, 2] * r * r
    share = (1 - part) * SHARES[k] + part * SHARES[k + 1] if n >= FROM else SHARES[0]
    size = abs(score) / ((1 - part) * low + part * high)
    if size <= 1.96 * share:
        size /= share
    elif size < 2.576:
        size = 2.576 - (2.576 - size) / (2.576 - 1.96 * share) * 0.616
    return size if score >= 0 else -size


@njit(nogil=True, cache=True)
def step_margin(n, r):
    """2 ln likelihood by which a step may beat the line of n values with autocorrelation r, and they are a trend."""
    return min(DOUBT + DOUBT_PERIOD * max(n - 20, 0) + min(r, 0.6), CLEAR_STEP) if n >= FROM else CLEAR_STEP


@njit(nogil=True, cache=True)
def line_squares(y, x, n):
    """Residual sum of squares of y[:n] on a constant and x[:n]."""
    mx, my = 0.0, 0.0
    for i in range(n):
        mx += x[i]
        my += y[i]
    mx /= n
    my /= n
    xx, xy, yy = 0.0, 0.0, 0.0
    for i in range(n):
        xx += (x[i] - mx) ** 2
        xy += (x[i] - mx) * (y[i] - my)
        yy += (y[i] - my) ** 2
    return yy - xy * xy / xx if xx > 0 else yy


@njit(nogil=True, cache=True)
def step_or_line(y, t, n):
    """2 ln likelihood by which the best step beats a straight line, both with AR(1) noise, and the step's place.

    The autocorrelation is that of the better one's residuals: a step left in the residuals would pass for it.
    """
    x = np.empty(n)
    for i in range(n):
        x[i] = t[i]
    line = line_squares(y, x, n)
    best, place = np.inf, EDGE
    side = np.empty(n)
    for k in range(EDGE, n - EDGE + 1):
        for i in range(n):
            side[i] = 1.0 if i >= k else 0.0
        squares = line_squares(y, side, n)
        if squares < best:
            best, place = squares, k
    left = np.empty(n)
    if best < line:
        for i in range(n):
            side[i] = 1.0 if i >= place else 0.0
        fit = side
    else:
        fit = x
    mf, my = fit.mean(), y[:n].mean()
    ff, fy = 0.0, 0.0
    for i in range(n):
        ff += (fit[i] - mf) ** 2
        fy += (fit[i] - mf) * (y[i] - my)
    slope = fy / ff if ff > 0 else 0.0
    for i in range(n):
        left[i] = y[i] - my - slope * (fit[i] - mf)
    r = min(max(lag_one(left, t, n), 0.0), 0.9)
    a, b = np.empty(n), np.empty(n)
    m = whitened(y, t, n, r, a)
    if m < 2 * EDGE + 1:
        return 0.0, place
    whitened(x, t, n, r, b)
    line = line_squares(a, b, m)
    best = np.inf
    for k in range(EDGE, n - EDGE + 1):
        for i in range(n):
            side[i] = 1.0 if i >= k else 0.0
        whitened(side, t, n, r, b)
        squares = line_squares(a, b, m)
        if squares < best:
            best, place = squares, k
    floor = 1e-12 * (1e-12 + my * my)
    return m * math.log((line + floor) / (best + floor)), place


@njit(nogil=True, cache=True)
def sen(y, t, n, scratch):
    """Median slope between all pairs of y[:n] at t[:n]; scratch holds n (n - 1) / 2 numbers."""
    m = 0
    for i in range(n):
        for j in range(i + 1, n):
            scratch[m] = (y[j] - y[i]) / (t[j] - t[i])
            m += 1
    return np.median(scratch[:m])


@njit(nogil=True, cache=True)
def trends(periods, extra):
    """Trend of each pixel's periods.

    Parameters
    ----------
    periods : (n_pixel, n_period) float64, NaN = no value
    extra : (n_pixel,) variance that a residual shift adds to a period's value, 0 without

    Returns
    -------
    (n_pixel, 9) float64: 0 outcome (0 tested, -1 no value, -2 too few); 1 slope a period (Theil and Sen); 2 normal
    score of the prewhitened test, 0 where a step explains the series; 3 autocorrelation; 4 2 ln likelihood of a step
    against the line; 5 the step's period; 6 noise (sd of the residuals); 7, 8 the slope's 95 % interval.

    Notes
    -----
    Prewhitening by the autocorrelation of the raw series keeps its size because the trend itself passes for
    autocorrelation, and so it loses strong trends of short series; prewhitening by that of the residuals finds them,
    but its score is too wide. We take the latter, free the autocorrelation of its bias, and hold the score against its
    simulated limits, which gives the size of the former without its loss. Series that a step explains about as well as
    a line are no trends: two in three of those without change, so that the limits of the others are lower.
    """
    n_pixel, n_period = periods.shape
    out = np.full((n_pixel, FIELDS), np.nan)
    y, t = np.empty(n_period), np.empty(n_period, np.int64)
    white, free = np.empty(n_period), np.empty(n_period)
    scratch = np.empty(n_period * (n_period - 1) // 2 + 1)
    for p in range(n_pixel):
        n = 0
        for k in range(n_period):
            if np.isfinite(periods[p, k]):
                y[n] = periods[p, k]
                t[n] = k
                n += 1
        if n == 0:
            out[p, 0] = -1
            continue
        if n < LEAST_PERIODS or n < LEAST_SHARE * n_period:
            out[p, 0] = -2
            continue
        out[p, 0] = 0
        slope = sen(y, t, n, scratch)
        pairs = n * (n - 1) // 2
        ordered = np.sort(scratch[:pairs])
        half = 1.96 * math.sqrt(n * (n - 1.0) * (2.0 * n + 5.0) / 18.0)
        out[p, 7] = ordered[max(int((pairs - half) / 2), 0)]
        out[p, 8] = ordered[min(int((pairs + half) / 2) + 1, pairs - 1)]
        for i in range(n):
            free[i] = y[i] - slope * t[i]
        spread = 0.0
        centre = np.median(free[:n])
        for i in range(n):
            spread += (free[i] - centre) ** 2
        r = unbiased(lag_one(free, t, n), n)
        m = whitened(y, t, n, r, white)
        score = normal_score(mann_kendall(white, m), n, r)
        sd = math.sqrt(spread / n)
        # a shift moves all periods by chance as noise does: it weakens the score by the noise it adds
        score *= math.sqrt(sd * sd / (sd * sd + extra[p])) if extra[p] > 0 else 1.0
        gain, place = step_or_line(y, t, n)
        if gain > step_margin(n, r):
            score = 0.0
        out[p, 1] = slope
        out[p, 2] = score
        out[p, 3] = r
        out[p, 4] = gain
        out[p, 5] = t[place]
        out[p, 6] = sd
    return out
