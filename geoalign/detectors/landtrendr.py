"""LandTrendr: one value a year, straight pieces through them, disturbances where they fall."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geoalign.chunked import per_pixel
from geoalign.detectors.segments import (
    break_changes,
    break_outputs,
    check_segments,
    cut,
    refuse_backscatter,
    summary,
)
from geoalign.detectors.series import series_of, widening
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.landtrendr import MIN_YEARS, NO_DATA, TOO_FEW, scan

REASONS = {NO_DATA: "no_data", TOO_FEW: "too_few"}
SIGNS = {"down": 1.0, "up": -1.0}


@dataclass(frozen=True)
class LandTrendr:
    """Disturbances of one index from yearly composites: as many straight pieces as a p of F bears out.

    The median of a year's observations is its value. Spikes are pulled in; vertices are set where the values are
    furthest from straight lines, and the flattest go; of the fits with ever fewer vertices, that with the least p of F
    is taken. A piece that goes the way of a disturbance, and takes no longer than `max_years`, is a change.

    Parameters
    ----------
    p_value : float
        Of F, above which a pixel is left flat. The paper's is 0.05, at which about twice as many stable ones are not.
    max_segments : int
        Pieces at most.
    max_years : number
        Years that a disturbance may take; what takes longer is a trend and no change.
    recovery : float
        Share of the pixel's range that a year of recovery may bring; fits with a faster one are refused. 1 allows all.
    disturbance : str
        "down" where a disturbance lowers the index (vegetation), "up" where it raises it.
    season : str, optional
        Part of the year that is observed, as "06-01/09-15"; one over the turn of the year belongs to the year in which
        it begins. None takes all of each calendar year, however many observations it has.
    prior : float
        Share of change that `probability` assumes.
    since, until : date, optional
        Changes before `since` are not counted (all observations are used); later scenes than `until` are left out.
    index : str, optional
        A band or an index of `indices.INDICES`; backscatter is followed in dB. None takes the only band, or ndvi.

    Raises
    ------
    StackError
        Scenes of fewer than six years; no scene in the season.

    Notes
    -----
    Layers besides those of every Changes: `n_changes`, and over (break, y, x), in the order of time, `break_date`,
    `break_after`, `break_magnitude`, `break_probability`; over (vertex, y, x) `vertex_year` (0 = none) and
    `vertex_value`, the fit. A year is all the method knows of a date: `date` is the first observation of the first year
    that is lower, and (date_after, date_by] reaches from the middle observation of the year before to the last of that
    year. `magnitude` is the fall of the fit. `probability` compares the sums of squares of the fits with that of one
    line, two coefficients a vertex (BIC).

    There is no `alpha`: vertices are chosen on the values that the F is taken of, so that `p_value` is no chance of a
    false alarm; what it holds is measured by `benchmarks/segments.py`. With the coordinate `sigma_px`, what the shift
    adds to the variance of the medians, (|gradient| x sigma_px)^2 x pi/2 over the observations of a year, is added to
    the residual sums of squares.

    References
    ----------
    Kennedy, Yang and Cohen (2010), Detecting trends in forest disturbance and recovery using yearly Landsat time
    series: 1. LandTrendr, doi:10.1016/j.rse.2010.07.008. We differ in the yearly value (a median, not the observation
    nearest to one day) and in taking the values at the vertices from least squares, which is linear, where no anchored
    fit passes; vertices are culled by angles in which a year is as long
    as the range of the values; falls that follow each other are one change; the interval and `probability` are ours.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2005-01-01", "2021-01-01", 16, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.03, (time.size, 1, 1))
    >>> ndvi[time >= np.datetime64("2014-05-01")] -= 0.3
    >>> found = LandTrendr().detect(new_stack({"ndvi": ndvi}, time))
    >>> str(found.date.values[0, 0])[:4], int(found.n_changes[0, 0])
    ('2014', 1)
    """

    p_value: float = 0.01
    max_segments: int = 6
    max_years: float = 4
    recovery: float = 0.25
    disturbance: str = "down"
    season: str | None = None
    prior: float = 0.1
    since: str | None = None
    until: str | None = None
    index: str | None = None

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_segments(self)
        if not 0 < self.p_value < 1:
            raise ConfigError(f"p_value is {self.p_value!r}; it is a chance strictly between 0 and 1, as 0.05.")
        if self.max_segments != int(self.max_segments) or not 2 <= self.max_segments <= 20:
            raise ConfigError(f"max_segments is {self.max_segments!r}; 2 to 20 pieces are possible.")
        for name in ("max_years", "recovery"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it is a number above 0.")
        if self.disturbance not in SIGNS:
            raise ConfigError(f"disturbance is {self.disturbance!r}; choose one of {', '.join(SIGNS)}.")
        _season(self.season)

    @property
    def max_breaks(self):
        return int(self.max_segments)

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        stack, first = cut(stack, self.since, self.until)
        refuse_backscatter(stack, self.index)
        series, units = series_of(stack, self.index)
        year = years_of(stack.time.values, self.season)
        n_years = np.unique(year[year >= 0]).size
        if n_years < MIN_YEARS:
            raise StackError(
                f"the stack has scenes of {n_years} years{' in the season' if self.season else ''}; LandTrendr needs "
                f"{MIN_YEARS} at the least. Give a longer series, or choose another detector, as 'breaks'."
            )
        steep, spread = widening(stack, series)
        most = int(self.max_segments)
        found = per_pixel(
            _scan,
            series,
            steep,
            outputs={
                **break_outputs(most),
                "vertex_year": ("uint16", "vertex", most + 1),
                "vertex_value": ("float32", "vertex", most + 1),
            },
            spread=np.asarray(spread, np.float64),
            year=year,
            sign=SIGNS[self.disturbance],
            max_segments=most,
            p_value=float(self.p_value),
            recovery=float(self.recovery),
            max_years=float(self.max_years),
            first=first,
            prior=float(self.prior),
        )
        changes = break_changes(self, stack, found, units, REASONS)
        return changes.assign(
            vertex_year=found.vertex_year.assign_attrs(long_name="year of a vertex of the fit, 0 = none"),
            vertex_value=found.vertex_value.assign_attrs(long_name="value of the fit at a vertex", units=units),
        )


def years_of(time, season=None):
    """Year of every scene, int32; -1 outside the season."""
    time = np.asarray(time, "datetime64[D]")
    year = time.astype("datetime64[Y]")
    number = year.astype(np.int32) + 1970
    if season is None:
        return number
    begin, end = _season(season)
    month = time.astype("datetime64[M]")
    day = 100 * (month - year).astype(int) + 101 + (time - month).astype(int)
    if begin <= end:
        return np.where((day >= begin) & (day <= end), number, -1).astype(np.int32)
    return np.where(day >= begin, number, np.where(day <= end, number - 1, -1)).astype(np.int32)


def _season(season):
    if season is None:
        return None
    numbers = re.fullmatch(r"(\d\d)-(\d\d)/(\d\d)-(\d\d)", str(season))
    parts = [int(v) for v in numbers.groups()] if numbers else []
    if not parts or not all(1 <= m <= 12 and 1 <= d <= 31 for m, d in zip(parts[::2], parts[1::2])):
        raise ConfigError(f"season is {season!r}; it is two days of the year, as '06-01/09-15'.")
    return 100 * parts[0] + parts[1], 100 * parts[2] + parts[3]


def _scan(series, steep, *, prior, **options):
    # a read-only array is another type to numba, and would be compiled for again
    series = np.require(series, np.float32, ["C", "W"])
    outcome, n_obs, at, size, evidence, vertex, fitted = scan(series, steep.astype(np.float64), **options)
    change = size[:, :, 0]
    strongest = np.where(outcome > 0, np.nan_to_num(np.abs(change), nan=-1.0).argmax(axis=1), -1)
    found = summary(
        outcome, n_obs, at[:, :, :2], np.abs(change), change, size[:, :, 1], evidence, strongest, prior, at[:, :, 2]
    )
    return *found, np.maximum(vertex, 0), fitted
