"""Resampling at any coordinates, NaN-aware: nearest, bilinear, cubic, bspline, lanczos.

The rule at the edge of what was observed: an output pixel has a value exactly where the source pixel nearest to it
has one, so edges are neither eaten nor bled. Where the whole footprint was observed the full kernel is used, else the
next smaller one (lanczos, bspline -> cubic -> bilinear over the observed neighbours). Neighbours of weight zero are
skipped: 0 * NaN is NaN and would draw seams.
"""

import math

import numpy as np
from numba import njit

from geoalign.kernels.spline import bspline_weights

KINDS = ("nearest", "bilinear", "cubic", "bspline", "lanczos")
HALO = {"nearest": 1, "bilinear": 2, "cubic": 3, "bspline": 17, "lanczos": 4}
"""Source pixels needed around a coordinate, before any widening for a coarser target."""

_FIR_HALF = 13  # 0.268 ** 13 is 4e-8: below the last bit of float32


def _fir():
    z = math.sqrt(3.0) - 2.0
    taps = z ** np.abs(np.arange(-_FIR_HALF, _FIR_HALF + 1)).astype(np.float64)
    return taps / taps.sum()


_TAPS = _fir()


def resample(image, rows, cols, kind="cubic", *, row0=0, col0=0, scale=(1.0, 1.0)):
    """Values of `image` at (rows, cols).

    image : (row, col) float32, NaN = not observed; a window whose first pixel is (row0, col0) of the whole image
    rows, cols : float64 of one 2-D shape, coordinates in the whole image, pixel centres at integers
    kind : one of KINDS. cubic is Keys' (1981) with a = -1/2; bspline interpolates (prefiltered by a finite filter, so
        that every window gives the same bits); lanczos has three lobes
    scale : source pixels an output pixel spans, (row, col); above 1 the kernel is widened so that nothing aliases
    Returns float32 of the shape of rows.
    """
    image = np.ascontiguousarray(image, np.float32)
    rows = np.ascontiguousarray(rows, np.float64)
    cols = np.ascontiguousarray(cols, np.float64)
    code = KINDS.index(kind)
    if image.size == 0:
        return np.full(rows.shape, np.nan, np.float32)
    if code and max(scale) > 1.05:
        return _widened(image, rows, cols, row0, col0, max(1.0, scale[0]), max(1.0, scale[1]))
    coefficients = _prefilter(image, _TAPS) if kind == "bspline" else image
    return _sample(image, coefficients, rows, cols, code, row0, col0)


def noise_gain(kind, dy, dx):
    """Variance of a resampled pixel over the variance of a source pixel with white noise, at a shift of (dy, dx) px.

    ENL after resampling is ENL / noise_gain for speckle that was uncorrelated from pixel to pixel.
    """
    if kind == "nearest":
        return 1.0
    gain = 1.0
    for shift in (dy, dx):
        t = shift - math.floor(shift)
        if kind == "bspline":
            w = np.zeros(4)
            _kernel_weights(3, t, w)
            line = np.convolve(np.asarray(w), _TAPS)
        else:
            line = np.zeros(6)
            _kernel_weights(KINDS.index(kind), t, line)
        gain *= float((line**2).sum())
    return gain


@njit(nogil=True, cache=True)
def _kernel_weights(code, t, out):
    """Weights of the kernel at fraction t in [0, 1); returns how many and stores them from the leftmost pixel on."""
    if code == 1:
        out[0] = 1.0 - t
        out[1] = t
        return 2
    if code == 2:
        a = -0.5
        s = 1.0 - t
        out[0] = a * t * s * s
        out[1] = 1.0 + t * t * ((a + 2.0) * t - (a + 3.0))
        out[2] = 1.0 + s * s * ((a + 2.0) * s - (a + 3.0))
        out[3] = a * s * t * t
        return 4
    if code == 3:
        bspline_weights(t, out)
        return 4
    if t < 1e-12 or t > 1.0 - 1e-12:
        for k in range(6):
            out[k] = 0.0
        out[2 if t < 0.5 else 3] = 1.0
        return 6
    # the sines of all six distances from three: pixels are a whole number of half waves, or of thirds of them, apart
    whole = 3.0 * math.sin(math.pi * t) / (math.pi * math.pi)
    third = math.sin(math.pi * t / 3.0)
    cosine = math.cos(math.pi * t / 3.0)
    root = 0.8660254037844386
    total = 0.0
    for k in range(6):
        m = k - 2
        d = t - m
        near = 1.0 if m == 0 else (0.5 if abs(m) == 1 else (-0.5 if abs(m) == 2 else -1.0))
        across = 0.0 if m == 0 or m == 3 else (root if m > 0 else -root)
        value = whole * (third * near - cosine * across) / (d * d)
        out[k] = value if m % 2 == 0 else -value
        total += out[k]
    for k in range(6):
        out[k] /= total
    return 6


