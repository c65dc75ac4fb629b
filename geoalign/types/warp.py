"""Warp: where in the moving image is the value for this reference pixel?

`pull(rows, cols) -> (rows, cols)` answers that and is the only sign convention of the project: pixel units, (row, col),
pixel centres at integers. Every warp has `inverse()` and `jacobian(rows, cols)` (2 x 2, d(row, col)_moving by
d(row, col)_reference). All are frozen and hold plain numbers, so they hash, compare and travel to dask workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.spline import spline_coefficients, spline_eval


@runtime_checkable
class Warp(Protocol):
    """What every warp can do; `pull` takes and gives float64 arrays of one common shape."""

    def pull(self, rows, cols): ...

    def inverse(self) -> Warp: ...

    def jacobian(self, rows, cols): ...


def _pair(rows, cols):
    return np.broadcast_arrays(np.asarray(rows, np.float64), np.asarray(cols, np.float64))


@dataclass(frozen=True)
class Shift:
    """Every reference pixel (row, col) is found at (row + dy, col + dx) in the moving image. dy, dx in px."""

    dy: float = 0.0
    dx: float = 0.0

    def pull(self, rows, cols):
        rows, cols = _pair(rows, cols)
        return rows + self.dy, cols + self.dx

    def inverse(self) -> Shift:
        return Shift(-self.dy, -self.dx)

    def jacobian(self, rows, cols):
        rows, _ = _pair(rows, cols)
        return np.broadcast_to(np.eye(2), (*rows.shape, 2, 2)).copy()


@dataclass(frozen=True)
class Affine:
    """(row, col) -> matrix @ (row, col, 1); `matrix` is 2 x 3, given as nested tuples or an array.

    Rigid and similarity warps are constrained fits of this one.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]

    def __post_init__(self):
        object.__setattr__(self, "matrix", _nested(self.matrix, (2, 3), "Affine"))

    @cached_property
    def _m(self):
        return np.array(self.matrix)

    def pull(self, rows, cols):
        rows, cols = _pair(rows, cols)
        m = self._m
        return m[0, 0] * rows + m[0, 1] * cols + m[0, 2], m[1, 0] * rows + m[1, 1] * cols + m[1, 2]

    def inverse(self) -> Affine:
        full = np.vstack([self._m, [0, 0, 1]])
        return Affine(np.linalg.inv(full)[:2])

    def jacobian(self, rows, cols):
        rows, _ = _pair(rows, cols)
        return np.broadcast_to(self._m[:, :2], (*rows.shape, 2, 2)).copy()


@dataclass(frozen=True)
class Projective:
    """(row, col, 1) -> matrix @ (row, col, 1), divided by its last element; `matrix` is 3 x 3 with [2][2] = 1."""

    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self):
        values = np.array(_nested(self.matrix, (3, 3), "Projective"))
        object.__setattr__(self, "matrix", _nested(values / values[2, 2], (3, 3), "Projective"))

    @cached_property
    def _m(self):
        return np.array(self.matrix)

    def pull(self, rows, cols):
        rows, cols = _pair(rows, cols)
        m = self._m
        w = m[2, 0] * rows + m[2, 1] * cols + m[2, 2]
        return (m[0, 0] * rows + m[0, 1] * cols + m[0, 2]) / w, (m[1, 0] * rows + m[1, 1] * cols + m[1, 2]) / w

    def inverse(self) -> Projective:
        return Projective(np.linalg.inv(self._m))

    def jacobian(self, rows, cols):
        rows, cols = _pair(rows, cols)
        m = self._m
        w = m[2, 0] * rows + m[2, 1] * cols + m[2, 2]
        out = np.empty((*rows.shape, 2, 2))
        for i, value in enumerate(self.pull(rows, cols)):
            for j in range(2):
                out[..., i, j] = (m[i, j] - value * m[2, j]) / w
        return out


