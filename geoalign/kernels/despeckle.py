"""Speckle filters for intensities. NaN = not observed; it stays where it is and counts for nothing around."""

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def _moments(image, r, c, up, down, left, right):
    """Mean, variance and number of the observed values of the window r - up .. r + down, c - left .. c + right."""
    n_row, n_col = image.shape
    total, square, count = 0.0, 0.0, 0
    for i in range(max(0, r - up), min(n_row, r + down + 1)):
        for j in range(max(0, c - left), min(n_col, c + right + 1)):
            if not math.isnan(image[i, j]):
                total += image[i, j]
                count += 1
    mean = total / count
    for i in range(max(0, r - up), min(n_row, r + down + 1)):
        for j in range(max(0, c - left), min(n_col, c + right + 1)):
            if not math.isnan(image[i, j]):
                square += (image[i, j] - mean) ** 2
    return mean, square / max(count - 1, 1), count


@njit(nogil=True, cache=True)
def _lee(value, mean, variance, looks):
    """Lee's minimum mean square estimate of the intensity behind one value."""
    if variance <= 0.0:
        return mean
    texture = max(0.0, (variance - mean * mean / looks) / (1 + 1 / looks))
    return mean + texture / variance * (value - mean)


@njit(nogil=True, cache=True)
def lee(image, looks, radius):
    """Lee (1980): local mean, and of the deviation the share that is not speckle; (row, col) -> float32."""
    out = np.full(image.shape, np.nan, np.float32)
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            if not math.isnan(image[r, c]):
                mean, variance, _ = _moments(image, r, c, radius, radius, radius, radius)
                out[r, c] = _lee(image[r, c], mean, variance, looks)
    return out


@njit(nogil=True, cache=True)
def gamma_map(image, looks, radius):
    """Gamma MAP in its three classes (Lopes et al. 1993): mean on even ground, the value at points, MAP between."""
    out = np.full(image.shape, np.nan, np.float32)
    speckle = 1 / math.sqrt(looks)
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            value = image[r, c]
            if math.isnan(value):
                continue
            mean, variance, _ = _moments(image, r, c, radius, radius, radius, radius)
            ratio = math.sqrt(variance) / mean if mean > 0 else 0.0
            if ratio <= speckle:
                out[r, c] = mean
            elif ratio >= math.sqrt(2.0) * speckle:
                out[r, c] = value
            else:
                alpha = (1 + speckle**2) / (ratio**2 - speckle**2)
                b = alpha - looks - 1
                out[r, c] = (b * mean + math.sqrt(mean * mean * b * b + 4 * alpha * looks * value * mean)) / (2 * alpha)
    return out


@njit(nogil=True, cache=True)
def refined_lee(image, looks):
    """Refined Lee, 7 x 7 (Lee 1981): the statistics come from the half window on the pixel's side of the edge."""
    n_row, n_col = image.shape
    out = np.full(image.shape, np.nan, np.float32)
    means = np.empty((3, 3))
    for r in range(n_row):
        for c in range(n_col):
            if math.isnan(image[r, c]):
                continue
            for a in range(3):
                for b in range(3):
                    total, count = 0.0, 0
                    for i in range(max(0, r + 2 * a - 3), min(n_row, r + 2 * a)):
                        for j in range(max(0, c + 2 * b - 3), min(n_col, c + 2 * b)):
                            if not math.isnan(image[i, j]):
                                total += image[i, j]
                                count += 1
                    means[a, b] = total / count if count else np.nan
            for a in range(3):
                for b in range(3):
                    if math.isnan(means[a, b]):
                        means[a, b] = means[1, 1]
            # (gradient, step in rows and columns towards the second side)
            best, dr, dc = abs(means[1, 2] - means[1, 0]), 0, 1
            for gradient, i, j in (
                (abs(means[2, 1] - means[0, 1]), 1, 0),
                (abs(means[2, 2] - means[0, 0]), 1, 1),
                (abs(means[2, 0] - means[0, 2]), 1, -1),
            ):
                if gradient > best:
                    best, dr, dc = gradient, i, j
            if abs(means[1 + dr, 1 + dc] - means[1, 1]) > abs(means[1 - dr, 1 - dc] - means[1, 1]):
                dr, dc = -dr, -dc
            total, square, count = 0.0, 0.0, 0
            for turn in range(2):
                for i in range(max(0, r - 3), min(n_row, r + 4)):
                    for j in range(max(0, c - 3), min(n_col, c + 4)):
                        if (i - r) * dr + (j - c) * dc >= 0 and not math.isnan(image[i, j]):
                            if turn == 0:
                                total += image[i, j]
                                count += 1
                            else:
                                square += (image[i, j] - total / count) ** 2
            out[r, c] = _lee(image[r, c], total / count, square / max(count - 1, 1), looks)
    return out


