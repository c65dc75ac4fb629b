"""Robust weighted fits of parametric warps to tie points, with the covariance of what was fitted.

Points carry a 2 x 2 error covariance each; every fit is generalised least squares with Tukey weights on the Mahalanobis
length of the residual, and its covariance is scaled by the scatter that was seen.
"""

import numpy as np
from numba import njit

PARAMETERS = {"shift": 2, "rigid": 3, "similarity": 4, "affine": 6, "projective": 8}
"""Models in order of freedom, and their number of parameters."""

CURVED = {"polynomial2": 12}
"""Models that are no matrix: a polynomial of the second degree."""

REDUNDANT = 4
"""Coordinates more than parameters from which the scatter of the points may say that they are better than thought."""

SHIFT, RIGID, SIMILARITY, AFFINE, PROJECTIVE, POLYNOMIAL2 = range(6)
_KINDS = {
    "shift": SHIFT, "rigid": RIGID, "similarity": SIMILARITY, "affine": AFFINE, "projective": PROJECTIVE,
    "polynomial2": POLYNOMIAL2,
}  # fmt: skip

TUKEY = 5.0  # where a residual counts nothing, in its own standard deviations; two axes together
_CHI2_MEDIAN = 1.3863  # of two degrees of freedom


def fit_model(model, points, found, covariance, *, use=None, steps=12):
    """Fit a warp to tie points.

    model : one of PARAMETERS or CURVED
    points, found : (n, 2) row, col in the reference and in the moving image
    covariance : (n, 2, 2) error covariance of `found`, px^2, right up to a common factor
    use : (n,) bool, points that may take part; None = all
    Returns dict: matrix (3, 3), covariance of the first `k` elements of the matrix in row-major order as `Match` wants
    it (2 x 2 shift, 6 x 6, or 8 x 8 projective), residual (n, 2) of all points, length (n,) their Mahalanobis length in
    standard deviations, weight (n,) 0..1, factor (the scatter seen over the scatter predicted, a variance ratio).
    Curved models have no matrix but `at`, a function of points (m, 2) that gives the warped ones and the variance of
    an axis there; their covariance is that of the parameters.
    None where the points are too few or do not span the model.
    """
    n = len(points)
    use = np.ones(n, bool) if use is None else use
    k = (PARAMETERS | CURVED)[model]
    if 2 * use.sum() < k or use.sum() < 1:
        return None
    points, found = np.asarray(points, np.float64), np.asarray(found, np.float64)
    centre = points[use].mean(axis=0)
    size = max(float(np.abs(points[use] - centre).max()), 1.0)
    uv = (points - centre) / size
    target = found - centre
    inverse = np.linalg.inv(covariance)
    params, design, residual, length2, scaled, d, weight, factor = _iterated(
        _KINDS[model], _start(model, target, use, size), uv, size, target, inverse, use, steps
    )
    if not factor > 0:
        return None
    if 2 * int(use.sum()) - k < REDUNDANT:
        factor = max(factor, 1.0)  # so few points lie on any warp: that they agree says nothing of their errors
    cov_params = np.linalg.inv(scaled) / d[:, None] / d[None, :] * factor
    length = np.sqrt(length2 / factor)
    # what a point's residual would have been had it not been fitted: (I - H) ^ -1 r, H its block of the hat matrix
    hat = design @ (cov_params / factor) @ design.transpose(0, 2, 1) @ (weight[:, None, None] * inverse)
    held_out = np.linalg.solve(np.eye(2)[None] - np.clip(hat, -0.98, 0.98), residual[..., None])[..., 0]
    out = {"residual": residual, "held_out": held_out, "length": length, "weight": weight, "factor": factor}
    if model in CURVED:

        def at(points):
            value, design = _evaluate(_KINDS[model], params, (points - centre) / size, size)
            return value + centre, np.einsum("nik,kl,nil->n", design, cov_params, design) / 2

        return {**out, "covariance": cov_params, "at": at}
    matrix, jac = _matrices(_KINDS[model], params, centre, size)
    keep = [2, 5] if model == "shift" else list(range(8 if model == "projective" else 6))
    cov = jac[keep] @ cov_params @ jac[keep].T
    return {**out, "matrix": matrix, "covariance": cov}


