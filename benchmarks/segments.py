"""The reference family (ccdc, cold, sccd, bfast_lite, landtrendr): accuracy, false alarms, speed, two cores, the reference pixel."""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from results import write_section
from series_worlds import BANDS, null, optical, score_changes

from geoalign import detect, new_stack

FAMILY = {"ccdc": BANDS, "cold": BANDS, "sccd": BANDS, "bfast_lite": ("ndvi",), "landtrendr": ("ndvi",)}


def flagged(changes, n):
    return float(np.isin(changes.status.values.reshape(-1)[:n], (3, 4)).mean())


def cores(stack, name):
    """Speed of two threads over that of one, wall time, on chunks of pixels."""
    wall = []
    for workers in (1, 2):
        lazy = detect(stack.chunk(time=-1, y=2, x=-1), name)
        begin = time.perf_counter()
        lazy.compute(scheduler="threads", num_workers=workers)
        wall.append(time.perf_counter() - begin)
    return wall[0] / wall[1]


def reference(data):
    """Breaks of the MATLAB CCDC that `ccdc` gives within one observation, of how many."""
    import pandas as pd

    folder = data / "series" / "pixels"
    table = pd.read_csv(folder / "landsat_wa_3657_3610.csv", parse_dates=["date"]).drop_duplicates("date")
    table = table.sort_values("date")[lambda t: t.cfmask < 2]
    starts = pd.read_csv(folder / "landsat_wa_3657_3610_reference_segments.csv", parse_dates=["start"]).start[1:]
    stack = new_stack({b: table[b].to_numpy()[:, None, None] * 1e-4 for b in BANDS}, table.date.to_numpy())
    found = detect(stack, "ccdc")
    clear = stack.time.values
    ours = np.searchsorted(clear, found.break_date.values[: int(found.n_changes[0, 0]), 0, 0])
    theirs = np.searchsorted(clear, starts.to_numpy().astype(clear.dtype))
    return int((np.abs(theirs[:, None] - ours).min(axis=1) <= 1).sum()), len(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=2000)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GEOALIGN_REAL_DATA", "../shared/data")))
    options = parser.parse_args()
    n = options.pixels
    world = optical(n, seed=11)
    stable, colours = null(n, seed=12, sd=0.03), optical(n, seed=13, changed=0.0)
    dependent = optical(n, seed=14, changed=0.0, ar=0.3)
    lines = [
        f"Optical stack of `series_worlds.py`: {n} pixels, {world.time.size} dates in 20 years, 30 % cloud, 1 % missed",
        "cloud. Five bands, `bfast_lite` and `landtrendr` NDVI. Stable pixels flagged in 20 years: of an NDVI with white noise of 0.03, of",
        "all bands with 1 % missed cloud, the same with an autocorrelation of 0.3. Speed is that of `detect`, per core",
        "second; cores: wall time of one thread over that of two.",
        "",
        "| | px/cpu-s | cores | P | R | F1 | R at 15 % | R at 25 % | median days | exact | inside | flagged: white | bands | AR .3 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, bands in FAMILY.items():
        stack = world.stack(bands)
        detect(stack.isel(y=slice(0, 1), x=slice(0, 2)), name)
        begin = time.process_time()
        found = detect(stack, name)
        speed = n / (time.process_time() - begin)
        s = score_changes(world, found)
        false = [
            flagged(detect(stable.stack(), name), n),
            flagged(detect(colours.stack(bands), name), n),
            flagged(detect(dependent.stack(bands), name), n),
        ]
        lines.append(
            f"| `{name}` | {speed:,.0f} | {cores(stack, name):.2f} | {s['precision']:.3f} | {s['recall']:.3f} | "
            f"{s['f1']:.3f} | {s['recall_15']:.2f} | {s['recall_25']:.2f} | {s['median_days']:.0f} | {s['exact']:.2f} | "
            f"{s['inside']:.2f} | {false[0]:.4f} | {false[1]:.4f} | {false[2]:.4f} |"
        )
    if options.data.is_dir():
        hits, total = reference(options.data)
        lines += ["", f"`landsat_wa_3657_3610`: `ccdc` gives {hits} of the reference's {total} within one observation."]
    write_section("Reference family of segmentations (segments.py)", lines)


if __name__ == "__main__":
    main()
