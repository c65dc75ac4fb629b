"""The robust fit of one stretch of a series that `breaks` goes by, and of the two stretches either side of a break.

What lies beyond `cuts` of the fit is drawn in to it (Huber's pseudo-values), for which the shared sums of products need
not be made again.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from geoalign.kernels.segments import FAST, WIDTH, backward, factor, forward, residuals, trimmed_variance

SHORTEST = 6
"""Observations that a stretch between two breaks needs."""

HELD = 1e12
"""Ridge that takes the trend out of a stretch too short to tell it from the season."""

TREND_YEARS = 2.0
SEASON_YEARS = 1.0
"""Years that a stretch must last for a trend, and for a season, of its own."""

TREND_SD = 0.5
"""What is known of the trend of a stretch between breaks: its standard deviation, noise sd a year."""

Space = namedtuple(
    "Space",
    "e y beta lower side right left z zs rest before after size sums c h g num den cov",
)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def columns_for(m, span, order):
    """Regressors that m observations over `span` years can carry: 2 + 2 k for k up to `order` harmonics."""
    k = order if span >= SEASON_YEARS else 0
    while k > 0 and m < 3 + 1.5 * (2 + 2 * k):
        k -= 1
    return 2 + 2 * k


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def fit(w, x, total, years, a, b, order, free, soft, cuts, s):
    """Robust fit of the stretch a to b; the number of regressors by the Bayesian information criterion.

    w : (n_band, n) whitened series; x : (WIDTH, n); total : `running` sums; order : most harmonics
    free : choose the order by the data (else it is `order` where the stretch can carry it)
    soft : ridge on the trend; cuts : (trim, keep, clip), squared limits in variances of all bands together
    s : Space. Fills s.e (residuals of the pseudo-values), s.y (pseudo-values), s.beta, s.lower.
    Returns p (0: impossible), the sum of squares of s.e, and the robust variance (all bands together).
    """
    n_band = w.shape[0]
    m = b - a
    span = years[b - 1] - years[a]
    ridge = soft if span >= TREND_YEARS else HELD
    p = columns_for(m, span, order)
    p = min(p, factor(total, a, b, p, ridge, s.lower))
    if p < 2:
        return 0, 0.0, 0.0
    p -= p % 2
    whole = 0.0
    for k in range(n_band):
        ww, yy = w[k, a:b], s.y[k, a:b]
        square = 0.0
        for i in range(m):
            yy[i] = ww[i]
            square += ww[i] * ww[i]
        whole += square
        for c in range(p):
            xx = x[c, a:b]
            dot = 0.0
            for i in range(m):
                dot += ww[i] * xx[i]
            s.right[k, c] = dot
    variance = 0.0
    size = s.size[a:b]
    for turn in range(3):
        for k in range(n_band):
            forward(s.lower, s.right[k], p, s.z[k])
        if turn == 2:
            break
        for k in range(n_band):
            backward(s.lower, s.z[k], p, s.beta[k])
            residuals(w[k], x, a, b, p, s.beta[k], s.e[k])
        for i in range(m):
            size[i] = 0.0
        for k in range(n_band):
            ee = s.e[k, a:b]
            for i in range(m):
                size[i] += ee[i] * ee[i]
        variance = trimmed_variance(size, m, cuts[0], cuts[1])
        limit = cuts[2] * variance
        for i in range(m):
            if size[i] > limit:
                shrink = 1.0 - np.sqrt(limit / size[i])
                for k in range(n_band):
                    old = s.y[k, a + i]
                    new = w[k, a + i] - s.e[k, a + i] * shrink
                    s.y[k, a + i] = new
                    whole += new * new - old * old
                    for c in range(p):
                        s.right[k, c] += x[c, a + i] * (new - old)
    if free:
        best, best_p, left = np.inf, p, whole
        penalty = np.log(m) * n_band
        floor = 1e-12 * whole + 1e-300
        c = 0
        for q in range(2, p + 1, 2):
            while c < q:
                for k in range(n_band):
                    left -= s.z[k, c] ** 2
                c += 1
            value = m * n_band * np.log(max(left, floor)) + penalty * q
            if value < best:
                best, best_p = value, q
        p = best_p
    squares = 0.0
    for k in range(n_band):
        backward(s.lower, s.z[k], p, s.beta[k])
        residuals(s.y[k], x, a, b, p, s.beta[k], s.e[k])
        ee = s.e[k, a:b]
        part = 0.0
        for i in range(m):
            part += ee[i] * ee[i]
        squares += part
    return p, squares, variance


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def two_fits(w, x, total, years, a, tau, b, order, free, soft, cuts, s):
    """Fits before and from observation tau on, s.before and s.after (n_band, WIDTH), and their variances (all bands).

    A stretch too short for a season of its own takes that of the other, and has its own level.
    """
    n_band = w.shape[0]
    p0, _, v0 = fit(w, x, total, years, a, tau, order, free, soft, cuts, s)
    for k in range(n_band):
        for c in range(WIDTH):
            s.before[k, c] = s.beta[k, c] if p0 > 0 else 0.0
    p1, _, v1 = fit(w, x, total, years, tau, b, order, free, soft, cuts, s)
    for k in range(n_band):
        for c in range(WIDTH):
            s.after[k, c] = s.beta[k, c] if p1 > 0 else 0.0
    short0 = columns_for(tau - a, years[tau - 1] - years[a], order) < columns_for(
        b - tau, years[b - 1] - years[tau], order
    )
    short1 = columns_for(b - tau, years[b - 1] - years[tau], order) < columns_for(
        tau - a, years[tau - 1] - years[a], order
    )
    if p0 == 0 or (short0 and p1 > 2):
        v0 = borrow(w, x, a, tau, p1, s.after, s.before, cuts, s)
    elif p1 == 0 or (short1 and p0 > 2):
        v1 = borrow(w, x, tau, b, p0, s.before, s.after, cuts, s)
    return v0, v1


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def borrow(w, x, a, b, p, shape, out, cuts, s):
    """out = shape with the level of the stretch a to b; returns the variance around it."""
    n_band = w.shape[0]
    m = b - a
    size = s.size[a:b]
    for i in range(m):
        size[i] = 0.0
    for k in range(n_band):
        for c in range(WIDTH):
            out[k, c] = shape[k, c]
        residuals(w[k], x, a, b, p, shape[k], s.e[k])
        level = np.median(s.e[k, a:b])
        out[k, 0] += level
        for i in range(m):
            size[i] += (s.e[k, a + i] - level) ** 2
    return trimmed_variance(size, m, cuts[0], cuts[1])


@njit(nogil=True, cache=True)
def space(n_band, n_time):
    """Room to work in, made once for all pixels."""
    return Space(
        np.empty((n_band, n_time)),
        np.empty((n_band, n_time)),
        np.zeros((n_band, WIDTH)),
        np.zeros((WIDTH, WIDTH)),
        np.zeros((WIDTH, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.zeros(WIDTH),
        np.zeros(WIDTH),
        np.zeros((n_band, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.empty(n_time + 1),
        np.empty((n_band, n_time + 1)),
        np.empty((WIDTH, n_time + 1)),
        np.empty(n_time + 1),
        np.empty(n_time + 1),
        np.empty(n_time + 1),
        np.empty(n_time + 1),
        np.zeros((n_band, n_band)),
    )
