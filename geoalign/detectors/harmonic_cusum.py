"""Change in a series with a season: harmonic regression and cumulative sums whose boundary holds its level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import per_pixel
from geoalign.detectors.series import check_options, order_of, part, series_of, widening, years
from geoalign.errors import ConfigError
from geoalign.kernels.cusum import CAP, boundaries, scan
from geoalign.kernels.harmonic import regressors
from geoalign.types.changes import (
    CONFIRMED,
    ENDED,
    FIRST,
    NO_CHANGE,
    NOT_OBSERVABLE,
    PROVISIONAL,
    WHY,
    dates_at,
    new_changes,
)
from geoalign.types.stack import check_stack

EFFECT = 3.0
"""Typical size of a change in noise standard deviations, for `probability`."""


@dataclass(frozen=True)
class HarmonicCusum:
    """Steps in one series: season and trend from its history, then sums of prediction errors against a boundary.

    Everything before a candidate date is its reference. A robust harmonic regression of it predicts what follows; the
    sum of the next 3, 4, 5, 6, 8, 11, ... prediction errors, divided by its exact standard deviation (the fit's own
    error included, so that a trend carried far ahead is not trusted more than it deserves), is compared with a boundary
    that accounts for all the candidates and lengths. Single errors are cut at 3 sd, so a lone undetected cloud can't
    raise an alarm.

    Parameters
    ----------
    alpha : float
        Chance of a confirmed false alarm at a stable pixel over the whole time watched, however long.
    prior : float
        Share of change that `probability` assumes.
    since : date, optional
        Watching starts; all before is history. None looks back: the first year (half the series where that is
        shorter) is history, everything after it is searched.
    until : date, optional
        Later scenes are left out.
    history : float, optional
        Days of history: before `since`, or at the start of the series. None takes all before `since`.
    order : int, optional
        Harmonics of the year, 0 to 3 (0: no season); fewer, but at least one, where the history is too short for them
        (1.5 observations a regressor). None takes two; for backscatter one, or none with under 0.8 years of history.
    index : str, optional
        A band or an index of `indices.INDICES`. None takes the only band, ndvi, or vh (in dB).
    direction : int
        -1 looks for drops only, 1 for rises only, 0 for both.

    Notes
    -----
    Where the last observations are 4.5 sd off and too few to confirm, and watching was asked for by `since`, status is
    1 (one of them) or 2 (two or more).

    Adds `date_confirmed` (the observation at which the sum crossed the boundary), `date_end` (status 4: the first
    observation back at the predicted level), `noise` (sd of the series around its model). The true date lies between
    `date_after` and `date_by` in about 95 % of cases. `magnitude` is the median of observed minus predicted after the
    change. A pixel needs seven observations of history (five without a season) and three after it.

    With the coordinate `sigma_px`, the rms error of a scene's place along an axis, shifts that differ from scene to
    scene are taken for noise of (|gradient| x sigma_px)^2 where the history does not hold it already, and 0.55
    `sigma_px` for an offset that all later scenes may share.

    Sums of errors that follow each other vary more: with 60 and more observations of reference their autocorrelation is
    told from it and counted (an AR(1) process); with fewer, errors are taken as independent.

    References
    ----------
    Brown, Durbin and Evans (1975), doi:10.1111/j.2517-6161.1975.tb01532.x, for prediction errors under a growing
    reference; Verbesselt et al. (2012), doi:10.1016/j.rse.2012.02.022, for watching by harmonic regression. We differ
    in the statistic (all starts and lengths) and in the boundary (simulated for finite samples).

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 1))
    >>> ndvi[90:] -= 0.2
    >>> found = HarmonicCusum(since="2021-06-01").detect(new_stack({"ndvi": ndvi}, time))
    >>> int(found.status[0, 0]), int(found.direction[0, 0]), bool(found.date.values[0, 0] == time[90])
    (3, -1, True)
    """

    alpha: float = 0.01
    prior: float = 0.05
    since: str | None = None
    until: str | None = None
    history: float | None = None
    order: int | None = None
    index: str | None = None
    direction: int = 0

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        if self.direction not in (-1, 0, 1):
            raise ConfigError(f"direction is {self.direction!r}; -1 looks for drops, 1 for rises, 0 for both.")

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        check_stack(stack)
        stack, first = part(stack, self.since, self.until, self.history)
        series, units = series_of(stack, self.index)
        steep, spread = widening(stack, series)
        order = order_of(self.order, units, stack.time.values, first)
        found = watch(series, first, steep, spread, order=order, alpha=self.alpha, prior=self.prior,
                      direction=self.direction)  # fmt: skip
        layers = layers_of(found, stack.time.values, watching=self.since is not None)
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units=units,
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )


def watch(series, first, steep, spread, *, order, alpha, prior, direction):
    """`kernels.cusum.scan` over a DataArray (time, y, x): Dataset (y, x) of its fields by name."""
    time = years(series.time.values)
    # years count from the first scene: only differences matter, and small numbers keep the digits
    x = regressors(time - np.floor(time[0]), order)
    return per_pixel(
        _fields,
        series,
        steep,
        outputs={
            "outcome": "int8",
            **dict.fromkeys(("date", "after", "by", "confirmed", "over"), "int32"),
            **dict.fromkeys(("magnitude", "probability", "noise"), "float32"),
            "n_obs": "uint16",
        },
        x=x,
        years=time,
        first=first,
        spread=np.asarray(spread, np.float64),
        order=order,
        # the table is two-sided: looking one way only, the same chance buys a lower boundary
        bound=boundaries(alpha if direction == 0 else 2 * alpha, time.size),
        direction=direction,
        prior=prior,
    )


def _fields(series, steep, *, x, years, first, spread, order, bound, direction, prior):
    r = scan(series, x, years, first, steep.astype(np.float64), spread, order, bound, direction, prior, EFFECT, CAP)
    return tuple(r[:, k] for k in (0, 1, 2, 3, 4, 9, 5, 6, 10, 7))


def layers_of(found, time, *, watching):
    """The layers of Changes from what `watch` gave; first signs of change (status 1 and 2) only where `watching`."""
    changed = (found.outcome > 0) & ((found.outcome <= 2) | watching)
    status = xr.where(found.outcome < 0, NOT_OBSERVABLE, NO_CHANGE)
    for outcome, code in ((1, CONFIRMED), (2, ENDED), (3, PROVISIONAL), (4, FIRST)):
        status = xr.where(changed & (found.outcome == outcome), code, status)
    why = xr.where(found.outcome == -1, WHY["no_data"], xr.where(found.outcome < -1, WHY["too_few"], 0))
    return {
        "status": status,
        "date": dates_at(found.date.where(changed, -1), time),
        "date_after": dates_at(found.after.where(changed, -1), time),
        "date_by": dates_at(found.by.where(changed, -1), time),
        "magnitude": found.magnitude.where(changed),
        "direction": xr.where(changed, np.sign(found.magnitude.fillna(0)), 0),
        "probability": found.probability,
        "n_obs": found.n_obs,
        "why": why,
        "date_confirmed": dates_at(found.confirmed.where(changed, -1), time),
        "date_end": dates_at(found.over.where(changed, -1), time),
        "noise": found.noise,
    }
