"""Enhanced correlation of two masked images: moments of blocks under a warp, and the step that raises the correlation.

A warp is a 3 x 3 matrix here, reference (row, col, 1) -> moving. A step q turns it by `matrix @ moved(q)`, so that the
reference, its gradient and its mask are looked at once and where they are; of the moving image only values are needed.
"""

import math

import cv2
import numpy as np
from numba import njit

from geoalign.kernels.spline import bspline_weights

PARAMETERS = {"shift": 2, "rigid": 3, "similarity": 4, "affine": 6, "projective": 8}
"""Models that can be solved for, and their number of parameters."""

_BASIS = {
    "shift": [[0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]],
    "rigid": [[0, 1, 0, -1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]],
    "similarity": [
        [1, 0, 0, 0, 1, 0, 0, 0], [0, 1, 0, -1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0],
    ],
    "affine": np.eye(8)[:6],
    "projective": np.eye(8),
}  # fmt: skip


def basis(model):
    """What a model leaves free of the eight parameters of a projective step, (8, k)."""
    return np.array(_BASIS[model], float).T


def structure(image, fine, broad):
    """Structure between two scales: Gaussian mean of `fine` px minus that of `broad` px, over observed pixels.

    image : (row, col), NaN = not observed; fine, broad : standard deviations, px
    Returns (values, valid): float64, and False where the image or a tenth of what surrounds it (within `fine`) was not
    observed; values are 0 there. Means by OpenCV in float32, after the image's own mean is taken off.
    """
    seen = np.isfinite(image)
    whole = bool(seen.all())
    weight = seen.astype(np.float32)
    middle = float(image[seen].mean(dtype=np.float64)) if seen.any() else 0.0
    filled = np.where(seen, image - middle, 0.0).astype(np.float32)
    parts = []
    for sigma in (fine, broad):
        side = 2 * int(math.ceil(3.5 * sigma)) + 1
        border = cv2.BORDER_REFLECT_101 if whole else cv2.BORDER_CONSTANT
        mean = cv2.GaussianBlur(filled, (side, side), sigma, borderType=border)
        share = weight if whole else cv2.GaussianBlur(weight, (side, side), sigma, borderType=border)
        parts.append((mean / np.maximum(share, 1e-6), share))
    valid = seen & (parts[0][1] > 0.9)
    return np.where(valid, parts[0][0] - parts[1][0], 0.0).astype(np.float64), valid


@njit(nogil=True, cache=True)
def block_moments(ref, ref_ok, r0, c0, height, width, coef, mov_ok, matrix, centre, size, order, robust):
    """Weighted moments of one block: of (1, reference, its gradient along each parameter, moving image under the warp).

    ref, ref_ok : structure of the reference tile and its validity; the block is [r0:r0+height, c0:c0+width] of it
    coef, mov_ok : cubic B-spline coefficients of the moving tile's structure, and its validity
    matrix : (3, 3), tile pixel of the reference -> tile pixel of the moving image
    centre, size : u = (row - centre[0]) / size and v alike are what the parameters are of; tile pixels
    order : number of parameters: 6 affine and simpler models, 8 projective
    robust : (level, gain, scale): pixels are weighted by Cauchy's function of moving - level - gain reference, in units
        of 2.385 scale; an infinite scale weighs all alike
    Returns (moments, n): (order + 3, order + 3) symmetric, and the pixels observed in both images.
    """
    k = order
    moments = np.zeros((k + 3, k + 3))
    f = np.empty(k + 3)
    f[0] = 1.0
    n = 0
    n_row, n_col = ref.shape
    m_row, m_col = coef.shape
    wr = np.empty(4)
    wc = np.empty(4)
    inverse_scale = 1.0 / (2.385 * robust[2])
    for r in range(max(r0, 2), min(r0 + height, n_row - 2)):
        u = (r - centre[0]) / size
        for c in range(max(c0, 2), min(c0 + width, n_col - 2)):
            if not (ref_ok[r, c] and ref_ok[r - 1, c] and ref_ok[r + 1, c] and ref_ok[r, c - 1] and ref_ok[r, c + 1]):
                continue
            if not (ref_ok[r - 2, c] and ref_ok[r + 2, c] and ref_ok[r, c - 2] and ref_ok[r, c + 2]):
                continue
            w = matrix[2, 0] * r + matrix[2, 1] * c + matrix[2, 2]
            p = (matrix[0, 0] * r + matrix[0, 1] * c + matrix[0, 2]) / w
            q = (matrix[1, 0] * r + matrix[1, 1] * c + matrix[1, 2]) / w
            if not (p >= 1.0 and q >= 1.0 and p < m_row - 2 and q < m_col - 2):
                continue
            a = int(p)
            b = int(q)
            if not (mov_ok[a, b] and mov_ok[a + 1, b] and mov_ok[a, b + 1] and mov_ok[a + 1, b + 1]):
                continue
            bspline_weights(p - a, wr)
            bspline_weights(q - b, wc)
            y = 0.0
            for i in range(4):
                line = 0.0
                for j in range(4):
                    line += wc[j] * coef[a - 1 + i, b - 1 + j]
                y += wr[i] * line
            x = ref[r, c]
            gr = (8.0 * (ref[r + 1, c] - ref[r - 1, c]) - (ref[r + 2, c] - ref[r - 2, c])) / 12.0
            gc = (8.0 * (ref[r, c + 1] - ref[r, c - 1]) - (ref[r, c + 2] - ref[r, c - 2])) / 12.0
            v = (c - centre[1]) / size
            f[1] = x
            f[2] = gr * u
            f[3] = gr * v
            f[4] = gr
            f[5] = gc * u
            f[6] = gc * v
            f[7] = gc
            if k == 8:
                along = gr * u + gc * v
                f[8] = -along * u
                f[9] = -along * v
            f[k + 2] = y
            e = (y - robust[0] - robust[1] * x) * inverse_scale
            weight = 1.0 / (1.0 + e * e)
            for i in range(k + 3):
                g = weight * f[i]
                for j in range(i + 1):
                    moments[i, j] += g * f[j]
            n += 1
    for i in range(k + 3):
        for j in range(i):
            moments[j, i] = moments[i, j]
    return moments, n


