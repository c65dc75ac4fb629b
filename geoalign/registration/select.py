"""Which model: the simplest warp that points left out of its fit do not reject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.field_fit import BENDS, fit_field, node_grid
from geoalign.kernels.fit import CURVED, PARAMETERS, fit_model
from geoalign.registration.nodes import node_values
from geoalign.types.warp import Affine, Field, Projective, Shift, Warp

MODELS = ("auto", *PARAMETERS, *CURVED, "field")
LADDER = ("shift", "similarity", "affine", "field")
"""What "auto" chooses among, simplest first. Rigid, projective and polynomial2 are fitted where they are asked for."""

STRAIGHT = LADDER[:-1]
"""The same without the field, where that is decided and fitted apart."""

FIELD_POINTS = 48
"""Tie points below which a field is not considered."""


@dataclass(frozen=True)
class Fit:
    """A warp through tie points: its covariance as `Match` wants it, and residuals of all points (n, 2), px.

    held_out : the residual each point would have had to a fit without it; length : residual in standard deviations;
    weight : 0..1; factor : scatter seen over scatter predicted (variance ratio); sigma_px : rms over the image, an axis
    """

    model: str
    warp: Warp
    covariance: np.ndarray
    residual: np.ndarray
    held_out: np.ndarray
    length: np.ndarray
    weight: np.ndarray
    factor: float
    sigma_px: float


def fit(model, points, found, covariance, *, use, shape, bends=BENDS) -> Fit | None:
    """Fit one model; None where the points are too few or do not span it.

    points, found : (n, 2) row, col; covariance : (n, 2, 2) px^2; use : (n,) bool; shape : of the reference image
    bends : what a field may choose among, px
    """
    from geoalign.types.alignment import Match

    if model == "field":
        grid = node_grid(shape, max(max(shape) / 5, 16.0))
        out = fit_field(grid, points, found, covariance, use=use, bends=bends)
        if out is None:
            return None
        warp = Field(out["dy"], out["dx"], *grid[2:])
        cov = out["variance"]
    elif model in CURVED:
        out = fit_model(model, points, found, covariance, use=use)
        if out is None:
            return None
        warp, cov = _on_nodes(out["at"], shape)
    else:
        out = fit_model(model, points, found, covariance, use=use)
        if out is None:
            return None
        m = out["matrix"]
        warp = Shift(float(m[0, 2]), float(m[1, 2])) if model == "shift" else Affine(m[:2])
        warp = Projective(m) if model == "projective" else warp
        cov = out["covariance"]
    rows, cols = _lattice(shape)
    sigma = Match(warp, cov, 0.0, 0.0, 0, "", None).sigma_px(rows, cols)
    names = ("residual", "held_out", "length", "weight", "factor")
    return Fit(model, warp, cov, *(out[k] for k in names), float(np.sqrt((sigma**2).mean())))


def _on_nodes(at, shape):
    """A polynomial warp as a Field, and its variance at the nodes: cubic splines hold polynomials exactly."""
    grid = node_grid(shape, max(max(shape) / 5, 16.0))
    n_row, n_col, row0, col0, step_row, step_col = grid
    rows, cols = np.meshgrid(row0 + step_row * np.arange(n_row), col0 + step_col * np.arange(n_col), indexing="ij")
    points = np.stack([rows.ravel(), cols.ravel()], axis=1)
    value, variance = at(points)
    nodes = (value - points).T.reshape(2, n_row, n_col)
    # the coefficients of a polynomial of the second degree are its values less a sixth of their second differences
    coef = nodes.copy()
    coef[:, 1:-1] -= np.diff(nodes, 2, axis=1) / 6
    coef[:, :, 1:-1] -= np.diff(nodes, 2, axis=2) / 6
    for axis in (1, 2):
        first, last = [slice(None)] * 3, [slice(None)] * 3
        first[axis], last[axis] = 0, -1
        bend = np.diff(nodes, 2, axis=axis)
        coef[tuple(first)] -= bend.take(0, axis) / 6
        coef[tuple(last)] -= bend.take(-1, axis) / 6
    return Field(*(node_values(c) for c in coef), *grid[2:]), variance.reshape(n_row, n_col)


def choose(points, found, covariance, *, use, shape, ladder=LADDER) -> Fit:
    """The simplest model of the ladder that no richer one beats on points left out.

    A richer model beats a simpler one where (a) it predicts left-out points better, and (b) the two warps differ over
    the image by more than the richer one's own error allows by chance (about 1 in 100): a pure shift is answered with
    a shift. A field has so many parameters that its error over the image is large even where it is needed; there (a)
    decides, at three standard errors.
    """
    fits = []
    for model in ladder:
        if model == "field" and use.sum() < FIELD_POINTS:
            continue
        if model != "field" and use.sum() < 2 * PARAMETERS[model] and fits:
            continue  # as many points again as would determine it, lest it follow their errors
        fitted = fit(model, points, found, covariance, use=use, shape=shape)
        if fitted is not None:
            fits.append(fitted)
    if not fits:
        raise MatchError(f"{int(use.sum())} tie points are too few for any model.")
    for k, simple in enumerate(fits):
        if not any(beats(rich, simple, covariance, use, shape) for rich in fits[k + 1 :]):
            return simple
    return fits[-1]


def beats(rich, simple, covariance, use, shape) -> bool:
    """True where a richer fit is to be preferred over a simpler one of the same points; see `choose`."""
    inverse = np.linalg.inv(covariance)
    lengths = []
    for fitted in (simple, rich):
        r = fitted.held_out[use]
        lengths.append(np.minimum(np.einsum("ni,nij,nj->n", r, inverse[use], r) / rich.factor, 16.0))
    gain = lengths[0] - lengths[1]
    certain, apart = (3.0, 1.0) if rich.model == "field" else (1.5, 2.6)
    if gain.mean() <= certain * gain.std() / np.sqrt(len(gain)):
        return False
    return distance_px(rich.warp, simple.warp, shape) > apart * rich.sigma_px


def distance_px(one, other, shape) -> float:
    """Root mean square length of the difference of two warps over an image, px."""
    rows, cols = _lattice(shape)
    a, b = one.pull(rows, cols), other.pull(rows, cols)
    return float(np.sqrt(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2).mean()))


def _lattice(shape, n=15):
    return np.meshgrid(np.linspace(0, shape[0] - 1, n), np.linspace(0, shape[1] - 1, n), indexing="ij")


def model_name(warp) -> str:
    """The model a fitted warp belongs to."""
    if isinstance(warp, Affine):
        (a, b, _), (c, d, _) = warp.matrix
        if abs(a - d) > 1e-12 or abs(b + c) > 1e-12:
            return "affine"
        return "rigid" if abs(a * d - b * c - 1) < 1e-12 else "similarity"
    return type(warp).__name__.lower()
