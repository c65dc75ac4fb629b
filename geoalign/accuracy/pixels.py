"""Changes against reference dates, pixel by pixel: `assess`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import xarray as xr

from geoalign.errors import StackError
from geoalign.types.changes import NOT_OBSERVABLE, changed, check_changes

BLOCKS = 12
"""Blocks along the longer side of the image that the intervals draw from; at least 8 px each."""
LEAST_BLOCKS = 8
DRAWS = 500


@dataclass(frozen=True)
class Assessment:
    """Agreement of changes with a reference, pixel by pixel. Ratios are NaN where their denominator is 0.

    n_pixels : pixels compared: in `valid`, and observable
    n_not_observable, n_not_observable_changed : pixels in `valid` where the detector says 255, and how many of them the
        reference holds for changed; they count neither as right nor as wrong
    tp, fp, fn, tn : pixels. With `tolerance_days`, a change found at another date counts as fp and as fn
    n_misdated : changes found, but further than `tolerance_days` from the reference's date
    precision, recall, f1, iou, kappa : 0..1; kappa is Cohen's
    precision_low, precision_high, recall_low, ..., f1_high : 95 % interval of each, from 500 draws with replacement of
        square blocks of the image: neighbouring pixels err together, so that pixels drawn one by one would look far too
        sure. NaN where fewer than `LEAST_BLOCKS` blocks hold a pixel that is, or is called, changed
    commission_error, omission_error : 1 - precision, 1 - recall
    area_bias : (mapped - reference) / reference
    median_abs_days, mean_abs_days, bias_days : error of the dates over pixels that changed in both, days; bias: mean of
        found minus reference
    median_abs_acquisitions, mean_abs_acquisitions, exact_share : the same counted in acquisitions, and the share of
        dates that name the very acquisition; NaN without `times`
    """

    n_pixels: int
    n_not_observable: int
    n_not_observable_changed: int
    tp: int
    fp: int
    fn: int
    tn: int
    n_misdated: int
    precision: float
    recall: float
    f1: float
    iou: float
    kappa: float
    commission_error: float
    omission_error: float
    area_bias: float
    median_abs_days: float
    mean_abs_days: float
    bias_days: float
    median_abs_acquisitions: float
    mean_abs_acquisitions: float
    exact_share: float
    precision_low: float
    precision_high: float
    recall_low: float
    recall_high: float
    f1_low: float
    f1_high: float

    def to_frame(self) -> pd.DataFrame:
        """One row, a column each figure."""
        return pd.DataFrame([asdict(self)])

    def __repr__(self):
        sure = f" [{self.f1_low:.3f}, {self.f1_high:.3f}]" if np.isfinite(self.f1_low) else ""
        text = f"F1 {self.f1:.3f}{sure} (precision {self.precision:.3f}, recall {self.recall:.3f}), IoU {self.iou:.3f}"
        text += f", kappa {self.kappa:.3f}; date error median {self.median_abs_days:.0f} d"
        if np.isfinite(self.median_abs_acquisitions):
            text += f" = {self.median_abs_acquisitions:.0f} acquisitions"
        return f"<Assessment {text}; {self.n_pixels} px, {self.n_not_observable} not observable>"


def assess(
    changes, truth_dates, *, times=None, observed=None, tolerance_days: float | None = None, valid=None
) -> Assessment:
    """Compare Changes with reference dates of change.

    The date to be found is that of the first acquisition at or after the reference date: nothing could have shown it
    earlier. A reference change after the last acquisition is left out, as no data could show it.

    Parameters
    ----------
    changes : Changes (y, x)
        Changed means status confirmed or ended.
    truth_dates : DataArray or array (y, x), datetime64
        Day from which the change shows, NaT where nothing changed. On the same grid and in the same frame as `changes`
        (for simulated scenes: `truth.on(reference)`).
    times : sequence of datetimes, optional
        Acquisitions of the stack (`stack.time`). Without them dates are compared with the reference dates themselves
        and errors are not counted in acquisitions.
    observed : bool array or DataArray (time, y, x), optional
        Where the stack has a value (`stack.red.notnull()`); needs `times`. The date to be found is then that of the
        pixel's first usable acquisition, which cloud may put later. By default the first counts, seen or not.
    tolerance_days : optional
        A change found at a date further off than this is wrong. By default place alone decides.
    valid : bool array (y, x), optional
        Pixels to compare; all by default.

    Returns
    -------
    Assessment

    Raises
    ------
    StackError : shapes differ, or `truth_dates` are not dates

    Examples
    --------
    >>> from geoalign.simulation import simulate
    >>> truth = simulate(size=64, n_sar=8, sensors=("sar",)).truth
    >>> reference = truth.dates.clearing                     # changes = detect(stack, "deforestation")
    >>> reference.dtype.kind
    'M'
    """
    check_changes(changes)
    reference = np.asarray(truth_dates.values if isinstance(truth_dates, xr.DataArray) else truth_dates)
    if reference.dtype.kind != "M":
        raise StackError(f"truth_dates is {reference.dtype}; give datetime64 dates with NaT where nothing changed.")
    layers = changes[["status", "date"]].compute()
    status, found = layers.status.values, layers.date.values.astype("datetime64[D]")
    keep = np.ones(status.shape, bool) if valid is None else np.asarray(valid, bool)
    for name, array in (("truth_dates", reference), ("valid", keep)):
        if array.shape != status.shape:
            raise StackError(f"{name} has shape {array.shape}, the changes have {status.shape} (y, x).")

    days = None if times is None else np.asarray(getattr(times, "values", times), "datetime64[ns]")
    expected, late = _first_shown(reference, days, _usable(observed, days, status.shape))
    keep = keep & ~late
    hidden = keep & (status == NOT_OBSERVABLE)
    seen = keep & ~hidden
    mapped = changed(layers).values & seen
    real = ~np.isnat(reference) & seen
    both = mapped & real
    dated = both & ~np.isnat(found)
    error = (found[dated] - expected[dated]).astype(float)
    right = both.copy()
    if tolerance_days is not None:
        right[both & ~dated] = False
        right[dated] = np.abs(error) <= tolerance_days
    misdated = int(both.sum() - right.sum())
    steps = np.empty(0) if days is None else _steps(found[dated], expected[dated], days)

    n = int(seen.sum())
    tp = int(both.sum()) - misdated
    fp, fn = int(mapped.sum()) - tp, int(real.sum()) - tp
    tn = n - tp - fp - fn + misdated
    chance = _ratio((tp + fp) * (tp + fn) + (n - tp - fp) * (n - tp - fn), n * n)
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    return Assessment(
        n_pixels=n,
        n_not_observable=int(hidden.sum()),
        n_not_observable_changed=int((hidden & ~np.isnat(reference)).sum()),
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        n_misdated=misdated,
        precision=precision,
        recall=recall,
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        iou=_ratio(tp, int((mapped | real).sum())),
        kappa=_ratio(_ratio(tp + tn, n) - chance, 1 - chance),
        commission_error=1 - precision,
        omission_error=1 - recall,
        area_bias=_ratio(fp - fn, tp + fn),
        median_abs_days=_of(np.median, np.abs(error)),
        mean_abs_days=_of(np.mean, np.abs(error)),
        bias_days=_of(np.mean, error),
        median_abs_acquisitions=_of(np.median, np.abs(steps)),
        mean_abs_acquisitions=_of(np.mean, np.abs(steps)),
        exact_share=_of(np.mean, steps == 0),
        **_intervals(right, mapped, real),
    )


def _intervals(right, mapped, real, seed=0):
    """95 % intervals of precision, recall and F1 by drawing blocks of the image."""
    names = ("precision", "recall", "f1")
    side = max(8, -(-max(right.shape) // BLOCKS))
    counts = np.stack([_by_block(layer, side) for layer in (right, mapped, real)], axis=1)
    counts = counts[counts[:, 1:].any(axis=1)]
    if len(counts) < LEAST_BLOCKS:
        return {f"{name}_{end}": np.nan for name in names for end in ("low", "high")}
    drawn = np.random.default_rng(seed).integers(0, len(counts), (DRAWS, len(counts)))
    tp, found, there = np.moveaxis(counts[drawn].sum(axis=1), 1, 0).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = tp / found, tp / there, 2 * tp / (found + there)
    ends = [np.nanpercentile(share, [2.5, 97.5]) if np.isfinite(share).any() else (np.nan, np.nan) for share in shares]
    return {f"{n}_{e}": float(v) for n, pair in zip(names, ends) for e, v in zip(("low", "high"), pair)}


def _by_block(layer, side):
    """Set pixels of each block of side x side px."""
    rows = np.add.reduceat(layer.astype(np.int64), np.arange(0, layer.shape[0], side), axis=0)
    return np.add.reduceat(rows, np.arange(0, layer.shape[1], side), axis=1).ravel()


def _first_shown(reference, times, observed=None):
    """Day of the first (usable) acquisition at or after each reference date, and where there is none any more."""
    if times is None:
        return reference.astype("datetime64[D]"), np.zeros(reference.shape, bool)
    real = ~np.isnat(reference)
    index = np.zeros(reference.shape, int)
    index[real] = np.searchsorted(times, reference[real].astype("datetime64[ns]"), side="left")
    if observed is not None:
        later = observed & (np.arange(times.size)[:, None, None] >= index)
        index = np.where(later.any(0), later.argmax(0), times.size)
    late = real & (index >= times.size)
    shown = times[np.minimum(index, times.size - 1)].astype("datetime64[D]")
    shown[~real] = np.datetime64("NaT")
    return shown, late


def _usable(observed, times, shape):
    if observed is None:
        return None
    values = np.asarray(getattr(observed, "values", observed), bool)
    if times is None or values.shape != (times.size, *shape):
        expected = "`times` as well" if times is None else f"shape {(times.size, *shape)} (time, y, x)"
        raise StackError(f"observed has shape {values.shape}; it needs {expected}.")
    return values


def _steps(found, expected, times):
    """Acquisitions between two arrays of days; a day between acquisitions counts as the one after it."""
    days = times.astype("datetime64[D]")
    return np.searchsorted(days, found).astype(float) - np.searchsorted(days, expected)


def _ratio(a, b):
    return float(a / b) if b else float("nan")


def _of(statistic, values):
    return float(statistic(values)) if values.size else float("nan")