@dataclass(frozen=True, eq=False)
class Field:
    """A smooth displacement given on a coarse grid of nodes, cubic B-spline in between, constant outside.

    dy, dx : (node_row, node_col) displacement in px at the nodes: reference (row, col) is found at
        (row + dy, col + dx). Node (i, j) lies at (row0 + i * step_row, col0 + j * step_col).
    inverted : the warp is the exact inverse of the one the nodes describe (solved per point by Newton steps).
    """

    dy: np.ndarray
    dx: np.ndarray
    row0: float = 0.0
    col0: float = 0.0
    step_row: float = 64.0
    step_col: float = 64.0
    inverted: bool = field(default=False)

    def __post_init__(self):
        for name in ("dy", "dx"):
            values = np.array(getattr(self, name), np.float64)
            if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
                raise MatchError(
                    f"Field.{name} needs a finite 2-D grid of at least 2 x 2 nodes, got shape {values.shape}."
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if self.dy.shape != self.dx.shape:
            raise MatchError(f"Field needs dy and dx of one shape, got {self.dy.shape} and {self.dx.shape}.")

    def _key(self):
        place = (self.row0, self.col0, self.step_row, self.step_col, self.inverted, self.dy.shape)
        return (self.dy.tobytes(), self.dx.tobytes(), *place)

    def __eq__(self, other):
        return isinstance(other, Field) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def __dask_tokenize__(self):
        return ("geoalign.Field", *self._key())

    def __reduce__(self):
        place = (self.row0, self.col0, self.step_row, self.step_col, self.inverted)
        return Field, (np.array(self.dy), np.array(self.dx), *place)

    @cached_property
    def _coefficients(self):
        return spline_coefficients(self.dy), spline_coefficients(self.dx)

    def displacement(self, rows, cols):
        """(dy, dx) of the forward field at reference (rows, cols), px; ignores `inverted`."""
        rows, cols = _pair(rows, cols)
        u = (rows - self.row0) / self.step_row
        v = (cols - self.col0) / self.step_col
        cy, cx = self._coefficients
        return spline_eval(cy, u, v, 0), spline_eval(cx, u, v, 0)

    def _forward_jacobian(self, rows, cols):
        u = (rows - self.row0) / self.step_row
        v = (cols - self.col0) / self.step_col
        out = np.empty((*rows.shape, 2, 2))
        for i, c in enumerate(self._coefficients):
            out[..., i, 0] = spline_eval(c, u, v, 1) / self.step_row
            out[..., i, 1] = spline_eval(c, u, v, 2) / self.step_col
            out[..., i, i] += 1.0
        return out

    def pull(self, rows, cols):
        rows, cols = _pair(rows, cols)
        if not self.inverted:
            dy, dx = self.displacement(rows, cols)
            return rows + dy, cols + dx
        # Newton on r + d(r) = target from the first-order guess. A fixed number of steps, so that a point's answer
        # does not depend on which other points are asked for with it (lazy is eager)
        dy, dx = self.displacement(rows, cols)
        r, c = rows - dy, cols - dx
        for _ in range(6):
            dy, dx = self.displacement(r, c)
            er, ec = r + dy - rows, c + dx - cols
            j = self._forward_jacobian(r, c)
            det = j[..., 0, 0] * j[..., 1, 1] - j[..., 0, 1] * j[..., 1, 0]
            det = np.where(np.abs(det) < 1e-3, 1e-3, det)
            r = r - (j[..., 1, 1] * er - j[..., 0, 1] * ec) / det
            c = c - (j[..., 0, 0] * ec - j[..., 1, 0] * er) / det
        return r, c

    def inverse(self) -> Field:
        place = (self.row0, self.col0, self.step_row, self.step_col)
        return Field(self.dy, self.dx, *place, inverted=not self.inverted)

    def jacobian(self, rows, cols):
        rows, cols = _pair(rows, cols)
        if not self.inverted:
            return self._forward_jacobian(rows, cols)
        return np.linalg.inv(self._forward_jacobian(*self.pull(rows, cols)))


@dataclass(frozen=True)
class Chain:
    """One warp after another: reference -> warps[0] -> warps[1] -> ... -> moving. An empty chain moves nothing."""

    warps: tuple[Warp, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "warps", tuple(self.warps))

    def pull(self, rows, cols):
        rows, cols = _pair(rows, cols)
        for warp in self.warps:
            rows, cols = warp.pull(rows, cols)
        return rows, cols

    def inverse(self) -> Chain:
        return Chain(tuple(warp.inverse() for warp in reversed(self.warps)))

    def jacobian(self, rows, cols):
        rows, cols = _pair(rows, cols)
        total = np.broadcast_to(np.eye(2), (*rows.shape, 2, 2))
        for warp in self.warps:
            total = warp.jacobian(rows, cols) @ total
            rows, cols = warp.pull(rows, cols)
        return total


def bend_px(warp) -> float:
    """Distance (px) within which a warp is as good as straight: a quarter of a field's nodes, 1 where nothing is known.

    Infinite for a warp that bends nowhere, or as slowly as a perspective does.
    """
    if isinstance(warp, Chain):
        return min((bend_px(part) for part in warp.warps), default=np.inf)
    if isinstance(warp, Field):
        return max(1.0, min(abs(warp.step_row), abs(warp.step_col)) / 4)
    return np.inf if isinstance(warp, (Shift, Affine, Projective)) else 1.0


def mean_displacement(warp, shape, valid=None) -> tuple[float, float]:
    """Mean (dy, dx) of `pull` minus identity over an image of `shape`, px; over `valid` pixels where given."""
    step = max(1, min(shape) // 64)
    rows, cols = np.mgrid[0 : shape[0] : step, 0 : shape[1] : step].astype(float)
    keep = np.ones(rows.shape, bool) if valid is None else np.asarray(valid, bool)[::step, ::step]
    if not keep.any():
        keep[:] = True
    r, c = warp.pull(rows, cols)
    return float((r - rows)[keep].mean()), float((c - cols)[keep].mean())


def _nested(matrix, shape, name):
    values = np.asarray(matrix, np.float64)
    if values.shape != shape or not np.isfinite(values).all():
        raise MatchError(f"{name} needs a finite matrix of shape {shape}, got shape {values.shape}.")
    return tuple(tuple(float(v) for v in row) for row in values)
