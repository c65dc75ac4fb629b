"""How much the autocorrelation of the errors takes off the evidence for a change: the widening of sums of residuals."""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.break_fit import fit
from geoalign.kernels.segments import FAST, trimmed_variance

SLACK = 0.15
"""Autocorrelation of all residuals is believed up to so much beyond that of neighbours: more is breaks yet unknown."""


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def dependence(w, x, total, years, a, first, last, b, order, free, cuts, s):
    """By how much the variance of sums is larger than that of independent errors: (1 + r) / (1 - r), r the
    autocorrelation of neighbouring observations around fits of the two or three stretches a, first, (last,) b."""
    n_band = w.shape[0]
    above, below, used = 0.0, 0.0, 0
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
        for k in range(n_band):
            e = s.e[k, low:high]
            for i in range(high - low - 1):
                above += e[i] * e[i + 1]
                below += e[i] * e[i]
    r = local_dependence(a, b, n_band, cuts, s) + SLACK
    return widening_of(min(above, r * below), below, used / (b - a))


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
