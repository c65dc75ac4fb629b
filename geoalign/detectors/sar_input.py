"""What the SAR detectors share at their door: which bands, how many looks, what a residual shift adds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from geoalign.chunked import derived, neighbourhood, per_pixel, whole_image
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.enl import (
    CELL_PX,
    MOST_LOOKS,
    WINDOW_PX,
    difference_histogram,
    difference_median,
    local_excess,
    looks_and_evenness,
    looks_of_differences,
    mean_intensity,
    scatter_histogram,
)
from geoalign.kernels.lag import lag_correlation, lag_histogram
from geoalign.kernels.speckle import relative_gradient
from geoalign.types.stack import SAR_BANDS

SAMPLE = {"block": 512, "most": 25}
"""Blocks from which looks are estimated: all of an image up to 2,560 px, a spread of 6.5 million pixels of a larger."""

ENOUGH = 3_500
"""Pixels of those blocks that are looked at, about: they give the looks to 0.2 % where each has 180 values."""
ENOUGH_VALUES = 400_000
"""Degrees of freedom that they have together at least, where series are short."""
LAG_ENOUGH = 500_000
"""Differences of successive dates that are looked at, about."""

LAG_SAMPLE = {"block": 32, "most": 16}
"""Blocks from which the correlation of successive dates is estimated: one number, which 16,000 pixels give to 0.01."""


@dataclass(frozen=True)
class Speckle:
    """Noise of a SAR stack.

    looks : (band, y, x) float32 at a date
    slope : (band, y, x) |gradient| / intensity, a px; zero without `sigma_px`
    sigma : (time, y, x) alignment error, px; (step, y, x) with one step where there is none
    d0 : degrees of freedom with which looks vary between pixels (0-d, or inf: they do not)
    """

    looks: xr.DataArray
    slope: xr.DataArray
    sigma: xr.DataArray
    d0: xr.DataArray | float


def check_share(name, value):
    """A share strictly between 0 and 1, or ConfigError."""
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value!r}; it is a share strictly between 0 and 1, as 0.01.")


def sar_bands(stack, *, mixed=False):
    """Names of the stack's backscatter bands; StackError where it has none, or mixes orbits and that is not `mixed`."""
    bands = [name for name in stack.data_vars if name in SAR_BANDS]
    if not bands:
        raise StackError(
            f"no backscatter band is there (bands: {', '.join(map(str, stack.data_vars))}); expected one of "
            f"{', '.join(SAR_BANDS)} in linear power. Rename yours, as stack.rename(intensity='vv')."
        )
    if not mixed:
        one_orbit(stack)
    return bands


def one_orbit(stack):
    """StackError where the stack mixes orbits."""
    if "orbit" in stack.coords and np.unique(stack.orbit.values).size > 1:
        seen = ", ".join(map(str, np.unique(stack.orbit.values)))
        raise StackError(
            f"the stack mixes the relative orbits {seen}; a SAR series needs one, because backscatter depends on the "
            "look direction. Choose one: stack.isel(time=stack.orbit == ...)."
        )


def cube(stack, bands):
    """(band, time, y, x) of the bands, with plain coordinates."""
    return xr.concat([stack[b].transpose("time", "y", "x") for b in bands], "band").reset_coords(drop=True)


def speckle_of(stack, bands, enl=None) -> Speckle:
    """How noisy each band of the stack is, and where.

    Parameters
    ----------
    stack : Stack
    bands : names of its SAR bands
    enl : number of looks; None takes the band's `attrs["enl"]`, and estimates it from the series where there is none

    Notes
    -----
    The estimate makes stable pixels look stable: it holds speckle and whatever else varies from date to date. Ground
    around a pixel that is clearly noisier than the scene (7 x 7 window, differences of successive dates) gets fewer
    looks; d0 says how much looks still differ between pixels. A given ENL is taken as it is, for every pixel. A scene
    speaks through some 3,500 pixels (more where the series is short), evenly spread over it, or over 25 blocks of
    512 px of an image larger than 2,560 px.
    """
    if enl is not None and not (np.isfinite(enl) and enl > 0):
        raise ConfigError(f"enl is {enl!r}; it is a number of looks above 0, or None to estimate it.")
    known = [enl if enl is not None else stack[name].attrs.get("enl") for name in bands]
    d0 = np.inf
    unknown = all(value is None for value in known)
    looks = xr.concat(
        [_looks(stack[name], value, rough=unknown) for name, value in zip(bands, known)], "band"
    ).reset_coords(drop=True)
    if unknown:
        # all bands at once: what varies in time varies in several bands together, and then their sum is less even
        both = whole_image(
            partial(_scatters, step=_step(stack, len(bands))),
            partial(looks_and_evenness, n_band=len(bands), known=True),
            *(stack[b].transpose("time", "y", "x").reset_coords(drop=True) for b in bands),
            looks,
            size=2,
            **SAMPLE,
        )
        d0 = both[1]
        looks = np.minimum(looks * _or_one(both[0]).astype("float32"), np.float32(MOST_LOOKS))
    slope, sigma = _shift(stack, bands, looks)
    return Speckle(looks.transpose("band", "y", "x"), slope, sigma, d0)


