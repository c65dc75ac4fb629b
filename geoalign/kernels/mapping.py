"""What one image leads us to expect of another of a different kind: the mean of one given the value of the other."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

BINS = 96
"""Quantile bins of the known image."""
SMOOTH_BINS = 1.5
"""The curve is smoothed over so many bins."""


def expectation(known, other, both):
    """Curve of the mean of `other` given `known`, and how much of the variance of `other` it explains.

    known, other : arrays of one shape; both : bool, pixels observed in the two
    Returns (values, means, eta2): the curve at BINS values of `known`, rising; eta2 is the correlation ratio, 0..1,
    less what as many bins explain by chance. None where too few pixels are there.

    References
    ----------
    The correlation ratio as a similarity: Roche et al. (1998), doi:10.1007/BFb0056301.
    """
    x, y = known[both].astype(np.float64), other[both].astype(np.float64)
    if x.size < 20 * BINS:
        return None
    edges = np.quantile(x, np.linspace(0, 1, BINS + 1))
    at = np.clip(np.searchsorted(edges[1:-1], x, side="right"), 0, BINS - 1)
    count = np.bincount(at, minlength=BINS).astype(float)
    weight = gaussian_filter1d(count, SMOOTH_BINS, mode="nearest")
    mean = gaussian_filter1d(np.bincount(at, y, BINS), SMOOTH_BINS, mode="nearest") / np.maximum(weight, 1e-9)
    value = gaussian_filter1d(np.bincount(at, x, BINS), SMOOTH_BINS, mode="nearest") / np.maximum(weight, 1e-9)
    total = y.var()
    if not total > 0:
        return None
    rest = ((y - mean[at]) ** 2).mean()
    return value, mean, float(1.0 - rest / total * x.size / (x.size - BINS))


def mapped(image, curve):
    """The image as the curve expects the other one to look; NaN stays, values beyond the curve take its ends."""
    values, means = curve[:2]
    rising, first = np.unique(values, return_index=True)
    return np.where(np.isfinite(image), np.interp(image, rising, means[first]), np.nan).astype(np.float32)
