"""What the optical two-date detectors share: the pair of dates, the fit of the whole image, the layers."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood, per_pixel, whole_image
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.irmad import sample, unknown
from geoalign.kernels.two_dates import WINDOW_PX, decide, pair
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import SAR_BANDS, check_stack

SAMPLE_PX = 250_000
"""Pixels that the statistics of an image are taken from: every second, third, ... row and column of larger ones."""


def check_two_dates(detector):
    """The options of a two-date detector are in range, or ConfigError."""
    for name in ("prior", "alpha"):
        value = getattr(detector, name)
        if value is not None and not (np.isscalar(value) and 0 < value < 1):
            raise ConfigError(f"{name} is {value!r}; it is a share strictly between 0 and 1, or None.")


def detect_two_dates(detector, stack, fit, *, least_bands):
    """Changes (y, x) by a two-date detector with fields since, prior, alpha; `fit` is that of its kernel."""
    check_stack(stack, min_scenes=2)
    bands = [name for name in stack.data_vars if name not in SAR_BANDS]
    if len(bands) < least_bands:
        raise StackError(
            f"{type(detector).__name__} compares {least_bands} or more optical bands; the stack has "
            f"{', '.join(map(str, stack.data_vars))}. log_ratio compares SAR scenes."
        )
    split = split_of(stack, detector.since)
    both = pairs(stack, bands, split)
    n_px = stack.sizes["y"] * stack.sizes["x"]
    found_fit = whole_image(
        sample,
        partial(fit, n_band=len(bands), alpha=detector.alpha),
        both.before,
        both.after,
        size=unknown(len(bands)).size,
        step=max(1, int(np.ceil(np.sqrt(n_px / SAMPLE_PX)))),
    )
    found = neighbourhood(
        decide,
        both.before,
        both.after,
        shift_of(stack, split, both.first),
        depth=WINDOW_PX + 1,
        outputs={
            "changed": bool, "probability": "float32", "distance": "float32", "trend": "int8", "sector": "uint16",
            "excused": bool,
        },
        fit=found_fit,
        prior=np.nan if detector.prior is None else float(detector.prior),
    )  # fmt: skip
    seen = both.first >= 0
    fitted = found.distance.notnull()
    changed = found.changed & fitted
    time = stack.time.values
    date = dates_at(both.first.where(changed, -1), time)
    layers = {
        "status": xr.where(fitted, xr.where(changed, CONFIRMED, NO_CHANGE), NOT_OBSERVABLE),
        "date": date,
        "date_after": dates_at(both["last"].where(changed, -1), time),
        "date_by": date,
        "magnitude": found.distance,
        "direction": xr.where(changed, found.trend, 0),
        "probability": found.probability,
        "n_obs": both.n_obs,
        "why": xr.where(fitted, 0, xr.where(both.n_obs == 0, WHY["no_data"], WHY["too_few"]))
        | xr.where(seen & ~fitted, WHY["not_detectable"], 0)
        | xr.where(found.excused, WHY["misregistered"], 0),
        "sector": found.sector.where(changed, 0).astype("uint16"),
    }
    layers["sector"].attrs = {
        "long_name": "bands that rose against unchanged ground",
        "flag_masks": np.array([1 << k for k in range(min(len(bands), 16))], np.uint16),
        "flag_meanings": " ".join(map(str, bands[:16])),
    }
    return new_changes(
        layers, kind=detector.kind, detector=repr(detector), prior=detector.prior,
        inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
    )  # fmt: skip


def split_of(stack, since):
    """Scenes before `since`, 0 for None; StackError where either side is empty."""
    if since is None:
        return 0
    split = int((stack.time.values < np.datetime64(since, "ns")).sum())
    if not 0 < split < stack.sizes["time"]:
        raise StackError(
            f"since {since} leaves {split} scenes before and {stack.sizes['time'] - split} after it "
            f"(first {str(stack.time.values[0])[:10]}, last {str(stack.time.values[-1])[:10]}); both need one."
        )
    return split


def pairs(stack, bands, split):
    """`kernels.two_dates.pair` of a stack's bands: Dataset with before, after (band, y, x), last, first, n_obs."""
    n = len(bands)
    return per_pixel(
        _pair,
        *(stack[b] for b in bands),
        outputs={
            "before": ("float32", "band", n),
            "after": ("float32", "band", n),
            "last": "int32",
            "first": "int32",
            "n_obs": "uint16",
        },
        split=split,
    )


def _pair(*bands, split):
    return pair(np.stack(bands, axis=1), split)


def shift_of(stack, split, like):
    """Squared sigma_px of the difference of the two dates, (y, x) float32; zeros without the coordinate."""
    zero = xr.zeros_like(like, dtype="float32")
    if "sigma_px" not in stack.coords:
        return zero
    squares = stack.sigma_px.fillna(0.0).astype("float32") ** 2
    if split:
        # the median of a group has about the mean of its scenes' errors, each its own
        n = squares.sizes["time"]
        total = squares[:split].mean("time") / split + squares[split:].mean("time") / (n - split)
    else:
        total = squares[0] + squares[-1]
    return (zero + total.reset_coords(drop=True)).astype("float32")
