"""State: what a watching detector has learned so far, an `xarray.Dataset` with dims (y, x).

Its variables are the detector's own.
Only numbers and dates, so that it can be stored, compared bit for bit and read by another version: no pickles, ever.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from geoalign.errors import StateError

VERSION = 1
"""Version of the layout; a state from a newer one is refused."""

_ATTRS = ("detector", "state_version", "last_time", "n_scenes")


def new_state(variables, *, detector: str, last_time, n_scenes: int, coords=None) -> xr.Dataset:
    """A State from a detector's layers.

    Parameters
    ----------
    variables : dict[str, DataArray (..., y, x)]
        Numbers, booleans or datetime64, NumPy or dask.
    detector : str
        The detector's repr; `check_state` refuses the state to any other.
    last_time : datetime64
        Time of the last scene folded in.
    n_scenes : int
        Scenes folded in.
    coords : mapping, optional
        Coordinates (y, x, spatial_ref) to take over from the stack.

    Raises
    ------
    StateError
        No variables, a variable without (y, x), or one of objects.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> level = xr.DataArray(np.zeros((2, 3), "f4"), dims=("y", "x"))
    >>> state = new_state({"level": level}, detector="Ewma()", last_time="2024-01-01", n_scenes=4)
    >>> check_state(state, detector="Ewma()").attrs["n_scenes"]
    4
    """
    if not variables:
        raise StateError("a State needs at least one variable of its detector.")
    state = xr.Dataset(dict(variables))
    if coords is not None:
        state = state.assign_coords({k: v for k, v in coords.items() if set(v.dims) <= {"y", "x"}})
    state.attrs = {
        "detector": detector,
        "state_version": VERSION,
        "last_time": str(np.datetime64(last_time, "ns")),
        "n_scenes": int(n_scenes),
    }
    return check_state(state, detector=detector)


def check_state(state, *, detector: str | None = None, variables=()) -> xr.Dataset:
    """The State itself, or StateError saying why it does not fit.

    detector : the repr it must belong to; variables : names that must be there
    """
    if not isinstance(state, xr.Dataset):
        raise StateError(f"a State is an xarray.Dataset (y, x), got {type(state).__name__}.")
    absent = [name for name in _ATTRS if name not in state.attrs]
    if absent:
        raise StateError(f"a State needs the attributes {', '.join(_ATTRS)}; {', '.join(absent)} is missing.")
    if int(state.attrs["state_version"]) > VERSION:
        raise StateError(
            f"the state is of version {state.attrs['state_version']}, this geoalign reads up to {VERSION}. Upgrade it."
        )
    for name, layer in state.variables.items():
        if name in state.coords:
            continue
        if layer.dims[-2:] != ("y", "x"):
            raise StateError(f"{name} has dims {layer.dims}; a State's variables end with (y, x).")
        if layer.dtype.kind not in "biufM":
            raise StateError(f"{name} is {layer.dtype}; a State holds numbers, booleans and datetime64 only.")
    missing = [name for name in variables if name not in state]
    if missing:
        raise StateError(f"the state has no {', '.join(missing)} (it has {', '.join(map(str, state.data_vars))}).")
    if detector is not None and state.attrs["detector"] != detector:
        raise StateError(
            f"the state was made by {state.attrs['detector']}, not by {detector}. Use the same options, or start anew."
        )
    return state
