"""`open_stack`: whatever holds the scenes becomes one lazy Stack on one grid."""

from __future__ import annotations

import glob as globbing
import logging
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox

from geoalign import chunked
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.io import grid as grids
from geoalign.io.geotiff import SUFFIXES, is_remote, read_header
from geoalign.io.mosaic import merge_scenes
from geoalign.io.products import DOUBT
from geoalign.io.scenes import Scene, Skipped, as_json, scenes_of_files
from geoalign.types.grid import GridMap
from geoalign.types.stack import geobox_of, new_stack
from geoalign.types.warp import Chain, Shift

log = logging.getLogger("geoalign")


def open_stack(
    source,
    *,
    product="auto",
    bands=None,
    bbox=None,
    time=None,
    like=None,
    alignment=None,
    chunks="auto",
    orbit=None,
    resampling="cubic",
    strict=False,
):
    """Open scenes as one lazy Stack: calibrated, masked at native resolution, on one grid.

    Parameters
    ----------
    source : path, glob, sequence of paths, or STAC
        A folder or glob of GeoTIFF, COG or JPEG 2000 files (bands of one scene may lie in separate files); a NetCDF
        file; a Zarr store; a STAC catalogue, collection, item or ItemCollection (path, address, or pystac object); a
        STAC API search as `{"api": address, "collections": [...], ...}` (needs `pip install 'geoalign[stac]'`). A
        folder's scenes are the rasters of the shallowest level that holds any.
    product : str or Profile
        "auto" takes what tags, names or the catalogue say, else "generic" (GDAL scale, offset and nodata; the layers
        scl, qa_pixel and fmask are honoured as masks). Or "sentinel2-l2a", "sentinel2-l2a@05.10" (with the processing
        baseline), "landsat-c2-l2", "hls", "sentinel1-rtc", "opera-rtc-s1", "generic".
    bands : sequence of str, optional
        Our names (`blue green red nir swir1 vv vh ...`). By default those that at least half of the scenes have; a
        scene without one of them gets NaN there.
    bbox : (west, south, east, north), optional
        In degrees (WGS 84), or a BoundingBox with a CRS: the grid is cut to it.
    time : str, (start, stop) or slice, optional
        "2024", "2024-03", "2024-01-01/2024-06-30"; both ends included; either may be None or "..".
    like : GeoBox, Stack or path of a raster, optional
        The project grid. By default the scenes' own grid where all share it (nothing is resampled then), else the CRS
        of the most scenes, their finest resolution and the union of their extents, which is logged.
    alignment : Alignment, optional
        Warps in pixels of the project grid: reprojection and correction are one resampling. Scenes without a warp are
        left out. The stack gets the coordinate `sigma_px`.
    chunks : "auto", int or (y, x)
        Chunk of the result in px; "auto" is 1024. One chunk a scene in time.
    orbit : int, optional
        Keep this relative orbit only. A SAR stack of several is refused.
    resampling : str
        For values: nearest, bilinear, cubic, bspline, lanczos. Masks are taken to the bands by nearest neighbour, and
        NaN is set before anything is resampled.
    strict : bool
        Raise at the first scene that is refused, instead of going on without it.

    Returns
    -------
    Dataset (time, y, x), float32, lazy. `attrs["applied"]`: JSON, what was done to each scene (scale, offset, nodata,
    mask, ...); `attrs["skipped"]`: JSON, what was refused and why.

    Raises
    ------
    NoUsableData
        Nothing is there, or every scene was refused; the message has all reasons.
    StackError
        SAR of several orbits, SAR and optical in one, duplicates that can't be told apart.

    Examples
    --------
    >>> stack = open_stack("scenes/*.tif", time="2024", like=other)          # doctest: +SKIP
    """
    skipped = Skipped(strict)
    if alignment is not None and alignment.geobox is not None:
        if like is not None and _grid_of(like) != alignment.geobox:
            raise StackError("like= is another grid than the alignment's; leave it out, or align on that grid.")
        like = alignment.geobox
    if alignment is not None and like is None:
        raise StackError(
            "the alignment has no geobox, so its pixels have no place; give like= the grid it was made on."
        )
    if alignment is not None and bbox is not None:
        raise StackError("bbox= would move the alignment's pixels; open the whole grid and cut the result.")
    target = None if like is None else _grid_of(like)

    scenes = find_scenes(source, product, skipped, bbox=bbox, time=time)
    scenes = _in_time(scenes, time)
    if not scenes:
        _nothing(source, skipped, "no scene was found" + (f" in time={time!r}" if time is not None else ""))
    scenes = _one_kind(_one_orbit(scenes, orbit))
    scenes = merge_scenes(scenes, skipped)
    if alignment is not None:
        scenes = _with_warp(scenes, alignment, skipped)
    names = _band_names(scenes, bands)
    scenes = _having(scenes, names, skipped)
    if not scenes:
        _nothing(source, skipped, "no scene is left")
    target = grids.choose_grid([_own_grid(s, names) for s in scenes]) if target is None else target
    if bbox is not None:
        target = grids.crop(target, bbox)
    scenes = _on_grid(scenes, target, skipped)
    if not scenes:
        _nothing(source, skipped, "no scene overlaps the grid")
    _log_doubts(scenes)
    return _assemble(scenes, names, target, alignment, _chunk_size(chunks), resampling, skipped)


