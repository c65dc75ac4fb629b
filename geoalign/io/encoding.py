"""How each layer of Changes looks in a file: type, nodata, units, overviews, and the way back without loss."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from geoalign.errors import ConfigError, StateError
from geoalign.io.atomic import safe_name
from geoalign.types.changes import NOT_OBSERVABLE, days_since_1970

DATE_ENCODINGS = {
    "days": "days since 1970-01-01",
    "yyyymmdd": "date as the number yyyymmdd",
    "year": "calendar year",
}
"""Name of each way to store a date as int32, 0 = none, and its unit tag. `year` loses the day."""

NODATA = {"status": NOT_OBSERVABLE}
"""Nodata of layers for which the rule by type is not meant. Status 255 is a code, `not observable`, which is what a
GIS calls nodata: it draws nothing there and leaves the pixels out of its counts. The code itself stays in the file."""

_AVERAGED = ("magnitude", "probability", "n_obs")


@dataclass(frozen=True)
class Layer:
    """A layer in its file.

    name, file : variable and file name
    dim, size : the dimension before (y, x), as bands, and its length; "" and 1 for none
    dtype, stored : type in memory and in the file
    nodata : the value in the file that means none
    units, title : unit tag and band description
    dates : key of DATE_ENCODINGS, "" where the layer holds no dates
    attrs : attributes of the variable
    """

    name: str
    file: str
    dim: str
    size: int
    dtype: str
    stored: str
    nodata: float
    units: str
    title: str
    dates: str
    attrs: dict

    @property
    def overviews(self) -> str:
        """Resampling for overviews: averages of codes and dates mean nothing."""
        return "AVERAGE" if self.name in _AVERAGED or np.dtype(self.stored).kind == "f" else "NEAREST"

    @property
    def tags(self) -> dict[str, str]:
        """What `layer_from_tags` needs to read the layer again."""
        record = {key: getattr(self, key) for key in ("name", "dim", "dtype", "dates", "units", "title")}
        return {"GEOALIGN_LAYER": json.dumps(record | {"attrs": self.attrs})}

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Values (..., row, col) as they stand in the file."""
        if not self.dates:
            return values.astype(self.stored)
        days = days_since_1970(values, 0)
        if self.dates == "days":
            return days
        stamps = days.astype("datetime64[D]")
        year = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
        if self.dates == "year":
            return np.where(days == 0, 0, year).astype(np.int32)
        month = stamps.astype("datetime64[M]").astype(np.int64) % 12 + 1
        day = (stamps - stamps.astype("datetime64[M]")).astype(np.int64) + 1
        return np.where(days == 0, 0, year * 10000 + month * 100 + day).astype(np.int32)

    def decode(self, values: np.ndarray) -> np.ndarray:
        """The way back; a year comes back as its first day."""
        if not self.dates:
            return values.astype(self.dtype)
        days = values.astype("datetime64[D]")
        if self.dates != "days":
            year = values // 10000 if self.dates == "yyyymmdd" else values
            days = (year.astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]")
        if self.dates == "yyyymmdd":
            months = (year.astype(np.int64) - 1970) * 12 + values // 100 % 100 - 1
            days = months.astype("datetime64[M]").astype("datetime64[D]") + (values % 100 - 1).astype("timedelta64[D]")
        return np.where(values == 0, np.datetime64("NaT", "D"), days).astype(self.dtype)


def layer_of(name, variable, date_encoding: str) -> Layer:
    """How a variable of Changes is stored."""
    if date_encoding not in DATE_ENCODINGS:
        raise ConfigError(f"date_encoding is {date_encoding!r}; choose one of {', '.join(DATE_ENCODINGS)}.")
    lead = [dim for dim in variable.dims if dim not in ("y", "x")]
    if variable.dims[-2:] != ("y", "x") or len(lead) > 1:
        raise StateError(f"layer {name!r} has dims {variable.dims}; a raster can hold (y, x) or (one other, y, x).")
    dtype = variable.dtype
    dates = date_encoding if dtype.kind == "M" else ""
    stored, nodata = _stored(name, dtype)
    units = DATE_ENCODINGS[dates] if dates else str(variable.attrs.get("units", ""))
    title = str(variable.attrs.get("long_name", name))
    dtype_name = "datetime64[ns]" if dates else dtype.name
    size = variable.sizes[lead[0]] if lead else 1
    attrs = {key: _plain(value) for key, value in variable.attrs.items()}
    dim = str(lead[0]) if lead else ""
    return Layer(name, f"{safe_name(name)}.tif", dim, size, dtype_name, stored, nodata, units, title, dates, attrs)


def layer_from_tags(tags, count, dtype, nodata, file) -> Layer | None:
    """The layer a file holds, None where it was not written by `write_changes`."""
    if "GEOALIGN_LAYER" not in tags:
        return None
    try:
        return Layer(file=file, size=count, stored=dtype, nodata=nodata, **json.loads(tags["GEOALIGN_LAYER"]))
    except (ValueError, TypeError) as err:
        raise StateError(f"{file} says it is a layer of Changes, but its tags can't be read: {err}.") from err


def _stored(name, dtype):
    if dtype.kind == "M":
        return "int32", 0
    if dtype.kind == "f":
        return ("float64" if dtype.itemsize > 4 else "float32"), float("nan")
    if dtype.kind == "b":
        return "uint8", 255
    if dtype == np.int8:  # GDAL before 3.7 reads signed bytes as unsigned
        return "int16", int(np.iinfo(np.int16).min)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return dtype.name, NODATA.get(name, int(limits.max if dtype.kind == "u" else limits.min))
    raise StateError(f"layer {name!r} is of type {dtype}; a raster can hold numbers, flags and dates.")


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
