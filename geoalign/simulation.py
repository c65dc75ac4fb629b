"""Scenes whose misregistration, change and dates are known: `simulate`, `Simulation`, `Truth`.

One ground, sampled several times a pixel and defined at any coordinate, is seen by every scene through its own point
spread at its own places. No finished scene is ever resampled, so what an alignment has to find is what was planted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine as Transform
from odc.geo.geobox import GeoBox

from geoalign.errors import ConfigError
from geoalign.kernels import scene as maths
from geoalign.kernels.scene_events import ALLOWED, Event, plan_events
from geoalign.types.grid import GridMap
from geoalign.types.stack import grid_coords, new_stack
from geoalign.types.warp import Affine, Chain, Field, Shift, Warp

EVENT_KINDS = ("flood", "clearing", "building")
WARP_KINDS = ("shift", "affine", "field")
TILE = 512
"""Side (px) of the fixed tiles in which scenes are rendered; noise is seeded for each of them."""

_PSF_PX = 0.5
_REACH_PX = 4
_SPAN_DAYS = 730
_CLOUD = np.array([0.56, 0.57, 0.58, 0.61, 0.46, 0.36])
_SHADE = np.array([0.42, 0.48, 0.52, 0.62, 0.62, 0.60])


@dataclass(frozen=True)
class Scene:
    """One acquisition: what distinguishes it from the others."""

    name: str
    sensor: str
    number: int
    time: pd.Timestamp
    warp: Warp
    warp_kind: str
    geobox: GeoBox
    salt: int
    cloud_level: float = np.inf
    shadow: tuple[float, float] = (0.0, 0.0)
    gain: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Everything a simulation is made from; a scene's tile follows from it and from nothing else."""

    size: int
    seed: int
    geobox: GeoBox
    macro: float
    salt: int
    oversample: int
    start: pd.Timestamp
    looks: float
    noise: float
    season_db: float
    scenes: tuple[Scene, ...]
    events: tuple[Event, ...]
    references: dict = field(hash=False)

    def of(self, sensor):
        return [s for s in self.scenes if s.sensor == sensor]


def simulate(
    folder=None,
    *,
    size: int = 256,
    seed: int = 0,
    sensors=("optical", "sar"),
    n_optical: int = 36,
    n_sar: int = 30,
    start: str = "2023-01-05",
    cloud: float = 0.30,
    looks: float = 4.4,
    noise: float = 0.005,
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
    noise : reflectance, 1 sigma; 1 % of the signal is added to it
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
    kinds = _check(locals())
    root = np.random.SeedSequence(seed)
    salt = int(root.generate_state(1)[0] >> 4)
    geobox = GeoBox((size, size), Transform(resolution_m, 0, origin[0], 0, -resolution_m, origin[1]), crs)
    macro = float(size if 128 <= size <= 512 else 256)
    begin = pd.Timestamp(start).normalize()
    sar_begin = max(_SPAN_DAYS - 12 * n_sar, 0) if "sar" in sensors else 0
    plan = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    window = (float(max(sar_begin, _SPAN_DAYS / 2)), float(_SPAN_DAYS))
    planted = plan_events(plan, size, macro, salt, kinds, window)

    scenes, references = [], {}
    for stream, (sensor, n) in enumerate((("optical", n_optical), ("sar", n_sar))):
        if sensor not in sensors:
            continue
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, stream)))
        times = _times(sensor, n, begin, sar_begin)
        control = int(np.argmin(np.abs(times.dayofyear - 180) + 1000 * (times > begin + pd.Timedelta(days=366))))
        control = control if sensor == "optical" else 0
        scales = rng.uniform(0.6, 1.4, n)
        scales[control] = 0.0
        scales *= misregistration_px * np.sqrt(n / max((scales**2).sum(), 1e-12)) if n > 1 else 0.0
        shares = _lost_shares(rng, n, cloud, control)
        turn = 0
        for k in range(n):
            kind = "none" if scales[k] == 0 else warps[turn % len(warps)]
            turn += kind != "none"
            name = f"{'S2A' if sensor == 'optical' else 'S1A'}_{times[k]:%Y%m%d}"
            own = int(rng.integers(1, 2**28))
            level, shadow, gain, offset = np.inf, (0.0, 0.0), (), ()
            if sensor == "optical":
                # morning sun from the south-east, lower in winter; clouds a few hundred metres up
                length = (24 + 14 * rng.uniform()) * (1.25 - 0.4 * np.cos(2 * np.pi * (times[k].dayofyear - 172) / 365))
                shadow = (-0.85 * length, -0.5 * length)
                level = _cloud_level(size, own, shadow, shares[k])
                gain = tuple(1 + 0.01 * rng.standard_normal(6))
                offset = tuple(0.002 * rng.standard_normal(6))
            else:
                gain = tuple(10 ** (0.01 * rng.standard_normal(2)))
            grid = _native_grid(rng, geobox, mixed_grids and k % 3 == 2 and k != control, k)
            warp = _plant(rng, kind, scales[k], size)
            scenes.append(Scene(name, sensor, k, times[k], warp, kind, grid, own, level, shadow, gain, offset))
        references[sensor] = scenes[-n + control].name
    recipe = Recipe(
        size, seed, geobox, macro, salt, oversample, begin, looks, noise, season_db, tuple(scenes), planted, references
    )
    simulation = Simulation(recipe)
    return simulation if folder is None else simulation.write(folder)


