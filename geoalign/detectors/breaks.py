"""Every break of an optical series: when, how sure, and between which two observations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import per_pixel
from geoalign.detectors.series import check_options, moment, part, series_of, widening, years
from geoalign.errors import ConfigError, StackError
from geoalign.indices import possible
from geoalign.kernels.break_fit import TREND_SD
from geoalign.kernels.break_noise import outlier_limits
from geoalign.kernels.break_tests import change_limits
from geoalign.kernels.breaks import find
from geoalign.kernels.cusum import COMMON
from geoalign.kernels.segments import products, regressors
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack, is_sar

REFLECTANCE = ("blue", "green", "red", "nir", "swir1", "swir2")
SHOWN = ("ndvi", "nbr", "ndmi", "ndwi")
"""Magnitudes of a change found in several bands are those of the first of these indices that is possible."""

HARMONICS = 3

DRIFT, DRIFT_BANDS = 0.2, 0.3
"""Steps of about so many noise sd, in one series or in several bands together, come and go by themselves (odd years,
haze, sensors) and are no change: else every year would differ from the next where there are many observations."""


@dataclass(frozen=True)
class Breaks:
    """Every lasting change of an optical series, looking back over the whole of it.

    A series is a season (up to three harmonics, as many as the data ask for), a trend, and noise. Each stretch is held
    against three ways of not being so: a step, a step that passes again, another season and trend altogether. Where one
    of them is beyond its limit the stretch is split, and both parts are looked at in turn. Every break is then set to
    its most likely place between its neighbours, by the likelihood of each observation under the models before and
    after, and taken back where it is none beside them.

    Undetected clouds do no harm: what stands out from the observations before and after alike is left out, and no
    observation counts for more than 3 sd. Where errors are autocorrelated the limits widen as they should, as they do
    where seasons come early or late and years are good or bad: half years tell by how much. Steps of a fifth of the
    noise are taken to come and go by themselves (three tenths, of several bands together).

    Parameters
    ----------
    alpha : float
        Chance that a stable pixel is flagged anywhere in the series.
    prior : float
        Share of changed pixels that `probability` assumes.
    since : date, optional
        Only changes dated on or after it are reported; all scenes are used.
    until : date, optional
        Later scenes are left out.
    order : int, optional
        Harmonics of the year, 0 to 3. None lets the data choose (Bayesian information criterion).
    index : str, optional
        A band, or an index of `indices.INDICES`, followed alone. None takes all reflectance bands together where the
        stack has two or more of them (blue, green, red, nir, swir1, swir2), else its only band.
    max_breaks : int
        Changes of a pixel that are kept in the layers over (break, y, x), the surest ones; all are counted.

    Notes
    -----
    Layers besides those of every Changes: `n_changes`, `noise` (sd of the series) and, over (break, y, x),
    `break_date`, `break_after`, `break_by`, `break_magnitude`, `break_probability`. `date` is that of the surest break.
    The true date lies in (date_after, date_by] in nine of ten cases or more. `magnitude` is the step between the models
    before and after, in the index followed; of several bands, in NDVI (or NBR, NDMI, NDWI, the first that the bands
    allow), and `direction` is its sign.

    A pixel needs 12 observations; a season is told from one year on, a trend from two. A stretch between two breaks has
    six observations or more: what passes sooner is no break. Backscatter is refused: `omnibus` has its statistics.

    With the coordinate `sigma_px`, later scenes are allowed a common shift of 0.55 `sigma_px`; what differs from scene
    to scene is in the noise already.

    References
    ----------
    Andrews (1993), doi:10.2307/2951764, for the largest statistic over unknown places; Bai and Perron (2003),
    doi:10.1002/jae.659, for several breaks, each re-estimated between its neighbours; Huber (1981), for
    pseudo-values. We differ in the limits (finite samples) and in giving each date its interval.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2016-01-01", "2024-01-01", 16, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 1))
    >>> ndvi[120:] -= 0.2
    >>> found = Breaks().detect(new_stack({"ndvi": ndvi}, time))
    >>> bool(found.date.values[0, 0] == time[120]), int(found.n_changes[0, 0]), int(found.direction[0, 0])
    (True, 1, -1)
    """

    alpha: float = 0.001
    prior: float = 0.1
    since: str | None = None
    until: str | None = None
    order: int | None = None
    index: str | None = None
    max_breaks: int = 4

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        if not 1 <= self.max_breaks <= 12:
            raise ConfigError(f"max_breaks is {self.max_breaks!r}; 1 to 12 changes of a pixel can be kept.")

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        check_stack(stack, min_scenes=2)
        stack, _ = part(stack, None, self.until, None)
        bands, units = self._bands(stack)
        time = stack.time.values
        when = years(time)
        x = regressors(when, HARMONICS if self.order is None else self.order)
        n_band = max(1, len(bands) - 1)
        widths = [widening(stack, band) for band in bands]
        kept = ("break", self.max_breaks)
        found = per_pixel(
            find,
            _joined(bands),
            _joined([steep for steep, _ in widths]),
            outputs={
                "outcome": "int8", "n_obs": "uint16", "n_changes": "uint16", "probability": "float32",
                "noise": "float32",
                **dict.fromkeys(("date", "after", "by"), ("int32", *kept)),
                **dict.fromkeys(("magnitude", "chance", "sureness"), ("float32", *kept)),
            },
            x=x,
            rows=products(x),
            years=when,
            shown=len(bands) > 1,
            order=HARMONICS if self.order is None else int(self.order),
            free=self.order is None,
            soft=1 / (TREND_SD * max((when[-1] - when[0]) / 2, 1e-9)) ** 2,
            cuts=outlier_limits(n_band)[0],
            spike=outlier_limits(n_band)[1],
            limits=change_limits(float(self.alpha), time.size, n_band),
            drift=(DRIFT if n_band == 1 else DRIFT_BANDS) ** 2,
            shift=float(COMMON**2 * np.mean(widths[0][1])),
            prior=float(self.prior),
            most=int(self.max_breaks),
        )  # fmt: skip
        return self._changes(stack, found, units)

    def _bands(self, stack):
        """The series to follow, (time, y, x) each, the last for showing only where there are several; its unit."""
        if self.index is None:
            if is_sar(stack):
                raise StackError(
                    f"breaks follows reflectance or an index; backscatter ({', '.join(map(str, stack.data_vars))}) "
                    "has statistics of its own: use omnibus, or choose index=... for one band all the same."
                )
            bands = [name for name in REFLECTANCE if name in stack]
            if len(bands) > 1:
                shown = next((name for name in SHOWN if name in possible(stack)), bands[-1])
                series, units = series_of(stack, shown)
                return [stack[name].transpose("time", "y", "x") for name in bands] + [
                    series.transpose("time", "y", "x")
                ], units
        series, units = series_of(stack, self.index)
        return [series.transpose("time", "y", "x")], units

    def _changes(self, stack, found, units):
        time = stack.time.values
        seen = found.outcome >= 0
        asked = found.date >= 0
        if self.since is not None:
            asked &= found.date >= int(np.searchsorted(time, moment(self.since)))
        sureness = xr.where(asked, found.sureness, -np.inf)
        number = xr.DataArray(np.arange(found.sizes["break"], dtype=np.int8), dims="break")
        # of equally sure ones the earliest
        best = number == sureness.argmax("break")
        changed = asked.any("break")

        def strongest(layer, none):
            return xr.where(changed, layer.where(best).max("break"), none)

        found_dates = {
            name: dates_at(strongest(found[name], -1).fillna(-1).astype("int32"), time)
            for name in ("date", "after", "by")
        }
        magnitude = strongest(found.magnitude, np.nan).astype("float32")
        layers = {
            "status": xr.where(seen, xr.where(changed, CONFIRMED, NO_CHANGE), NOT_OBSERVABLE),
            "date": found_dates["date"],
            "date_after": found_dates["after"],
            "date_by": found_dates["by"],
            "magnitude": magnitude,
            "direction": np.sign(magnitude.fillna(0)),
            "probability": found.probability,
            "n_obs": found.n_obs,
            "why": xr.where(seen, 0, xr.where(found.n_obs > 0, WHY["too_few"], WHY["no_data"])),
            "n_changes": found.n_changes if self.since is None else asked.sum("break").astype("uint16"),
            "noise": found.noise,
            "break_date": dates_at(found.date.where(asked, -1), time),
            "break_after": dates_at(found.after.where(asked, -1), time),
            "break_by": dates_at(found.by.where(asked, -1), time),
            "break_magnitude": found.magnitude.where(asked),
            "break_probability": found.chance.where(asked),
        }
        return new_changes(
            layers, kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units=units,
            inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip


def _joined(layers):
    """One array with a leading dimension `band`."""
    return xr.concat(layers, "band", coords="minimal", compat="override").reset_coords(drop=True)
