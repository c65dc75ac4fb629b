"""A pair of images larger than is held in memory: time, peak memory and error of a global and of a local match.

    python benchmarks/large_pair.py [--size 10980] [--folder FOLDER]

Writes a reference and two moving images as tiled files (one moved by an affine warp, one by a smooth field), then
matches each pair in a process of its own, which opens the files lazily, and reads that process's peak resident memory
from the operating system. The folder is kept when named, so that a second run starts from the same images.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numba import njit
from results import write_section

from geoalign.types.warp import Affine, Field

OCTAVES_PX = (1.7, 3.1, 5.9, 11.3, 24.0, 51.0, 110.0, 370.0)
"""Spacing of the nodes of random values whose splines add up to the ground."""
TABLE = 1024
TARGETS = {"affine": (10.0, 0.05), "field": (60.0, 0.2)}
"""Seconds and px (rms length of the error over the image) asked of each model at 10980 x 10980, with `LIMIT_GB`."""
LIMIT_GB = 2.0
WAVES_PX = (1500.0, 5000.0)
MOST_PX = 4.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=10980)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=TARGETS, help="match one pair in this process and print what was measured")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.folder, options.only, options.size)))
        return 0
    rows, good = [], True
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        command = [sys.executable, "-c", f"import large_pair as p; p.simulate({str(folder)!r}, {options.size})"]
        subprocess.run(command, check=True, cwd=Path(__file__).parent)
        for model, (most_s, most_px) in TARGETS.items():
            command = [sys.executable, __file__, "--size", str(options.size), "--folder", str(folder), "--only", model]
            out = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            good &= out["wall_s"] <= most_s and out["error_px"] <= most_px and out["peak_gb"] <= LIMIT_GB
            rows.append(
                f"| {model} | {out['wall_s']:.1f} | {most_s:.0f} | {out['cpu_s']:.1f} | {out['peak_gb']:.2f} "
                f"| {LIMIT_GB:.0f} | {out['error_px']:.4f} | {out['worst_px']:.3f} | {most_px:.2f} "
                f"| {out['sigma_px']:.4f} | {out['within_1']:.2f} | {out['within_2']:.2f} | {out['n_points']} |"
            )
    size = options.size
    write_section(
        f"large_pair.py: a pair of {size} x {size} px",
        [
            f"Opening, reading and decoding tiled files included, kernels compiled before. Error: length, over the image. Load of the machine while it ran: {os.getloadavg()[0]:.1f}.",
            "",
            "| model | wall (s) | asked (s) | cpu (s) | peak RSS (GB) | asked (GB) | error, rms (px) | worst (px) "
            "| asked (px) | predicted, an axis (px) | within 1 sigma | within 2 | tie points |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
        ],
    )
    return 0 if good else 1


def measure(folder: Path, model: str, size: int) -> dict:
    """Open, match and compare with the truth."""
    import geoalign

    started, cpu = time.perf_counter(), time.process_time()
    stack = geoalign.open_stack([folder / "reference_20240101_red.tif", folder / f"{model}_20240111_red.tif"])
    red = stack["red"]
    found = geoalign.match(red.isel(time=0), red.isel(time=1), model=model)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows, cols = np.meshgrid(*[np.linspace(0, size - 1, 257)] * 2, indexing="ij")
    true = truth(model, size)
    error = np.stack([a - b for a, b in zip(found.warp.pull(rows, cols), true.pull(rows, cols))])
    sigma = found.sigma_px(rows, cols)
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "peak_gb": peak,
        "error_px": float(np.sqrt((error**2).sum(axis=0).mean())),
        "worst_px": float(np.hypot(*error).max()),
        "sigma_px": float(np.sqrt((sigma**2).mean())),
        "within_1": float((np.abs(error) < sigma).mean()),
        "within_2": float((np.abs(error) < 2 * sigma).mean()),
        "n_points": found.n_points,
    }


def truth(model: str, size: int):
    """The warp of a moving image: the inverse of what places its pixels on the ground."""
    return ground_places(model, size).inverse()


def ground_places(model: str, size: int):
    """Where on the ground (px of the reference) a pixel of a moving image lies."""
    if model == "affine":
        middle = (size - 1) / 2
        turn = np.array([[1.0002, -0.0003], [0.0004, 0.9999]])
        offset = np.array([3.37, -2.81]) + middle - turn @ [middle, middle]
        return Affine(np.column_stack([turn, offset]))
    rng = np.random.default_rng(5)
    step = 100.0
    n = int(np.ceil(size / step)) + 5
    at = -2 * step + step * np.arange(n)
    rows, cols = np.meshgrid(at, at, indexing="ij")
    moved = []
    for _ in range(2):
        total = np.zeros(rows.shape)
        for _ in range(8):
            length, angle, phase = rng.uniform(*WAVES_PX), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
            total += np.cos(2 * np.pi * (np.sin(angle) * rows + np.cos(angle) * cols) / length + phase)
        moved.append(MOST_PX * total / np.abs(total).max())
    return Field(moved[0] + 2.3, moved[1] - 1.6, -2 * step, -2 * step, step, step)


def simulate(folder, size: int) -> None:
    """Write the three images; what is there already is kept."""
    import rasterio
    import rasterio.shutil

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = np.random.default_rng(1).normal(size=(TABLE, TABLE)).astype(np.float32)
    for k, (name, day) in enumerate((("reference", "0101"), ("affine", "0111"), ("field", "0111"))):
        path = folder / f"{name}_2024{day}_red.tif"
        if path.exists():
            continue
        places = Affine(np.eye(2, 3)) if name == "reference" else ground_places(name, size)
        strips = path.with_suffix(".part")
        profile = {
            "driver": "GTiff", "height": size, "width": size, "count": 1, "dtype": "uint16", "nodata": 0, "tiled": True,
            "blockxsize": 512, "blockysize": 512, "crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 54e5),
        }  # fmt: skip
        with rasterio.open(strips, "w", **profile) as file, ThreadPoolExecutor(2) as pool:
            file.scales = (1e-4,)
            jobs = [(r, min(512, size - r)) for r in range(0, size, 512)]
            for (r, n), values in zip(jobs, pool.map(partial(_strip, places, size, table, k), jobs)):
                file.write(values, 1, window=rasterio.windows.Window(0, r, size, n))
        options = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BLOCKSIZE": 512, "OVERVIEW_RESAMPLING": "average"}
        with rasterio.Env(GDAL_NUM_THREADS="2"):
            rasterio.shutil.copy(strips, path, driver="COG", **options)
        strips.unlink()


def _strip(places, size, table, seed, job):
    row, n = job
    rows, cols = np.mgrid[row : row + n, 0:size].astype(float)
    image = _ground(*places.pull(rows, cols), table, np.array(OCTAVES_PX))
    noise = np.random.default_rng((seed, row)).normal(size=image.shape)
    return np.clip(np.rint(2000 * image + 20 * noise), 1, 65535).astype(np.uint16)


@njit(nogil=True, cache=True)
def _ground(rows, cols, table, octaves):
    """The ground at any place: splines through random nodes of many spacings, each turned another way, soft-edged."""
    out = np.empty(rows.shape)
    wr, wc = np.empty(4), np.empty(4)
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            total = 0.0
            for k in range(octaves.size):
                c, s = np.cos(1.0 + k), np.sin(1.0 + k)
                u = (c * rows[i, j] - s * cols[i, j]) / octaves[k] + 37.3 * k
                v = (s * rows[i, j] + c * cols[i, j]) / octaves[k] + 91.7 * k
                a, b = int(np.floor(u)), int(np.floor(v))
                for w, t in ((wr, u - a), (wc, v - b)):
                    w[0] = (1 - t) ** 3 / 6
                    w[1] = 2 / 3 - 0.5 * t * t * (2 - t)
                    w[2] = 2 / 3 - 0.5 * (1 - t) ** 2 * (1 + t)
                    w[3] = t * t * t / 6
                value = 0.0
                for m in range(4):
                    for n in range(4):
                        value += wr[m] * wc[n] * table[(a + m) % table.shape[0], (b + n) % table.shape[1]]
                total += value * (octaves[k] / 51.0) ** 0.4
            out[i, j] = 1.0 + 0.5 * np.tanh(1.5 * total)
    return out


if __name__ == "__main__":
    sys.exit(main())
