"""Monitors on stable and changed series: false alarms over 2 and 12 years, what is found, updates a core-second.

    python benchmarks/watch.py [--pixels 10000] [--peer PYTHON]     # PYTHON: an interpreter that has nrt 0.3.0

The series are those of `series_worlds.py`; history from 2003, monitoring from 2011.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import series_worlds as worlds

SINCE = np.datetime64("2011-01-01")
TWO_YEARS = SINCE + np.timedelta64(730, "D")
NULLS = {
    "white": {},
    "AR(1) .3": {"ar": 0.3},
    "1 % outliers": {"missed": 0.01},
    "AR(1) .3 and 1 % outliers": {"ar": 0.3, "missed": 0.01},
}


def ours(series, name, **options):
    """Date found and date confirmed, (n_pixel,) datetime64, and core-seconds of a detector."""
    from geoalign import detect

    stack = series.stack()
    begin = time.process_time()
    found = detect(stack, name, since=str(SINCE), alpha=0.05, **options)
    spent = time.process_time() - begin
    n = series.loss.size
    hit = np.isin(found.status.values, (3, 4))
    date, confirmed = (
        np.where(hit, found[k].values, np.datetime64("NaT")).ravel()[:n].astype("datetime64[D]")
        for k in ("date", "date_confirmed" if "date_confirmed" in found else "date")
    )
    return date, confirmed, spent


def peer(series, name, python):
    """The same of nrt's monitors (confirmation dates only), in its own interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/in.npz", ndvi=series.ndvi, time=series.time.astype("datetime64[ns]").astype(np.int64))
        done = subprocess.run(
            [python, str(Path(__file__).with_name("watch_peer.py")), name, folder], capture_output=True, text=True
        )
        if done.returncode:
            return None
        out = np.load(f"{folder}/out.npz")
        date = out["date"].astype("datetime64[D]")
        return np.where(out["hit"], date, np.datetime64("NaT")), json.loads(done.stdout.strip().splitlines()[-1])


def false_alarms(confirmed):
    return float((confirmed < TWO_YEARS).mean()), float((~np.isnat(confirmed)).mean())


