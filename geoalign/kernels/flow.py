"""A displacement field fitted to all pixels at once: Gauss-Newton on cubic B-splines, with its error.

The field is d(row, col) = sum of coefficients times B-splines on a regular grid of nodes, an axis each. Images enter
band-passed; the structure of the reference times a local gain is what the moving image should show.
"""

import math

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter1d

from geoalign.kernels.refine import sample
from geoalign.kernels.spline import bspline_weights

SCORE_PX = 8
"""Side of the blocks whose scores tell how strongly errors of neighbouring pixels hang together."""
PIVOTS = 8
"""Pivots that `cholesky` takes at a time; its innermost line is written for eight."""
CAUCHY = 2.385
"""Residual, in standard deviations, at which a pixel counts half (95 % efficiency at the normal law)."""


def basis(n, first, step, nodes):
    """B-spline weights of pixels 0..n-1 for nodes at first + k * step: (left node (n,), weights (n, 4))."""
    u = (np.arange(n) - first) / step
    left = np.clip(np.floor(u).astype(np.int64) - 1, 0, nodes - 4)
    weights = np.empty((n, 4))
    _weights(u, left, weights)
    return left, weights


@njit(nogil=True, cache=True)
def _weights(u, left, out):
    for k in range(u.size):
        bspline_weights(u[k] - left[k] - 1, out[k])


def dense_basis(left, weights, nodes):
    """The same as a matrix (n, nodes), for products."""
    out = np.zeros((left.size, nodes))
    for k in range(4):
        out[np.arange(left.size), left + k] += weights[:, k]
    return out


@njit(nogil=True, cache=True)
def warped(coef, ok, disp_r, disp_c):
    """Moving image (spline coefficients, validity) at row + disp_r, col + disp_c: (values, valid), (row, col)."""
    n_row, n_col = disp_r.shape
    values = np.zeros((n_row, n_col))
    valid = np.zeros((n_row, n_col), np.bool_)
    rows = np.empty(n_col)
    cols = np.empty(n_col)
    for r in range(n_row):
        for c in range(n_col):
            rows[c] = r + disp_r[r, c]
            cols[c] = c + disp_c[r, c]
        values[r], valid[r] = sample(coef, ok, rows, cols)
    return values, valid


@njit(nogil=True, cache=True)
def slopes(image, ok):
    """Central differences of fourth order, (d/drow, d/dcol), and where they are known."""
    n_row, n_col = image.shape
    by_row = np.zeros((n_row, n_col))
    by_col = np.zeros((n_row, n_col))
    known = np.zeros((n_row, n_col), np.bool_)
    for r in range(2, n_row - 2):
        for c in range(2, n_col - 2):
            if not (ok[r, c] and ok[r - 1, c] and ok[r + 1, c] and ok[r, c - 1] and ok[r, c + 1]):
                continue
            if not (ok[r - 2, c] and ok[r + 2, c] and ok[r, c - 2] and ok[r, c + 2]):
                continue
            known[r, c] = True
            by_row[r, c] = (8.0 * (image[r + 1, c] - image[r - 1, c]) - (image[r + 2, c] - image[r - 2, c])) / 12.0
            by_col[r, c] = (8.0 * (image[r, c + 1] - image[r, c - 1]) - (image[r, c + 2] - image[r, c - 2])) / 12.0
    return by_row, by_col, known


