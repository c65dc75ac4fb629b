"""Patches of a log-ratio described by their principal components and parted in two."""

import numpy as np
from numba import njit
from scipy.cluster.vq import kmeans2

FEW = 50
"""Patches below which nothing is learnt."""


def patches(ratio, side, step):
    """Patches of a block at every step-th pixel, (n, side^2) float64; ratio (row, col). None with gaps."""
    if min(ratio.shape) < side:
        return np.empty((0, side * side))
    view = np.lib.stride_tricks.sliding_window_view(ratio, (side, side))[::step, ::step].reshape(-1, side * side)
    return view[np.isfinite(view).all(axis=1)].astype(np.float64)


def learn(parts, side, components, seed):
    """Mean patch, principal axes and the two centres: (side^2 (1 + components) + 2 components + 1,), flat.

    The patches enter with the ratio's magnitude. The centre farther from zero is the second; the last number is the
    share of patches that are nearer to it. Axes are zero where there are too few patches.
    """
    data = np.concatenate(parts)
    n = side * side
    out = np.zeros(n * (1 + components) + 2 * components + 1)
    if len(data) < FEW or not np.ptp(data) > 0:
        return out
    mean = data.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((data - mean).T))
    axes = vectors[:, ::-1][:, :components].T
    axes *= np.where(axes.sum(axis=1) < 0, -1.0, 1.0)[:, None]
    place = (data - mean) @ axes.T
    start = np.stack([place[np.argmin(place[:, 0])], place[np.argmax(place[:, 0])]])
    centres, label = kmeans2(place, start, minit="matrix", iter=50, missing="warn", seed=seed)
    height = (centres @ axes + mean).mean(axis=1)
    order = np.argsort(height)
    share = float((label == order[1]).mean())
    return np.concatenate([mean, axes.ravel(), centres[order].ravel(), [share]])


@njit(nogil=True, cache=True)
def parted(ratio, learnt, side, components):
    """How much nearer each pixel's patch is to the changed centre, (row, col) float32: -1 at the unchanged centre, 1 at
    the changed one, 0 between; NaN where not observed. Gaps and what lies beyond the edge count as the patch's mean."""
    n_row, n_col = ratio.shape
    half = side // 2
    n = side * side
    mean = learnt[:n]
    axes = learnt[n : n * (1 + components)].reshape(components, n)
    centres = learnt[n * (1 + components) : n * (1 + components) + 2 * components].reshape(2, components)
    gap = 0.0
    for k in range(components):
        gap += (centres[1, k] - centres[0, k]) ** 2
    out = np.full((n_row, n_col), np.nan, np.float32)
    patch = np.empty(n)
    for r in range(n_row):
        for c in range(n_col):
            if np.isnan(ratio[r, c]):
                continue
            total, count = 0.0, 0
            for i in range(-half, half + 1):
                for j in range(-half, half + 1):
                    k = (i + half) * side + j + half
                    patch[k] = np.nan
                    if 0 <= r + i < n_row and 0 <= c + j < n_col and not np.isnan(ratio[r + i, c + j]):
                        patch[k] = ratio[r + i, c + j]
                        total += patch[k]
                        count += 1
            for k in range(n):
                if np.isnan(patch[k]):
                    patch[k] = total / count
            d0, d1 = 0.0, 0.0
            for m in range(components):
                place = 0.0
                for k in range(n):
                    place += axes[m, k] * (patch[k] - mean[k])
                d0 += (place - centres[0, m]) ** 2
                d1 += (place - centres[1, m]) ** 2
            out[r, c] = (d0 - d1) / gap if gap > 0 else -1.0
    return out
