"""What the per-pixel segmentation detectors share: which bands they follow, and how breaks become Changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from geoalign.detectors.series import check_dates, moment, series_of, up_to, widening, years
from geoalign.errors import ConfigError, StackError
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack, is_sar

FOLLOWED = ("green", "red", "nir", "swir1", "swir2")
"""Bands of reflectance that show change on the ground; blue and thermal say more about the air."""
GREENING = {"red": -1.0, "nir": 1.0, "swir1": -1.0}
"""Weights of the bands in the direction: vegetation gained is +1."""


@dataclass(frozen=True)
class Series:
    """What a segmentation follows.

    cube : (band, time, y, x); bands : names; units : of the values; reflectance : True where they are bands of it
    slope : (band, y, x) squared gradient, spread : (time,) squared sigma_px, zeros without `sigma_px`
    """

    cube: xr.DataArray
    bands: tuple[str, ...]
    units: str
    reflectance: bool
    slope: xr.DataArray
    spread: np.ndarray

    def numbers(self, *names):
        """Places of bands, -1 for those that are not there."""
        return np.array([self.bands.index(n) if n in self.bands else -1 for n in names])

    @property
    def tone(self):
        """Weights of the bands in the direction of a change: greenness, or the one value's own."""
        weights = np.array([GREENING.get(name, 0.0) for name in self.bands])
        return weights if self.reflectance and weights.any() else np.ones(len(self.bands))


def check_segments(detector):
    """The options that the family shares are in range, or ConfigError."""
    if not 0 < detector.prior < 1:
        raise ConfigError(f"prior is {detector.prior!r}; it is a chance strictly between 0 and 1, as 0.1.")
    if detector.max_breaks < 1:
        raise ConfigError(f"max_breaks is {detector.max_breaks!r}; at least one change must be kept.")
    check_dates(detector)


def cut(stack, since, until):
    """The scenes up to `until`, and the number of the first one that is asked about."""
    check_stack(stack)
    if until is not None:
        stack = up_to(stack, until)
    return stack, 0 if since is None else int((stack.time.values < moment(since)).sum())


def followed(stack, index=None) -> Series:
    """The bands that change is looked for in: those of `FOLLOWED` that are there, or one series.

    Parameters
    ----------
    stack : Stack
    index : str, optional
        A band or an index of `indices.INDICES` to follow alone. None takes green to swir2, two of them at the least,
        else the only band.
    """
    bands = tuple(b for b in FOLLOWED if b in stack)
    if index is not None or len(bands) < 2:
        refuse_backscatter(stack, index)
        series, units = series_of(stack, index)
        alone = index is None or index in stack
        bands, parts = (str(series.name) if alone and series.name else str(index),), [series]
    else:
        units, parts = "1", [stack[b] for b in bands]
    steep, spread = zip(*(widening(stack, s) for s in parts))
    return Series(
        xr.concat([s.transpose("time", "y", "x").reset_coords(drop=True) for s in parts], "band"),
        bands,
        units,
        set(bands) <= {"blue", *FOLLOWED},
        xr.concat([s.reset_coords(drop=True) for s in steep], "band").astype("float32"),
        np.asarray(spread[0], np.float64),
    )


def refuse_backscatter(stack, index):
    """StackError for a stack of backscatter where no band was asked for: speckle is not what the family is made for."""
    if index is None and is_sar(stack):
        raise StackError(
            f"the stack holds backscatter ({', '.join(map(str, stack.data_vars))}); this detector follows reflectance "
            "or an index. Choose a band by index='vh' to follow it in dB, or another detector."
        )


def phase_order(at):
    """Scenes sorted by their time of the year."""
    return np.argsort(at % 1.0, kind="stable").astype(np.int32)


def since_start(time):
    """Fractional years of scenes, small and positive; whole numbers are the same date in every year."""
    at = years(time)
    return at - np.floor(at[0])


def share_of(ln_evidence, prior):
    """Posterior chance from ln evidence (of change against none) and the prior."""
    return 1.0 / (1.0 + np.exp(-np.clip(ln_evidence + np.log(prior / (1.0 - prior)), -50.0, 50.0)))


def capped(share, confirmed):
    """Where no break is confirmed change is not more likely than not, whatever noise that is not white adds up to."""
    return np.where(confirmed, share, np.minimum(share, 0.5))


def break_outputs(max_breaks):
    """Outputs of `per_pixel` for what `break_layers` takes."""
    return {
        "outcome": "int32",
        "n_obs": "uint16",
        "date": "int32",
        "after": "int32",
        "by": "int32",
        "magnitude": "float32",
        "direction": "int8",
        "probability": "float32",
        "break_date": ("int32", "break", max_breaks),
        "break_after": ("int32", "break", max_breaks),
        "break_magnitude": ("float32", "break", max_breaks),
        "break_probability": ("float32", "break", max_breaks),
    }


def summary(outcome, n_obs, at, length, tone, ln_evidence, pixel_evidence, strongest, prior, by=None):
    """Arrays of `break_outputs`, in order.

    outcome (n_pixel,) changes, or below 0 why none could be looked for; at (n_pixel, max_breaks, 2) first changed scene
    and the last before; length, tone, ln_evidence (n_pixel, max_breaks) size, signed direction, evidence of each;
    pixel_evidence (n_pixel,) of any; strongest (n_pixel,) which one is the pixel's, -1 for none; by (n_pixel,
    max_breaks) scene by which it had changed, where that is not the first changed one
    """
    there = strongest >= 0
    pick = np.where(there, strongest, 0)[:, None]

    def of(values, none):
        return np.where(there, np.take_along_axis(values, pick, 1)[:, 0], none)

    sign = np.sign(np.nan_to_num(tone)).astype(np.int8)
    size = np.where(sign != 0, sign, 1) * length
    share = capped(share_of(pixel_evidence, prior), outcome > 0)
    return (
        outcome,
        n_obs,
        of(at[:, :, 0], -1),
        of(at[:, :, 1], -1),
        of(at[:, :, 0] if by is None else by, -1),
        of(size, np.nan),
        of(sign, 0),
        np.where(outcome < 0, np.nan, share),
        at[:, :, 0],
        at[:, :, 1],
        size,
        np.where(at[:, :, 0] >= 0, share_of(ln_evidence, prior), np.nan),
    )


def break_changes(detector, stack, found, units, reasons):
    """Changes from what `summary` gave; reasons: outcome below 0 -> name of the reason."""
    time = stack.time.values
    changed = found.outcome > 0
    why = xr.zeros_like(found.outcome)
    for code, name in reasons.items():
        why = xr.where(found.outcome == code, WHY[name], why)
    layers = {
        "status": xr.where(found.outcome < 0, NOT_OBSERVABLE, xr.where(changed, CONFIRMED, NO_CHANGE)),
        "date": dates_at(found.date, time),
        "date_after": dates_at(found.after, time),
        "date_by": dates_at(found.by, time),
        "magnitude": found.magnitude,
        "direction": found.direction,
        "probability": found.probability,
        "n_obs": found.n_obs,
        "why": why,
        "n_changes": found.outcome.clip(min=0).astype("uint16"),
        "break_date": dates_at(found.break_date, time),
        "break_after": dates_at(found.break_after, time),
        "break_magnitude": found.break_magnitude,
        "break_probability": found.break_probability,
    }
    return new_changes(
        layers,
        kind=detector.kind,
        detector=repr(detector),
        prior=detector.prior,
        magnitude_units=units,
        inputs=stack.scene.values if "scene" in stack.coords else (),
        coords=stack.coords,
    )
