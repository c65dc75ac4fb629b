"""Means over windows that know gaps: boxcar, log-gradient, majority. Every window is summed directly, in one order."""

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def boxcar(image, radius):
    """Mean of the observed values of a (2 radius + 1)^2 window.

    image : (row, col), NaN = not observed. Returns (row, col) float64; NaN stays NaN and does not spread.
    """
    n_row, n_col = image.shape
    out = np.full(image.shape, np.nan)
    for r in range(n_row):
        for c in range(n_col):
            if math.isnan(image[r, c]):
                continue
            total = 0.0
            count = 0
            for i in range(max(0, r - radius), min(n_row, r + radius + 1)):
                for j in range(max(0, c - radius), min(n_col, c + radius + 1)):
                    if not math.isnan(image[i, j]):
                        total += image[i, j]
                        count += 1
            out[r, c] = total / count
    return out


@njit(nogil=True, cache=True)
def relative_gradient(image, variance):
    """|gradient| / value of an intensity image, a px, without what speckle alone would give.

    image : (row, col) mean intensity, NaN or <= 0 = not observed
    variance : (row, col) what speckle makes of that mean, relative to its square (1 / looks); 0 without speckle
    Returns (row, col) float64, 0 where a neighbour is missing.

    Along an axis the larger of the differences to the pixel before and after, smoothed 1-2-1 across: a difference over
    both would halve a sharp edge, where a shift does most. On flat ground the square of that larger difference is 1.07
    times a pixel's variance, which is taken off. How much a residual shift d changes the pixel's value is d times the
    result (in nepers, while small).
    """
    n_row, n_col = image.shape
    out = np.zeros(image.shape)
    for r in range(1, n_row - 1):
        for c in range(1, n_col - 1):
            whole = True
            mean = 0.0
            for i in range(-1, 2):
                for j in range(-1, 2):
                    if not image[r + i, c + j] > 0:
                        whole = False
                    mean += image[r + i, c + j] / 9
            if not whole:
                continue
            square = 0.0
            for axis in range(2):
                largest = 0.0
                for side in (-1, 1):
                    step = 0.0
                    for k in range(-1, 2):
                        weight = 0.5 if k == 0 else 0.25
                        if axis == 0:
                            step += weight * (image[r + side, c + k] - image[r, c + k])
                        else:
                            step += weight * (image[r + k, c + side] - image[r + k, c])
                    largest = max(largest, step * step)
                square += max(largest - 1.07 * variance[r, c] * mean * mean, 0.0)
            out[r, c] = math.sqrt(square) / image[r, c]
    return out


@njit(nogil=True, cache=True)
def majority(labels, valid, radius):
    """Most frequent label (-1, 0, 1) of a window's valid pixels; a tie keeps the pixel's own.

    labels : (row, col) int8; valid : (row, col) bool. Pixels that are not valid get 0.
    """
    n_row, n_col = labels.shape
    out = np.zeros(labels.shape, np.int8)
    count = np.zeros(3, np.int64)
    for r in range(n_row):
        for c in range(n_col):
            if not valid[r, c]:
                continue
            count[:] = 0
            for i in range(max(0, r - radius), min(n_row, r + radius + 1)):
                for j in range(max(0, c - radius), min(n_col, c + radius + 1)):
                    if valid[i, j]:
                        count[labels[i, j] + 1] += 1
            best = labels[r, c]
            for k in range(3):
                if count[k] > count[best + 1]:
                    best = k - 1
            out[r, c] = best
    return out
