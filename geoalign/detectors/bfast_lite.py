"""BFAST Lite: all breaks of one series at once, by dynamic programming."""

from __future__ import annotations

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
    since_start,
    summary,
)
from geoalign.detectors.series import order_of, series_of, widening
from geoalign.errors import ConfigError
from geoalign.kernels.breakpoints import NO_DATA, TOO_FEW, regressors, scan

REASONS = {NO_DATA: "no_data", TOO_FEW: "too_few"}
CRITERIA = ("LWZ", "BIC")


@dataclass(frozen=True)
class BfastLite:
    """Breaks of one series: a season and trend for every segment, as many segments as an information criterion allows.

    Of all ways to cut the series, the one with the least sum of squares is found for every number of segments by
    dynamic programming; the criterion weighs each break as much as the coefficients of a segment and the break's place.

    Parameters
    ----------
    criterion : str
        "LWZ" (Liu, Wu and Zidek; few breaks) or "BIC" (more).
    share : float
        Least share of a pixel's observations in a segment.
    prior : float
        Share of change that `probability` assumes.
    since, until : date, optional
        Changes before `since` are not counted (all observations are used); later scenes than `until` are left out.
    order : int, optional
        Harmonics of the year, 0 to 3; fewer where observations are few. None takes three; for backscatter one, or none
        with under 0.8 years of scenes.
    index : str, optional
        A band or an index of `indices.INDICES`; backscatter is followed in dB. None takes the only band, or ndvi.
    max_breaks : int
        Changes of a pixel that are kept in `break_date` and its like; all are counted.

    Notes
    -----
    Layers besides those of every Changes: `n_changes`, and over (break, y, x), in the order of time, `break_date`,
    `break_after`, `break_magnitude`, `break_probability`. `magnitude` is the mean difference of the two models over the
    observations around the break. (date_after, date_by] holds the break with a chance of 90 %, by the likelihood of its
    places. `probability` is a Bayes factor (Zellner's prior worth one observation). The criteria hold no nominal chance
    of a false alarm; what they hold is measured by `benchmarks/segments.py`.

    Backscatter has no trend in its segments, in which a step would hide. With the coordinate `sigma_px`, scenes that
    lie further off count less: by 1 / (1 + (|gradient| x sigma_px)^2 / noise variance).

    References
    ----------
    Masiliunas et al. (2021), BFAST Lite, doi:10.3390/rs13163308; Bai and Perron (2003), doi:10.1002/jae.659; Liu, Wu
    and Zidek (1997) for LWZ. Breaks are first placed optimally on 80 of the observations and then moved to their best
    place one at a time; lone observations far from both neighbours (undetected clouds) are left out first; the interval
    and `probability` are ours. The default `share` is less than R's 0.15, so that changes of the last years are found.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2015-01-01", "2021-01-01", 16, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.03, (time.size, 1, 1))
    >>> ndvi[80:] -= 0.3
    >>> found = BfastLite().detect(new_stack({"ndvi": ndvi}, time))
    >>> bool(found.date.values[0, 0] == time[80]), int(found.n_changes[0, 0])
    (True, 1)
    """

    criterion: str = "LWZ"
    share: float = 0.1
    prior: float = 0.1
    since: str | None = None
    until: str | None = None
    order: int | None = None
    index: str | None = None
    max_breaks: int = 6

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_segments(self)
        if self.criterion not in CRITERIA:
            raise ConfigError(f"criterion is {self.criterion!r}; choose one of {', '.join(CRITERIA)}.")
        if not 0 < self.share <= 0.5:
            raise ConfigError(f"share is {self.share!r}; it is a share of the observations above 0, 0.5 at the most.")
        if self.order not in (None, 0, 1, 2, 3):
            raise ConfigError(f"order is {self.order!r}; 0 to 3 harmonics of the year are possible, or None.")

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        stack, first = cut(stack, self.since, self.until)
        refuse_backscatter(stack, self.index)
        series, units = series_of(stack, self.index)
        steep, spread = widening(stack, series)
        backscatter = units == "dB"
        order = self.order
        if order is None:
            order = order_of(None, units, stack.time.values, stack.sizes["time"]) if backscatter else 3
        found = per_pixel(
            _scan,
            series,
            steep,
            outputs=break_outputs(self.max_breaks),
            spread=np.asarray(spread, np.float64),
            x=regressors(since_start(stack.time.values), order, not backscatter),
            order=order,
            trend=not backscatter,
            share=float(self.share),
            max_segments=int(round(1 / self.share)),
            schwarz=self.criterion == "BIC",
            again=float(self.prior),
            first=first,
            max_breaks=int(self.max_breaks),
            prior=float(self.prior),
        )
        return break_changes(self, stack, found, units, REASONS)


def _scan(series, steep, *, prior, **options):
    # a read-only array is another type to numba, and would be compiled for again
    series = np.require(series, np.float32, ["C", "W"])
    outcome, n_obs, at, size, evidence = scan(series, steep.astype(np.float64), **options)
    change = size[:, :, 0]
    strongest = np.where(outcome > 0, np.nan_to_num(np.abs(change), nan=-1.0).argmax(axis=1), -1)
    return summary(
        outcome, n_obs, at[:, :, :2], np.abs(change), change, size[:, :, 1], evidence, strongest, prior, at[:, :, 2]
    )