@njit(nogil=True, cache=True)
def _apply(values, i, j, wr, n_wr, wc, n_wc):
    """Weighted sum over the footprint whose first pixel is (i, j); NaN where any pixel of weight is not observed."""
    n_row, n_col = values.shape
    total = 0.0
    low = np.inf
    # between the pixels no weight is zero: nothing needs to be asked but at the end whether a NaN came in
    if wr[0] != 0.0 and wc[0] != 0.0:
        if i < 0 or j < 0 or i + n_wr > n_row or j + n_wc > n_col:
            return np.nan
        for a in range(n_wr):
            line = 0.0
            for b in range(n_wc):
                v = values[i + a, j + b]
                line += wc[b] * v
                low = min(low, v)
            total += wr[a] * line
        if total <= 0.0 and low > 0.0:
            total = low
        return total
    for a in range(n_wr):
        if wr[a] == 0.0:
            continue
        r = i + a
        if r < 0 or r >= n_row:
            return np.nan
        for b in range(n_wc):
            if wc[b] == 0.0:
                continue
            c = j + b
            if c < 0 or c >= n_col:
                return np.nan
            v = values[r, c]
            if math.isnan(v):
                return np.nan
            total += wr[a] * wc[b] * v
            if v < low:
                low = v
    # power and reflectance do not ring below zero: where everything used was positive, so is the answer
    if total <= 0.0 and low > 0.0:
        total = low
    return total


@njit(nogil=True, cache=True)
def _sample(image, coefficients, rows, cols, code, row0, col0):
    n_row, n_col = image.shape
    out = np.empty(rows.shape, np.float32)
    wr = np.empty(6)
    wc = np.empty(6)
    for p in range(rows.shape[0]):
        for q in range(rows.shape[1]):
            r = rows[p, q]
            c = cols[p, q]
            out[p, q] = np.nan
            if not (math.isfinite(r) and math.isfinite(c)):
                continue
            fr = math.floor(r)
            fc = math.floor(c)
            t = r - fr
            u = c - fc
            i = int(fr) - row0
            j = int(fc) - col0
            ni = i + 1 if t >= 0.5 else i
            nj = j + 1 if u >= 0.5 else j
            if ni < 0 or nj < 0 or ni >= n_row or nj >= n_col or math.isnan(image[ni, nj]):
                continue
            if code == 0:
                out[p, q] = image[ni, nj]
                continue
            value = np.nan
            if code == 3:
                if t == 0.0 and u == 0.0:
                    value = image[i, j]
                else:
                    _kernel_weights(3, t, wr)
                    _kernel_weights(3, u, wc)
                    value = _spline(coefficients, image, i, j, wr, wc)
            elif code == 4:
                _kernel_weights(4, t, wr)
                _kernel_weights(4, u, wc)
                value = _apply(image, i - 2, j - 2, wr, 6, wc, 6)
            if math.isnan(value) and code != 1:
                _kernel_weights(2, t, wr)
                _kernel_weights(2, u, wc)
                value = _apply(image, i - 1, j - 1, wr, 4, wc, 4)
            if math.isnan(value):
                value = _partial_bilinear(image, i, j, t, u)
            out[p, q] = value
    return out


@njit(nogil=True, cache=True)
def _spline(coefficients, image, i, j, wr, wc):
    n_row, n_col = image.shape
    total = 0.0
    low = np.inf
    for a in range(4):
        r = i - 1 + a
        if r < 0 or r >= n_row:
            return np.nan
        for b in range(4):
            c = j - 1 + b
            if c < 0 or c >= n_col or math.isnan(coefficients[r, c]):
                return np.nan
            total += wr[a] * wc[b] * coefficients[r, c]
            if image[r, c] < low:
                low = image[r, c]
    if total <= 0.0 and low > 0.0:
        total = low
    return total