def find_scenes(source, product, skipped, *, bbox=None, time=None) -> list[Scene]:
    """The scenes behind whatever `open_stack` takes, unsorted; what is refused goes to `skipped`."""
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if is_remote(text) and not text.split("?")[0].lower().endswith(SUFFIXES):
            return _stac(text, product, skipped, bbox, time)
        if is_remote(text):
            return scenes_of_files([text], product, skipped)
        return _of_paths(_expand(text), product, skipped, bbox, time)
    if isinstance(source, list | tuple) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return _of_paths([p for s in source for p in _expand(os.fspath(s))], product, skipped, bbox, time)
    return _stac(source, product, skipped, bbox, time)


def _of_paths(paths, product, skipped, bbox, time):
    rasters = [p for p in paths if is_remote(p) or p.lower().endswith(SUFFIXES)]
    out = scenes_of_files(rasters, product, skipped) if rasters else []
    for path in paths:
        if path in rasters:
            continue
        try:
            if path.lower().endswith((".json", ".geojson")):
                out += _stac(path, product, skipped, bbox, time)
            else:
                from geoalign.io.zarr import scenes_of_dataset

                out += scenes_of_dataset(path, product)
        except StackError as err:
            skipped.add(path, err)
    return out


def _stac(source, product, skipped, bbox, time):
    from geoalign.io.stac import scenes_of_stac

    return scenes_of_stac(source, product, skipped, bbox=bbox, time=time)


def _expand(text):
    if is_remote(text):
        return [text]
    if text.lower().startswith("/vsi") or "://" in text or "<" in text:
        raise StackError(
            f"{text!r} is refused: give a local path or an https address (no /vsi, VRT or driver notation)."
        )
    place = Path(text).expanduser()
    if any(c in text for c in "*?[") and not place.exists():
        found = sorted(p for p in globbing.glob(str(place), recursive=True) if not os.path.basename(p).startswith("."))
        if not found:
            raise NoUsableData(f"nothing matches {text!r} (seen from {Path.cwd()}).")
        return [p for p in found if os.path.isfile(p) or _is_zarr(Path(p))]
    if not place.exists():
        raise NoUsableData(f"{text} does not exist (seen from {Path.cwd()}).")
    if place.is_file() or _is_zarr(place):
        return [str(place)]
    for name in ("catalog.json", "collection.json"):
        if (place / name).is_file():
            return [str(place / name)]
    level = [place]
    for _ in range(8):
        entries = sorted(p for folder in level for p in folder.iterdir() if not p.name.startswith("."))
        found = [str(p) for p in entries if p.suffix.lower() in (*SUFFIXES, ".nc") or (p.is_dir() and _is_zarr(p))]
        if found:
            return found
        level = [p for p in entries if p.is_dir()]
    raise NoUsableData(f"{text} holds no GeoTIFF, COG, JPEG 2000, NetCDF, Zarr or STAC catalogue.")


def _is_zarr(place):
    return place.is_dir() and any((place / n).is_file() for n in ("zarr.json", ".zgroup", ".zmetadata"))


def _nothing(source, skipped, what):
    shown = source if isinstance(source, str | os.PathLike) else type(source).__name__
    reasons = f"\n{skipped.reasons()}" if skipped.records else ""
    raise NoUsableData(f"{shown}: {what}.{reasons}")


def _grid_of(like):
    if isinstance(like, GeoBox):
        return like
    if isinstance(like, str | os.PathLike):
        return read_header(like).geobox
    box = geobox_of(like)
    if box is None:
        raise StackError(f"like= must be a GeoBox, a Stack with a CRS or a raster's path, got {type(like).__name__}.")
    return box


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


def _in_time(scenes, time):
    if time is None:
        return scenes
    first, last = time_range(time)
    return [s for s in scenes if first <= s.facts.time <= last]


def _one_kind(scenes):
    kinds = Counter(s.kind for s in scenes)
    if len(kinds) > 1:
        examples = {s.kind: s.facts.scene for s in scenes}
        raise StackError(
            f"SAR and optical are mixed ({kinds['sar']} SAR as {examples['sar']}, {kinds['optical']} optical "
            f"such as {examples['optical']}). A Stack has one kind of sensor: open them apart and keep a dict of both."
        )
    return scenes


