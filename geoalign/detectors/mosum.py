"""Moving sum of the prediction errors of a season."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geoalign.detectors.charts import Chart


@dataclass(frozen=True)
class Mosum(Chart):
    """MOSUM chart: the sum of the last five prediction errors over its sd.

    Parameters
    ----------
    alpha : float
        Chance of a false alarm at a stable pixel over the whole time watched, however long.
    prior : float
        Share of change that `probability` assumes.
    since : date, optional
        Watching starts; all before is history. None takes the first year (half the series where that is shorter).
    until : date, optional
        Later scenes are left out.
    history : float, optional
        Days of history: before `since`, or at the start of the series. None takes all before `since`.
    order : int, optional
        Harmonics of the year, 0 to 3. None takes two; for backscatter one, or none with under 0.8 years of history.
    index : str, optional
        A band or an index of `indices.INDICES`. None takes the only band, ndvi, or vh (in dB).
    direction : int
        -1 looks for drops only, 1 for rises only, 0 for both.

    Notes
    -----
    The errors are those of a robust harmonic regression that takes each observation in once it was predicted.
    They are
    carried to the normal scale with the model's own error and the doubt about the noise, whitened where the history
    shows autocorrelation, and cut at 3 sd. The limit is simulated for the number of observations watched and for the
    whole of that time, 1 % of outliers to one side allowed for: the published boundary is asymptotic and lets
    nearly half of stable pixels pass in twelve years.
    With white noise the level is held from a year of history on, and with AR(1) 0.3 and eight years of it as well
    (`benchmarks/watch.py`).

    `date` is the first changed observation, `date_confirmed` the one at which the chart passed its limit; the
    other layers are those of `harmonic_cusum`. The coordinate `sigma_px` is used as in `watch`.

    References
    ----------
    Chu, Hornik and Kuan (1995), doi:10.1093/biomet/82.3.603; Verbesselt et al. (2012), doi:10.1016/j.rse.2012.02.022.
    We differ in the errors (predictions of a growing reference, not residuals) and in the limit.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 1))
    >>> ndvi[90:] -= 0.2
    >>> found = Mosum(since="2021-06-01").detect(new_stack({"ndvi": ndvi}, time))
    >>> int(found.status[0, 0]), int(found.direction[0, 0]), bool(found.date.values[0, 0] == time[90])
    (3, -1, True)
    """

    chart: ClassVar[str] = "mosum"
