"""Fires: what burnt, when, and how severely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import xarray as xr

from geoalign.detectors.deforestation import only, sides
from geoalign.detectors.harmonic_cusum import layers_of, watch
from geoalign.detectors.patches import check_area, sieve, with_neighbours
from geoalign.detectors.series import check_options, part, series_of, widening
from geoalign.errors import StackError
from geoalign.types.changes import new_changes
from geoalign.types.stack import check_stack, is_sar

DROP = 0.1
"""Least fall of the burn ratio: dNBR from which a fire counts as of low severity (Key and Benson 2006)."""
FUEL = 0.1
"""Usual burn ratio before: bare ground and water have nothing to burn."""
CHAR = 0.7
"""Usual swir2 after over before, at the least: char and ash lie bare, where open water keeps under a third of it."""
LESS_NIR = 0.92
"""Usual near infrared after over before, at the most: leaves are gone."""
SEVERITY = (0.1, 0.27, 0.44, 0.66)


@dataclass(frozen=True)
class Burn:
    """Burnt ground with its date and severity, from optical series.

    `harmonic_cusum` looks for drops of the normalised burn ratio. A drop is a fire where the ground had something to
    burn, where the ratio fell by 0.1 or more, and where the near infrared fell and swir2 did not (water lowers both).
    Regrowth within the series ends it.

    Parameters
    ----------
    alpha : float
        Chance of a confirmed false alarm at a stable pixel over the whole time watched; the conditions above only
        lower it.
    prior : float
        Share of change that `probability` assumes.
    since, until, history : see `HarmonicCusum`
    order : int
        Harmonics of the year in the model.
    min_area_m2 : float
        Smaller patches are left out (grids in metres only).

    Notes
    -----
    `magnitude` is the fall of NBR, negative; `severity` is 1 low, 2 moderate to low, 3 moderate to high, 4 high by dNBR
    of 0.10, 0.27, 0.44 and 0.66. Clearing without fire that bares as dark a ground can't be told from fire by these
    bands. Adds the layers of `HarmonicCusum`.

    References
    ----------
    Key and Benson (2006), Landscape assessment, FIREMON, USDA RMRS-GTR-164: dNBR and its classes.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 10, "datetime64[D]")
    >>> noise = np.random.default_rng(0).normal(0, 0.005, (2, time.size, 1, 1))
    >>> bands = dict(zip(("nir", "swir2"), noise + np.array([0.30, 0.07])[:, None, None, None]))
    >>> bands["nir"][70:] -= 0.18
    >>> bands["swir2"][70:] += 0.12
    >>> found = Burn().detect(new_stack(bands, time))
    >>> int(found.status[0, 0]), bool(found.date.values[0, 0] == time[70]), int(found.severity[0, 0])
    (3, True, 4)
    """

    alpha: float = 0.01
    prior: float = 0.02
    since: str | None = None
    until: str | None = None
    history: float | None = None
    order: int = 1
    min_area_m2: float = 1000.0

    kind: ClassVar[str] = "burn"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        check_area(self.min_area_m2)

    def detect(self, stack):
        """Changes (y, x) of a Stack of optical scenes; lazy where the stack is."""
        check_stack(stack)
        if is_sar(stack) or not {"nir", "swir2"} <= set(stack.data_vars):
            raise StackError(f"burn needs nir and swir2; the stack has {', '.join(map(str, stack.data_vars))}.")
        stack, first = part(stack, self.since, self.until, self.history)
        series, units = series_of(stack, "nbr")
        steep, spread = widening(stack, series)
        found = watch(series, first, steep, spread, order=self.order, alpha=self.alpha, prior=self.prior, direction=-1)
        ratio, nir, swir2 = (sides(s, found) for s in (series, stack.nir, stack.swir2))
        burnt = (found.magnitude <= -DROP) & (ratio[1] >= FUEL)
        burnt = burnt & (nir[4] <= LESS_NIR * nir[1]) & (swir2[4] >= CHAR * swir2[1])
        sure = with_neighbours(burnt & (found.outcome <= 2) & (found.outcome > 0), burnt & (found.outcome == 3))
        found = only(found, burnt, sieve(sure, stack, self.min_area_m2))
        layers = layers_of(found, stack.time.values, watching=self.since is not None)
        level = sum((found.magnitude <= -limit).astype("uint8") for limit in SEVERITY)
        layers["severity"] = xr.where(layers["magnitude"].notnull(), level, 0).astype("uint8")
        layers["severity"].attrs = {
            "long_name": "severity by dNBR",
            "flag_values": [0, 1, 2, 3, 4],
            "flag_meanings": "none low moderate_low moderate_high high",
        }
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units=units,
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )
