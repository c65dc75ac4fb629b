"""Scenes whose misregistration, change and dates are known: `simulate`, `Simulation`, `Truth`.

One ground, sampled several times a pixel and defined at any coordinate, is seen by every scene through its own point
spread at its own places. No finished scene is ever resampled, so what an alignment has to find is what was planted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoalign.errors import ConfigError
from geoalign.kernels.scene_look import lost
from geoalign.kernels.scene_values import OPTICAL_BANDS, SAR_BANDS
from geoalign.simulation.files import write_simulation
from geoalign.simulation.monitoring import MonitoredSite, simulate_monitoring
from geoalign.simulation.recipe import EVENT_KINDS, WARP_KINDS, Recipe, Scene, make_recipe
from geoalign.simulation.render import render_tile, tiles
from geoalign.simulation.truth import Truth, truth_of
from geoalign.types.stack import new_stack

if TYPE_CHECKING:
    import xarray as xr
    from odc.geo.geobox import GeoBox

__all__ = ["EVENT_KINDS", "WARP_KINDS", "MonitoredSite", "Recipe", "Scene", "Simulation", "Truth", "simulate",
           "simulate_demo", "simulate_monitoring"]  # fmt: skip


def simulate(
    folder=None,
    *,
    size: int = 256,
    seed: int = 0,
    sensors=("optical", "sar"),
    n_optical: int = 30,
    n_sar: int = 30,
    start: str = "2023-01-05",
    cloud: float = 0.30,
    looks: float = 4.4,
    noise: float = 0.004,
    misregistration_px: float = 1.5,
    warps=WARP_KINDS,
    events=True,
    season_db: float = 1.0,
    mixed_grids: bool = False,
    oversample: int = 4,
    crs: str = "EPSG:32633",
    origin=(500000.0, 5400000.0),
    resolution_m: float = 10.0,
) -> Simulation:
    """Optical and SAR scenes of one simulated ground, with the truth about their misregistration and what changed.

    Land cover is fields in parcels, woods, grass, towns, roads, bare ground, a river and a lake. Optical scenes spread
    evenly over two years, SAR scenes come every 12 days up to the same end, so that by default a year of optical
    history lies before the first event. Each pixel is the mean of the ground under a Gaussian point spread
    (sigma 0.5 px) around the place that the pixel really shows.

    Parameters
    ----------
    folder : path, optional
        Also write the scenes, their truth and a `site.toml` there (`Simulation.write`).
    size : px a side of the project grid
    seed : every random choice follows from it
    sensors : which to make: "optical", "sar"
    n_optical, n_sar : number of scenes
    start : date of the first optical scene
    cloud : 0..1
        Mean share of optical pixels lost to cloud and shadow. About one in a hundred is clouded and not masked.
    looks : equivalent number of looks of the SAR scenes; gamma speckle, independent from pixel to pixel
    noise : reflectance, 1 sigma; 0.5 % of the signal is added to it
    misregistration_px : px
        Root mean square displacement over image and scenes. One scene a sensor, its reference, has none.
    warps : which kinds of warp to plant, in turn: "shift", "affine", "field" (smooth, free-form)
    events : True, False, or some of "flood", "clearing", "building"
    season_db : dB
        Half the yearly range of crops' backscatter in vh; half of it in vv, less in grass and woods.
    mixed_grids : let every third scene's file have another UTM zone or another resolution
    oversample : samples of the ground a pixel and axis; 2 is enough where only speed matters
    crs, origin, resolution_m : project grid; origin is the (x, y) of its upper left corner

    Returns
    -------
    Simulation

    Raises
    ------
    ConfigError : an option out of its range or unknown

    Notes
    -----
    Backscatter changes relative to what was there before. Flood: -4 dB vv, -3 dB vh, open water roughened by wind and
    pierced by vegetation, which returns more than a calm lake. Clearing: -3 dB vh, as the crowns' volume scattering
    goes, but -1.5 dB vv, for rough soil and slash scatter back in vv. Building: +5 dB vv, +4 dB vh, from walls meeting
    the ground.

    Examples
    --------
    >>> sim = simulate(size=64, n_optical=2, n_sar=3, seed=1)
    >>> dict(sim.sar.sizes)
    {'time': 3, 'y': 64, 'x': 64}
    """
    options = {k: v for k, v in locals().items() if k != "folder"}
    simulation = Simulation(make_recipe(**options))
    return simulation if folder is None else simulation.write(folder)


@dataclass(frozen=True)
class Simulation:
    """What `simulate` made. `optical` and `sar` are rendered when first asked for, `write` renders tile by tile."""

    recipe: Recipe = field(repr=False)
    folder: Path | None = None

    def __repr__(self):
        r = self.recipe
        scenes = [f"{len(r.of(sensor))} {sensor}" for sensor in ("optical", "sar") if r.of(sensor)]
        where = "" if self.folder is None else f", in {self.folder}"
        text = f"{r.size} x {r.size} px, seed {r.seed}; {' and '.join(scenes)} scenes; {self._planted()}{where}"
        return f"<Simulation of {text}>"

    def _repr_html_(self):
        from geoalign.types.show import card, table

        r = self.recipe
        rows = []
        for sensor in ("optical", "sar"):
            scenes = r.of(sensor)
            if scenes:
                kinds = ", ".join(sorted({s.warp_kind for s in scenes}))
                rows.append([sensor, len(scenes), str(scenes[0].time.date()), str(scenes[-1].time.date()), kinds])
        events = []
        for event in sorted(r.events, key=lambda e: e.start):
            first, last = (None if d is None else str((r.start + timedelta(days=float(d))).date())
                           for d in (event.start, event.end))  # fmt: skip
            events.append([event.kind, first, last or "stays"])
        tables = [table(["sensor", "scenes", "first", "last", "planted misregistration"], rows)]
        if events:
            tables.append(table(["planted change", "from", "until"], events))
        head = f"{r.size} x {r.size} px of {abs(r.geobox.resolution.x):g} m, {r.geobox.crs}, seed {r.seed}"
        where = [] if self.folder is None else [f"written to {self.folder}"]
        return card("Simulation", [head, *where, ".optical, .sar: Stacks; .truth: what was planted"], tables)

    def _planted(self):
        counts: dict[str, int] = {}
        for event in self.recipe.events:
            counts[event.kind] = counts.get(event.kind, 0) + 1
        return "planted: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()) if counts else "no change planted"

    @property
    def geobox(self) -> GeoBox:
        """The project grid."""
        return self.recipe.geobox

    @cached_property
    def optical(self) -> xr.Dataset:
        """Stack (time, y, x) of blue ... swir2, NaN under detected cloud and shadow; misregistered as planted."""
        return self._stack("optical", OPTICAL_BANDS)

    @cached_property
    def sar(self) -> xr.Dataset:
        """Stack (time, y, x) of vv, vh in linear power; misregistered as planted."""
        return self._stack("sar", SAR_BANDS)

    @cached_property
    def truth(self) -> Truth:
        """What was planted."""
        return truth_of(self.recipe)

    def write(self, folder) -> Simulation:
        """Write scenes, truth and `site.toml`, tile by tile; each scene on its own native grid.

        `folder/optical/*.tif` look like Sentinel-2 L2A (uint16, reflectance = (DN - 1000) / 10000, 0 = nodata, with
        `scl`), `folder/sar/*.tif` like Sentinel-1 RTC (uint16 with scale, linear power). `folder/truth/` holds what
        `Truth.load` reads. Files are replaced whole or not at all.

        Returns
        -------
        Simulation, with `folder` set
        """
        return replace(self, folder=write_simulation(self.recipe, Path(folder)))

    def _stack(self, sensor, names):
        recipe = self.recipe
        scenes = recipe.of(sensor)
        if not scenes:
            raise ConfigError(f"this simulation has no {sensor} scenes; add {sensor!r} to `sensors`.")
        bands = np.full((len(names), len(scenes), recipe.size, recipe.size), np.nan, np.float32)
        for tile in tiles((recipe.size, recipe.size)):
            for k, block, mask in render_tile(recipe, scenes, tile, native=False):
                (r0, r1), (c0, c1) = tile
                bands[:, k, r0:r1, c0:c1] = block if mask is None else np.where(lost(mask), np.nan, block)
        stack = new_stack(
            dict(zip(names, bands)),
            [s.time for s in scenes],
            geobox=recipe.geobox,
            scene=[s.name for s in scenes],
            sensor="S2A" if sensor == "optical" else "S1A",
            orbit=None if sensor == "optical" else 44,
        )
        for name in names if sensor == "sar" else ():
            stack[name].attrs["enl"] = recipe.looks
        return stack


DEMO = {"size": 192, "seed": 23, "n_optical": 30, "n_sar": 30}
"""Options of the small set that comes with the project, in `data/`."""


def simulate_demo(folder) -> Simulation:
    """Write the small set that `data/` holds: the same options, the same seed."""
    return simulate(folder, **DEMO)
