"""A field under construction: coefficients of cubic B-splines on a grid of nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.errors import MatchError
from geoalign.types.warp import Field

SMOOTHEST_DET = 0.2
"""Determinant of the Jacobian below which the field is said to fold."""


@dataclass(frozen=True)
class Nodes:
    """Coefficients of a field on its grid, in pixels of the whole image."""

    grid: tuple  # n_row, n_col, row0, col0, step_row, step_col
    coef: np.ndarray  # (2, n_row, n_col)

    def warp(self) -> Field:
        return Field(*(node_values(c) for c in self.coef), *self.grid[2:])


def node_values(coef):
    """Values at the nodes of a spline given by its coefficients (mirrored at the edge, as `Field` reads it)."""
    for axis in (0, 1):
        coef = np.moveaxis(coef, axis, 0)
        padded = np.concatenate([coef[1:2], coef, coef[-2:-1]])
        coef = np.moveaxis((padded[:-2] + 4 * padded[1:-1] + padded[2:]) / 6, 0, axis)
    return coef


def displacements(warp, grid):
    """Displacement at the nodes: of a linear warp these are its spline coefficients as well."""
    n_row, n_col, row0, col0, step_row, step_col = grid
    rows, cols = np.meshgrid(row0 + step_row * np.arange(n_row), col0 + step_col * np.arange(n_col), indexing="ij")
    r, c = warp.pull(rows, cols)
    return np.stack([r - rows, c - cols])


def refuse_folds(warp, shape):
    """MatchError where a field would fold the image."""
    rows, cols = np.meshgrid(*(np.linspace(0, n - 1, 65) for n in shape), indexing="ij")
    least = float(np.linalg.det(warp.jacobian(rows, cols)).min())
    if least < SMOOTHEST_DET:
        raise MatchError(
            f"the field would fold (least determinant of its Jacobian {least:.2f}, {SMOOTHEST_DET} is the limit); "
            "the images may show different ground, or the motion may be larger than the field can follow."
        )