@njit(nogil=True, cache=True)
def _iterated(kind, params, uv, size, target, inverse, use, steps):
    """Gauss-Newton steps with Tukey weights, from `params`.

    Returns params (k,), design (n, 2, k), residual (n, 2), length2 (n,), the normal matrix scaled to a unit diagonal
    and the root of that diagonal, weight (n,), and the variance factor: 0 where the points do not span the model.
    """
    n, k = uv.shape[0], params.size
    weight = use.astype(np.float64)
    residual, length2 = np.zeros((n, 2)), np.zeros(n)
    scaled, d = np.zeros((k, k)), np.ones(k)
    value, design = _evaluate(kind, params, uv, size)
    for step in range(steps):
        if step > 0:
            value, design = _evaluate(kind, params, uv, size)
        normal, right = np.zeros((k, k)), np.zeros(k)
        for i in range(n):
            if weight[i] == 0.0:
                continue
            r, c = target[i, 0] - value[i, 0], target[i, 1] - value[i, 1]
            for a in range(k):
                row = weight[i] * (design[i, 0, a] * inverse[i, 0, 0] + design[i, 1, a] * inverse[i, 1, 0])
                col = weight[i] * (design[i, 0, a] * inverse[i, 0, 1] + design[i, 1, a] * inverse[i, 1, 1])
                right[a] += row * r + col * c
                for b in range(k):
                    normal[a, b] += row * design[i, 0, b] + col * design[i, 1, b]
        for a in range(k):
            d[a] = np.sqrt(max(normal[a, a], 1e-300))
        for a in range(k):
            for b in range(k):
                scaled[a, b] = normal[a, b] / d[a] / d[b]
        if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] < 1e-9:
            return params, design, residual, length2, scaled, d, weight, 0.0
        params = params + np.linalg.solve(scaled, right / d) / d
        value, _ = _evaluate(kind, params, uv, size)
        for i in range(n):
            r, c = target[i, 0] - value[i, 0], target[i, 1] - value[i, 1]
            residual[i, 0], residual[i, 1] = r, c
            length2[i] = r * (inverse[i, 0, 0] * r + inverse[i, 0, 1] * c)
            length2[i] += c * (inverse[i, 1, 0] * r + inverse[i, 1, 1] * c)
        if step >= 1:
            weight, _ = tukey(length2, use, k)
    weight, factor = tukey(length2, use, k)
    return params, design, residual, length2, scaled, d, weight, factor


@njit(nogil=True, cache=True)
def tukey(length2, use, parameters):
    """Tukey weights of squared Mahalanobis lengths, and the variance factor that makes them standard.

    The factor starts at the median of the lengths and is then the weighted mean square, corrected for the parameters
    fitted and for what the weights cut off.
    """
    n = int(use.sum())
    free = max(2 * n - parameters, 1) / (2 * n)
    factor = max(float(np.median(length2[use])) / _CHI2_MEDIAN / free, 1e-12)
    weight = np.where(use, np.maximum(1 - length2 / (factor * TUKEY**2), 0.0) ** 2, 0.0)
    # for normal residuals the weighted mean square of a 2-D length is 2 * _SHRINK factor
    mean2 = (weight * length2).sum() / max(weight.sum(), 1e-12)
    free = max(2 * weight.sum() - parameters, 1.0) / max(2 * weight.sum(), 1e-12)
    return weight, max(mean2 / (2 * _SHRINK) / min(free, 1.0), 1e-12)


def _shrink():
    t = np.linspace(0, TUKEY**2, 20001)
    p = 0.5 * np.exp(-t / 2) * (1 - t / TUKEY**2) ** 2
    return float((p * t).sum() / p.sum() / 2)


_SHRINK = _shrink()


def _start(model, target, use, size):
    shift = np.median(target[use], axis=0)
    if model == "shift":
        return shift
    if model == "rigid":
        return np.array([0.0, *shift])
    if model == "similarity":
        return np.array([size, 0.0, *shift])
    params = np.array([size, 0.0, shift[0], 0.0, size, shift[1]])
    return np.append(params, [0.0] * {"affine": 0, "projective": 2, "polynomial2": 6}[model])


