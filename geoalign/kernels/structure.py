"""Structure: what two images of different sensors share, whatever their grey values, and where it correlates."""

import math

import cv2
import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

CHANNELS = 8
"""Four of self-similarity, four of edge orientation."""

_TAIL = 3.5  # upper over lower half-width of the grey values; speckled intensity has 6 and more, most scenes 1 to 3
_SMALL = 0.05  # of the mean: what is darker counts as dark, so that the logarithm does not blow up its noise
_BATCH = 16  # windows correlated at a time, so that their spectra fit into the cache


def darkest(image):
    """The offset to add before taking logarithms, or None where the grey values are to be taken as they are.

    image : (row, col), NaN = not observed. Speckle grows with the signal in intensity and amplitude; only in logarithms
    is an edge as high in bright ground as in dark ground (the ratio of the two sides, Touzi, Lopes and Bousquet 1988,
    doi:10.1109/36.7708). Such images are known by never being negative and by their long right tail.
    """
    values = image[np.isfinite(image)]
    if values.size == 0:
        return None
    low, middle, high = np.quantile(values, (0.01, 0.5, 0.99))
    if values.min() < 0 or high - middle <= _TAIL * (middle - low):
        return None
    return float(_SMALL * values.mean(dtype=np.float64)) or None


def describe(image, scale):
    """What surrounds each pixel, told without its grey values: 8 channels that sensors agree on.

    image : (row, col) float32, NaN = not observed; scale : px, standard deviation of the smoothing
    Returns (channels, valid): (8, row, col) float32 and (row, col) bool; the channels are 0 where not valid.

    Channels 0-3 are self-similarities, exp(-d / v) with d the mean square difference between the patch here and the
    patch beside it (one step along each diagonal) and v the mean of the four (MIND: Heinrich et al. 2012,
    doi:10.1016/j.media.2012.05.008; we take the diagonals, subtract the mean of the four, and add a share of the
    image's mean to v, so that noise on flat ground counts little).
    Channels 4-7 are the histogram of gradient orientations around the pixel (Dalal and Triggs 2005,
    doi:10.1109/CVPR.2005.177), modulo 180 degrees, kept as its first two Fourier coefficients (Liu et al. 2014,
    doi:10.1007/s11263-013-0634-z) rather than in bins: the gradient as a complex number, its angle doubled and doubled
    again, weighted by its length over the local mean, and smoothed. Reversing the contrast changes neither.
    """
    seen = np.isfinite(image)
    valid = seen
    values = np.where(seen, image, 0.0).astype(np.float32)
    if not seen.all():
        near = _smooth(seen.astype(np.float32), 2 * scale)
        around = _smooth(values, 2 * scale) / np.maximum(near, 1e-6)
        everywhere = float(values[seen].mean(dtype=np.float64)) if seen.any() else 0.0
        values = np.where(seen, values, np.where(near > 1e-3, around, everywhere)).astype(np.float32)
        valid = seen & (_smooth(seen.astype(np.float32), 1.5 * scale) > 0.7)
    if not valid.any():
        return np.zeros((CHANNELS, *image.shape), np.float32), valid
    out = np.concatenate([_similarity(values, valid, scale), _orientation(values, valid, scale)])
    out *= valid
    return out, valid


def _similarity(values, valid, scale):
    step = max(1, round(1.5 * scale))
    smooth = _smooth(values, 0.6 * scale)
    padded = cv2.copyMakeBorder(smooth, step, step, step, step, cv2.BORDER_REFLECT_101)
    n_row, n_col = values.shape
    apart = np.empty((4, n_row, n_col), np.float32)
    for k, (r, c) in enumerate(((0, 0), (0, 2 * step), (2 * step, 0), (2 * step, 2 * step))):
        apart[k] = _smooth((smooth - padded[r : r + n_row, c : c + n_col]) ** 2, scale)
    mean = apart.mean(axis=0)
    mean += 0.2 * float(mean[valid].mean(dtype=np.float64)) + 1e-30
    out = np.exp(-apart / mean)
    out -= out.mean(axis=0)
    return _unit(out, valid)


def _orientation(values, valid, scale):
    smooth = _smooth(values, scale)
    gr, gc = np.zeros_like(smooth), np.zeros_like(smooth)
    gr[1:-1] = 0.5 * (smooth[2:] - smooth[:-2])
    gc[:, 1:-1] = 0.5 * (smooth[:, 2:] - smooth[:, :-2])
    power = gr * gr + gc * gc
    level = _smooth(power, 3 * scale) + 0.25 * float(power[valid].mean(dtype=np.float64)) + 1e-30
    safe = np.maximum(power, 1e-30)
    cos2, sin2 = (gc * gc - gr * gr) / safe, 2 * gr * gc / safe
    weight = np.sqrt(power / level)
    out = np.stack([weight * cos2, weight * sin2, weight * (cos2**2 - sin2**2), weight * 2 * cos2 * sin2])
    for channel in out:
        channel[:] = _smooth(channel, scale)
    return _unit(out, valid)


def _unit(channels, valid):
    """Divided by the root mean square of what is valid, so that the two kinds of channels weigh the same."""
    power = float((channels**2).sum(axis=0)[valid].mean(dtype=np.float64))
    return channels / np.float32(math.sqrt(power) + 1e-30)


def _smooth(image, sigma):
    side = 2 * int(math.ceil(3 * sigma)) + 1
    return cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)