@njit(nogil=True, cache=True)
def multitemporal(series, radius):
    """Quegan and Yu (2001): every date's local mean times the mean over dates of value / local mean.

    series : (time, row, col) -> float32. A date missing at a pixel is left out of its mean and stays missing.
    """
    n_time, n_row, n_col = series.shape
    out = np.full(series.shape, np.nan, np.float32)
    local = np.empty(n_time)
    for r in range(n_row):
        for c in range(n_col):
            total, count = 0.0, 0
            for t in range(n_time):
                if not math.isnan(series[t, r, c]):
                    local[t] = _moments(series[t], r, c, radius, radius, radius, radius)[0]
                    if local[t] > 0:
                        total += series[t, r, c] / local[t]
                        count += 1
            for t in range(n_time):
                if not math.isnan(series[t, r, c]) and count:
                    out[t, r, c] = local[t] * total / count
    return out


@njit(nogil=True, cache=True)
def non_local(image, looks, patch, search):
    """Mean of the pixels around whose patches look alike, by the likelihood ratio of gamma intensities.

    patch, search : radii, px. delta(a, b) = 2 L ln((a + b) / (2 sqrt(a b))) averaged over the patch (Deledalle et al.
    2009, doi:10.1109/TIP.2009.2029593) is held against its expectation without a difference, so that the bandwidth is
    free of looks and patch size; the estimate then gets Lee's share of the pixel's own deviation back.
    """
    n_row, n_col = image.shape
    logs = np.log(image)
    out = np.full(image.shape, np.nan, np.float32)
    for r in range(n_row):
        for c in range(n_col):
            if math.isnan(image[r, c]) or image[r, c] <= 0:
                continue
            norm, total, square = 0.0, 0.0, 0.0
            for i in range(max(0, r - search), min(n_row, r + search + 1)):
                for j in range(max(0, c - search), min(n_col, c + search + 1)):
                    if math.isnan(image[i, j]) or image[i, j] <= 0:
                        continue
                    distance, count = 0.0, 0
                    for a in range(-patch, patch + 1):
                        for b in range(-patch, patch + 1):
                            if min(r + a, i + a, c + b, j + b) < 0 or max(r + a, i + a) >= n_row:
                                continue
                            if max(c + b, j + b) >= n_col:
                                continue
                            x, y = image[r + a, c + b], image[i + a, j + b]
                            if x > 0 and y > 0:
                                distance += math.log(0.5 * (x + y)) - 0.5 * (logs[r + a, c + b] + logs[i + a, j + b])
                                count += 1
                    # without a difference 2 L delta has the mean of a chi-square of one degree over two, about 1 / 2
                    excess = max(2 * looks * distance / count - 0.5, 0.0)
                    weight = math.exp(-excess * math.sqrt(count))
                    norm += weight
                    total += weight * image[i, j]
                    square += weight * image[i, j] ** 2
            mean = total / norm
            out[r, c] = _lee(image[r, c], mean, max(square / norm - mean * mean, 0.0), looks)
    return out
