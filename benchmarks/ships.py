"""Ships and shipping routes: false alarms on clutter, chips with boxes drawn by hand, routes in simulated traffic.

    python benchmarks/ships.py [--cells 120] [--seeds 8] [--only clutter chips routes]

Clutter: millions of cells a law, streamed in tiles, looks given and estimated. Chips: the 12 of ../shared/data/ships
(or $GEOALIGN_REAL_DATA). Routes: 60 x 60 km, five years, two tracks with gaps and a third from day 900.
"""

import argparse
import csv
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from results import write_section

from geoalign import new_stack
from geoalign.detectors.shipping_routes import find as find_routes
from geoalign.detectors.ships import find as find_ships
from geoalign.kernels import cfar
from geoalign.simulation.traffic import Route, Sea, simulate_traffic

PFA = (1e-3, 1e-4, 1e-5, 1e-6)
SIDE = 2000


def clutter(millions):
    lines = [
        "| clutter | cells | looks | " + " | ".join(f"{p:g}" for p in PFA) + " |",
        "|---|---|---|" + "---|" * len(PFA),
    ]
    for name, looks, order in (
        ("gamma", 1.0, None),
        ("gamma", 4.4, None),
        ("gamma", 10.0, None),
        ("K, order 3", 4.4, 3.0),
    ):
        rng = np.random.default_rng(int(10 * looks))
        tiles = (
            max(1, round(millions * 1e6 / SIDE**2)) if order is None else max(1, round(millions * 1e6 / SIDE**2 / 6))
        )
        n = np.zeros((3, len(PFA)))
        started = time.process_time()
        for k in range(tiles):
            image = (0.02 / looks) * rng.standard_gamma(looks, (SIDE, SIDE), np.float32)
            if order:
                image *= rng.standard_gamma(order, (SIDE, SIDE), np.float32) / np.float32(order)
            floor, power = cfar.floor_and_power([cfar.scene_histogram(image)])
            land, _, sea, ratio = cfar.ground(image, None, floor, power, buffer_px=3)
            found = cfar.looks_of([cfar.ratio_histogram(ratio)])
            ways = [(0, looks, False), (1, found, False)] if k % 4 == 0 else [(0, looks, False)]
            if order:
                ways.append((2, looks, True))
            for row, value, texture in ways:
                for pair in ((0, 1), (2, 3)):
                    at = {"pfa": PFA[pair[0]], "low_pfa": PFA[pair[1]], "texture": texture}
                    hit, weak = cfar.cells_of(image, land, sea, floor, power, value, **at)[:2]
                    n[row, pair[0]] += hit.sum()
                    n[row, pair[1]] += weak.sum()
        cells = [tiles * SIDE**2, -(-tiles // 4) * SIDE**2, tiles * SIDE**2]
        for row, label in enumerate(("given", "estimated", "given, clutter='k'")):
            if row == 2 and not order:
                continue
            rates = " | ".join(f"{n[row, i] / cells[row] / p:.3f} ({n[row, i]:.0f})" for i, p in enumerate(PFA))
            lines.append(f"| {name}, L {looks:g} | {cells[row]:.2g} | {label} | {rates} |")
        print(lines[-1], f"{time.process_time() - started:.0f} s", flush=True)
    return ["False-alarm rate over the asked one (alarms counted):", "", *lines, ""]


def overlap(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def centred(a, b):
    x, y = (a[0] + a[2]) / 2, (a[1] + a[3]) / 2
    return (0.01 + overlap(a, b)) * (b[0] <= x <= b[2] and b[1] <= y <= b[3])


def met(found, drawn, value, least):
    pairs = sorted(((value(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(drawn)), reverse=True)
    one, other = set(), set()
    for score, i, j in pairs:
        if score >= least and i not in one and j not in other:
            one.add(i)
            other.add(j)
    return len(one)


def chips(folder):
    import rasterio

    boxes = {}
    with open(folder / "ships.csv") as rows:
        for row in csv.DictReader(rows):
            boxes.setdefault(row["chip"], []).append([float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax")])
    rules = {"IoU .3": (overlap, 0.3), "IoU .5": (overlap, 0.5), "centre in the box": (centred, 1e-9)}
    hits, n_found, n = dict.fromkeys(rules, 0), 0, 0
    for name, drawn in boxes.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(folder / f"{name}.tif") as source:
                table = find_ships(new_stack({"hh": source.read(1).astype("f4")[None]}, ["2020-01-01"]))
        found = table[["xmin", "ymin", "xmax", "ymax"]].to_numpy() + 0.5
        n_found, n = n_found + len(found), n + len(drawn)
        for rule, (value, least) in rules.items():
            hits[rule] += met(found, drawn, value, least)
    lines = ["| chips | boxes | met if | recall | false a chip |", "|---|---|---|---|---|"]
    for rule in rules:
        lines.append(
            f"| {len(boxes)} | {n} | {rule} | {hits[rule] / n:.3f} | {(n_found - hits[rule]) / len(boxes):.2f} |"
        )
    return ["Chips with boxes drawn by hand, default settings:", "", *lines, ""]


SIZE = 60_000.0
STRAIGHT = Route(line=((0, 15e3), (SIZE, 40e3)), since=900)
BENT = Route(line=((0, 50e3), (25e3, 45e3), (SIZE, 15e3)), ships_a_day=10, since=1100)
OLD = Route(line=((0, 10e3), (SIZE, 50e3)), ships_a_day=15)
CROSSING = Route(line=((5e3, SIZE), (50e3, 0)), since=1000, ships_a_day=10)
PORT = Route(line=((0, 20e3), (35e3, 30e3)), since=700, ships_a_day=8)
ENDED = Route(line=((30e3, 0), (30e3, SIZE)), since=400, until=1300, ships_a_day=10)
BUSY = Route(line=((0, 25e3), (SIZE, 30e3)), since=1000, ships_a_day=40)
LATE_TRACK = ((0.0, 0.5, 12.0, 0.0, 4000.0), (0.45, 1.0, 12.0, 1000.0, 4000.0), (0.4, 0.55, 6.0, 1200.0, 4000.0))
SEAS = {
    "straight, 12 ships a day": Sea(routes=(STRAIGHT,)),
    "bent, 10": Sea(routes=(BENT,)),
    "one there all along (15), one crossing it (10)": Sea(routes=(OLD, CROSSING)),
    "into a port, 8": Sea(routes=(PORT,)),
    "used for 900 days, 10": Sea(routes=(ENDED,)),
    "straight, 40": Sea(routes=(BUSY,)),
    "none": Sea(),
    "none, coverage begins late, a fishing ground": Sea(
        tracks=LATE_TRACK, background_100km2=0.4, grounds=((20e3, 40e3, 4e3, 3.0),)
    ),
}


def points(line, step=250.0):
    place = np.append(0, np.cumsum(np.hypot(*np.diff(line, axis=0).T)))
    even = np.linspace(0, place[-1], int(place[-1] / step) + 2)
    return np.column_stack([np.interp(even, place, line[:, k]) for k in (0, 1)])


def off(a, b):
    return np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)).min(axis=1)


def routes(seeds):
    lines = [
        "| sea | routes | found | false | vertices within 500 m | worst off, median and largest, m | length found | "
        "date error, days: median, largest | within 60 days | s a sea |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, sea in SEAS.items():
        n = n_found = n_false = 0
        inside, worst, covered, late = [], [], [], []
        started = time.process_time()
        for seed in range(seeds):
            ships, passes = simulate_traffic(sea, seed=100 + seed)
            table = find_routes(ships, passes).lines
            left = {k: points(np.asarray(shape.coords)) for k, shape in enumerate(table.geometry)}
            for route in sea.routes:
                n += 1
                truth = points(np.asarray(route.line, float))
                best = min(left, key=lambda k: np.median(off(left[k], truth)), default=None)
                if best is None or np.median(off(left[best], truth)) > 2000:
                    continue
                found = left.pop(best)
                n_found += 1
                gap = off(found, truth)
                inside.append((gap <= 500).mean())
                worst.append(gap.max())
                covered.append((off(truth, found) <= 500).mean())
                if np.isfinite(route.since):
                    days = (table.first_seen[best] - pd.Timestamp(sea.start)) / pd.Timedelta(days=1)
                    late.append(days - route.since)
                else:
                    n_false += bool(table.formed[best])
            n_false += len(left)
        size = f"{np.median(worst):.0f}, {max(worst):.0f}" if worst else ""
        date = f"{np.median(np.abs(late)):.0f}, {np.abs(late).max():.0f}" if late else ""
        lines.append(
            f"| {name} | {n} | {n_found} | {n_false} | {np.mean(inside) if inside else np.nan:.3f} | {size} | "
            f"{np.mean(covered) if covered else np.nan:.2f} | {date} | "
            f"{(np.abs(late) <= 60).mean() if late else np.nan:.2f} | {(time.process_time() - started) / seeds:.1f} |"
        )
        print(lines[-1], flush=True)
    return [
        f"Five years, 60 x 60 km, {seeds} seeds each. About a ship for every 8 a day is on a route at a pass. A route that "
        "was always there and is said to have formed counts as false.", "", *lines, "",
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=float, default=120, help="millions a law")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="*", default=["clutter", "chips", "routes"])
    asked = parser.parse_args()
    if "clutter" in asked.only:
        write_section("ships.py: CFAR on clutter", clutter(asked.cells))
    folder = Path(os.environ.get("GEOALIGN_REAL_DATA", "../shared/data")) / "ships"
    if "chips" in asked.only and folder.is_dir():
        write_section("ships.py: chips", chips(folder))
    if "routes" in asked.only:
        write_section("ships.py: shipping routes", routes(asked.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