@njit(nogil=True, cache=True)
def _partial_bilinear(image, i, j, t, u):
    n_row, n_col = image.shape
    total = 0.0
    weight = 0.0
    for a in range(2):
        wa = t if a else 1.0 - t
        r = i + a
        if wa == 0.0 or r < 0 or r >= n_row:
            continue
        for b in range(2):
            wb = u if b else 1.0 - u
            c = j + b
            if wb == 0.0 or c < 0 or c >= n_col or math.isnan(image[r, c]):
                continue
            total += wa * wb * image[r, c]
            weight += wa * wb
    return total / weight


@njit(nogil=True, cache=True)
def _prefilter(image, taps):
    """B-spline coefficients by a finite separable filter; NaN where its support holds a missing pixel."""
    n_row, n_col = image.shape
    half = taps.size // 2
    first = np.full(image.shape, np.nan)
    for r in range(n_row):
        for c in range(half, n_col - half):
            total = 0.0
            for k in range(-half, half + 1):
                total += taps[k + half] * image[r, c + k]
            first[r, c] = total
    out = np.full(image.shape, np.nan)
    for r in range(half, n_row - half):
        for c in range(n_col):
            total = 0.0
            for k in range(-half, half + 1):
                total += taps[k + half] * first[r + k, c]
            out[r, c] = total
    return out


@njit(nogil=True, cache=True)
def _widened(image, rows, cols, row0, col0, scale_row, scale_col):
    """Tent of half-width `scale` source pixels over the observed ones; valid where half of the weight was observed."""
    n_row, n_col = image.shape
    out = np.empty(rows.shape, np.float32)
    for p in range(rows.shape[0]):
        for q in range(rows.shape[1]):
            r = rows[p, q]
            c = cols[p, q]
            out[p, q] = np.nan
            if not (math.isfinite(r) and math.isfinite(c)):
                continue
            total = 0.0
            seen = 0.0
            weight = 0.0
            for gi in range(int(math.ceil(r - scale_row)), int(math.floor(r + scale_row)) + 1):
                wa = 1.0 - abs(gi - r) / scale_row
                if wa <= 0.0:
                    continue
                i = gi - row0
                for gj in range(int(math.ceil(c - scale_col)), int(math.floor(c + scale_col)) + 1):
                    w = wa * (1.0 - abs(gj - c) / scale_col)
                    if w <= 0.0:
                        continue
                    weight += w
                    j = gj - col0
                    if i < 0 or j < 0 or i >= n_row or j >= n_col:
                        continue
                    v = image[i, j]
                    if not math.isnan(v):
                        total += w * v
                        seen += w
            if weight > 0.0 and seen >= 0.5 * weight:
                out[p, q] = total / seen
    return out


@njit(nogil=True, cache=True)
def lattice_eval(node_rows, node_cols, rows, cols, step, i0, j0):
    """Local cubic (four-point Lagrange) interpolation of two node grids, pointwise so that blocks cannot matter.

    node_rows, node_cols : (i, j) values at ((i0 + i) * step, (j0 + j) * step); rows, cols : any shape, float64
    """
    out_r = np.empty(rows.size)
    out_c = np.empty(rows.size)
    fr = rows.ravel()
    fc = cols.ravel()
    wi = np.empty(4)
    wj = np.empty(4)
    for p in range(fr.size):
        u = fr[p] / step
        v = fc[p] / step
        bi = math.floor(u)
        bj = math.floor(v)
        _lagrange(u - bi, wi)
        _lagrange(v - bj, wj)
        a = 0.0
        b = 0.0
        for k in range(4):
            for m in range(4):
                w = wi[k] * wj[m]
                a += w * node_rows[int(bi) - i0 - 1 + k, int(bj) - j0 - 1 + m]
                b += w * node_cols[int(bi) - i0 - 1 + k, int(bj) - j0 - 1 + m]
        out_r[p] = a
        out_c[p] = b
    return out_r.reshape(rows.shape), out_c.reshape(rows.shape)


@njit(nogil=True, cache=True)
def _lagrange(t, out):
    out[0] = -t * (t - 1.0) * (t - 2.0) / 6.0
    out[1] = (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0
    out[2] = -(t + 1.0) * t * (t - 2.0) / 2.0
    out[3] = (t + 1.0) * t * (t - 1.0) / 6.0