def gain_and_noise(ref, mov, both, spread):
    """Local gain of the moving image on the reference, and the local variance of what the gain leaves over.

    both : (row, col) float 0 or 1, pixels seen in the two; spread : px, of the Gaussian neighbourhood
    """
    part = max(1, int(spread // 4))

    def mean(values):
        return _smooth(np.where(both > 0, values, 0.0), spread, part)

    weight = np.maximum(mean(both), 1e-6)
    rr, rm, mm = mean(ref * ref) / weight, mean(ref * mov) / weight, mean(mov * mov) / weight
    floor = 1e-6 * max(float(rr.max()), 1e-300)
    gain = np.maximum(rm, 0.0) / (rr + floor)
    noise = np.maximum(mm - gain * rm, 0.0)
    return gain, noise


def _smooth(image, spread, part):
    """Gaussian mean; on block means of `part` px where the result varies slowly."""
    n_row, n_col = (-(-n // part) for n in image.shape)
    if part > 1:
        padded = np.zeros((n_row * part, n_col * part))
        padded[: image.shape[0], : image.shape[1]] = image
        image_small = padded.reshape(n_row, part, n_col, part).sum(axis=(1, 3)) / part**2
    else:
        image_small = image
    for axis in (0, 1):
        image_small = gaussian_filter1d(image_small, spread / part, axis, mode="constant", truncate=3)
    if part == 1:
        return image_small
    wide = np.repeat(np.repeat(image_small, part, axis=0), part, axis=1)
    return wide[: image.shape[0], : image.shape[1]]


@njit(nogil=True, cache=True)
def normal_and_score(ref, by_row, by_col, known, mov, seen, gain, noise, turn, left_r, w_r, left_c, w_c, n_r, n_c):
    """Normal matrix and score of one Gauss-Newton step, and what their errors look like.

    gain, noise : (row, col); noise must be above 0. turn : (2, 2), takes the reference's gradient to the moving
    image's frame. left_*, w_* : from `basis`. n_r, n_c : nodes
    Returns (hessian, score, spread, trace): hessian (n_r, n_c, 4, 7, 3) for nodes (i, j) and (i + di, j + dj - 3), of
    the products row x row, row x col, col x col; score (2, n_r, n_c); spread, trace : sum over blocks of SCORE_PX of
    the squared score, and of the squared gradients, both weighted.
    """
    n_row, n_col = ref.shape
    hessian = np.zeros((n_r, n_c, 4, 7, 3))
    score = np.zeros((2, n_r, n_c))
    line_h = np.zeros((n_c, 4, 3))
    line_s = np.zeros((2, n_c))
    n_block = n_col // SCORE_PX + 1
    block = np.zeros((n_block, 2))
    spread = 0.0
    trace = 0.0
    for r in range(n_row):
        line_h[:] = 0.0
        line_s[:] = 0.0
        if r % SCORE_PX == 0:
            for k in range(n_block):
                spread += block[k, 0] ** 2 + block[k, 1] ** 2
            block[:] = 0.0
        for c in range(n_col):
            if not (known[r, c] and seen[r, c]):
                continue
            g = gain[r, c]
            e = mov[r, c] - g * ref[r, c]
            weight = 1.0 / (noise[r, c] + e * e / (CAUCHY * CAUCHY))
            jr = g * (turn[0, 0] * by_row[r, c] + turn[0, 1] * by_col[r, c])
            jc = g * (turn[1, 0] * by_row[r, c] + turn[1, 1] * by_col[r, c])
            sr = weight * jr * e
            sc = weight * jc * e
            block[c // SCORE_PX, 0] += sr
            block[c // SCORE_PX, 1] += sc
            hrr = weight * jr * jr
            hrc = weight * jr * jc
            hcc = weight * jc * jc
            trace += hrr + hcc
            first = left_c[c]
            for a in range(4):
                wa = w_c[c, a]
                line_s[0, first + a] += wa * sr
                line_s[1, first + a] += wa * sc
                for b in range(a, 4):
                    w = wa * w_c[c, b]
                    line_h[first + a, b - a, 0] += w * hrr
                    line_h[first + a, b - a, 1] += w * hrc
                    line_h[first + a, b - a, 2] += w * hcc
        first = left_r[r]
        for a in range(4):
            wa = w_r[r, a]
            for j in range(n_c):
                score[0, first + a, j] += wa * line_s[0, j]
                score[1, first + a, j] += wa * line_s[1, j]
            for b in range(a, 4):
                w = wa * w_r[r, b]
                for j in range(n_c):
                    for d in range(4):
                        for k in range(3):
                            value = w * line_h[j, d, k]
                            hessian[first + a, j, b - a, 3 + d, k] += value
                            if d and b > a and j + d < n_c:
                                hessian[first + a, j + d, b - a, 3 - d, k] += value
    for k in range(n_block):
        spread += block[k, 0] ** 2 + block[k, 1] ** 2
    return hessian, score, spread, trace


@njit(nogil=True, cache=True)
def banded(hessian, scale):
    """The normal matrix times `scale` as (unknown, offset): element [p, k] couples unknowns p and p + k.

    Unknowns are ordered (row node, col node, axis).
    """
    n_r, n_c = hessian.shape[:2]
    half = 2 * (3 * n_c + 3) + 2
    out = np.zeros((2 * n_r * n_c, half))
    for i in range(n_r):
        for j in range(n_c):
            p = 2 * (i * n_c + j)
            for di in range(4):
                if i + di >= n_r:
                    continue
                for dj in range(-3, 4):
                    if j + dj < 0 or j + dj >= n_c or (di == 0 and dj < 0):
                        continue
                    q = 2 * ((i + di) * n_c + j + dj)
                    h = hessian[i, j, di, 3 + dj]
                    out[p, q - p] += scale * h[0]
                    out[p + 1, q - p] += scale * h[2]
                    out[p, q + 1 - p] += scale * h[1]
                    if q > p:
                        out[p + 1, q - p - 1] += scale * h[1]
    return out


def bending(n_r, n_c, order=3):
    """Quadratic form of the differences of the coefficients of an order (2 or 3), as `hessian` holds it.

    The integral over the image of the squared derivatives of that order, all mixed ones with their binomial weight, so
    that it does not depend on the direction of the axes.
    """
    forms = []
    for n in (n_r, n_c):
        steps = [np.diff(np.eye(n), k, axis=0) for k in range(order + 1)]
        forms.append([d.T @ d for d in steps])
    out = np.zeros((n_r, n_c, 4, 7, 3))
    for k in range(order + 1):
        p, q = math.comb(order, k) * forms[0][order - k], forms[1][k]
        for di in range(4):
            for dj in range(-3, 4):
                a = np.array([p[i, i + di] if i + di < n_r else 0.0 for i in range(n_r)])
                b = np.array([q[j, j + dj] if 0 <= j + dj < n_c else 0.0 for j in range(n_c)])
                out[:, :, di, 3 + dj, 0] += np.outer(a, b)
    out[..., 2] = out[..., 0]
    return out


@njit(nogil=True, cache=True)
def product(matrix, x):
    """A symmetric matrix as `banded` gives it, times a vector."""
    n, half = matrix.shape
    out = np.zeros(n)
    for p in range(n):
        out[p] += matrix[p, 0] * x[p]
        for k in range(1, min(half, n - p)):
            out[p] += matrix[p, k] * x[p + k]
            out[p + k] += matrix[p, k] * x[p]
    return out


@njit(nogil=True, cache=True)
def cholesky(matrix):
    """Cholesky factor in the same layout: [p, k] is element (p + k, p) of the lower triangle; zeros beyond the band.

    In plain loops: a threaded library gives other bits with other numbers of threads, and spins where cores are shared.
    Eight pivots at a time, so that what remains is read and written an eighth as often.
    """
    n, half = matrix.shape
    out = np.zeros((n, half + PIVOTS))
    out[:, :half] = matrix
    panel = np.zeros((PIVOTS, half + 2 * PIVOTS))
    for p0 in range(0, n, PIVOTS):
        here = min(PIVOTS, n - p0)
        panel[:] = 0.0
        for t in range(here):
            line = out[p0 + t]
            for s in range(t):
                value = panel[s, t]
                for k in range(half + PIVOTS - t):
                    line[k] -= value * panel[s, t + k]
            pivot = math.sqrt(max(line[0], 1e-300))
            for k in range(half):
                line[k] /= pivot
                panel[t, t + k] = line[k]
        for m in range(PIVOTS, min(half + PIVOTS - 1, n - p0)):
            line = out[p0 + m, : half + PIVOTS - m]
            a, b, c, d = panel[0, m:], panel[1, m:], panel[2, m:], panel[3, m:]
            e, f, g, h = panel[4, m:], panel[5, m:], panel[6, m:], panel[7, m:]
            va, vb, vc, vd, ve, vf, vg, vh = a[0], b[0], c[0], d[0], e[0], f[0], g[0], h[0]
            for k in range(line.size):
                first = (va * a[k] + vb * b[k]) + (vc * c[k] + vd * d[k])
                line[k] -= first + ((ve * e[k] + vf * f[k]) + (vg * g[k] + vh * h[k]))
    return out


@njit(nogil=True, cache=True)
def solve(factor, right):
    """Solution of the system whose Cholesky factor is given."""
    return _back(factor, _forward(factor, right))


@njit(nogil=True, cache=True)
def _forward(factor, right):
    n, half = factor.shape
    x = right.copy()
    for p in range(n):
        x[p] /= factor[p, 0]
        for k in range(1, min(half, n - p)):
            x[p + k] -= factor[p, k] * x[p]
    return x


@njit(nogil=True, cache=True)
def _back(factor, right):
    n, half = factor.shape
    x = right.copy()
    for p in range(n - 1, -1, -1):
        total = x[p]
        for k in range(1, min(half, n - p)):
            total -= factor[p, k] * x[p + k]
        x[p] = total / factor[p, 0]
    return x


def evidence(information, bend_matrix, target, bend, rank):
    """(-2 ln evidence of a stiffness up to a constant, the solution, the Cholesky factor).

    information : data information (inverse variance, px^-2) as `banded` gives it; bend_matrix : bending form; target :
    information times the coefficients that the data alone would have; bend : px, standard deviation of a difference of
    the form's order; rank : of the bending form
    """
    matrix = information + bend_matrix / bend**2
    matrix[:, 0] += 1e-9 * max(float(matrix[:, 0].mean()), 1e-300)
    factor = cholesky(matrix)
    solution = solve(factor, target)
    return 2 * np.log(factor[:, 0]).sum() + 2 * rank * math.log(bend) - float(target @ solution), solution, factor


def posterior_draws(factor, n, seed):
    """n draws from the error of the solution, (n, unknowns), from the Cholesky factor of the information."""
    z = np.random.default_rng(seed).normal(size=(n, factor.shape[0]))
    return _back_all(factor, np.ascontiguousarray(z.T)).T


@njit(nogil=True, cache=True)
def _back_all(factor, right):
    """`_back` for many right sides at once, (unknown, side): the factor is read once."""
    n, half = factor.shape
    x = right.copy()
    for p in range(n - 1, -1, -1):
        own = x[p]
        for k in range(1, min(half, n - p)):
            value, other = factor[p, k], x[p + k]
            for i in range(own.size):
                own[i] -= value * other[i]
        for i in range(own.size):
            own[i] /= factor[p, 0]
    return x