@dataclass(frozen=True)
class Simulation:
    """What `simulate` made. `optical` and `sar` are rendered when first asked for, `write` renders tile by tile."""

    recipe: Recipe = field(repr=False)
    folder: Path | None = None

    @property
    def geobox(self) -> GeoBox:
        """The project grid."""
        return self.recipe.geobox

    @cached_property
    def optical(self) -> xr.Dataset:
        """Stack (time, y, x) of blue ... swir2, NaN under detected cloud and shadow; misregistered as planted."""
        return self._stack("optical", maths.OPTICAL_BANDS)

    @cached_property
    def sar(self) -> xr.Dataset:
        """Stack (time, y, x) of vv, vh in linear power; misregistered as planted."""
        return self._stack("sar", maths.SAR_BANDS)

    @cached_property
    def truth(self) -> Truth:
        """What was planted."""
        return _truth(self.recipe)

    def _stack(self, sensor, names):
        recipe = self.recipe
        scenes = recipe.of(sensor)
        if not scenes:
            raise ConfigError(f"this simulation has no {sensor} scenes; add {sensor!r} to `sensors`.")
        bands = np.full((len(names), len(scenes), recipe.size, recipe.size), np.nan, np.float32)
        for tile in _tiles((recipe.size, recipe.size)):
            for k, block, mask in _render_tile(recipe, scenes, tile, native=False):
                (r0, r1), (c0, c1) = tile
                bands[:, k, r0:r1, c0:c1] = block if mask is None else np.where(_lost(mask), np.nan, block)
        stack = new_stack(
            dict(zip(names, bands)),
            [s.time for s in scenes],
            geobox=recipe.geobox,
            scene=[s.name for s in scenes],
            sensor="sentinel-2a" if sensor == "optical" else "sentinel-1a",
            orbit=None if sensor == "optical" else 44,
        )
        for name in names if sensor == "sar" else ():
            stack[name].attrs["enl"] = recipe.looks
        return stack


@dataclass(frozen=True, eq=False)
class Truth:
    """What was planted.

    warps : dict scene -> Warp: where the scene, opened on the project grid, shows the ground of a project pixel
    warp_kinds : dict scene -> "none", "shift", "affine" or "field"
    dates : Dataset (y, x), datetime64 of flood, clearing, building: the day from which it shows, NaT where nothing
    flood_end : DataArray (y, x), datetime64: the day from which the flood is gone
    events : GeoDataFrame, a row an event: kind, date, end, area_ha, n_pixels, geometry (the changed pixels)
    geobox : the project grid, in the frame of the ground
    references : dict sensor -> the scene without misregistration
    """

    warps: dict[str, Warp]
    warp_kinds: dict[str, str]
    dates: xr.Dataset
    flood_end: xr.DataArray
    events: object
    geobox: GeoBox
    references: dict[str, str]

    def relative(self, reference: str, scene: str) -> Warp:
        """Where `scene` shows what `reference` shows at a pixel: what an alignment on `reference` should find."""
        return Chain((self.warps[reference].inverse(), self.warps[scene]))

    def on(self, reference: str) -> xr.Dataset:
        """`dates` as they lie in the frame of the scene `reference` (nearest pixel)."""
        n_row, n_col = self.geobox.shape
        rows, cols = self.warps[reference].inverse().pull(*np.mgrid[0:n_row, 0:n_col].astype(float))
        i, j = np.rint(rows).astype(int), np.rint(cols).astype(int)
        within = (i >= 0) & (i < n_row) & (j >= 0) & (j < n_col)
        i, j = np.clip(i, 0, n_row - 1), np.clip(j, 0, n_col - 1)
        none = np.datetime64("NaT", "ns")
        return self.dates.map(lambda layer: layer.copy(data=np.where(within, layer.values[i, j], none)))


