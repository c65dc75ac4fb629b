"""Decimation of images with gaps: sums over square blocks."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def block_sums(image, factor):
    """Sum of the observed pixels of blocks of factor x factor, and their number.

    image : (row, col), NaN = not observed; rows and columns that fill no block are left out
    Returns (total, count), (row // factor, col // factor) float64.
    """
    n_row, n_col = image.shape[0] // factor, image.shape[1] // factor
    total = np.zeros((n_row, n_col))
    count = np.zeros((n_row, n_col))
    for i in range(n_row):
        for k in range(factor):
            line = image[i * factor + k]
            for j in range(n_col):
                part = 0.0
                n = 0
                for m in range(factor):
                    value = line[j * factor + m]
                    if np.isfinite(value):
                        part += value
                        n += 1
                total[i, j] += part
                count[i, j] += n
    return total, count


def mean_of(total, count, most):
    """Mean of blocks of `most` pixels from their sums, float32; NaN where fewer than half were observed."""
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count >= 0.5 * most)
    return mean.astype(np.float32)
