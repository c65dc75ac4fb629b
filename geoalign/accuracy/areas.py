"""Areas and accuracies from a probability sample, whatever its strata: `area_estimates`, `stratified_estimates`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import ndtri

from geoalign.errors import StackError


@dataclass(frozen=True, eq=False)
class AreaEstimates:
    """Result of `area_estimates`: area and accuracies by class with 1-sigma errors, and overall accuracy.

    classes : DataFrame, a row a class: area, area_error, users, users_error, producers, producers_error
    overall, overall_error : 0..1
    """

    classes: pd.DataFrame = field(repr=False)
    overall: float
    overall_error: float

    def intervals(self, level: float = 0.95) -> pd.DataFrame:
        """Confidence intervals, a row a class: columns NAME_low and NAME_high, those of `overall` repeated.

        Normal ones, kept within 0..1 for accuracies and above 0 for areas. With few errors in a class they are too
        narrow (none at all gives none): then take more samples there, or `allocate` with a buffer stratum.
        """
        z = float(ndtri(0.5 + level / 2))
        out = {}
        for name, most in (("area", np.inf), ("users", 1.0), ("producers", 1.0)):
            half = z * self.classes[f"{name}_error"]
            out[f"{name}_low"] = (self.classes[name] - half).clip(lower=0)
            out[f"{name}_high"] = (self.classes[name] + half).clip(upper=most)
        table = pd.DataFrame(out)
        table["overall_low"] = max(self.overall - z * self.overall_error, 0.0)
        table["overall_high"] = min(self.overall + z * self.overall_error, 1.0)
        return table


def area_estimates(counts, map_areas, *, classes=None) -> AreaEstimates:
    """Areas and accuracies from a stratified random sample whose strata are the map's classes.

    Parameters
    ----------
    counts : (class, class) array of sample counts, row = map class, column = reference class; two or more a row
    map_areas : (class,) mapped area of each class, in any unit
    classes : names, optional

    Returns
    -------
    AreaEstimates, with `intervals()`

    Raises
    ------
    StackError : shapes that do not fit, or fewer than two samples in a class

    References
    ----------
    Olofsson et al. (2014), Good practices for estimating area and assessing accuracy of land change,
    doi:10.1016/j.rse.2014.02.015, equations 2 and 5 to 11.

    Examples
    --------
    >>> from geoalign.accuracy import area_estimates
    >>> area_estimates([[97, 3], [2, 198]], [20.0, 80.0]).classes.area.round(1).tolist()
    [20.2, 79.8]
    """
    n = np.asarray(counts, float)
    areas = np.asarray(map_areas, float)
    if n.ndim != 2 or n.shape[0] != n.shape[1] or areas.shape != n.shape[:1]:
        raise StackError(f"counts must be (class, class) and map_areas (class,), got {n.shape} and {areas.shape}.")
    rows = n.sum(1)
    if (rows < 2).any():
        raise StackError(f"map class {int(np.argmin(rows))} has {rows.min():.0f} samples; two are needed at the least.")
    weight = areas / areas.sum()
    share = n / rows[:, None]
    p = weight[:, None] * share
    area_share = p.sum(0)
    spread = share * (1 - share) / (rows[:, None] - 1)
    users = np.diag(share)
    users_var = users * (1 - users) / (rows - 1)
    # with areas for the pixel numbers of the paper: every term has the same power of them
    totals = (areas[:, None] * share).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        producers = np.diag(p) / area_share
        others = (areas[:, None] ** 2 * spread).sum(0) - areas**2 * np.diag(spread)
        producers_var = (areas**2 * (1 - producers) ** 2 * users_var + producers**2 * others) / totals**2
    table = pd.DataFrame(
        {
            "area": area_share * areas.sum(),
            "area_error": np.sqrt((weight[:, None] ** 2 * spread).sum(0)) * areas.sum(),
            "users": users,
            "users_error": np.sqrt(users_var),
            "producers": producers,
            "producers_error": np.sqrt(producers_var),
        },
        index=pd.Index(list(classes) if classes is not None else range(len(areas)), name="class"),
    )
    return AreaEstimates(table, float(np.trace(p)), float(np.sqrt((weight**2 * users_var).sum())))


def stratified_estimates(stratum, mapped, reference, sizes) -> pd.DataFrame:
    """Area and accuracies of change from a stratified sample whose strata need not be the map's classes.

    With a buffer around the mapped change as a stratum of its own, a single omission far away no longer decides the
    interval, and the samples no longer line up with the map's classes; these are the estimators for that.

    Parameters
    ----------
    stratum : (n,) label of each sampled unit's stratum
    mapped, reference : (n,) bool, change in the map and in the reference
    sizes : dict label -> units (pixels) in the stratum; all strata that are part of the area

    Returns
    -------
    DataFrame, rows area (share), users, producers, overall: value, error (1 sigma), low, high (95 %)

    Raises
    ------
    StackError : a stratum without its size or with fewer than two samples

    References
    ----------
    Stehman (2014), Estimating area and map accuracy for stratified random sampling when the strata are different from
    the map classes, doi:10.1080/01431161.2014.930207, equations 3 and 25 to 28.

    Examples
    --------
    >>> from geoalign.accuracy import stratified_estimates
    >>> stratum = ["change"] * 4 + ["rest"] * 4
    >>> mapped, truly = [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]
    >>> stratified_estimates(stratum, mapped, truly, {"change": 10, "rest": 90}).value.round(3).to_dict()
    {'area': 0.075, 'users': 0.75, 'producers': 1.0, 'overall': 0.975}
    """
    stratum = np.asarray(stratum)
    mapped, reference = np.asarray(mapped, bool), np.asarray(reference, bool)
    unknown = sorted(set(stratum.tolist()) - set(sizes), key=str)
    if unknown:
        raise StackError(f"sizes lacks the stratum {unknown[0]!r}; it knows {', '.join(map(str, sizes))}.")
    few = [k for k in sizes if (stratum == k).sum() < 2]
    if few:
        raise StackError(f"stratum {few[0]!r} has fewer than two samples; its variance can't be told.")
    everything = np.ones(stratum.size)
    ratios = {
        "area": (reference, everything),
        "users": (reference & mapped, mapped),
        "producers": (reference & mapped, reference),
        "overall": (reference == mapped, everything),
    }
    rows = {name: _ratio_estimate(y.astype(float), x.astype(float), stratum, sizes) for name, (y, x) in ratios.items()}
    table = pd.DataFrame(rows, index=["value", "error"]).T
    z = float(ndtri(0.975))
    table["low"] = (table.value - z * table.error).clip(0, 1)
    table["high"] = (table.value + z * table.error).clip(0, 1)
    return table


def _ratio_estimate(y, x, stratum, sizes):
    total_y = total_x = 0.0
    for name, size in sizes.items():
        total_y += size * y[stratum == name].mean()
        total_x += size * x[stratum == name].mean()
    if total_x == 0:
        return np.nan, np.nan
    ratio, variance = total_y / total_x, 0.0
    for name, size in sizes.items():
        a, b = y[stratum == name], x[stratum == name]
        spread = np.var(a - ratio * b, ddof=1)
        variance += size**2 * (1 - a.size / size) * spread / a.size
    return ratio, np.sqrt(variance) / total_x
