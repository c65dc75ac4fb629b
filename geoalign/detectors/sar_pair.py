"""What the detectors of two dates share: the two groups of dates, what a quick-look's zero means, the Changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from geoalign.chunked import per_pixel, whole_image
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.log_ratio import before_and_after
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import SAR_BANDS, check_stack

GREYS = 255
"""Steps of a quick-look that was scaled to 0..1."""


@dataclass(frozen=True)
class Pair:
    """Two groups of dates.

    stack : the scenes compared
    before, after : (band, y, x) float32 mean intensities, > 0 or NaN
    n_obs, last, first : (y, x) usable observations (of the band with least), last scene used before, first after
    shift_variance : (y, x) sum of the squared sigma_px of the two means, px^2
    """

    stack: xr.Dataset
    before: xr.DataArray
    after: xr.DataArray
    n_obs: xr.DataArray
    last: xr.DataArray
    first: xr.DataArray
    shift_variance: xr.DataArray


def check_prior(prior):
    """None or a share strictly between 0 and 1; else ConfigError."""
    if prior is not None and not 0 < prior < 1:
        raise ConfigError(f"prior is {prior!r}; it is a share strictly between 0 and 1, or None.")


def pair_of(stack, since=None) -> Pair:
    """First and last scene, or the means before and from `since` on.

    SAR bands are taken, or the one band that there is. Values <= 0 are missing, except in a quick-look (all values
    whole numbers, some above 1, or whole parts of 255 up to 1): there zero is the darkest grey, and one grey step is
    added to all.
    """
    check_stack(stack, min_scenes=2)
    bands = [name for name in stack.data_vars if name in SAR_BANDS] or list(stack.data_vars)
    if len(bands) > 1 and bands[0] not in SAR_BANDS:
        raise StackError(
            f"which band is meant? The stack has {', '.join(map(str, bands))}, none of them backscatter "
            f"({', '.join(SAR_BANDS)}). Give one, as stack[['{bands[0]}']]."
        )
    stack, split = _groups(stack, since)
    offset = quick_look_offset(*(stack[b] for b in bands))
    kept = {"before": "float32", "after": "float32", "last": "int32", "first": "int32", "n_obs": "uint16"}
    parts = [per_pixel(before_and_after, stack[b], outputs=kept, split=split, offset=offset) for b in bands]
    return Pair(
        stack,
        xr.concat([p.before for p in parts], "band"),
        xr.concat([p.after for p in parts], "band"),
        xr.concat([p.n_obs for p in parts], "band").min("band"),
        xr.concat([p["last"] for p in parts], "band").min("band"),
        xr.concat([p["first"] for p in parts], "band").max("band"),
        _shift_variance(stack, split, parts[0].before),
    )


def quick_look_offset(*bands):
    """What to add to the values of bands: one grey step in a quick-look, else 0; 0-d, lazy where a band is."""
    return whole_image(_quick_look, _offset, *bands)


def pair_changes(detector, pair: Pair, *, seen, direction, magnitude, probability, why, units="dB") -> xr.Dataset:
    """Changes from what a two-date detector found.

    seen : (y, x) bool; direction : -1, 0, 1, 0 where nothing changed; why : bits that mark doubtful answers of seen
    pixels
    """
    changed = seen & (direction != 0)
    missing = xr.where(pair.n_obs > 0, WHY["too_few"], WHY["no_data"])
    time = pair.stack.time.values
    date = dates_at(pair.first.where(changed, -1).astype("int32"), time)
    layers = {
        "status": xr.where(seen, xr.where(changed, CONFIRMED, NO_CHANGE), NOT_OBSERVABLE),
        "date": date,
        "date_after": dates_at(pair.last.where(changed, -1).astype("int32"), time),
        "date_by": date,
        "magnitude": magnitude,
        "direction": direction,
        "probability": probability,
        "n_obs": pair.n_obs,
        "why": xr.where(seen, why, missing),
    }
    return new_changes(
        layers, kind=detector.kind, detector=repr(detector), prior=detector.prior, magnitude_units=units,
        inputs=pair.stack.scene.values if "scene" in pair.stack.coords else (), coords=pair.stack.coords,
    )  # fmt: skip


def _groups(stack, since):
    if since is None:
        return stack.isel(time=[0, -1]), 1
    split = int((stack.time.values < np.datetime64(since, "ns")).sum())
    if not 0 < split < stack.sizes["time"]:
        raise StackError(
            f"since {since} leaves {split} scenes before and {stack.sizes['time'] - split} after it "
            f"(first {str(stack.time.values[0])[:10]}, last {str(stack.time.values[-1])[:10]}); both need one."
        )
    return stack, split


def _shift_variance(stack, split, like):
    if "sigma_px" not in stack.coords:
        return xr.zeros_like(like)
    squares = stack.sigma_px.astype("float32") ** 2
    # the mean of a group has the mean of its scenes' errors, each its own
    total = squares[:split].mean("time") / split + squares[split:].mean("time") / (squares.sizes["time"] - split)
    return (xr.zeros_like(like) + total.reset_coords(drop=True)).astype("float32")


def _quick_look(*blocks):
    """Whether every value is a whole number, the largest, and whether every value is a whole part of `GREYS`."""
    whole, largest, parts = 1.0, 0.0, 1.0
    for block in blocks:
        values = block[np.isfinite(block)]
        if values.size:
            whole = min(whole, float((values == np.round(values)).all()))
            largest = max(largest, float(values.max()))
            if parts > 0:
                grey = values * GREYS
                parts = float((np.abs(grey - np.round(grey)) < 1e-3).all())
    return whole, largest, parts


def _offset(parts):
    largest = max(p[1] for p in parts)
    if largest > 1:
        return float(all(p[0] for p in parts))
    return 1.0 / GREYS if largest > 0 and all(p[2] for p in parts) else 0.0
