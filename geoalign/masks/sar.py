"""SAR screening: near-zero power at borders, layover and shadow, incidence angles."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from geoalign.errors import ConfigError
from geoalign.masks.optical import drop, gaps_grown


def screen(stack, *, floor_db=-50.0, dilate_px=0, layover=None, incidence=None, incidence_range=(20.0, 46.0)):
    """A SAR Stack without what is not usable.

    Parameters
    ----------
    stack : Dataset (time, y, x)
        Linear power.
    floor_db : float
        A pixel with any band below this is dropped in all bands: border noise and zeros that were resampled. Calm
        water lies at -25 to -35 dB and stays. None turns it off (values that are not positive are dropped anyway).
    dilate_px : float
        Gaps grow by a disc of this radius, px: the ragged border of Sentinel-1 scenes before 2018 needs some 10-30 px.
    layover : array or DataArray (y, x), optional
        True where layover or shadow falls; dropped in every scene (one stack has one orbit).
    incidence : array or DataArray (y, x), optional
        Incidence angle, degrees; pixels outside `incidence_range` are dropped.
    incidence_range : (low, high)
        Degrees; the default holds the whole IW swath (29-46).

    Returns
    -------
    Dataset like `stack`; lazy where it is.
    """
    if dilate_px < 0:
        raise ConfigError(f"dilate_px={dilate_px!r}: give 0 or more px.")
    low = 0.0 if floor_db is None else 10.0 ** (float(floor_db) / 10.0)
    bad = xr.zeros_like(stack[next(iter(stack.data_vars))], dtype=bool)
    for name in stack.data_vars:
        bad = bad | (stack[name] < low) | (stack[name] <= 0)
    if layover is not None:
        bad = bad | _plane(layover, stack, "layover").astype(bool)
    if incidence is not None:
        angle = _plane(incidence, stack, "incidence")
        bad = bad | ~((angle >= incidence_range[0]) & (angle <= incidence_range[1]))
    out = drop(stack, bad)
    if dilate_px:
        out = drop(out, gaps_grown(out, dilate_px))
    options = {"floor_db": floor_db, "dilate_px": dilate_px, "layover": layover is not None}
    options |= {"incidence_range": list(incidence_range) if incidence is not None else None}
    out.attrs["masked"] = json.dumps({"sensor": "sar", **options})
    return out


def _plane(values, stack, name):
    data = values.data if isinstance(values, xr.DataArray) else np.asarray(values)
    shape = (stack.sizes["y"], stack.sizes["x"])
    if tuple(data.shape) != shape:
        raise ConfigError(f"{name} has shape {tuple(data.shape)}; the stack's grid is {shape} (y, x).")
    return xr.DataArray(data, dims=("y", "x"))
