"""Where to look: strata of a map, how many samples in each, and which pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from geoalign.errors import StackError
from geoalign.types.changes import NOT_OBSERVABLE, changed

STABLE, CHANGED, BUFFER, UNSEEN = 0, 1, 2, 255


def strata(changes, *, buffer_px: int = 3) -> xr.DataArray:
    """Strata of a map of change: stable, changed, and a buffer around the changed where omissions gather.

    Parameters
    ----------
    changes : Changes (y, x)
    buffer_px : px around mapped change that form their own stratum; 0 for none

    Returns
    -------
    DataArray (y, x) uint8: 0 stable, 1 changed, 2 buffer, 255 not observable (to be reported apart, never as stable)

    Examples
    --------
    >>> from geoalign.accuracy import strata
    >>> from geoalign import detect, new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 4))
    >>> ndvi[90:, 0, 0] -= 0.3
    >>> changes = detect(new_stack({"ndvi": ndvi}, time), "harmonic_cusum")
    >>> strata(changes, buffer_px=1).values.tolist()
    [[1, 2, 0, 0]]
    """
    hit = changed(changes).values
    out = np.where(hit, CHANGED, STABLE).astype(np.uint8)
    if buffer_px > 0 and hit.any():
        out[(ndimage.distance_transform_edt(~hit) <= buffer_px) & ~hit] = BUFFER
    out[changes.status.values == NOT_OBSERVABLE] = UNSEEN
    attrs = {
        "flag_values": np.array([STABLE, CHANGED, BUFFER, UNSEEN], np.uint8),
        "flag_meanings": "stable changed buffer not_observable",
    }
    return xr.DataArray(out, dims=("y", "x"), coords=changes.status.coords, name="stratum", attrs=attrs)


def allocate(sizes, *, users=0.8, overall_error: float = 0.01, least: int = 50, total: int | None = None) -> dict:
    """How many samples each stratum gets: enough for the overall accuracy, and for the rare strata.

    Parameters
    ----------
    sizes : dict stratum -> units in it (or a `strata` map, whose pixels are counted; what was not observable is left
        out)
    users : expected share of right labels, one number or a dict by stratum
    overall_error : 1-sigma error of overall accuracy to reach
    least : samples in a stratum at the least (all its units where it has fewer)
    total : samples altogether, instead of the number that `overall_error` needs

    Returns
    -------
    dict stratum -> samples

    References
    ----------
    Olofsson et al. (2014), doi:10.1016/j.rse.2014.02.015, equation 13 (Cochran's 5.25) and section 5.1.1.

    Examples
    --------
    >>> from geoalign.accuracy import allocate
    >>> sizes = {"cut": 200_000, "regrown": 150_000, "woods": 3_200_000, "other": 6_450_000}
    >>> expected = {"cut": 0.7, "regrown": 0.6, "woods": 0.9, "other": 0.95}
    >>> allocate(sizes, users=expected, least=75, overall_error=0.01)
    {'cut': 75, 'regrown': 75, 'woods': 163, 'other': 328}
    """
    if isinstance(sizes, xr.DataArray):
        labels, counts = np.unique(sizes.values, return_counts=True)
        sizes = {int(k): int(n) for k, n in zip(labels, counts) if k != UNSEEN}
    if not sizes or min(sizes.values()) < 1:
        raise StackError(f"sizes is {sizes}; every stratum needs one unit or more.")
    whole = sum(sizes.values())
    right = {k: (users[k] if isinstance(users, dict) else users) for k in sizes}
    if total is None:
        spread = sum(n / whole * np.sqrt(right[k] * (1 - right[k])) for k, n in sizes.items())
        total = int(np.ceil(round((spread / overall_error) ** 2, 6)))
    plan = {k: min(least, n) for k, n in sizes.items()}
    rare = {k for k, n in sizes.items() if total * n / whole <= least}
    common = [k for k in sizes if k not in rare]
    left = max(total - sum(plan[k] for k in rare), 0)
    share = sum(sizes[k] for k in common)
    for k in common:
        plan[k] = min(max(least, round(left * sizes[k] / share)), sizes[k])
    return plan


def draw_sample(stratum, counts: dict, *, seed: int = 0) -> pd.DataFrame:
    """A stratified random sample of pixels, to be labelled by eye.

    Parameters
    ----------
    stratum : DataArray (y, x), as from `strata`
    counts : dict stratum -> samples, as from `allocate`
    seed : the same gives the same pixels

    Returns
    -------
    DataFrame in random order, so that the labelling can stop early: row, col, y, x, stratum, weight (pixels that each
    stands for)

    Raises
    ------
    StackError : a stratum has fewer pixels than asked for

    Examples
    --------
    >>> from geoalign.accuracy import draw_sample
    >>> image = xr.DataArray(np.repeat([[0], [1]], 50, axis=1), dims=("y", "x"))
    >>> draw_sample(image, {0: 3, 1: 2}).stratum.value_counts().to_dict()
    {0: 3, 1: 2}
    """
    rng = np.random.default_rng(seed)
    values = stratum.transpose("y", "x").values
    rows = []
    for label, n in counts.items():
        places = np.flatnonzero(values.ravel() == label)
        if n > places.size:
            raise StackError(f"stratum {label!r} has {places.size} pixels; {n} samples can't be drawn from it.")
        for at in rng.choice(places, n, replace=False):
            rows.append((*divmod(int(at), values.shape[1]), label, places.size / n))
    frame = pd.DataFrame(rows, columns=["row", "col", "stratum", "weight"])
    for axis, number in (("y", "row"), ("x", "col")):
        if axis in stratum.coords:
            frame[axis] = stratum[axis].values[frame[number]]
    return frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
