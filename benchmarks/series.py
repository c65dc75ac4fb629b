"""Dated breaks of optical series: ours beside other packages, on the same arrays.

    python benchmarks/series.py [--pixels 3000] [--peers FOLDER] [--only NAME ...]

The stack of `series_worlds.optical`: 456 dates over 20 years, 30 % cloud, 1 % of it undetected, 30 % of pixels lose 15
to 85 % of their cover. A break counts within 365 days. px/cpu-s: pixels (whole series) a core-second of processor time
after a warm call, one thread; FA: stable pixels flagged. FOLDER holds a virtual environment a package (nrt, pyxccd,
zeit, ruptures); packages without one are left out. Slow packages take the first pixels only, as said in the table.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import numpy as np
from results import write_section
from series_worlds import BANDS, null, optical, reliability, score, score_changes, wandering

import geoalign
from geoalign.detectors import DETECTORS
from geoalign.types.changes import changed

SINCE = "2011-01-01"
ONE_THREAD = {
    **os.environ,
    **dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}
OURS = (
    # detector, bands, options, share of the pixels
    ("breaks", ("ndvi",), {}, 1.0),
    ("breaks", BANDS, {}, 1.0),
    ("watch", ("ndvi",), {"since": SINCE}, 1.0),
    ("harmonic_cusum", ("ndvi",), {"since": SINCE}, 0.2),
    ("bfast_monitor", ("ndvi",), {"since": SINCE}, 1.0),
    ("bfast_lite", ("ndvi",), {}, 0.5),
    ("ccdc", BANDS, {}, 0.5),
    ("cold", BANDS, {}, 0.5),
    ("sccd", BANDS, {}, 0.5),
    ("landtrendr", ("ndvi",), {}, 1.0),
)
PEERS = (
    # name, folder of its environment, share of the pixels
    ("ruptures_kernel", "ruptures", 0.2),
    ("zeit_sccd", "zeit", 0.4),
    ("zeit_ccdc", "zeit", 0.2),
    ("zeit_bfast_lite", "zeit", 0.03),
    ("zeit_bfast_monitor", "zeit", 0.5),
    ("pyxccd_sccd", "pyxccd", 0.1),
    ("pyxccd_cold", "pyxccd", 0.1),
    ("nrt_ccdc", "nrt", 0.5),
    ("nrt_cusum", "nrt", 0.5),
    ("nrt_ewma", "nrt", 0.5),
)
TITLE = "series.py: dated breaks of optical series"
HEAD = (
    "| | pixels | px/cpu-s | P | R | F1 | FA | R at 15 % | median days | exact | inside | width (days) | reliability |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def part(world, n):
    """The first n pixels."""
    return type(world)(world.time, world.ndvi[:n], world.bands[:, :n], world.change[:n], world.loss[:n])


def row(name, n, seconds, s, gap=None):
    def text(key, form="{:.3f}"):
        return form.format(s[key]) if key in s and np.isfinite(s[key]) else ""

    return (
        f"| {name} | {n} | {n / seconds:,.0f} | {text('precision')} | {text('recall')} | {text('f1')} | {text('false', '{:.4f}')} "
        f"| {text('recall_15')} | {text('median_days', '{:.0f}')} | {text('exact')} | {text('inside')} "
        f"| {text('width_days', '{:.0f}')} | {'' if gap is None else f'{gap:.3f}'} |"
    )


def ours(world, name, bands, options):
    """Seconds of processor time of one thread after a warm call, scores, reliability."""
    stack = world.stack(bands)
    with dask.config.set(scheduler="synchronous"):
        geoalign.detect(part(world, 64).stack(bands), name, **options).compute()
        begin = time.process_time()
        found = geoalign.detect(stack, name, **options).compute()
        seconds = time.process_time() - begin
    p = found.probability.values.reshape(-1)[: world.loss.size]
    return seconds, score_changes(world, found), reliability(world.changed, p, found.attrs["prior"])


def peers(world, names, folder, lines):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        np.save(place / "time.npy", world.time.astype("datetime64[D]").astype(np.int64))
        np.save(place / "ndvi.npy", world.ndvi)
        np.save(place / "bands.npy", world.bands)
        for name, home, share in PEERS:
            python = folder / home / "bin" / "python"
            if not python.exists() or (names and name not in names):
                continue
            n = max(40, int(share * world.loss.size))
            script = Path(__file__).with_name("peers_series.py")
            done = subprocess.run([python, script, name, place, str(n)], capture_output=True, text=True, env=ONE_THREAD)
            if done.returncode:
                lines.append(f"| {name} | failed: {done.stderr.strip().splitlines()[-1][:90]} |" + " |" * 11)
                continue
            got = np.load(place / f"{name}.npz")
            every = np.where(got["days"] > 0, got["days"].astype("datetime64[D]"), np.datetime64("NaT"))
            some = part(world, n)
            # of several breaks the one nearest to the truth is dated: the other packages rank them differently
            off = np.where(np.isnat(every) | ~some.changed, np.inf, np.abs((every - some.change).astype(float)))
            nearest = every[np.argmin(off, axis=0), np.arange(n)]
            label = f"{name.split('_', 1)[1].replace('_', ' ')} ({got['version']})"
            lines.append(row(label, n, float(got["seconds"]), score(some, nearest, every=every)))
            print(lines[-1], flush=True)


def stable_ground(pixels, seed) -> list[str]:
    """Table of the share of stable series that `breaks` flags."""
    lines = [
        "",
        "| stable NDVI, 456 dates | alpha | flagged: white noise | AR(1) .3 | AR(1) .3, 1 % outliers |",
        "|---|---|---|---|---|",
    ]
    worlds = [null(pixels, seed=seed, ar=ar, missed=missed) for ar, missed in ((0.0, 0.0), (0.3, 0.0), (0.3, 0.01))]
    for alpha in (0.001, 0.01, 0.05):
        rates = [
            float(changed(geoalign.detect(world.stack(), "breaks", alpha=alpha)).sum()) / pixels for world in worlds
        ]
        lines.append(f"| breaks | {alpha} | " + " | ".join(f"{r:.4f}" for r in rates) + " |")
    lines += [
        "",
        "Seasons that come early or late, high or low from year to year (sd 15 % of their height): stable pixels flagged "
        "by `breaks`, and recall where all pixels lose 15 or 40 % of their cover.",
        "",
        "| sd of the season's phase | scenes | flagged, NDVI | 6 bands | recall at 15 %, NDVI | 6 bands | at 40 % | 6 bands |",
        "|---" * 8 + "|",
    ]
    for days, years, step in ((15, 12, 5), (22, 12, 5), (15, 6, 5), (22, 20, 16)):
        cells = []
        for loss in (0.0, 0.15, 0.4):
            made = wandering(pixels // 5, years=years, step_days=step, seed=seed, days=days, loss=loss)
            for bands in (("ndvi",), BANDS):
                found = geoalign.detect(made.stack(bands), "breaks")
                key = "recall" if loss else "false"
                cells.append(f"{score_changes(made, found)[key]:.4f}")
        lines.append(f"| {days} days | {years} years, every {step} days | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def two_threads(pixels=262_144, rounds=3) -> float:
    """Wall time of one dask thread over that of two, the median of a few rounds; a busy machine tells too little."""
    world = optical(pixels // 16, seed=7)
    one = world.stack()
    # the same ground over and over: an image that is large enough to be cut as images are
    stack = one.isel(y=np.tile(np.arange(one.sizes["y"]), 16)).drop_vars("y").chunk(time=-1, y=256, x=-1)
    walls = {1: [], 2: []}
    for _ in range(rounds):
        for workers, wall in walls.items():
            with dask.config.set(scheduler="threads", num_workers=workers):
                begin = time.perf_counter()
                geoalign.detect(stack, "breaks").compute()
                wall.append(time.perf_counter() - begin)
    return float(np.median(walls[1]) / np.median(walls[2]))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pixels", type=int, default=3000)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--seed", type=int, default=101)
    options = parser.parse_args()
    world = optical(options.pixels, seed=options.seed)
    table, more = list(HEAD), []

    def take(chosen):
        for name, bands, extra, share in chosen:
            if name in DETECTORS and (not options.only or name in options.only):
                some = part(world, int(share * options.pixels))
                label = f"**{name}**, {'NDVI' if len(bands) == 1 else f'{len(bands)} bands'}"
                table.append(row(label, some.loss.size, *ours(some, name, bands, extra)))
                print(table[-1], flush=True)

    take([entry for entry in OURS if entry[0] == "breaks"])
    if options.peers:
        peers(world, options.only, options.peers, table)
    if not options.only or "breaks" in options.only:
        more = stable_ground(options.pixels, options.seed)
        more += [
            "",
            f"`breaks` with two dask threads is {two_threads():.2f} times as fast as with one (load of the machine "
            f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores).",
        ]
    if not options.only:
        # what takes longest to compile comes last; the section is there before
        write_section(TITLE, table + more)
    take([entry for entry in OURS if entry[0] != "breaks"])
    if not options.only:
        write_section(TITLE, table + more)
    return 0


if __name__ == "__main__":
    sys.exit(main())