def _check(options):
    kinds = EVENT_KINDS if options["events"] is True else () if options["events"] is False else options["events"]
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    problems = []
    for name, low, high in (
        ("size", 32, 100_000), ("n_optical", 1, 10_000), ("n_sar", 1, 10_000), ("cloud", 0, 0.8), ("looks", 0.1, 1e6),
        ("noise", 0, 1), ("misregistration_px", 0, 20), ("oversample", 2, 16), ("season_db", 0, 10),
        ("resolution_m", 1e-3, 1e5),
    ):  # fmt: skip
        if not low <= options[name] <= high:
            problems.append(f"{name} is {options[name]}; it must lie between {low} and {high}.")
    for name, values, known in (
        ("events", kinds, EVENT_KINDS), ("warps", options["warps"], WARP_KINDS),
        ("sensors", options["sensors"], ("optical", "sar")),
    ):  # fmt: skip
        if isinstance(values, str) or (name != "events" and not values):
            problems.append(f"{name} is {values!r}; give a tuple of some of {', '.join(known)}.")
            continue
        problems += [f"{name} has {v!r}; known are {', '.join(known)}." for v in values if v not in known]
    if problems:
        raise ConfigError("simulate: " + " ".join(problems), tuple(problems))
    return kinds


def _times(sensor, n, begin, sar_begin):
    if sensor == "optical":
        days = np.round(np.arange(n) * (_SPAN_DAYS / n))
        return pd.DatetimeIndex([begin + pd.Timedelta(days=d, hours=10, minutes=10) for d in days])
    return pd.DatetimeIndex([begin + pd.Timedelta(days=sar_begin + 12 * k, hours=5, minutes=17) for k in range(n)])


def _lost_shares(rng, n, cloud, control):
    """Share of each scene lost to cloud and shadow: many rather clear, few rather closed, their mean as asked."""
    shares = np.sort(((np.arange(n) + rng.uniform(0.2, 0.8, n)) / n) ** 2.0)
    for _ in range(20):
        shares = np.minimum(shares * (cloud / max(shares.mean(), 1e-12)), 0.85)
    order = rng.permutation(n)
    order = np.concatenate([[control], order[order != control]])
    out = np.empty(n)
    out[order[:1]] = shares[:1]
    out[order[1:]] = shares[1:]
    return out


def _cloud_level(size, salt, shadow, share):
    if share <= 0:
        return np.inf
    places = np.linspace(-8, size + 8, 96)
    both = maths.cloud_fields(*np.meshgrid(places, places, indexing="ij"), salt, *shadow, 0.0)[2]
    return float(np.quantile(both, 1 - share))


