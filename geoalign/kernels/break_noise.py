"""The noise of a series of several bands, told by neighbouring dates, and what stands out from both sides alike.

The latter is undetected cloud, as a rule.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.stats import chi2

from geoalign.kernels.segments import FAST, trimmed_variance

TRIM_ONE, KEEP_ONE = 6.25, 0.9113
ONE = (TRIM_ONE, KEEP_ONE, 9.0)
"""`cuts` of one band: 2.5 sd are kept, which leaves 91 % of the variance; clipped at 3 sd."""


def outlier_limits(n_band: int):
    """`cuts` of `fit` for so many bands together (2.5 sd kept, clipped at 3), and the squared distance of a spike."""
    trim, clip = chi2.isf(chi2.sf([TRIM_ONE, 9.0], 1), n_band)
    keep = chi2.cdf(trim, n_band + 2) / chi2.cdf(trim, n_band)
    # a difference from a median of three has half as much variance again
    return (float(trim / n_band), float(keep), float(clip / n_band)), float(1.1 * chi2.isf(1e-4, n_band))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def noise_sd(e, n, s):
    """Noise sd from differences of neighbours, in spite of outliers and breaks."""
    size = s.size[: n - 1]
    for i in range(n - 1):
        size[i] = 0.5 * (e[i + 1] - e[i]) ** 2
    return np.sqrt(trimmed_variance(size, n - 1, TRIM_ONE, KEEP_ONE))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def whiten(w, e, n, cuts, level, s):
    """Scale and turn the rows of w (n_band, n) so that neighbouring dates differ by unit, uncorrelated noise; e (their
    residuals around one fit) likewise.

    level : (n_band,) what counts as rounding of each row; afterwards the noise sd of each
    """
    n_band = w.shape[0]
    for k in range(n_band):
        ee = e[k]
        sd = max(noise_sd(ee, n, s), level[k])
        level[k] = sd
        for i in range(n):
            w[k, i] /= sd
            ee[i] /= sd
    if n_band == 1:
        return
    # the covariance of what is left, single large differences drawn in
    for k in range(n_band):
        for c in range(k + 1):
            total = 0.0
            for i in range(n - 1):
                p = min(max(e[k, i + 1] - e[k, i], -4.0), 4.0)
                q = min(max(e[c, i + 1] - e[c, i], -4.0), 4.0)
                total += p * q
            s.cov[k, c] = 0.5 * total / (n - 1) + (0.02 if k == c else 0.0)
    for k in range(n_band):
        for c in range(k + 1):
            total = s.cov[k, c]
            for d in range(c):
                total -= s.cov[k, d] * s.cov[c, d]
            s.cov[k, c] = total / s.cov[c, c] if c < k else np.sqrt(max(total, 1e-3))
    for k in range(n_band):
        for c in range(k):
            g = s.cov[k, c]
            for i in range(n):
                w[k, i] -= g * w[c, i]
                e[k, i] -= g * e[c, i]
        g = 1.0 / s.cov[k, k]
        for i in range(n):
            w[k, i] *= g
            e[k, i] *= g


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def middle(a, b, c):
    """Median of three."""
    return max(min(a, b), min(max(a, b), c))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def spikes(e, n, limit, keep):
    """Mark observations that lie off the medians of the three before and of the three after, the same way: keep[i]
    False. e : (n_band, n) whitened residuals; limit : squared distance. Returns how many are kept."""
    n_band = e.shape[0]
    kept = 0
    for i in range(n):
        keep[i] = True
        if 3 <= i < n - 3:
            back, ahead, along = 0.0, 0.0, 0.0
            for k in range(n_band):
                ee = e[k]
                p = ee[i] - middle(ee[i - 1], ee[i - 2], ee[i - 3])
                q = ee[i] - middle(ee[i + 1], ee[i + 2], ee[i + 3])
                back += p * p
                ahead += q * q
                along += p * q
            keep[i] = back < limit or ahead < limit or along < 0.0
        kept += int(keep[i])
    return kept
