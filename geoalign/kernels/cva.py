"""Change vectors: differences of the bands after the second date was brought to the first one's radiometry."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from geoalign.kernels.irmad import major_axis, pack, unknown, varied

MOST_ROUNDS, STILL = 50, 1e-3


def change_vectors(x, y):
    """Length of the standardised change vector, radiometric normalisation included.

    x, y : (n, band) values of the same pixels at two dates

    Returns
    -------
    squares : (n,) sum over the bands of (slope y + level - x)^2 / variance, scaled to a chi2(dof) in its middle
    dof : effective number of independent bands, (trace C)^2 / trace C^2 of the unchanged differences' correlation C
    slope, level : (band,) of the normalisation
    noise : (band,) standard deviation of unchanged differences, so scaled
    """
    # medians to start with: by means, a change would bend the normalisation that it is to be told by
    mid_x, mid_y = np.median(x, axis=0), np.median(y, axis=0)
    slope = spread(x - mid_x) / spread(y - mid_y)
    level = mid_x - slope * mid_y
    difference = slope * y + level - x
    noise = spread(difference - np.median(difference, axis=0))
    before, dof = np.zeros(x.shape[1]), float(x.shape[1])
    for _ in range(MOST_ROUNDS):
        squares = ((difference / noise) ** 2).sum(1)
        scale = max(np.median(squares) / chi2.ppf(0.5, dof), 1e-12)
        squares = squares / scale
        noise = noise * np.sqrt(scale)
        if np.abs(slope - before).max() < STILL:
            break
        weight = chi2.sf(squares, dof)
        before = slope
        slope, level = major_axis(x, y, weight)
        difference = slope * y + level - x
        noise = np.sqrt(np.maximum(weight @ difference**2 / weight.sum(), 1e-12))
        dof = effective(difference, noise, weight)
    return squares, dof, slope, level, noise


def spread(centred):
    """Robust standard deviation by band, the plain one where over half the values are equal."""
    robust = np.median(np.abs(centred), axis=0) / 0.6745
    return np.maximum(np.where(robust > 0, robust, np.sqrt((centred**2).mean(0))), 1e-12)


def effective(difference, noise, weight):
    """Number of independent bands, (trace C)^2 / trace C^2 of the correlation C of unchanged differences."""
    scaled = difference / noise
    c = (scaled * weight[:, None]).T @ scaled / weight.sum()
    return float(np.trace(c) ** 2 / (c**2).sum())


def fit(parts, *, n_band, alpha=None):
    """Change vectors of sampled pixels (list of `irmad.sample`), as `irmad.pack` lays it out."""
    values = np.concatenate(parts)
    if not varied(values, n_band):
        return unknown(n_band)
    x, y = values[:, :n_band].astype(np.float64), values[:, n_band : 2 * n_band].astype(np.float64)
    _, dof, slope, level, noise = change_vectors(x, y)
    means = np.stack([level, np.zeros(n_band)])
    return pack(values, dof, (np.diag(1 / noise), np.diag(slope / noise)), means, slope, level, 1 / spread(x), alpha)
