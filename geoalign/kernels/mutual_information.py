"""Mutual information of two images under an affine, its gradient and what it knows, all in one pass over the samples.

One image, the lattice, is taken at its own pixels; the other is interpolated by a cubic spline where the affine leads
them. The joint histogram has linear windows on the lattice image and cubic B-spline (Parzen) windows on the
interpolated one, so that mutual information has a derivative everywhere (Thevenaz and Unser 2000,
doi:10.1109/83.887976; Mattes et al. 2003, doi:10.1109/TMI.2003.809072).

With L[i, j] = log(p[i, j] / p[j]) the gradient of mutual information is the mean over the samples of
d/dr L(m, r) . grad r . d(position): the score of the likelihood p(m | r). Its mean square, given r, is what a sample
tells about its own displacement, so that steps of a Newton kind and error covariances come with it.
"""

import math

import numpy as np
from numba import njit
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import binary_erosion, correlate1d, spline_filter

from geoalign.kernels.spline import bspline_slopes, bspline_weights


def smoothed(image, sigma):
    """Gaussian mean over the observed pixels. image : (row, col), NaN = not observed; sigma : px. NaN stays NaN."""
    if sigma <= 0:
        return np.asarray(image, np.float64)
    seen = np.isfinite(image)
    low, weight = _gauss(np.where(seen, image, 0.0), sigma), _gauss(seen.astype(np.float64), sigma)
    return np.where(seen, low / np.maximum(weight, 1e-6), np.nan)


def _gauss(image, sigma):
    half = max(1, math.ceil(3.5 * sigma))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    taps /= taps.sum()
    return correlate1d(correlate1d(image, taps, 0, mode="constant"), taps, 1, mode="constant")


def bin_range(values, bins):
    """Low end and width of the bins of an interpolated image: what holds nearly all values, speckle's tails apart.

    values : 1-D, finite. Returns (low, width); bin k of a value v is (v - low) / width, with a margin of two bins for
    the Parzen windows on either side. The width is 0 where the values do not vary.
    """
    low, a, middle, b, high = np.quantile(values, (0.002, 0.16, 0.5, 0.84, 0.998))
    spread = 0.5 * (b - a)
    if spread > 0:
        low, high = max(low, middle - 6 * spread), min(high, middle + 6 * spread)
    width = (high - low) / (bins - 5)
    return float(low - 2 * width), float(width)


def ranks(values, bins):
    """Bin of each value of the lattice image, 0..bins - 1, continuous: bins hold equal numbers of pixels.

    values : 1-D, finite.
    """
    knots = np.quantile(values, np.linspace(0, 1, bins))
    step = np.concatenate([[True], np.diff(knots) > 0])
    return np.interp(values, knots[step], np.arange(bins)[step]).astype(np.float32)


def spline_image(image, low, high, sigma=0.0):
    """Cubic spline of an image with gaps, and where it can be believed.

    image : (row, col), NaN = not observed; low, high : values are clipped to these, lest a spike rings around itself
    sigma : px it was smoothed by; near edges and gaps such means lean to one side
    Returns (coefficients, ok): a pixel is ok where what its value rests on was observed.
    """
    seen = np.isfinite(image)
    filled = np.clip(image, low, high)
    whole = seen.all()
    if not whole:
        around, weight = _gauss(np.where(seen, filled, 0.0), 2.0), _gauss(seen.astype(np.float64), 2.0)
        middle = filled[seen].mean() if seen.any() else 0.0
        filled = np.where(seen, filled, (around + 1e-3 * middle) / (weight + 1e-3))
    if not whole or sigma > 0:
        reach = math.ceil(2 * sigma) + (0 if whole else 2)
        seen = binary_erosion(seen, np.ones((3, 3), bool), reach, border_value=sigma == 0)
    return spline_filter(filled.astype(np.float64), order=3, mode="mirror"), seen


