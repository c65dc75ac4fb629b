"""Smooth curves through gappy series, to look at: detectors take the series as they are."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geoalign.chunked import per_pixel
from geoalign.errors import ConfigError
from geoalign.kernels.whittaker import penalty
from geoalign.kernels.whittaker import smooth as whittaker
from geoalign.types.stack import check_stack


def smooth(stack, *, days: float = 90.0, gap_days: float = 180.0) -> xr.Dataset:
    """A smooth curve through every pixel's series, gaps filled where they are short: for display.

    Parameters
    ----------
    stack : Stack (time, y, x)
        Any dates; clouds masked as far as they are known. Never changed.
    days : float
        Swings that take so long are halved, shorter ones fade: at 90 a season stays as it is, the noise of single dates
        goes. The same whether a pixel was observed often or seldom.
    gap_days : float
        Between observations further apart the curve is left out (NaN).

    Returns
    -------
    Stack of the same scenes and bands, lazy where the input is: values of the curve, filled where an observation is
    missing between two others. NaN before the first and after the last observation, and for pixels with fewer than
    four. Single undetected clouds are passed by; a step becomes a ramp of about half of `days`, so look for changes in
    the series themselves.

    Raises
    ------
    ConfigError where `days` or `gap_days` is not above zero; StackError where this is no Stack.

    References
    ----------
    Eilers (2003), doi:10.1021/ac034173t. We differ in divided differences, so that dates need not be even, in the
    strength given as a time, and in Tukey's bisquare weights.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2022-01-01", "2024-01-01", 10, "datetime64[D]")
    >>> true = 0.5 + 0.2 * np.sin(2 * np.pi * np.arange(time.size) / 36.5)
    >>> ndvi = true + np.random.default_rng(0).normal(0, 0.03, time.size)
    >>> ndvi[20:24], ndvi[40] = np.nan, -0.2
    >>> smoothed = smooth(new_stack({"ndvi": ndvi[:, None, None]}, time))
    >>> bool(np.abs(smoothed.ndvi[:, 0, 0] - true).max() < 0.06)
    True
    """
    check_stack(stack)
    for name, value in (("days", days), ("gap_days", gap_days)):
        if not value > 0:
            raise ConfigError(f"{name} is {value!r}; it is a number of days above 0.")
    when = (stack.time.values - stack.time.values[0]) / np.timedelta64(1, "D")
    # scenes of one pass count as half a day apart: a curve through two of them would be beyond all numbers
    when = _apart(when, 0.5)
    out = {}
    for name in stack.data_vars:
        band = stack[name].transpose("time", "y", "x")
        found = per_pixel(
            whittaker, band.reset_coords(drop=True), outputs={name: ("float32", "date", when.size)},
            days=when, curved=penalty(when), stiff=(float(days) / (2 * np.pi)) ** 4, gap_days=float(gap_days),
        )[name].transpose("date", "y", "x")  # fmt: skip
        out[name] = xr.Variable(("time", "y", "x"), found.data, stack[name].attrs, stack[name].encoding)
    return stack.assign(out)


def _apart(days, least):
    """Increasing days, each at least so far from the one before."""
    out = np.array(days, np.float64)
    for i in range(1, out.size):
        out[i] = max(out[i], out[i - 1] + least)
    return out
