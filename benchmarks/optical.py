"""Optical themes, slow trends, and SAR with optical detections of the same ground, on made series.

    python benchmarks/optical.py [themes trends fusion] [--seeds 3] [--side 96]

Themes on the worlds of `optical_worlds.py` at default options. Trends: NDVI of 12 to 30 years, two or three scenes a
month, whose noise is autocorrelated from scene to scene (0.6), from year to year too, or not. Fusion: a series of NDVI
and one of VV and VH of the same pixels, with the same changes in them.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
from optical_worlds import optical, scores
from results import write_section

import geoalign
from geoalign.accuracy import reliability
from geoalign.types.changes import changed

CASES = {
    "deforestation": {"": {}, "half cloudy, 2 % missed": {"cloud": 0.5, "missed": 0.02}, "every 16 days": {"step": 16}},
    "urbanization": {"": {}, "half cloudy, 2 % missed": {"cloud": 0.5, "missed": 0.02}, "every 16 days": {"step": 16}},
    "burn": {"": {}, "half cloudy, 2 % missed": {"cloud": 0.5, "missed": 0.02}, "every 16 days": {"step": 16}},
    "flood": {"": {}, "half cloudy, 2 % missed": {"cloud": 0.5, "missed": 0.02}, "mud": {"water": "mud water"},
              "among stalks, a third above water": {"above": 0.33}, "lasting": {"length": 12}},
}  # fmt: skip
DAY = np.timedelta64(1, "D")


def themes(seeds, side):
    lines = ["| theme | world | F1 | lowest | F1 with changes never seen clear | false | date error, median and 90 % "
             "(clear observations) | flagged without change |", "|---" * 8 + "|"]  # fmt: skip
    for kind, worlds in CASES.items():
        for name, options in worlds.items():
            rows, null, done = [], [], []
            for seed in range(20, 20 + seeds):
                world = optical(kind, seed=seed, shape=(side, side), **options)
                if kind == "urbanization":
                    # ground is built over once it is: what was only cleared when the series ends is neither hit nor miss
                    world = replace(world, seen=world.seen & (world.more["ready"] < world.stack.time.values[-4]))
                found = geoalign.detect(world.stack, kind)
                rows.append(scores(world, found))
                if kind == "urbanization":
                    done.append(scores(world, found, date="date_completed", true=world.more["ready"])["median"])
                bare = {k: v for k, v in options.items() if k not in ("water", "above", "length")}
                calm = optical(None, seed=seed + 50, shape=(side, side), **bare)
                null.append(scores(calm, geoalign.detect(calm.stack, kind))["false"])
            f1 = [row["f1"] for row in rows]
            mean = {k: np.nanmean([row[k] for row in rows]) for k in rows[0]}
            cells = [kind, name or "usual", f"{mean['f1']:.3f}", f"{min(f1):.3f}", f"{mean['f1_all']:.3f}",
                     f"{mean['false']:.4f}", f"{mean['median']:.1f}, {mean['p90']:.0f}", f"{np.mean(null):.4f}"]  # fmt: skip
            if done:
                cells[6] += f"; completion {np.mean(done):.1f}"
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


def autocorrelated(rng, shape, r):
    e = rng.normal(size=shape)
    for k in range(1, shape[1]):
        e[:, k] = r * e[:, k - 1] + np.sqrt(1 - r * r) * e[:, k]
    return e


def slow(seed, n, *, years=20, every=10, yearly=0.0, r=0.6, step_sd=0.0, slope_sd=0.0, gaps=0.3):
    """NDVI (n_pixel, n_time) with a season, noise of scenes (sd 0.03, AR(1) r) and of years (AR(1) 0.6, `yearly`)."""
    rng = np.random.default_rng(seed)
    time = np.datetime64("2003-01-05") + np.arange(0, int(years * 365.25), every) * DAY
    t = (time - time[0]).astype(float) / 365.25
    wander = yearly * autocorrelated(rng, (n, years), 0.6)
    season = 0.15 * np.cos(2 * np.pi * t) + 0.05 * np.sin(4 * np.pi * t + rng.uniform(0, 6, (n, 1)))
    y = 0.5 + season + wander[:, t.astype(int)] + 0.03 * autocorrelated(rng, (n, t.size), r)
    # sd of a year's mean, which steps and slopes are told in
    unit = np.hypot(yearly, 0.03 * np.sqrt((1 + r) / (1 - r) / (365.25 / every)))
    place = rng.uniform(0.12, 0.88, (n, 1)) * years
    y += unit * (step_sd * (t >= place) + slope_sd * t / t[-1])
    y[rng.random(y.shape) < gaps] = np.nan
    return geoalign.new_stack({"ndvi": y.T.reshape(t.size, -1, 60)}, time)


SLOW = {
    "20 years, white": {"r": 0.0},
    "20 years, AR(1) .6": {},
    "and of years, as large": {"yearly": 0.02},
    "30 years, AR(1) .6": {"years": 30, "every": 16},
    "12 years, AR(1) .6": {"years": 12, "every": 16},
}


def trends(n, seeds):
    lines = [f"`trend`, alpha .05, {seeds} x {n} pixels a cell: share called a trend. Steps fall anywhere but in the outer eighths; noise of scenes.",
             "", f"| | {' | '.join(SLOW)} |", "|---" * (1 + len(SLOW)) + "|"]  # fmt: skip
    for name, options in (
        ("no trend", {}),
        *((f"a step of {k} sd of a year's mean", {"step_sd": k}) for k in (2, 3, 4, 6, 8, 12)),
        *((f"a trend of {k} sd in all", {"slope_sd": k}) for k in (4, 6, 8)),
    ):
        cells = []
        for noise in SLOW.values():
            shares = [
                changed(geoalign.detect(slow(60 + k, n, **noise, **options), "trend")).mean() for k in range(seeds)
            ]
            cells.append(f"{float(np.mean(shares)):.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def same_ground(seed, n, share=0.1, looks=4.4):
    """Stacks of NDVI and of VV, VH of the same pixels; day of change (n,), NaT = none. Four years."""
    rng = np.random.default_rng(seed)
    true = rng.random(n) < share
    first = np.datetime64("2019-01-01")
    day = np.where(true, first + rng.integers(500, 1200, n) * DAY, np.datetime64("NaT"))
    t_opt = first + np.cumsum(rng.integers(4, 9, 220)) * DAY
    t_sar = first + np.arange(0, 1420, 12) * DAY
    loss, drop = rng.uniform(0.08, 0.45, (n, 1)), rng.uniform(0.8, 5.0, (n, 1))
    x = (t_opt - first).astype(float) / 365.25
    ndvi = 0.65 + 0.1 * np.cos(2 * np.pi * (x + rng.normal(0, 0.04, (n, 1)))) + rng.normal(0, 0.03, (n, x.size))
    ndvi = np.where(true[:, None] & (t_opt >= day[:, None]), ndvi - loss, ndvi)
    ndvi = np.where(rng.random(ndvi.shape) < 0.01, rng.uniform(0, 0.4, ndvi.shape), ndvi)
    ndvi[rng.random(ndvi.shape) < 0.55] = np.nan
    fall = np.where(true[:, None] & (t_sar >= day[:, None]), drop, 0.0)
    power = {b: 10 ** ((level - k * fall) / 10) * rng.gamma(looks, 1 / looks, fall.shape)
             for b, level, k in (("vv", -8.0, 0.5), ("vh", -14.0, 1.0))}  # fmt: skip

    def stack(bands, time):
        return geoalign.new_stack({b: v.T.reshape(time.size, -1, 60) for b, v in bands.items()}, time)

    return stack({"ndvi": ndvi}, t_opt), stack(power, t_sar), day.reshape(-1, 60)


def fusion(seeds, n):
    """`fuse` beside each sensor alone: found, false, days after the change, reliability at the stated prior."""
    table = {name: [] for name in ("NDVI, `breaks`", "SAR, `gamma_glr`", "`fuse`")}
    later = []
    for seed in range(40, 40 + seeds):
        optical_stack, sar, day = same_ground(seed, n)
        true = ~np.isnat(day)
        one = geoalign.detect(optical_stack, "breaks", prior=0.1)
        other = geoalign.detect(sar, "gamma_glr", prior=0.1, enl=4.4)
        both = geoalign.fuse({"optical": one, "sar": other}, prior=0.1)
        for name, found in zip(table, (one, other, both)):
            hit = changed(found).values
            lag = (found.date.values.astype("datetime64[D]") - day)[hit & true].astype(float)
            table[name].append((hit[true].mean(), hit[~true].mean(), np.median(lag), np.mean(np.abs(lag) <= 30),
                                reliability(found.probability, true, prior=0.1).error))  # fmt: skip
        dates = np.stack(
            [np.where(changed(c), c.date, np.datetime64("2200-01-01")).astype("datetime64[D]") for c in (one, other)]
        )
        common = true & changed(both).values & (np.abs((dates.min(0) - day).astype(float)) < 180)
        later.append((both.date.values.astype("datetime64[D]") > dates.min(0))[common].mean())
    lines = ["| same ground, four years | found | false | days after the change, median | within 30 days | "
             "reliability error |", "|---|---|---|---|---|---|"]  # fmt: skip
    for name, rows in table.items():
        found, false, lag, near, gap = np.mean(rows, axis=0)
        lines.append(f"| {name} | {found:.3f} | {false:.4f} | {lag:.0f} | {near:.2f} | {gap:.3f} |")
        print(lines[-1], flush=True)
    lines += ["", f"Dated later by `fuse` than by the earlier of the two: {np.mean(later):.4f} of the found changes."]
    print(lines[-1], flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["themes", "trends", "fusion"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", type=int, default=96)
    options = parser.parse_args()
    if "fusion" in options.parts:
        write_section("optical.py: fusion", fusion(options.seeds, 12000))
    if "trends" in options.parts:
        write_section("optical.py: trends", trends(1500, options.seeds))
    if "themes" in options.parts:
        lines = [f"{options.seeds} worlds a row, {options.side} px.", "", *themes(options.seeds, options.side)]
        write_section("optical.py: themes", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