@njit(nogil=True, cache=True)
def interpolate(coef, ok, top, left, rows, cols, matrix, out):
    """Value and gradient of the interpolated image where the affine leads the samples.

    coef, ok : (row, col) of a tile whose first pixel is (top, left); rows, cols : (n,) lattice pixels
    matrix : (2, 3); out : (n, 3) filled with value, d/drow, d/dcol; NaN where it was not observed
    """
    n_row, n_col = coef.shape
    wr = np.empty(4)
    wc = np.empty(4)
    sr = np.empty(4)
    sc = np.empty(4)
    for n in range(rows.size):
        p = matrix[0, 0] * rows[n] + matrix[0, 1] * cols[n] + matrix[0, 2] - top
        q = matrix[1, 0] * rows[n] + matrix[1, 1] * cols[n] + matrix[1, 2] - left
        out[n, 0] = np.nan
        if not (p >= 0.0 and q >= 0.0 and p <= n_row - 1 and q <= n_col - 1):
            continue
        a = min(int(p), n_row - 2)
        b = min(int(q), n_col - 2)
        if not (ok[a, b] and ok[a + 1, b] and ok[a, b + 1] and ok[a + 1, b + 1]):
            continue
        bspline_weights(p - a, wr)
        bspline_weights(q - b, wc)
        bspline_slopes(p - a, sr)
        bspline_slopes(q - b, sc)
        value = 0.0
        by_row = 0.0
        by_col = 0.0
        for k in range(4):
            i = a - 1 + k
            # the spline was filtered with mirrored edges
            if i < 0:
                i = -i
            elif i >= n_row:
                i = 2 * n_row - 2 - i
            line = 0.0
            slope = 0.0
            for m in range(4):
                j = b - 1 + m
                if j < 0:
                    j = -j
                elif j >= n_col:
                    j = 2 * n_col - 2 - j
                c = coef[i, j]
                line += wc[m] * c
                slope += sc[m] * c
            value += wr[k] * line
            by_row += sr[k] * line
            by_col += wr[k] * slope
        out[n, 0] = value
        out[n, 1] = by_row
        out[n, 2] = by_col


@njit(nogil=True, cache=True)
def joint_histogram(level, samples, low, width, bins_m, bins_r):
    """Joint histogram (bins_m, bins_r) of the samples observed in both images, as probabilities, and their number.

    level : (n,) bin of the lattice image, continuous; samples : (n, 3) as `interpolate` fills it
    """
    table = np.zeros((bins_m, bins_r))
    w = np.empty(4)
    count = 0
    for n in range(level.size):
        v = samples[n, 0]
        if math.isnan(v):
            continue
        t = min(max((v - low) / width, 2.0), bins_r - 3.0)
        b = int(t)
        bspline_weights(t - b, w)
        i = min(int(level[n]), bins_m - 2)
        f = level[n] - i
        for k in range(4):
            table[i, b - 1 + k] += (1.0 - f) * w[k]
            table[i + 1, b - 1 + k] += f * w[k]
        count += 1
    return table / max(count, 1), count


@njit(nogil=True, cache=True)
def tables(joint):
    """(information in nats, log p(m | r) (bins_m, bins_r), expected squared score by r (4 bins_r,)) of a histogram."""
    bins_m, bins_r = joint.shape
    pm = np.zeros(bins_m)
    pr = np.zeros(bins_r)
    for i in range(bins_m):
        for j in range(bins_r):
            pm[i] += joint[i, j]
            pr[j] += joint[i, j]
    logs = np.zeros((bins_m, bins_r))
    information = 0.0
    for i in range(bins_m):
        for j in range(bins_r):
            p = joint[i, j]
            if p > 0.0:
                logs[i, j] = math.log(p / pr[j])
                information += p * (logs[i, j] - math.log(pm[i]))
    expected = np.zeros(4 * bins_r)
    w = np.empty(4)
    s = np.empty(4)
    for k in range(8, 4 * (bins_r - 3)):
        t = k / 4.0
        b = int(t)
        bspline_weights(t - b, w)
        bspline_slopes(t - b, s)
        mass = 0.0
        total = 0.0
        for i in range(bins_m):
            p = 0.0
            g = 0.0
            for j in range(4):
                p += w[j] * joint[i, b - 1 + j]
                g += s[j] * logs[i, b - 1 + j]
            mass += p
            total += p * g * g
        expected[k] = total / mass if mass > 0.0 else 0.0
    return information, logs, expected


