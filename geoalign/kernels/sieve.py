"""Which patches are large enough, decided in windows so that the answer does not depend on how an image was cut."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def large_enough(mask, n_min):
    """Pixels of 8-connected patches of at least n_min px.

    mask : (row, col) bool
    Returns (row, col) bool. A pixel's answer is exact where the window reaches n_min - 1 px around it: a patch that
    large has n_min of its pixels within so many steps.
    """
    n_row, n_col = mask.shape
    out = np.zeros((n_row, n_col), np.bool_)
    seen = np.zeros((n_row, n_col), np.bool_)
    stack = np.empty((n_row * n_col, 2), np.int64)
    for i in range(n_row):
        for j in range(n_col):
            if not mask[i, j] or seen[i, j]:
                continue
            stack[0, 0], stack[0, 1] = i, j
            seen[i, j] = True
            size, at = 1, 0
            while at < size:
                r, c = stack[at, 0], stack[at, 1]
                at += 1
                for a in range(max(0, r - 1), min(n_row, r + 2)):
                    for b in range(max(0, c - 1), min(n_col, c + 2)):
                        if mask[a, b] and not seen[a, b]:
                            seen[a, b] = True
                            stack[size, 0], stack[size, 1] = a, b
                            size += 1
            if size >= n_min:
                for k in range(size):
                    out[stack[k, 0], stack[k, 1]] = True
    return out


@njit(nogil=True, cache=True)
def backed(sure, doubtful, n_min):
    """`sure`, and those of `doubtful` with at least n_min of their eight neighbours in either; (row, col) bool each."""
    n_row, n_col = sure.shape
    out = sure.copy()
    for i in range(n_row):
        for j in range(n_col):
            if sure[i, j] or not doubtful[i, j]:
                continue
            near = -1
            for a in range(max(0, i - 1), min(n_row, i + 2)):
                for b in range(max(0, j - 1), min(n_col, j + 2)):
                    near += sure[a, b] or doubtful[a, b]
            out[i, j] = near >= n_min
    return out


@njit(nogil=True, cache=True)
def grown(seed, may, steps):
    """`seed` and what of `may` is reached from it in so many steps to 8 neighbours; (row, col) bool each."""
    n_row, n_col = seed.shape
    out = seed.copy()
    for _ in range(steps):
        new = out.copy()
        for i in range(n_row):
            for j in range(n_col):
                if out[i, j] or not may[i, j]:
                    continue
                for a in range(max(0, i - 1), min(n_row, i + 2)):
                    for b in range(max(0, j - 1), min(n_col, j + 2)):
                        new[i, j] = new[i, j] or out[a, b]
        out = new
    return out
