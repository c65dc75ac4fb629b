"""Robust weighted fits of parametric warps to tie points, with the covariance of what was fitted.

Points carry a 2 x 2 error covariance each; every fit is generalised least squares with Tukey weights on the Mahalanobis
length of the residual, and its covariance is scaled by the scatter that was seen.
"""

import numpy as np

PARAMETERS = {"shift": 2, "rigid": 3, "similarity": 4, "affine": 6, "projective": 8}
"""Models in order of freedom, and their number of parameters."""

CURVED = {"polynomial2": 12}
"""Models that are no matrix: a polynomial of the second degree."""

REDUNDANT = 4
"""Coordinates more than parameters from which the scatter of the points may say that they are better than thought."""

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
    centre = points[use].mean(axis=0)
    size = max(float(np.abs(points[use] - centre).max()), 1.0)
    uv = (points - centre) / size
    target = found - centre
    inverse = np.linalg.inv(covariance)
    weight = use.astype(float)
    params = _start(model, target, use, size)
    normal = None
    for step in range(steps):
        value, design = _evaluate(model, params, uv, size)
        residual = target - value
        normal = np.einsum("n,nik,nij,njl->kl", weight, design, inverse, design)
        right = np.einsum("n,nik,nij,nj->k", weight, design, inverse, residual)
        d = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        scaled = normal / d[:, None] / d[None, :]
        if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] < 1e-9:
            return None
        params = params + np.linalg.solve(scaled, right / d) / d
        residual = target - _evaluate(model, params, uv, size)[0]
        length2 = np.einsum("ni,nij,nj->n", residual, inverse, residual)
        if step >= 1:
            weight, _ = tukey(length2, use, k)
    weight, factor = tukey(length2, use, k)
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
            value, design = _evaluate(model, params, (points - centre) / size, size)
            return value + centre, np.einsum("nik,kl,nil->n", design, cov_params, design) / 2

        return {**out, "covariance": cov_params, "at": at}
    matrix = _matrix(model, params, centre, size)
    jac = np.stack(
        [
            (_matrix(model, params + h, centre, size) - _matrix(model, params - h, centre, size)).ravel() / 2e-5
            for h in np.eye(k) * 1e-5
        ],
        axis=1,
    )
    keep = [2, 5] if model == "shift" else list(range(8 if model == "projective" else 6))
    cov = jac[keep] @ cov_params @ jac[keep].T
    return {**out, "matrix": matrix, "covariance": cov}


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
    mean2 = float((weight * length2).sum() / max(weight.sum(), 1e-12))
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


def _evaluate(model, p, uv, size):
    """Warped points relative to the centre, (n, 2), and the derivative by the parameters, (n, 2, k)."""
    u, v = uv[:, 0], uv[:, 1]
    one, zero = np.ones_like(u), np.zeros_like(u)
    if model == "shift":
        value = np.stack([u * size + p[0], v * size + p[1]], axis=1)
        return value, np.stack([np.stack([one, zero], 1), np.stack([zero, one], 1)], axis=1)
    if model == "rigid":
        c, s = np.cos(p[0]) * size, np.sin(p[0]) * size
        value = np.stack([c * u - s * v + p[1], s * u + c * v + p[2]], axis=1)
        top, low = np.stack([-s * u - c * v, one, zero], 1), np.stack([c * u - s * v, zero, one], 1)
        return value, np.stack([top, low], axis=1)
    if model == "similarity":
        value = np.stack([p[0] * u - p[1] * v + p[2], p[1] * u + p[0] * v + p[3]], axis=1)
        return value, np.stack([np.stack([u, -v, one, zero], 1), np.stack([v, u, zero, one], 1)], axis=1)
    top, low = np.stack([u, v, one, zero, zero, zero], 1), np.stack([zero, zero, zero, u, v, one], 1)
    if model == "affine":
        return np.stack([top @ p, low @ p], axis=1), np.stack([top, low], axis=1)
    if model == "polynomial2":
        square, none = np.stack([u * u, u * v, v * v], 1), np.zeros((len(u), 3))
        top, low = np.concatenate([top, square, none], 1), np.concatenate([low, none, square], 1)
        return np.stack([top @ p, low @ p], axis=1), np.stack([top, low], axis=1)
    w = p[6] * u + p[7] * v + 1.0
    r, c = top @ p[:6] / w, low @ p[:6] / w
    tail_r, tail_c = np.stack([-r * u, -r * v], 1), np.stack([-c * u, -c * v], 1)
    top, low = np.concatenate([top, tail_r], 1) / w[:, None], np.concatenate([low, tail_c], 1) / w[:, None]
    return np.stack([r, c], axis=1), np.stack([top, low], axis=1)


def _matrix(model, p, centre, size):
    """3 x 3 matrix on (row, col, 1) in image pixels."""
    inner = np.eye(3)
    if model == "shift":
        inner[:2] = [[size, 0, p[0]], [0, size, p[1]]]
    elif model == "rigid":
        c, s = np.cos(p[0]) * size, np.sin(p[0]) * size
        inner[:2] = [[c, -s, p[1]], [s, c, p[2]]]
    elif model == "similarity":
        inner[:2] = [[p[0], -p[1], p[2]], [p[1], p[0], p[3]]]
    else:
        inner[:2] = np.reshape(p[:6], (2, 3))
        if model == "projective":
            inner[2, :2] = p[6:]
    normalise = np.array([[1 / size, 0, -centre[0] / size], [0, 1 / size, -centre[1] / size], [0, 0, 1]])
    restore = np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]])
    matrix = restore @ inner @ normalise
    return matrix / matrix[2, 2]


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
