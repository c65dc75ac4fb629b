"""`open_stack`: whatever holds the scenes becomes one lazy Stack on one grid."""

from __future__ import annotations

import glob as globbing
import logging
import os
from pathlib import Path

import dask.array as da
import numpy as np
from odc.geo.geobox import GeoBox

from geoalign import chunked
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.io import grid as grids
from geoalign.io import select
from geoalign.io.geotiff import SUFFIXES, is_remote, read_header
from geoalign.io.mosaic import merge_scenes
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
    >>> import tempfile, numpy as np, rasterio
    >>> folder = tempfile.mkdtemp()
    >>> for day in ("20240101", "20240113"):
    ...     with rasterio.open(
    ...         f"{folder}/a_{day}_vv.tif", "w", driver="GTiff", height=20, width=30, count=1, dtype="float32",
    ...         crs="EPSG:32633", transform=rasterio.Affine(10, 0, 500000, 0, -10, 5000000),
    ...     ) as file:
    ...         file.write(np.full((1, 20, 30), 0.1, "float32"))
    >>> stack = open_stack(folder)
    >>> list(stack), stack.sizes["time"], str(stack.scene.values[1])
    (['vv'], 2, 'a_20240113')
    """
    scenes, names, target, skipped = chosen_scenes(
        source, product=product, bands=bands, bbox=bbox, time=time, like=like, alignment=alignment, orbit=orbit,
        strict=strict,
    )  # fmt: skip
    return _assemble(scenes, names, target, alignment, _chunk_size(chunks), resampling, skipped)


def chosen_scenes(
    source, *, product="auto", bands=None, bbox=None, time=None, like=None, alignment=None, orbit=None, strict=False
):
    """What `open_stack` puts together: the scenes (unsorted), names of the bands, the grid, and what was refused."""
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

    scenes = find_scenes(source, product, skipped, bands=bands, bbox=bbox, time=time)
    scenes = select.in_time(scenes, time)
    if not scenes:
        _nothing(source, skipped, "no scene was found" + (f" in time={time!r}" if time is not None else ""))
    scenes = select.one_kind(select.one_orbit(scenes, orbit))
    scenes = merge_scenes(scenes, skipped)
    if alignment is not None:
        scenes = select.with_warp(scenes, alignment, skipped)
    names = select.band_names(scenes, bands)
    scenes = select.having(scenes, names, skipped)
    if not scenes:
        _nothing(source, skipped, "no scene is left")
    if target is None:
        scenes = select.together(scenes, names, skipped)
        target = grids.choose_grid([select.own_grid(s, names) for s in scenes])
    if bbox is not None:
        target = grids.crop(target, bbox)
    grids.check_size(target)
    scenes = select.on_grid(scenes, target, skipped)
    if not scenes:
        _nothing(source, skipped, "no scene overlaps the grid")
    select.log_doubts(scenes)
    return scenes, names, target, skipped


def find_scenes(source, product, skipped, *, bands=None, bbox=None, time=None) -> list[Scene]:
    """The scenes behind whatever `open_stack` takes, unsorted; what is refused goes to `skipped`."""
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if is_remote(text) and not text.split("?")[0].lower().endswith(SUFFIXES):
            return _stac(text, product, skipped, bands, bbox, time)
        if is_remote(text):
            return scenes_of_files([text], product, skipped)
        return _of_paths(expand(text), product, skipped, bands, bbox, time)
    if isinstance(source, list | tuple) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return _of_paths([p for s in source for p in expand(os.fspath(s))], product, skipped, bands, bbox, time)
    return _stac(source, product, skipped, bands, bbox, time)


def _of_paths(paths, product, skipped, bands, bbox, time):
    rasters = [p for p in paths if is_remote(p) or p.lower().endswith(SUFFIXES)]
    out = scenes_of_files(rasters, product, skipped) if rasters else []
    for path in paths:
        if path in rasters:
            continue
        try:
            if path.lower().endswith((".json", ".geojson")):
                out += _stac(path, product, skipped, bands, bbox, time)
            else:
                from geoalign.io.zarr import scenes_of_dataset

                out += scenes_of_dataset(path, product)
        except StackError as err:
            skipped.add(path, err)
    return out


def _stac(source, product, skipped, bands, bbox, time):
    from geoalign.io.stac import scenes_of_stac

    return scenes_of_stac(source, product, skipped, bands=bands, bbox=bbox, time=time)


def expand(text) -> list[str]:
    """The files and stores that a path, glob or folder means; NoUsableData where there are none."""
    if not text.strip():
        raise NoUsableData("the source is empty; give a folder, a file or a pattern such as 'scenes/*.tif'.")
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
        return [p for p in found if not os.path.isdir(p) or _is_zarr(Path(p))]  # a dead link is told, not passed over
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
    if isinstance(source, list | tuple) and len(skipped.records) == 1:
        raise NoUsableData(skipped.reasons().strip())  # all that can be said, on one line
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