def speed(sides=(512, 2048), seed=0):
    """Pixel-updates a core-second of `watch` by side of the image and scenes at once; bytes of state a pixel."""
    import xarray as xr

    from geoalign import new_stack
    from geoalign.detectors.watch import Watch

    series = worlds.null(128 * 128, seed=seed)
    first = int((series.time < SINCE).sum())
    small = new_stack({"ndvi": worlds.grid(series.ndvi, 128)}, series.time)
    watch = Watch(alpha=0.05)
    learned = watch.start(small.isel(time=slice(0, first)))
    bytes_a_pixel = sum(layer.nbytes for layer in learned.data_vars.values()) / 128**2
    out = {}
    for side in sides:
        # the same ground over and over: values that differ by pixel, learned once
        state, stack = (
            xr.Dataset({k: (v.dims, np.tile(v.values, (side // 128, side // 128))) for k, v in d.data_vars.items()},
                       coords={"time": d.time, "y": np.arange(side), "x": np.arange(side)}, attrs=d.attrs)
            for d in (learned, small.isel(time=slice(first, first + 72)))
        )  # fmt: skip
        for at_once in (1, 24) if side <= 512 else (1,):
            rates = []
            now = state
            for k in range(8 if at_once == 1 else 3):
                scenes = stack.isel(time=slice(k * at_once, (k + 1) * at_once))
                begin = time.process_time()
                now = watch.update(now, scenes)
                rates.append(at_once * side * side / (time.process_time() - begin))
            out[side, at_once] = float(np.median(rates[1:]))
    return out, bytes_a_pixel, float(np.isfinite(small.ndvi.values).mean())


def bfast_speed(n_pixel=40000):
    """Pixels a core-second of the OLS-MOSUM kernel on the 456-date stack, with all and with ROC-selected history."""
    from geoalign.kernels import bfast_monitor as kernel

    series = worlds.optical(n_pixel, seed=1)
    flat = np.ascontiguousarray(series.ndvi.T)
    first = int((series.time < SINCE).sum())
    x, _ = kernel.design(series.time, 1)
    out = {}
    for name, roc in (("all", 0.0), ("roc", kernel.roc_critical(0.05))):
        arguments = (flat, x, first, 0, 0.25, kernel.critical("ols_mosum", 0.25, 0.05, 4), roc)
        kernel.monitor(*arguments)
        spent = []
        for _ in range(5):
            begin = time.process_time()
            kernel.monitor(*arguments)
            spent.append(time.process_time() - begin)
        out[name] = n_pixel / min(spent)
    return out


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pixels", type=int, default=10000)
    arguments.add_argument("--peer", help="interpreter that has nrt 0.3.0")
    given = arguments.parse_args()
    names = ["watch", "harmonic_cusum", "ewma", "cusum", "mosum", "bfast_monitor"]
    lines = [
        f"Stable series, {given.pixels:,} pixels a cell: share with a confirmed alarm 2 and 12 years after 2011, alpha .05.",
        "",
        "| monitor | " + " | ".join(NULLS) + " |",
        "|---|" + "---|" * len(NULLS),
    ]
    nulls = {k: worlds.null(given.pixels, seed=11, **options) for k, options in NULLS.items()}
    for name in names:
        options = {"order": 2}
        cells = ["{:.3f}, {:.3f}".format(*false_alarms(ours(s, name, **options)[1])) for s in nulls.values()]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    peers = ["CuSum", "MoSum", "EWMA"] if given.peer else []
    for name in peers:
        cells = [peer(s, name, given.peer) for s in nulls.values()]
        if any(c is None for c in cells):
            print("nrt", name, "failed", flush=True)
            continue
        lines.append(
            f"| nrt 0.3.0 {name} | " + " | ".join("{:.3f}, {:.3f}".format(*false_alarms(c[0])) for c in cells) + " |"
        )
        print(lines[-1], flush=True)
    lines += [
        "",
        f"Optical series, {given.pixels:,} pixels, 30 % of them lose 15 to 85 % of their cover. A break counts within 365",
        "days; an alarm before it is a false one and the change missed. First clear: dated at the first clear observation.",
        "",
        "| monitor | recall at 15 % | 25 % | 40 % | 60 % | 85 % | stable flagged | F1 | days from change to confirmation | first clear |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for label, options in (("", {}), (", AR(1) .3", {"ar": 0.3})):
        series = worlds.optical(given.pixels, seed=12, **options)
        for name in names:
            date, confirmed, _ = ours(series, name, order=2)
            lines.append(row(f"`{name}`{label}", series, date, confirmed))
            print(lines[-1], flush=True)
        for name in peers:
            found = peer(series, name, given.peer)
            if found is not None:
                lines.append(row(f"nrt 0.3.0 {name}{label}", series, found[0], found[0]))
                print(lines[-1], flush=True)
    rates, size, clear = speed()
    quick = bfast_speed()
    lines += [
        "",
        f"`watch`, pixel-updates a core-second, {clear:.0%} of them clear, counted whether clear or not: scenes of 2048 px "
        f"one at a time {rates[2048, 1] / 1e6:.0f} million,",
        f"scenes of 512 px {rates[512, 1] / 1e6:.0f} million one at a time, {rates[512, 24] / 1e6:.0f} million with 24 an "
        f"update; {size:.0f} bytes of state a pixel.",
        f"`bfast_monitor`, OLS-MOSUM with one harmonic and trend, 456 dates: {quick['all']:,.0f} pixels a core-second with "
        f"all of the history,",
        f"{quick['roc']:,.0f} with the history found by ROC (kernel).",
    ]
    if given.peer:
        timing = peer(nulls["white"], "EWMA", given.peer), peer(nulls["white"], "CuSum", given.peer)
        told = [f"{t[1]['updates'] / 1e6:.1f}" for t in timing if t]
        lines.append(f"nrt 0.3.0 in the same run: EWMA and CuSum {' and '.join(told)} million updates a core-second.")
    from results import write_section

    write_section("Monitors: false alarms, recall, speed (`watch.py`)", lines)


def row(name, series, date, confirmed):
    s = worlds.score(series, date)
    late = (confirmed - series.change)[series.changed & ~np.isnat(confirmed)].astype(float)
    recalls = " | ".join(f"{s[f'recall_{k}']:.3f}" for k in (15, 25, 40, 60, 85))
    return (
        f"| {name} | {recalls} | {s['false']:.3f} | {s['f1']:.3f} | {np.median(late[late >= 0]):.0f} | "
        f"{s.get('exact', float('nan')):.2f} |"
    )


if __name__ == "__main__":
    main()
