"""Scenes of one moment: neighbouring tiles become one scene; duplicates are superseded or refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from geoalign.io.dates import safe_name
from geoalign.io.grid import shared_area
from geoalign.io.scenes import Scene, Skipped

_ONE_PASS = np.timedelta64(120, "s")
"""Neighbouring tiles of one sensor and orbit within this time are one pass (bursts of Sentinel-1 are 3 s apart, Landsat
rows 24 s)."""


def merge_scenes(scenes: list[Scene], skipped: Skipped) -> list[Scene]:
    """Scenes with unique times and ids, sorted by time.

    - Tiles of one pass (same sensor, orbit and product; different tile, path/row or burst; within two minutes) are one
      scene; where they overlap the first by name is taken.
    - Files that say nothing about tiles but share sensor and time are one scene where their extents share no pixel,
      else the later one by name is left out, and the reason names both.
    - The same tile at the same time twice: the newer processing baseline is kept.
    - Times known to the day only that meet those of another sensor are set apart by a second, and that is noted.
    """
    ordered = sorted(scenes, key=lambda s: (s.facts.time, s.facts.scene))
    groups: list[list[Scene]] = []
    for scene in _newest(ordered, skipped):
        twin = next((s for g in groups for s in g if _same_ground(s, scene)), None)
        if twin is not None:
            skipped.add(scene.paths[0], _twice(twin, scene), scene.facts.scene)
            continue
        group = next((g for g in reversed(groups) if _one_pass(g, scene)), None)
        if group is None:
            groups.append([scene])
        else:
            group.append(scene)
    return _apart([_mosaic(group) for group in groups], skipped)


def _newest(scenes, skipped):
    """Without scenes that another version of the same acquisition supersedes."""
    best: dict[tuple, Scene] = {}
    out = []
    for scene in scenes:
        f = scene.facts
        if not f.tile:
            out.append(scene)
            continue
        key = (f.sensor, f.orbit, f.tile, f.time, scene.profile.name)
        other = best.get(key)
        if other is None:
            best[key] = scene
            continue
        if other.facts.baseline == f.baseline:
            skipped.add(scene.paths[0], _twice(other, scene), f.scene)
            continue
        keep, drop = (scene, other) if f.baseline > other.facts.baseline else (other, scene)
        best[key] = keep
        skipped.add(
            drop.paths[0],
            f"superseded by {keep.facts.scene} (processing baseline {keep.facts.baseline} over {drop.facts.baseline})",
            drop.facts.scene,
        )
    return sorted([*out, *best.values()], key=lambda s: (s.facts.time, s.facts.scene))


def _one_pass(group, scene):
    first, f = group[0].facts, scene.facts
    if (first.sensor, first.orbit, group[0].profile.name) != (f.sensor, f.orbit, scene.profile.name):
        return False
    if f.tile and first.tile:
        return abs(f.time - first.time) <= _ONE_PASS and f.tile not in {s.facts.tile for s in group}
    return f.time == first.time


def _same_ground(one, other):
    """Two scenes of one sensor and time without tile names whose extents share pixels."""
    a, b = one.facts, other.facts
    if (a.time, a.sensor, a.orbit) != (b.time, b.sensor, b.orbit) or (a.tile and b.tile):
        return False
    return shared_area(one.geobox, other.geobox) > 1.0


def _twice(one, other):
    stamp = pd.Timestamp(one.facts.time).isoformat()
    return (
        f"two scenes of {one.facts.sensor or 'one sensor'} have the time {stamp} and share ground: {one.paths[0]} "
        f"and {other.paths[0]}. The first is used; remove one, or give them their own time with the tag datetime."
    )


def _mosaic(group):
    if len(group) == 1:
        return group[0]
    first = group[0]
    stamp = pd.Timestamp(first.facts.time).strftime("%Y%m%dT%H%M%S")
    sensor = first.facts.sensor or re.sub(r"[\d_]+$", "", first.facts.scene) or "scene"
    names = list(dict.fromkeys(name for s in group for name in s.bands))
    bands = {name: tuple(src for s in group for src in s.bands.get(name, ())) for name in names}
    scene = safe_name(f"{sensor}_{stamp}" + (f"_R{first.facts.orbit:03d}" if first.facts.orbit >= 0 else ""))
    tiles = ", ".join(s.facts.scene for s in group)
    notes = list(dict.fromkeys(n for s in group for n in s.applied["notes"]))
    applied = {**first.applied, "scene": scene, "notes": [*notes, f"mosaic of {tiles}"]}
    applied["tiles"] = [{k: s.applied[k] for k in ("scene", "scale", "offset", "nodata", "mask")} for s in group]
    paths = tuple(p for s in group for p in s.paths)
    return Scene(replace(first.facts, scene=scene, tile=""), first.profile, bands, paths, applied)


def _apart(scenes, skipped):
    out: list[Scene] = []
    ids: set[str] = set()
    for scene in sorted(scenes, key=lambda s: (s.facts.time, s.facts.scene)):
        if scene.facts.scene in ids:
            skipped.add(scene.paths[0], f"another scene is called {scene.facts.scene} too; give it its own name")
            continue
        ids.add(scene.facts.scene)
        if out and scene.facts.time <= out[-1].facts.time:
            if not (scene.facts.day_only or out[-1].facts.day_only):
                skipped.add(scene.paths[0], _twice(out[-1], scene), scene.facts.scene)
                continue
            moved = out[-1].facts.time + np.timedelta64(1, "s")
            notes = [*scene.applied["notes"], "time of day unknown: set a second after another sensor's scene"]
            scene = replace(scene, facts=replace(scene.facts, time=moved), applied={**scene.applied, "notes": notes})
        out.append(scene)
    return out
