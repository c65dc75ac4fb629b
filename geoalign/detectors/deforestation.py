"""Woods that were cut, burnt or fell, and stay gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import xarray as xr

from geoalign.chunked import per_pixel
from geoalign.detectors.harmonic_cusum import layers_of, watch
from geoalign.detectors.patches import check_area, sieve, with_neighbours
from geoalign.detectors.series import check_options, part, series_of, widening
from geoalign.errors import ConfigError, StackError
from geoalign.indices import index, possible
from geoalign.kernels.levels import levels
from geoalign.types.changes import new_changes
from geoalign.types.stack import check_stack, is_sar

SHARE_OUTSIDE = 0.1
"""Observations that may lie outside the low and high levels: undetected clouds, shadows, snow."""
GREEN, GREEN_LOW = 0.6, 0.35
"""NDVI of woods: usual, and in their leafless season (crops and most grass lie bare or pale then)."""
DARK_SWIR1 = 0.18
"""Woods are darker than this at 1.6 um (usual reflectance): crowns shade themselves and hold water."""
FOLLOWED = ("nbr", "ndmi", "ndvi", "ndfi")
"""Indices by which loss of woods is told."""
LOSS = 0.2
"""Drop of the index that counts as loss of woods; less is thinning, drought or a pixel at the edge."""


@dataclass(frozen=True)
class Deforestation:
    """Loss of woods with its date, from optical or SAR series.

    Optical: `harmonic_cusum` looks for drops of the moisture-sensitive burn ratio (nbr; ndmi or ndvi where swir2 or
    swir1 is missing; another one by `index`). A drop is deforestation where the pixel was wooded before (green all year
    round and dark at 1.6 um, which crops and grass are not), where the index fell by 0.2 or more, and where it has not
    come back.
    Two observations at the end of the series, too few for `harmonic_cusum`, are enough where half the neighbours show
    them as well.
    SAR: drop of the volume scattering in cross-polarisation, see `sar_themes.deforestation_sar`.

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
    index : str, optional
        Optical: "nbr", "ndmi", "ndvi" or "ndfi" (fractions of vegetation, soil and shade, which show thinning too).
        None takes the first that the bands allow.

    Notes
    -----
    Adds the layers of `HarmonicCusum`. Pixels that were not wooded are "no change".

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 10, "datetime64[D]")
    >>> noise = np.random.default_rng(0).normal(0, 0.005, (3, time.size, 1, 1))
    >>> bands = dict(zip(("red", "nir", "swir2"), noise + np.array([0.03, 0.30, 0.06])[:, None, None, None]))
    >>> for name, bare in (("red", 0.12), ("nir", 0.2), ("swir2", 0.2)):
    ...     bands[name][70:] += bare - bands[name][:70].mean()
    >>> found = Deforestation().detect(new_stack(bands, time))
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
    index: str | None = None

    kind: ClassVar[str] = "deforestation"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        check_area(self.min_area_m2)
        if self.index not in (None, *FOLLOWED):
            raise ConfigError(
                f"index is {self.index!r}; loss of woods is told by one of {', '.join(FOLLOWED)}, or None."
            )

    def detect(self, stack):
        """Changes (y, x) of a Stack of optical or of SAR scenes; lazy where the stack is."""
        check_stack(stack)
        if is_sar(stack):
            if self.index is not None:
                raise StackError(f"index {self.index!r} is one of reflectance, and the stack holds backscatter.")
            from geoalign.detectors.sar_themes import deforestation_sar

            return deforestation_sar(self, stack)
        if not {"red", "nir"} <= set(stack.data_vars):
            raise StackError(
                "deforestation needs red and nir (better with swir1 and swir2), or SAR (best vh); the stack has "
                f"{', '.join(map(str, stack.data_vars))}."
            )
        stack, first = part(stack, self.since, self.until, self.history)
        name = self.index or next(name for name in FOLLOWED if name in possible(stack))
        series, units = series_of(stack, name)
        steep, spread = widening(stack, series)
        found = watch(series, first, steep, spread, order=self.order, alpha=self.alpha, prior=self.prior, direction=-1)
        lost = wooded(stack, found) & (found.magnitude <= -LOSS) & (found.outcome != 2)
        sure = with_neighbours(lost & (found.outcome == 1), lost & (found.outcome == 3))
        found = only(found, lost, sieve(sure, stack, self.min_area_m2))
        return new_changes(
            layers_of(found, stack.time.values, watching=self.since is not None),
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units=units,
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )


def sides(series, found):
    """`kernels.levels.levels` of a DataArray (time, y, x) around the changes of `watch`: (side, y, x) float32."""
    return per_pixel(
        levels, series, found.date, found.over, outputs={"level": ("float32", "side", 7)}, share=SHARE_OUTSIDE
    ).level


def wooded(stack, found):
    """Where woods stood before the change, (y, x) bool."""
    green = sides(index(stack, "ndvi"), found)
    woods = (green[1] >= GREEN) & (green[0] >= GREEN_LOW)
    return woods & (sides(stack.swir1, found)[1] <= DARK_SWIR1) if "swir1" in stack else woods


def only(found, kind, keep):
    """What `watch` found, less what is not of one kind of change.

    kind, keep : (y, x) bool; where it is that kind, and where it is to be reported: first signs then count as confirmed
    """
    outcome = found.outcome
    new = xr.where(keep & (outcome == 3), 1, outcome)
    new = xr.where(keep | (outcome <= 0) | (kind & (outcome >= 3)), new, 0).astype("int8")
    return found.assign(outcome=new, probability=xr.where((outcome > 0) & ~kind, 0.0, found.probability))
