"""The peak of a normalised cross-correlation between the pixels, and how well it is determined."""

import numpy as np


def peaks(surfaces, pixels, scale):
    """The greatest correlation of each window, placed between the lags by a paraboloid, with its covariance.

    surfaces : (n, lags, lags) correlation, -1..1; pixels : (n,) compared in each window
    scale : standard deviation of the Gaussian the images were smoothed by, px
    Returns (offset, covariance, height): (n, 2) lags from the middle of the surface, (n, 2, 2) px^2, (n,) correlation.
    NaN where the peak lies on the border or is none (flat, a ridge, or not positive).

    For moving = gain reference + noise the correlation rho falls as rho - d' A d / 2 around the peak, and the
    information on d is n rho A / (1 - rho^2), n independent pixels: white noise smoothed so stays alike over
    4 pi scale^2 px. (The Cramer-Rao bound of a displacement, written in what a correlation surface shows.)
    """
    n, side, _ = surfaces.shape
    offset, height = np.full((n, 2), np.nan), np.full(n, np.nan)
    covariance = np.full((n, 2, 2), np.nan)
    i, j = np.unravel_index(surfaces.reshape(n, -1).argmax(axis=1), (side, side))
    inner = np.flatnonzero((i > 0) & (j > 0) & (i < side - 1) & (j < side - 1))
    k, i, j = inner, i[inner], j[inner]
    near = surfaces[k[:, None, None], i[:, None, None] + [[[-1], [0], [1]]], j[:, None, None] + [[[-1, 0, 1]]]]
    slope = 0.5 * np.stack([near[:, 2, 1] - near[:, 0, 1], near[:, 1, 2] - near[:, 1, 0]], axis=1)
    cross = 0.25 * (near[:, 2, 2] - near[:, 2, 0] - near[:, 0, 2] + near[:, 0, 0])
    down = 2 * near[:, 1, 1] - near[:, 2, 1] - near[:, 0, 1]
    along = 2 * near[:, 1, 1] - near[:, 1, 2] - near[:, 1, 0]
    bend = np.stack([down, -cross, -cross, along], axis=1).reshape(-1, 2, 2)
    whole = near[:, 1, 1]
    good = (whole > 0) & (down > 0) & (along > 0) & (down * along - cross**2 > 1e-3 * down * along)
    bend, slope, whole, k, i, j = bend[good], slope[good], whole[good], k[good], i[good], j[good]
    inverse = np.linalg.inv(bend)
    between = np.clip(np.einsum("nij,nj->ni", inverse, slope), -0.75, 0.75)
    rho = np.clip(whole + 0.5 * np.einsum("ni,ni->n", slope, between), 1e-3, 1 - 1e-9)
    independent = np.maximum(pixels[k] / (4 * np.pi * scale**2), 1.0)
    offset[k] = np.stack([i, j], axis=1) - side // 2 + between
    covariance[k] = inverse * ((1 - rho**2) / (rho * independent))[:, None, None]
    height[k] = rho
    return offset, covariance, height
