"""The explorer on 30 scenes of 10980 x 10980 px: time to the first view, a zoom, a click, and memory.

    python benchmarks/explorer.py [FOLDER]

makes one scene as a COG (bands red, nir, swir2 and scl; a textured tile repeated, so that it is made quickly) and links
it 30 times, with layers of change of the same size. All scenes being one file, they lie in the system's cache after the
first; what is measured is decoding, resampling and drawing.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZE, SCENES = 10980, 30
TRANSFORM = (10.0, 0.0, 500000.0, 0.0, -10.0, 5400000.0)


def make_scene(path):
    import rasterio
    import rasterio.shutil
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    tile = np.stack([gaussian_filter(rng.random((512, 512)), 4, mode="wrap") for _ in range(3)])
    tile = (1500 + 30000 * (tile - tile.min())).astype(np.uint16)
    scl = np.where(gaussian_filter(rng.random((512, 512)), 30, mode="wrap") > 0.503, 9, 4).astype(np.uint16)
    values = np.concatenate([tile, scl[None]])
    options = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": 4, "dtype": "uint16", "nodata": 0,
               "crs": "EPSG:32633", "transform": rasterio.Affine(*TRANSFORM), "tiled": True, "blockxsize": 512,
               "blockysize": 512, "compress": "lzw"}  # fmt: skip
    strips = path.with_suffix(".part.tif")
    with rasterio.Env(GDAL_NUM_THREADS="2"):
        with rasterio.open(strips, "w", **options) as file:
            file.descriptions = ("red", "nir", "swir2", "scl")
            file.update_tags(product="sentinel2-l2a", processing_baseline="05.10")
            for r in range(0, SIZE, 512):
                for c in range(0, SIZE, 512):
                    h, w = min(512, SIZE - r), min(512, SIZE - c)
                    file.write(values[:, :h, :w], window=rasterio.windows.Window(c, r, w, h))
        rasterio.shutil.copy(strips, path, driver="COG", COMPRESS="LZW", BLOCKSIZE=512, OVERVIEW_RESAMPLING="NEAREST")
    strips.unlink()


def make_run(folder):
    import dask.array as da
    import xarray as xr

    from geoalign import new_changes, open_stack, polygons, write_changes
    from geoalign.types.stack import pixel_size_m

    scenes = folder / "scenes"
    scenes.mkdir(parents=True)
    make_scene(folder / "scene.tif")
    days = np.arange("2023-01-05", "2025-12-30", 36, "datetime64[D]")[:SCENES]
    for day in days:
        os.link(folder / "scene.tif", scenes / f"S2A_{str(day).replace('-', '')}.tif")
    stack = open_stack(scenes)
    assert dict(stack.sizes) == {"time": SCENES, "y": SIZE, "x": SIZE}
    rows = da.arange(SIZE, chunks=1024)
    spot = ((rows[:, None] % 1500) < 40) & ((rows[None, :] % 1500) < 40)
    date, after = (np.datetime64(str(days[k]), "ns") for k in (15, 14))
    none = np.datetime64("NaT", "ns")
    layers = {
        "status": spot.astype(np.uint8) * 3, "date": da.where(spot, date, none), "date_by": da.where(spot, date, none),
        "date_after": da.where(spot, after, none), "magnitude": da.where(spot, np.float32(-0.3), np.float32(np.nan)),
        "direction": -spot.astype(np.int8), "probability": spot.astype(np.float32) * 0.9,
        "n_obs": spot.astype(np.uint16) + 20, "why": da.zeros((SIZE, SIZE), dtype=np.uint16, chunks=1024),
    }  # fmt: skip
    coords = {k: v for k, v in stack.coords.items() if k in ("y", "x", "spatial_ref")}
    layers = {name: xr.DataArray(values, dims=("y", "x"), coords=coords) for name, values in layers.items()}
    text = "HarmonicCusum(alpha=0.01, prior=0.05, since=None, until=None, history=None, order=2, index='nbr')"
    changes = new_changes(layers, kind="change", detector=text, prior=0.05)
    write_changes(changes, folder / "layers" / "change", polygons=polygons)
    assert pixel_size_m(changes) == 10
    config = {"name": "large", "scenes": str(scenes), "output": str(folder), "detect": [], "folder": str(folder)}
    document = {
        "format": "geoalign.run", "version": 1, "name": "large", "run_id": "large", "exit_code": 0,
        "configuration": config, "grid": {"crs": "EPSG:32633", "shape": [SIZE, SIZE], "transform": list(TRANSFORM)},
        "scenes": [], "registration": [], "skipped": [], "failed": {}, "accuracy": {}, "timings": {}, "peak_rss_mb": 0,
        "layers": {"change": {"kind": "change", "stack": "scenes", "repr": text}},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(document))


def measure(folder):
    """In a fresh process: what a user waits for, in the order that it happens."""
    start = time.perf_counter()
    from geoalign.explorer import explore_run, need

    need()
    import panel  # noqa: F401

    import geoalign.explorer.app  # noqa: F401

    rows = [("importing Panel, Bokeh and geoalign", time.perf_counter() - start)]

    def lap(name, do):
        begin = time.perf_counter()
        out = do()
        rows.append((name, time.perf_counter() - begin))
        return out

    page = lap("first view: open 30 scenes, stretch, two scenes, layer, dates", lambda: explore_run(folder))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from bokeh.events import Tap

    def click(row, col):
        x, y = page._view.transform * (col + 0.5, row + 0.5)
        page._tap(Tap(None, x=x, y=y))

    lap("first click on a pixel (kernels are loaded)", lambda: click(4510, 4510))
    spots = [(7, 9000), (6010, 3010), (10900, 5000), (1234, 5678)]
    times = []
    for row, col in spots:
        begin = time.perf_counter()
        click(row, col)
        times.append(time.perf_counter() - begin)
    rows.append(("a click on a pixel, median of four others", float(np.median(times))))

    def zoom():
        at, size = page._view.transform * (4200, 4200), 6000.0
        page.map.figure.x_range.update(start=at[0], end=at[0] + size)
        page.map.figure.y_range.update(start=at[1] - size, end=at[1])
        page._moved()

    lap("zoom to 600 x 600 px", zoom)

    def step():
        page.time.value = 20
        page._scenes()

    lap("a step in time", step)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "first_mb": before, "peak_mb": peak}))


def main(folder):
    from results import write_section

    if not (folder / "manifest.json").is_file():
        make_run(folder)
    done = subprocess.run([sys.executable, __file__, "--measure", str(folder)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    lines = [
        f"`python benchmarks/explorer.py`: {SCENES} scenes of {SIZE} x {SIZE} px, 3 bands and a mask, on disk.",
        "",
    ]
    lines += ["| what | seconds |", "|---|---|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in found["rows"]]
    lines += ["", f"Peak memory of the server: {found['first_mb']:.0f} MB after the first view, {found['peak_mb']:.0f} MB "
                  f"at the end; the scenes are {SCENES * 3 * SIZE**2 * 4 / 2**30:.0f} GB as float32."]  # fmt: skip
    write_section("Explorer", lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            main(Path(place))