def correlation_of(stack, bands):
    """Correlation of successive dates where nothing changes, 0-d, lazy where the stack is; 0 for few scenes."""
    if stack.sizes["time"] < 6:
        return 0.0
    pixels = min(stack.sizes["y"] * stack.sizes["x"], LAG_SAMPLE["most"] * LAG_SAMPLE["block"] ** 2)
    return whole_image(
        partial(_lags, step=_every(pixels, LAG_ENOUGH / (len(bands) * stack.sizes["time"]))),
        lag_correlation,
        *(stack[b].transpose("time", "y", "x").reset_coords(drop=True) for b in bands),
        **LAG_SAMPLE,
    )


def _lags(*bands, step):
    return lag_histogram(np.stack([b[:, ::step, ::step] for b in bands]))


def _looks(band, known, rough=False):
    """(y, x) float32: what is known, or what the series shows.

    rough : by the differences of successive dates alone, where what all bands show together sets the scale afterwards
    """
    band = band.reset_coords(drop=True)
    if known is not None:
        if not (np.isfinite(known) and known > 0):
            raise StackError(
                f"band {band.name!r} says enl = {known!r}; it is a number of looks above 0. Correct attrs."
            )
        return xr.zeros_like(band.isel(time=0, drop=True)).fillna(0) + np.float32(known)
    step = _step(band, 1)
    median = whole_image(partial(_thinned, kernel=difference_histogram, step=step), difference_median, band, **SAMPLE)
    excess = neighbourhood(
        local_excess, band, depth=WINDOW_PX + CELL_PX // 2, outputs={"excess": "float32"}, placed=True,
        scene_median=median,
    ).excess  # fmt: skip
    relative = 1 / excess
    if rough:
        return relative * _or_one(derived(_typical_looks, median, size=1)[0]).astype("float32")
    typical = whole_image(
        partial(_thinned, kernel=scatter_histogram, step=step, known=False),
        looks_and_evenness,
        band.expand_dims("band"),
        relative.expand_dims("band"),
        size=2,
        **SAMPLE,
    )
    return relative * _or_one(typical[0]).astype("float32")


def _typical_looks(median):
    return np.array([looks_of_differences(float(median))])


def _step(data, n_band):
    """Every how many pixels of the sampled blocks, down and across, are looked at."""
    pixels = min(data.sizes["y"] * data.sizes["x"], SAMPLE["most"] * SAMPLE["block"] ** 2)
    return _every(pixels, max(ENOUGH, ENOUGH_VALUES / (n_band * max(data.sizes["time"] - 1, 1))))


def _every(pixels, enough):
    return max(1, int(np.sqrt(pixels / enough)))


def _thinned(*blocks, kernel, step, **options):
    return kernel(*(np.ascontiguousarray(b[..., ::step, ::step]) for b in blocks), **options)


def _scatters(*blocks, step):
    *bands, looks = (b[..., ::step, ::step] for b in blocks)
    # a thinned copy: one of all the bands would take longer than what is done with it
    return scatter_histogram(np.stack(bands), np.ascontiguousarray(looks), True)


def _or_one(value):
    """The number, or 1 where there was nothing to estimate it from: no pixel has two observations then."""
    return xr.where(np.isfinite(value), value, 1.0)


def _shift(stack, bands, looks):
    like = stack[bands[0]].reset_coords(drop=True)
    if "sigma_px" not in stack.coords:
        none = xr.zeros_like(like.isel(time=0, drop=True)).astype("float32")
        return xr.concat([none] * len(bands), "band"), none.expand_dims("step")
    slopes = []
    for i, name in enumerate(bands):
        band = stack[name].reset_coords(drop=True)
        mean = per_pixel(mean_intensity, band, outputs={"mean": "float32"})["mean"]
        speckle = (1 / (looks.isel(band=i) * band.sizes["time"])).astype("float32")
        slopes.append(neighbourhood(relative_gradient, mean, speckle, depth=1, outputs={"slope": "float32"}).slope)
    sigma = stack.sigma_px.reset_coords(drop=True).astype("float32")
    if sigma.dims != ("time", "y", "x"):
        sigma = (xr.zeros_like(like).fillna(0) + sigma).transpose("time", "y", "x").astype("float32")
    return xr.concat(slopes, "band"), sigma