def correlate(reference, reference_valid, moving, moving_valid, search, overlap=0.5):
    """Normalised correlation of descriptors summed over their channels, of the pixels valid in both, at whole px lags.

    reference, moving : (..., channel, row, col) float32; *_valid : (..., row, col) bool
    search : (up, left, height, width): lags run from (up, left) over height x width pixels
    overlap : lags where the two share less than this part of the largest overlap score 0
    Returns (surface, shared): (..., height, width) correlation in -1..1, and the number of shared pixels.

    The same masked normalisation as in `phase.masked_correlation`, with sums over channels.
    """
    if reference.ndim > 3 and len(reference) > _BATCH:
        cuts = [slice(k, k + _BATCH) for k in range(0, len(reference), _BATCH)]
        parts = [correlate(reference[s], reference_valid[s], moving[s], moving_valid[s], search, overlap) for s in cuts]
        return tuple(np.concatenate(p) for p in zip(*parts))
    sizes = []
    for axis in (0, 1):
        a, b = reference.shape[axis - 2], moving.shape[axis - 2]
        first, last = search[axis], search[axis] + search[axis + 2] - 1
        # room for every lag asked for, so that nothing wraps around onto it
        sizes.append(next_fast_len(max(a, b, a + last, b - first), real=True))
    rows, cols = ((search[k] + np.arange(search[k + 2])) % sizes[k] for k in (0, 1))

    def lags(spectrum):
        return irfft2(spectrum, sizes)[..., rows[:, None], cols[None, :]]

    def power(channels):
        return rfft2(np.einsum("...cij,...cij->...ij", channels, channels), sizes)

    seen_r, seen_m = (rfft2(v.astype(np.float32), sizes) for v in (reference_valid, moving_valid))
    product = lags((np.conj(rfft2(reference, sizes)) * rfft2(moving, sizes)).sum(axis=-3))
    power_r, power_m = lags(np.conj(power(reference)) * seen_m), lags(np.conj(seen_r) * power(moving))
    shared = lags(np.conj(seen_r) * seen_m)
    axes = (-2, -1)
    enough = shared > np.maximum(overlap * shared.max(axes, keepdims=True), 8.0)
    norm = np.sqrt(np.maximum(power_r, 0.0) * np.maximum(power_m, 0.0))
    # float32 transforms leave a remainder of about 1e-6 where nothing is shared
    good = enough & (norm > 1e-3 * norm.max(axes, keepdims=True))
    surface = np.divide(product, norm, out=np.zeros_like(product), where=good)
    return np.clip(surface, -1.0, 1.0).astype(np.float64), np.where(enough, np.rint(shared), 0.0)


def peaks(surfaces, near=3.0):
    """The highest place of each correlation surface, between the pixels, and how uncertain it is.

    surfaces : (n, lag, lag), both sides odd; near : px around the peak that belong to it, the rest tells the noise
    Returns (offset (n, 2) from the centre, covariance (n, 2, 2) px^2, height (n,), found (n,) bool); not found where
    the highest place lies on the border, or is no peak.

    A quadric through the 3 x 3 lags around the maximum gives the place and the bend H. Noise displaces the peak by
    H^-1 g, g its slope there; the variance of g is that of the slopes away from the peaks, the median over all
    surfaces (of one surface alone they may be the flanks of a ridge). A border of a field that is straight through the
    window is found well across and badly along it, and the covariance H^-1 H^-1 var(g) says so.
    """
    n, height, width = surfaces.shape
    offset, covariance = np.zeros((n, 2)), np.broadcast_to(np.eye(2), (n, 2, 2)).copy()
    top, found, slopes = np.zeros(n), np.zeros(n, bool), np.full(n, np.nan)
    rows, cols = np.mgrid[0:height, 0:width]
    for k in range(n):
        s = surfaces[k]
        i, j = np.unravel_index(np.argmax(s), s.shape)
        top[k] = s[i, j]
        if not (0 < i < height - 1 and 0 < j < width - 1 and s[i, j] > 0):
            continue
        w = s[i - 1 : i + 2, j - 1 : j + 2]
        bend = np.array(
            [
                [w[0, 1] - 2 * w[1, 1] + w[2, 1], (w[0, 0] + w[2, 2] - w[0, 2] - w[2, 0]) / 4],
                [(w[0, 0] + w[2, 2] - w[0, 2] - w[2, 0]) / 4, w[1, 0] - 2 * w[1, 1] + w[1, 2]],
            ]
        )
        slope = np.array([w[2, 1] - w[0, 1], w[1, 2] - w[1, 0]]) / 2
        det = bend[0, 0] * bend[1, 1] - bend[0, 1] ** 2
        if not (bend[0, 0] < 0 and bend[1, 1] < 0 and det > 1e-6 * bend[0, 0] * bend[1, 1]):
            continue
        inverse = np.linalg.inv(bend)
        gr, gc = 0.5 * (s[2:, 1:-1] - s[:-2, 1:-1]), 0.5 * (s[1:-1, 2:] - s[1:-1, :-2])
        away = np.hypot(rows[1:-1, 1:-1] - i, cols[1:-1, 1:-1] - j) > near
        if away.sum() < 8:
            away[:] = True
        slopes[k] = 0.5 * float((gr[away] ** 2 + gc[away] ** 2).mean())
        place = -inverse @ slope
        # along a straight border the quadric is nearly flat and its top may lie far outside of what it was fitted to
        offset[k] = np.array([i - height // 2, j - width // 2]) + np.clip(place, -0.75, 0.75)
        covariance[k] = inverse @ inverse
        found[k] = True
    if found.any():
        covariance[found] *= np.median(slopes[found])
    return offset, covariance, top, found