@njit(nogil=True, cache=True)
def _evaluate(kind, p, uv, size):
    """Warped points relative to the centre, (n, 2), and the derivative by the parameters, (n, 2, k)."""
    n, k = uv.shape[0], p.size
    value, design = np.empty((n, 2)), np.zeros((n, 2, k))
    cosine, sine = np.cos(p[0]) * size, np.sin(p[0]) * size
    for i in range(n):
        u, v = uv[i, 0], uv[i, 1]
        row, col = design[i, 0], design[i, 1]
        if kind == SHIFT:
            value[i, 0], value[i, 1] = u * size + p[0], v * size + p[1]
            row[0], col[1] = 1.0, 1.0
        elif kind == RIGID:
            value[i, 0], value[i, 1] = cosine * u - sine * v + p[1], sine * u + cosine * v + p[2]
            row[0], col[0] = -sine * u - cosine * v, cosine * u - sine * v
            row[1], col[2] = 1.0, 1.0
        elif kind == SIMILARITY:
            value[i, 0], value[i, 1] = p[0] * u - p[1] * v + p[2], p[1] * u + p[0] * v + p[3]
            row[0], row[1], col[0], col[1] = u, -v, v, u
            row[2], col[3] = 1.0, 1.0
        else:
            row[0], row[1], row[2] = u, v, 1.0
            col[3], col[4], col[5] = u, v, 1.0
            r = p[0] * u + p[1] * v + p[2]
            c = p[3] * u + p[4] * v + p[5]
            if kind == POLYNOMIAL2:
                row[6], row[7], row[8] = u * u, u * v, v * v
                col[9], col[10], col[11] = u * u, u * v, v * v
                r += p[6] * u * u + p[7] * u * v + p[8] * v * v
                c += p[9] * u * u + p[10] * u * v + p[11] * v * v
            elif kind == PROJECTIVE:
                w = p[6] * u + p[7] * v + 1.0
                r, c = r / w, c / w
                row[6], row[7], col[6], col[7] = -r * u, -r * v, -c * u, -c * v
                for a in range(k):
                    row[a] /= w
                    col[a] /= w
            value[i, 0], value[i, 1] = r, c
    return value, design


@njit(nogil=True, cache=True)
def _matrix(kind, p, centre, size):
    """3 x 3 matrix on (row, col, 1) in image pixels."""
    m = np.zeros((3, 3))
    m[2, 2] = 1.0
    if kind == SHIFT:
        m[0, 0], m[0, 2], m[1, 1], m[1, 2] = size, p[0], size, p[1]
    elif kind == RIGID:
        c, s = np.cos(p[0]) * size, np.sin(p[0]) * size
        m[0, 0], m[0, 1], m[0, 2] = c, -s, p[1]
        m[1, 0], m[1, 1], m[1, 2] = s, c, p[2]
    elif kind == SIMILARITY:
        m[0, 0], m[0, 1], m[0, 2] = p[0], -p[1], p[2]
        m[1, 0], m[1, 1], m[1, 2] = p[1], p[0], p[3]
    else:
        for j in range(3):
            m[0, j], m[1, j] = p[j], p[3 + j]
        if kind == PROJECTIVE:
            m[2, 0], m[2, 1] = p[6], p[7]
    # restored @ m @ normalised: to the centre and back again
    for i in range(3):
        m[i, 2] -= (m[i, 0] * centre[0] + m[i, 1] * centre[1]) / size
        m[i, 0] /= size
        m[i, 1] /= size
    for j in range(3):
        m[0, j] += centre[0] * m[2, j]
        m[1, j] += centre[1] * m[2, j]
    return m / m[2, 2]


@njit(nogil=True, cache=True)
def _matrices(kind, params, centre, size):
    """The matrix, and the derivative of its nine elements by the parameters, (9, k)."""
    k = params.size
    jac, step = np.empty((9, k)), 1e-5
    for a in range(k):
        here = params.copy()
        here[a] = params[a] + step
        more = _matrix(kind, here, centre, size)
        here[a] = params[a] - step
        less = _matrix(kind, here, centre, size)
        jac[:, a] = ((more - less) / (2 * step)).ravel()
    return _matrix(kind, params, centre, size), jac


def consensus(points, found, score, *, tolerance=2.0):
    """Points that agree on one motion: those near the displacement most of the score agrees on, then near its affine.

    points, found : (n, 2); score : (n,) >= 0, the vote of each point; tolerance : px
    Returns (n,) bool.
    """
    shift = found - points
    near = np.hypot(*(shift[:, None] - shift[None]).transpose(2, 0, 1)) < tolerance
    if not near.size:
        return np.zeros(0, bool)
    inside = near[int(np.argmax(near @ score))]
    for reach in (1.5 * tolerance, tolerance, tolerance):
        fitted = None
        if inside.sum() >= 6:
            fitted = fit_model(
                "affine", points, found, np.broadcast_to(np.eye(2), (len(points), 2, 2)), use=inside, steps=4
            )
        if fitted is None:
            middle = np.average(shift[inside], axis=0, weights=score[inside] + 1e-9)
            residual = shift - middle
        else:
            residual = fitted["residual"]
        inside = np.hypot(residual[:, 0], residual[:, 1]) < reach
        if not inside.any():
            return inside
    return inside
