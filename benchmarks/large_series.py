"""Memory and time of `breaks` over a lazy NDVI stack far larger than memory: 10,000 x 10,000 pixels, 100 dates.

    python benchmarks/large_series.py [--side 10000] [--rows 128 256]

The whole lazy stack and its lazy changes are built (160 GB of float32 would not fit), then the first rows are computed
and written to Zarr, each number of rows in a process of its own, with two threads. Blocks are made as they are needed
(season, noise, 30 % gaps; a tenth of the pixels lose 0.2), so reading from disk is not in it. Peak resident memory is
the operating system's. Rows do not depend on each other: time goes with their number, and memory does not where both
parts peak alike; the table says what was measured and what is extrapolated.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

from results import write_section

DATES, BLOCK = 100, 128


def stack_of(side):
    import dask.array as da
    import numpy as np

    import geoalign

    def block(info):
        where = info[0]["array-location"]
        shape = [b - a for a, b in where]
        rng = np.random.default_rng([where[1][0], where[2][0]])
        t = np.arange(shape[0]) * 22 / 365.25
        values = rng.standard_normal(shape, np.float32) * np.float32(0.03)
        values += (0.6 + 0.1 * np.cos(2 * np.pi * t)).astype(np.float32)[:, None, None]
        values[60:, rng.random(shape[1:]) < 0.1] -= np.float32(0.2)
        values[rng.random(shape, np.float32) < 0.3] = np.nan
        return values

    empty = da.zeros((DATES, side, side), chunks=(DATES, BLOCK, BLOCK), dtype=np.float32)
    ndvi = da.map_blocks(lambda _, block_info=None: block(block_info), empty, dtype=np.float32)
    return geoalign.new_stack({"ndvi": ndvi}, np.datetime64("2015-01-01") + np.arange(DATES) * 22)


def measure(side, rows) -> dict:
    import dask

    import geoalign

    begin = time.perf_counter()
    stack = stack_of(side)
    changes = geoalign.detect(stack, "breaks")
    built = time.perf_counter() - begin
    geoalign.detect(stack.isel(y=slice(0, 8), x=slice(0, 8)), "breaks").compute()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads", num_workers=2):
        changes.isel(y=slice(0, rows)).drop_encoding().to_zarr(f"{folder}/changes.zarr", mode="w")
    return {
        "rows": rows, "built_s": built, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu,
        "start_gb": before, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=10000)
    parser.add_argument("--rows", type=int, nargs="*", default=[BLOCK, 2 * BLOCK])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.side, options.one)))
        return 0
    lines = [
        "| rows computed | pixels | build graph (s) | wall (s) | processor (s) | px/cpu-s | RSS before (GB) | peak RSS (GB) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows in options.rows:
        done = subprocess.run(
            [sys.executable, __file__, "--side", str(options.side), "--one", str(rows)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        m = json.loads(done.stdout.strip().splitlines()[-1])
        n = rows * options.side
        lines.append(
            f"| {rows} | {n:,} | {m['built_s']:.0f} | {m['wall_s']:.0f} | {m['cpu_s']:.0f} | {n / m['cpu_s']:,.0f} "
            f"| {m['start_gb']:.2f} | {m['peak_gb']:.2f} |"
        )
    hours = m["cpu_s"] * options.side / rows / 3600
    lines += [
        "",
        f"Extrapolated to all {options.side:,} rows from the last line: {hours:.1f} processor hours (making the blocks and "
        f"writing included), peak memory as measured, {m['peak_gb']:.2f} GB of the 4 GB allowed.",
    ]
    write_section("large_series.py: a stack larger than memory", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
