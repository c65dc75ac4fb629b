"""Two classes in the distances of a two-date image: what stayed the same, with its own tails, and what changed."""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, gammaln, polygamma
from scipy.stats import f as fisher_f

N_BIN = 512
MOST_ROUNDS, STILL = 3000, 1e-7
MOST_CHANGE = 0.5
"""Share of an image that change takes at the most: what the greater part does counts as no change."""
LEAST_NU, MOST_NU = 6.0, 400.0
"""Tails of "no change": a Student's t of fewer degrees of freedom would take in the change; of more it is normal."""


def two_classes(distance, dof: float):
    """Fit "no change" and change to distances that are near sqrt(chi2(dof)) where nothing changed.

    No change: distance^2 = scale^2 dof F(dof, nu), as of a `dof`-variate Student's t. On real ground noise is not the
    same everywhere, and 8-bit values, haze and crops give it longer tails than a chi2 has; both scale and tails are
    therefore found from the image. Change: normal in the logarithm of the distance. Expectation-maximisation, the first
    class by the moments of its logarithm, which are digamma and trigamma functions.

    Parameters
    ----------
    distance : (n,) positive; others are left out

    Returns
    -------
    ln scale, nu, mean and sd of ln distance of change, share of change; NaN for fewer than 50 distances
    """
    x = np.log(distance[np.isfinite(distance) & (distance > 0)])
    if x.size < 50 or np.ptp(x) < 1e-6:
        return (np.nan,) * 5
    weight, edges = np.histogram(x, N_BIN, range=(np.quantile(x, 0.0005), x.max()))
    weight = weight / weight.sum()
    x = 0.5 * (edges[1:] + edges[:-1])
    part = np.where(np.cumsum(weight) > 0.9, 0.9, 0.05)
    width = edges[1] - edges[0]
    last = np.inf
    for _ in range(MOST_ROUNDS):
        scale, nu = _unchanged(x, weight * (1 - part), dof)
        w = weight * part
        # the middle of the distances stands for no change, and change lies beyond it: else the two may trade places
        share = min(max(w.sum(), 1e-6), MOST_CHANGE)
        mean = max((w * x).sum() / w.sum(), scale + 0.5 * np.log(dof))
        sd = max(np.sqrt((w * (x - mean) ** 2).sum() / w.sum()), 2 * width)
        ln0 = np.log(1 - share) + ln_unchanged(x, scale, nu, dof)
        ln1 = np.log(share) - 0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
        both = np.logaddexp(ln0, ln1)
        part = np.exp(ln1 - both)
        gain = (weight * both).sum()
        if abs(gain - last) < STILL:
            break
        last = gain
    return scale, nu, mean, sd, share


def _unchanged(x, weight, dof):
    total = weight.sum()
    mean = (weight * x).sum() / total
    excess = 4 * (weight * (x - mean) ** 2).sum() / total - polygamma(1, dof / 2)
    nu = 2 * _inverse_trigamma(excess, LEAST_NU / 2, MOST_NU / 2)
    return mean - 0.5 * (digamma(dof / 2) - digamma(nu / 2) + np.log(nu)), nu


def _inverse_trigamma(value, low, high):
    """y in low..high with trigamma(y) = value, by bisection."""
    for _ in range(40):
        mid = 0.5 * (low + high)
        low, high = (mid, high) if polygamma(1, mid) > value else (low, mid)
    return 0.5 * (low + high)


def ln_constant(nu, dof):
    """What does not depend on the distance in `ln_unchanged`."""
    ln_beta = gammaln(dof / 2) + gammaln(nu / 2) - gammaln((dof + nu) / 2)
    return np.log(2.0) - ln_beta - dof / 2 * np.log(nu)


def ln_unchanged(x, scale, nu, dof):
    """ln density of ln distance where nothing changed: Fisher's z distribution, half the logarithm of an F."""
    u = 2 * (x - scale)
    return ln_constant(nu, dof) + dof / 2 * u - (dof + nu) / 2 * np.log1p(np.exp(u) / nu)


def tail_distance(alpha, scale, nu, dof):
    """Distance that a share `alpha` of what stayed the same exceeds."""
    return float(np.exp(scale) * np.sqrt(dof * fisher_f.isf(alpha, dof, nu)))