def _one_orbit(scenes, orbit):
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


def _with_warp(scenes, alignment, skipped):
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


def _band_names(scenes, bands):
    counts = Counter(name for s in scenes for name in s.bands)
    if bands is None:
        return [name for name, n in counts.items() if 2 * n >= len(scenes)] or list(counts)
    names = [bands] if isinstance(bands, str) else list(bands)
    absent = [name for name in names if name not in counts]
    if absent:
        raise StackError(f"band {', '.join(absent)} is in no scene (there are: {', '.join(sorted(counts))}).")
    return names


def _having(scenes, names, skipped):
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


def _own_grid(scene, names):
    boxes = [source.geobox for name in names for source in scene.bands.get(name, ())]
    finest = min(boxes, key=lambda box: abs(box.affine.determinant))
    tiles = list(dict.fromkeys(b for b in boxes if b.resolution == finest.resolution and b.crs == finest.crs))
    return finest if len(tiles) == 1 else grids.choose_grid(tiles)


def _on_grid(scenes, target, skipped):
    kept = []
    for scene in scenes:
        if any(grids.overlaps(target, box) for box in scene.geoboxes()):
            kept.append(scene)
            continue
        where = scene.geobox.extent.boundingbox
        skipped.add(
            scene.paths[0],
            f"no overlap with the grid: it lies at {tuple(round(v, 3) for v in where)} in {scene.geobox.crs}, the "
            f"grid at {tuple(round(v, 3) for v in target.extent.boundingbox)} in {target.crs}",
            scene.facts.scene,
        )
    return kept


def _log_doubts(scenes):
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


def _chunk_size(chunks):
    if chunks == "auto":
        return (chunked.BLOCK, chunked.BLOCK)
    if isinstance(chunks, int):
        chunks = (chunks, chunks)
    if isinstance(chunks, dict):
        chunks = (chunks.get("y", chunked.BLOCK), chunks.get("x", chunked.BLOCK))
    if len(chunks) != 2 or min(chunks) < 16:
        raise ConfigError(f"chunks={chunks!r}: give 'auto', one number or (y, x), of 16 px at the least.")
    return tuple(int(c) for c in chunks)


def _assemble(scenes, names, target, alignment, chunk, resampling, skipped):
    scenes = sorted(scenes, key=lambda s: s.facts.time)
    layers = {n: [_layer(s, n, target, alignment, chunk, resampling) for s in scenes] for n in names}
    stack = new_stack(
        {name: da.stack(parts) for name, parts in layers.items()},
        [s.facts.time for s in scenes],
        geobox=target,
        scene=[s.facts.scene for s in scenes],
        sensor=[s.facts.sensor for s in scenes],
        orbit=[s.facts.orbit for s in scenes],
    )
    units = "power" if scenes[0].kind == "sar" else ""
    enl = {s.facts.enl for s in scenes}
    native = all(source.geobox == target for s in scenes for n in names for source in s.bands.get(n, ()))
    for name in names:
        stack[name].attrs["units"] = units or ("1" if scenes[0].profile.kind == "optical" else "")
        if units and len(enl) == 1 and np.isfinite(next(iter(enl))) and native and alignment is None:
            stack[name].attrs["enl"] = float(next(iter(enl)))
    if alignment is not None:
        report = alignment.report.set_index("scene")["sigma_px"]
        sigma = [float(report.get(s.facts.scene, 0.0)) for s in scenes]
        stack = stack.assign_coords(sigma_px=("time", sigma, {"units": "px"}))
    stack.attrs["applied"] = as_json([{**s.applied, "paths": list(s.paths)} for s in scenes])
    stack.attrs["skipped"] = as_json(skipped.records)
    return stack


def _layer(scene, name, target, alignment, chunk, resampling):
    shape = tuple(target.shape)
    warp = None
    if alignment is not None:
        warp = alignment.warps.get(scene.facts.scene, Shift())
    parts = []
    for source in scene.bands.get(name, ()):
        if not grids.overlaps(target, source.geobox):
            continue
        if source.geobox == target and (warp is None or warp == Shift()):
            parts.append(source.lazy().rechunk(chunk))
            continue
        steps = (GridMap(target, source.geobox),) if warp is None else (warp, GridMap(target, source.geobox))
        parts.append(chunked.pull(source.lazy(), Chain(steps), shape, resampling=resampling, chunks=chunk))
    if not parts:
        return da.full(shape, np.nan, np.float32, chunks=chunk)
    out = parts[0]
    for other in parts[1:]:
        out = da.where(da.isnan(out), other, out)
    return out
