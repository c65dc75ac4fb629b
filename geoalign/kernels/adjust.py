"""Adjustment of a network of affine warps: every image's warp from the measured warps between pairs of images.

Affines are held as six displacement parameters in px: the image point (u, v), in half images from the centre, is found
displaced by (p0 u + p1 v + p2, p3 u + p4 v + p5). Pairs bring a value and its information (inverse covariance), which
may be singular: a pair with few points says nothing about some parameters, and is then asked nothing about them.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

OUTLIER = 3.0
"""Residual of a pair, in standard deviations a parameter, where its weight is a quarter."""
REDUCE = 1.4
"""By how much the cost comes nearer to its final, redescending form in each step."""
CHI2_99 = {2: 9.21, 4: 13.28}
"""What a chi-squared variable of so many degrees of freedom exceeds once in a hundred."""


def matrix_of(params, size):
    """3 x 3 matrix on (u, v, 1) of six parameters in px; size : px of one unit of u and v."""
    out = np.eye(3)
    out[:2] += np.reshape(params, (2, 3)) / size
    return out


def params_of(matrix, size):
    """The six parameters, px, of a 3 x 3 matrix on (u, v, 1)."""
    return ((matrix - np.eye(3))[:2] * size).ravel()


def design_of(uv):
    """d(displacement) / d(parameters) at points (n, 2) in half images from the centre: (n, 2, 6)."""
    one = np.column_stack([uv, np.ones(len(uv))])
    out = np.zeros((len(uv), 2, 6))
    out[:, 0, :3] = out[:, 1, 3:] = one
    return out


def space_of(model, params, size):
    """Directions (6, k) in which a warp of this model may move, at `params`."""
    if model == "shift":
        return np.eye(6)[:, [2, 5]]
    if model == "rigid":
        # rows of d(rotation) / d(angle)
        (a, b), (c, d) = matrix_of(params, size)[:2, :2]
        turn = np.array([-c, -d, 0.0, a, b, 0.0])
        return np.column_stack([turn, np.eye(6)[:, [2, 5]]])
    if model == "similarity":
        scale, turn = np.array([1.0, 0, 0, 0, 1, 0]), np.array([0.0, -1, 0, 1, 0, 0])
        return np.column_stack([scale, turn, np.eye(6)[:, [2, 5]]])
    return np.eye(6)


def onto(model, params, size):
    """The warp of a model next to the given one; size : px of one unit of u and v."""
    out = np.array(params, float)
    if model == "shift":
        out[[0, 1, 3, 4]] = 0.0
    elif model in ("rigid", "similarity"):
        m = matrix_of(out, size)
        a, b = (m[0, 0] + m[1, 1]) / 2, (m[1, 0] - m[0, 1]) / 2
        if model == "rigid":
            a, b = np.array([a, b]) / np.hypot(a, b)
        m[:2, :2] = [[a, -b], [b, a]]
        out = params_of(m, size)
    return out


def simplest(params, covariance) -> str:
    """The simplest of shift, similarity and affine that the parameters do not reject (once in a hundred by chance)."""
    for model, contrast in (
        ("shift", np.eye(6)[[0, 1, 3, 4]]),
        ("similarity", np.array([[1.0, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0]])),
    ):
        away, cov = contrast @ params, contrast @ covariance @ contrast.T
        cov = cov + 1e-12 * np.eye(len(cov))
        if away @ np.linalg.solve(cov, away) < CHI2_99[len(away)]:
            return model
    return "affine"


def adjust(first, second, value, information, start, models, size, *, steps=30):
    """Warps of all images from pairs of them, by robust least squares.

    first, second : (m,) images of each pair; value : (m, 6) parameters of the warp from the first to the second;
        information : (m, 6, 6) its inverse covariance, may be singular
    start : (n, 6); models : (n) "shift", "rigid", "similarity", "affine", or None where an image stays at its start
    size : px of one unit of u and v

    Returns dict: params (n, 6); covariance (n, 6, 6) of each image's, zero where it stays; weight (m,) 0..1 of each
    pair; length (m,) its residual in standard deviations a parameter.

    Pairs are down-weighted as a whole by the Geman-McClure function, which is approached from least squares step by
    step (graduated non-convexity, Yang et al. 2020, doi:10.1109/LRA.2020.2965893), so that a wrong pair does not hold
    the images near a wrong start. Dense normal equations: of hundreds of images, not of tens of thousands.
    """
    params = np.array([p if m is None else onto(m, p, size) for p, m in zip(start, models)], float)
    m, n = len(first), len(params)
    rank = np.maximum(np.linalg.matrix_rank(information, hermitian=True, rtol=1e-6), 1)
    weight, slack = np.ones(m), None
    spaces, places, normal = [], [], None
    for step in range(steps):
        spaces = [np.zeros((6, 0)) if w is None else space_of(w, p, size) for w, p in zip(models, params)]
        places = np.concatenate([[0], np.cumsum([s.shape[1] for s in spaces])])
        normal, right = _normal(first, second, value, information, params, spaces, places, weight, size)
        if normal.size:
            moved = cho_solve(cho_factor(normal), right)
            for k in range(n):
                if models[k] is not None:
                    change = spaces[k] @ moved[places[k] : places[k + 1]]
                    params[k] = onto(models[k], params[k] + change, size)
        else:
            moved = np.zeros(1)
        length = _lengths(first, second, value, information, params, size) / np.sqrt(rank)
        if slack is None:
            if step == 0:
                continue  # the first step only removes what is not linear
            slack = max(float((length**2).max()) / OUTLIER**2, 1.0)
        weight = (slack * OUTLIER**2 / (length**2 + slack * OUTLIER**2)) ** 2
        if slack == 1.0 and np.abs(moved).max() < 1e-5:
            break
        slack = max(slack / REDUCE, 1.0) if step < steps - 8 else 1.0
    covariance = np.zeros((n, 6, 6))
    if normal is not None and normal.size:
        inverse = np.linalg.inv(_normal(first, second, value, information, params, spaces, places, weight, size)[0])
        for k in range(n):
            a, b = places[k], places[k + 1]
            covariance[k] = spaces[k] @ inverse[a:b, a:b] @ spaces[k].T
    return {"params": params, "covariance": covariance, "weight": weight, "length": length}


def _normal(first, second, value, information, params, spaces, places, weight, size):
    """Normal matrix and right-hand side of one Gauss-Newton step."""
    normal, right = np.zeros((places[-1], places[-1])), np.zeros(places[-1])
    for e, (i, j) in enumerate(zip(first, second)):
        residual, jac_i, jac_j = _residual(value[e], params[i], params[j], size)
        info = weight[e] * information[e]
        blocks = [(slice(places[k], places[k + 1]), jac @ spaces[k]) for k, jac in ((i, jac_i), (j, jac_j))]
        for at, jac in blocks:
            right[at] += jac.T @ info @ residual
            for other, jac_other in blocks:
                normal[at, other] += jac.T @ info @ jac_other
    # directions that no pair speaks about stay where they are
    normal[np.diag_indices(len(normal))] += 1e-9 * max(float(np.diag(normal).max(initial=0.0)), 1e-9)
    return normal, right


def _residual(value, one, other, size):
    """Measured minus predicted parameters of a pair, and the derivatives of the prediction by both images'."""
    a, b = matrix_of(one, size), matrix_of(other, size)
    back = np.linalg.inv(a)
    through = b @ back
    residual = value - params_of(through, size)
    return residual, -np.kron(through[:2, :2], back.T), np.kron(np.eye(2), back.T)


def _lengths(first, second, value, information, params, size):
    out = np.empty(len(first))
    for e, (i, j) in enumerate(zip(first, second)):
        r = _residual(value[e], params[i], params[j], size)[0]
        out[e] = np.sqrt(max(r @ information[e] @ r, 0.0))
    return out
