"""Fits of season and trend to any stretch of a series at constant cost: running sums of products of shared regressors.

The dates are the same for every pixel, so the products of their regressors are made once (`products`). A pixel adds up
those of its own observations (`running`); a stretch is the difference of two of these sums, and its fit one Cholesky
factor. Columns are ordered so that dropping the last ones drops the highest harmonics: one factor gives the residual
sum of squares of every order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

WIDTH = 8
"""Regressors a row, filled up with zeros: 1, trend, and cosine and sine of three harmonics."""

PACKED = 40
"""Products a row: the regressors themselves (times 1), then the lower triangle of the others, filled up with zeros."""

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be taken in another order (the same one in every call), so that they use the whole width of the machine."""


def regressors(years, order: int):
    """Columns of the model for all dates, (WIDTH, n_time) float64: 1, trend (-1 to 1), cos and sin of each harmonic.

    years : (n_time,) fractional years; order : 0 to 3
    """
    years = np.asarray(years, np.float64)
    middle, half = (years[0] + years[-1]) / 2, max((years[-1] - years[0]) / 2, 1e-9)
    columns = [np.ones_like(years), (years - middle) / half]
    for m in range(1, order + 1):
        columns += [np.cos(2 * np.pi * m * years), np.sin(2 * np.pi * m * years)]
    out = np.zeros((WIDTH, years.size))
    out[: len(columns)] = columns
    return out


def products(x):
    """Products of the regressors at each date, (n_time, PACKED), from x (WIDTH, n_time)."""
    out = np.zeros((x.shape[1], PACKED))
    out[:, :WIDTH] = x.T
    place = WIDTH
    for a in range(1, WIDTH):
        for b in range(1, a + 1):
            out[:, place] = x[a] * x[b]
            place += 1
    return out


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def running(rows, at, first, n, total):
    """Running sums of rows[at[:n]]: total[i] is the sum of the first i, (n + 1, PACKED), filled in place.

    first : observations whose sums are there already
    """
    if first == 0:
        for k in range(PACKED):
            total[0, k] = 0.0
    for i in range(first, n):
        row = rows[at[i]]
        before = total[i]
        after = total[i + 1]
        for k in range(PACKED):
            after[k] = before[k] + row[k]


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def factor(total, a, b, p, ridge, lower):
    """Cholesky factor of X'X over observations a to b, its diagonal inverted; fills lower[:p, :p].

    ridge : added to the place of the second column (the trend)
    Returns the number of columns that are not combinations of those before them (at most p).
    """
    low, high = total[a], total[b]
    for i in range(p):
        lower[i, 0] = high[i] - low[i]
    place = WIDTH
    for i in range(1, p):
        for j in range(1, i + 1):
            lower[i, j] = high[place] - low[place]
            place += 1
    if p > 1:
        lower[1, 1] += ridge
    for i in range(p):
        whole = lower[i, i]
        for j in range(i):
            s = lower[i, j]
            for k in range(j):
                s -= lower[i, k] * lower[j, k]
            s *= lower[j, j]
            lower[i, j] = s
            whole -= s * s
        if not whole > 1e-7 * lower[i, i] or not whole > 1e-12:
            return i
        lower[i, i] = 1.0 / np.sqrt(whole)
    return p


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def forward(lower, right, p, z):
    """z = L^-1 right: z[k]^2 is what the k-th column takes off the sum of squares."""
    for i in range(p):
        s = right[i]
        for j in range(i):
            s -= lower[i, j] * z[j]
        z[i] = s * lower[i, i]


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def backward(lower, z, p, beta):
    """beta = L'^-1 z, filled up with zeros."""
    for i in range(p - 1, -1, -1):
        s = z[i]
        for j in range(i + 1, p):
            s -= lower[j, i] * beta[j]
        beta[i] = s * lower[i, i]
    for i in range(p, WIDTH):
        beta[i] = 0.0


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def residuals(y, x, a, b, p, beta, out):
    """out[a:b] = y[a:b] - beta x[:, a:b]; y (n,), x (WIDTH, n)."""
    yy, rr = y[a:b], out[a:b]
    for i in range(b - a):
        rr[i] = yy[i] - beta[0]
    for k in range(1, p):
        c = beta[k]
        xx = x[k, a:b]
        for i in range(b - a):
            rr[i] -= c * xx[i]


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def trimmed_variance(square, n, cut, keep):
    """Variance from squared deviations square[:n], those beyond `cut` times it left out, four times over.

    keep : what the trimming leaves of it under normal noise
    """
    total = 0.0
    for i in range(n):
        total += np.sqrt(square[i])
    # the mean of sizes gives way less to outliers than that of squares; it starts a little high for several bands
    variance = 1.5708 * (total / max(n, 1)) ** 2
    kept = -1.0
    for _ in range(4):
        limit = cut * variance
        s, m = 0.0, 0.0
        for i in range(n):
            inside = 1.0 if square[i] <= limit else 0.0
            s += inside * square[i]
            m += inside
        if m < 0.5 * n or s <= 0.0 or m == kept:
            # (as many as before are the same ones)
            break
        kept = m
        variance = s / (m * keep)
    return variance
