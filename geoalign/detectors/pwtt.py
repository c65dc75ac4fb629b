"""Damage by the pixel-wise t-test, with placebo dates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import expit, ndtr, ndtri

from geoalign.chunked import neighbourhood, per_pixel, whole_image
from geoalign.detectors.patches import check_area, sieve
from geoalign.detectors.sar_input import SAMPLE, cube, sar_bands, speckle_of
from geoalign.detectors.sar_level import steady
from geoalign.detectors.series import check_options, part
from geoalign.kernels.gamma_glr import pool
from geoalign.kernels.welch import AFTER, BEFORE, first_of_two, stouffer, welch
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack

POOL_PX = 1
"""Radius of the window that is averaged in every image before the logarithm (3 x 3)."""
PLACEBOS = 6
"""Fake events tried in the time before, at most."""
CRITICAL = 2.0
"""Standard deviations that two acquisitions in a row must be off by to date the damage."""
EFFECT = 4.0
"""Typical z of real damage, for `probability`."""
Z_LOW, Z_STEP, Z_BINS = -20.0, 0.05, 800
NEPER_DB = 10 / np.log(10)


@dataclass(frozen=True)
class Pwtt:
    """Pixel-wise t-test: is the mean backscatter after an event another one than before?

    Welch's t on log-intensities of 3 x 3 px means, orbit by orbit; orbits combined by Stouffer with the root of the
    degrees of freedom as weight; the better polarisation, with p times the number of polarisations. What the whole
    scene does together (rain) is taken out before. The same test on fake events before the real one, the placebos, says
    how it does where nothing happened: where their spread is wider than the t law allows, all z are divided by it.

    Parameters
    ----------
    alpha : float
        Chance of a false alarm at a stable pixel.
    prior : float
        Share of change that `probability` assumes.
    since : date, optional
        The event. None takes the middle of the series.
    until : date, optional
        Later scenes are left out; one or two months after the event are usual.
    history : float, optional
        Days before the event that are used. None takes all there is; a year is usual.
    enl : float, optional
        Looks, for `sigma_px` only; the noise is taken from the series itself.
    min_area_m2 : float
        Smaller patches are left out (grids in metres only).

    Notes
    -----
    An orbit needs three acquisitions before the event and two after it. Adds `z` (signed; the paper's T) and
    `placebo`, the share of fake events at which the pixel would have been flagged: its mean over ground without change
    is the measured false alarm rate, NaN where the time before is too short for a fake event. `date` is the first of
    two acquisitions in a row that are 2 sd off, or the first after the event.

    With the coordinate `sigma_px` the variance of an observation grows by (|gradient| / intensity x sigma_px)^2.

    References
    ----------
    Ballinger (2025), Open access battle damage detection via pixel-wise t-test on Sentinel-1 imagery. We differ in
    Student's law in place of the normal one, in a variance after the event that borrows from that before, in the
    correction for two polarisations, and in the placebos.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, (30, 24, 24))
    >>> power[22:, 8:14, 8:14] /= 2
    >>> time = np.datetime64("2023-01-02") + 12 * np.arange(30)
    >>> found = Pwtt(since="2023-09-20").detect(new_stack({"vv": power}, time))
    >>> bool((found.status[10:12, 10:12] == 3).all()), float((found.status == 3).mean()) < 0.12
    (True, True)
    """

    alpha: float = 0.01
    prior: float = 0.05
    since: str | None = None
    until: str | None = None
    history: float | None = None
    enl: float | None = None
    min_area_m2: float = 0.0

    kind: ClassVar[str] = "damage"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        check_area(self.min_area_m2)

    def detect(self, stack):
        """Changes (y, x) of a Stack of SAR scenes, of one orbit or several; lazy where the stack is."""
        check_stack(stack)
        bands = sar_bands(stack, mixed=True)
        since = self.since if self.since is not None else middle_of(stack)
        stack, event = part(stack, since, self.until, self.history)
        logs, extra = self._logs(stack, bands)
        time = stack.time.values
        orbit = stack.orbit.values if "orbit" in stack.coords else np.zeros(time.size)
        orbit = np.unique(orbit, return_inverse=True)[1].astype(np.int64)
        n_orbit = int(orbit.max()) + 1
        splits = splits_of(event, time.size, n_orbit)
        tested = per_pixel(
            _tested,
            logs,
            extra,
            outputs={
                "z": ("float32", "band_split", len(bands) * len(splits)),
                "change": ("float32", "band", len(bands)),
            },
            orbit=orbit,
            n_orbit=n_orbit,
            splits=splits,
        )
        scale = 1.0
        if len(splits) > 1:
            scale = whole_image(
                _z_histogram, _spread, tested.z.isel(band_split=_placebos(len(bands), len(splits))), **SAMPLE
            )
        judged = per_pixel(
            _judged,
            tested.z,
            tested.change,
            outputs=dict.fromkeys(("p", "z", "placebo", "magnitude", "probability"), "float32"),
            n_band=len(bands),
            alpha=float(self.alpha),
            ln_prior=float(np.log(self.prior / (1 - self.prior))),
            scale=scale,
        )
        dated = per_pixel(
            first_of_two,
            logs,
            outputs=dict.fromkeys(("date", "before", "n_obs"), "int32"),
            split=event,
            end=time.size,
            critical=CRITICAL,
        )
        return self._changes(stack, judged, dated)

    def _logs(self, stack, bands):
        """(band, time, y, x) ln of the means of windows, at one level; (band, y, x) variance of a residual shift."""
        level = steady(stack, bands)
        speckle = speckle_of(level, bands, self.enl) if "sigma_px" in stack.coords else None
        power = cube(level, bands)
        pooled = neighbourhood(
            partial(_log_pool, radius=POOL_PX),
            *(power.isel(band=i) for i in range(len(bands))),
            depth=POOL_PX,
            outputs=dict.fromkeys(bands, ("float32", "time", stack.sizes["time"])),
        )
        logs = cube(pooled, bands)
        if speckle is None:
            return logs, xr.zeros_like(logs.isel(time=0, drop=True)).fillna(0.0)
        square = (speckle.sigma**2).mean("time" if "time" in speckle.sigma.dims else "step")
        return logs, (speckle.slope**2 * square).transpose("band", "y", "x").astype("float32")

    def _changes(self, stack, judged, dated):
        time = stack.time.values
        seen = judged.p.notnull()
        hit = sieve(seen & (judged.p < self.alpha) & (dated.date >= 0), stack, self.min_area_m2)
        date = dates_at(dated.date.where(hit, -1), time)
        layers = {
            "status": xr.where(hit, CONFIRMED, xr.where(seen, NO_CHANGE, NOT_OBSERVABLE)),
            "date": date,
            "date_after": dates_at(dated.before.where(hit, -1), time),
            "date_by": date,
            "magnitude": judged.magnitude.where(hit),
            "direction": xr.where(hit, np.sign(judged.z).fillna(0), 0),
            "probability": judged.probability,
            "n_obs": dated.n_obs,
            "why": xr.where(seen, 0, xr.where(dated.n_obs > 0, WHY["too_few"], WHY["no_data"])),
            "z": judged.z,
            "placebo": judged.placebo,
        }
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units="dB",
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )


def middle_of(stack):
    """The date in the middle of a stack's scenes, as text."""
    time = stack.time.values
    return str(pd.Timestamp(time[time.size // 2]))


def splits_of(event, n, n_orbit):
    """(n_split, 3) dates: the event's split, then fake ones in the time before, with up to as much time after them."""
    after = min(n - event, max(AFTER * n_orbit, event // 4))
    first, last = max(BEFORE * n_orbit, event // 2), event - after
    fakes = np.unique(np.linspace(first, last, PLACEBOS).round().astype(int)) if last >= first else []
    return np.array([(0, event, n), *((0, k, k + after) for k in fakes)], np.int64)


def _log_pool(*bands, radius):
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(np.log(pool(band[None], radius)[0]) for band in bands)


def _tested(logs, extra, *, orbit, n_orbit, splits):
    z, change = [], []
    for b in range(logs.shape[1]):
        t, df, step = welch(np.ascontiguousarray(logs[:, b]), extra[:, b].astype(np.float64), orbit, n_orbit, splits)
        z.append(stouffer(t, df))
        change.append(step[:, 0])
    return np.concatenate(z, axis=1), np.stack(change, axis=1)


def _placebos(n_band, n_split):
    return [b * n_split + k for b in range(n_band) for k in range(1, n_split)]


def _z_histogram(z):
    z = z[np.isfinite(z)]
    place = np.clip(((z - Z_LOW) / Z_STEP).astype(int), 0, Z_BINS - 1)
    return np.bincount(place, minlength=Z_BINS).astype(np.float64)


def _spread(parts):
    """Spread of the placebos' z, by the quarters of their distribution, 1 at least."""
    counts = np.sum(parts, axis=0)
    if counts.sum() < 100:
        return 1.0
    cumulative = np.append(0.0, np.cumsum(counts)) / counts.sum()
    low, high = np.interp([0.25, 0.75], cumulative, Z_LOW + Z_STEP * np.arange(Z_BINS + 1))
    return max(1.0, (high - low) / 1.349)


def _judged(z, change, *, n_band, alpha, ln_prior, scale):
    """p, signed z of the same p, share of placebos flagged, change in dB, probability.

    The z of damage are taken to be spread by EFFECT about none, besides their own spread of 1.
    """
    z = z.reshape(z.shape[0], n_band, -1) / scale
    tail = np.minimum(1.0, n_band * 2 * ndtr(-np.abs(z)))
    whole = np.isfinite(z).all(axis=1)
    p = np.where(whole, np.where(np.isfinite(tail), tail, 1.0).min(axis=1), np.nan)
    best = np.abs(np.nan_to_num(z[:, :, 0])).argmax(axis=1)
    sign = np.sign(np.take_along_axis(z[:, :, 0], best[:, None], 1)[:, 0])
    equal = -sign * ndtri(np.maximum(p[:, 0] / 2, 1e-300))
    placebo = np.full(z.shape[0], np.nan)
    if z.shape[2] > 1:
        tried = np.isfinite(p[:, 1:])
        flagged = (np.nan_to_num(p[:, 1:], nan=1.0) < alpha).sum(axis=1)
        n = tried.sum(axis=1)
        placebo = np.where(n > 0, flagged / np.maximum(n, 1), np.nan)
    wide = 1 + EFFECT**2
    odds = ln_prior + 0.5 * equal**2 * (1 - 1 / wide) - 0.5 * np.log(wide)
    return p[:, 0], equal, placebo, change.mean(axis=1) * NEPER_DB, expit(odds)
