"""Band-pass filter for images with gaps, and the least-squares step that finds what is left of a displacement."""

import math

import cv2
import numpy as np
from numba import njit
from scipy.ndimage import spline_filter

from geoalign.kernels.spline import bspline_weights

TINY = 1e-6


def band_pass(image, fine, broad, share=0.0):
    """Local structure between two scales: Gaussian mean of `fine` px minus Gaussian mean of `broad` px.

    image : (row, col), NaN = not observed; means are taken over the observed pixels only
    fine, broad : standard deviations, px
    share : pixels count as not observed where less than this of what the image has within `broad` of them was observed:
        beside a gap the broad mean is of one side only, and two images with gaps at other places then differ
    Returns (values, valid): float64, and False where the image itself or most of what surrounds it (within `fine`) was
    not observed; values are 0 there.
    """
    seen = np.isfinite(image)
    whole = bool(seen.all())
    filled = image.astype(np.float64) if whole else np.where(seen, image, 0.0).astype(np.float64)
    values, high = _gauss(filled, fine), _gauss(filled, broad)
    if whole:
        # the weight of an image without gaps is an outer product and needs no filter
        (by_row, by_col), (by_row2, by_col2) = (_gauss_of_ones(seen.shape, s) for s in (fine, broad))
        low_weight = by_row[:, None] * by_col
        high /= np.maximum(by_row2[:, None] * by_col2, TINY)
    else:
        low_weight, high_weight = (_gauss(seen.astype(np.float64), s) for s in (fine, broad))
        high /= np.maximum(high_weight, TINY)
    valid = seen & (low_weight > 0.9)
    if share and not whole:
        by_row, by_col = _gauss_of_ones(seen.shape, broad)
        valid &= high_weight >= share * by_row[:, None] * by_col
    values /= np.maximum(low_weight, TINY)
    values -= high
    values[~valid] = 0.0
    return values, valid


def _gauss(image, sigma):
    taps = _taps(sigma)
    return cv2.sepFilter2D(image, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_CONSTANT)


def _gauss_of_ones(shape, sigma):
    """What `_gauss` makes of ones, along rows and along columns."""
    taps = _taps(sigma)
    half = len(taps) // 2
    return [np.convolve(np.ones(n), taps)[half : half + n] for n in shape]


