"""Optical screening: impossible values, wider gaps, and (asked for) one-date clouds and shadows."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from geoalign import chunked
from geoalign.errors import ConfigError
from geoalign.kernels.screen import excursions, grow

_REFLECTANCE = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "nir09",
    "swir1",
    "swir2",
)


def screen(stack, *, valid_range=(-0.2, 1.6), dilate_px=0, cloud_sigma=None, shadow_sigma=None):
    """An optical Stack without what is not usable.

    Parameters
    ----------
    stack : Dataset (time, y, x)
        Reflectance 0-1 in bands of those names; other bands (indices) are masked along, never tested.
    valid_range : (low, high)
        A pixel with any reflectance outside is dropped in all bands: saturation, glint, resampling of garbage. Noise
        of dark water reaches about -0.1, fresh snow 1.1. None turns it off.
    dilate_px : float
        Gaps (pixels with no band observed) grow by a disc of this radius, px: cloud masks stop short of thin edges.
        0 by default, because the edge of a scene grows too.
    cloud_sigma : float, optional
        Drop dates whose blue (else green, red) lies this many robust sigmas above the median of the pixel's series
        and whose neighbours in time do not; 5 is a sensible value. Needs five observations. Off by default.
    shadow_sigma : float, optional
        The same below the median, in near infrared (else swir1, red). Off by default: a flood seen once looks like
        that, and this would take it away.

    Returns
    -------
    Dataset like `stack`; lazy where it is.
    """
    if dilate_px < 0:
        raise ConfigError(f"dilate_px={dilate_px!r}: give 0 or more px.")
    options = {
        "valid_range": valid_range,
        "dilate_px": dilate_px,
        "cloud_sigma": cloud_sigma,
        "shadow_sigma": shadow_sigma,
    }
    bad = xr.zeros_like(stack[next(iter(stack.data_vars))], dtype=bool)
    if valid_range is not None:
        low, high = valid_range
        if not low < high:
            raise ConfigError(f"valid_range={valid_range!r}: give (low, high), e.g. (-0.2, 1.6).")
        for name in (n for n in stack.data_vars if n in _REFLECTANCE):
            band = stack[name].variable  # all lie on one grid: nothing has to be aligned
            bad = bad.copy(data=(bad.variable | (band < low) | (band > high)).data)
    for sigma, names, side in (
        (cloud_sigma, ("blue", "green", "red"), "cloud_sigma"),
        (shadow_sigma, ("nir", "nir08", "swir1", "red"), "shadow_sigma"),
    ):
        if sigma is None:
            continue
        found = next((n for n in names if n in stack), None)
        if found is None or sigma <= 0:
            raise ConfigError(f"{side}={sigma!r} needs a number above 0 and one of the bands {', '.join(names)}.")
        high, low = (float(sigma), np.inf) if side == "cloud_sigma" else (np.inf, float(sigma))
        bad = bad | _excursions(stack[found], high, low)
    out = drop(stack, bad)
    if dilate_px:
        out = drop(out, gaps_grown(out, dilate_px))
    out.attrs["masked"] = json.dumps({"sensor": "optical", **options})
    return out


def drop(stack, bad):
    """The stack with NaN where `bad` (time, y, x) is true; attributes and coordinates stay."""
    good, kept = ~bad.variable, {}
    for name in stack.data_vars:
        band = stack[name].variable
        kept[name] = band.where(good).astype(np.float32).transpose(*band.dims)
        kept[name].attrs, kept[name].encoding = dict(band.attrs), dict(band.encoding)
    return stack.assign(kept)


def gaps_grown(stack, radius_px):
    """Pixels within `radius_px` of a gap (no band observed): DataArray of bool (time, y, x)."""
    empty = None
    for name in stack.data_vars:
        missing = stack[name].isnull()
        empty = missing if empty is None else empty & missing
    depth = int(np.ceil(radius_px))
    scenes = []
    for k in range(stack.sizes["time"]):
        layer = empty.isel(time=k, drop=True).astype(np.uint8)
        grown = chunked.neighbourhood(grow, layer, depth=depth, outputs={"bad": "uint8"}, radius_px=float(radius_px))
        scenes.append(grown["bad"].variable)
    joined = xr.Variable.concat(scenes, dim="time")
    return xr.DataArray(joined, coords=empty.coords).astype(bool)


def _excursions(series, high, low):
    found = chunked.per_pixel(
        excursions,
        series.transpose("time", "y", "x"),
        outputs={"bad": ("uint8", "time", series.sizes["time"])},
        high_sigma=high,
        low_sigma=low,
        floor=0.01,
    )["bad"]
    return xr.DataArray(found.variable, coords=series.coords).astype(bool)