@njit(nogil=True, cache=True)
def scores(level, samples, rows, cols, block, n_block, logs, expected, low, width, centre, size):
    """Gradient and curvature of the summed information by the six numbers of an affine, whole and by blocks.

    rows, cols : (n,) lattice pixels; block : (n,) number of the block a sample lies in
    logs, expected : from `tables`; centre (2,), size : the affine acts on ((row, col) - centre) / size, so that each of
    its six numbers moves a corner by about one pixel
    The score is taken about its mean given r, which is zero but for the width of the windows: what is left of it would
    sum to a pull of the image's edges.
    Returns (gradient (n_block, 6), curvature (6, 6), local (n_block, 8)): of each block the score by (row, col), its
    curvature (rr, rc, cc), the same times where it lies ((rr + cc) row, (rr + cc) col), and the samples used. All sums.
    """
    bins_r = logs.shape[1]
    score = np.zeros(level.size)
    slope = np.empty(4)
    mass = np.zeros(4 * bins_r)
    mean = np.zeros(4 * bins_r)
    for n in range(level.size):
        v = samples[n, 0]
        if math.isnan(v):
            continue
        t = (v - low) / width
        if t <= 2.0 or t >= bins_r - 3.0:
            continue
        b = int(t)
        bspline_slopes(t - b, slope)
        i = min(int(level[n]), logs.shape[0] - 2)
        f = level[n] - i
        g = 0.0
        for j in range(4):
            g += slope[j] * ((1.0 - f) * logs[i, b - 1 + j] + f * logs[i + 1, b - 1 + j])
        score[n] = g
        q = 4.0 * t
        c = int(q)
        mass[c] += c + 1.0 - q
        mean[c] += (c + 1.0 - q) * g
        mass[c + 1] += q - c
        mean[c + 1] += (q - c) * g
    for c in range(4 * bins_r):
        if mass[c] > 0.0:
            mean[c] /= mass[c]
    gradient = np.zeros((n_block, 6))
    curvature = np.zeros((6, 6))
    local = np.zeros((n_block, 8))
    x = np.empty(3)
    x[2] = 1.0
    pairs = np.zeros((3, 3, 3))
    for n in range(level.size):
        v = samples[n, 0]
        if math.isnan(v):
            continue
        k = block[n]
        local[k, 7] += 1.0
        t = (v - low) / width
        if t <= 2.0 or t >= bins_r - 3.0:
            continue
        q = 4.0 * t
        c = int(q)
        g = score[n] - mean[c] - (q - c) * (mean[c + 1] - mean[c])
        e = expected[c] + (q - c) * (expected[c + 1] - expected[c])
        by_row = samples[n, 1] / width
        by_col = samples[n, 2] / width
        x[0] = (rows[n] - centre[0]) / size
        x[1] = (cols[n] - centre[1]) / size
        for a in range(3):
            gradient[k, a] += g * by_row * x[a]
            gradient[k, 3 + a] += g * by_col * x[a]
        rr = e * by_row * by_row
        rc = e * by_row * by_col
        cc = e * by_col * by_col
        for a in range(3):
            for d in range(a + 1):
                xx = x[a] * x[d]
                pairs[0, a, d] += rr * xx
                pairs[1, a, d] += rc * xx
                pairs[2, a, d] += cc * xx
        local[k, 0] += g * by_row
        local[k, 1] += g * by_col
        local[k, 2] += rr
        local[k, 3] += rc
        local[k, 4] += cc
        local[k, 5] += (rr + cc) * rows[n]
        local[k, 6] += (rr + cc) * cols[n]
    for a in range(3):
        for d in range(3):
            i, j = max(a, d), min(a, d)
            curvature[a, d] = pairs[0, i, j]
            curvature[a, 3 + d] = pairs[1, i, j]
            curvature[3 + a, d] = pairs[1, i, j]
            curvature[3 + a, 3 + d] = pairs[2, i, j]
    return gradient, curvature, local


