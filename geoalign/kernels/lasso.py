"""Season and trend by LASSO from sums: observations are added one by one, a fit costs the same however many there are.

The sums are those of the regressors' products (`gram`), of regressors and values (`cross`) and of squared values
(`square`). Coordinate descent then works on the correlations of at most seven regressors, never on the data.
"""

from __future__ import annotations

import numpy as np
from numba import njit

N_COEF = 8
"""Intercept, trend, and cosine and sine of one, two and three cycles a year."""

PENALTY = 0.002
"""Penalty of the papers, lambda 20 for reflectance x 10,000 and regressors of unit variance, in reflectance."""

SWEEPS = 500
TOLERANCE = 5e-6
"""Descent ends where no standardised coefficient moves further: a thousandth of the noise of a good series."""


def design(years):
    """Regressors (n_time, N_COEF) float64: 1, years, cos, sin of one, two and three cycles a year."""
    years = np.asarray(years, np.float64)
    columns = [np.ones_like(years), years]
    for m in (1, 2, 3):
        columns += [np.cos(2 * np.pi * m * years), np.sin(2 * np.pi * m * years)]
    return np.ascontiguousarray(np.stack(columns, axis=1))


@njit(nogil=True, cache=True)
def clear_sums(gram, cross, square):
    """Start anew, in place: no observation."""
    gram[:] = 0.0
    cross[:] = 0.0
    square[:] = 0.0


@njit(nogil=True, cache=True)
def add_to_sums(row, values, gram, cross, square):
    """Take one observation in: row (N_COEF,) of `design`, values (n_band,). Only the lower half of gram is kept."""
    for a in range(N_COEF):
        for b in range(a + 1):
            gram[a, b] += row[a] * row[b]
    for k in range(values.size):
        square[k] += values[k] * values[k]
        for a in range(N_COEF):
            cross[k, a] += row[a] * values[k]


@njit(nogil=True, cache=True)
def fit_sums(gram, cross, square, p, penalty, beta, coef, rmse, corr, sd):
    """LASSO of every band on the first p regressors, from the sums.

    gram (N_COEF, N_COEF), cross (n_band, N_COEF), square (n_band,) : sums over the observations
    p : coefficients, 4, 6 or 8; penalty : in units of the values, on coefficients of standardised regressors
    beta (n_band, N_COEF) : standardised coefficients, the start of the descent and its end
    Fills coef (n_band, N_COEF) and rmse (n_band,), residual sd with n - p degrees of freedom; corr and sd are scratch.
    The intercept is not penalised. Minimises sum of squares / 2 n + penalty * sum |beta| (Friedman et al. 2010).
    """
    n = gram[0, 0]
    for a in range(1, p):
        variance = gram[a, a] / n - (gram[a, 0] / n) ** 2
        sd[a] = np.sqrt(variance) if variance > 1e-12 else 0.0
    for a in range(1, p):
        for b in range(1, a):
            bottom = sd[a] * sd[b] * n
            corr[a, b] = (gram[a, b] - gram[a, 0] * gram[b, 0] / n) / bottom if bottom > 0.0 else 0.0
            corr[b, a] = corr[a, b]
        corr[a, a] = 1.0
    for k in range(square.size):
        mean = cross[k, 0] / n
        left = square[k] / n - mean * mean
        start, pull = beta[k], coef[k]
        for a in range(p, N_COEF):
            start[a] = 0.0
        # pull: what each coefficient would still gain, kept up to date while the others move
        for a in range(1, p):
            total = (cross[k, a] / n - gram[a, 0] / n * mean) / sd[a] if sd[a] > 0.0 else 0.0
            fitted = 0.0
            for b in range(1, p):
                fitted += corr[a, b] * start[b]
            left += start[a] * (fitted - 2.0 * total)
            pull[a] = total - fitted
        for _ in range(SWEEPS):
            moved = 0.0
            for a in range(1, p):
                if sd[a] == 0.0:
                    continue
                old = start[a]
                full = pull[a] + old
                new = 0.0
                if full > penalty:
                    new = full - penalty
                elif full < -penalty:
                    new = full + penalty
                step = new - old
                if step != 0.0:
                    # the sum of squares falls by what the step takes off
                    left += step * (step - 2.0 * pull[a])
                    for b in range(1, p):
                        pull[b] -= corr[a, b] * step
                    start[a] = new
                    moved = max(moved, abs(step))
            if moved < TOLERANCE:
                break
        rmse[k] = np.sqrt(max(left, 0.0) * n / max(n - p, 1.0))
        for a in range(1, p):
            pull[a] = start[a] / sd[a] if sd[a] > 0.0 else 0.0
            mean -= pull[a] * gram[a, 0] / n
        pull[0] = mean
        for a in range(p, N_COEF):
            pull[a] = 0.0


@njit(nogil=True, cache=True)
def coefficients(n):
    """Coefficients for n observations: three observations each."""
    if n < 18:
        return 4
    return 6 if n < 24 else 8


@njit(nogil=True, cache=True)
def predicted(coef, row, p):
    """Value of a band's model, coef (N_COEF,), at one row of `design`."""
    total = coef[0]
    for a in range(1, p):
        total += coef[a] * row[a]
    return total
