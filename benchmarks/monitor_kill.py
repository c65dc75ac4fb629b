"""Visits killed at random times, again and again, with a reader that never stops looking.

    python benchmarks/monitor_kill.py [kills [minutes]]

A small site with new scenes is visited in a process of its own, which SIGKILL ends at a random time; a second visit has
to make all of it good: states, rasters, alerts and the log of deliveries as in a visit that nobody disturbed. All the
while a reader follows `latest` and holds every file of what it finds against the manifest there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results import write_section

from geoalign.monitor import LEDGER, Monitor
from geoalign.monitor.ledger import Ledger
from tests.monitor.watched import Watched


class Reader(threading.Thread):
    """Reads what `latest` points to, whole, and counts what does not fit its manifest."""

    def __init__(self):
        super().__init__(daemon=True)
        self.folder, self.reads, self.mixed, self.generations = None, 0, [], set()
        self.go, self.idle, self.end = threading.Event(), threading.Event(), False

    def run(self):
        while not self.end:
            if not self.go.wait(0.05):
                self.idle.set()
                continue
            self.idle.clear()
            try:
                # as a GIS does: the link is followed once, then the files under it are opened
                place = Path(os.path.realpath(self.folder / "latest"))
                told = json.loads((place / "manifest.json").read_text())
                for name, record in told["files"].items():
                    data = (place / name).read_bytes()
                    if len(data) != record["bytes"] or hashlib.sha256(data).hexdigest() != record["sha256"]:
                        self.mixed.append(f"{place.name}/{name}")
                self.generations.add((self.folder, place.name))
            except (OSError, ValueError) as err:
                self.mixed.append(str(err))
            self.reads += 1
            time.sleep(0.05)

    def pause(self):
        self.go.clear()
        self.idle.wait()


PHASE_TEXT = {"whole": "the whole visit", "after": "what follows publication"}
PHASES = ("find", "baseline", "evidence", "fold", "publish")


def visit(path, now, told=None):
    """A visit; `told` is where it says which step it begins."""
    Monitor(path, threads=1).visit(now=now, on_step=told.send if told else None)


def moments(span):
    """When visits are killed: (phase to wait for, seconds after it), for ever.

    In turns evenly over the whole length of a visit, over each of its steps, and over what follows once `latest` leads
    to the new generation. span : seconds of each phase, and of "whole" and "after".
    """
    while True:
        for phase in ("whole", *(p for p in PHASES if p != "baseline"), "after", "after"):
            yield phase, random.uniform(0, span[phase])


def reach(child, told, latest, before, phase):
    """Wait until a visit comes to a phase, or is over."""
    while child.is_alive() and phase != "whole":
        if phase == "after":
            if os.readlink(latest) != before:
                return
            time.sleep(0.0002)
        elif told.poll(0.01) and told.recv() == phase:
            return


def spans(context, plain, calm, now):
    """Seconds of each phase of an undisturbed visit, the quickest of four, once everything is loaded."""
    found = []
    for _ in range(4):
        shutil.rmtree(calm.folder, ignore_errors=True)
        shutil.copytree(plain.folder, calm.folder, symlinks=True)
        latest = calm.folder / "out/monitor/latest"
        before, stamps = os.readlink(latest), {}
        told, tell = context.Pipe(False)
        begin = time.perf_counter()
        child = context.Process(target=visit, args=(str(calm.site), now, tell))
        child.start()
        tell.close()
        while child.is_alive():
            if "after" not in stamps and os.readlink(latest) != before:
                stamps["after"] = time.perf_counter()
            with contextlib.suppress(EOFError):
                if told.poll(0.0005):
                    stamps[told.recv()] = time.perf_counter()
        child.join()
        assert child.exitcode == 0
        end = time.perf_counter()
        edges = [stamps[p] for p in PHASES] + [stamps["after"]]
        found.append({"whole": end - begin, "after": end - stamps["after"]}
                     | {p: b - a for p, a, b in zip(PHASES, edges, edges[1:])})  # fmt: skip
    return min(found, key=lambda f: f["whole"])


def state_of(monitor):
    with Ledger(monitor.folder / LEDGER, readonly=True) as ledger:
        rows = ledger.rows("SELECT alert, revision, status, record FROM revisions ORDER BY alert, revision")
    return json.dumps([monitor.fingerprint(), rows], sort_keys=True)


def main(kills, minutes):
    end = time.monotonic() + 60 * minutes
    root = Path(tempfile.mkdtemp(prefix="monitor-kill-"))
    plain = Watched(root / "plain", size=32, n_history=16, n_watched=6, clearing=1, hole=(8, 18, 10, 22))
    plain.write_site("tile_px = 16\n")
    plain.write_many(plain.history())
    watched = list(plain.watched())
    plain.write_many(watched[:2])
    now = float(plain.times[-1].astype("datetime64[s]").astype(int))
    visit(plain.site, now)
    plain.write_many(watched[2:])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.monitor.preload"])
    calm = replace(plain, folder=root / "calm")
    span = spans(context, plain, calm, now)
    print({k: round(v, 3) for k, v in span.items()}, flush=True)
    expected = state_of(Monitor(calm.site, threads=1))
    random.seed(0)
    reader = Reader()
    reader.start()
    finished, wrong, doubtful, died, seen_new = 0, [], [], {}, 0
    for k, (phase, delay) in zip(range(10 * kills), moments(span)):
        if sum(died.values()) == kills or time.monotonic() > end:
            break
        mine = replace(plain, folder=root / "mine")
        shutil.rmtree(mine.folder, ignore_errors=True)
        shutil.copytree(plain.folder, mine.folder, symlinks=True)
        monitor = Monitor(mine.site, threads=1)
        reader.folder = monitor.folder
        before = os.readlink(monitor.folder / "latest")
        reader.go.set()
        told, tell = context.Pipe(False)
        child = context.Process(target=visit, args=(str(mine.site), now, tell))
        child.start()
        tell.close()
        with contextlib.suppress(EOFError):
            reach(child, told, monitor.folder / "latest", before, phase)
        child.join(delay)
        with contextlib.suppress(ProcessLookupError):  # it may end just now
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        if child.exitcode == -signal.SIGKILL:
            died[phase] = died.get(phase, 0) + 1
            seen_new += os.readlink(monitor.folder / "latest") != before
        else:
            finished += 1
        monitor.visit(now=now)
        reader.pause()
        if state_of(monitor) != expected:
            wrong.append(k)
        if k % 10 == 9:
            doubtful += [f.detail for f in monitor.doctor() if f.status == "bad"]
    reader.end = True
    lines = [
        "`python benchmarks/monitor_kill.py`: visits of a small site (32 px, four tiles, four new scenes) killed by "
        "SIGKILL at random times: in turns evenly over the whole of a visit, over each of its steps, and over what follows "
        "once `latest` leads to the new generation. The next visit has to give the states, rasters, "
        "alerts and log of deliveries of a visit that nobody disturbed. A reader follows `latest` all the while and "
        "holds every file against the manifest beside it.",
        "",
        "| what | figure |",
        "|---|---:|",
        f"| visits killed | {sum(died.values())} |",
        *(f"| drawn over {PHASE_TEXT.get(p, p)} | {n} |" for p, n in died.items()),
        f"| killed after the new generation was published | {seen_new} |",
        f"| that were done before they could be killed (not counted) | {finished} |",
        f"| reruns that differ from the undisturbed visit | {len(wrong)} |",
        f"| findings of `doctor` after the rerun (every tenth) | {len(doubtful)} |",
        f"| reads of a whole generation | {reader.reads} |",
        f"| reads that found a mixture or an error | {len(reader.mixed)} |",
    ]
    write_section("Monitoring: visits killed at random", lines)
    print(wrong[:5], doubtful[:5], reader.mixed[:5])
    shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, float(sys.argv[2]) if len(sys.argv) > 2 else 600)
