"""BFAST Monitor, as published: stable history, harmonic model with trend, a fluctuation process and its boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood
from geoalign.detectors.series import check_options, part, series_of
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.bfast_monitor import (
    BANDWIDTHS,
    PROCESSES,
    critical,
    design,
    monitor,
    p_values,
    roc_critical,
)
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack


@dataclass(frozen=True)
class BfastMonitor:
    """BFAST Monitor (Verbesselt, Zeileis and Herold 2012), to compare with; `watch` is the one to use.

    Faithful to the R packages bfast and strucchange: `date` is the observation at which the process leaves its
    boundary, `magnitude` the median of observed minus predicted over the whole monitored time.

    Parameters
    ----------
    alpha : float
        Level of the monitoring and of the search for a stable history, 0.001 to 0.05 (for `me` with p regressors p
        times as much).
    prior : float
        Share of change that `probability` assumes.
    since : date, optional
        Monitoring starts; all before is history. None takes the first year (half the series where that is shorter).
    until : date, optional
        Later scenes are left out.
    history : float, optional
        Days of history before `since` that are considered. None takes all.
    order : int
        Harmonics of the year, 0 to 3.
    index : str, optional
        A band or an index of `indices.INDICES`. None takes the only band, ndvi, or vh (in dB).
    process : str
        "ols_mosum" (moving sums of residuals), "ols_cusum", "re" (recursive estimates) or "me" (moving estimates).
    h : float
        Bandwidth of the moving processes as a share of the history: 0.25, 0.5 or 1.
    stable : str
        "roc" takes as history what a reverse-ordered CUSUM test finds stable, "all" all of it.

    Notes
    -----
    The boundary does not hold its level here: it is asymptotic, for at most ten times the history, and for independent
    errors. On stable series with eight years of history 3 % cross it in two years and nearly half in
    twelve, at alpha 0.05 (`benchmarks/watch.py`); `sigma_px` is not used. `probability` comes from the p-value by the
    bound of Sellke, Bayarri and Berger (2001) and inherits that.

    `date_after` is the last observation before the window (of the moving processes) that left the boundary. As in R all
    years have 365 days. A pixel needs more observations of stable history than regressors, and 2 / h of them.

    References
    ----------
    Verbesselt, Zeileis and Herold (2012), doi:10.1016/j.rse.2012.02.022; Pesaran and Timmermann (2002),
    doi:10.1016/S0927-5398(02)00007-5, for the stable history; Leisch, Hornik and Kuan (2000),
    doi:10.1017/S0266466600166058, and Chu, Stinchcombe and White (1996), doi:10.2307/2171955, for the processes.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2010-01-01", "2020-01-01", 16, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 1))
    >>> ndvi[200:] -= 0.2
    >>> found = BfastMonitor(since="2018-01-01").detect(new_stack({"ndvi": ndvi}, time))
    >>> int(found.status[0, 0]), int(found.direction[0, 0]), bool(found.date.values[0, 0] >= time[200])
    (3, -1, True)
    """

    alpha: float = 0.05
    prior: float = 0.05
    since: str | None = None
    until: str | None = None
    history: float | None = None
    order: int = 3
    index: str | None = None
    process: str = "ols_mosum"
    h: float = 0.25
    stable: str = "roc"

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()
    faithful: ClassVar[bool] = True

    def __post_init__(self):
        check_options(self)
        if self.order is None:
            raise ConfigError("order is None; 0 to 3 harmonics of the year are possible.")
        if self.process not in PROCESSES:
            raise ConfigError(f"process is {self.process!r}; choose one of {', '.join(PROCESSES)}.")
        if self.h not in BANDWIDTHS:
            raise ConfigError(f"h is {self.h!r}; critical values are known for {', '.join(map(str, BANDWIDTHS))}.")
        if self.stable not in ("roc", "all"):
            raise ConfigError(
                f"stable is {self.stable!r}; 'roc' looks for the stable part of the history, 'all' doesn't."
            )
        critical(self.process, self.h, self.alpha, 2 + 2 * self.order)

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        check_stack(stack)
        stack, first = part(stack, self.since, self.until, self.history)
        first = abs(first)
        if first >= stack.sizes["time"]:
            raise StackError(
                f"no scene is left to monitor: the last one, of {str(stack.time.values[-1])[:10]}, belongs to the "
                "history. Choose an earlier since."
            )
        series, units = series_of(stack, self.index)
        x, _ = design(stack.time.values, self.order)
        places = ("date", "after", "start", "n_history")
        found = neighbourhood(
            _monitored, series.transpose("time", "y", "x"), depth=0,
            outputs={**dict.fromkeys(places, "int32"), "magnitude": "float32", "probability": "float32",
                     "n_obs": "uint16"},
            x=x, first=first, process=self.process, h=float(self.h), alpha=float(self.alpha), prior=float(self.prior),
            roc=roc_critical(self.alpha) if self.stable == "roc" else 0.0,
        )  # fmt: skip
        seen, stamps = (found.n_history > 0) & found.magnitude.notnull(), stack.time.values
        hit = seen & (found.date >= 0)
        layers = {
            "status": xr.where(hit, CONFIRMED, xr.where(seen, NO_CHANGE, NOT_OBSERVABLE)),
            "date": dates_at(found.date, stamps),
            "date_after": dates_at(found.after, stamps),
            "date_by": dates_at(found.date, stamps),
            "magnitude": found.magnitude,
            "direction": xr.where(hit, np.sign(found.magnitude.fillna(0)), 0),
            "probability": found.probability.where(seen),
            "n_obs": found.n_obs,
            "why": xr.where(seen, 0, xr.where(found.n_obs > 0, WHY["too_few"], WHY["no_data"])),
            "history_start": dates_at(found.start, stamps),
        }
        return new_changes(
            layers, kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units=units,
            inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip


def _monitored(series, *, x, first, process, h, alpha, prior, roc):
    shape = series.shape[1:]
    bound = critical(process, h, alpha, x.shape[1])
    flat = series.reshape(series.shape[0], -1)
    date, after, start, n_history, magnitude, statistic, n_obs = monitor(
        flat, x, first, PROCESSES.index(process), h, bound, roc
    )
    p = np.maximum(p_values(statistic, process, h, x.shape[1]), 1e-300)
    # the most that such a p-value can speak for a change
    telling = np.minimum(p, np.exp(-1))
    odds = -prior / (1 - prior) / (np.e * telling * np.log(telling))
    probability = odds / (1 + odds)
    return tuple(a.reshape(shape) for a in (date, after, start, n_history, magnitude, probability, n_obs))
