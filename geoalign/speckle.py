"""Speckle: filters that smooth a SAR Stack where its ground is even, and how many looks a Stack has."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import xarray as xr

from geoalign.chunked import neighbourhood
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.despeckle import gamma_map, lee, multitemporal, non_local, refined_lee
from geoalign.kernels.looks import log_looks, spatial_looks, temporal_looks
from geoalign.kernels.speckle import boxcar
from geoalign.types.stack import SAR_BANDS, check_stack

METHODS = ("boxcar", "lee", "refined_lee", "gamma_map", "multitemporal", "non_local")
SAMPLE_PX, SAMPLES = 256, 16
"""Side and number of the blocks, spread over the image, that looks are estimated from."""
PATCH = 2
"""Radius of the patches that `non_local` compares, px."""


def despeckle(stack, method: str = "refined_lee", *, radius: int = 3, enl: float | None = None) -> xr.Dataset:
    """A SAR Stack with less speckle.

    Parameters
    ----------
    stack : Stack (time, y, x)
        Linear power; its bands vv, vh, hh, hv are filtered, others kept. Never changed.
    method : str
        "boxcar" (mean), "lee", "refined_lee" (edges kept; always 7 x 7), "gamma_map", "multitemporal" (all dates
        together: it carries a change of one date into the others, so for backgrounds, not for finding change),
        "non_local" (pixels with like patches; slow).
    radius : int
        Of the window, px; of the search for "non_local".
    enl : number, optional
        Looks of the input; None takes each band's `attrs["enl"]`.

    Returns
    -------
    Stack like the input, lazy where it is. NaN stays and does not spread. `attrs["enl"]` of a band becomes what even
    ground has afterwards: measured on simulated speckle of the same looks and number of dates. The mean of even ground
    is kept within half a percent by "boxcar", "lee" and "multitemporal", within 1 % by "refined_lee", and within 2 % by
    "gamma_map" (a mode lies below the mean) and "non_local".

    Raises
    ------
    ConfigError for an unknown method or radius; StackError without SAR bands or where the looks are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(4, 1 / 4, (1, 50, 50))
    >>> smooth = despeckle(new_stack({"vv": power}, ["2024-01-01"]), "lee", enl=4)
    >>> bool(smooth.vv.std() < 0.4 * power.std()), smooth.vv.attrs["enl"] > 40
    (True, True)
    """
    check_stack(stack)
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; choose one of {', '.join(METHODS)}.")
    if not (isinstance(radius, int) and 1 <= radius <= 15):
        raise ConfigError(f"radius is {radius!r}; it is a whole number of px from 1 to 15.")
    bands = _backscatter(stack)
    out = {}
    for name in bands:
        looks = enl if enl is not None else stack[name].attrs.get("enl")
        if looks is None or not looks > 0:
            raise StackError(f"the looks of band {name!r} are {looks!r}; give enl=, or set its attrs['enl'].")
        band = stack[name].transpose("time", "y", "x")
        n_time = band.sizes["time"]
        depth = 3 if method == "refined_lee" else radius + (PATCH if method == "non_local" else 0)
        filtered = neighbourhood(
            _filter, band.reset_coords(drop=True), depth=depth, outputs={"band": ("float32", "time", n_time)},
            method=method, radius=radius, looks=float(looks),
        ).band  # fmt: skip
        attrs = {**stack[name].attrs, "enl": _looks_after(method, radius, round(float(looks), 3), n_time)}
        data = filtered.transpose("time", "y", "x").data
        out[name] = xr.Variable(("time", "y", "x"), data, attrs, stack[name].encoding)
    return stack.assign(out)


def estimate_enl(stack) -> pd.DataFrame:
    """Looks of each backscatter band, in three ways, with their spread.

    Parameters
    ----------
    stack : Stack (time, y, x)
        Linear power of one orbit.

    Returns
    -------
    DataFrame, a row a band and method: band, method, enl, low, high (quartiles over dates and parts of the image),
    n (how many of these). NaN where there is too little. Methods: "spatial", mean^2 / variance of 7 x 7 windows,
    corrected for the correlation of neighbouring pixels; "log", the variance of the logarithm, psi_1(L), in the same
    windows; "temporal", the scatter of pixels in time (five dates at least), which also holds soil moisture and
    seasons. Each takes what most windows or pixels have in common, so that texture and change do not count. Images
    larger than 1,024 px speak through 16 blocks of 256 px.

    Raises
    ------
    StackError without SAR bands.

    References
    ----------
    Anfinsen, Doulgeris, Eltoft (2009), doi:10.1109/TGRS.2009.2019269 (log-cumulants, mode over windows). We take the
    half-sample mode and correct for correlation.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(4, 1 / 4, (8, 120, 120))
    >>> found = estimate_enl(new_stack({"vv": power}, np.arange("2024-01-01", "2024-01-09", dtype="datetime64[D]")))
    >>> [round(float(v)) for v in found.enl]
    [4, 4, 4]
    """
    check_stack(stack)
    bands = _backscatter(stack)
    rows = []
    for name in bands:
        band = stack[name].transpose("time", "y", "x")
        parts = [band.isel(y=slice(a, c), x=slice(b, d)).values for a, b, c, d in _spread(band.shape[1:])]
        found = {
            "spatial": [spatial_looks(image) for part in parts for image in part],
            "log": [log_looks(image) for part in parts for image in part],
            "temporal": [temporal_looks(part) for part in parts],
        }
        for method, values in found.items():
            values = np.array(values)[np.isfinite(values)]
            low, middle, high = np.percentile(values, [25, 50, 75]) if values.size else (np.nan,) * 3
            row = {"band": name, "method": method, "enl": middle, "low": low, "high": high, "n": values.size}
            rows.append(row)
    return pd.DataFrame(rows)


def _backscatter(stack):
    bands = [name for name in stack.data_vars if name in SAR_BANDS]
    if not bands:
        raise StackError(f"no backscatter band is there (bands: {', '.join(map(str, stack.data_vars))}).")
    return bands


def _spread(shape):
    """Boxes (row, col, row_end, col_end): the whole image in blocks, or `SAMPLES` of them evenly over a larger one."""
    places = []
    for n in shape:
        count = max(1, min(int(SAMPLES**0.5), n // SAMPLE_PX))
        side = min(n, SAMPLE_PX) if n > SAMPLE_PX * count else -(-n // count)
        starts = np.linspace(0, n - side, count).round().astype(int) if count > 1 else [(n - side) // 2]
        places.append([(int(s), int(s) + side) for s in starts])
    return [(r0, c0, r1, c1) for r0, r1 in places[0] for c0, c1 in places[1]]


def _filter(series, method, radius, looks):
    if method == "multitemporal":
        return multitemporal(series, radius)
    single = {
        "boxcar": lambda image: boxcar(image, radius),
        "lee": lambda image: lee(image, looks, radius),
        "refined_lee": lambda image: refined_lee(image, looks),
        "gamma_map": lambda image: gamma_map(image, looks, radius),
        "non_local": lambda image: non_local(image, looks, PATCH, radius),
    }[method]
    return np.stack([np.asarray(single(image), np.float32) for image in series])


@cache
def _looks_after(method, radius, looks, n_time):
    """Looks of even ground after filtering, from simulated speckle (64 x 64 px, at most 20 dates)."""
    n = min(n_time, 20) if method == "multitemporal" else 1
    flat = np.random.default_rng(0).gamma(looks, 1 / looks, (n, 64 + 2 * radius, 64 + 2 * radius)).astype(np.float32)
    smooth = _filter(flat, method, radius, looks)[:, radius:-radius, radius:-radius].astype(np.float64)
    return float(np.mean(smooth.mean(axis=(1, 2)) ** 2 / smooth.var(axis=(1, 2))))
