"""False alarms on ground that is known to be stable: `false_alarms`, and `placebo` runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.stats import chi2

from geoalign.errors import StackError
from geoalign.types.changes import NOT_OBSERVABLE, changed
from geoalign.types.stack import pixel_size_m

MONTH_DAYS = 365.25 / 12


@dataclass(frozen=True)
class AlarmRate:
    """Result of `false_alarms`.

    n_alarms, n_pixels : patches (8-connected) and pixels flagged on stable ground
    share : of the observable stable pixels that are flagged
    area_km2, months : what was watched
    rate, low, high : patches per 1000 km2 and month, with its exact 95 % Poisson interval
    """

    n_alarms: int
    n_pixels: int
    share: float
    area_km2: float
    months: float
    rate: float
    low: float
    high: float


def false_alarms(changes, *, days: float, stable=None, pixel_m: float | None = None) -> AlarmRate:
    """False alarms per 1000 km2 and month, on ground where nothing happened.

    Parameters
    ----------
    changes : Changes (y, x)
    days : length of the time watched
    stable : bool (y, x), optional
        Ground known to be stable; all of it by default. A patch is false where it touches stable ground only.
    pixel_m : m, optional
        Side of a pixel; None takes it from the grid.

    Returns
    -------
    AlarmRate

    Raises
    ------
    StackError : a grid without metres and no `pixel_m`

    Examples
    --------
    >>> from geoalign.accuracy import false_alarms
    >>> from geoalign import detect, new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 4))
    >>> ndvi[90:, 0, 0] -= 0.3
    >>> changes = detect(new_stack({"ndvi": ndvi}, time), "harmonic_cusum")
    >>> rate = false_alarms(changes, days=3 * 365.25, pixel_m=10)
    >>> rate.n_alarms, round(rate.months)
    (1, 36)
    """
    size = pixel_m if pixel_m is not None else pixel_size_m(changes)
    if size is None:
        raise StackError("the changes lie on no grid in metres; give pixel_m, the side of a pixel.")
    seen = changes.status.values != NOT_OBSERVABLE
    keep = seen if stable is None else seen & np.asarray(stable, bool)
    hit = changed(changes).values
    patches, n = ndimage.label(hit, np.ones((3, 3)))
    touching = set(np.unique(patches[hit & ~keep]).tolist())
    n_alarms = sum(1 for k in range(1, n + 1) if k not in touching)
    area, months = float(keep.sum() * size**2 / 1e6), days / MONTH_DAYS
    exposure = area / 1000 * months
    low = chi2.ppf(0.025, 2 * n_alarms) / 2 if n_alarms else 0.0
    high = chi2.ppf(0.975, 2 * n_alarms + 2) / 2
    rates = [v / exposure if exposure > 0 else np.nan for v in (n_alarms, low, high)]
    return AlarmRate(
        n_alarms, int((hit & keep).sum()), float(hit[keep].mean()) if keep.any() else np.nan, area, months,
        *(float(r) for r in rates),
    )  # fmt: skip


def placebo(find: Callable, stack, since, *, days: float = 90.0, stable=None, pixel_m: float | None = None):
    """False alarms where events are pretended: the same search begun at dates before which nothing is known to happen.

    Parameters
    ----------
    find : callable(stack, since) -> Changes, as `lambda s, since: detect(s, "deforestation", since=since)`
    stack : Stack (time, y, x)
    since : dates at which an event is pretended
    days : after each date that are searched; later scenes are not shown
    stable, pixel_m : as in `false_alarms`

    Returns
    -------
    DataFrame, a row a date: since, and the fields of `AlarmRate`

    Examples
    --------
    >>> from geoalign import detect, new_stack
    >>> from geoalign.accuracy import placebo
    >>> time = np.arange("2020-01-01", "2023-01-01", 10, "datetime64[D]")
    >>> stack = new_stack({"ndvi": np.random.default_rng(0).normal(0.7, 0.02, (time.size, 9, 9))}, time)
    >>> watch = lambda s, since: detect(s, "harmonic_cusum", since=since)
    >>> placebo(watch, stack, ["2022-01-01", "2022-05-01"], pixel_m=10).share.max() < 0.05
    True
    """
    rows = []
    for date in since:
        begin = np.datetime64(pd.Timestamp(date), "ns")
        shown = stack.isel(time=np.flatnonzero(stack.time.values <= begin + np.timedelta64(round(days * 86400), "s")))
        rate = false_alarms(find(shown, date).compute(), days=days, stable=stable, pixel_m=pixel_m)
        rows.append({"since": pd.Timestamp(date), **asdict(rate)})
    return pd.DataFrame(rows)
