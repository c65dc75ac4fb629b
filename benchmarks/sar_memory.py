"""Peak memory of SAR series detectors on files: 60 dates of vv and vh, 10980 px wide, read lazily and written as COGs.

    python benchmarks/sar_memory.py [--rows 256 512] [--keep FOLDER]

Real files of the full width and few rows; each case runs in a process of its own. Memory is bounded by blocks of rows,
so a full scene (10980 rows) needs what a part of a few blocks needs: two heights show how far that is so.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WIDTH, DATES, LOOKS = 10980, 60, 4.4


def make(folder, rows):
    """A GeoTIFF a date, vv and vh, tiled."""
    import rasterio
    from affine import Affine

    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "width": WIDTH, "height": rows, "count": 2, "dtype": "float32", "tiled": True,
        "blockxsize": 512, "blockysize": 256, "crs": "EPSG:32633", "nodata": float("nan"),
        "transform": Affine(10, 0, 500000, 0, -10, 5000000),
    }  # fmt: skip
    pool = rng.gamma(LOOKS, 1 / LOOKS, WIDTH * rows + 4_000_000).astype(np.float32)
    for k in range(DATES):
        day = str(np.datetime64("2022-01-03") + 12 * k).replace("-", "")
        with rasterio.open(folder / f"s1_rtc_{day}.tif", "w", **profile) as out:
            for band, (name, level) in enumerate((("vv", 0.1), ("vh", 0.02)), 1):
                start = int(rng.integers(0, 4_000_000))
                out.write(level * pool[start : start + WIDTH * rows].reshape(rows, WIDTH), band)
                out.set_band_description(band, name)


def run(folder, detector, estimated):
    import geoalign

    stack = geoalign.open_stack(str(folder / "*.tif"), product="generic")
    for band in stack.data_vars if not estimated else ():
        stack[band].attrs["enl"] = LOOKS
    began = time.process_time()
    changes = geoalign.detect(stack, detector)
    with tempfile.TemporaryDirectory() as out:
        geoalign.write_changes(changes, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{peak:.2f} {time.process_time() - began:.0f} {dict(stack.chunksizes)['y'][0]}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--detectors", nargs="+", default=["gamma_glr"])
    parser.add_argument("--estimated", action="store_true", help="estimate the looks as well")
    parser.add_argument("--run", nargs=3)
    given = parser.parse_args()
    if given.run:
        run(Path(given.run[0]), given.run[1], given.run[2] == "1")
        return 0
    from results import write_section

    lines = [
        f"{DATES} dates of vv and vh, {WIDTH} px wide, uncompressed tiled GeoTIFF; `detect` and `write_changes`. "
        "GB of resident memory at the peak, files' page cache not counted.",
        "",
        "| detector | looks | rows | data (GB) | peak RSS (GB) | cpu (s) |",
        "|---|---|---|---|---|---|",
    ]
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), rows)
            for detector in given.detectors:
                for estimated in ("0", "1") if given.estimated else ("0",):
                    command = [sys.executable, __file__, "--run", folder, detector, estimated]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    peak, seconds, _ = done.stdout.split()[-3:]
                    size = DATES * 2 * WIDTH * rows * 4 / 2**30
                    lines.append(
                        f"| {detector} | {'estimated' if estimated == '1' else 'given'} | {rows} | {size:.1f} "
                        f"| {peak} | {seconds} |"
                    )
    lines += [
        "",
        f"A full scene has {10980 / max(given.rows):.0f} times the rows of the last case; see above for what grows.",
    ]
    write_section("sar_memory.py: peak memory on files", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
