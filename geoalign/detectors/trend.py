"""Slow change: greening, browning, drying. A trend that neither autocorrelation nor a step explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.special import ndtr

from geoalign.chunked import per_pixel, whole_image
from geoalign.detectors.series import check_options, part, series_of, widening, years
from geoalign.errors import ConfigError
from geoalign.kernels.harmonic import regressors
from geoalign.kernels.trend import CLEAR_STEP, deseasoned_periods, trends
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack

PERIODS_A_YEAR = {"year": 1, "quarter": 4, "month": 12}
ENOUGH_PERIODS = 12
"""Periods that a series should have: the longest of year, quarter and month that gives so many is taken."""
SEASON_SCENES = 6
"""Scenes a year from which a season is fitted and taken out (two harmonics)."""
SLOPE_SCORE = 3.0
"""Typical normal score of a trend, for `probability`."""
N_BIN = 4000
"""Bins of ln p for false-discovery control, evenly from 1e-20 to 1."""
LEAST_P = 1e-20


@dataclass(frozen=True)
class Trend:
    """Slow change in one series, with its slope: not seasons, not steps, not the wandering of autocorrelated noise.

    The season is fitted robustly and taken out, observations are reduced to robust means by year (quarters or months
    where there are under twelve years or quarters), and tested by Mann and Kendall's test on the prewhitened series.
    Slopes are those of Theil and Sen. A series that one step explains better than a straight line is no trend (of fewer
    than twelve periods: clearly better): it is for `breaks`.

    Parameters
    ----------
    alpha : float
        Chance of a trend at a stable pixel, with autocorrelated noise too.
    fdr : bool
        Control instead the share `alpha` of false ones among all trends of the image (Benjamini and Hochberg).
    prior : float
        Share of trends that `probability` assumes.
    since, until : date, optional
        Scenes outside are left out.
    index : str, optional
        A band or index; see `HarmonicCusum`.
    period : str, optional
        "year", "quarter", "month" or "scene"; None chooses.

    Notes
    -----
    `magnitude` is the slope a year, with `slope_low` and `slope_high` (95 %). A trend has no day on which it happened:
    `date` is NaT with the reason `unlocated`, `date_after` and `date_by` are the first and the last scene. Where a step
    explains the series, status is 0 with the reason `not_detectable` and `step_date` is the first scene after the
    step. `p_value` and `q_value` are per pixel; q is the false-discovery rate at which the pixel would just count.
    At least eight periods and 60 % of them need a value. With `sigma_px`, the score is weakened by the noise that the
    shift adds.

    Neighbouring scenes of other sensors make steps and trends of their own: harmonise them first
    (`radiometry.normalise`).

    References
    ----------
    Collaud Coen et al. (2020), doi:10.5194/amt-13-6945-2020, and Yue et al. (2002), doi:10.1002/hyp.1095, for
    prewhitening, where we differ in how its size is kept (`kernels.trend.trends`); Wilks (2016),
    doi:10.1175/BAMS-D-15-00267.1, for the false-discovery rate. The step test is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2000-02-01", "2024-02-01", 16, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.5, 0.03, (time.size, 1, 2))
    >>> ndvi[:, 0, 0] += np.linspace(0, 0.2, time.size)
    >>> ndvi[300:, 0, 1] += 0.2
    >>> found = Trend().detect(new_stack({"ndvi": ndvi}, time))
    >>> found.status.values.tolist(), round(float(found.magnitude[0, 0]), 3)
    ([[3, 0]], 0.008)
    """

    alpha: float = 0.05
    fdr: bool = False
    prior: float = 0.1
    since: str | None = None
    until: str | None = None
    index: str | None = None
    period: str | None = None

    kind: ClassVar[str] = "trend"
    needs: ClassVar[tuple[str, ...]] = ()
    history: ClassVar[None] = None

    def __post_init__(self):
        check_options(self)
        if self.period not in (None, "scene", *PERIODS_A_YEAR):
            raise ConfigError(f"period is {self.period!r}; it is one of {', '.join(PERIODS_A_YEAR)}, scene, or None.")
        if not isinstance(self.fdr, bool):
            raise ConfigError(f"fdr is {self.fdr!r}; it is True or False.")

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        check_stack(stack)
        stack, _ = part(stack, None, self.until, None)
        if self.since is not None:
            stack = stack.sel(time=slice(np.datetime64(self.since, "ns"), None))
            check_stack(stack)
        series, units = series_of(stack, self.index)
        time = stack.time.values
        number, a_year = periods_of(time, self.period)
        span = (time[-1] - time[0]) / np.timedelta64(1, "D") / 365.25
        order = 2 if time.size >= SEASON_SCENES * span and span >= 2 else 0
        n_period = int(number[-1]) + 1
        at = years(time)
        steep, spread = widening(stack, series)
        found = per_pixel(
            _fields,
            series,
            steep,
            outputs={
                "outcome": "int8",
                **dict.fromkeys(("slope", "low", "high", "score", "noise", "autocorrelation"), "float32"),
                "step": "bool",
                "place": "int32",
                "n_obs": "uint16",
            },
            x=regressors(at - np.floor(at[0]), order),
            number=number,
            n_period=n_period,
            order=order,
            shift=float(np.mean(spread) / max(time.size / n_period, 1.0)),
        )
        p = per_pixel(_p_value, found.score, outputs={"p": "float32"}).p
        testable = (found.outcome == 0) & ~found.step
        table = whole_image(_count, _rates, p.where(found.outcome == 0), size=N_BIN)
        q = per_pixel(_q_value, p, outputs={"q": "float32"}, table=table).q
        hit = testable & ((q if self.fdr else p) <= self.alpha)
        first_of = np.searchsorted(number, np.arange(n_period))
        odds = per_pixel(_odds, found.score, outputs={"odds": "float32"}, prior=self.prior).odds
        whole = xr.zeros_like(found.place)
        layers = {
            "status": xr.where(found.outcome < 0, NOT_OBSERVABLE, xr.where(hit, CONFIRMED, NO_CHANGE)),
            "date": dates_at(whole - 1, time),
            "date_after": dates_at(xr.where(hit, whole, -1), time),
            "date_by": dates_at(xr.where(hit, whole + (time.size - 1), -1), time),
            "magnitude": found.slope * np.float32(a_year),
            "direction": xr.where(hit, np.sign(found.slope.fillna(0)), 0),
            "probability": xr.where(found.step, 0.0, odds / (1 + odds)).where(found.outcome == 0),
            "n_obs": found.n_obs,
            "why": xr.where(found.outcome == -1, WHY["no_data"], xr.where(found.outcome == -2, WHY["too_few"], 0))
            + xr.where(hit, WHY["unlocated"], 0)
            + xr.where((found.outcome == 0) & found.step, WHY["not_detectable"], 0),
            "slope_low": found.low * np.float32(a_year),
            "slope_high": found.high * np.float32(a_year),
            "p_value": p.where(found.outcome == 0),
            "q_value": q.where(found.outcome == 0),
            "autocorrelation": found.autocorrelation,
            "noise": found.noise,
            "step_date": dates_at(xr.where(found.step, found.place, -1).astype("int32"), time[first_of]),
        }
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units=f"{units} a year" if units != "1" else "1/year",
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )


def periods_of(time, period):
    """Number of each scene's period, from 0, and periods a year; None takes the longest of which there are enough."""
    stamps = np.asarray(time, "datetime64[M]").astype(int)
    if period is None:
        known = [k for k, n in PERIODS_A_YEAR.items() if np.ptp(stamps // (12 // n)) + 1 >= ENOUGH_PERIODS]
        period = known[0] if known else "scene"
    if period == "scene":
        span = (time[-1] - time[0]) / np.timedelta64(1, "D") / 365.25
        return np.arange(len(time)), (len(time) - 1) / max(span, 1e-6)
    number = stamps // (12 // PERIODS_A_YEAR[period])
    return (number - number[0]).astype(np.int64), float(PERIODS_A_YEAR[period])


def _fields(series, steep, *, x, number, n_period, order, shift):
    periods, count = deseasoned_periods(series, x, number, n_period, order)
    r = trends(periods, steep.astype(np.float64) * shift)
    step = (r[:, 0] == 0) & (r[:, 4] > CLEAR_STEP)
    place = np.nan_to_num(r[:, 5], nan=-1.0)
    # single precision would call a constant series with rounding noise a trend of size zero
    return r[:, 0], r[:, 1], r[:, 7], r[:, 8], np.nan_to_num(r[:, 2]), r[:, 6], r[:, 3], step, place, count


def _p_value(score):
    return np.maximum(2 * ndtr(-np.abs(score.astype(np.float64))), LEAST_P)


def _odds(score, *, prior):
    """Prior odds times the likelihood ratio of a normal score whose mean is itself normal with sd SLOPE_SCORE."""
    more = SLOPE_SCORE**2
    ratio = np.exp(np.minimum(0.5 * score.astype(np.float64) ** 2 * more / (1 + more), 60.0)) / np.sqrt(1 + more)
    return prior / (1 - prior) * ratio


def _bins(p):
    with np.errstate(invalid="ignore"):
        place = (1 - np.log(p.astype(np.float64)) / np.log(LEAST_P)) * (N_BIN - 1)
    return np.clip(np.nan_to_num(place), 0, N_BIN - 1).round().astype(np.int64)


def _count(p):
    seen = np.isfinite(p)
    return np.bincount(_bins(p[seen]), minlength=N_BIN).astype(np.float64)


def _rates(parts):
    """Benjamini and Hochberg's q at every bin of p: the least over larger p of p m / (number with p or less)."""
    count = np.cumsum(np.sum(parts, axis=0))
    p = LEAST_P ** (1 - np.arange(N_BIN) / (N_BIN - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(count > 0, p * count[-1] / count, 1.0)
    return np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)


def _q_value(p, *, table):
    return table[_bins(p)]
