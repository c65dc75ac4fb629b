"""Clouds and shadows that a mask has left: robust season of a window of observations (Tmask, Zhu and Woodcock 2014)."""

from __future__ import annotations

import numpy as np
from numba import njit

BISQUARE = 4.685
ROUNDS = 5
N_TERM = 5


@njit(nogil=True, cache=True)
def cholesky(a, n):
    """Lower factor of the n x n matrix a, in place (lower half read and written); False where it is singular."""
    for i in range(n):
        scale = a[i, i]
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            if i == j:
                if not total > 1e-10 * scale:
                    return False
                a[i, i] = np.sqrt(total)
            else:
                a[i, j] = total / a[j, j]
    return True


@njit(nogil=True, cache=True)
def solve_lower(a, n, v):
    """v := a^-1 v for the lower factor a, in place."""
    for i in range(n):
        total = v[i]
        for k in range(i):
            total -= a[i, k] * v[k]
        v[i] = total / a[i, i]


@njit(nogil=True, cache=True)
def solve_upper(a, n, v):
    """v := a'^-1 v for the lower factor a, in place."""
    for i in range(n - 1, -1, -1):
        total = v[i]
        for k in range(i + 1, n):
            total -= a[k, i] * v[k]
        v[i] = total / a[i, i]


@njit(nogil=True, cache=True)
def select(v, n, k):
    """The k-th smallest (from 0) of v[:n], which is put in another order."""
    lo, hi = 0, n - 1
    while lo < hi:
        pivot = v[(lo + hi) // 2]
        i, j = lo, hi
        while i <= j:
            while v[i] < pivot:
                i += 1
            while v[j] > pivot:
                j -= 1
            if i <= j:
                v[i], v[j] = v[j], v[i]
                i += 1
                j -= 1
        if k <= j:
            hi = j
        elif k >= i:
            lo = i
        else:
            break
    return v[k]


@njit(nogil=True, cache=True)
def median_of(v, n):
    """Median of v[:n], which is put in another order."""
    upper = select(v, n, n // 2)
    if n % 2:
        return upper
    lower = v[0]
    for i in range(1, n // 2):
        lower = max(lower, v[i])
    return 0.5 * (lower + upper)


@njit(nogil=True, cache=True)
def mark_clouds(values, n, years, limit, flagged, x, size, ordered, adjust):
    """Add to `flagged` (n,) the observations further than `limit` from a robust season of values[:n].

    years (n,) : times. Model: level, one cycle a year, one cycle over the window's whole years; Tukey's bisquare, five
    rounds from least squares, residuals divided by sqrt(1 - leverage) (as MATLAB's robustfit). x (n, N_TERM), size,
    ordered, adjust (n,) are scratch.
    """
    span = np.ceil(years[n - 1] - years[0])
    p = N_TERM if span > 1.0 else 3
    if n <= p:
        return
    for i in range(n):
        x[i, 0] = 1.0
        x[i, 1] = np.cos(2 * np.pi * years[i])
        x[i, 2] = np.sin(2 * np.pi * years[i])
        x[i, 3] = np.cos(2 * np.pi * years[i] / max(span, 1.0))
        x[i, 4] = np.sin(2 * np.pi * years[i] / max(span, 1.0))
    a = np.zeros((N_TERM, N_TERM))
    beta = np.zeros(N_TERM)
    row = np.zeros(N_TERM)
    for turn in range(ROUNDS + 1):
        a[:] = 0.0
        beta[:] = 0.0
        scale = 0.0
        if turn > 0:
            for i in range(n):
                ordered[i] = size[i]
            # p of the residuals are (nearly) zero by the fit: the median of the rest
            m = p + (n - p) // 2
            scale = select(ordered, n, m)
            if (n - p) % 2 == 0:
                lower = 0.0
                for i in range(m):
                    lower = max(lower, ordered[i])
                scale = 0.5 * (scale + lower)
            scale = BISQUARE * scale / 0.6745
            if not scale > 0.0:
                break
        for i in range(n):
            w = 1.0
            if turn > 0:
                u = size[i] / scale
                w = (1.0 - u * u) ** 2 if u < 1.0 else 0.0
            for j in range(p):
                beta[j] += w * x[i, j] * values[i]
                for k in range(j + 1):
                    a[j, k] += w * x[i, j] * x[i, k]
        if not cholesky(a, p):
            return
        solve_lower(a, p, beta)
        solve_upper(a, p, beta)
        for i in range(n):
            total = values[i]
            for j in range(p):
                total -= beta[j] * x[i, j]
            if turn == 0:
                leverage = 0.0
                for j in range(p):
                    row[j] = x[i, j]
                solve_lower(a, p, row)
                for j in range(p):
                    leverage += row[j] * row[j]
                adjust[i] = 1.0 / np.sqrt(max(1.0 - leverage, 1e-4))
            size[i] = abs(total) * adjust[i]
    for i in range(n):
        if size[i] / adjust[i] > limit:
            flagged[i] = True
