"""Masked correlation by Fourier transforms, and its peak between the pixels.

Sign: a peak at lag (dy, dx) says that reference pixel (row, col) is found at (row + dy, col + dx) in the moving image.
"""

import numpy as np
from numba import njit
from scipy.fft import irfft2, next_fast_len, rfft2


def masked_correlation(reference, reference_valid, moving, moving_valid, search, overlap=0.3):
    """Normalised cross-correlation of the pixels observed in both images, at whole-pixel lags.

    reference, moving : (..., row, col) float, of about zero mean (band-passed); anything where not valid
    reference_valid, moving_valid : the same shapes, bool
    search : (up, left, height, width): lags run from (up, left) over height x width pixels
    overlap : lags where the two share less than this part of the largest overlap score 0
    Returns (surface, shared): (..., height, width) correlation in -1..1, and the number of shared pixels.

    Masked pixels take part neither in the product nor in the norms (Padfield 2012, doi:10.1109/TIP.2011.2181402,
    equation 19 for images whose means are zero already), so that masks leave no imprint.
    """
    spectra, shape = _spectra(reference, reference_valid, moving, moving_valid, search)
    rows = (search[0] + np.arange(search[2])) % shape[0]
    cols = (search[1] + np.arange(search[3])) % shape[1]
    parts = (irfft2(s, shape)[..., rows[:, None], cols[None, :]] for s in spectra)
    return _normalise(*parts, overlap)


def window_correlation(reference, reference_valid, moving, moving_valid, overlap=0.3):
    """`masked_correlation` of small windows with larger ones around them, summed directly: at every lag that fits.

    reference, reference_valid : (n, size, size); moving, moving_valid : (n, size + 2 reach, size + 2 reach)
    Returns (surface, shared): (n, 2 reach + 1, 2 reach + 1), lags from -reach to reach where the wider windows lie
    `reach` px around the others. For the few lags that are asked of windows five times as quick as Fourier transforms.
    """
    return _normalise(*_lagged(reference, reference_valid, moving, moving_valid), overlap)


@njit(nogil=True, cache=True)
def _lagged(reference, reference_valid, moving, moving_valid):
    """Sums of products, of both squares over what both show, and of shared pixels, at every lag."""
    n, size, _ = reference.shape
    side = moving.shape[1] - size + 1
    product, power_r, power_m = np.zeros((n, side, side)), np.zeros((n, side, side)), np.zeros((n, side, side))
    shared = np.zeros((n, side, side))
    for k in range(n):
        t = np.where(reference_valid[k], reference[k], 0.0)
        m = np.where(moving_valid[k], moving[k], 0.0)
        _slide(t, m, product[k])
        t_ok, m_ok = reference_valid[k].astype(np.float64), moving_valid[k].astype(np.float64)
        if moving_valid[k].all():
            power_r[k] = (t * t).sum()
            shared[k] = t_ok.sum()
        else:
            _slide(t * t, m_ok, power_r[k])
            _weigh(t_ok, m_ok, shared[k])
        _weigh(t_ok, m * m, power_m[k])
    return product, power_r, power_m, shared


@njit(nogil=True, cache=True)
def _weigh(ok, image, out):
    """`_slide` for weights of 0 and 1; where all are 1 along rows first and then along columns."""
    if not ok.all():
        _slide(ok, image, out)
        return
    size, side = ok.shape[0], out.shape[0]
    lines = np.zeros((image.shape[0], side))
    for r in range(image.shape[0]):
        for c in range(size):
            for j in range(side):
                lines[r, j] += image[r, c + j]
    for i in range(side):
        for r in range(size):
            for j in range(side):
                out[i, j] += lines[r + i, j]


@njit(nogil=True, cache=True)
def _slide(weights, image, out):
    """Adds to `out` the sum of weights times image, at every lag."""
    size, side = weights.shape[0], out.shape[0]
    for r in range(size):
        for c in range(size):
            w = weights[r, c]
            if w == 0.0:
                continue
            # the lags of a row lie side by side, so that the loop runs in vectors and yet adds in a fixed order
            for i in range(side):
                for j in range(side):
                    out[i, j] += w * image[r + i, c + j]


