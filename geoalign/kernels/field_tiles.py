"""What tie points say about the coefficients of a B-spline field."""

import numpy as np
from numba import njit

from geoalign.kernels.spline import bspline_weights


@njit(nogil=True, cache=True)
def weights_at(u, nodes):
    """B-spline weights at node coordinates u (n,): (first of the four nodes (n,), weights (n, 4))."""
    left = np.empty(u.size, np.int64)
    weights = np.empty((u.size, 4))
    for k in range(u.size):
        left[k] = min(max(int(np.floor(u[k])) - 1, 0), nodes - 4)
        bspline_weights(u[k] - left[k] - 1, weights[k])
    return left, weights


@njit(nogil=True, cache=True)
def point_normal(left_r, w_r, left_c, w_c, inverse, residual, n_r, n_c):
    """Normal matrix and right side of points on a field, as `flow.banded` takes them.

    left_*, w_* : (n,), (n, 4), first node and weights of each point along an axis (`weights_at`)
    inverse : (n, 2, 2) inverse covariance, px^-2, 0 for points that take no part
    residual : (n, 2) found minus expected, px
    Returns (hessian (n_r, n_c, 4, 7, 3), right (2, n_r, n_c)).
    """
    hessian = np.zeros((n_r, n_c, 4, 7, 3))
    right = np.zeros((2, n_r, n_c))
    for p in range(residual.shape[0]):
        c = inverse[p]
        for a in range(4):
            for b in range(4):
                w = w_r[p, a] * w_c[p, b]
                i, j = left_r[p] + a, left_c[p] + b
                right[0, i, j] += w * (c[0, 0] * residual[p, 0] + c[0, 1] * residual[p, 1])
                right[1, i, j] += w * (c[1, 0] * residual[p, 0] + c[1, 1] * residual[p, 1])
                for d in range(a, 4):
                    for e in range(b if d == a else 0, 4):
                        v = w * w_r[p, d] * w_c[p, e]
                        hessian[i, j, d - a, 3 + e - b, 0] += v * c[0, 0]
                        hessian[i, j, d - a, 3 + e - b, 1] += v * c[0, 1]
                        hessian[i, j, d - a, 3 + e - b, 2] += v * c[1, 1]
    return hessian, right
