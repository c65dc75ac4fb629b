"""Continuous monitoring of land disturbance (COLD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geoalign.detectors.ccdc import follow
from geoalign.detectors.segments import check_segments
from geoalign.errors import ConfigError


@dataclass(frozen=True)
class Cold:
    """Breaks of a series of several bands: six observations in a row far from season and trend, and all the same way.

    As `Ccdc`, but the six difference vectors must also point the same way (mean angle between successive ones under 45
    degrees), models are fitted anew whenever their observations are 3 % more, each difference keeps the noise of its
    own time, and Tmask also sees the six observations that follow.

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
    The layers, screening, reasons and `sigma_px` of `Ccdc`. The published thresholds hold no nominal chance of a false
    alarm; what they hold is measured by `benchmarks/segments.py`. With one band the angle is 0 or 180 degrees: one of
    the five may turn.

    References
    ----------
    Zhu et al. (2020), Continuous monitoring of land disturbance based on Landsat time series,
    doi:10.1016/j.rse.2019.03.009. Fits come from sums of products, not from the data; `probability` is ours.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2015-01-01", "2021-01-01", 16, "datetime64[D]")
    >>> noise = np.random.default_rng(0).normal(0, 0.01, (2, time.size, 1, 1))
    >>> red, nir = noise + np.array([0.05, 0.35])[:, None, None, None]
    >>> red[80:] += 0.1
    >>> nir[80:] -= 0.1
    >>> found = Cold().detect(new_stack({"red": red, "nir": nir}, time))
    >>> bool(found.date.values[0, 0] == time[80]), int(found.direction[0, 0])
    (True, -1)
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
        return follow(self, stack, cold=True)
