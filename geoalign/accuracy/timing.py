"""How soon changes were found: `found_within`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoalign.errors import StackError
from geoalign.types.changes import NOT_OBSERVABLE, changed, check_changes

LAGS = (0, 15, 30, 60, 90)


def found_within(
    changes, truth_dates, *, days=LAGS, by: str = "date", end=None, early_days: float = 0.0, valid=None
) -> pd.DataFrame:
    """Share of all reference events found within so many days, and F1 at that time.

    The mean lag of what was found says nothing about what was missed; these shares are of all events.

    Parameters
    ----------
    changes : Changes (y, x)
    truth_dates : array or DataArray (y, x), datetime64; NaT where nothing changed
    days : lags to report
    by : layer whose date counts: "date" (first changed observation) or "date_confirmed" (when one could know)
    end : date, optional
        Last acquisition. Events whose lag it cuts short are censored in `found_censored` (Kaplan and Meier); without
        it the two shares are the same.
    early_days : an alarm so many days before its event still belongs to it; earlier ones are false
    valid : bool (y, x), optional
        Pixels to count; not observable ones count as missed where something happened.

    Returns
    -------
    DataFrame, a row a lag: days, found (share of all events), found_censored, precision, f1 (with the events and the
    alarms counted that had come by then: false alarms count at any lag)

    Raises
    ------
    StackError : another shape, no dates, or no layer `by`

    Examples
    --------
    >>> from geoalign.accuracy import found_within
    >>> from geoalign import detect, new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 4))
    >>> ndvi[90:, 0, 0] -= 0.3
    >>> changes = detect(new_stack({"ndvi": ndvi}, time), "harmonic_cusum")
    >>> truth = np.array([[time[90], time[50], "NaT", "NaT"]], "datetime64[D]")
    >>> found_within(changes, truth, days=(0, 30)).found.tolist()
    [0.5, 0.5]
    """
    check_changes(changes)
    reference = np.asarray(getattr(truth_dates, "values", truth_dates))
    if reference.dtype.kind != "M" or reference.shape != changes.status.shape:
        raise StackError(
            f"truth_dates is {reference.dtype} {reference.shape}; give datetime64 dates, {changes.status.shape} (y, x)."
        )
    if by not in changes:
        raise StackError(f"the changes have no layer {by!r}; there are {', '.join(map(str, changes.data_vars))}.")
    layers = changes[list({"status", by})].compute()
    keep = np.ones(reference.shape, bool) if valid is None else np.asarray(valid, bool)
    real = ~np.isnat(reference) & keep
    alarm = changed(layers).values & keep & (layers.status.values != NOT_OBSERVABLE)
    lag = (layers[by].values.astype("datetime64[D]") - reference.astype("datetime64[D]")).astype(float)
    lag[np.isnat(layers[by].values) | np.isnat(reference)] = np.nan
    good = alarm & real & (lag >= -early_days)
    lag = np.where(good, np.maximum(lag, 0.0), np.inf)[real]
    follow = np.full(lag.shape, np.inf)
    if end is not None:
        left = (np.datetime64(end, "D") - reference[real].astype("datetime64[D]")).astype(float)
        follow = np.maximum(left, 0.0)
    false = int((alarm & ~good).sum())
    rows = []
    for limit in days:
        hits = int((lag <= limit).sum())
        precision = hits / (hits + false) if hits + false else np.nan
        share = hits / lag.size if lag.size else np.nan
        f1 = 2 * hits / (hits + false + lag.size) if hits + false + lag.size else np.nan
        rows.append((limit, share, _kaplan_meier(lag, follow, limit), precision, f1))
    return pd.DataFrame(rows, columns=["days", "found", "found_censored", "precision", "f1"])


def _kaplan_meier(lag, follow, limit):
    """1 - survival at `limit`: events found after `lag` days, or lost from sight after `follow`."""
    if not lag.size:
        return np.nan
    survival = 1.0
    for t in np.unique(lag[lag <= limit]):
        at_risk = ((lag >= t) & (follow >= t)).sum()
        if at_risk:
            survival *= 1 - (lag == t).sum() / at_risk
    return 1 - survival
