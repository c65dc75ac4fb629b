"""Stack: scenes of one kind of sensor on one grid, an `xarray.Dataset` with dims (time, y, x).

One float32 variable per band; NaN means *not observed* and is the only way to say so. SAR is linear power, reflectance
0-1. `time` is UTC, naive, sorted and unique; `scene`, `sensor`, `orbit` lie along it. The grid is `stack.odc.geobox`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import odc.geo.xr  # registers the `.odc` accessor
import pandas as pd
import xarray as xr

from geoalign.errors import StackError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

SAR_BANDS = ("vv", "vh", "hh", "hv")
"""Names that mark a band as SAR backscatter, in linear power."""

DIMS = ("time", "y", "x")

PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value", "nodata")
"""Attributes that say how integers are to be read (CF, and `nodata` of rasters)."""


def new_stack(bands, time, *, geobox=None, scene=None, sensor=None, orbit=None) -> xr.Dataset:
    """A Stack from arrays. Checks shapes and times; never rescales, sorts or drops values.

    Parameters
    ----------
    bands : dict[str, array (time, y, x)]
        NumPy or dask; float32 afterwards. NaN = not observed.
    time : sequence of datetimes, (time,)
        UTC. Aware times are converted to UTC and made naive. Sorted and unique, or StackError.
    geobox : odc.geo.geobox.GeoBox, optional
        The grid. Without one the stack has no CRS and its coordinates count pixels.
    scene : sequence of str, optional
        Scene ids; by default the time of each scene.
    sensor, orbit : str/int or sequence, optional
        Sensor name and relative orbit along time; "" and -1 where unknown.

    Raises
    ------
    StackError
        For unequal shapes, wrong number of dimensions, unsorted or repeated times, repeated scene ids, packed integers
        (a scale or nodata among their attrs).

    Examples
    --------
    >>> import numpy as np
    >>> stack = new_stack({"vv": np.ones((2, 4, 5))}, ["2024-01-01", "2024-01-13"])
    >>> dict(stack.sizes)
    {'time': 2, 'y': 4, 'x': 5}
    """
    if not bands:
        raise StackError("no bands were given; a stack needs at least one, as {'vv': array of (time, y, x)}.")
    shapes = {name: tuple(values.shape) for name, values in bands.items()}
    if any(len(shape) != 3 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        seen = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise StackError(f"bands need one common shape (time, y, x), got {seen}.")
    n_time, n_y, n_x = next(iter(shapes.values()))
    stamps = utc_naive(time)
    if stamps.size != n_time:
        raise StackError(f"{stamps.size} times were given for bands of {n_time} scenes; give one time a scene.")
    _check_times(stamps)
    if geobox is not None and tuple(geobox.shape) != (n_y, n_x):
        raise StackError(f"the geobox has shape {tuple(geobox.shape)}, the bands have {(n_y, n_x)} (y, x).")

    scene_ids = np.asarray(scene if scene is not None else [_name_time(t) for t in stamps], dtype=object)
    if scene_ids.shape != (n_time,) or len(set(scene_ids)) != n_time:
        raise StackError(f"scene ids must be {n_time} different names, got {list(scene_ids)}.")
    coords = {
        "time": stamps,
        "scene": ("time", scene_ids.astype(str)),
        "sensor": ("time", _along(sensor, n_time, "", str, "sensor")),
        "orbit": ("time", _along(orbit, n_time, -1, np.int32, "orbit")),
    }
    coords.update(grid_coords(geobox, (n_y, n_x)))
    for name, values in bands.items():
        _check_decoded(name, values)
    variables = {name: (DIMS, _float32(values), dict(getattr(values, "attrs", {}))) for name, values in bands.items()}
    stack = xr.Dataset(variables, coords=coords)
    if geobox is not None:
        for name in stack.data_vars:
            stack[name].encoding["grid_mapping"] = "spatial_ref"
    return stack


def check_stack(stack, *, bands=(), min_scenes: int = 1) -> xr.Dataset:
    """The stack itself, or StackError saying what keeps it from being one.

    Parameters
    ----------
    stack : Dataset (time, y, x)
    bands : names that must be present
    min_scenes : scenes it must hold at the least
    """
    if not isinstance(stack, xr.Dataset):
        raise StackError(f"a Stack (xarray.Dataset with dims time, y, x) is needed, got {type(stack).__name__}.")
    missing = [dim for dim in DIMS if dim not in stack.dims]
    if missing:
        raise StackError(f"a Stack has dims (time, y, x); {', '.join(missing)} is missing (dims: {tuple(stack.dims)}).")
    absent = [name for name in bands if name not in stack]
    if absent:
        raise StackError(
            f"band {', '.join(map(repr, absent))} is missing (bands: {', '.join(map(str, stack.data_vars))})."
        )
    for name, variable in stack.data_vars.items():
        if set(variable.dims) != set(DIMS):
            raise StackError(f"band {name!r} has dims {variable.dims}; a Stack's bands have (time, y, x).")
        _check_decoded(name, variable)
    if stack.sizes["time"] < min_scenes:
        raise StackError(f"{min_scenes} scenes are needed at the least, the stack has {stack.sizes['time']}.")
    _check_times(stack.time.values)
    return stack


def _check_decoded(name, values):
    """StackError for packed integers: their attrs tell a scale or nodata that nobody has applied."""
    told = [key for key in PACKED if key in getattr(values, "attrs", {})]
    if told and np.issubdtype(values.dtype, np.integer):
        seen = ", ".join(f"{key} {values.attrs[key]}" for key in told)
        raise StackError(
            f"band {name!r} holds {values.dtype} that is still packed ({seen}); a Stack holds values, NaN = not "
            "observed. Unpack it first: xarray.decode_cf(dataset), or open the file with geoalign.open_stack."
        )


def is_sar(stack) -> bool:
    """True where every band of the stack is SAR backscatter by name (vv, vh, hh, hv)."""
    return all(name in SAR_BANDS for name in stack.data_vars) and len(stack.data_vars) > 0


def geobox_of(data) -> GeoBox | None:
    """The GeoBox of a Stack, Changes or DataArray; None where it has no CRS."""
    try:
        box = data.odc.geobox
    except (AttributeError, ValueError):
        return None
    return box if box is not None and box.crs is not None else None


def transform_of(data):
    """Affine transform (col, row) of pixel corners -> x, y; from the coordinates y, x where there is no CRS."""
    from affine import Affine

    box = geobox_of(data)
    if box is not None:
        return box.affine
    x, y = np.asarray(data.x, float), np.asarray(data.y, float)
    d_x, d_y = (float(v[1] - v[0]) if v.size > 1 else 1.0 for v in (x, y))
    return Affine(d_x, 0.0, x[0] - d_x / 2, 0.0, d_y, y[0] - d_y / 2)


def pixel_size_m(data) -> float | None:
    """Side of a pixel in metres (geometric mean of the two sides), None where the grid has no CRS in metres."""
    box = geobox_of(data)
    if box is None or not box.crs.projected:
        return None
    return float(np.sqrt(abs(box.resolution.x * box.resolution.y)))


def grid_coords(geobox, shape) -> dict:
    """Coordinates y, x (and spatial_ref) of a grid; pixel numbers where there is no geobox."""
    if geobox is not None:
        return dict(odc.geo.xr.xr_coords(geobox, dims=("y", "x")))
    return {"y": ("y", np.arange(shape[0], dtype=float)), "x": ("x", np.arange(shape[1], dtype=float))}


def utc_naive(time) -> np.ndarray:
    """Any sequence of times as naive UTC datetime64[ns]; StackError where one can't be read."""
    try:
        index = pd.DatetimeIndex(pd.to_datetime(list(np.atleast_1d(time)), utc=True, format="ISO8601"))
    except (ValueError, TypeError) as err:
        raise StackError(f"these times can't be read: {time!r} ({err}). Give ISO 8601 or datetime64, in UTC.") from err
    if index.hasnans:
        raise StackError(f"a time is missing (NaT) among {list(time)}; every scene needs one.")
    return index.tz_localize(None).values.astype("datetime64[ns]")


def _check_times(stamps):
    steps = np.diff(stamps.astype("datetime64[ns]").astype(np.int64))
    if (steps == 0).any():
        at = stamps[1:][steps == 0][0]
        raise StackError(
            f"time {_name_time(at)} is there twice; times must be unique. Merge or drop one of the scenes."
        )
    if (steps < 0).any():
        at = stamps[1:][steps < 0][0]
        raise StackError(f"times must be sorted; {_name_time(at)} comes after a later one. Use stack.sortby('time').")


def _name_time(stamp) -> str:
    return pd.Timestamp(stamp).strftime("%Y-%m-%dT%H:%M:%S")


def _along(value, n, default, dtype, name):
    if value is None:
        value = default
    values = np.asarray(value)
    if values.ndim == 0:
        values = np.full(n, values)
    if values.shape != (n,):
        raise StackError(f"{name} must be one value or {n} of them, got shape {values.shape}.")
    return values.astype(dtype)


def _float32(values):
    values = getattr(values, "data", values) if isinstance(values, xr.DataArray) else values
    return values if values.dtype == np.float32 else values.astype(np.float32)