def _taps(sigma):
    half = max(1, int(math.ceil(3.5 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    return taps / taps.sum()


def spline(values):
    """Cubic B-spline coefficients of a band-passed image, for `window_step`."""
    return spline_filter(values, order=3, mode="mirror")


@njit(nogil=True, cache=True)
def sample(coef, ok, rows, cols):
    """Values of a band-passed image at (rows, cols), from its spline coefficients; 0 where `ok` is not all around.

    coef, ok : (row, col); rows, cols : 1-D, tile pixels. Returns (values, valid), 1-D.
    """
    values = np.zeros(rows.size)
    valid = np.zeros(rows.size, np.bool_)
    m_row, m_col = coef.shape
    wr = np.empty(4)
    wc = np.empty(4)
    for n in range(rows.size):
        p = rows[n]
        q = cols[n]
        if not (p >= 1.0 and q >= 1.0 and p < m_row - 2 and q < m_col - 2):
            continue
        a = int(p)
        b = int(q)
        if not (ok[a, b] and ok[a + 1, b] and ok[a, b + 1] and ok[a + 1, b + 1]):
            continue
        bspline_weights(p - a, wr)
        bspline_weights(q - b, wc)
        total = 0.0
        for k in range(4):
            line = 0.0
            for m in range(4):
                line += wc[m] * coef[a - 1 + k, b - 1 + m]
            total += wr[k] * line
        values[n] = total
        valid[n] = True
    return values, valid


@njit(nogil=True, cache=True)
def window_step(ref, ref_ok, r0, c0, size_r, size_c, coef, mov_ok, rows, cols):
    """Displacement left in one window, by robust regression of the moving image on the reference and its gradient.

    ref, ref_ok : band-passed reference tile and its validity; the window is [r0:r0+size_r, c0:c0+size_c] of it
    coef, mov_ok : spline coefficients of the moving tile and its validity
    rows, cols : (size_r, size_c) where the present warp finds each pixel of the window in the moving tile

    Solves moving = a + b reference + c . gradient(reference) by Cauchy-weighted least squares; the content of the
    window is found at (row + ey, col + ex), e = -c / b, in the moving image as the present warp sees it (Lucas and
    Kanade 1981, with the gain and the level of each window free). The gradient is the reference's: taken from the
    resampled image it would pull towards whole pixels, because interpolation smooths noise.

    Returns (12,): ey, ex, variance of ey, of ex, covariance, correlation, pixels used, row and col of the structure's
    centre (window pixels), gain b, reference energy, residual scale. NaN where nothing could be solved.
    """
    out = np.full(12, np.nan)
    n_max = size_r * size_c
    x1 = np.empty(n_max)
    xr = np.empty(n_max)
    xc = np.empty(n_max)
    y = np.empty(n_max)
    at_r = np.empty(n_max)
    at_c = np.empty(n_max)
    n = 0
    n_row, n_col = ref.shape
    m_row, m_col = coef.shape
    wr = np.empty(4)
    wc = np.empty(4)
    for i in range(size_r):
        r = r0 + i
        if r < 2 or r >= n_row - 2:
            continue
        for j in range(size_c):
            c = c0 + j
            if c < 2 or c >= n_col - 2:
                continue
            if not (ref_ok[r, c] and ref_ok[r - 1, c] and ref_ok[r + 1, c] and ref_ok[r, c - 1] and ref_ok[r, c + 1]):
                continue
            if not (ref_ok[r - 2, c] and ref_ok[r + 2, c] and ref_ok[r, c - 2] and ref_ok[r, c + 2]):
                continue
            p = rows[i, j]
            q = cols[i, j]
            if not (p >= 1.0 and q >= 1.0 and p < m_row - 2 and q < m_col - 2):
                continue
            a = int(p)
            b = int(q)
            if not (mov_ok[a, b] and mov_ok[a + 1, b] and mov_ok[a, b + 1] and mov_ok[a + 1, b + 1]):
                continue
            bspline_weights(p - a, wr)
            bspline_weights(q - b, wc)
            total = 0.0
            for k in range(4):
                line = 0.0
                for m in range(4):
                    line += wc[m] * coef[a - 1 + k, b - 1 + m]
                total += wr[k] * line
            y[n] = total
            x1[n] = ref[r, c]
            xr[n] = (8.0 * (ref[r + 1, c] - ref[r - 1, c]) - (ref[r + 2, c] - ref[r - 2, c])) / 12.0
            xc[n] = (8.0 * (ref[r, c + 1] - ref[r, c - 1]) - (ref[r, c + 2] - ref[r, c - 2])) / 12.0
            at_r[n] = i
            at_c[n] = j
            n += 1
    out[6] = n
    if n < 32:
        return out
    weight = np.ones(n)
    normal = np.empty((4, 4))
    right = np.empty(4)
    beta = np.zeros(4)
    scale = 0.0
    for _ in range(4):
        normal[:] = 0.0
        right[:] = 0.0
        for k in range(n):
            w = weight[k]
            row = (1.0, x1[k], xr[k], xc[k])
            for a in range(4):
                right[a] += w * row[a] * y[k]
                for b in range(a + 1):
                    normal[a, b] += w * row[a] * row[b]
        for a in range(4):
            for b in range(a):
                normal[b, a] = normal[a, b]
        if not _well(normal):
            return out
        beta = np.linalg.solve(normal, right)
        scale = 0.0
        for k in range(n):
            e = y[k] - beta[0] - beta[1] * x1[k] - beta[2] * xr[k] - beta[3] * xc[k]
            scale += abs(e)
            weight[k] = e
        scale = 1.2533 * scale / n + 1e-300
        for k in range(n):
            e = weight[k] / (2.385 * scale)
            weight[k] = 1.0 / (1.0 + e * e)
    inverse = np.linalg.inv(normal)
    sw = 0.0
    sy = 0.0
    sx = 0.0
    for k in range(n):
        sw += weight[k]
        sy += weight[k] * y[k]
        sx += weight[k] * x1[k]
    my = sy / sw
    mx = sx / sw
    vy = 0.0
    vx = 0.0
    cxy = 0.0
    se = 0.0
    gr = 0.0
    gc = 0.0
    energy = 0.0
    for k in range(n):
        w = weight[k]
        vy += w * (y[k] - my) ** 2
        vx += w * (x1[k] - mx) ** 2
        cxy += w * (y[k] - my) * (x1[k] - mx)
        e = y[k] - beta[0] - beta[1] * x1[k] - beta[2] * xr[k] - beta[3] * xc[k]
        se += w * e * e
        g = w * (xr[k] ** 2 + xc[k] ** 2)
        energy += g
        gr += g * at_r[k]
        gc += g * at_c[k]
    if vy <= 0.0 or vx <= 0.0 or energy <= 0.0:
        return out
    correlation = cxy / math.sqrt(vy * vx)
    out[5] = correlation
    out[7] = gr / energy
    out[8] = gc / energy
    gain = beta[1]
    out[9] = gain
    out[10] = vx / sw
    out[11] = scale
    if gain <= 0.0:
        return out
    variance = se / sw
    out[0] = -beta[2] / gain
    out[1] = -beta[3] / gain
    out[2] = variance * inverse[2, 2] / gain**2
    out[3] = variance * inverse[3, 3] / gain**2
    out[4] = variance * inverse[2, 3] / gain**2
    return out


@njit(nogil=True, cache=True)
def window_steps(ref, ref_ok, starts, size, coef, mov_ok, rows, cols):
    """`window_step` for windows of one tile: starts (n, 2), rows and cols (n, size, size). Returns (n, 12)."""
    out = np.empty((starts.shape[0], 12))
    for k in range(starts.shape[0]):
        out[k] = window_step(ref, ref_ok, starts[k, 0], starts[k, 1], size, size, coef, mov_ok, rows[k], cols[k])
    return out


@njit(nogil=True, cache=True)
def _well(normal):
    """True where a normal matrix can be solved: by its Cholesky pivots, relative to its diagonal."""
    n = normal.shape[0]
    low = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            s = normal[i, j]
            for k in range(j):
                s -= low[i, k] * low[j, k]
            if i == j:
                if not s > 1e-10 * normal[i, i] or normal[i, i] <= 0.0:
                    return False
                low[i, i] = math.sqrt(s)
            else:
                low[i, j] = s / low[j, j]
    return True


@njit(nogil=True, cache=True)
def orientation_agreements(ref, ref_ok, starts, size, coef, mov_ok, rows, cols):
    """`orientation_agreement` for windows of one tile, as `window_steps`. Returns (n,)."""
    out = np.empty(starts.shape[0])
    for k in range(starts.shape[0]):
        r, c = starts[k]
        out[k] = orientation_agreement(ref, ref_ok, r, c, size, size, coef, mov_ok, rows[k], cols[k])
    return out


@njit(nogil=True, cache=True)
def orientation_agreement(ref, ref_ok, r0, c0, size_r, size_c, coef, mov_ok, rows, cols):
    """How well the gradients of two band-passed images run along the same lines in a window, whatever their sign.

    Arguments as for `window_step`. The mean of cos 2 (angle between the gradients), weighted by the square roots of
    both strengths' product: 1 where all lines agree, 0 by chance. NaN where fewer than 32 pixels are seen in both.
    """
    seen, ok = sample(coef, mov_ok, rows.ravel(), cols.ravel())
    seen = seen.reshape(rows.shape)
    ok = ok.reshape(rows.shape)
    n_row, n_col = ref.shape
    total = 0.0
    weight = 0.0
    n = 0
    for i in range(1, size_r - 1):
        r = r0 + i
        if r < 1 or r >= n_row - 1:
            continue
        for j in range(1, size_c - 1):
            c = c0 + j
            if c < 1 or c >= n_col - 1:
                continue
            if not (ref_ok[r - 1, c] and ref_ok[r + 1, c] and ref_ok[r, c - 1] and ref_ok[r, c + 1]):
                continue
            if not (ok[i - 1, j] and ok[i + 1, j] and ok[i, j - 1] and ok[i, j + 1]):
                continue
            ar = ref[r + 1, c] - ref[r - 1, c]
            ac = ref[r, c + 1] - ref[r, c - 1]
            br = seen[i + 1, j] - seen[i - 1, j]
            bc = seen[i, j + 1] - seen[i, j - 1]
            strength = math.sqrt((ar * ar + ac * ac) * (br * br + bc * bc))
            if strength <= 0.0:
                continue
            cosine = (ar * br + ac * bc) / strength
            w = math.sqrt(strength)
            total += w * (2.0 * cosine * cosine - 1.0)
            weight += w
            n += 1
    if n < 32:
        return np.nan
    return total / weight
