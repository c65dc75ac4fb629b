"""What a simulation is made from: its scenes, their grids, warps and clouds, and the planted events."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from affine import Affine as Transform
from odc.geo.geobox import GeoBox

from geoalign.errors import ConfigError
from geoalign.kernels import scene as maths
from geoalign.kernels.scene_events import Event, plan_events
from geoalign.types.warp import Affine, Field, Shift, Warp

EVENT_KINDS = ("flood", "clearing", "building")
WARP_KINDS = ("shift", "affine", "field")
SPAN_DAYS = 730


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
    baseline: str = "05.10"
    tile: str = ""


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


def make_recipe(
    *,
    size,
    seed,
    sensors,
    n_optical,
    n_sar,
    start,
    cloud,
    looks,
    noise,
    misregistration_px,
    warps,
    events,
    season_db,
    mixed_grids,
    oversample,
    crs,
    origin,
    resolution_m,
    span_days=SPAN_DAYS,
    quiet_days=SPAN_DAYS / 2,
) -> Recipe:
    """All that is random about a simulation, drawn from its seed; options as in `simulate`.

    span_days : how long it is looked at; quiet_days : before that nothing happens, where there are optical scenes
    """
    kinds = _check(locals())
    root = np.random.SeedSequence(seed)
    salt = int(root.generate_state(1)[0] >> 4)
    geobox = GeoBox((size, size), Transform(resolution_m, 0, origin[0], 0, -resolution_m, origin[1]), crs)
    macro = float(size if 128 <= size <= 512 else 256)
    begin = pd.Timestamp(start).normalize()
    sar_begin = max(span_days - 12 * n_sar, 0) if "sar" in sensors else 0
    plan = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    window = (float(max(sar_begin, quiet_days)), float(span_days))
    planted = plan_events(plan, size, macro, salt, kinds, window)

    scenes, references = [], {}
    for stream, (sensor, n) in enumerate((("optical", n_optical), ("sar", n_sar))):
        if sensor not in sensors:
            continue
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, stream)))
        times = _times(sensor, n, begin, sar_begin, span_days)
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
    return Recipe(
        size, seed, geobox, macro, salt, oversample, begin, looks, noise, season_db, tuple(scenes), planted, references
    )


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


def _times(sensor, n, begin, sar_begin, span_days):
    if sensor == "optical":
        days = np.round(np.arange(n) * (span_days / n))
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
        bend = np.einsum("ij,jrc->irc", linear, np.stack([rows - centre, cols - centre]))
        linear *= rng.uniform(0.3, 0.7) / np.sqrt((bend**2).sum(0).mean())

        def build(s):
            m = np.eye(2) + s * linear
            return Affine(np.column_stack([m, np.array([centre, centre]) - m @ (centre, centre) + s * shift]))
    elif kind == "field":
        step = size / 2
        nodes = rng.standard_normal((2, 5, 5))
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
    """A file's own grid: off by a part of a pixel, a little larger or smaller; `other`: another zone or resolution."""
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
