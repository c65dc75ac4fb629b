"""Apply an alignment: every scene resampled once, lazily, onto the reference grid."""

from __future__ import annotations

import logging

import numpy as np
import xarray as xr

from geoalign import chunked
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.kernels.resample import KINDS, noise_gain
from geoalign.types.stack import check_stack, geobox_of
from geoalign.types.warp import Shift

log = logging.getLogger("geoalign")


def apply(alignment, stack, *, resampling: str = "cubic") -> xr.Dataset:
    """The stack on the reference grid.

    Parameters
    ----------
    alignment : Alignment
    stack : Dataset (time, y, x)
        On the grid the alignment was made on; any bands. Its scenes are found by their `scene` id.
    resampling : "nearest", "bilinear", "cubic", "bspline" or "lanczos"

    Returns
    -------
    Stack of the scenes that have a warp, lazy where the input is, with the coordinate `sigma_px` along time (the
    predicted 1-sigma error of the alignment, an axis, px). Scenes without a warp are left out and logged. A band's
    `enl` is divided by the mean noise gain of the resampling, because interpolation averages speckle.

    Raises
    ------
    StackError where the stack lies on another grid; NoUsableData where no scene is left.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from geoalign import Alignment, Shift, new_stack
    >>> stack = new_stack({"red": np.random.default_rng(0).random((1, 8, 8))}, ["2024-01-01"], scene=["a"])
    >>> moved = Alignment("a", {"a": Shift(1, 0)}, pd.DataFrame(), shape=(8, 8)).apply(stack)
    >>> bool((moved.red[0, 2] == stack.red[0, 3]).all())
    True
    """
    check_stack(stack)
    if resampling not in KINDS:
        raise ConfigError(f"resampling {resampling!r} is unknown; choose one of {', '.join(KINDS)}.")
    shape = (stack.sizes["y"], stack.sizes["x"])
    _check_grid(alignment, stack, shape)
    if "scene" not in stack.coords:
        raise StackError("the stack has no `scene` coordinate; an alignment finds its scenes by it. Use new_stack.")
    names = [str(v) for v in stack["scene"].values]
    places = [k for k, name in enumerate(names) if name in alignment.warps]
    left_out = [name for name in names if name not in alignment.warps]
    if not places:
        raise NoUsableData(f"none of the {len(names)} scenes of the stack has a warp in this alignment.")
    if left_out:
        log.warning("left out, because they have no warp: %s", ", ".join(left_out))
    kept = stack.isel(time=places)
    warps = [alignment.warps[names[k]] for k in places]
    gain = float(np.mean([mean_gain(resampling, warp, shape) for warp in warps]))
    bands = {}
    for name, band in stack.data_vars.items():
        band = band.transpose("time", "y", "x")
        slices = [
            xr.DataArray(_pulled(band.isel(time=k).data, warp, shape, resampling), dims=("y", "x"))
            for k, warp in zip(places, warps)
        ]
        attrs = dict(band.attrs)
        if "enl" in attrs:
            attrs["enl"] = float(attrs["enl"]) / gain
        data = xr.concat(slices, dim="time").transpose("time", "y", "x").data
        bands[name] = xr.Variable(("time", "y", "x"), data, attrs, band.encoding)
    return kept.assign(bands).assign_coords(sigma_px=("time", _sigma(alignment, [names[k] for k in places])))


def _pulled(image, warp, shape, resampling):
    if warp == Shift(0.0, 0.0):
        return image
    return chunked.pull(image, warp, shape, resampling=resampling)


def mean_gain(resampling, warp, shape) -> float:
    """Noise variance after over before resampling, averaged over the image."""
    rows, cols = np.meshgrid(*(np.linspace(0, n - 1, 11) for n in shape), indexing="ij")
    r, c = warp.pull(rows, cols)
    return float(np.mean([noise_gain(resampling, dy, dx) for dy, dx in zip((r - rows).flat, (c - cols).flat)]))


def _check_grid(alignment, stack, shape):
    if tuple(alignment.shape) != shape:
        raise StackError(f"the alignment belongs to a grid of {tuple(alignment.shape)} px, the stack has {shape}.")
    here = geobox_of(stack)
    if alignment.geobox is not None and here is not None and here != alignment.geobox:
        raise StackError(
            f"the stack's grid ({here.crs}, {tuple(here.affine[:6])}) is not the alignment's "
            f"({alignment.geobox.crs}, {tuple(alignment.geobox.affine[:6])}); open the stack with like= the same grid."
        )


def _sigma(alignment, names):
    table = alignment.report
    if "sigma_px" not in table:
        return np.full(len(names), np.nan)
    by_name = dict(zip(table["scene"].astype(str), table["sigma_px"].astype(float)))
    return np.array([by_name.get(name, np.nan) for name in names])
