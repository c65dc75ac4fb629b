"""Changes: what every detector returns, an `xarray.Dataset` with dims (y, x).

Made by `new_changes`, checked by `check_changes`, the same for every detector.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from geoalign.errors import StateError
from geoalign.kernels.dates import day_numbers, times_of

NO_CHANGE, FIRST, PROVISIONAL, CONFIRMED, ENDED, NOT_OBSERVABLE = 0, 1, 2, 3, 4, 255
STATUS = {
    NO_CHANGE: "no_change",
    FIRST: "first",
    PROVISIONAL: "provisional",
    CONFIRMED: "confirmed",
    ENDED: "ended",
    NOT_OBSERVABLE: "not_observable",
}

WHY = {
    "no_data": 1,
    "too_few": 2,
    "cloud": 4,
    "shadow": 8,
    "misregistered": 16,
    "not_detectable": 32,
    "unlocated": 64,
    "fallback_threshold": 128,
    "excluded": 256,
}
"""Bits of `why`: a pixel that is 255 has at least one; elsewhere they mark a doubtful answer.

no_data never observed; too_few observations; cloud, shadow (masked at the dates that matter); misregistered (the
residual shift explains what is seen); not_detectable (observed, but this kind of change would not show here);
unlocated (change certain, date not); fallback_threshold; excluded by a given mask.
"""

WHY_TEXT = {
    "no_data": "never observed",
    "too_few": "too few usable observations",
    "cloud": "cloud at the dates that matter",
    "shadow": "shadow at the dates that matter",
    "misregistered": "the residual shift explains what is seen",
    "not_detectable": "this kind of change would not show here",
    "unlocated": "change certain, its date not",
    "fallback_threshold": "threshold taken from a fallback, not from this image",
    "excluded": "excluded by a mask",
}
"""The reasons in words."""

VARIABLES = {
    "status": np.uint8,
    "date": np.dtype("datetime64[ns]"),
    "date_after": np.dtype("datetime64[ns]"),
    "date_by": np.dtype("datetime64[ns]"),
    "magnitude": np.float32,
    "direction": np.int8,
    "probability": np.float32,
    "n_obs": np.uint16,
    "why": np.uint16,
}

_LONG_NAMES = {
    "status": "status of the change",
    "date": "first changed observation",
    "date_after": "last observation before the change",
    "date_by": "observation by which it had changed",
    "magnitude": "size of the change",
    "direction": "direction of the change (-1 down, 1 up, 0 mixed)",
    "probability": "calibrated probability of change",
    "n_obs": "usable observations",
    "why": "why it is not observable, or doubtful",
}


def new_changes(variables, *, kind, detector, prior=None, magnitude_units="1", inputs=(), coords=None) -> xr.Dataset:
    """Changes from a detector's layers. Types and attributes are set here, so that every detector's are the same.

    Parameters
    ----------
    variables : dict[str, DataArray (y, x)]
        All of `VARIABLES`; further ones (`n_changes`, `break_date`, ...) are kept as they are.
    kind : str
        What changed: "flood", "deforestation", "urbanization", "change", ...
    detector : str
        The detector's repr.
    prior : float, optional
        Share of change that `probability` assumes.
    magnitude_units : str
        e.g. "dB", "1".
    inputs : sequence of scene ids
    coords : mapping, optional
        Coordinates (y, x, spatial_ref) to take over from the stack; those of `status` by default.

    Returns
    -------
    Dataset (y, x), lazy where the variables are. Where nothing changed `date*` are NaT, `magnitude` and `direction`
    are what the detector measured, or NaN and 0.
    """
    absent = [name for name in VARIABLES if name not in variables]
    if absent:
        raise StateError(f"a detector must give {', '.join(VARIABLES)}; {', '.join(absent)} is missing.")
    out = xr.Dataset({name: _typed(array, VARIABLES.get(name)) for name, array in variables.items()})
    if coords is not None:
        out = out.assign_coords({k: v for k, v in coords.items() if set(v.dims) <= {"y", "x"}})
    out = out.drop_vars([k for k in out.coords if k not in ("y", "x", "spatial_ref", "longitude", "latitude", "break")])
    for name, text in _LONG_NAMES.items():
        out[name].attrs = {"long_name": text}
    out.status.attrs |= {
        "flag_values": np.array(list(STATUS), np.uint8),
        "flag_meanings": " ".join(STATUS.values()),
    }
    out.why.attrs |= {"flag_masks": np.array(list(WHY.values()), np.uint16), "flag_meanings": " ".join(WHY)}
    out.magnitude.attrs["units"] = magnitude_units
    out.probability.attrs["units"] = "1"
    out.n_obs.attrs["units"] = "1"
    if "spatial_ref" in out.coords:
        for name in out.data_vars:
            out[name].encoding["grid_mapping"] = "spatial_ref"
    from geoalign import __version__

    out.attrs = {
        "kind": kind,
        "detector": detector,
        "prior": float("nan") if prior is None else float(prior),
        "geoalign_version": __version__,
        "inputs": " ".join(str(s) for s in inputs),
    }
    return out


def check_changes(changes, *, values: bool = False) -> xr.Dataset:
    """The Changes themselves, or StateError naming what is missing, of the wrong type or, with `values`, inconsistent.

    `values=True` computes and checks the promises between layers: known status codes, a date exactly where something
    changed (status 1 to 4), date_after < date <= date_by where both are known, probability in 0..1, and a reason
    wherever status is 255.
    """
    if not isinstance(changes, xr.Dataset):
        raise StateError(f"Changes are an xarray.Dataset (y, x), got {type(changes).__name__}.")
    for name, dtype in VARIABLES.items():
        if name not in changes:
            raise StateError(
                f"Changes need the variable {name!r} (they have {', '.join(map(str, changes.data_vars))})."
            )
        if changes[name].dims != ("y", "x"):
            raise StateError(f"{name} has dims {changes[name].dims}, expected ('y', 'x').")
        same = changes[name].dtype.kind == "M" if np.dtype(dtype).kind == "M" else changes[name].dtype == dtype
        if not same:
            raise StateError(f"{name} is {changes[name].dtype}, expected {np.dtype(dtype)}.")
    for attr in ("kind", "detector", "prior", "geoalign_version", "inputs"):
        if attr not in changes.attrs:
            raise StateError(f"Changes need the attribute {attr!r}; make them with new_changes.")
    if values:
        _check_values(changes.compute())
    return changes


def changed(changes) -> xr.DataArray:
    """Where something changed: status confirmed or ended, (y, x) bool."""
    return (changes.status == CONFIRMED) | (changes.status == ENDED)


def dates_at(index, time) -> xr.DataArray:
    """Dates of acquisition numbers: `index` (..., y, x) integer, below 0 for none -> datetime64[ns], NaT for none."""
    stamps = np.asarray(time, "datetime64[ns]")
    if isinstance(index.data, da.Array):
        return index.copy(data=index.data.map_blocks(stamps_at, stamps=stamps, dtype="datetime64[ns]"))
    return index.copy(data=stamps_at(index.data, stamps))


def stamps_at(index, stamps) -> np.ndarray:
    """`dates_at` for arrays: datetime64[ns] of the shape of `index`."""
    numbers = np.ascontiguousarray(index).reshape(-1)
    return times_of(numbers, stamps.view(np.int64)).view("datetime64[ns]").reshape(index.shape)


def days_since_1970(stamps, none: int) -> np.ndarray:
    """datetime64 array as int32 days since 1970-01-01, `none` for NaT: how dates are stored and counted."""
    stamps = np.asarray(stamps)
    if stamps.dtype != "datetime64[ns]":
        days = stamps.astype("datetime64[D]").astype(np.int64)
        return np.where(np.isnat(stamps), none, days).astype(np.int32)
    times = np.ascontiguousarray(stamps).reshape(-1).view(np.int64)
    return day_numbers(times, np.int32(none)).reshape(stamps.shape)


def why_names(bits) -> list[str]:
    """Names of the reasons in one value of `why`."""
    return [name for name, bit in WHY.items() if int(bits) & bit]


def _typed(array, dtype):
    if dtype is None or array.dtype == dtype:
        return array
    return array.astype(dtype)


def _check_values(c):
    status = c.status.values
    unknown = set(np.unique(status).tolist()) - set(STATUS)
    if unknown:
        raise StateError(f"status holds {sorted(unknown)}; known codes are {sorted(STATUS)}.")
    has = (status >= FIRST) & (status <= ENDED)
    unlocated = (c.why.values & WHY["unlocated"]) > 0
    dated = ~np.isnat(c.date.values)
    if (dated & ~has).any() or (has & ~dated & ~unlocated).any():
        raise StateError("a date is needed exactly where something changed (status 1 to 4).")
    after, by = c.date_after.values, c.date_by.values
    if (dated & ~np.isnat(after) & (after >= c.date.values)).any():
        raise StateError("date_after must lie before date.")
    if (dated & ~np.isnat(by) & (c.date.values > by)).any():
        raise StateError("date must not lie after date_by.")
    p = c.probability.values
    if ((p < 0) | (p > 1)).any():
        raise StateError("probability must lie in 0..1.")
    if ((status == NOT_OBSERVABLE) & (c.why.values == 0)).any():
        raise StateError("a pixel that is not observable needs a reason in `why`.")
