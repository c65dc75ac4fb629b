"""Season and trend of a pixel's series: robust harmonic regression, one pixel at a time."""

from __future__ import annotations

import numpy as np
from numba import njit

YEAR_DAYS = 365.25
TREND_SD = 0.15
"""What is known of a trend before two years of history tell: its standard deviation, noise sd a year."""

SAFETY = 1.5
"""Standard errors by which autocorrelation is taken for more than was estimated: too little raises false alarms, too
much costs an observation."""

BISQUARE = 4.685
"""Tuning constant of Tukey's bisquare: 95 % efficiency under normal noise."""


def regressors(years, order: int):
    """Columns of the season and trend model: 1, cos, sin of the year, trend, then the higher harmonics.

    years : (n_time,) fractional years from any fixed epoch, so that leap years do not tear the season
    order : harmonics, 0 to 3
    Returns (n_time, 2 + 2 * order) float64: 1, cos 1, sin 1, t, cos 2, sin 2, cos 3, sin 3 (order 0: 1, t).
    """
    years = np.asarray(years, np.float64)
    columns = [np.ones_like(years)]
    for m in range(1, order + 1):
        columns += [np.cos(2 * np.pi * m * years), np.sin(2 * np.pi * m * years)]
        if m == 1:
            columns.append(years)
    if order == 0:
        columns.append(years)
    return np.stack(columns, axis=1)


@njit(nogil=True, cache=True)
def choose_order(n, order):
    """Number of regressors that n observations can carry with at most `order` harmonics; 0 where there are too few.

    A model of p regressors takes 1.5 p observations and at least three more than p. Where a harmonic was asked for,
    none is not an answer: the season would look like change.
    """
    for m in range(order, min(order, 1) - 1, -1):
        p = 2 + 2 * m
        if n >= 1.5 * p and n >= p + 3:
            return p
    return 0


@njit(nogil=True, cache=True)
def solve_normal(x, y, keep, n, p, ridge, inverse, beta):
    """Least squares of y[:n] on x[:n, :p] with weights `keep`; False where it is singular.

    ridge : added to the trend's place of X'X. Fills inverse = (X'X)^-1 (p, p) and beta (p,).
    """
    lower = np.zeros((p, p))
    trend = 1 if p == 2 else 3
    lower[trend, trend] = ridge
    right = np.zeros(p)
    for i in range(n):
        w = keep[i]
        if w == 0.0:
            continue
        for a in range(p):
            right[a] += w * x[i, a] * y[i]
            for b in range(a + 1):
                lower[a, b] += w * x[i, a] * x[i, b]
    scale = np.zeros(p)
    for a in range(p):
        scale[a] = lower[a, a]
    for a in range(p):
        for b in range(a + 1):
            total = lower[a, b]
            for c in range(b):
                total -= lower[a, c] * lower[b, c]
            if a == b:
                if not total > 1e-9 * scale[a]:
                    return False
                lower[a, a] = np.sqrt(total)
            else:
                lower[a, b] = total / lower[b, b]
    # columns of the inverse by forward and backward substitution
    column = np.zeros(p)
    for k in range(p):
        for a in range(p):
            total = 1.0 if a == k else 0.0
            for b in range(a):
                total -= lower[a, b] * column[b]
            column[a] = total / lower[a, a]
        for a in range(p - 1, -1, -1):
            total = column[a]
            for b in range(a + 1, p):
                total -= lower[b, a] * column[b]
            column[a] = total / lower[a, a]
        for a in range(p):
            inverse[a, k] = column[a]
    for a in range(p):
        total = 0.0
        for b in range(p):
            total += inverse[a, b] * right[b]
        beta[a] = total
    return True


