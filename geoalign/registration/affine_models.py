"""Shift, rigid, similarity and affine warps as affines about the image's centre: their freedom, the nearest of each."""

from __future__ import annotations

import numpy as np

from geoalign.types.warp import Affine, Shift


def _shift_tangent(b):
    return np.array([[0, 0], [0, 0], [1, 0], [0, 0], [0, 0], [0, 1]], float)


def _rigid_tangent(b):
    turn = np.array([-b[1, 0], -b[1, 1], 0, b[0, 0], b[0, 1], 0]) / np.hypot(b[0, 0], b[1, 0])
    return np.column_stack([turn, _shift_tangent(b)])


def _similarity_tangent(b):
    return np.column_stack([[1, 0, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0], _shift_tangent(b)]).astype(float)


def _affine_tangent(b):
    return np.eye(6)


TANGENTS = {
    "shift": _shift_tangent,
    "rigid": _rigid_tangent,
    "similarity": _similarity_tangent,
    "affine": _affine_tangent,
}
"""Models, and the directions (6, k) in which they may change the six numbers of an affine about the centre."""


def matrix_of(warp):
    return np.array([[1, 0, warp.dy], [0, 1, warp.dx]]) if isinstance(warp, Shift) else np.array(warp.matrix)


def centred(matrix, centre, size):
    """The affine on ((row, col) - centre) / size."""
    return np.column_stack([matrix[:, :2] * size, matrix[:, :2] @ centre + matrix[:, 2]])


def plain(b, centre, size):
    a = b[:, :2] / size
    return np.column_stack([a, b[:, 2] - a @ centre])


def to_model(b, model, size):
    """The nearest centred affine of a model."""
    b = b.copy()
    if model == "shift":
        b[:, :2] = np.eye(2) * size
    elif model in ("similarity", "rigid"):
        p, q = 0.5 * (b[0, 0] + b[1, 1]), 0.5 * (b[1, 0] - b[0, 1])
        if model == "rigid":
            p, q = (v * size / np.hypot(p, q) for v in (p, q))
        b[:, :2] = [[p, -q], [q, p]]
    return b


def as_model(warp, model, shape):
    centre, size = frame(shape)
    return Affine(plain(to_model(centred(matrix_of(warp), centre, size), model, size), centre, size))


def frame(shape):
    centre = (np.array(shape) - 1) / 2
    return centre, float(np.hypot(*centre))
