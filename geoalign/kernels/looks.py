"""Equivalent number of looks of intensities, from windows that happen to lie on even ground."""

import numpy as np

from geoalign.kernels.special import looks_of_variance

WINDOW_PX = 7
CLEAR = 0.8
"""Share of a window that must be observed."""
FEW = 30
"""Windows or pixels below which there is no estimate."""


def spatial_looks(image):
    """Looks from mean^2 / variance of windows of 7 x 7 px; image : (row, col), NaN = not observed. NaN where too few.

    Most windows lie on ground more or less even, and texture only raises their scatter: what they have in common, the
    mode, is the speckle. Neighbouring pixels that err together make a window look too even; their correlation corrects.
    """
    values = _windows(image)
    mean, variance = values.mean, values.variance
    good = values.good & (mean > 0) & (variance > 0)
    if good.sum() < FEW:
        return np.nan
    even = _mode(np.log(variance[good] / mean[good] ** 2))
    return float((1 - _shared(image, values, even)) / np.exp(even))


def log_looks(image):
    """Looks from the variance of the logarithm, psi_1(L), in the same windows (method of log-cumulants)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log(np.where(image > 0, image, np.nan))
    values = _windows(logarithm)
    good = values.good & (values.variance > 0)
    if good.sum() < FEW:
        return np.nan
    even = _mode(np.log(values.variance[good]))
    whole = _windows(image)
    mean = np.where(whole.mean > 0, whole.mean, np.nan)
    level = _mode(np.log(whole.variance[good] / mean[good] ** 2))
    return float(looks_of_variance(np.exp(even) / (1 - _shared(image, whole, level))))


def temporal_looks(series):
    """Looks from the scatter of pixels in time, by their mode; series : (time, row, col) of one orbit."""
    seen = np.isfinite(series) & (series > 0)
    count = seen.sum(axis=0)
    enough = count >= max(5, 0.5 * len(series))
    if enough.sum() < FEW:
        return np.nan
    values = np.where(seen, series, 0.0).astype(np.float64)[:, enough]
    n = count[enough]
    mean = values.sum(axis=0) / n
    variance = (np.where(seen[:, enough], values - mean, 0.0) ** 2).sum(axis=0) / (n - 1)
    good = variance > 0
    # of n dates variance / mean^2 is too small by 1 + 1 / (n L), which is solved for
    share = np.exp(_mode(np.log(variance[good] / mean[good] ** 2)))
    return float(1 / share - 1 / np.median(n))


class _Windows:
    def __init__(self, mean, variance, good):
        self.mean, self.variance, self.good = mean, variance, good


def _windows(image):
    """Mean, variance and whether enough is seen of adjoining windows."""
    n_row, n_col = (n // WINDOW_PX for n in image.shape)
    tiles = image[: n_row * WINDOW_PX, : n_col * WINDOW_PX].astype(np.float64)
    tiles = tiles.reshape(n_row, WINDOW_PX, n_col, WINDOW_PX).swapaxes(1, 2).reshape(n_row, n_col, -1)
    seen = np.isfinite(tiles)
    count = seen.sum(axis=-1)
    mean = np.where(seen, tiles, 0.0).sum(axis=-1) / np.maximum(count, 1)
    left = np.where(seen, tiles - mean[..., None], 0.0)
    return _Windows(mean, (left**2).sum(axis=-1) / np.maximum(count - 1, 1), count >= CLEAR * WINDOW_PX**2)


def _shared(image, windows, even):
    """Mean correlation of two different pixels of an even window: so much of the variance goes along with the mean."""
    n_row, n_col = windows.mean.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = windows.good & (np.abs(np.log(windows.variance / windows.mean**2) - even) < 0.35)
    if plain.sum() < FEW:
        return 0.0
    tiles = image[: n_row * WINDOW_PX, : n_col * WINDOW_PX].astype(np.float64)
    tiles = tiles.reshape(n_row, WINDOW_PX, n_col, WINDOW_PX).swapaxes(1, 2)[plain]
    mean = windows.mean[plain][:, None, None]
    left = np.nan_to_num(tiles / mean - 1)
    size = (left**2).mean()
    near = {}
    for dr, dc in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)):
        a, b = left[:, : WINDOW_PX - dr, : WINDOW_PX - dc], left[:, dr:, dc:]
        near[dr, dc] = float((a * b).mean() / size)
    # residuals from a window's own mean of 49 pixels are correlated by -1/48 where the pixels are not at all
    rho = {k: max(v + 1 / (WINDOW_PX**2 - 1), 0.0) for k, v in near.items()}
    n = WINDOW_PX
    pairs = sum((2 if 0 in k else 4) * (n - k[0]) * (n - k[1]) * r for k, r in rho.items())
    return min(pairs / (n * n * (n * n - 1)), 0.5)


def _mode(values):
    """Half-sample mode (Robertson and Cryer 1974), ended at a tenth of the sample, whose mean is steadier."""
    values = np.sort(values[np.isfinite(values)])
    last = max(FEW // 2, values.size // 10)
    while values.size > 2 * last:
        half = (values.size + 1) // 2
        width = values[half - 1 :] - values[: values.size - half + 1]
        start = int(np.argmin(width))
        values = values[start : start + half]
    return float(values.mean())
