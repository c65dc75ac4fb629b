"""BFAST Monitor: a harmonic model of a stable history, and a fluctuation process of what follows.

As in the paper and its implementation in R (bfast, strucchange), step by step: reverse-ordered CUSUM for the stable
part of the history, least squares, the process, its boundary. Blocks of pixels go through the history date by date: a
square-root-free Givens update of the triangular factor gives the recursive residuals of the CUSUM, the coefficients and
the residual sum of squares in one pass, and vectorises over the pixels.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.optimize import brentq
from scipy.stats import norm

from geoalign.errors import ConfigError

PROCESSES = ("ols_mosum", "ols_cusum", "re", "me")

BLOCK = 128
"""Pixels that are taken through the history together."""

BANDWIDTHS = (0.25, 0.5, 1.0)
LEVELS = np.array([0.05, 0.04, 0.03, 0.025, 0.02, 0.015, 0.01, 0.005, 0.004, 0.003, 0.002, 0.001])
MOSUM = np.array([
    (1.34182451, 1.36886321, 1.403187733, 1.42381862, 1.448236088, 1.480576361, 1.521644973, 1.597971114, 1.618396722,
     1.649405243, 1.685943314, 1.745509489),
    (1.902003179, 1.949207274, 2.006985314, 2.044387857, 2.082870276, 2.13419421, 2.209072828, 2.325521831,
     2.359174289, 2.411867368, 2.465796784, 2.570255291),
    (2.745927613, 2.824270337, 2.922340016, 2.980013964, 3.049288621, 3.145468149, 3.276932457, 3.474226545,
     3.529363492, 3.620958819, 3.736979356, 3.941029161),
])  # fmt: skip
"""Critical values of the MOSUM processes over ten times the history, by bandwidth (rows) and level: simulated by the
authors of strucchange (Leisch, Hornik and Kuan 2000; Zeileis et al. 2005). Linear in between, as there."""


def critical(process: str, h: float, alpha: float, p: int) -> float:
    """Critical value of a monitoring process with p regressors; the estimates' are tested each at alpha / p."""
    level = alpha / p if process in ("re", "me") else alpha
    if process in ("ols_cusum", "re"):
        return float(brentq(lambda a: recursive_size(a) - level, 0.0, 20.0))
    if not LEVELS[-1] <= level <= LEVELS[0]:
        raise ConfigError(
            f"alpha {alpha:g} asks for level {level:g} of the {process} process; critical values are known from "
            f"{LEVELS[-1]:g} to {LEVELS[0]:g} only{' (alpha / number of regressors)' if process == 'me' else ''}."
        )
    row = MOSUM[BANDWIDTHS.index(h)]
    return float(np.interp(level, LEVELS[::-1], row[::-1]))


def recursive_size(a):
    """Chance that a recursive process ever passes the boundary with constant a (Chu, Stinchcombe and White 1996)."""
    return 2 - 2 * (norm.cdf(a) - a * norm.pdf(a))


def p_values(statistic, process: str, h: float, p: int):
    """Chance under "no change" of a process that reaches as high, (n_pixel,).

    statistic : (n_pixel,) the constant of the boundary that it just touches. Beyond the table of the MOSUM processes
    the logarithm goes on linearly in the square.
    """
    c = np.asarray(statistic, np.float64)
    if process in ("ols_cusum", "re"):
        single = recursive_size(c)
    else:
        row = MOSUM[BANDWIDTHS.index(h)] ** 2
        slope = np.log(LEVELS[0] / LEVELS[-1]) / (row[-1] - row[0])
        single = LEVELS[0] * np.exp(np.minimum(slope * (row[0] - c * c), 50.0))
    return np.clip(single * (p if process in ("re", "me") else 1), 0.0, 1.0)


def roc_critical(alpha: float) -> float:
    """Constant b of the boundary b (1 + 2 t) of the recursive CUSUM (Brown, Durbin and Evans 1975)."""

    def size(b):
        if b < 0.3:
            return 1 - 0.1464 * b
        return 2 * (
            1 - norm.cdf(3 * b) + np.exp(-4 * b * b) * (norm.cdf(b) + norm.cdf(5 * b) - 1)
            - np.exp(-16 * b * b) * (1 - norm.cdf(b))
        )  # fmt: skip

    return float(brentq(lambda b: size(b) - alpha, 1e-6, 20.0))


def design(stamps, order: int):
    """Regressors of BFAST: 1, trend, cosines, sines, (n_time, 2 + 2 order), and decimal years as R counts them.

    Every year has 365 days there: 29 February counts as 1 March.
    """
    days = np.asarray(stamps, "datetime64[D]")
    year = days.astype("datetime64[Y]")
    month = days.astype("datetime64[M]")
    before = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    number = before[(month - year.astype("datetime64[M]")).astype(int)] + (days - month.astype("datetime64[D]")).astype(
        int
    )
    time = year.astype(int) + 1970 + number / 365
    columns = [np.ones_like(time), time - time[0]]
    columns += [np.cos(2 * np.pi * m * time) for m in range(1, order + 1)]
    columns += [np.sin(2 * np.pi * m * time) for m in range(1, order + 1)]
    return np.stack(columns, axis=1), time


