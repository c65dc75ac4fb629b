"""Whether probabilities mean what they say: `reliability`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from geoalign.errors import StackError


@dataclass(frozen=True, eq=False)
class Reliability:
    """Result of `reliability`.

    table : DataFrame, a row a bin: low, high, n, predicted (mean probability), observed (share that changed)
    error : mean |predicted - observed| over all pixels (expected calibration error)
    brier : mean squared difference of probability and outcome; brier = brier_reliability - resolution + uncertainty up
        to the spread within the bins
    brier_reliability, resolution, uncertainty : Murphy's parts of it
    """

    table: pd.DataFrame = field(repr=False)
    error: float
    brier: float
    brier_reliability: float
    resolution: float
    uncertainty: float


def reliability(probability, reference, *, bins: int = 10, prior: float | None = None, valid=None) -> Reliability:
    """Reliability diagram and Brier score of probabilities of change.

    Parameters
    ----------
    probability : array or DataArray, 0..1; NaN is left out
    reference : bool, or datetime64 with NaT where nothing changed
    bins : of equal width
    prior : share of change that the probability assumes (`changes.attrs["prior"]`), optional
        Where the scene holds another share, its pixels are weighted so that the changed ones have this share.
    valid : bool, optional

    Returns
    -------
    Reliability

    References
    ----------
    Murphy (1973), A new vector partition of the probability score,
    doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2.

    Examples
    --------
    >>> from geoalign.accuracy import reliability
    >>> p = np.repeat([0.1, 0.8], 10)
    >>> result = reliability(p, np.arange(20) % 10 < 10 * p)
    >>> round(result.error, 3), round(result.brier, 3)
    (0.0, 0.125)
    """
    p = np.asarray(getattr(probability, "values", probability), float)
    real = np.asarray(getattr(reference, "values", reference))
    real = ~np.isnat(real) if real.dtype.kind == "M" else real.astype(bool)
    if p.shape != real.shape:
        raise StackError(f"probability has shape {p.shape}, the reference {real.shape}; they must be the same.")
    keep = np.isfinite(p) if valid is None else np.isfinite(p) & np.asarray(valid, bool)
    p, real = p[keep], real[keep]
    if not p.size:
        raise StackError("no pixel has both a probability and a reference.")
    weight = np.ones(p.size)
    if prior is not None and 0 < real.mean() < 1:
        weight = np.where(real, prior / real.mean(), (1 - prior) / (1 - real.mean()))
    number = np.minimum((p * bins).astype(int), bins - 1)
    total = weight.sum()
    share = np.bincount(number, weight, bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(number, weight * p, bins) / share
        observed = np.bincount(number, weight * real, bins) / share
    edges = np.arange(bins + 1) / bins
    n = np.bincount(number, minlength=bins)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": n, "predicted": predicted, "observed": observed})
    base = (weight * real).sum() / total
    gap, apart = np.nan_to_num(predicted - observed), np.nan_to_num(observed - base)
    return Reliability(
        table,
        error=float((share * np.abs(gap)).sum() / total),
        brier=float((weight * (p - real) ** 2).sum() / total),
        brier_reliability=float((share * gap**2).sum() / total),
        resolution=float((share * apart**2).sum() / total),
        uncertainty=float(base * (1 - base)),
    )
