"""Which scenes make one Stack: of one kind and orbit, in time, on the grid; and what is said of the others."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd

from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.io import grid as grids
from geoalign.io.products import DOUBT

log = logging.getLogger("geoalign")


def time_range(time) -> tuple[np.datetime64, np.datetime64]:
    """(first, last) instant of "2024", "2024-03", "2024-01-01/2024-06-30", (start, stop) or a slice; both included."""
    if isinstance(time, slice):
        time = (time.start, time.stop)
    parts = time.split("/") if isinstance(time, str) else list(time) if isinstance(time, list | tuple) else [time]
    if len(parts) == 1:
        parts = [parts[0], parts[0]]
    if len(parts) != 2:
        raise ConfigError(f"time={time!r} is not understood; write '2024-01-01/2024-06-30' or (start, stop).")
    ends = []
    for part, side in zip(parts, ("start_time", "end_time")):
        if part is None or str(part) in ("", ".."):
            ends.append(pd.Timestamp.min if side == "start_time" else pd.Timestamp.max)
            continue
        try:
            if isinstance(part, str) and len(part) <= 10:
                ends.append(getattr(pd.Period(part), side))
            else:
                stamp = pd.to_datetime(str(part), utc=True)
                ends.append(stamp.tz_localize(None))
        except ValueError as err:
            raise ConfigError(f"time={time!r} is not understood ({err}); write '2024-01-01/2024-06-30'.") from err
    if ends[0] > ends[1]:
        raise ConfigError(f"time={time!r} ends before it starts.")
    return ends[0].to_datetime64(), ends[1].to_datetime64()


def in_time(scenes, time):
    """The scenes within `time`, as `time_range` reads it."""
    if time is None:
        return scenes
    first, last = time_range(time)
    return [s for s in scenes if first <= s.facts.time <= last]


def one_kind(scenes):
    """The scenes, or StackError where SAR and optical are mixed."""
    kinds = Counter(s.kind for s in scenes)
    if len(kinds) > 1:
        examples = {s.kind: s.facts.scene for s in scenes}
        raise StackError(
            f"SAR and optical are mixed ({kinds['sar']} SAR as {examples['sar']}, {kinds['optical']} optical "
            f"such as {examples['optical']}). A Stack has one kind of sensor: open them apart and keep a dict of both."
        )
    return scenes


def one_orbit(scenes, orbit):
    """The scenes of a relative orbit; StackError where SAR of several is mixed and none was chosen."""
    if orbit is not None:
        kept = [s for s in scenes if s.facts.orbit == int(orbit)]
        if not kept:
            seen = ", ".join(str(o) for o in sorted({s.facts.orbit for s in scenes}))
            raise NoUsableData(f"no scene has relative orbit {orbit} (there are: {seen}; -1 is unknown).")
        return kept
    orbits = Counter(s.facts.orbit for s in scenes if s.kind == "sar")
    if len(orbits) > 1:
        seen = ", ".join(f"{o if o >= 0 else 'unknown'} ({n} scenes)" for o, n in sorted(orbits.items()))
        raise StackError(
            f"SAR scenes of several relative orbits are mixed: {seen}. Look angles differ, so that a baseline over "
            "them means nothing. Choose one with orbit= (open_stack(..., orbit=9)), or set the tag orbit where unknown."
        )
    return scenes


def with_warp(scenes, alignment, skipped):
    """The scenes that the alignment has a warp for, and its reference."""
    kept = []
    for scene in scenes:
        name = scene.facts.scene
        if name in alignment.warps or name == alignment.reference:
            kept.append(scene)
            continue
        rows = alignment.report[alignment.report["scene"] == name]
        why = str(rows["reason"].iloc[0]) if len(rows) else "it is not in the alignment"
        log.warning("%s is left out: it has no warp (%s)", name, why)
        skipped.records.append({"scene": name, "path": scene.paths[0], "reason": f"no warp: {why}"})
    return kept


def band_names(scenes, bands):
    """The bands asked for, or those that at least half of the scenes have; StackError for one that none has."""
    counts = Counter(name for s in scenes for name in s.bands)
    if bands is None:
        return [name for name, n in counts.items() if 2 * n >= len(scenes)] or list(counts)
    names = [bands] if isinstance(bands, str) else list(bands)
    absent = [name for name in names if name not in counts]
    if absent:
        raise StackError(f"band {', '.join(absent)} is in no scene (there are: {', '.join(sorted(counts))}).")
    return names


def having(scenes, names, skipped):
    """The scenes with any of the bands; what a scene lacks is noted, and not observed there."""
    kept = []
    for scene in scenes:
        missing = [n for n in names if n not in scene.bands]
        if len(missing) == len(names):
            skipped.add(scene.paths[0], f"it has none of the bands {', '.join(names)}", scene.facts.scene)
            continue
        if missing:
            log.warning("%s has no %s: not observed there", scene.facts.scene, ", ".join(missing))
            notes = [*scene.applied["notes"], f"no {', '.join(missing)}: NaN"]
            scene = replace(scene, applied={**scene.applied, "notes": notes})
        kept.append(scene)
    return kept


def own_grid(scene, names):
    """The finest grid of a scene's bands, or of all its tiles together."""
    boxes = [source.geobox for name in names for source in scene.bands.get(name, ())]
    finest = min(boxes, key=lambda box: abs(box.affine.determinant))
    tiles = list(dict.fromkeys(b for b in boxes if b.resolution == finest.resolution and b.crs == finest.crs))
    return finest if len(tiles) == 1 else grids.choose_grid(tiles)


def together(scenes, names, skipped):
    """Without scenes that lie apart from most others: a wrong CRS tag would stretch the grid over half a continent."""
    boxes = [own_grid(s, names) for s in scenes]
    near = grids.largest_cluster(boxes)
    if 2 * len(near) <= len(scenes):
        return scenes
    for k in sorted(set(range(len(scenes))) - set(near)):
        where = tuple(round(v, 3) for v in boxes[k].extent.boundingbox)
        skipped.add(
            scenes[k].paths[0],
            f"it lies apart from the other {len(near)} scenes, at {where} in {grids.crs_name(boxes[k].crs)}: a wrong "
            "CRS or place? If it is right, give like= or bbox=",
            scenes[k].facts.scene,
        )
    return [scenes[k] for k in near]


def on_grid(scenes, target, skipped):
    """The scenes that overlap the grid."""
    kept = []
    for scene in scenes:
        if any(grids.overlaps(target, box) for box in scene.geoboxes()):
            kept.append(scene)
            continue
        where = scene.geobox.extent.boundingbox
        skipped.add(
            scene.paths[0],
            f"no overlap with the grid: it lies at {tuple(round(v, 3) for v in where)} in "
            f"{grids.crs_name(scene.geobox.crs)}, the grid at "
            f"{tuple(round(v, 3) for v in target.extent.boundingbox)} in {grids.crs_name(target.crs)}",
            scene.facts.scene,
        )
    return kept


def log_doubts(scenes):
    """One line for each kind of doubt, not one for each scene."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for scene in scenes:
        for note in scene.applied["notes"]:
            if note.startswith(DOUBT):
                kinds.setdefault(re.sub(r"\d+%", "%", note), []).append((scene.facts.scene, note.removeprefix(DOUBT)))
    for found in kinds.values():
        more = f" (and {len(found) - 1} more scenes)" if len(found) > 1 else ""
        log.warning("%s%s: %s", found[0][0], more, found[0][1])
    if scenes[0].kind == "sar" and scenes[0].facts.orbit < 0:
        log.warning("the relative orbit of these SAR scenes is unknown, so it can't be checked that they share one")