@njit(nogil=True, cache=True, error_model="numpy")
def monitor(series, x, first, process, h, bound, roc):
    """Monitor every pixel.

    series : (n_time, n_pixel) float32, NaN = not observed; x : (n_time, p) `design`; first : number of the first
    monitored scene; process : place in `PROCESSES`; h : bandwidth, a share of the history; bound : `critical`
    roc : `roc_critical`, or 0 for all of the history

    Returns date, after, start (n_pixel,) int32: scene at which the process left its boundary and the last one before
    its window began (-1: it never did), first scene of the stable history; n_history (n_pixel,) int32 observations in
    it, 0 where there are too few; magnitude, statistic (n_pixel,) float32: median of observed minus predicted over the
    monitored time, the boundary's constant that the process just touches; n_obs (n_pixel,) uint16.
    """
    n_time, n_pixel = series.shape
    p = x.shape[1]
    pairs = p * (p - 1) // 2
    date = np.full(n_pixel, -1, np.int32)
    after = np.full(n_pixel, -1, np.int32)
    start = np.full(n_pixel, -1, np.int32)
    n_history = np.zeros(n_pixel, np.int32)
    magnitude = np.full(n_pixel, np.nan, np.float32)
    statistic = np.zeros(n_pixel, np.float32)
    n_obs = np.zeros(n_pixel, np.uint16)
    d = np.empty((p, BLOCK))
    r = np.empty((max(pairs, 1), BLOCK))
    theta = np.empty((p, BLOCK))
    row = np.empty((p, BLOCK))
    work = np.empty((5, BLOCK))
    recursive = np.empty((first, BLOCK))
    error = np.empty((n_time - first, BLOCK))
    beta = np.zeros((p, BLOCK))
    single = np.empty(p)
    stable = np.empty(BLOCK, np.int64)
    squares = np.empty(BLOCK)
    scenes = np.empty(n_time + 1, np.int64)
    values = np.empty(n_time + 1)
    sums = np.empty(n_time + 1)
    room = np.empty((2, n_time + 1))
    for begin in range(0, n_pixel, BLOCK):
        end = min(begin + BLOCK, n_pixel)
        n = end - begin
        y, w, s, c, inverse = work[0, :n], work[1, :n], work[2, :n], work[3, :n], work[4, :n]
        d[:], r[:], theta[:] = 0.0, 0.0, 0.0
        for t in range(first - 1, -1, -1):
            given = series[t, begin:end]
            for i in range(n):
                y[i] = given[i] if np.isfinite(given[i]) else 0.0
            for i in range(n):
                w[i] = 1.0 if np.isfinite(given[i]) else 0.0
            for a in range(p):
                at = row[a]
                for i in range(n):
                    at[i] = x[t, a]
            place = 0
            for a in range(p):
                xa, da, ta = row[a], d[a], theta[a]
                # loops of few arrays: beyond that the compiler can't rule out overlap, and does not vectorise
                for i in range(n):
                    grown = da[i] + w[i] * xa[i] * xa[i]
                    inverse[i] = 1.0 / grown if grown > 0.0 else 0.0
                for i in range(n):
                    s[i] = w[i] * xa[i] * inverse[i]
                for i in range(n):
                    c[i] = da[i] * inverse[i] if inverse[i] > 0.0 else 1.0
                    da[i] += w[i] * xa[i] * xa[i]
                for i in range(n):
                    w[i] *= c[i]
                for b in range(a + 1, p):
                    xb, rb = row[b], r[place]
                    place += 1
                    for i in range(n):
                        old = xb[i]
                        xb[i] = old - xa[i] * rb[i]
                        rb[i] = c[i] * rb[i] + s[i] * old
                for i in range(n):
                    old = y[i]
                    y[i] = old - xa[i] * ta[i]
                    ta[i] = c[i] * ta[i] + s[i] * old
            left = recursive[t]
            for i in range(n):
                left[i] = y[i] * np.sqrt(w[i]) if np.isfinite(given[i]) else np.nan
        for i in range(n):
            # observations from the latest one backwards
            m = 0
            for t in range(first - 1, -1, -1):
                scenes[m] = t
                values[m] = recursive[t, i]
                m += int(np.isfinite(values[m]))
            kept = m
            if roc > 0.0 and m > p + 1:
                kept = stable_length(values, m, p, roc)
            stable[i] = kept
            total = 0.0
            for k in range(p, kept):
                total += values[k] * values[k]
            if kept < m:
                total = refit(series[:, begin + i], x, scenes, kept, single)
                for a in range(p):
                    beta[a, i] = single[a]
            elif m > p:
                for a in range(p - 1, -1, -1):
                    v = theta[a, i]
                    for b in range(a + 1, p):
                        v -= r[a * (2 * p - a - 1) // 2 + b - a - 1, i] * beta[b, i]
                    beta[a, i] = v
            squares[i] = total
            n_obs[begin + i] = m
            if kept > p and int(np.floor(h * kept)) > 1:
                n_history[begin + i] = kept
                start[begin + i] = scenes[kept - 1]
        for t in range(first, n_time):
            given, e = series[t, begin:end], error[t - first]
            for i in range(n):
                e[i] = given[i]
            for a in range(p):
                value, ba = x[t, a], beta[a]
                for i in range(n):
                    e[i] -= value * ba[i]
        for i in range(n):
            pixel = begin + i
            m = 0
            for t in range(first, n_time):
                scenes[m] = t
                values[m] = error[t - first, i]
                m += int(np.isfinite(values[m]))
            n_obs[pixel] += m
            size = n_history[pixel]
            if size == 0 or m == 0:
                continue
            sigma = np.sqrt(squares[i] / (size - p))
            if not sigma > 1e-12:
                magnitude[pixel] = median(values, m, room)
                continue
            if process <= 1:
                window = int(np.floor(h * size)) if process == 0 else 0
                found, top = residual_process(
                    series[:first, pixel], x, beta[:, i], values, m, size, window, sigma * np.sqrt(size), bound, sums
                )
            else:
                window = int(np.floor(h * size)) if process == 3 else 0
                found, top = estimates_process(
                    series[:, pixel], x, beta[:, i].copy(), start[pixel], size, window, sigma, bound
                )
            statistic[pixel] = top
            if found >= 0:
                date[pixel] = scenes[found]
                back = found - window if window > 0 else -1
                after[pixel] = scenes[back] if back >= 0 else last_seen(series[:first, pixel])
            magnitude[pixel] = median(values, m, room)
    return date, after, start, n_history, magnitude, statistic, n_obs


@njit(nogil=True, cache=True, error_model="numpy")
def stable_length(values, n, p, bound):
    """Observations of a stable history, from the latest backwards: before the recursive CUSUM leaves its boundary.

    values : recursive residuals, latest first, those from p on count; bound : `roc_critical`
    """
    count = n - p
    mean = 0.0
    for k in range(p, n):
        mean += values[k] / count
    spread = 0.0
    for k in range(p, n):
        spread += (values[k] - mean) ** 2
    sigma = np.sqrt(spread / (count - 1))
    if not sigma > 0.0:
        return n
    total, scale = 0.0, 1.0 / (sigma * np.sqrt(count))
    for k in range(p, n):
        total += values[k] * scale
        if abs(total) > bound * (1.0 + 2.0 * (k - p + 1) / count):
            return k
    return n


@njit(nogil=True, cache=True, error_model="numpy")
def refit(column, x, scenes, n, beta):
    """Least squares of a pixel's n scenes `scenes` by the same Givens update; fills beta, returns the squares left."""
    p = beta.size
    d, theta, r, row = np.zeros(p), np.zeros(p), np.zeros((p, p)), np.empty(p)
    squares = 0.0
    for k in range(n):
        t = scenes[k]
        y, w = float(column[t]), 1.0
        row[:] = x[t]
        for a in range(p):
            grown = d[a] + w * row[a] * row[a]
            if not grown > 0.0:
                continue
            s, c = w * row[a] / grown, d[a] / grown
            d[a] = grown
            w *= c
            for b in range(a + 1, p):
                old = row[b]
                row[b] = old - row[a] * r[a, b]
                r[a, b] = c * r[a, b] + s * old
            old = y
            y = old - row[a] * theta[a]
            theta[a] = c * theta[a] + s * old
        squares += w * y * y
    for a in range(p - 1, -1, -1):
        beta[a] = theta[a]
        for b in range(a + 1, p):
            beta[a] -= r[a, b] * beta[b]
    return squares


@njit(nogil=True, cache=True, error_model="numpy")
def residual_process(past, x, beta, error, n, size, window, scale, bound, sums):
    """OLS-MOSUM (window > 0) or OLS-CUSUM of n monitored errors: first one outside the boundary (-1), statistic.

    past : (n_history_scene,) the history's series; size : its observations; scale : sigma sqrt(size)
    sums : (n_time + 1,) room to work in
    """
    k = 0
    if window > 0:
        # the first windows reach back into the history
        k = window - 1
        for t in range(past.size - 1, -1, -1):
            if k == 0:
                break
            if np.isfinite(past[t]):
                e = float(past[t])
                for a in range(beta.size):
                    e -= x[t, a] * beta[a]
                sums[k] = e
                k -= 1
        k = window - 1
    total = 0.0
    sums[0] = 0.0
    for i in range(1, k + 1):
        total += sums[i]
        sums[i] = total
    for i in range(n):
        total += error[i]
        sums[k + 1 + i] = total
    found, top = -1, 0.0
    if window > 0:
        # the boundary is flat until the series is e times its history
        flat = min(n, int(np.floor(np.e * size)) - size)
        outside, highest = bound * np.sqrt(2.0) * scale, 0.0
        for i in range(flat):
            reach = abs(sums[i + window] - sums[i])
            highest = max(highest, reach)
            if reach > outside and found < 0:
                found = i
        top = highest / (scale * np.sqrt(2.0))
        for i in range(max(flat, 0), n):
            c = abs(sums[i + window] - sums[i]) / (scale * np.sqrt(2.0 * np.log((size + i + 1) / size)))
            top = max(top, c)
            if c > bound and found < 0:
                found = i
        return found, top
    for i in range(n):
        share = (size + i + 1) / size
        reach = sums[i + 1] / scale
        c = np.sqrt(max(reach * reach / (share * (share - 1.0)) - np.log(share / (share - 1.0)), 0.0))
        top = max(top, c)
        if c > bound and found < 0:
            found = i
    return found, top


@njit(nogil=True, cache=True, error_model="numpy")
def estimates_process(column, x, beta, begin, size, window, sigma, bound):
    """Recursive (window 0) or moving estimates: first monitored observation outside the boundary (-1), statistic."""
    p = beta.size
    scenes = np.empty(column.size, np.int64)
    n = 0
    for t in range(begin, column.size):
        if np.isfinite(column[t]):
            scenes[n] = t
            n += 1
    now = np.empty(p)
    root = root_of(x, scenes, 0, size)
    found, top, highest = -1, 0.0, 0.0
    for k in range(size, n):
        low = k + 1 - window if window > 0 else 0
        used = k + 1 - low
        if used <= p:
            continue
        refit(column, x, scenes[low : k + 1], used, now)
        if window > 0:
            root = root_of(x, scenes, low, k + 1)
        share = (k + 1) / size
        for a in range(p):
            v = 0.0
            for b in range(p):
                v += root[a, b] * (now[b] - beta[b])
            highest = max(highest, abs(v) * used / (sigma * np.sqrt(size)))
        if window > 0:
            c = highest / np.sqrt(2.0 * (1.0 if share <= np.e else np.log(share)))
        else:
            c = np.sqrt(max(highest**2 / (share * (share - 1.0)) - np.log(share / (share - 1.0)), 0.0))
        top = max(top, c)
        if found < 0 and c > bound:
            found = k - size
    return found, top


@njit(nogil=True, cache=True, error_model="numpy")
def root_of(x, scenes, low, high):
    """Symmetric square root of X'X / n over some scenes, (p, p)."""
    p = x.shape[1]
    moment = np.zeros((p, p))
    for k in range(low, high):
        for a in range(p):
            for b in range(p):
                moment[a, b] += x[scenes[k], a] * x[scenes[k], b] / (high - low)
    values, vectors = np.linalg.eigh(moment)
    out = np.zeros((p, p))
    for a in range(p):
        for b in range(p):
            for m in range(p):
                out[a, b] += vectors[a, m] * np.sqrt(max(values[m], 0.0)) * vectors[b, m]
    return out


@njit(nogil=True, cache=True)
def median(values, n, room):
    """Median of the first n values; room : (2, >= n) to work in.

    By halving around a pivot without branches on the values: a branch that no one can predict costs more than the copy.
    """
    want = (n - 1) // 2
    now, size = values, n
    low, high = room[0], room[1]
    while True:
        a, b, c = now[0], now[size // 2], now[size - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        n_low, n_high = 0, 0
        for i in range(size):
            v = now[i]
            low[n_low] = v
            n_low += int(v < pivot)
            high[n_high] = v
            n_high += int(v > pivot)
        # what is written is never ahead of what is read, so that a half may be halved in place
        same = size - n_low - n_high
        if want < n_low:
            now, size = low, n_low
        elif want < n_low + same:
            break
        else:
            want -= n_low + same
            now, size = high, n_high
    if n % 2:
        return pivot
    reached, above = 0, np.inf
    for i in range(n):
        v = values[i]
        reached += int(v <= pivot)
        above = min(above, v if v > pivot else np.inf)
    return pivot if reached > n // 2 else 0.5 * (pivot + above)


@njit(nogil=True, cache=True)
def last_seen(past):
    """Number of the last observed scene, -1 for none."""
    for t in range(past.size - 1, -1, -1):
        if np.isfinite(past[t]):
            return t
    return -1
