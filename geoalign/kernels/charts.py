"""Control charts of prediction errors: EWMA, Page's CUSUM and a moving sum, with limits for the whole time watched.

The errors are those of a harmonic regression that takes each observation in after it was predicted: under "no change"
they are independent, carried from Student's t to the normal scale exactly so, however short the history. They are
whitened where the history shows autocorrelation, and cut at 3 sd.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.cusum import (
    CAP,
    FIELDS,
    KEPT_VARIANCE,
    LENGTHS,
    TREND_YEARS,
    bayes_factor,
    locate,
    student_to_normal,
)
from geoalign.kernels.harmonic import (
    TREND_SD,
    add_observation,
    autocorrelation,
    choose_order,
    free_trend,
    leverage,
    predict,
    robust_fit,
)

CHARTS = ("ewma", "cusum", "mosum")

WEIGHT = 0.3
"""Weight of the newest error in the EWMA."""

ALLOWANCE = 0.5
"""sd that the CUSUM takes off each error: it is best for steps of twice that."""

WINDOW = 5
"""Observations in the moving sum."""

SHARED = 2.0
"""Errors within so many |gradient| sigma_px may be an offset that all later scenes share."""

COUNTS = np.array([3, 5, 8, 11, 16, 32, 64, 128, 256, 512, 1024])
LEVELS = np.array([0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001])
LIMITS = np.array([
    [(0.688, 1.319, 1.702, 2.043, 2.445, 2.718, 2.967, 3.257, 3.497),
     (1.155, 1.749, 2.108, 2.428, 2.801, 3.053, 3.287, 3.574, 3.772),
     (1.474, 2.044, 2.387, 2.682, 3.033, 3.269, 3.487, 3.749, 3.934),
     (1.666, 2.216, 2.545, 2.829, 3.165, 3.399, 3.605, 3.865, 4.051),
     (1.874, 2.404, 2.715, 2.988, 3.314, 3.538, 3.749, 4.000, 4.201),
     (2.229, 2.716, 3.001, 3.255, 3.552, 3.758, 3.948, 4.186, 4.352),
     (2.546, 2.991, 3.256, 3.490, 3.769, 3.959, 4.140, 4.364, 4.514),
     (2.831, 3.239, 3.484, 3.701, 3.961, 4.141, 4.312, 4.513, 4.665),
     (3.089, 3.467, 3.692, 3.896, 4.138, 4.309, 4.466, 4.660, 4.790),
     (3.328, 3.681, 3.894, 4.084, 4.308, 4.466, 4.616, 4.787, 4.924),
     (3.548, 3.877, 4.075, 4.250, 4.464, 4.612, 4.748, 4.914, 5.033)],
    [(0.886, 1.620, 2.146, 2.500, 3.023, 3.426, 3.803, 4.319, 4.712),
     (1.269, 2.115, 2.556, 3.086, 3.725, 4.197, 4.711, 5.234, 5.619),
     (1.664, 2.500, 3.119, 3.694, 4.435, 4.998, 5.478, 6.126, 6.647),
     (1.959, 2.849, 3.498, 4.117, 4.933, 5.478, 6.048, 6.835, 7.385),
     (2.349, 3.268, 3.955, 4.624, 5.480, 6.114, 6.750, 7.618, 8.221),
     (2.948, 4.050, 4.797, 5.522, 6.463, 7.195, 7.908, 8.892, 9.692),
     (3.674, 4.836, 5.621, 6.385, 7.422, 8.147, 8.944, 9.959, 10.768),
     (4.413, 5.617, 6.429, 7.237, 8.261, 9.068, 9.875, 10.914, 11.826),
     (5.170, 6.405, 7.250, 8.058, 9.113, 9.938, 10.728, 11.803, 12.575),
     (5.945, 7.217, 8.068, 8.878, 9.952, 10.761, 11.582, 12.626, 13.522),
     (6.722, 8.005, 8.853, 9.679, 10.771, 11.602, 12.419, 13.582, 14.290)],
    [(0.696, 1.325, 1.706, 2.033, 2.428, 2.701, 2.954, 3.265, 3.470),
     (0.696, 1.325, 1.706, 2.033, 2.428, 2.701, 2.954, 3.265, 3.470),
     (1.213, 1.803, 2.157, 2.465, 2.833, 3.094, 3.334, 3.608, 3.802),
     (1.461, 2.034, 2.370, 2.667, 3.025, 3.265, 3.484, 3.762, 3.969),
     (1.714, 2.260, 2.581, 2.864, 3.210, 3.445, 3.658, 3.936, 4.122),
     (2.112, 2.609, 2.904, 3.165, 3.483, 3.698, 3.901, 4.148, 4.332),
     (2.449, 2.903, 3.177, 3.425, 3.716, 3.932, 4.129, 4.360, 4.519),
     (2.745, 3.167, 3.423, 3.652, 3.937, 4.134, 4.320, 4.535, 4.686),
     (3.013, 3.406, 3.646, 3.867, 4.132, 4.324, 4.496, 4.704, 4.859),
     (3.262, 3.632, 3.862, 4.069, 4.324, 4.506, 4.671, 4.882, 5.056),
     (3.494, 3.844, 4.063, 4.259, 4.505, 4.672, 4.835, 5.056, 5.194)],
])  # fmt: skip
"""Limit by chart, watched observations (`COUNTS`) and level (`LEVELS`): quantiles of the chart's largest value over
independent normal errors cut at 3 sd, 1 % of them outliers to one side, from 200,000 simulated series
(`tests/kernels/test_charts.py` does some again)."""


def limits(chart: str, alpha: float, n_max: int) -> np.ndarray:
    """Limit for 0 .. n_max watched observations; inf under three. Linear in the logarithms of count and level."""
    table = LIMITS[CHARTS.index(chart)]
    rows = np.array([np.interp(np.log(alpha), np.log(LEVELS[::-1]), row[::-1]) for row in table])
    if alpha < LEVELS[-1]:
        slope = (table[:, -1] - table[:, -2]) / np.log(LEVELS[-2] / LEVELS[-1])
        rows = rows + slope * np.log(LEVELS[-1] / alpha)
    n = np.arange(n_max + 1)
    out = np.interp(np.log(np.maximum(n, 1)), np.log(COUNTS), rows)
    beyond = n > COUNTS[-1]
    last = (rows[-1] - rows[-2]) / np.log(COUNTS[-1] / COUNTS[-2])
    out[beyond] += last * np.log(n[beyond] / COUNTS[-1])
    out[n < LENGTHS[0]] = np.inf
    return out


@njit(nogil=True, cache=True)
def follow(series, x, years, first, widening, spread, least, order, chart, bound, direction, prior, effect):
    """Run one chart over every pixel's series.

    series ... spread, order, bound, direction, prior, effect : as in `cusum.scan` (bound from `limits`)
    least : variance that the noise has at least (speckle, where the looks are known), units^2
    chart : place in `CHARTS`

    Returns (n_pixel, FIELDS) float64, as `cusum.scan`; outcomes 3 and 4 are not given.
    """
    n_pixel, n_time = series.shape
    out = np.full((n_pixel, FIELDS), np.nan)
    p_max = x.shape[1]
    at = np.empty(n_time, np.int64)
    y = np.empty(n_time)
    xs = np.empty((n_time, p_max))
    extra = np.empty(n_time)
    z = np.empty(n_time)
    keep = np.empty(n_time)
    history = np.empty(n_time)
    inverse = np.empty((p_max, p_max))
    beta = np.empty(p_max)
    for pixel in range(n_pixel):
        for k in (1, 2, 3, 4, 9):
            out[pixel, k] = -1
        n = 0
        level = 0.0
        for t in range(n_time):
            v = series[pixel, t]
            if np.isfinite(v):
                at[n] = t
                y[n] = v
                extra[n] = widening[pixel] * spread[t]
                level += abs(v)
                xs[n] = x[t]
                n += 1
        out[pixel, 7] = n
        if n == 0:
            out[pixel, 0] = -1
            continue
        start = 0
        while start < n and at[start] < abs(first):
            start += 1
        p = choose_order(start, order)
        while p == 0 and first < 0 and start < n:
            start += 1
            p = choose_order(start, order)
        watched = n - start
        if p == 0 or watched < LENGTHS[0]:
            out[pixel, 0] = -2 if p == 0 else -3
            continue
        ridge = 1.0 / TREND_SD**2 if years[at[start - 1]] - years[at[0]] < TREND_YEARS else 0.0
        squares = robust_fit(xs, y, start, p, ridge, keep, inverse, beta)
        if squares < 0.0:
            out[pixel, 0] = -2
            continue
        used = 1 if ridge > 0.0 else 0
        squares += ridge * beta[1 if p == 2 else 3] ** 2
        usual = 0.0
        for i in range(start):
            used += int(keep[i])
            usual += extra[i] / start
        floor = max((1e-4 * level / n + 1e-12) ** 2, least)
        scale = np.sqrt(max(squares / (used - p), floor))
        for i in range(start):
            history[i] = (y[i] - predict(xs[i], beta, p)) / scale
        step = np.median(np.diff(years[at[:n]]))
        memory = autocorrelation(history, keep, years, at, start, p, 1.5 * step)
        before = history[start - 1] if keep[start - 1] > 0.0 else 0.0
        for j in range(start, n):
            if ridge > 0.0 and years[at[j - 1]] - years[at[0]] >= TREND_YEARS:
                squares -= free_trend(ridge, inverse, beta, p)
                used -= 1
                ridge = 0.0
            df = used - p
            variance = max(squares / df, floor)
            e = y[j] - predict(xs[j], beta, p)
            lev = leverage(xs[j], inverse, p)
            # where errors are alike the model knows less than it seems
            sd = np.sqrt(variance * (1.0 + lev * (1.0 + memory) / (1.0 - memory)) + max(extra[j] - usual, 0.0))
            off = max(abs(e) - SHARED * np.sqrt(extra[j]), 0.0)
            u = student_to_normal(off / sd, df)
            u = u if e >= 0.0 else -u
            gap = (years[at[j]] - years[at[j - 1]]) / step
            decay = memory ** max(np.round(gap), 1.0) if gap < 4.0 else 0.0
            v = (u - decay * before) / np.sqrt(1.0 - decay * decay)
            z[j] = min(max(v, -CAP), CAP)
            before = u if abs(u) <= CAP else 0.0
            if abs(u) <= CAP:
                squares += e * e / (1.0 + lev) / KEPT_VARIANCE
                used += 1
                add_observation(xs[j], e, inverse, beta, p)
        noise = np.sqrt(max(squares / (used - p), floor))
        out[pixel, 10] = noise
        out[pixel, 11] = p
        limit = bound[watched]
        begin, crossed, top, sign = run_chart(z, start, n, chart, limit, direction)
        out[pixel, 8] = top / limit
        persistent, total = 0.0, 0.0
        for j in range(n - 1, start - 1, -1):
            total += z[j]
            m = n - j
            t = total / np.sqrt(m)
            persistent += bayes_factor(t if direction * t >= 0.0 else 0.0, m, effect)
        passing = 0.0
        if crossed >= 0:
            total = 0.0
            for j in range(begin, crossed + 1):
                total += z[j]
            passing = bayes_factor(total / np.sqrt(crossed - begin + 1), crossed - begin + 1, effect)
        odds = (0.8 * persistent + 0.2 * passing) / watched * prior / (1.0 - prior)
        out[pixel, 6] = odds / (1.0 + odds)
        if crossed < 0:
            out[pixel, 0] = 0
            continue
        # the model that goes on learning takes a step in: size and return are told by the one of before
        start_fit(xs, y, begin, start, p, keep, inverse, beta)
        for i in range(start, n):
            z[i] = (y[i] - predict(xs[i], beta, p)) / np.sqrt(
                noise * noise * (1.0 + leverage(xs[i], inverse, p)) + extra[i]
            )
        last = crossed
        while last + 1 < n and last - begin < 12 and z[last + 1] * sign > 0.0:
            last += 1
        found, earliest, latest, over = locate(z, start, n, begin, max(last, begin + 1), CAP)
        out[pixel, 0] = 1 if over < 0 else 2
        out[pixel, 1] = at[found]
        out[pixel, 2] = at[earliest - 1]
        out[pixel, 3] = at[latest]
        out[pixel, 4] = at[max(crossed, found)]
        out[pixel, 9] = at[over] if over >= 0 else -1
        until = over if over >= 0 else n
        for i in range(found, until):
            z[i] = y[i] - predict(xs[i], beta, p)
        out[pixel, 5] = np.median(z[found:until])
    return out


@njit(nogil=True, cache=True)
def run_chart(z, start, n, chart, limit, direction):
    """First crossing of a chart: (first observation of its run, crossing one, both -1: none; largest value; sign)."""
    up, down, mean, weight, total = 0.0, 0.0, 0.0, 0.0, 0.0
    up_from, down_from, mean_from = start, start, start
    top = 0.0
    for i in range(start, n):
        value, begin = 0.0, i
        if chart == 0:
            if mean * z[i] <= 0.0 and abs(mean) * (1.0 - WEIGHT) < abs(z[i]) * WEIGHT:
                mean_from = i
            mean = (1.0 - WEIGHT) * mean + WEIGHT * z[i]
            weight = (1.0 - WEIGHT) ** 2 * weight + WEIGHT**2
            value, begin = mean / np.sqrt(weight), mean_from
            if i - start < 2:
                value = 0.0
        elif chart == 1:
            up, down = up + z[i] - ALLOWANCE, down - z[i] - ALLOWANCE
            if up <= 0.0:
                up, up_from = 0.0, i + 1
            if down <= 0.0:
                down, down_from = 0.0, i + 1
            value = up if up >= down else -down
            if direction != 0:
                value = up if direction > 0 else -down
            begin = up_from if value > 0.0 else down_from
        else:
            total += z[i]
            if i - start >= WINDOW:
                total -= z[i - WINDOW]
            if i - start >= WINDOW - 1:
                value, begin = total / np.sqrt(WINDOW), i - WINDOW + 1
        if direction * value < 0.0:
            continue
        top = max(top, abs(value))
        if abs(value) > limit:
            return min(begin, i), i, top, 1.0 if value > 0.0 else -1.0
    return -1, -1, top, 0.0


@njit(nogil=True, cache=True)
def start_fit(xs, y, begin, start, p, keep, inverse, beta):
    """The model of everything before observation `begin`, at least the history's."""
    return robust_fit(xs, y, max(begin, start), p, 1e-9, keep, inverse, beta)
