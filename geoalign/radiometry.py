"""Scenes brought to one radiometry by the ground that did not change: `normalise`."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from geoalign.chunked import whole_image
from geoalign.errors import StackError
from geoalign.kernels.irmad import normalisation, sample
from geoalign.types.stack import SAR_BANDS, check_stack

SAMPLE_PX = 250_000
"""Pixels that the fit is made from: every second, third, ... row and column of larger images."""


def normalise(stack, reference=0) -> xr.Dataset:
    """The stack with every scene's optical bands as the reference scene would show them.

    For each scene, the pixels that did not change against the reference are found by IR-MAD, which is blind to linear
    differences of light, haze and units; the scene's bands are then carried over by orthogonal regression of the
    standardised values of these pixels, a slope and a level a band.

    Parameters
    ----------
    stack : Stack (time, y, x) of two optical bands or more, in any units
    reference : number of a scene along time, or its id (coordinate `scene`)

    Returns
    -------
    Stack like the one given, lazy where it is, each scene with the coordinates `gain_BAND` and `level_BAND` (time) that
    were applied. A scene that shares fewer than 50 pixels a band with the reference becomes NaN, and so do its gains.

    Raises
    ------
    StackError : fewer than two optical bands, or an unknown reference

    References
    ----------
    Canty and Nielsen (2008), Automatic radiometric normalization of multitemporal satellite imagery with the
    iteratively re-weighted MAD transformation, doi:10.1016/j.rse.2007.07.013. We standardise before the orthogonal
    regression, so that the units of the scenes do not matter.

    Examples
    --------
    >>> from geoalign import new_stack
    >>> ground = np.random.default_rng(0).normal(0.2, 0.05, (2, 1, 40, 40))
    >>> pair = np.concatenate([ground, 0.8 * ground + 0.03], axis=1)
    >>> stack = new_stack(dict(zip(("red", "nir"), pair)), ["2024-05-01", "2024-06-01"])
    >>> even = normalise(stack)
    >>> bool(np.abs(even.red[1] - even.red[0]).max() < 1e-3)
    True
    """
    check_stack(stack)
    bands = [name for name in stack.data_vars if name not in SAR_BANDS]
    if len(bands) < 2:
        raise StackError(
            f"normalise compares two or more optical bands; the stack has {', '.join(map(str, stack.data_vars))}."
        )
    number = _number(stack, reference)
    cube = stack[bands].to_dataarray("band").transpose("time", "band", "y", "x")
    n_px = stack.sizes["y"] * stack.sizes["x"]
    step = max(1, int(np.ceil(np.sqrt(n_px / SAMPLE_PX))))
    lines = []
    for t in range(stack.sizes["time"]):
        if t == number:
            line = xr.DataArray(np.repeat([1.0, 0.0], len(bands)), dims="stat")
        else:
            fit = partial(normalisation, n_band=len(bands))
            line = whole_image(sample, fit, cube[number], cube[t], size=2 * len(bands), step=step)
        lines.append(line)
    fits = xr.concat(lines, "time").astype("float32")
    out = stack.copy()
    for k, name in enumerate(bands):
        gain, level = fits[:, k], fits[:, len(bands) + k]
        out[name] = (stack[name] * gain + level).astype("float32").assign_attrs(stack[name].attrs)
        out = out.assign_coords({f"gain_{name}": gain, f"level_{name}": level})
    return out


def _number(stack, reference):
    if isinstance(reference, str):
        ids = list(map(str, stack.scene.values)) if "scene" in stack.coords else []
        if reference not in ids:
            raise StackError(
                f"reference {reference!r} is no scene of the stack ({', '.join(ids[:5]) or 'no ids'} ...)."
            )
        return ids.index(reference)
    if not -stack.sizes["time"] <= reference < stack.sizes["time"]:
        raise StackError(f"reference {reference} is no scene: the stack has {stack.sizes['time']}.")
    return int(reference) % stack.sizes["time"]
