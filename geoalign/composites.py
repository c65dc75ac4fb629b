"""Cloud-robust composites: one image a month, a season, a year out of a Stack's scenes."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geoalign.chunked import per_pixel
from geoalign.errors import ConfigError
from geoalign.kernels.composite import GEOMEDIAN, MEDIAN, MEDOID, compose
from geoalign.types.stack import check_stack

HOW = {"median": MEDIAN, "medoid": MEDOID, "geomedian": GEOMEDIAN}
BY = ("month", "quarter", "year", "all")


def composite(stack, by="month", *, how: str = "median") -> xr.Dataset:
    """One image out of the scenes of each period; undetected clouds do no harm while they are fewer than half.

    Parameters
    ----------
    stack : Stack (time, y, x)
        Clouds masked as far as they are known. Never changed.
    by : "month", "quarter", "year", "all", or a number of days
        The periods. Days are counted from the day of the first scene.
    how : str
        "median": each band by itself, of all that was observed of it. "medoid": the one observation that is nearest to
        all others, so that its bands belong together. "geomedian": the point nearest to all observations, less noisy
        than either. The last two take observations that have all bands; distances are those of the bands as they are.

    Returns
    -------
    Stack of a scene a period that has any, lazy where the input is; `time` is the period's first day, the coordinate
    `n_clear` (time, y, x) the number of observations with all bands, `n_scenes` (time) that of scenes. NaN where
    nothing was observed.

    Raises
    ------
    ConfigError for an unknown `by` or `how`; StackError where this is no Stack.

    References
    ----------
    Flood (2013), doi:10.3390/rs5126481, medoid; Roberts et al. (2017), doi:10.1109/TGRS.2017.2723896, geometric median
    (by Weiszfeld's iteration from the bands' medians).

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> red = np.array([0.1, 0.9, 0.12, 0.3])[:, None, None]
    >>> stack = new_stack({"red": red}, ["2024-05-03", "2024-05-10", "2024-05-20", "2024-06-02"])
    >>> monthly = composite(stack)
    >>> [round(float(v), 2) for v in monthly.red[:, 0, 0]], [str(t)[:10] for t in monthly.time.values]
    ([0.12, 0.3], ['2024-05-01', '2024-06-01'])
    """
    check_stack(stack)
    if how not in HOW:
        raise ConfigError(f"how is {how!r}; choose one of {', '.join(HOW)}.")
    first_days, begins = periods(stack.time.values, by)
    names = list(stack.data_vars)
    cube = xr.concat(
        [stack[name].transpose("time", "y", "x") for name in names], "band", coords="minimal", compat="override"
    ).reset_coords(drop=True)
    period = ("period", first_days.size)
    found = per_pixel(
        _composed, cube.transpose("band", "time", "y", "x"),
        outputs={**{f"band_{k}": ("float32", *period) for k in range(len(names))}, "n_clear": ("uint16", *period)},
        begins=begins, how=HOW[how],
    ).rename(period="time").transpose("time", "y", "x")  # fmt: skip
    out = stack.drop_dims("time").assign_coords(time=first_days)
    layers = {name: (found[f"band_{k}"].variable, stack[name]) for k, name in enumerate(names)}
    out = out.assign({k: xr.Variable(v.dims, v.data, old.attrs, old.encoding) for k, (v, old) in layers.items()})
    counted = xr.Variable(found.n_clear.dims, found.n_clear.data, {"long_name": "observations with all bands"})
    return out.assign_coords(n_clear=counted, n_scenes=("time", np.diff(begins)))


def periods(time, by):
    """First days of the periods that hold scenes, datetime64[ns], and the scenes at which they begin, with the end."""
    days = np.asarray(time).astype("datetime64[D]")
    if by in ("month", "quarter", "year"):
        number = days.astype("datetime64[M]").astype(np.int64) // {"month": 1, "quarter": 3, "year": 12}[by]
        months = number * {"month": 1, "quarter": 3, "year": 12}[by]
        first = months.astype("datetime64[M]").astype("datetime64[D]")
    elif by == "all":
        first = np.full(days.size, days[0])
    elif isinstance(by, (int, np.integer)) and not isinstance(by, bool) and by > 0:
        first = days[0] + (days - days[0]).astype(np.int64) // int(by) * int(by)
    else:
        raise ConfigError(f"by is {by!r}; choose {', '.join(map(repr, BY))}, or a whole number of days from 1 on.")
    begins = np.flatnonzero(np.r_[True, first[1:] != first[:-1]])
    return first[begins].astype("datetime64[ns]"), np.r_[begins, days.size].astype(np.int64)


def _composed(cube, *, begins, how):
    values, count = compose(cube, begins, how)
    return (*(values[:, k] for k in range(values.shape[1])), count)