@njit(nogil=True, cache=True)
def blocks_moments(ref, ref_ok, starts, height, width, coef, mov_ok, matrix, centre, size, order, robust):
    """`block_moments` for blocks of one tile: starts (n, 2) first pixels, robust (n, 3). Returns (n, ...) and (n,)."""
    n = starts.shape[0]
    moments, counts = np.zeros((n, order + 3, order + 3)), np.zeros(n)
    for k in range(n):
        moments[k], counts[k] = block_moments(
            ref, ref_ok, starts[k, 0], starts[k, 1], height, width, coef, mov_ok, matrix, centre, size, order, robust[k]
        )
    return moments, counts


def block_fit(moments, counts):
    """What each block says for itself: level, gain, and its own displacement.

    moments : (n, k + 3, k + 3) from `block_moments`; counts : (n,)
    Returns dict of (n, ...) arrays: level, gain, variance (of the residual), correlation, left (n, 2) px and its
    covariance (n, 2, 2) for white residuals, middle (n, 2), the (u, v) of the structure's centre, good (n,) bool.
    Solves moving = level + gain (reference - gradient . left).
    """
    at, y = [0, 1, 4, 7], moments.shape[1] - 1
    normal, right = moments[:, at][:, :, at], moments[:, at, y]
    total = np.maximum(moments[:, 0, 0], 1e-300)
    mean = moments[:, 0] / total[:, None]
    spread = np.stack([moments[:, i, j] / total - mean[:, i] * mean[:, j] for i, j in ((1, 1), (y, y), (1, y))], 1)
    d = np.sqrt(np.maximum(np.einsum("nii->ni", normal), 1e-300))
    scaled = normal / d[:, :, None] / d[:, None, :]
    good = (counts >= 32) & (spread[:, 0] > 0) & (spread[:, 1] > 0) & np.isfinite(scaled).all(axis=(1, 2))
    good[good] = np.linalg.eigvalsh(scaled[good])[:, 0] > 1e-7
    scaled[~good] = np.eye(4)
    inverse = np.linalg.inv(scaled) / d[:, :, None] / d[:, None, :]
    beta = np.einsum("nij,nj->ni", inverse, right)
    rest = moments[:, y, y] - np.einsum("ni,ni->n", beta, right)
    variance = np.maximum(rest / total, 1e-12 * np.maximum(spread[:, 1], 1e-300))
    correlation = np.where(good, spread[:, 2] / np.sqrt(np.where(good, spread[:, 0] * spread[:, 1], 1.0)), 0.0)
    gain = beta[:, 1]
    good &= gain > 0
    safe = np.where(good, gain, 1.0)
    energy = np.maximum(moments[:, 4, 4] + moments[:, 7, 7], 1e-300)
    middle = np.stack([moments[:, 2, 4] + moments[:, 5, 7], moments[:, 3, 4] + moments[:, 6, 7]], 1) / energy[:, None]
    return {
        "level": beta[:, 0], "gain": safe, "variance": variance, "correlation": correlation, "good": good,
        "middle": middle, "left": -beta[:, 2:] / safe[:, None],
        "covariance": inverse[:, 2:, 2:] * (variance / safe**2)[:, None, None],
    }  # fmt: skip