@njit(nogil=True, cache=True)
def robust_fit(x, y, n, p, ridge, keep, inverse, beta):
    """Robust least squares of y[:n] on x[:n, :p]; returns the residual sum of squares, or -1 where it is singular.

    Iteratively reweighted with Tukey's bisquare (c 4.685, more where few residuals set the scale, MAD / 0.6745);
    observations that end with weight 0 are left out and the rest fitted by plain least squares, whose distribution
    under "no change" is known exactly.
    Fills keep (n,) with 1 kept, 0 left out; inverse (p, p) = (X'X)^-1 and beta (p,) of the kept ones.
    """
    for i in range(n):
        keep[i] = 1.0
    if not solve_normal(x, y, keep, n, p, ridge, inverse, beta):
        return -1.0
    size = np.empty(n)
    # a scale from few residuals is itself in doubt: leave out only what is far off by any of its values
    cut = BISQUARE * (1.0 + 4.0 / max(n - p, 1))
    for _ in range(10):
        for i in range(n):
            size[i] = abs(y[i] - predict(x[i], beta, p))
        # p of the residuals are (nearly) zero by the fit: take the median of the rest (as in Street et al. 1988)
        ordered = np.sort(size)
        scale = np.median(ordered[p:]) / 0.6745 if n > p else 0.0
        if scale <= 0.0:
            break
        moved = 0.0
        for i in range(n):
            u = size[i] / (cut * scale)
            weight = (1.0 - u * u) ** 2 if u < 1.0 else 0.0
            moved = max(moved, abs(weight - keep[i]))
            keep[i] = weight
        if moved < 1e-3 or not solve_normal(x, y, keep, n, p, ridge, inverse, beta):
            break
    kept = 0
    for i in range(n):
        keep[i] = 1.0 if keep[i] > 0.0 else 0.0
        kept += int(keep[i])
    if kept < p + 2 or not solve_normal(x, y, keep, n, p, ridge, inverse, beta):
        for i in range(n):
            keep[i] = 1.0
        if not solve_normal(x, y, keep, n, p, ridge, inverse, beta):
            return -1.0
    squares = 0.0
    for i in range(n):
        if keep[i] > 0.0:
            squares += (y[i] - predict(x[i], beta, p)) ** 2
    return squares


@njit(nogil=True, cache=True)
def predict(row, beta, p):
    """Value of the model at one row of regressors."""
    total = 0.0
    for a in range(p):
        total += row[a] * beta[a]
    return total


@njit(nogil=True, cache=True)
def leverage(row, inverse, p):
    """row (X'X)^-1 row': variance of the prediction, in noise variances."""
    total = 0.0
    for a in range(p):
        part = 0.0
        for b in range(p):
            part += inverse[a, b] * row[b]
        total += row[a] * part
    return total


@njit(nogil=True, cache=True)
def add_observation(row, error, inverse, beta, p):
    """Recursive least squares: take one more observation with prediction error `error` into inverse and beta."""
    gain = np.zeros(p)
    for a in range(p):
        for b in range(p):
            gain[a] += inverse[a, b] * row[b]
    spread = 1.0
    for a in range(p):
        spread += row[a] * gain[a]
    for a in range(p):
        beta[a] += gain[a] * error / spread
        for b in range(p):
            inverse[a, b] -= gain[a] * gain[b] / spread


@njit(nogil=True, cache=True)
def free_trend(ridge, inverse, beta, p):
    """Take the ridge off the trend again, in place; returns by how much the (penalised) sum of squares falls."""
    trend = 1 if p == 2 else 3
    column = inverse[:, trend].copy()
    factor = ridge / (1.0 - ridge * column[trend])
    for a in range(p):
        for b in range(p):
            inverse[a, b] += factor * column[a] * column[b]
    slope = beta[trend]
    for a in range(p):
        beta[a] += ridge * inverse[a, trend] * slope
    return beta[trend] ** 2 / (1.0 / ridge + inverse[trend, trend])


@njit(nogil=True, cache=True)
def autocorrelation(error, keep, years, at, n, p, most):
    """Correlation of standardised errors of neighbours at most `most` years apart, taken for rather more: 0 to 0.95.

    error, keep, at : (>= n,); p : regressors of the fit, whose residuals are less alike than the errors
    """
    products, pairs = 0.0, 0
    for i in range(1, n):
        if keep[i] > 0.0 and keep[i - 1] > 0.0 and years[at[i]] - years[at[i - 1]] < most:
            products += error[i] * error[i - 1]
            pairs += 1
    if pairs == 0:
        return 0.0
    r = (products / pairs + p / n) * pairs / (pairs + 10.0) + SAFETY * np.sqrt(pairs) / (pairs + 30.0)
    return min(max(r, 0.0), 0.95)
