"""The mean ratio of two dates, and where it stops being noise."""

import numpy as np

from geoalign.kernels.threshold import half_threshold, posterior

STEP, FINE, BINS = 0.0025, 3200, 200


def histogram(ratio, flat):
    """Counts of |ln(m2 / m1)| = -ln min(m1 / m2, m2 / m1), (FINE,) bins of STEP from 0; ratio : (row, col)."""
    value = np.abs(ratio[np.isfinite(ratio) & ~flat].astype(np.float64))
    return np.bincount(np.minimum((value / STEP).astype(int), FINE - 1), minlength=FINE).astype(np.float64)


def cut(parts):
    """(12,): threshold, gain, and the two classes of `threshold.half_threshold`; threshold inf without two classes."""
    counts = np.sum(parts, axis=0)
    none = np.concatenate([[np.inf, 0.0], np.zeros(10)])
    if not counts.sum() > 0:
        return none
    # bins as wide as reach all but the last half per mille needs
    each = max(int(np.ceil((np.searchsorted(np.cumsum(counts), 0.9995 * counts.sum()) + 1) / BINS)), 1)
    weights = counts[: min(each * BINS, FINE) // each * each].reshape(-1, each).sum(axis=1)
    centres = (np.arange(weights.size) + 0.5) * each * STEP
    threshold, gain, still, changed = half_threshold(weights / weights.sum(), centres, 0.002)
    return np.array([threshold, gain, *still, *changed]) if np.isfinite(threshold) else none


def decided(ratio, found, prior):
    """Direction int8 and probability float32 of pixels, (n_pixel,); ratio : ln(m2 / m1), NaN = not observed."""
    value = np.abs(ratio.astype(np.float64))
    direction = np.where(value > found[0], np.sign(ratio), 0)
    direction = np.where(np.isnan(ratio), 0, direction).astype(np.int8)
    p = np.zeros(ratio.size, np.float32)
    if np.isfinite(found[0]):
        still, changed = tuple(found[2:7]), tuple(found[7:12])
        share = changed[0] / (still[0] + changed[0]) if np.isnan(prior) else prior
        grid = np.array([posterior(x * STEP, still, changed, share) for x in range(FINE)], np.float32)
        p = grid[np.minimum((np.nan_to_num(value) / STEP).astype(int), FINE - 1)]
    return direction, p
