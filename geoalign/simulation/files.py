"""A simulation on disk: scenes that look like Sentinel-2 L2A and Sentinel-1 RTC, their truth, and a `site.toml`."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from rasterio.windows import Window

from geoalign.kernels.scene_values import OPTICAL_BANDS, SAR_BANDS
from geoalign.simulation.recipe import EVENT_KINDS
from geoalign.simulation.render import TILE, event_pixels, render_tile, tiles
from geoalign.simulation.truth import day_table, event_frame, truth_document

DN_STEP = 50
"""Optical digital numbers are multiples of it (0.005 reflectance, about the noise), so that files compress."""

SAR_SCALE = (3e-3, 7e-4)
"""Power of one digital number (vv, vh): less than a tenth of the speckle of vegetation, so that files compress."""


def write_simulation(recipe, folder: Path) -> Path:
    """Scenes, truth and `site.toml` under `folder`; every file appears whole. Memory: one tile and one label layer."""
    folder = Path(folder)
    for sensor in recipe.references:
        _write_scenes(recipe, sensor, folder / sensor)
    _write_truth(recipe, folder / "truth")
    _write_text(folder / "site.toml", site_toml(recipe))
    return folder


def _write_scenes(recipe, sensor, folder):
    folder.mkdir(parents=True, exist_ok=True)
    scenes = recipe.of(sensor)
    extent = tuple(max(s.geobox.shape[axis] for s in scenes) for axis in (0, 1))
    with ExitStack() as files:
        out = [files.enter_context(_raster(folder / f"{s.name}.tif", **_profile(s))) for s in scenes]
        for scene, file in zip(scenes, out):
            _describe(recipe, scene, file)
        for tile in tiles(extent):
            for k, bands, classes in render_tile(recipe, scenes, tile, native=True):
                if sensor == "optical":
                    numbers = np.clip(np.rint(bands * 10000 / DN_STEP) * DN_STEP + 1000, 1, 65535)
                    numbers = np.concatenate([numbers, classes[None]])
                else:
                    numbers = np.clip(np.rint(bands / np.array(SAR_SCALE)[:, None, None]), 1, 65535)
                place = Window(tile[1][0], tile[0][0], numbers.shape[2], numbers.shape[1])
                out[k].write(numbers.astype(np.uint16), window=place)


def _profile(scene):
    bands, predictor = (len(OPTICAL_BANDS) + 1, 2) if scene.sensor == "optical" else (2, 1)
    # speckle has no gradient to predict
    return {"geobox": scene.geobox, "count": bands, "dtype": "uint16", "predictor": predictor}


def _describe(recipe, scene, file):
    common = {"scene": scene.name, "datetime": f"{scene.time:%Y-%m-%dT%H:%M:%S}Z"}
    if scene.sensor == "optical":
        names = (*OPTICAL_BANDS, "scl")
        tags = {"sensor": "sentinel-2a", "product": "sentinel2-l2a", "processing_baseline": scene.baseline}
    else:
        names = SAR_BANDS
        tags = {"sensor": "sentinel-1a", "product": "sentinel1-rtc", "orbit": "44", "units": "power"}
        tags["enl"] = f"{recipe.looks:g}"
        file.scales, file.offsets = SAR_SCALE, (0.0, 0.0)
    if scene.tile:
        tags["tile"] = scene.tile
    file.update_tags(**common, **tags)
    for index, name in enumerate(names, start=1):
        file.set_band_description(index, name)


def _write_truth(recipe, folder):
    folder.mkdir(parents=True, exist_ok=True)
    labels = event_pixels(recipe)
    layers = {kind: day_table(recipe, kind) for kind in EVENT_KINDS}
    layers["flood_end"] = day_table(recipe, "flood", "end")
    for name, days in layers.items():
        with _raster(folder / f"{name}.tif", geobox=recipe.geobox, count=1, dtype="int32") as file:
            file.set_band_description(1, name)
            file.update_tags(1, units="days since 1970-01-01")
            for (r0, r1), (c0, c1) in tiles(labels.shape):
                file.write(days[labels[r0:r1, c0:c1]], 1, window=Window(c0, r0, c1 - c0, r1 - r0))
    frame = event_frame(recipe, labels).to_crs("EPSG:4326")
    for column in ("date", "end"):
        frame[column] = [None if pd.isna(day) else f"{day:%Y-%m-%d}" for day in frame[column]]
    _write_text(folder / "events.geojson", frame.to_json(drop_id=True))
    _write_text(folder / "truth.json", json.dumps(truth_document(recipe), indent=1))


def site_toml(recipe) -> str:
    """A site file that finds the planted events again."""
    box = recipe.geobox.extent.boundingbox
    lines = ['name = "simulated"', 'output = "out"', 'truth = "truth"', "", "[scenes]"]
    lines += [f'{sensor} = "{sensor}/*.tif"' for sensor in recipe.references]
    lines += ["", "[grid]", f'crs = "{recipe.geobox.crs}"', f"resolution_m = {recipe.geobox.affine.a:g}"]
    lines += [f"bbox = [{box.left:.3f}, {box.bottom:.3f}, {box.right:.3f}, {box.top:.3f}]"]
    for sensor, scene in recipe.references.items():
        lines += ["", f"[register.{sensor}]", f'reference = "{scene}"']
    planted = {event.kind for event in recipe.events}
    themes = {"flood": "flood", "clearing": "deforestation", "building": "urbanization"}
    first = min((event.start for event in recipe.events), default=0.0)
    since = recipe.start + pd.Timedelta(days=max(first - 14, 0))
    for sensor in recipe.references:
        for kind, detector in themes.items():
            if kind not in planted:
                continue
            lines += ["", "[[detect]]", f'detector = "{detector}"', f'on = "{sensor}"']
            if sensor == "optical":
                lines += [f'since = "{since:%Y-%m-%d}"']
    return "\n".join([*lines, "", "[vectors]", "min_area_m2 = 2000", ""])


@contextmanager
def _raster(path, *, geobox, count, dtype, predictor=2):
    """A tiled, compressed GeoTIFF that takes its name when it is complete."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part.tif")
    side = 256 if max(geobox.shape) <= 2 * TILE else TILE
    profile = {
        "driver": "GTiff",
        "height": geobox.shape[0],
        "width": geobox.shape[1],
        "count": count,
        "dtype": dtype,
        "crs": str(geobox.crs),
        "transform": geobox.affine,
        "nodata": 0,
        "tiled": True,
        "blockxsize": side,
        "blockysize": side,
        "compress": "deflate",
        "zlevel": 9 if max(geobox.shape) <= 2 * TILE else 6,
        "predictor": predictor,
        "interleave": "band",
        "bigtiff": "if_safer",
    }
    try:
        with rasterio.open(partial, "w", **profile) as file:
            yield file
        with open(partial, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_text(path, text):
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