def upsampled_peak(reference, reference_valid, moving, moving_valid, start, upsample=20, reach=1.5, overlap=0.3):
    """The lag of greatest masked correlation near `start`, to 1/upsample px and then a parabola.

    The four correlations are evaluated between the pixels by a matrix-multiply Fourier transform on a small grid around
    `start` only (Guizar-Sicairos, Thurman and Fienup 2008, doi:10.1364/OL.33.000156), then normalised for the masks.

    start : (dy, dx), px; reach : half-width of the grid, px
    Returns (dy, dx, score).
    """
    n = int(np.ceil(reach * upsample))
    lags = np.arange(-n, n + 1) / upsample
    search = (int(np.floor(start[0] - reach)) - 1, int(np.floor(start[1] - reach)) - 1, 0, 0)
    spectra, shape = _spectra(reference, reference_valid, moving, moving_valid, search, reach=int(reach) + 3)
    rows, cols = start[0] + lags, start[1] + lags
    frequency = np.fft.rfftfreq(shape[1])
    # a real image's spectrum is stored by half: the columns between the ends stand for two
    twice = np.where((frequency == 0) | (frequency == 0.5), 1.0, 2.0)
    left = np.exp(2j * np.pi * rows[:, None] * np.fft.fftfreq(shape[0])[None, :]) / shape[0]
    right = twice[:, None] * np.exp(2j * np.pi * frequency[:, None] * cols[None, :]) / shape[1]
    surface, _ = _normalise(*((left @ s @ right).real for s in spectra), overlap)
    i, j = np.unravel_index(np.argmax(surface), surface.shape)
    di, dj = parabola_peak(surface, i, j)
    return float(rows[0] + (i + di) / upsample), float(cols[0] + (j + dj) / upsample), float(surface[i, j])


def parabola_peak(surface, i, j):
    """Offset of the peak of a separable parabola through (i, j) and its four neighbours, -0.5..0.5 an axis."""
    out = []
    for axis, k in enumerate((i, j)):
        if k == 0 or k == surface.shape[axis] - 1:
            out.append(0.0)
            continue
        line = surface[k - 1 : k + 2, j] if axis == 0 else surface[i, k - 1 : k + 2]
        bend = line[0] - 2 * line[1] + line[2]
        out.append(float(np.clip((line[0] - line[2]) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0)
    return out[0], out[1]


def _spectra(reference, reference_valid, moving, moving_valid, search, reach=0):
    far = [max(abs(search[axis]), abs(search[axis] + search[2 + axis])) + 2 * reach for axis in (0, 1)]
    # room for every lag asked for, so that nothing wraps around
    sizes = zip(reference.shape[-2:], moving.shape[-2:], far)
    shape = tuple(next_fast_len(max(a, b) + f + 1, real=True) for a, b, f in sizes)
    values_r = np.where(reference_valid, reference, 0.0).astype(np.float64)
    values_m = np.where(moving_valid, moving, 0.0).astype(np.float64)
    images = (values_r, values_m, reference_valid.astype(float), moving_valid.astype(float), values_r**2, values_m**2)
    fr, fm, gr, gm, hr, hm = (rfft2(v, shape) for v in images)
    return (np.conj(fr) * fm, np.conj(hr) * gm, np.conj(gr) * hm, np.conj(gr) * gm), shape


def _normalise(product, power_r, power_m, shared, overlap):
    axes = (-2, -1)
    enough = shared > np.maximum(overlap * shared.max(axes, keepdims=True, initial=0.0), 8.0)
    norm = np.sqrt(np.maximum(power_r, 0.0) * np.maximum(power_m, 0.0))
    good = enough & (norm > 1e-9 * norm.max(axes, keepdims=True, initial=0.0))
    surface = np.divide(product, norm, out=np.zeros_like(product), where=good)
    return np.clip(surface, -1.0, 1.0), np.where(enough, np.rint(shared), 0.0)
