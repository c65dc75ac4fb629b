"""Log-ratio of two groups of dates, smoothed as much as its speckle needs."""

import math

import numpy as np
from numba import njit

from geoalign.kernels.speckle import boxcar, majority, relative_gradient
from geoalign.kernels.threshold import posterior

LOW, STEP, N_BIN = -8.0, 0.005, 3200
"""Fixed histogram of log-ratios, nepers (35 dB either way): the same for any image and any chunking."""


@njit(nogil=True, cache=True)
def before_and_after(series, split, offset):
    """Mean intensity of two groups of dates.

    series : (n_pixel, n_time), NaN = not observed; split : first date of the second group
    offset : added to every value; what is then not above 0 is missing
    Returns mean_before, mean_after (n_pixel,) float32, NaN where a group has nothing; last date used before, first
    after (n_pixel,) int32, -1 none; n_obs uint16.
    """
    n_pixel, n_time = series.shape
    means = np.full((2, n_pixel), np.nan, np.float32)
    last = np.full(n_pixel, -1, np.int32)
    first = np.full(n_pixel, -1, np.int32)
    n_obs = np.zeros(n_pixel, np.uint16)
    for p in range(n_pixel):
        for group in range(2):
            total = 0.0
            count = 0
            for t in range(split if group else 0, n_time if group else split):
                value = series[p, t] + offset
                if value > 0 and not math.isinf(value):
                    total += value
                    count += 1
                    if group == 0:
                        last[p] = t
                    elif count == 1:
                        first[p] = t
            if count:
                means[group, p] = total / count
                n_obs[p] += count
    return means[0], means[1], last, first, n_obs


@njit(nogil=True, cache=True)
def difference_histogram(before, after):
    """Histogram of |difference of the log-ratio between neighbours in a row|, (N_BIN,): how strong the speckle is."""
    out = np.zeros(N_BIN)
    n_row, n_col = before.shape
    for r in range(n_row):
        for c in range(1, n_col):
            d = math.log(after[r, c] / before[r, c]) - math.log(after[r, c - 1] / before[r, c - 1])
            # neighbours that agree to the bit are clipped or constant and tell nothing of speckle
            if d != 0.0 and not math.isnan(d):
                out[min(int(abs(d) / STEP), N_BIN - 1)] += 1
    return out


def smoothing_radius(parts, residual=0.15, largest=3):
    """Radius (px, 1 to 3) of the boxcar after which the log-ratio's noise is at most `residual` nepers (0.65 dB)."""
    counts = np.sum(parts, axis=0)
    if counts.sum() == 0:
        return 1.0
    median = STEP * (np.searchsorted(np.cumsum(counts), 0.5 * counts.sum()) + 0.5)
    sigma = 1.4826 * median / math.sqrt(2)
    return float(next((r for r in range(1, largest + 1) if sigma / (2 * r + 1) <= residual), largest))


@njit(nogil=True, cache=True)
def smoothed_log_ratio(before, after, shift_variance, radius):
    """Log-ratio after / before of the boxcar means.

    Parameters
    ----------
    before, after : (band, row, col) mean intensities, NaN = not observed
    shift_variance : (row, col) sum of the squared sigma_px of the two groups, px^2
    radius : of the boxcar, px

    Returns
    -------
    ratio : (row, col) float32, nepers, mean of the bands; NaN where a band is missing
    blur : (row, col) float32, nepers: what the residual shift makes of the ground's gradient, 1 sigma
    flat : (row, col) bool, windows without any variation in both (clipped in a quick-look)
    """
    n_band, n_row, n_col = before.shape
    radius = int(radius)
    ratio = np.zeros((n_row, n_col))
    blur = np.zeros((n_row, n_col))
    flat = np.ones((n_row, n_col), np.bool_)
    for b in range(n_band):
        both = np.full((n_row, n_col), np.nan)
        a0 = np.full((n_row, n_col), np.nan)
        a1 = np.full((n_row, n_col), np.nan)
        for r in range(n_row):
            for c in range(n_col):
                if not (math.isnan(before[b, r, c]) or math.isnan(after[b, r, c])):
                    a0[r, c] = before[b, r, c]
                    a1[r, c] = after[b, r, c]
                    both[r, c] = 0.5 * (a0[r, c] + a1[r, c])
        m0 = boxcar(a0, radius)
        m1 = boxcar(a1, radius)
        ratio += np.log(m1 / m0) / n_band
        if shift_variance.max() > 0:
            slope = relative_gradient(boxcar(both, 1), np.zeros((n_row, n_col)))
            blur += slope * np.sqrt(shift_variance) / n_band
        for r in range(n_row):
            for c in range(n_col):
                for i in range(max(0, r - 1), min(n_row, r + 2)):
                    for j in range(max(0, c - 1), min(n_col, c + 2)):
                        if a0[i, j] != a0[r, c] or a1[i, j] != a1[r, c]:
                            flat[r, c] = False
    return ratio.astype(np.float32), blur.astype(np.float32), flat


@njit(nogil=True, cache=True)
def ratio_histogram(ratio, flat):
    """Counts of the log-ratio over the fixed bins, (N_BIN,); flat and missing pixels are left out."""
    out = np.zeros(N_BIN)
    for r in range(ratio.shape[0]):
        for c in range(ratio.shape[1]):
            value = ratio[r, c]
            if not math.isnan(value) and not flat[r, c]:
                out[min(max(int((value - LOW) / STEP), 0), N_BIN - 1)] += 1
    return out


@njit(nogil=True, cache=True)
def classify(ratio, blur, fit, prior, radius):
    """Direction and probability of change from the log-ratio and the fitted classes.

    Parameters
    ----------
    ratio, blur : (row, col) float32
    fit : (25,) from `threshold.two_sided`
    prior : share of change, NaN takes what was fitted
    radius : of the majority vote, px

    Returns
    -------
    direction : (row, col) int8; probability : (row, col) float32; blurred : (row, col) bool, changed but for `blur`
    """
    n_row, n_col = ratio.shape
    labels = np.zeros((n_row, n_col), np.int8)
    bare = np.zeros((n_row, n_col), np.int8)
    valid = np.zeros((n_row, n_col), np.bool_)
    probability = np.zeros((n_row, n_col), np.float32)
    for r in range(n_row):
        for c in range(n_col):
            if math.isnan(ratio[r, c]) or math.isnan(fit[0]):
                continue
            valid[r, c] = True
            signed = ratio[r, c] - fit[0]
            side = 1 if signed > 0 else 0
            one = fit[1 + 12 * side : 13 + 12 * side]
            if math.isinf(one[0]):
                continue
            if abs(signed) > one[0]:
                bare[r, c] = 2 * side - 1
            # the unchanged class grows by what the residual shift adds: its distances shrink by that much
            sigma = math.exp(0.5 * (math.lgamma(3 / one[5]) - math.lgamma(1 / one[5]))) / one[4]
            distance = abs(signed) / math.sqrt(1.0 + (blur[r, c] / sigma) ** 2)
            if distance > one[0]:
                labels[r, c] = 2 * side - 1
            class0 = (one[2], one[3], one[4], one[5], one[6])
            class1 = (one[7], one[8], one[9], one[10], one[11])
            share = one[7] / (one[2] + one[7]) if math.isnan(prior) else prior
            probability[r, c] = posterior(distance, class0, class1, share)
    direction = majority(labels, valid, radius)
    blurred = (bare != 0) & (labels == 0) & (direction == 0)
    return direction, probability, blurred
