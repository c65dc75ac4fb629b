"""Cubic B-spline interpolation of a small grid, with its derivatives."""

import numpy as np
from numba import njit
from scipy.ndimage import spline_filter


def spline_coefficients(nodes):
    """Cubic B-spline coefficients of `nodes` (row, col), mirrored at the edges; interpolates the nodes exactly."""
    return spline_filter(np.asarray(nodes, np.float64), order=3, mode="mirror")


def spline_eval(coefficients, u, v, derivative=0):
    """Value of the spline at node coordinates (u, v), clamped to the grid.

    coefficients : (row, col); u, v : arrays of one shape, in nodes
    derivative : 0 value, 1 d/du, 2 d/dv (0 outside the grid, where the value is constant)
    """
    u = np.asarray(u, np.float64)
    flat = _eval(coefficients, u.ravel(), np.asarray(v, np.float64).ravel(), derivative)
    return flat.reshape(u.shape)


@njit(nogil=True, cache=True)
def bspline_weights(t, out):
    """Cubic B-spline weights of the four nodes around fraction t in [0, 1), from the leftmost on."""
    s = 1.0 - t
    out[0] = s * s * s / 6.0
    out[1] = 2.0 / 3.0 - 0.5 * t * t * (2.0 - t)
    out[2] = 2.0 / 3.0 - 0.5 * s * s * (2.0 - s)
    out[3] = t * t * t / 6.0


@njit(nogil=True, cache=True)
def bspline_slopes(t, out):
    """Their derivatives by t."""
    s = 1.0 - t
    out[0] = -0.5 * s * s
    out[1] = 1.5 * t * t - 2.0 * t
    out[2] = 2.0 * s - 1.5 * s * s
    out[3] = 0.5 * t * t


@njit(nogil=True, cache=True)
def _mirror(i, n):
    if n == 1:
        return 0
    period = 2 * (n - 1)
    i = abs(i) % period
    return period - i if i >= n else i


@njit(nogil=True, cache=True)
def _eval(c, u, v, derivative):
    n_row, n_col = c.shape
    out = np.empty(u.size)
    wr = np.empty(4)
    wc = np.empty(4)
    for p in range(u.size):
        a = min(max(u[p], 0.0), n_row - 1.0)
        b = min(max(v[p], 0.0), n_col - 1.0)
        if (derivative == 1 and a != u[p]) or (derivative == 2 and b != v[p]):
            out[p] = 0.0
            continue
        i = min(int(a), n_row - 2)
        j = min(int(b), n_col - 2)
        if derivative == 1:
            bspline_slopes(a - i, wr)
        else:
            bspline_weights(a - i, wr)
        if derivative == 2:
            bspline_slopes(b - j, wc)
        else:
            bspline_weights(b - j, wc)
        total = 0.0
        for k in range(4):
            row = _mirror(i - 1 + k, n_row)
            line = 0.0
            for m in range(4):
                line += wc[m] * c[row, _mirror(j - 1 + m, n_col)]
            total += wr[k] * line
        out[p] = total
    return out
