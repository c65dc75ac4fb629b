"""Stochastic continuous change detection (S-CCD): a Kalman filter that can watch, scene by scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.stats import chi2

from geoalign.chunked import per_pixel
from geoalign.detectors.ccdc import EFFECT, MIN_OBS, RARE_COLD
from geoalign.detectors.segments import Series, capped, check_segments, cut, followed, share_of
from geoalign.detectors.series import moment
from geoalign.errors import ConfigError, StateError
from geoalign.kernels.ccdc import MIN_MODEL, SNOW_SHARE
from geoalign.kernels.lasso import PENALTY
from geoalign.kernels.sccd import (
    BREAK_FIELDS,
    EVER,
    LN_SUM,
    N_BREAK,
    N_BUFFER,
    N_OBS,
    N_PLACE,
    N_SNOW,
    fold,
    state_size,
)
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, new_changes
from geoalign.types.stack import check_stack
from geoalign.types.state import check_state, new_state

NO_DATE = np.iinfo(np.int64).min
"""NaT as a number."""
STATE = ("numbers", "times", "values", "slope")


@dataclass(frozen=True)
class Sccd:
    """Breaks of a series of several bands, found online: level, slope and season by a Kalman filter.

    The filter starts with a stable year, as `Cold` does, and takes observations in one by one. Six always wait: where
    all of them are far from their forecasts, and the same way, a break is dated at the first. A lone one that is far
    off is thrown out. Every observation costs the same, however long the series; a state holds all there is to know.

    Parameters
    ----------
    threshold : float
        Chance that an observation of a stable pixel stays below the limit (chi-squared, one degree a band).
    prior : float
        Share of change that `probability` assumes.
    since, until : date, optional
        Changes before `since` are not counted; later scenes than `until` are left out.
    index : str, optional
        A band or an index of `indices.INDICES` to follow alone. None takes green, red, nir, swir1, swir2 (those that
        are there, two at the least), else the only band.
    max_breaks : int
        Changes of a pixel that are kept in `break_date` and its like; all are counted.

    Notes
    -----
    `start(history)` gives a state, `update(state, scenes)` folds later scenes in, `report(state)` gives the Changes so
    far; `detect` is one start and report. Folding scenes in two goes gives the same bits as in one. The layers,
    screening and reasons are those of `Ccdc`. The published thresholds hold no nominal chance of a false alarm; what
    they hold is measured by `benchmarks/segments.py`.

    With the coordinate `sigma_px` the variance of a difference grows by (|gradient| x sigma_px)^2; the gradient is that
    of the scenes given to `start`.

    References
    ----------
    Ye et al. (2021), A near-real-time approach for monitoring forest disturbance using Landsat time series: stochastic
    continuous change detection, doi:10.1016/j.rse.2020.112167. We differ in the filter's start (next to nothing is
    known, so that it is recursive least squares over the first year), in fixed drifts in units of the noise, which lets
    all bands share one covariance, and in the noise: that of the start, season and trend taken out, counts as much as
    twelve forecasts, and the variance of a forecast comes on top.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2015-01-01", "2021-01-01", 16, "datetime64[D]")
    >>> noise = np.random.default_rng(0).normal(0, 0.01, (2, time.size, 1, 1))
    >>> red, nir = noise + np.array([0.05, 0.35])[:, None, None, None]
    >>> red[80:] += 0.1
    >>> nir[80:] -= 0.1
    >>> stack = new_stack({"red": red, "nir": nir}, time)
    >>> watching = Sccd()
    >>> state = watching.start(stack.isel(time=slice(0, 82)))
    >>> state = watching.update(state, stack.isel(time=slice(82, None)))
    >>> bool(watching.report(state).date.values[0, 0] == time[80])
    True
    """

    threshold: float = 0.99
    prior: float = 0.1
    since: str | None = None
    until: str | None = None
    index: str | None = None
    max_breaks: int = 10

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_segments(self)
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold is {self.threshold!r}; it is a chance strictly between 0 and 1, as 0.99.")

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        return self.report(self.start(stack))

    def start(self, history):
        """State after the scenes of `history`, a Stack of at least one."""
        check_stack(history)
        series = followed(history, self.index)
        like = series.slope.isel(band=0, drop=True)
        n_band = len(series.bands)

        def empty(name, size, dtype):
            return xr.zeros_like(like, dtype=dtype).expand_dims({name: size})

        numbers = empty("slot", state_size(n_band, self.max_breaks), "float64")
        numbers = numbers.where(xr.DataArray(np.arange(numbers.sizes["slot"]) != LN_SUM, dims="slot"), -np.inf)
        blank = {
            "numbers": numbers,
            "times": empty("waiting", N_BUFFER, "float64"),
            "values": empty("value", N_BUFFER * n_band, "float32"),
            "slope": series.slope,
        }
        return self._fold(blank, history, series, 0)

    def update(self, state, scenes):
        """State with later scenes folded in."""
        check_state(state, detector=repr(self), variables=STATE)
        check_stack(scenes)
        if scenes.time.values[0] <= np.datetime64(state.attrs["last_time"]):
            raise StateError(
                f"the state holds scenes up to {state.attrs['last_time'][:19]}, and one of "
                f"{str(scenes.time.values[0])[:19]} is to be folded in. Give later ones only, in order."
            )
        series = followed(scenes, self.index)
        if list(series.bands) != str(state.attrs["bands"]).split():
            raise StateError(
                f"the state follows {state.attrs['bands']}, the scenes {' '.join(series.bands)}. Give the same bands."
            )
        return self._fold(state, scenes, series, int(state.attrs["n_scenes"]), state.attrs["inputs"])

    def report(self, state):
        """Changes (y, x) found so far."""
        check_state(state, detector=repr(self), variables=STATE)
        n_band = len(str(state.attrs["bands"]).split())
        found = per_pixel(
            _summary,
            state.numbers,
            outputs={
                "status": "uint8", "why": "uint16", "n_obs": "uint16", "n_changes": "uint16",
                **dict.fromkeys(("date", "after"), "int64"), "magnitude": "float32", "direction": "int8",
                "probability": "float32", "break_date": ("int64", "break", self.max_breaks),
                "break_after": ("int64", "break", self.max_breaks),
                "break_magnitude": ("float32", "break", self.max_breaks),
                "break_probability": ("float32", "break", self.max_breaks),
            },
            n_band=n_band, max_breaks=int(self.max_breaks), prior=float(self.prior),
        )  # fmt: skip
        dates = {name: _moments(found[name]) for name in ("date", "after", "break_date", "break_after")}
        layers = {
            **{name: found[name] for name in ("status", "magnitude", "direction", "probability", "n_obs", "why")},
            "date": dates["date"],
            "date_after": dates["after"],
            "date_by": dates["date"],
            "n_changes": found.n_changes,
            "break_date": dates["break_date"],
            "break_after": dates["break_after"],
            "break_magnitude": found.break_magnitude,
            "break_probability": found.break_probability,
        }
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units=state.attrs["units"],
            inputs=str(state.attrs["inputs"]).split(),
            coords=state.coords,
        )

    def _fold(self, state, scenes, series: Series, n_scenes, inputs=""):
        last = scenes.time.values[-1]
        scenes, _ = cut(scenes, None, self.until) if self._within(scenes) else (scenes.isel(time=slice(0, 0)), 0)
        n_time = scenes.sizes["time"]
        n_band, slots = len(series.bands), state["numbers"].sizes["slot"]
        haze = series.numbers("green", "swir1")
        folded = {name: state[name] for name in STATE[:3]}
        if n_time:
            folded = per_pixel(
                _fold_scenes,
                series.cube.isel(time=slice(0, n_time)),
                *(state[name] for name in STATE),
                outputs={
                    "numbers": ("float64", "slot", slots),
                    "times": ("float64", "waiting", N_BUFFER),
                    "values": ("float32", "value", N_BUFFER * n_band),
                },
                us=_microseconds(scenes.time.values),
                spread=series.spread[:n_time],
                lowest=np.full(n_band, 0.0 if series.reflectance else -np.inf),
                highest=np.full(n_band, 1.0 if series.reflectance else np.inf),
                snow=series.numbers("green", "nir", "swir1") if series.reflectance else np.full(3, -1),
                cloud=haze[haze >= 0] if (haze >= 0).any() else np.arange(1),
                tone=series.tone,
                threshold=float(chi2.ppf(self.threshold, n_band)),
                outlier=float(chi2.ppf(RARE_COLD, n_band)),
                penalty=PENALTY,
                effect=EFFECT,
                since_us=-np.inf if self.since is None else float(_microseconds(moment(self.since))),
                max_breaks=int(self.max_breaks),
            )
        names = [inputs, *(map(str, scenes.scene.values) if "scene" in scenes.coords else ())]
        out = new_state(
            {**{name: folded[name] for name in STATE[:3]}, "slope": state["slope"]},
            detector=repr(self),
            last_time=last,
            n_scenes=n_scenes + n_time,
            coords=scenes.coords,
        )
        out.attrs |= {"bands": " ".join(series.bands), "units": series.units, "inputs": " ".join(filter(None, names))}
        return out

    def _within(self, scenes):
        return self.until is None or scenes.time.values[0] <= moment(self.until)


def _fold_scenes(cube, numbers, times, values, slope, **options):
    # a read-only array is another type to numba, and would be compiled for again
    cube, numbers, times, values = (np.require(a, requirements=["C", "W"]) for a in (cube, numbers, times, values))
    return fold(cube, numbers, times, values, slope.astype(np.float64), **options)


def _summary(numbers, *, n_band, max_breaks, prior):
    breaks = numbers[:, state_size(n_band, 0) :].reshape(-1, max_breaks, BREAK_FIELDS)
    n_break = numbers[:, N_BREAK].astype(np.int64)
    there = np.arange(max_breaks) < n_break[:, None]
    ln_place = np.log(np.maximum(numbers[:, N_PLACE], 1))
    sign = np.sign(breaks[:, :, 3])
    size = np.where(there, np.where(sign != 0, sign, 1) * breaks[:, :, 2], np.nan)
    date = np.where(there, breaks[:, :, 0], NO_DATE).astype(np.int64)
    after = np.where(there, breaks[:, :, 1], NO_DATE).astype(np.int64)
    pick = np.where(there, np.abs(size), -1).argmax(axis=1)[:, None]

    def of(values, none):
        return np.where(n_break > 0, np.take_along_axis(values, pick, 1)[:, 0], none)

    n_obs, n_snow = numbers[:, N_OBS], numbers[:, N_SNOW]
    lasting = (n_snow > SNOW_SHARE * (n_obs + n_snow)) & (n_snow >= MIN_MODEL)
    few = (n_obs < MIN_OBS) & ~lasting
    unstable = (numbers[:, EVER] == 0) & ~few
    why = np.where(lasting | unstable, WHY["not_detectable"], 0)
    why = np.where(few, np.where(n_obs > 0, WHY["too_few"], WHY["no_data"]), why)
    changed = (n_break > 0) & (why == 0)
    status = np.where(why > 0, NOT_OBSERVABLE, np.where(changed, CONFIRMED, NO_CHANGE))
    share = capped(share_of(numbers[:, LN_SUM] - ln_place, prior), changed)
    return (
        status,
        why,
        n_obs,
        np.where(changed, n_break, 0),
        np.where(changed, of(date, NO_DATE), NO_DATE),
        np.where(changed, of(after, NO_DATE), NO_DATE),
        np.where(changed, of(size, np.nan), np.nan),
        np.where(changed, of(sign, 0), 0).astype(np.int8),
        np.where(why > 0, np.nan, share),
        np.where(changed[:, None], date, NO_DATE),
        np.where(changed[:, None], after, NO_DATE),
        np.where(changed[:, None], size, np.nan),
        np.where(changed[:, None] & there, share_of(breaks[:, :, 4] - ln_place[:, None], prior), np.nan),
    )


def _microseconds(stamps):
    return np.asarray(stamps, "datetime64[us]").astype(np.int64).astype(np.float64)


def _moments(us):
    return us.astype("datetime64[us]").astype("datetime64[ns]")
