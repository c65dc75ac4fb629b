"""Continuous change detection and classification: its change detection (CCDC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import chi2

from geoalign.chunked import per_pixel
from geoalign.detectors.segments import (
    break_changes,
    break_outputs,
    check_segments,
    cut,
    followed,
    phase_order,
    since_start,
    summary,
)
from geoalign.errors import ConfigError
from geoalign.kernels.ccdc import NO_DATA, SNOW, TMASK_REFLECTANCE, TOO_FEW, UNSTABLE, scan
from geoalign.kernels.lasso import PENALTY, design

MIN_OBS = 24
"""Clear observations for a pixel to be looked at: three a coefficient of the full model."""
EFFECT = 3.0
"""Typical size of a change in noise standard deviations, for `probability`."""
RARE_CCDC, RARE_COLD = 0.999999, 0.99999
"""Chance of the chi-squared distribution beyond which a lone observation is an outlier."""
REASONS = {NO_DATA: "no_data", TOO_FEW: "too_few", SNOW: "not_detectable", UNSTABLE: "not_detectable"}


@dataclass(frozen=True)
class Ccdc:
    """Breaks of a series of several bands: season and trend, and six observations in a row that do not fit them.

    Every band's season and trend (LASSO; 4, 6 or 8 coefficients with 12, 18 or 24 observations) is fitted to a stable
    start of at least a year, and again as observations come in. The squared differences of an observation from the
    models, over the noise of its time of the year, are summed over the bands; six in a row beyond the threshold are a
    break, and a new stable start is looked for. Where six or more observations lie between a break and the next stable
    start and do not fit that either, the start is a break as well.

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
    The published thresholds hold no nominal chance of a false alarm; what they hold is measured by
    `benchmarks/segments.py` (stable pixels flagged in 20 years).

    Layers besides those of every Changes: `n_changes`, and over (break, y, x), in the order of time, `break_date`,
    `break_after`, `break_magnitude`, `break_probability`. `magnitude` is the length of the median difference vector of
    the six observations (of several bands; in their units), with the sign of `direction`, which is that of greenness
    (nir - red - swir1) or of the one series. `date` is the first of the six.

    A pixel needs 24 clear observations over a year. Reflectance outside 0..1 is left out; so are snow (by its colour,
    where green, nir and swir1 are there) and what Tmask marks in a stable start (0.04 from a robust season in green and
    swir1; for other series 4.89 times the typical difference of observations). Where over 75 % of the clear
    observations are snow, and where no stable start is ever found, status is 255, `not_detectable`.

    With the coordinate `sigma_px` the variance of a difference grows by (|gradient| x sigma_px)^2.

    References
    ----------
    Zhu and Woodcock (2014), doi:10.1016/j.rse.2014.01.011, with the chi-squared test of six observations, the noise of
    the 24 nearest days of the year and the least noise from differences of observations as in USGS LCMAP (Brown et al.
    2020, doi:10.1016/j.rse.2019.111356). Fits come from sums of products, not from the data, and with more than 100
    observations are made anew at every 1 % more of them; `probability` is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2015-01-01", "2021-01-01", 16, "datetime64[D]")
    >>> season = 0.6 + 0.2 * np.sin(2 * np.pi * np.arange(time.size) * 16 / 365.25)
    >>> ndvi = season[:, None, None] + np.random.default_rng(0).normal(0, 0.02, (time.size, 1, 1))
    >>> ndvi[80:] -= 0.35
    >>> found = Ccdc().detect(new_stack({"ndvi": ndvi}, time))
    >>> bool(found.date.values[0, 0] == time[80]), int(found.direction[0, 0]), int(found.n_changes[0, 0])
    (True, -1, 1)
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
        return follow(self, stack, cold=False)


def follow(detector, stack, *, cold):
    """Changes by `kernels.ccdc.scan`, with the rules of COLD or CCDC."""
    stack, first = cut(stack, detector.since, detector.until)
    series = followed(stack, detector.index)
    at = since_start(stack.time.values)
    n_band = len(series.bands)
    haze = series.numbers("green", "swir1")
    found = per_pixel(
        _scan,
        series.cube,
        series.slope,
        outputs=break_outputs(detector.max_breaks),
        spread=series.spread,
        years=at,
        x=design(at),
        phase_order=phase_order(at),
        lowest=np.full(n_band, 0.0 if series.reflectance else -np.inf),
        highest=np.full(n_band, 1.0 if series.reflectance else np.inf),
        snow=series.numbers("green", "nir", "swir1") if series.reflectance else np.full(3, -1),
        cloud=haze[haze >= 0] if (haze >= 0).any() else np.arange(1),
        tone=series.tone,
        cold=cold,
        haze=TMASK_REFLECTANCE if series.reflectance and not cold else 0.0,
        threshold=float(chi2.ppf(detector.threshold, n_band)),
        outlier=float(chi2.ppf(RARE_COLD if cold else RARE_CCDC, n_band)),
        penalty=PENALTY,
        min_obs=MIN_OBS,
        effect=EFFECT,
        first=first,
        max_breaks=int(detector.max_breaks),
        prior=float(detector.prior),
    )
    return break_changes(detector, stack, found, series.units, REASONS)


def _scan(cube, slope, *, prior, **options):
    # a read-only array is another type to numba, and would be compiled for again
    cube = np.require(cube, np.float32, ["C", "W"])
    outcome, n_obs, at, size, evidence, strongest = scan(cube, slope.astype(np.float64), **options)
    return summary(outcome, n_obs, at, size[:, :, 0], size[:, :, 1], size[:, :, 2], evidence, strongest, prior)
