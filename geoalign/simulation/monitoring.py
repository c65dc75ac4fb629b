"""A site to be watched, with the disorder of real deliveries: `simulate_monitoring`, `MonitoredSite`.

Scenes come late, twice, broken, reprocessed or not at all; when each file arrives is written down, and so is the truth.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from geoalign.errors import ConfigError, StateError
from geoalign.simulation.files import _write_scenes, _write_text, _write_truth
from geoalign.simulation.recipe import WARP_KINDS, make_recipe
from geoalign.simulation.truth import Truth

TILE = "33UVP"
TIED_PX = 80
"""Side of scenes, px, from which they can be tied to each other."""
REVISIT_DAYS = 10
_COLUMNS = ("arrives", "what", "scene", "file", "name")


@dataclass(frozen=True)
class Delivery:
    """One file as it arrives.

    arrives : UTC; what : "baseline", "in time", "late", "again" (the same file), "copy" (the same scene under another
    name), "cut" (truncated), "whole" (that file, mended), "reprocessed", "cloud" (nothing is seen); scene : its id;
    file : where it lies, relative to the folder; name : its name among the scenes
    """

    arrives: pd.Timestamp
    what: str
    scene: str
    file: str
    name: str


@dataclass(frozen=True)
class MonitoredSite:
    """A folder that `simulate_monitoring` wrote.

    `deliveries/` holds every file that will arrive, `arrivals.csv` when, `scenes/` what has arrived, `truth/` what was
    planted, and `site.toml` is for `geoalign monitor`.
    """

    folder: Path
    deliveries: tuple[Delivery, ...]

    @classmethod
    def load(cls, folder) -> MonitoredSite:
        """A site that was written before; StateError where there is none."""
        folder = Path(folder)
        try:
            rows = list(csv.DictReader(io.StringIO((folder / "arrivals.csv").read_text(encoding="utf-8"))))
            found = [Delivery(pd.Timestamp(r["arrives"]), *(r[c] for c in _COLUMNS[1:])) for r in rows]
        except (OSError, ValueError, KeyError) as err:
            raise StateError(
                f"{folder} holds no arrivals that can be read: {err}. Give a folder that "
                "`geoalign simulate --monitoring` wrote."
            ) from err
        return cls(folder, tuple(found))

    @property
    def site(self) -> Path:
        """The site file."""
        return self.folder / "site.toml"

    @property
    def truth(self) -> Truth:
        """What was planted."""
        return Truth.load(self.folder)

    def batches(self, *, days: int = 1) -> Iterator[tuple[pd.Timestamp, list[Delivery]]]:
        """(when, what has arrived by then since the last), in order of arrival; at most one a number of days."""
        batch: list[Delivery] = []
        due = None
        for delivery in self.deliveries:
            slot = (delivery.arrives.normalize() - pd.Timestamp(0)).days // days
            if batch and slot != due:
                yield batch[-1].arrives, batch
                batch = []
            due = slot
            batch.append(delivery)
        if batch:
            yield batch[-1].arrives, batch

    def deliver(self, deliveries=None) -> list[Path]:
        """Put files among the scenes, each whole; all of them by default, in order of arrival."""
        out = []
        for delivery in self.deliveries if deliveries is None else deliveries:
            target = self.folder / "scenes" / delivery.name
            target.parent.mkdir(exist_ok=True)
            partial = target.with_name(f".{target.name}.part")
            shutil.copyfile(self.folder / delivery.file, partial)
            partial.replace(target)
            out.append(target)
        return out


def simulate_monitoring(
    folder,
    *,
    size: int = 128,
    seed: int = 0,
    history_days: int = 548,
    watched_days: int = 730,
    every_days: int = REVISIT_DAYS,
    cloud: float = 0.30,
    misregistration_px: float | None = None,
    outage_days: int = 40,
    late: float = 0.08,
    start: str = "2021-01-05",
    oversample: int = 2,
) -> MonitoredSite:
    """Write a site to be watched: optical scenes of one ground, the order they arrive in, and the truth.

    Floods come and go, woods are cleared and fields built on, all while the site is watched; before lies a history in
    which nothing happens. Scenes are misregistered and clouded as in `simulate`.

    Parameters
    ----------
    folder : path
    size : px a side
    seed : every random choice follows from it
    history_days, watched_days, every_days : days of baseline, of watching, and between two scenes; of a baseline of
        more than 32 scenes every other one is there
    cloud : mean share of pixels lost to cloud and shadow
    misregistration_px : px, root mean square; with 0 the site file takes scenes as they lie, which is quick. None is 1,
        or 0 for scenes of under 80 px, which hold too few windows to be tied
    outage_days : days in a row, while the site is watched, from which there is no scene at all
    late : share of the watched scenes that arrive days to months after they were due
    start : day of the first scene
    oversample : samples of the ground a pixel and axis

    Returns
    -------
    MonitoredSite

    Raises
    ------
    ConfigError : an option out of its range

    Examples
    --------
    >>> import tempfile
    >>> made = simulate_monitoring(tempfile.mkdtemp(), size=32, history_days=160, watched_days=240, every_days=10)
    >>> sorted({d.what for d in made.deliveries})
    ['again', 'baseline', 'cloud', 'copy', 'cut', 'in time', 'late', 'reprocessed', 'whole']
    """
    if misregistration_px is None:
        misregistration_px = 1.0 if size >= TIED_PX else 0.0
    for name, value, low, high in (
        ("history_days", history_days, 16 * every_days, 7300), ("watched_days", watched_days, 24 * every_days, 7300),
        ("every_days", every_days, 1, 100), ("outage_days", outage_days, 0, watched_days / 4), ("late", late, 0, 0.5),
    ):  # fmt: skip
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value}; it must lie between {low:g} and {high:g}.")
    folder, span = Path(folder), history_days + watched_days
    recipe = make_recipe(
        size=size, seed=seed, sensors=("optical",), n_optical=span // every_days, n_sar=1, start=start, cloud=cloud,
        looks=4.4, noise=0.004, misregistration_px=misregistration_px, warps=WARP_KINDS[:2], events=True, season_db=1.0,
        mixed_grids=False, oversample=oversample, crs="EPSG:32633", origin=(500000.0, 5400000.0), resolution_m=10.0,
        span_days=span, quiet_days=history_days + min(60, watched_days // 8),
    )  # fmt: skip
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
    since = recipe.start + pd.Timedelta(days=history_days)
    scenes, plan = _plan(recipe, rng, since, watched_days, outage_days, late)
    recipe = replace(recipe, scenes=tuple(scenes))

    _write_scenes(recipe, "optical", folder / "deliveries")
    for delivery in plan:
        if delivery.what == "cut":
            whole = (folder / "deliveries" / delivery.name).read_bytes()
            (folder / delivery.file).write_bytes(whole[: int(len(whole) * 0.6)])
    (folder / "scenes").mkdir(exist_ok=True)
    _write_truth(recipe, folder / "truth")
    _write_text(folder / "arrivals.csv", _table(plan))
    _write_text(folder / "site.toml", _site_toml(recipe, since, every_days, register=misregistration_px > 0))
    return MonitoredSite(folder, tuple(plan))


def _plan(recipe, rng, since, watched_days, outage_days, late):
    """The scenes that will be there, and their deliveries in order of arrival."""
    gap = since + pd.Timedelta(days=float(rng.uniform(0.15, 0.8 - outage_days / watched_days)) * watched_days)
    scenes = recipe.scenes
    if sum(s.time < since for s in scenes) > 32:
        control = recipe.references["optical"]
        scenes = [s for s in scenes if s.time >= since or s.number % 2 == 0 or s.name == control]
    kept = [s for s in scenes if not gap <= s.time < gap + pd.Timedelta(days=outage_days)]
    watched = [s for s in kept if s.time >= since]
    last = watched[-1].time
    order = [watched[i] for i in rng.permutation(len(watched) - 2)]
    n_late = max(2, round(late * len(watched)))
    roles = {}
    for role, n in (("late", n_late), ("cloud", 1), ("cut", 1), ("reprocessed", 2), ("again", 2), ("copy", 2)):
        for _ in range(min(n, len(order))):
            roles[order.pop().name] = role

    def days(low, high):
        return pd.Timedelta(days=float(np.exp(rng.uniform(np.log(low), np.log(high)))))

    scenes, plan = [], []

    def add(when, what, scene, file, name=None):
        plan.append(Delivery(when.floor("s"), what, scene, f"deliveries/{file}", name or file))

    for scene in kept:
        scene = replace(scene, tile=TILE)
        role = roles.get(scene.name, "in time") if scene.time >= since else "baseline"
        file = f"{scene.name}.tif"
        when = scene.time + pd.Timedelta(hours=float(rng.uniform(3, 30)))
        if role == "cloud":
            scene = replace(scene, cloud_level=-np.inf)
        scenes.append(scene)
        if role == "baseline":
            add(since, role, scene.name, file)
        elif role == "late":
            add(min(when + days(6, 120), last + pd.Timedelta(days=30)), role, scene.name, file)
        elif role == "cut":
            add(when, role, scene.name, f"{scene.name}.cut", file)
            add(when + days(1, 9), "whole", scene.name, file)
        else:
            add(when, "cloud" if role == "cloud" else "in time", scene.name, file)
        if role == "again":
            add(when + days(1, 60), role, scene.name, file)
        elif role == "copy":
            add(when + days(1, 60), role, scene.name, file, f"{scene.name}_copy.tif")
        elif role == "reprocessed":
            newer = replace(
                scene, name=f"{scene.name}_N0511", baseline="05.11",
                gain=tuple(1 + 0.005 * rng.standard_normal(6)), offset=tuple(0.001 * rng.standard_normal(6)),
            )  # fmt: skip
            scenes.append(newer)
            add(when + days(20, 200), role, newer.name, f"{newer.name}.tif")
    return scenes, sorted(plan, key=lambda d: (d.arrives, d.name))


def _table(plan):
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(_COLUMNS)
    for d in plan:
        out.writerow([f"{d.arrives:%Y-%m-%dT%H:%M:%S}", d.what, d.scene, d.file, d.name])
    return text.getvalue()


def _site_toml(recipe, since, every_days, *, register):
    box = recipe.geobox.extent.boundingbox
    how = f'[register]\nreference = "{recipe.references["optical"]}"\n\n' if register else ""
    return f"""name = "simulated"
scenes = "scenes/*.tif"
output = "out"
truth = "truth"
{"" if register else "register = false"}
[grid]
crs = "{recipe.geobox.crs}"
resolution_m = {recipe.geobox.affine.a:g}
bbox = [{box.left:.3f}, {box.bottom:.3f}, {box.right:.3f}, {box.top:.3f}]

{how}[[detect]]
detector = "watch"
name = "vegetation"
index = "ndvi"
alpha = 0.01

[vectors]
min_area_m2 = 2000

[monitor]
since = "{since:%Y-%m-%d}"
revisit_days = {every_days}
"""
