"""What the control charts share: `ewma`, `cusum` and `mosum` differ in one kernel's chart only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import polygamma

from geoalign.chunked import per_pixel
from geoalign.detectors.harmonic_cusum import EFFECT, layers_of
from geoalign.detectors.series import check_options, order_of, part, series_of, widening, years
from geoalign.detectors.watch import MIN_HISTORY
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.charts import CHARTS, follow, limits
from geoalign.kernels.harmonic import regressors
from geoalign.types.changes import new_changes
from geoalign.types.stack import check_stack

NEPER_DB = 10 / np.log(10)


@dataclass(frozen=True)
class Chart:
    """A control chart of the prediction errors of a harmonic regression; see `Ewma`, `Cusum`, `Mosum`."""

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
    chart: ClassVar[str]

    def __post_init__(self):
        check_options(self)
        if self.direction not in (-1, 0, 1):
            raise ConfigError(f"direction is {self.direction!r}; -1 looks for drops, 1 for rises, 0 for both.")

    def detect(self, stack):
        """Changes (y, x) of a Stack; lazy where the stack is."""
        check_stack(stack)
        stack, first = part(stack, self.since, self.until, self.history)
        if abs(first) < MIN_HISTORY:
            raise StackError(
                f"the history has {abs(first)} scenes; a chart needs {MIN_HISTORY} or more to tell change from what is "
                "usual. Let watching begin later (since=...), or look back with harmonic_cusum."
            )
        series, units = series_of(stack, self.index)
        steep, spread = widening(stack, series)
        order = order_of(self.order, units, stack.time.values, first)
        time = years(stack.time.values)
        found = per_pixel(
            _fields, series, steep,
            outputs={
                "outcome": "int8",
                **dict.fromkeys(("date", "after", "by", "confirmed", "over"), "int32"),
                **dict.fromkeys(("magnitude", "probability", "noise"), "float32"),
                "n_obs": "uint16",
            },
            x=regressors(time - np.floor(time[0]), order), years=time, first=first,
            spread=np.asarray(spread, np.float64), least=_speckle(stack, series, units), order=order,
            chart=CHARTS.index(self.chart),
            # the table is two-sided: looking one way only, the same chance buys a lower limit
            bound=limits(self.chart, self.alpha if self.direction == 0 else min(2 * self.alpha, 0.999), time.size),
            direction=self.direction, prior=self.prior,
        )  # fmt: skip
        return new_changes(
            layers_of(found, stack.time.values, watching=False), kind=self.kind, detector=repr(self), prior=self.prior,
            magnitude_units=units, inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip


def _speckle(stack, series, units):
    """Variance that speckle alone has in dB, where the band says its looks; else 0."""
    looks = stack[series.name].attrs.get("enl") if units == "dB" and series.name in stack else None
    return 0.0 if looks is None else float(NEPER_DB**2 * polygamma(1, looks))


def _fields(series, steep, *, x, years, first, spread, least, order, chart, bound, direction, prior):
    steep = steep.astype(np.float64)
    r = follow(series, x, years, first, steep, spread, least, order, chart, bound, direction, prior, EFFECT)
    return tuple(r[:, k] for k in (0, 1, 2, 3, 4, 9, 5, 6, 10, 7))
