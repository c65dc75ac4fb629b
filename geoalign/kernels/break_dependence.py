"""How much the autocorrelation of the errors takes off the evidence for a change: the widening of sums of residuals."""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.break_fit import SHORTEST, columns_for, fit
from geoalign.kernels.segments import FAST, trimmed_variance

SLACK = 0.15
"""Autocorrelation of all residuals is believed up to so much beyond that of neighbours: more is breaks yet unknown."""

HALF_YEAR = 0.5
"""Windows, in years, whose sums tell how one year differs from the next: an early spring and a late one."""

STEADY = 2.0
"""Windows that what is usual is worth."""

MADE_UP = 3.0
"""Half years within which what seasons do by themselves is made up for so often; good and bad years are not."""

EARLY = 8.0 / 365.25
"""Years by which a season usually comes early or late (sd), before the data tell."""


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def dependence(w, x, total, years, a, first, last, b, order, free, cuts, s):
    """By how much the variance of sums is larger than that of independent errors: (1 + r) / (1 - r), r the
    autocorrelation of neighbouring observations around fits of the two or three stretches a, first, (last,) b.

    And how the sums of half years vary (s.cov, over what that tells): seasons come early or late, years are good or
    bad.
    """
    n_band = w.shape[0]
    above, below, used = 0.0, 0.0, 0
    whole = columns_for(b - a, years[b - 1] - years[a], order)
    q = max(int(HALF_YEAR * (b - a) / max(years[b - 1] - years[a], 1e-9)), SHORTEST // 2)
    stride = max(1, q // 6)
    sums = np.empty((n_band, (b - a) // stride + 3))
    size = np.empty((b - a) // stride + 3)
    n_window, longest = 0, 0
    season = np.zeros((n_band, 2))
    for part in range(3):
        if part == 0:
            low, high = a, first
        elif part == 1:
            low, high = first, last if last > 0 else b
        elif last > 0:
            low, high = last, b
        else:
            break
        p, _, _ = fit(w, x, total, years, low, high, order, free, 0.0, cuts, s)
        if p == 0:
            continue
        used += p
        if p >= 4 and high - low > longest:
            longest = high - low
            season[:, :] = s.beta[:n_band, 2:4]
        for k in range(n_band):
            e = s.e[k, low:high]
            for i in range(high - low - 1):
                above += e[i] * e[i + 1]
                below += e[i] * e[i]
        span = years[high - 1] - years[low]
        if columns_for(high - low, span, order) == whole:
            # the fit follows one of the years
            lift = 1.0 / np.sqrt(max(1.0 - 1.0 / max(span, 1.0), 0.3))
            n_window = half_years(low, high, q, stride, lift, n_band, sums, size, n_window, s)
    r = local_dependence(a, b, n_band, cuts, s) + SLACK
    widen = widening_of(min(above, r * below), below, used / (b - a))
    noise = below / (n_band * max(b - a - used, 1))
    independent = n_window * stride / (2.0 * q)
    covariance_of_windows(sums, size, n_window, independent, 2.0 * q, noise * widen, season, n_band, cuts, s)
    return widen


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def half_years(low, high, q, stride, lift, n_band, sums, size, n, s):
    """Differences of the sums of neighbouring windows of q residuals s.e, low to high, times lift: sums (n_band, .) and
    their squared lengths from the n-th on. Returns how many there are then."""
    first = n
    for k in range(n_band):
        e = s.e[k]
        n = first
        for start in range(low, high - 2 * q + 1, stride):
            d = 0.0
            for i in range(start, start + q):
                d += e[i + q] - e[i]
            sums[k, n] = d * lift
            n += 1
    for j in range(first, n):
        size[j] = 0.0
        for k in range(n_band):
            size[j] += sums[k, j] ** 2
    return n


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def covariance_of_windows(sums, size, n, independent, width, noise, season, n_band, cuts, s):
    """Covariance of sums (n_band, n) over the variance expected of each (noise a date, width dates), into s.cov.

    Where few of them are independent it is rather that of a season (n_band, 2: cosine and sine) that comes EARLY or
    late.
    """
    early = 0.2 * width * (2.0 * np.pi * EARLY) ** 2 / max(noise, 1e-12)
    for k in range(n_band):
        for c in range(n_band):
            s.cov[k, c] = early * (season[k, 0] * season[c, 0] + season[k, 1] * season[c, 1])
        s.cov[k, k] += 1.0
    if n == 0 or noise <= 0.0:
        return
    # breaks that are not known yet lie in a few of them
    limit = cuts[0] * trimmed_variance(size, n, cuts[0], cuts[1])
    kept = 0
    for j in range(n):
        kept += int(size[j] <= limit)
    weight = independent / (independent + STEADY)
    for k in range(n_band):
        for c in range(n_band):
            total = 0.0
            for j in range(n):
                total += sums[k, j] * sums[c, j] if size[j] <= limit else 0.0
            s.cov[k, c] *= 1.0 - weight
            s.cov[k, c] += weight * total / (max(kept, 1) * cuts[1] * width * noise)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def restlessness(i, j, halves, n_band, s):
    """By how much more than expected the sum of residuals from j to i varies, by the windows of s.cov; 1 at least.

    halves : half years that the shorter side lasts: an early spring is made up for by a late one, or an early autumn
    """
    above, below = 0.0, 0.0
    for k in range(n_band):
        d = s.sums[k, i] - s.sums[k, j]
        below += d * d
        for c in range(n_band):
            above += d * s.cov[k, c] * (s.sums[c, i] - s.sums[c, j])
    more = above / below - 1.0 if below > 0.0 else 0.0
    return 1.0 + max(more, 0.0) / min(max(halves, 1.0), MADE_UP)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def pair_normal(i, j, p, s):
    """What two steps, at i and j > i, leave of each other beside season and trend: the normal matrix's two diagonal
    elements and the other one, and its determinant; held away from zero."""
    both = float(i)
    for c in range(p):
        both -= s.c[c, i] * s.c[c, j]
    one, two = max(i - s.h[i], 0.3), max(j - s.h[j], 0.3)
    return one, two, both, max(one * two - both * both, 0.1 * one * two)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def joint_dependence(a, b, i, j, p, n_band, cuts, s):
    """The same around one fit of a to b with steps at a + i and a + j (j 0: one step only), from `step_sums`.

    Season and trend are those of the whole stretch: parts of less than a year can't tell theirs, and what they miss
    looks like autocorrelation. s.e are the residuals afterwards.
    """
    m = b - a
    if j > 0:
        one, two, both, rest = pair_normal(i, j, p, s)
    else:
        one, two, both = max(i - s.h[i], 0.3), 1.0, 0.0
        rest = one
    above, below = 0.0, 0.0
    shared = np.empty(p)
    for k in range(n_band):
        f, g = s.sums[k, i], s.sums[k, j] if j > 0 else 0.0
        step_one, step_two = (two * f - both * g) / rest, (one * g - both * f) / rest
        for c in range(p):
            shared[c] = step_one * s.c[c, i] + (step_two * s.c[c, j] if j > 0 else 0.0)
        e = s.e[k, a:b]
        for t in range(m):
            explained = (step_one if t < i else 0.0) + (step_two if t < j else 0.0)
            for c in range(p):
                explained -= (s.c[c, t + 1] - s.c[c, t]) * shared[c]
            e[t] -= explained
        for t in range(m - 1):
            above += e[t] * e[t + 1]
            below += e[t] * e[t]
    r = local_dependence(a, b, n_band, cuts, s) + SLACK
    return widening_of(min(above, r * below), below, (p + 2) / m)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def local_dependence(a, b, n_band, cuts, s):
    """Autocorrelation told by differences of observations next to each other and next but one, of the residuals s.e.

    They vary as 1 - r and 1 - r^2. Breaks that are not known yet touch a few of them only.
    """
    m = b - a - 2
    near, far = s.num[:m], s.den[:m]
    for i in range(m):
        near[i] = 0.0
        far[i] = 0.0
    for k in range(n_band):
        e0, e1, e2 = s.e[k, a : b - 2], s.e[k, a + 1 : b - 1], s.e[k, a + 2 : b]
        for i in range(m):
            near[i] += (e1[i] - e0[i]) ** 2
            far[i] += (e2[i] - e0[i]) ** 2
    one = trimmed_variance(near, m, cuts[0], cuts[1])
    two = trimmed_variance(far, m, cuts[0], cuts[1])
    return two / one - 1.0 if one > 0.0 else 1.0


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def follow(a, b, used, n_band, s):
    """The same from the residuals of one fit of a to b, s.e."""
    above, below = 0.0, 0.0
    for k in range(n_band):
        e = s.e[k, a : b - 1]
        after = s.e[k, a + 1 : b]
        for i in range(b - a - 1):
            above += e[i] * after[i]
            below += e[i] * e[i]
    return widening_of(above, below, used / (b - a))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def widening_of(above, below, lost):
    """(1 + r) / (1 - r) for r = above / below + lost, what fitting takes off it (about p / m)."""
    if below <= 0.0:
        return 1.0
    r = min(max(above / below + lost, 0.0), 0.9)
    return (1.0 + r) / (1.0 - r)
