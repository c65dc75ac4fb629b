"""What a visit costs: late in the life of a site against early, and a fold against the bare kernels.

    python benchmarks/monitor_cost.py

Times are of the processor, on one thread; other work on the machine does not enter.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results import write_section

from geoalign.detectors.watch import Watch
from geoalign.kernels.watch import fold as kernel
from geoalign.kernels.watch_report import verdict
from geoalign.monitor import Monitor, evidence, fold
from tests.monitor.watched import Watched

HISTORY, EARLY, LATE, ROUNDS = 16, 8, 98, 7


def ageing(root, size):
    """CPU seconds of a visit about the 10th and about the 100th of two sites, in turns: the quickest of each.

    In turns, since a process that has done a hundred visits is slower by itself; other work on the machine only adds.
    """
    sites, spent = {}, {EARLY: [], LATE: []}
    for age in spent:
        site = Watched(root / f"age{age}", size=size, n_history=HISTORY, n_watched=LATE + ROUNDS, clearing=3, gap=5,
                       hole=(8, 24, 10, 30))  # fmt: skip
        site.write_site()
        site.write_many(site.history())
        monitor = Monitor(site.site, threads=1)
        now = float(site.times[-1].astype("datetime64[s]").astype(int))
        monitor.visit(now=now)
        watched = list(site.watched())
        for k in watched[:age]:
            site.write(k)
            monitor.visit(now=now)
        sites[age] = site, monitor, watched[age:], now
    for turn in range(ROUNDS):
        for age, (site, monitor, left, now) in sites.items():
            site.write(left[turn])
            begin = time.process_time()
            monitor.visit(now=now)
            spent[age].append(time.process_time() - begin)
    return min(spent[EARLY]), min(spent[LATE])


def throughput(root, side, n_scene):
    """Seconds for n_scene scenes of side x side: (the kernels alone, a tile's fold with all its files, of one scene)."""
    site = Watched(root / "fold", size=side, n_history=HISTORY, n_watched=n_scene, clearing=3)
    site.write_site(f"tile_px = {side}\n")
    site.write_many(site.history())
    now = float(site.times[-1].astype("datetime64[s]").astype(int))
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=now)
    site.write_many(site.watched())
    work, spans = {}, []
    plain = fold.fold_tile

    def timed(job):
        begin = time.process_time()
        found = plain(job)
        spans.append(time.process_time() - begin)
        work.setdefault("job", job)
        return found

    fold.fold_tile = timed
    try:
        monitor.visit(now=now)
    finally:
        fold.fold_tile = plain
    job = work["job"]
    frame, tile = fold.Frame.of(job["frame"]), job["tile"]
    start = fold.state_path(Path(job["folder"]), job["first"], tile)
    state = fold.load_state(start)[0]
    values = [evidence.read_tile(Path(job["root"]), s.scene.key, tile) for s in job["steps"]]
    alone = [kernels(job["detector"], state, values, job["steps"], frame) for _ in range(3)]
    one = {**job, "steps": job["steps"][:1], "keep": [job["steps"][0].hash]}
    return (
        min(alone, key=sum),
        min(spans[-1], *(written(plain, job) for _ in range(3))),
        min(written(plain, one) for _ in range(3)),
    )


def written(task, job):
    """CPU seconds of a fold whose files are not there yet, as in a visit."""
    folder, tile = Path(job["folder"]), job["tile"]
    fold.frames_path(folder, job["first"], job["steps"][-1].hash, tile).unlink(missing_ok=True)
    for step in job["keep"]:
        fold.state_path(folder, step, tile).unlink(missing_ok=True)
    begin = time.process_time()
    task(job)
    return time.process_time() - begin


def kernels(detector: Watch, state, values, steps, frame):
    """CPU seconds of `kernels.watch.fold` and `kernels.watch_report.verdict` alone, scene by scene, arrays in memory."""
    import geoalign.detectors.watch as module

    spent = [0.0, 0.0]

    def timed(which, function):
        def call(*args):
            begin = time.process_time()
            found = function(*args)
            spent[which] += time.process_time() - begin
            return found

        return call

    module.fold, module.verdict = timed(0, kernel), timed(1, verdict)
    try:
        for value, step in zip(values, steps):
            state = detector.update(state, evidence.stack_of([value], [step.scene], frame))
            detector.report(state)
    finally:
        module.fold, module.verdict = kernel, verdict
    return spent


def main():
    root = Path(tempfile.mkdtemp(prefix="monitor-cost-"))
    try:
        throughput(root / "warm", 64, 2)
        early, late = ageing(root, 64)
        (update, report), folded, single = throughput(root, 1024, 8)
        lines = [
            "`python benchmarks/monitor_cost.py`: processor time on one thread. Ageing: a site of 64 x 64 px, one new "
            "scene a visit, the 9th to 15th and the 99th to 105th visit of two sites in turns, the quickest of each (what else runs only adds), all of a visit counted. Fold: a tile "
            "of 1024 x 1024 px and 8 scenes in one visit, with its files (evidence read and checked, states written), "
            "against the kernels of the detector `watch` alone on arrays in memory.",
            "",
            "| what | figure |",
            "|---|---:|",
            f"| visit around the 10th, s | {early:.3f} |",
            f"| visit around the 100th, s | {late:.3f} |",
            f"| ratio (at most 1.1 asked) | {late / early:.2f} |",
            f"| kernel `fold`, million px a second | {8 * 1024**2 / update / 1e6:.1f} |",
            f"| kernels `fold` and `verdict`, million px a second | {8 * 1024**2 / (update + report) / 1e6:.1f} |",
            f"| a tile's fold with all its files, million px a second | {8 * 1024**2 / folded / 1e6:.1f} |",
            f"| ratio to both kernels | {folded / (update + report):.2f} |",
            f"| ratio to the kernel `fold` alone (at most 3 asked) | {folded / update:.2f} |",
            f"| the same with one scene in the visit: its state is read and written for it alone | "
            f"{8 * single / update:.2f} |",
        ]
        write_section("Monitoring: what a visit costs", lines)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
