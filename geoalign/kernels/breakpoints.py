"""Breakpoints of a regression by dynamic programming: all segments at once have the least sum of squares.

Sums of products up to every observation (prefix sums) give a segment's regression, and its sum of squares, from two
rows of them. Breaks are first placed optimally on a grid of observations (on all, up to `NODES`), then moved to their
best place one at a time, their neighbours held.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.tmask import median_of

WIDTH = 8
"""Regressors at the most; unused ones are zero."""
N_SUM = WIDTH * (WIDTH + 1) // 2 + WIDTH + 1
"""Sums of an observation: products of regressors, with the value, the value squared."""
NODES = 80
SPIKE = 4.0
"""Typical differences of observations by which a lone one must differ from both its neighbours to be left out."""
PASSES = 3
PATIENCE = 2
"""Further breaks in vain after which no more are tried."""
REACH = 24
"""Observations to either side of a break among which its true place is looked for."""
INSIDE = 0.9
"""Chance that the interval (after, by] holds the break, by the likelihood of its places."""
NO_DATA, TOO_FEW = -1, -2


def regressors(years, order, trend):
    """Regressors (n_time, WIDTH) float64: 1, cosine and sine of 1 to `order` cycles a year, then years where `trend`.

    years : (n_time,) fractional years; the trend counts decades from the middle, which keeps sums small.
    """
    years = np.asarray(years, np.float64)
    columns = [np.ones_like(years)]
    if trend:
        columns.append((years - (years[0] + years[-1]) / 2) / 10)
    for m in range(1, order + 1):
        columns += [np.cos(2 * np.pi * m * years), np.sin(2 * np.pi * m * years)]
    columns += [np.zeros_like(years)] * (WIDTH - len(columns))
    return np.ascontiguousarray(np.stack(columns, axis=1))


@njit(nogil=True, cache=True)
def scan(series, slope, spread, x, order, trend, share, max_segments, schwarz, again, first, max_breaks):
    """Breaks of every pixel's regression.

    series : (n_pixel, n_time) float32, NaN = not observed
    slope : (n_pixel,) squared gradient, units^2 / px^2; spread : (n_time,) squared sigma_px
    x : (n_time, WIDTH) `regressors`; order, trend : what is in it (fewer harmonics are used where observations are few)
    share : least share of the observations in a segment; max_segments : at most
    schwarz : True for BIC, False for LWZ; again : chance of each further break, for the evidence
    first : number of the first scene whose changes count; max_breaks : that are kept

    Returns outcome (n_pixel,) int32, breaks or a code below 0; n_obs (n_pixel,) int32; at (n_pixel, max_breaks, 3)
    int32, scenes of the first changed observation, of the last surely before, of the one by which it had changed;
    size (n_pixel, max_breaks, 2) float32, change of the model around the break, ln evidence; evidence (n_pixel,) ln of
    the likelihood ratio of one or more breaks against none
    """
    n_pixel, n_time = series.shape
    outcome = np.zeros(n_pixel, np.int32)
    n_obs = np.zeros(n_pixel, np.int32)
    at = np.full((n_pixel, max_breaks, 3), -1, np.int32)
    size = np.full((n_pixel, max_breaks, 2), np.nan, np.float32)
    evidence = np.zeros(n_pixel)
    scene = np.empty(n_time, np.int32)
    sums = np.zeros((n_time + 1, N_SUM))
    n_node = NODES + 2
    cost = np.empty((n_node, n_node))
    best = np.empty((max_segments, n_node))
    came = np.zeros((max_segments, n_node), np.int64)
    node = np.empty(n_node, np.int64)
    edges = np.zeros((max_segments + 1, max_segments + 1), np.int64)
    rss = np.empty(max_segments)
    factor = np.empty((WIDTH, WIDTH))
    z = np.empty(WIDTH)
    before, after = np.empty(WIDTH), np.empty(WIDTH)
    chance = np.empty(2 * REACH + 1)
    step = np.empty(n_time)
    ln_again = np.log(again)
    for q in range(n_pixel):
        n = 0
        for t in range(n_time):
            if not np.isnan(series[q, t]):
                scene[n] = t
                n += 1
        n_obs[q] = n
        n, noise = _drop_spikes(series[q], scene, n, step)
        p = _width(n, order, trend)
        if p == 0:
            outcome[q] = NO_DATA if n == 0 else TOO_FEW
            continue
        _prefix(series[q], slope[q], spread, noise, x, scene, n, p, sums)
        least = max(p + 1, int(share * n))
        n_seg = min(max_segments, n // least)
        total = sums[n, N_SUM - 1]
        # below this a sum of squares is rounding: a series without noise has no breaks to find
        tiny = 1e-12 * (total + 1e-12)
        rss[0] = max(_rss(sums, 0, n, p, factor, z), tiny)
        m_node = 0
        stride = -(-n // NODES)
        for i in range(0, n, stride):
            node[m_node] = i
            m_node += 1
        node[m_node] = n
        m_node += 1
        if n_seg > 1 and rss[0] > tiny:
            for a in range(m_node):
                for b in range(a + 1, m_node):
                    long_enough = node[b] - node[a] >= least
                    cost[a, b] = _rss(sums, node[a], node[b], p, factor, z) if long_enough else np.inf
            _optimise(cost, m_node, n_seg, best, came)
        else:
            n_seg = 1
        edges[:] = 0
        chosen, lowest = 0, np.inf
        ln_sum = -np.inf
        for m in range(n_seg):
            if m > 0:
                if not np.isfinite(best[m, m_node - 1]):
                    break
                b = m_node - 1
                edges[m, m + 1] = n
                for s in range(m, 0, -1):
                    b = came[s, b]
                    edges[m, s] = node[b]
                rss[m] = max(_refine(sums, edges[m], m, p, least, stride, factor, z), tiny)
                ln_ratio = _ln_evidence(n, n - p, p * m, rss[m] / rss[0]) - m * np.log(n) + (m - 1) * ln_again
                ln_sum = np.logaddexp(ln_sum, ln_ratio)
            else:
                edges[0, 1] = n
            penalty = np.log(n) if schwarz else 0.299 * np.log(n) ** 2.1
            criterion = n * np.log(rss[m]) + penalty * (p + 1) * (m + 1)
            if criterion < lowest:
                chosen, lowest = m, criterion
            elif m >= chosen + PATIENCE:
                break
        evidence[q] = ln_sum
        edge = edges[chosen]
        found = 0
        for k in range(chosen):
            i, b, j = edge[k], edge[k + 1], edge[k + 2]
            if scene[b] < first:
                continue
            found += 1
            if found > max_breaks:
                continue
            variance = rss[chosen] / max(n - (chosen + 1) * p, 1)
            low, high = _interval(sums, i, b, j, p, variance, chance, factor, z)
            at[q, found - 1, 0] = scene[b]
            at[q, found - 1, 1] = scene[low - 1]
            at[q, found - 1, 2] = scene[high]
            _solve(sums, i, b, p, factor, before)
            _solve(sums, b, j, p, factor, after)
            size[q, found - 1, 0] = _jump(x, scene, b, i, j, p, before, after)
            joined = max(_rss(sums, i, j, p, factor, z), tiny)
            apart = _rss(sums, i, b, p, factor, z) + _rss(sums, b, j, p, factor, z)
            without = rss[chosen] + joined - apart
            size[q, found - 1, 1] = _ln_evidence(n, n - p * chosen, p, rss[chosen] / without) - np.log(n)
        outcome[q] = found
    return outcome, n_obs, at, size, evidence


@njit(nogil=True, cache=True)
def _ln_evidence(n, free, more, ratio):
    """ln Bayes factor of `more` further coefficients that bring the sum of squares down to a share `ratio` of it.

    By Zellner's prior worth one observation; free : degrees of freedom before.
    """
    return 0.5 * ((free - more) * np.log1p(n) - free * np.log1p(n * ratio))


@njit(nogil=True, cache=True)
def _drop_spikes(values, scene, n, step):
    """Leave out lone observations far from both neighbours, the same way: undetected clouds.

    Returns the new n, and the variance of noise by the median difference of neighbours.
    """
    if n < 3:
        return n, 1.0
    for i in range(1, n):
        step[i - 1] = abs(values[scene[i]] - values[scene[i - 1]])
    typical = median_of(step, n - 1)
    limit = SPIKE * typical
    kept = 1
    for i in range(1, n - 1):
        # scene[kept - 1] is the last one kept, scene[i + 1] not yet looked at
        left = values[scene[i]] - values[scene[kept - 1]]
        right = values[scene[i]] - values[scene[i + 1]]
        if min(left, right) > limit or max(left, right) < -limit:
            continue
        scene[kept] = scene[i]
        kept += 1
    scene[kept] = scene[n - 1]
    # the median difference of two normal errors is 0.954 of their sd
    return kept + 1, max((typical / 0.954) ** 2, 1e-12)


@njit(nogil=True, cache=True)
def _width(n, order, trend):
    """Regressors that n observations carry in at least two segments, with at most `order` harmonics; 0: too few."""
    for m in range(order, min(order, 1) - 1, -1):
        p = 1 + (1 if trend else 0) + 2 * m
        if n >= 3 * p and n >= 2 * (p + 1):
            return p
    return 0


@njit(nogil=True, cache=True)
def _prefix(values, slope, spread, noise, x, scene, n, p, sums):
    """Sums over the first 0 .. n observations, of values from their mean; weighted where scenes lie off differently."""
    mean = 0.0
    for i in range(n):
        mean += values[scene[i]]
    mean /= n
    for c in range(N_SUM):
        sums[0, c] = 0.0
    for i in range(n):
        t = scene[i]
        w = 1.0 / (1.0 + slope * spread[t] / noise)
        v = values[t] - mean
        c = 0
        for a in range(p):
            for b in range(a + 1):
                sums[i + 1, c] = sums[i, c] + w * x[t, a] * x[t, b]
                c += 1
        for a in range(p):
            sums[i + 1, c] = sums[i, c] + w * x[t, a] * v
            c += 1
        sums[i + 1, N_SUM - 1] = sums[i, N_SUM - 1] + w * v * v


@njit(nogil=True, cache=True)
def _rss(sums, i, j, p, factor, z):
    """Sum of squares of the regression on observations i .. j - 1."""
    top, bottom = sums[j], sums[i]
    at = p * (p + 1) // 2
    left = top[N_SUM - 1] - bottom[N_SUM - 1]
    c = 0
    for a in range(p):
        for b in range(a):
            total = top[c] - bottom[c]
            for k in range(b):
                total -= factor[a, k] * factor[b, k] * factor[k, k]
            factor[a, b] = total / factor[b, b]
            c += 1
        pivot = top[c] - bottom[c]
        scale = pivot
        for k in range(a):
            pivot -= factor[a, k] * factor[a, k] * factor[k, k]
        c += 1
        right = top[at + a] - bottom[at + a]
        for k in range(a):
            right -= factor[a, k] * z[k]
        z[a] = right
        # a regressor that the others explain takes no part
        if pivot > 1e-9 * scale:
            factor[a, a] = pivot
            left -= right * right / pivot
        else:
            factor[a, a] = 1e300
    return max(left, 0.0)


@njit(nogil=True, cache=True)
def _solve(sums, i, j, p, factor, beta):
    """Fill beta with the regression on observations i .. j - 1."""
    _rss(sums, i, j, p, factor, beta)
    for a in range(p):
        beta[a] /= factor[a, a]
    for a in range(p - 1, -1, -1):
        for k in range(a):
            beta[k] -= factor[a, k] * beta[a]


@njit(nogil=True, cache=True)
def _optimise(cost, m, n_seg, best, came):
    """Least total cost of 1 .. n_seg segments that end at each of m nodes, and where the last one begins."""
    for b in range(m):
        best[0, b] = cost[0, b] if b > 0 else np.inf
    for s in range(1, n_seg):
        for b in range(m):
            low, where = np.inf, 0
            for a in range(1, b):
                value = best[s - 1, a] + cost[a, b]
                if value < low:
                    low, where = value, a
            best[s, b], came[s, b] = low, where


@njit(nogil=True, cache=True)
def _refine(sums, edge, m, p, least, stride, factor, z):
    """Move each of m breaks to its best place near by, its neighbours held; returns the sum of squares of all."""
    for _ in range(PASSES):
        moved = False
        for k in range(1, m + 1):
            i, b, j = edge[k - 1], edge[k], edge[k + 1]
            low, where = np.inf, b
            for c in range(max(b - stride + 1, i + least), min(b + stride - 1, j - least) + 1):
                value = _rss(sums, i, c, p, factor, z) + _rss(sums, c, j, p, factor, z)
                if value < low:
                    low, where = value, c
            moved = moved or where != b
            edge[k] = where
        if not moved:
            break
    total = 0.0
    for k in range(m + 1):
        total += _rss(sums, edge[k], edge[k + 1], p, factor, z)
    return total


@njit(nogil=True, cache=True)
def _interval(sums, i, b, j, p, variance, chance, factor, z):
    """First and last place of the break in the shortest run around the best one with a chance of INSIDE."""
    first, last = max(b - REACH, i + p + 1), min(b + REACH, j - p - 1)
    first, last = min(first, b), max(last, b)
    low = np.inf
    for c in range(first, last + 1):
        value = _rss(sums, i, c, p, factor, z) + _rss(sums, c, j, p, factor, z)
        chance[c - first] = value
        low = min(low, value)
    total = 0.0
    for c in range(last - first + 1):
        chance[c] = np.exp(-0.5 * (chance[c] - low) / max(variance, 1e-300))
        total += chance[c]
    left = right = b
    inside = chance[b - first]
    while inside < INSIDE * total and (left > first or right < last):
        step_left = chance[left - 1 - first] if left > first else -1.0
        step_right = chance[right + 1 - first] if right < last else -1.0
        if step_left >= step_right:
            left -= 1
            inside += step_left
        else:
            right += 1
            inside += step_right
    return left, right


@njit(nogil=True, cache=True)
def _jump(x, scene, b, i, j, p, before, after):
    """Mean difference of the two models over the observations around the break, as many before as after."""
    reach = max(1, min(12, min(b - i, j - b)))
    total = 0.0
    for c in range(b - reach, b + reach):
        for a in range(p):
            total += x[scene[c], a] * (after[a] - before[a])
    return total / (2 * reach)