def pooled(moments, fits):
    """Normal equations of a step, one set a block, with each block's level and gain eliminated.

    moments, fits : from `block_moments` and `block_fit`
    Returns (normal, right): (n, k, k) and (n, k); zero for blocks without an answer of their own. Blocks are weighted
    by their own residual variance, so that a changed or clouded one has little say, but by no more than three times
    the weight of the middle one.
    """
    y = moments.shape[1] - 1
    head, tail = moments[:, :2, :2], moments[:, 2:y, :2]
    good = fits["good"]
    head = np.where(good[:, None, None], head, np.eye(2))
    through = np.einsum("nki,nij->nkj", tail, np.linalg.inv(head))
    normal = moments[:, 2:y, 2:y] - np.einsum("nki,nli->nkl", through, tail)
    right = moments[:, 2:y, y] - np.einsum("nki,ni->nk", through, moments[:, :2, y])
    noise = fits["variance"] / fits["gain"] ** 2
    least = np.median(noise[good]) / 3 if good.any() else 1.0
    weight = np.where(good, 1.0 / np.maximum(noise, max(least, 1e-300)), 0.0)
    return normal * weight[:, None, None], -right * (weight / fits["gain"])[:, None]


def solve(normal, right):
    """Parameters of summed normal equations, and the inverse of their matrix; (None, None): not enough."""
    d = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    scaled = normal / d[:, None] / d[None, :]
    if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] < 1e-9:
        return None, None
    inverse = np.linalg.inv(scaled) / d[:, None] / d[None, :]
    return inverse @ right, inverse


def jackknife(normal, right):
    """Covariance of the parameters from leaving out each block in turn, (k, k).

    normal, right : (n, k, k), (n, k) from `pooled`, in the model's own parameters. Right whatever correlation pixels
    have within a block, and whatever the residuals come from, as long as blocks do not share it (Efron 1982).
    """
    whole, inverse = solve(normal.sum(axis=0), right.sum(axis=0))
    if whole is None:
        return None
    used = np.flatnonzero(np.einsum("nii->n", normal) > 0)
    n, k = len(used), len(whole)
    score = right[used] - normal[used] @ whole
    keep = np.eye(k) - inverse @ normal[used]
    # the answer without block b differs from the whole by (H - H_b)^-1 s_b
    away = np.linalg.solve(keep + 1e-9 * np.eye(k), (score @ inverse)[..., None])[..., 0]
    if n < 2 * k:
        # too few blocks to see each parameter's scatter: one scale for all of them
        return inverse * max(float(np.einsum("ni,ij,nj->", score, inverse, score)) / k, 1.0)
    return away.T @ away * (n - 1) / n


def displacement(q):
    """Root mean square displacement of a step over the square -1 <= u, v <= 1, px; of an affine step exactly."""
    return float(np.sqrt((q[[0, 1, 3, 4, 6, 7]] ** 2).sum() / 3 + (q[[2, 5]] ** 2).sum()))


def moved(q, centre, size):
    """3 x 3 matrix of a step of eight parameters: displacement px = J(u, v) q at the reference pixel."""
    inner = np.eye(3) + np.append(q, 0.0).reshape(3, 3) / size
    normalise = np.array([[1 / size, 0, -centre[0] / size], [0, 1 / size, -centre[1] / size], [0, 0, 1]])
    return np.linalg.inv(normalise) @ inner @ normalise


def stepped(model, matrix, q, centre, size):
    """The warp after a step `q` (8,), kept within its model: rotations and scales are not left by small steps."""
    if model in ("rigid", "similarity"):
        turn = np.array([[q[0], q[1]], [-q[1], q[0]]]) / size
        along, across = turn[0]
        part = np.exp(along) * np.array([[np.cos(across), np.sin(across)], [-np.sin(across), np.cos(across)]])
        inner = np.eye(3)
        inner[:2, :2] = part
        inner[:2, 2] = np.asarray(centre) - part @ centre + [q[2], q[5]]
        return matrix @ inner
    out = matrix @ moved(q, centre, size)
    return out / out[2, 2]