@njit(nogil=True, cache=True)
def by_block(level, samples, block, n_block, joint, low, width):
    """Information (nats, summed over the samples) that each block contributes, and its samples: two (n_block,)."""
    bins_m, bins_r = joint.shape
    pm = np.zeros(bins_m)
    pr = np.zeros(bins_r)
    for i in range(bins_m):
        for j in range(bins_r):
            pm[i] += joint[i, j]
            pr[j] += joint[i, j]
    total = np.zeros(n_block)
    count = np.zeros(n_block)
    for n in range(level.size):
        v = samples[n, 0]
        if math.isnan(v):
            continue
        j = int(min(max((v - low) / width, 2.0), bins_r - 3.0) + 0.5)
        i = int(level[n] + 0.5)
        if joint[i, j] > 0.0:
            total[block[n]] += math.log(joint[i, j] / (pm[i] * pr[j]))
        count[block[n]] += 1.0
    return total, count


def scatter(gradient, grid, cells):
    """Covariance of the sum of scores that neighbour each other, from their scatter.

    gradient : (row * col, k) sums over the cells of a grid (row, col); cells : cells along an axis within which scores
        may depend on each other
    Returns (k, k): the mean square of sums under a tent that slides over the grid, scaled to what the whole sum would
    have (a spatial form of Newey and West 1987, doi:10.2307/1913610). Sums with sharp borders would count what crosses
    a border twice, though it cancels in the whole.
    """
    tent = np.concatenate([np.arange(1, cells + 1), np.arange(cells - 1, 0, -1)]) / cells
    field = np.pad(gradient.reshape(*grid, -1), ((cells - 1,) * 2, (cells - 1,) * 2, (0, 0)))
    sums = correlate1d(correlate1d(field, tent, 0, mode="constant"), tent, 1, mode="constant")
    sums = sums.reshape(-1, gradient.shape[1])
    return sums.T @ sums / (tent**2).sum() ** 2


def class_image(image, bins):
    """Each pixel's bin of equally many pixels, 0..bins - 1; -1 where not observed. image : (row, col)."""
    seen = np.isfinite(image)
    out = np.full(image.shape, -1, np.int16)
    if seen.any():
        edges = np.quantile(image[seen], np.linspace(0, 1, bins + 1)[1:-1])
        out[seen] = np.searchsorted(edges, image[seen], side="right")
    return out


def information_surface(reference, moving, bins, reach, overlap=0.3):
    """Mutual information of two images of classes at all whole-pixel lags, by Fourier transforms of the classes.

    reference, moving : (row, col) int, classes 0..bins - 1, -1 = not observed; reach : lags run from -reach to reach
    overlap : lags where fewer than this part of the most that are shared are 0
    Returns (2 reach + 1, 2 reach + 1): information times the number of shared pixels, nats. A peak at (reach + dy,
    reach + dx) says that reference pixel (row, col) is found at (row + dy, col + dx).
    """
    shape = tuple(next_fast_len(max(a, b) + reach + 1, real=True) for a, b in zip(reference.shape, moving.shape))
    lags = np.arange(-reach, reach + 1)
    rows, cols = lags % shape[0], lags % shape[1]
    ref = [np.conj(rfft2((reference == k).astype(np.float32), shape)) for k in range(bins)]
    mov = [rfft2((moving == k).astype(np.float32), shape) for k in range(bins)]
    side = 2 * reach + 1
    by_ref, by_mov = np.zeros((bins, side, side)), np.zeros((bins, side, side))
    total = np.zeros((side, side))
    for i in range(bins):
        for j in range(bins):
            count = np.maximum(irfft2(ref[i] * mov[j], shape)[rows[:, None], cols[None, :]], 0.0)
            by_ref[i] += count
            by_mov[j] += count
            total += _x_log_x(count)
    shared = by_ref.sum(axis=0)
    total += _x_log_x(shared) - _x_log_x(by_ref).sum(axis=0) - _x_log_x(by_mov).sum(axis=0)
    return np.where(shared >= max(overlap * shared.max(), 64.0), total, 0.0)


def _x_log_x(count):
    return count * np.log(np.maximum(count, 1e-6))
