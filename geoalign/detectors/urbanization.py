"""Ground that was built over and stays so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.special import ndtr

from geoalign.chunked import per_pixel
from geoalign.detectors.deforestation import only, sides
from geoalign.detectors.harmonic_cusum import layers_of, watch
from geoalign.detectors.patches import check_area, sieve, with_neighbours
from geoalign.detectors.series import check_options, part, series_of, widening
from geoalign.errors import StackError
from geoalign.indices import index
from geoalign.kernels.completion import complete
from geoalign.types.changes import dates_at, new_changes
from geoalign.types.stack import check_stack, is_sar

GREEN_ONCE = 0.4
"""NDVI that the pixel reached in its green season before, and not since: it was vegetated, if only for a part of the
year."""
SEALED = 0.25
"""NDVI under which a built-up pixel stays."""
SOIL_MNDWI, WATER_MNDWI = -0.42, 0.1
"""Roofs and pavement lie between dry soil and water: their reflectance hardly rises from green to 1.6 um."""
RISE = 0.05
"""Rise of mndwi from cleared ground to a building, at the least."""
LIMIT_SD = 0.03
"""By so much the limits of what is built-up vary from place to place."""


@dataclass(frozen=True)
class Urbanization:
    """Building-over of vegetated ground with its date, from optical or SAR series.

    Optical: `harmonic_cusum` looks for drops of ndvi that do not come back. A drop is building where the ground had a
    green season before, shows none since (ndvi stays under 0.4, and under 0.25 once it is built over), and where its
    spectrum became, at once or after a time as bare soil, that of roofs and pavement: between dry soil, which is far
    brighter at 1.6 um than in the green, and water. Bare fields return.
    SAR: rise in both polarisations that stays, see `sar_themes.urbanization_sar`.
    `geoalign.forms` tells the polygons by their shape: roads and railways, industrial areas.

    Parameters
    ----------
    alpha : float
        Chance of a confirmed false alarm at a stable pixel over the whole time watched; the conditions above only
        lower it.
    prior : float
        Share of change that `probability` assumes.
    since, until, history : see `HarmonicCusum`
    order : int
        Harmonics of the year in the optical model.
    enl : float, optional
        Looks of SAR data; None estimates them.
    min_area_m2 : float
        Smaller patches are left out (grids in metres only).

    Notes
    -----
    Adds the layers of `HarmonicCusum` and, for optical series, `date_completed` and `built_up`. `date` is that of the
    clearing, when the green went; `date_completed` the first scene at the last level of mndwi, where that rose once
    more from bare soil (what was built stays built: one rise), else `date`. Ground that was cleared and is bare still
    is not reported. `built_up` is the probability that the ground was built over: that of the drop times that of the
    last level lying between the limits. Without green and swir1 the spectral condition is left out, and long-bare
    fields can pass.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 10, "datetime64[D]")
    >>> noise = np.random.default_rng(0).normal(0, 0.005, (4, time.size, 1, 1))
    >>> grass = np.array([0.07, 0.05, 0.35, 0.2])[:, None, None, None]
    >>> roof = np.array([0.20, 0.22, 0.25, 0.26])[:, None, None, None]
    >>> is_roof = (np.arange(time.size) >= 70)[:, None, None]
    >>> bands = dict(zip(("green", "red", "nir", "swir1"), noise + np.where(is_roof, roof, grass)))
    >>> found = Urbanization().detect(new_stack(bands, time))
    >>> int(found.status[0, 0]), bool(found.date.values[0, 0] == time[70])
    (3, True)
    """

    alpha: float = 0.01
    prior: float = 0.02
    since: str | None = None
    until: str | None = None
    history: float | None = None
    order: int = 1
    enl: float | None = None
    min_area_m2: float = 1000.0

    kind: ClassVar[str] = "urbanization"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        check_area(self.min_area_m2)

    def detect(self, stack):
        """Changes (y, x) of a Stack of optical or of SAR scenes; lazy where the stack is."""
        check_stack(stack)
        if is_sar(stack):
            from geoalign.detectors.sar_themes import urbanization_sar

            return urbanization_sar(self, stack)
        if not {"red", "nir"} <= set(stack.data_vars):
            raise StackError(
                "urbanization needs red and nir (better with green and swir1), or SAR (vv and vh); the stack has "
                f"{', '.join(map(str, stack.data_vars))}."
            )
        stack, first = part(stack, self.since, self.until, self.history)
        series, units = series_of(stack, "ndvi")
        steep, spread = widening(stack, series)
        found = watch(series, first, steep, spread, order=self.order, alpha=self.alpha, prior=self.prior, direction=-1)
        # in winter fields are as bare as what was built: that is no return, the green of another year would be
        lasting = xr.zeros_like(found.over) - 1
        found = found.assign(over=lasting)
        green = sides(series, found)
        built = (found.outcome > 0) & (green[2] >= GREEN_ONCE)
        ready, chance = found.date, xr.ones_like(found.probability)
        if {"green", "swir1"} <= set(stack.data_vars):
            ready, chance = completion(index(stack, "mndwi"), found)
            built = built & (chance >= 0.5) & (green[4] <= GREEN_ONCE)
            green = sides(series, found.assign(date=ready))
        built = built & (green[4] <= SEALED)
        found = found.assign(outcome=xr.where(built & (found.outcome == 2), 1, found.outcome).astype("int8"))
        sure = with_neighbours(built & (found.outcome <= 2), built & (found.outcome == 3))
        found = only(found, built, sieve(sure, stack, self.min_area_m2))
        layers = layers_of(found, stack.time.values, watching=self.since is not None)
        hit = layers["date"].notnull()
        layers["date_completed"] = dates_at(ready.where(hit, -1), stack.time.values)
        layers["built_up"] = (found.probability * chance).astype("float32")
        layers["built_up"].attrs = {"long_name": "probability that the ground was built over", "units": "1"}
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units=units,
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )


def completion(wet, found):
    """Scene from which cleared ground is built-up, -1 none, and the chance that its last level is that of buildings.

    wet : mndwi (time, y, x); found : Dataset of `watch`
    """
    last = per_pixel(
        complete, wet, found.date,
        outputs={"ready": "int32", **dict.fromkeys(("last", "first", "doubt"), "float32")}, least_rise=RISE,
    )  # fmt: skip
    sd = np.sqrt(last.doubt.astype("float64") ** 2 + LIMIT_SD**2)
    nearest = np.minimum(last["last"] - SOIL_MNDWI, WATER_MNDWI - last["last"])
    chance = xr.apply_ufunc(ndtr, nearest / sd, dask="parallelized", output_dtypes=["float64"])
    return last.ready, chance.fillna(0.0).astype("float32")
