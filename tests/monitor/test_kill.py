"""The law of the kill: a visit that dies at any place is made good by the next one, and readers see old or new."""

import json
import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from geoalign.monitor import Monitor, store

POINTS = (
    "baseline.before", "baseline.after", "find.before", "find.transaction", "find.after", "evidence.staged",
    "evidence.renamed", "evidence.before", "evidence.transaction", "evidence.after", "start.tile_written",
    "fold.state_written", "fold.tile_written:2", "fold.tiles_done", "fold.alerts_written", "publish.layer_written",
    "publish.feeds_written",
    "publish.staged", "publish.renamed", "publish.transaction", "publish.committed", "latest.staged",
    "latest.swapped", "tidied",
)  # fmt: skip


def test_every_point_of_the_code_is_among_those_that_are_killed_at():
    found = set()
    for path in Path(store.__file__).parent.glob("*.py"):
        found |= set(re.findall(r'\bpoint\("([a-z_.]+)"\)', path.read_text()))
    elsewhere = {"mirror.copied", "mirror.pointed"}  # of sites with a mirror: tests/monitor/test_mirror.py
    assert found == {p.partition(":")[0] for p in POINTS} | elsewhere


@pytest.fixture(scope="module")
def site(frozen, tmp_path_factory):
    """A site that was visited before, with new scenes waiting, and what an undisturbed visit makes of them."""
    plain = replace(frozen, folder=tmp_path_factory.mktemp("kill") / "plain")
    shutil.copytree(frozen.folder, plain.folder, symlinks=True)
    plain.write_many(list(plain.watched())[:2])
    Monitor(plain.site, threads=1).visit(now=_now(plain))
    calm = replace(plain, folder=plain.folder.parent / "calm")
    shutil.copytree(plain.folder, calm.folder, symlinks=True)
    return plain, calm, _prints(_finish(calm))


def _now(site):
    return float(site.times[-1].astype("datetime64[s]").astype(int))


def _finish(site):
    site.write_many(list(site.watched())[2:])
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=_now(site))
    return monitor


def _prints(monitor):
    log = [
        (r["alert"], r["revision"], r["status"], r["record"])
        for r in monitor_rows(monitor, "SELECT * FROM revisions ORDER BY alert, revision")
    ]
    return monitor.fingerprint(), log


def monitor_rows(monitor, sql):
    from geoalign.monitor import LEDGER
    from geoalign.monitor.ledger import Ledger

    with Ledger(monitor.folder / LEDGER, readonly=True) as ledger:
        return ledger.rows(sql)


def in_child(site, kill_at="") -> int:
    """A whole second visit in a process of its own; the signal that ended it, or its exit code.

    Children are forked from a server that has everything imported and no thread running: to fork a process with threads
    would be another fault than the one that is tested.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.monitor.preload"])
    child = context.Process(target=_child, args=(str(site.site), _now(site), kill_at))
    child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        raise AssertionError(f"the visit that was to be killed at {kill_at} hangs")
    return -child.exitcode


def _child(path, now, kill_at):
    os.environ[store.KILL_POINT] = kill_at
    Monitor(path, threads=1).visit(now=now)


@pytest.mark.parametrize("at", [p for p in POINTS if not p.startswith(("baseline", "start"))])
def test_a_visit_killed_anywhere_is_made_good_by_the_next(site, tmp_path, at):
    plain, _, expected = site
    mine = replace(plain, folder=tmp_path / "site")
    shutil.copytree(plain.folder, mine.folder, symlinks=True)
    before = os.readlink(mine.folder / "out/monitor/latest")
    mine.write_many(list(mine.watched())[2:])
    assert in_child(mine, at) == signal.SIGKILL
    seen = mine.folder / "out/monitor/latest"
    manifest = json.loads((seen / "manifest.json").read_text())
    assert all((seen / name).stat().st_size == told["bytes"] for name, told in manifest["files"].items())
    done = at in ("latest.swapped", "tidied")
    assert (os.readlink(seen) != before) == done
    monitor = _finish(mine)
    assert _prints(monitor) == expected
    assert not any(f.status == "bad" for f in monitor.doctor())
    assert not list(monitor.folder.rglob(".part-*"))


@pytest.mark.slow
@pytest.mark.parametrize("at", ["baseline.before", "baseline.after", "start.tile_written", "evidence.renamed:3"])
def test_a_first_visit_killed_anywhere_is_made_good_by_the_next(site, tmp_path, at):
    plain, calm, expected = site
    mine = replace(plain, folder=tmp_path / "site")
    shutil.copytree(plain.folder / "scenes", mine.folder / "scenes")
    shutil.copy(plain.site, mine.site)
    for path in list((mine.folder / "scenes").iterdir()):
        if path.stem in {mine.name(k) for k in list(mine.watched())[2:]}:
            path.unlink()
    monitor = Monitor(mine.site, threads=1)
    assert in_child(mine, at) == signal.SIGKILL
    assert not (monitor.folder / "latest").exists()
    monitor.visit(now=_now(mine))
    assert _prints(_finish(mine))[0] == expected[0]
