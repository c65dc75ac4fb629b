"""What the detectors that follow a series share: which series, which part of it, and what a residual shift adds."""

from __future__ import annotations

from numbers import Number

import numpy as np
import pandas as pd
import xarray as xr

from geoalign.chunked import neighbourhood
from geoalign.errors import ConfigError, StackError
from geoalign.indices import INDICES, index, possible
from geoalign.kernels.gradient import median_gradient
from geoalign.types.stack import SAR_BANDS, is_sar

DAYS_A_YEAR = 365.25


def check_options(detector):
    """The options that series detectors share are in range, or ConfigError."""
    for name in ("alpha", "prior"):
        value = getattr(detector, name)
        if not (np.isscalar(value) and 0 < value < 1):
            raise ConfigError(f"{name} is {value!r}; it is a chance strictly between 0 and 1, as 0.01.")
    if getattr(detector, "order", None) not in (None, 0, 1, 2, 3):
        raise ConfigError(f"order is {detector.order!r}; 0 to 3 harmonics of the year are possible, or None.")
    history = getattr(detector, "history", None)
    if history is not None and not history > 0:
        raise ConfigError(f"history is {history!r}; it is a number of days, or None for all there is.")
    check_dates(detector)


def check_dates(detector):
    """`since` and `until` are dates, or ConfigError. A bare number is none: pandas would take 2014 for nanoseconds."""
    for name in ("since", "until"):
        value = getattr(detector, name)
        if value is None:
            continue
        try:
            known = not isinstance(value, Number) and np.isfinite(moment(value).astype("datetime64[D]").astype(float))
        except (ValueError, TypeError):
            known = False
        if not known:
            raise ConfigError(f"{name} is {value!r}; it is a date, as '2024-05-01'.")


def part(stack, since, until, history):
    """The scenes that are asked about, and where their history ends.

    Returns the stack from `history` days before `since` up to `until`, and the number of its first watched scene:
    positive where `since` is given; else minus the number of scenes in the first `history` days (a year, or half the
    series where that is shorter), which a pixel with too few observations may go beyond.
    """
    time = stack.time.values
    if until is not None:
        stack = up_to(stack, until)
        time = stack.time.values
    if since is not None:
        begin = moment(since)
        if history is not None:
            stack = stack.isel(time=np.flatnonzero(time >= begin - np.timedelta64(round(history * 86400), "s")))
            time = stack.time.values
        first = int((time < begin).sum())
        if first == 0:
            raise StackError(
                f"since {since} leaves no history: the first scene is of {str(time[0])[:10]}. Choose a later date."
            )
        return stack, first
    span = (time[-1] - time[0]) / np.timedelta64(1, "D")
    days = history if history is not None else min(DAYS_A_YEAR, span / 2)
    return stack, -max(1, int(((time - time[0]) / np.timedelta64(1, "D") < days).sum()))


def up_to(stack, until):
    """The scenes of a stack up to a date; at least one, or StackError."""
    time = stack.time.values
    kept = np.flatnonzero(time <= moment(until))
    if kept.size == 0:
        raise StackError(f"until {until} leaves no scene; the first is of {str(time[0])[:10]}. Choose a later date.")
    return stack.isel(time=kept)


def years(time):
    """Fractional years since 2000 of datetime64 times: the season has one phase in leap years and others."""
    return (np.asarray(time) - np.datetime64("2000-01-01", "ns")) / np.timedelta64(1, "D") / DAYS_A_YEAR


def order_of(order, units, time, first):
    """Harmonics to use: as given; None takes two, for backscatter one, or none with under 0.8 years of history.

    Backscatter has little season; a season that a short history can't tell from change would hide both.
    """
    if order is not None:
        return order
    if units != "dB":
        return 2
    return 1 if (time[min(abs(first), time.size) - 1] - time[0]) / np.timedelta64(1, "D") > 0.8 * DAYS_A_YEAR else 0


def series_of(stack, name):
    """The one series that a detector follows: a band, an index, or what the stack's bands suggest.

    Returns a DataArray (time, y, x) and its unit. Backscatter is turned to dB, where its noise is even.
    """
    bands = list(stack.data_vars)
    if name is None:
        if len(bands) == 1:
            name = bands[0]
        elif is_sar(stack):
            name = next((b for b in ("vh", "hv") if b in bands), bands[0])
        elif "red" in bands and "nir" in bands:
            name = "ndvi"
        else:
            named = ", ".join(possible(stack)) or "the indices (none is possible with these bands)"
            raise StackError(
                f"which series is meant? The stack has the bands {', '.join(map(str, bands))}; choose with "
                f"index=..., a band or one of {named}."
            )
    if name in stack:
        series = stack[name]
        return (_decibel(series), "dB") if name in SAR_BANDS else (series, series.attrs.get("units", "1"))
    if name in INDICES:
        return index(stack, name), "1"
    raise ConfigError(
        f"index {name!r} is neither a band ({', '.join(map(str, bands))}) nor one of {', '.join(INDICES)}."
    )


def widening(stack, series):
    """What a residual shift adds to the noise: squared gradient of the median image (y, x), squared sigma_px (time,).

    Zeros without the coordinate `sigma_px`. Where that varies over the image, its mean square over time is taken into
    the first.
    """
    n_time = stack.sizes["time"]
    if "sigma_px" not in stack.coords:
        return xr.zeros_like(series.isel(time=0, drop=True)), np.zeros(n_time)
    squared = stack.sigma_px.fillna(0.0).astype("float64") ** 2
    steep = neighbourhood(
        median_gradient, series.transpose("time", "y", "x"), depth=1, outputs={"steep": "float32"}
    ).steep
    if squared.dims == ("time",):
        return steep, np.asarray(squared.values)
    return (steep * squared.mean("time").reset_coords(drop=True)).astype("float32"), np.ones(n_time)


def _decibel(series):
    with xr.set_options(keep_attrs=True):
        out = xr.apply_ufunc(_to_db, series, dask="parallelized", output_dtypes=[np.float32])
    return out.assign_attrs(units="dB")


def _to_db(power):
    seen = power > 0
    return np.where(seen, 10 * np.log10(np.where(seen, power, 1)), np.nan).astype(np.float32)


def moment(value):
    """A date as naive UTC datetime64[ns]."""
    return np.datetime64(pd.Timestamp(value).tz_localize(None) if pd.Timestamp(value).tz is None else
                         pd.Timestamp(value).tz_convert("UTC").tz_localize(None), "ns")  # fmt: skip
