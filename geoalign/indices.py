"""Spectral indices of a Stack, by name: plain arithmetic on its bands, lazy where they are.

Every index takes reflectance 0-1 and gives a float32 DataArray; NaN where one of its bands is not observed or a
ratio has no denominator. `INDICES` lists them, `index(stack, "ndvi")` computes one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr

from geoalign.errors import ConfigError, StackError


@dataclass(frozen=True)
class Index:
    """One index: what it is called, the bands it takes (in the order of its function), and where it comes from."""

    name: str
    long_name: str
    bands: tuple[str, ...]
    function: Callable
    source: str


def ratio(above, below):
    """above / below, NaN where |below| is under 1e-6 (no light at all)."""

    def divide(a, b):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            out = (a / b).astype(np.float32, copy=False)
        dark = np.abs(b) < 1e-6
        if dark.any():
            out[dark] = np.nan
        return out

    if isinstance(above, da.Array) or isinstance(below, da.Array):
        return da.map_blocks(divide, above, below, dtype=np.float32)
    return divide(above, below)


def _difference(a, b):
    return ratio(a - b, a + b)


def _evi(blue, red, nir):
    return ratio(2.5 * (nir - red), nir + 6 * red - 7.5 * blue + 1)


def _bsi(blue, red, nir, swir1):
    return ratio((swir1 + red) - (nir + blue), (swir1 + red) + (nir + blue))


def _tasseled(weights):
    def weigh(*bands):
        return sum(np.float32(w) * band for w, band in zip(weights, bands))

    return weigh


def _ndfi(*bands):
    """Fractions of the six bands' light; NaN where a cloud or nothing but shade is seen."""
    from geoalign.kernels.unmix import ENDMEMBERS, ndfi, solutions

    maps = solutions(ENDMEMBERS)

    def compute(*blocks):
        shape = np.shape(blocks[0])
        flat = [np.ascontiguousarray(b, np.float32).reshape(1, -1) for b in blocks]
        return ndfi(*flat, ENDMEMBERS, *maps).reshape(shape)

    if any(isinstance(b, da.Array) for b in bands):
        return da.map_blocks(compute, *bands, dtype=np.float32)
    return compute(*bands)


_SIX = ("blue", "green", "red", "nir", "swir1", "swir2")

INDICES: dict[str, Index] = {
    i.name: i
    for i in (
        Index("ndvi", "normalised difference vegetation index", ("nir", "red"), _difference, "Rouse et al. 1974"),
        Index("ndfi", "normalised difference fraction index", _SIX, _ndfi, "Souza et al. 2005"),
        Index("evi", "enhanced vegetation index", ("blue", "red", "nir"), _evi, "Huete et al. 2002"),
        Index(
            "evi2", "two-band enhanced vegetation index", ("red", "nir"),
            lambda red, nir: ratio(2.5 * (nir - red), nir + 2.4 * red + 1), "Jiang et al. 2008",
        ),
        Index(
            "savi", "soil-adjusted vegetation index, L = 0.5", ("red", "nir"),
            lambda red, nir: ratio(1.5 * (nir - red), nir + red + 0.5), "Huete 1988",
        ),
        Index("nbr", "normalised burn ratio", ("nir", "swir2"), _difference, "Key and Benson 2006"),
        Index("nbr2", "normalised burn ratio 2", ("swir1", "swir2"), _difference, "Key and Benson 2006"),
        Index("ndmi", "normalised difference moisture index", ("nir", "swir1"), _difference, "Wilson and Sader 2002"),
        Index("ndwi", "normalised difference water index", ("green", "nir"), _difference, "McFeeters 1996"),
        Index("mndwi", "modified normalised difference water index", ("green", "swir1"), _difference, "Xu 2006"),
        Index("ndbi", "normalised difference built-up index", ("swir1", "nir"), _difference, "Zha et al. 2003"),
        Index("bsi", "bare soil index", ("blue", "red", "nir", "swir1"), _bsi, "Rikimaru et al. 2002"),
        Index("ndsi", "normalised difference snow index", ("green", "swir1"), _difference, "Hall et al. 1995"),
        Index(
            "awesh", "automated water extraction index, with shadow", ("blue", "green", "nir", "swir1", "swir2"),
            lambda blue, green, nir, swir1, swir2: blue + 2.5 * green - 1.5 * (nir + swir1) - 0.25 * swir2,
            "Feyisa et al. 2014",
        ),
        Index(
            "awensh", "automated water extraction index, no shadow", ("green", "nir", "swir1", "swir2"),
            lambda green, nir, swir1, swir2: 4 * (green - swir1) - 0.25 * nir - 2.75 * swir2, "Feyisa et al. 2014",
        ),
        Index(
            "brightness", "tasseled cap brightness", _SIX,
            _tasseled((0.2043, 0.4158, 0.5524, 0.5741, 0.3124, 0.2303)), "Crist 1985, reflectance factors",
        ),
        Index(
            "greenness", "tasseled cap greenness", _SIX,
            _tasseled((-0.1603, -0.2819, -0.4934, 0.7940, -0.0002, -0.1446)), "Crist 1985, reflectance factors",
        ),
        Index(
            "wetness", "tasseled cap wetness", _SIX,
            _tasseled((0.0315, 0.2021, 0.3102, 0.1594, -0.6806, -0.6109)), "Crist 1985, reflectance factors",
        ),
    )
}  # fmt: skip
"""Name -> Index."""


def index(stack, name: str) -> xr.DataArray:
    """One index of a stack.

    Parameters
    ----------
    stack : Stack (time, y, x), reflectance 0-1; anything with the bands as DataArrays will do
    name : one of `INDICES`

    Returns
    -------
    DataArray float32 with the stack's coordinates, named after the index; attrs long_name, units "1", source.

    Raises
    ------
    ConfigError : an unknown name (the nearest is named)
    StackError : a band it takes is missing

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> stack = new_stack({"red": np.full((1, 1, 1), 0.1), "nir": np.full((1, 1, 1), 0.3)}, ["2024-01-01"])
    >>> round(float(index(stack, "ndvi")[0, 0, 0]), 3)
    0.5
    """
    if name not in INDICES:
        close = difflib.get_close_matches(str(name), INDICES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise ConfigError(f"index {name!r} is unknown{hint} There are: {', '.join(INDICES)}.")
    entry = INDICES[name]
    absent = [band for band in entry.bands if band not in stack]
    if absent:
        others = possible(stack)
        raise StackError(
            f"{name} needs the bands {', '.join(entry.bands)}; {', '.join(absent)} is missing "
            f"(bands: {', '.join(map(str, stack.data_vars))}). "
            + (f"Possible with these: {', '.join(others)}." if others else "No index is possible with these.")
        )
    like = stack[entry.bands[0]]
    values = entry.function(*(stack[band].data for band in entry.bands))
    attrs = {"long_name": entry.long_name, "units": "1", "source": entry.source}
    out = xr.DataArray(values.astype(np.float32), dims=like.dims, coords=like.coords, name=name, attrs=attrs)
    if "grid_mapping" in like.encoding:
        out.encoding["grid_mapping"] = like.encoding["grid_mapping"]
    return out


def possible(stack) -> list[str]:
    """Names of the indices that the stack's bands allow."""
    return [entry.name for entry in INDICES.values() if all(band in stack for band in entry.bands)]
