"""One new scene on a large site of two polarisations: seconds of each step and peak memory.

    python benchmarks/monitor_large.py [--keep FOLDER] [side ...]

Each side is run in a process of its own: a baseline of 16 scenes of speckle, then one visit with one new scene.
Scenes are taken as they lie (`register = false`); disk: about 200 bytes a pixel. With `--keep` the site and its first
visit, which take half an hour at 10980 px, are taken from FOLDER where they are there, and stay; each time the second
visit is made on a copy of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results import write_section

from geoalign.monitor import Monitor
from geoalign.publish import peak_rss_mb

GAP, N = 12, 17


def write_scene(folder, k, side):
    import rasterio

    rng = np.random.default_rng(k)
    day = np.datetime64("2023-01-01T05:00:00") + np.timedelta64(GAP * k, "D")
    options = {
        "driver": "GTiff", "height": side, "width": side, "count": 2, "dtype": "float32", "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5400000), "nodata": float("nan"), "tiled": True,
        "blockxsize": 512, "blockysize": 512, "interleave": "band", "compress": "DEFLATE", "zlevel": 1,
        "predictor": 3, "num_threads": 2,
    }  # fmt: skip
    with rasterio.open(folder / f"s1_{str(day)[:10].replace('-', '')}.tif", "w", **options) as file:
        for band, (name, level) in enumerate((("vv", 0.1), ("vh", 0.02)), start=1):
            for row in range(0, side, 512):
                tall = min(512, side - row)
                speckle = level * rng.standard_gamma(4.4, (tall, side), np.float32) / np.float32(4.4)
                # twelve bits of the mantissa, which is more than products tell, so that seventeen scenes find room
                speckle = (speckle.view(np.uint32) & np.uint32(0xFFFFF800)).view(np.float32)
                file.write(speckle, band, window=rasterio.windows.Window(0, row, side, tall))
            file.set_band_description(band, name)
        file.update_tags(datetime=f"{day}Z", sensor="S1A", orbit="44", units="power")
    return day


def one(folder, side):
    """One visit; prints its figures as JSON."""
    monitor = Monitor(folder / "site.toml", threads=2)
    result = monitor.visit()
    print(json.dumps({"timings": result.timings, "peak_mb": peak_rss_mb(), "alerts": result.alerts}))


def measure(side, keep):
    folder = Path(keep or tempfile.mkdtemp(prefix="monitor-large-")) / str(side)
    try:
        if not (folder / "first.json").is_file():
            first_visit(folder, side)
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.copytree(folder / "out0", folder / "out", symlinks=True, copy_function=linked)
        return json.loads((folder / "first.json").read_text()), visited(folder, side)
    finally:
        if not keep:
            shutil.rmtree(folder.parent)


def linked(source, target):
    """A hard link: files of a site never change, but for its ledger."""
    (shutil.copy2 if Path(source).name.startswith("ledger") else os.link)(source, target)


def first_visit(folder, side):
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "scenes").mkdir(parents=True)
    days = [write_scene(folder / "scenes", k, side) for k in range(N - 1)]
    box = [500000, 5400000 - 10 * side, 500000 + 10 * side, 5400000]
    (folder / "site.toml").write_text(
        f'name = "large"\nscenes = "scenes"\noutput = "out"\nregister = false\n[grid]\ncrs = "EPSG:32633"\n'
        f'resolution_m = 10\nbbox = {box}\n[vectors]\nmin_area_m2 = 5000\n[[detect]]\ndetector = "watch"\n'
        f'index = "vh"\n[monitor]\nsince = "{str(days[-1] + np.timedelta64(1, "D"))[:10]}"\n'
    )
    first = visited(folder, side)
    write_scene(folder / "scenes", N - 1, side)
    os.rename(folder / "out", folder / "out0")
    (folder / "first.json").write_text(json.dumps(first))


def visited(folder, side):
    """Figures of a visit, which is a process of its own."""
    command = [sys.executable, __file__, "--one", str(folder), str(side)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main(sides, keep):
    lines = [
        "`python benchmarks/monitor_large.py`: a site of two polarisations (float32), 16 scenes of baseline, then one "
        "visit with one new scene, with two threads; wall-clock seconds. First visits ran on a machine that was not idle.",
        "",
        "| side, px | find (every block read) | evidence | fold | publish | in all, s | peak memory, MB | first visit, s "
        "| its peak, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for side in sides:
        first, second = measure(side, keep)
        t = second["timings"]
        lines.append(
            f"| {side} | {t['find']:.1f} | {t['evidence']:.1f} | {t['fold']:.1f} | {t['publish']:.1f} | "
            f"{t['total']:.1f} | {second['peak_mb']:.0f} | {first['timings']['total']:.1f} | {first['peak_mb']:.0f} |"
        )
        print(lines[-1], flush=True)
    write_section("Monitoring: one new scene on a large site", lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        words = sys.argv[1:]
        keep = words.pop(1) if words[:1] == ["--keep"] else None
        main([int(s) for s in words if s.isdigit()] or [1372, 2745], keep)
