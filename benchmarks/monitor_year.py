"""Two simulated years through `geoalign monitor`: delays, false alarms and retractions against the truth.

python benchmarks/monitor_year.py [--size 128] [--seeds 0,1,2] [--folder FOLDER] [--picture FILE]
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from results import write_section
from scipy.stats import chi2

from geoalign.monitor import Monitor
from geoalign.monitor.ledger import Ledger
from geoalign.monitor.replay import judge, replay
from geoalign.simulation import MonitoredSite, simulate_monitoring


def one(folder, size, seed):
    """(seconds of the first visit, processor seconds of each later one, Score, days to publication)."""
    made = simulate_monitoring(folder, size=size, seed=seed)
    monitor = Monitor(made.site)
    spent, begin, wall = [], time.process_time(), time.perf_counter()
    for done in replay(monitor, made):
        now = time.process_time()
        spent.append(now - begin)
        begin = now
        print(f"seed {seed} visit {done.number}: {done.alerts} {done.health['status']} {spent[-1]:.1f} s", flush=True)
    return np.array(spent), time.perf_counter() - wall, judge(monitor, made), monitor, made


def row(seed, spent, wall, score, monitor):
    year = first_year(monitor)
    with Ledger(monitor.folder / "ledger.sqlite", readonly=True) as ledger:
        rejected = ledger.row("SELECT count(*) AS n FROM evidence WHERE status = 'rejected'")["n"]
        log = ledger.rows("SELECT alert, status FROM revisions ORDER BY visit, alert, revision")
    told, gone, known = 0, 0, set()
    for entry in log:  # statuses that a webhook asks for by default
        if entry["status"] in ("confirmed", "ended"):
            told, known = told + 1, known | {entry["alert"]}
        elif entry["status"] == "retracted" and entry["alert"] in known:
            told, gone = told + 1, gone + 1
    delay = score.delays()
    days = [e["date_error"] for e in score.events if e["date_error"] is not None]
    seen = np.isfinite(delay)
    return {
        "seed": seed, "events": len(score.events), "confirmed": int(seen.sum()),
        "of >= 60 px": f"{sum(bool(s) and e['n_pixels'] >= 60 for s, e in zip(seen, score.events))} of "
        f"{sum(e['n_pixels'] >= 60 for e in score.events)}",
        "days to first": float(np.median(score.delays("first"))),
        "days to confirmed": float(np.median(delay[seen])) if seen.any() else np.nan,
        "date error, days": float(np.median(np.abs(days))) if days else np.nan,
        "false": score.false, "false /1000 km2 month": score.rate, "at most (95 %)": score.high, "km2 months": score.km2 * score.months,
        "notices of a webhook as it comes": told, "of them retractions": gone,
        "retracted before": score.retracted["before"], "retracted after": score.retracted["after_confirmed"],
        "scenes rejected": rejected, "first visit, s": float(spent[0]), "a visit, s": float(np.median(spent[1:])),
        "visits": len(spent), "first year (first visit included), s": float(spent[: year].sum()),
        "all, s (wall)": wall,
    }  # fmt: skip


def first_year(monitor) -> int:
    """Visits of the first year after `since`."""
    end = pd.Timestamp(monitor.config.monitor.since) + pd.Timedelta(days=365)
    with Ledger(monitor.folder / "ledger.sqlite", readonly=True) as ledger:
        rows = ledger.rows("SELECT started FROM visits ORDER BY id")
    return sum(pd.Timestamp(r["started"]).tz_localize(None) < end for r in rows)


def shown(value):
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def picture(monitor, made, path):
    """What was planted, what stands, and what was retracted."""
    import matplotlib
    import matplotlib.pyplot as plt

    from geoalign.monitor.alerts import Alert
    from geoalign.monitor.replay import _pixels, _planted

    matplotlib.use("Agg")
    labels, events = _planted(made.truth, monitor.config)
    with Ledger(monitor.folder / "ledger.sqlite", readonly=True) as ledger:
        rows = ledger.rows("SELECT record, max(revision) FROM revisions GROUP BY alert")
    alerts = [Alert.of(json.loads(r["record"])) for r in rows]
    stands, gone = np.zeros(labels.shape), np.zeros(labels.shape)
    for alert in alerts:
        level = {"first": 1, "provisional": 2, "confirmed": 3, "ended": 4}.get(alert.status, 0)
        stands = np.maximum(stands, level * _pixels(alert, labels.shape))
        gone += (alert.status == "retracted") * _pixels(alert, labels.shape)
    kinds = np.array([0] + [("flood", "clearing", "building").index(e.kind) + 1 for e in events])
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.5))
    for axis, image, title in zip(
        axes, (kinds[labels], stands, gone), ("planted: flood, clearing, building", "alerts, 3 confirmed 4 ended",
        "retracted, how often")):  # fmt: skip
        axis.imshow(image, cmap="viridis", interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(path, dpi=80, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder")
    parser.add_argument("--picture")
    parser.add_argument("--judge", action="store_true", help="score what an earlier run left in --folder")
    options = parser.parse_args()
    logging.getLogger("geoalign").setLevel(logging.ERROR)
    root = Path(options.folder or tempfile.mkdtemp())
    rows = []
    for seed in map(int, options.seeds.split(",")):
        folder = root / f"{options.size}-{seed}"
        if options.judge:
            made = MonitoredSite.load(folder)
            monitor = Monitor(made.site)
            times, score = json.loads((folder / "times.json").read_text()), judge(monitor, made)
            spent, wall = np.array(times["spent"]), times["wall"]
        else:
            spent, wall, score, monitor, made = one(folder, options.size, seed)
            (folder / "times.json").write_text(json.dumps({"spent": spent.round(2).tolist(), "wall": wall}))
        rows.append(row(seed, spent, wall, score, monitor))
        print(pd.DataFrame(score.events).to_string(), rows[-1], score.alerts, flush=True)
        if options.picture:
            picture(monitor, made, options.picture.replace("SEED", str(seed)))
    scores = pd.DataFrame(rows)
    false, area = int(scores["false"].sum()), float((scores["km2 months"] / 1000).sum())
    low, high = (chi2.ppf(p, 2 * n) / 2 / area if n else 0.0 for p, n in ((0.025, false), (0.975, false + 1)))
    names = [name for name in rows[0] if name != "seed"]
    table = ["| | " + " | ".join(f"seed {r['seed']}" for r in rows) + " |", "|---|" + "---|" * len(rows)]
    table += [f"| {name} | " + " | ".join(shown(r[name]) for r in rows) + " |" for name in names]
    write_section(
        "Two years watched",
        [f"`benchmarks/monitor_year.py --size {options.size} --seeds {options.seeds}`. Simulated optical site, 10 days "
        "between scenes, 30 % cloud, misregistered by 1 px, an outage of 40 days, scenes late, twice, cut and "
        "reprocessed; `watch` on NDVI at alpha 0.01, alerts of 2000 m2 or more. A confirmed alert is false where it "
        "comes no nearer than 2 px to planted change. Seconds are of one core, except those of the wall.", "",
         f"All seeds together: {false} false confirmed alerts, {false / area:.0f} per 1000 km2 and month (95 % between "
         f"{low:.0f} and {high:.0f}).", "", *table],
    )  # fmt: skip


if __name__ == "__main__":
    main()