def _plant(rng, kind, rms, size):
    """A warp of the kind whose displacement has the given root mean square over the image, px."""
    centre = (size - 1) / 2
    rows, cols = np.mgrid[0 : size : max(1, size // 64), 0 : size : max(1, size // 64)].astype(float)
    angle = rng.uniform(0, 2 * np.pi)
    shift = np.array([np.sin(angle), np.cos(angle)])
    if kind == "affine":
        linear = rng.standard_normal((2, 2))
        spread = np.sqrt(((linear**2).sum()) * ((rows - centre) ** 2).mean())
        linear *= rng.uniform(0.3, 0.7) / spread
        length = np.sqrt(1 - np.mean([((linear @ (r - centre, c - centre)) ** 2).sum() for r, c in
                                      zip(rows.ravel()[::7], cols.ravel()[::7])]))  # fmt: skip
        shift = shift * length

        def build(s):
            m = np.eye(2) + s * linear
            return Affine(np.column_stack([m, np.array([centre, centre]) - m @ (centre, centre) + s * shift]))
    elif kind == "field":
        step = size / 4
        nodes = rng.standard_normal((2, 7, 7))
        nodes *= 0.5 / np.sqrt((nodes**2).sum(0).mean())

        def build(s):
            dy, dx = s * (nodes + 0.85 * shift[:, None, None])
            return Field(dy, dx, -step, -step, step, step)
    else:

        def build(s):
            return Shift(*(s * shift))

    warp = build(1.0)
    r, c = warp.pull(rows, cols)
    return build(rms / np.sqrt(((r - rows) ** 2 + (c - cols) ** 2).mean())) if rms else Shift(0.0, 0.0)


def _native_grid(rng, project, other, number):
    """A file's own grid: off by a part of a pixel, of a little other extent; in an `other` zone or resolution if asked."""
    left, top, right, low = rng.integers(-2, 9, 4)
    part = rng.uniform(-0.5, 0.5, 2)
    a = project.affine
    res = a.a
    n_row, n_col = project.shape
    if other and number % 2:
        res = 2 * a.a
        n_row, n_col = n_row // 2, n_col // 2
    shape = (int(n_row + top + low), int(n_col + left + right))
    grid = GeoBox(
        shape, Transform(res, 0, a.c + res * (part[1] - left), 0, -res, a.f - res * (part[0] - top)), project.crs
    )
    if other and not number % 2 and project.crs.epsg and 32601 <= project.crs.epsg < 32660:
        grid = project.pad(10).to_crs(f"EPSG:{project.crs.epsg + 1}", resolution=a.a)
    return grid


def _tiles(shape):
    for r0 in range(0, shape[0], TILE):
        for c0 in range(0, shape[1], TILE):
            yield (r0, min(r0 + TILE, shape[0])), (c0, min(c0 + TILE, shape[1]))


def _render_tile(recipe, scenes, tile, *, native):
    """The tile of every scene, one by one: (number in `scenes`, bands (band, row, col) float32, classes or None)."""
    views = []
    for k, scene in enumerate(scenes):
        grid = scene.geobox if native else recipe.geobox
        (r0, r1), (c0, c1) = tile
        r1, c1 = min(r1, grid.shape[0]), min(c1, grid.shape[1])
        if r0 >= r1 or c0 >= c1:
            continue
        shown = np.mgrid[r0:r1, c0:c1].astype(float)
        shown = GridMap(grid, recipe.geobox).pull(*shown) if native else tuple(shown)
        place = scene.warp.inverse().pull(*shown)
        scale = abs(grid.affine.a / recipe.geobox.affine.a) if native else 1.0
        views.append((k, scene, shown, place, scale))
    if not views:
        return
    reach = _REACH_PX * max(v[4] for v in views)
    low = [int(np.floor(min(v[3][axis].min() for v in views) - reach)) for axis in (0, 1)]
    high = [int(np.ceil(max(v[3][axis].max() for v in views) + reach)) for axis in (0, 1)]
    fine, labels = _fine_ground(recipe, low, high)
    n = recipe.oversample
    for k, scene, shown, place, scale in views:
        active = _active(recipe, scene.time)
        day, year = scene.time.dayofyear, scene.time.year
        common = (*fine, labels, _kinds(recipe), active, day, year, recipe.salt + 500)
        if scene.sensor == "optical":
            values = maths.optical_values(*common, maths.SPECTRA)
        else:
            values = maths.sar_values(*common, maths.BACKSCATTER_DB, maths.EVENT_DB, recipe.season_db)
        sigma = _PSF_PX * scale
        bands = maths.render(values, *place, low[0] * n, low[1] * n, n, sigma, sigma)
        key = (3 + native, scene.salt, tile[0][0] // TILE, tile[1][0] // TILE)
        rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=key))
        yield (k, *(_optical_look if scene.sensor == "optical" else _sar_look)(recipe, scene, bands, shown, rng))


def _fine_ground(recipe, low, high):
    """Static layers and event numbers of the ground between two project pixels, in fine cells."""
    n = recipe.oversample
    row0, col0 = low[0] * n, low[1] * n
    fine = maths.ground(row0, col0, (high[0] - low[0]) * n, (high[1] - low[1]) * n, n, recipe.macro, recipe.salt)
    labels = np.zeros(fine[0].shape, np.int32)
    cover = np.where(fine[1] == 3, maths.URBAN, fine[0]).astype(np.uint8)  # gardens belong to the town
    for number, event in enumerate(recipe.events, start=1):
        if (event.outline.max(0) >= np.array(low) - 1).all() and (event.outline.min(0) <= np.array(high) + 1).all():
            allowed = np.isin(np.arange(len(maths.CLASSES)), ALLOWED[event.kind])
            maths.paint(labels, row0, col0, n, cover, allowed, event.outline, number)
    return fine, labels


def _kinds(recipe):
    return np.array([0, *(maths.KINDS.index(e.kind) for e in recipe.events)], np.uint8)


def _active(recipe, time):
    day = (time - recipe.start) / pd.Timedelta(days=1)
    shows = [e.start <= day and (e.end is None or day < e.end) for e in recipe.events]
    return np.array([False, *shows], np.bool_)


def _optical_look(recipe, scene, bands, shown, rng):
    """Cloud, shadow, haze and noise over the ground; and the scene classification (Sentinel-2 codes)."""
    opacity, depth, _ = maths.cloud_fields(*shown, scene.salt, *scene.shadow, scene.cloud_level)
    bright = 0.75 + 0.5 * maths.smooth_field(*shown, 9.0, scene.salt + 31)
    gain, offset = (np.array(v)[:, None, None] for v in (scene.gain, scene.offset))
    bands = bands * gain + offset
    bands *= 1 - _SHADE[:, None, None] * depth
    bands += (_CLOUD[:, None, None] * bright - bands) * opacity
    bands += rng.standard_normal(bands.shape, np.float32) * (recipe.noise + 0.01 * bands)
    ndvi = (bands[3] - bands[2]) / np.maximum(bands[3] + bands[2], 0.01)
    classes = np.where(ndvi > 0.35, 4, 5)
    classes[(bands[3] < 0.09) & (ndvi < 0.2)] = 6
    # a cloud mask misses some places altogether
    seen = maths.smooth_field(*shown, 16.0, scene.salt + 57) < 0.70
    classes[(depth > 0.15) & seen] = 3
    classes[(opacity > 0.15) & seen] = 8
    classes[(opacity > 0.60) & seen] = 9
    return np.maximum(bands, 1e-4).astype(np.float32), classes.astype(np.uint8)


def _sar_look(recipe, scene, bands, shown, rng):
    """Speckle of L looks, drawn on the scene's own pixels, over a noise floor of -32 dB."""
    speckle = rng.standard_gamma(recipe.looks, bands.shape) / recipe.looks
    gain = np.array(scene.gain)[:, None, None]
    return ((bands * gain + 10**-3.2) * speckle).astype(np.float32), None


def _lost(classes):
    return (classes == 3) | (classes >= 8)


def _event_pixels(recipe):
    """Number of the event that each project pixel belongs to, (y, x) int16; only the places of events are looked at."""
    size, n = recipe.size, recipe.oversample
    out = np.zeros((size, size), np.int16)
    for number, event in enumerate(recipe.events, start=1):
        low = np.clip(np.floor(event.outline.min(0)).astype(int) - 1, 0, size)
        high = np.clip(np.ceil(event.outline.max(0)).astype(int) + 2, 0, size)
        pixels = maths.majority(_fine_ground(recipe, low, high)[1], n, len(recipe.events))
        view = out[low[0] : high[0], low[1] : high[1]]
        view[pixels == number] = number
    return out


def _day_table(recipe, kind, which="start"):
    """Days since 1970-01-01 by event number, 0 where the event is of another kind."""
    zero = (recipe.start - pd.Timestamp(0)).days
    days = [int(zero + (getattr(e, which) or 0)) if e.kind == kind else 0 for e in recipe.events]
    return np.array([0, *days], np.int32)


def _truth(recipe):
    labels = _event_pixels(recipe)
    coords = grid_coords(recipe.geobox, labels.shape)

    def layer(kind, which="start"):
        days = _day_table(recipe, kind, which)[labels]
        stamps = days.astype("datetime64[D]").astype("datetime64[ns]")
        return ("y", "x"), np.where(days > 0, stamps, np.datetime64("NaT", "ns"))

    dates = xr.Dataset({kind: layer(kind) for kind in EVENT_KINDS}, coords=coords)
    return Truth(
        {s.name: s.warp for s in recipe.scenes},
        {s.name: s.warp_kind for s in recipe.scenes},
        dates,
        xr.DataArray(layer("flood", "end")[1], dims=("y", "x"), coords=coords, name="flood_end"),
        _event_frame(recipe, labels),
        recipe.geobox,
        dict(recipe.references),
    )


def _event_frame(recipe, labels):
    import geopandas as gpd
    from rasterio.features import shapes
    from shapely.geometry import shape
    from shapely.ops import unary_union

    parts = {}
    for geometry, number in shapes(labels, mask=labels > 0, transform=recipe.geobox.affine, connectivity=8):
        parts.setdefault(int(number), []).append(shape(geometry))
    rows = []
    for number in sorted(parts):
        event = recipe.events[number - 1]
        days = [None if d is None else recipe.start + pd.Timedelta(days=d) for d in (event.start, event.end)]
        outline = unary_union(parts[number])
        rows.append(
            {
                "kind": event.kind,
                "date": days[0],
                "end": days[1],
                "area_ha": outline.area / 1e4,
                "n_pixels": int((labels == number).sum()),
                "geometry": outline,
            }
        )
    columns = ["kind", "date", "end", "area_ha", "n_pixels", "geometry"]
    frame = gpd.GeoDataFrame(rows, columns=columns, geometry="geometry", crs=str(recipe.geobox.crs))
    frame["date"], frame["end"] = pd.to_datetime(frame["date"]), pd.to_datetime(frame["end"])
    return frame
