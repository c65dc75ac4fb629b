"""A smooth displacement field through noisy tie points: penalised robust least squares on B-spline nodes."""

import numpy as np

from geoalign.kernels.fit import TUKEY, tukey
from geoalign.kernels.spline import spline_coefficients, spline_eval

BENDS = (0.1, 0.3, 1.0, 2.0, 4.0)
"""Bending tried, px: standard deviation of the second difference of the displacement from node to node."""
EVEN = 1.03
"""Costs of two stiffnesses that differ by no more than this factor count as equal."""


def node_grid(shape, spacing):
    """Nodes for an image of `shape`, about `spacing` px apart and two rings beyond its edges.

    The cubic spline has no slope at its own edge, so that the edge must lie outside of the image.
    Returns (n_row, n_col, row0, col0, step_row, step_col).
    """
    out = []
    for size in shape:
        cells = max(2, round((size - 1) / spacing))
        step = max((size - 1) / cells, 1.0)
        out.append((cells + 5, -2 * step, step))
    (n_row, row0, step_row), (n_col, col0, step_col) = out
    return n_row, n_col, row0, col0, step_row, step_col


def fit_field(grid, points, found, covariance, *, use, bends=BENDS, steps=4):
    """Fit node displacements to tie points.

    grid : from `node_grid`
    points, found : (n, 2); covariance : (n, 2, 2), px^2, right up to a common factor; use : (n,) bool
    bends : px; of several the one that predicts left-out points best (leave-one-out by the hat matrix)
    Returns dict: dy, dx, variance (node_row, node_col), residual (n, 2), held_out (n, 2) residual of each point to the
    field fitted without it, length, weight, factor, bend. None where points are too few.
    """
    if use.sum() < 12:
        return None
    n_row, n_col, row0, col0, step_row, step_col = grid
    basis = _basis(n_row, n_col, (points[:, 0] - row0) / step_row, (points[:, 1] - col0) / step_col)
    penalty = _bending(n_row, n_col)
    target = found - points
    inverse = np.linalg.inv(covariance)
    # how noisy the points are is asked of the most flexible field, which follows them best: asked of a stiff one, what
    # it can't follow would pass for noise, and make it stiffer still
    start = _solve(basis, penalty, target, inverse, use, max(bends), steps)
    noise = {"weight": start["weight"], "factor": start["factor"]}
    trials = []
    for trial in sorted(bends):
        fitted = start if trial == max(bends) else _solve(basis, penalty, target, inverse, use, trial, 2, **noise)
        trials.append((_cost(fitted, use, start["factor"]), fitted))
    # of those that predict about as well the stiffest: it bends least where there are no points
    least = min(cost for cost, _ in trials)
    fitted = next(fitted for cost, fitted in trials if cost <= EVEN * least)
    shape = (n_row, n_col)
    dy, dx, variance = (fitted.pop(name).reshape(shape) for name in ("dy", "dx", "variance"))
    return {"dy": dy, "dx": dx, "variance": variance, **fitted}


def _cost(fitted, use, factor):
    """Mean squared length of the held-out residuals, capped so that outliers count alike in every trial."""
    r, w = fitted["held_out"][use], fitted["inverse"][use]
    return float(np.minimum(np.einsum("ni,nij,nj->n", r, w, r) / factor, 16.0).mean())


def _solve(basis, penalty, target, inverse, use, bend, steps, *, weight=None, factor=None):
    """One stiffness, re-weighted `steps` times; with the noise `factor` given it is kept."""
    k = basis.shape[1]
    weight = use.astype(float) if weight is None else weight
    fixed = factor
    factor = 1.0 if fixed is None else fixed
    for step in range(steps):
        w = weight[:, None, None] * inverse / factor
        normal = np.zeros((2 * k, 2 * k))
        for a in range(2):
            for b in range(2):
                normal[a * k : (a + 1) * k, b * k : (b + 1) * k] = basis.T @ (w[:, a, b, None] * basis)
            normal[a * k : (a + 1) * k, a * k : (a + 1) * k] += penalty / bend**2
        # nodes far from all points are held by the bending alone; a trace keeps the matrix regular
        normal[np.diag_indices(2 * k)] += 1e-9 * np.trace(normal) / (2 * k)
        right = np.concatenate([basis.T @ np.einsum("nj,nj->n", w[:, a], target) for a in range(2)])
        inverse_normal = np.linalg.inv(normal)
        nodes = inverse_normal @ right
        residual = target - np.stack([basis @ nodes[:k], basis @ nodes[k:]], axis=1)
        length2 = np.einsum("ni,nij,nj->n", residual, inverse, residual)
        freedom = _freedom(basis, inverse_normal, w)
        if fixed is not None:
            weight = np.where(use, np.maximum(1 - length2 / (factor * TUKEY**2), 0.0) ** 2, 0.0)
        elif step:
            weight, factor = tukey(length2, use, min(float(freedom.trace(axis1=1, axis2=2).sum()), 1.6 * use.sum()))
            # a field that passes through every point would prove itself perfect, and then be held to the points alone
            factor = max(factor, 0.5)
    held_out = np.linalg.solve(np.eye(2)[None] - np.clip(freedom, -0.98, 0.98), residual[..., None])[..., 0]
    variance = 0.5 * (np.diag(inverse_normal)[:k] + np.diag(inverse_normal)[k:])
    return {
        "dy": nodes[:k], "dx": nodes[k:], "variance": variance, "residual": residual, "held_out": held_out,
        "length": np.sqrt(length2 / factor), "weight": weight, "factor": factor, "bend": bend, "inverse": inverse,
    }  # fmt: skip


def _freedom(basis, inverse_normal, w):
    """Diagonal 2 x 2 blocks of the hat matrix, (n, 2, 2)."""
    n, k = basis.shape
    spread = np.empty((n, 2, 2))
    for a in range(2):
        for b in range(2):
            block = inverse_normal[a * k : (a + 1) * k, b * k : (b + 1) * k]
            spread[:, a, b] = np.einsum("nk,nk->n", basis @ block, basis)
    return spread @ w


def _basis(n_row, n_col, u, v):
    """Value at (u, v) of the spline through a unit node, for every node: (n_point, n_row * n_col)."""
    lines = []
    for n, at in ((n_row, u), (n_col, v)):
        columns = []
        for node in range(n):
            unit = np.zeros((n, 2))
            unit[node] = 1.0
            columns.append(spline_eval(spline_coefficients(unit), at, np.zeros_like(at)))
        lines.append(np.stack(columns, axis=1))
    return (lines[0][:, :, None] * lines[1][:, None, :]).reshape(len(u), n_row * n_col)


def _bending(n_row, n_col):
    """Quadratic form of the second differences of a node grid, both axes and mixed."""
    second_r, second_c = np.diff(np.eye(n_row), 2, axis=0), np.diff(np.eye(n_col), 2, axis=0)
    first_r, first_c = np.diff(np.eye(n_row), axis=0), np.diff(np.eye(n_col), axis=0)
    parts = [np.kron(second_r, np.eye(n_col)), np.kron(np.eye(n_row), second_c), np.sqrt(2) * np.kron(first_r, first_c)]
    return sum(p.T @ p for p in parts)
