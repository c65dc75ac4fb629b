"""What can go wrong with the scenes, the disk, the workers and the files of a site, and what a visit does then."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import threading
import time
from dataclasses import replace

import pytest

from geoalign import cli
from geoalign.errors import ConfigError, GeoalignError, StateError
from geoalign.monitor import LEDGER, Monitor, evidence, fold, ledger, store
from geoalign.monitor.ledger import Ledger
from tests.monitor.watched import write_tif

FROZEN = []
"""The site of `frozen`, as it was."""


@pytest.fixture
def site(frozen, tmp_path):
    FROZEN[:] = [frozen]
    mine = replace(frozen, folder=tmp_path / "site")
    shutil.copytree(frozen.folder, mine.folder, symlinks=True)
    return mine


def _now(site, k=-1):
    return float(site.times[k].astype("datetime64[s]").astype(int))


def _watched(site, n=None):
    return list(site.watched())[:n]


def _status(result):
    return {s["scene"]: s["status"] for s in result.scenes}


# ------------------------------------------------------------------------------------------------------- the scenes


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 0.999])
def test_a_truncated_scene_is_quarantined_and_the_others_go_on(site, share):
    ks = _watched(site, 3)
    site.write_many(ks)
    path = site.folder / "scenes" / f"{site.name(ks[1])}.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    monitor = Monitor(site.site, threads=1)
    result = monitor.visit(now=_now(site))
    assert result.exit_code == 3
    assert _status(result)[site.name(ks[1])] == "quarantined"
    assert any(path.name in s["reason"] for s in result.scenes if s["status"] == "quarantined")
    assert result.health["status"] in ("degraded", "stale")
    assert monitor.visit(now=_now(site)).scenes == []  # not opened again while it is the same
    path.write_bytes(whole)
    assert _status(monitor.visit(now=_now(site))) == {site.name(ks[1]): "valid"}
    straight = _straight(site, ks)
    assert monitor.fingerprint() == straight


def _straight(site, ks):
    """The fingerprint of a site that got scenes in order and whole, the baseline in a visit of its own."""
    other = replace(site, folder=site.folder.parent / "straight")
    shutil.copytree(FROZEN[0].folder, other.folder, symlinks=True)
    for k in ks:  # copied: GDAL may lay the same values out in another order
        shutil.copy2(site.folder / "scenes" / f"{site.name(k)}.tif", other.folder / "scenes")
    monitor = Monitor(other.site, threads=1)
    monitor.visit(now=_now(site))
    return monitor.fingerprint()


def test_a_corrupted_block_in_the_middle_of_a_file_is_found(site):
    k = _watched(site, 1)[0]
    path = site.write(k)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = b"\xff" * (2 * len(data) // 3 - len(data) // 3)
    path.write_bytes(bytes(data))
    result = Monitor(site.site, threads=1).visit(now=_now(site))
    assert _status(result)[site.name(k)] == "quarantined"


@pytest.mark.parametrize("content", [b"", b"<html><body>503 Service Unavailable</body></html>"])
def test_a_file_that_is_no_raster_is_quarantined(site, content):
    (site.folder / "scenes" / "scene_20221111.tif").write_bytes(content)
    result = Monitor(site.site, threads=1).visit(now=_now(site))
    assert _status(result) == {"scene_20221111": "quarantined"}
    assert result.exit_code == 3


def test_a_scene_without_a_crs_or_far_away_is_not_used(site):
    k = _watched(site, 1)[0]
    path = site.folder / "scenes" / f"{site.name(k)}.tif"
    write_tif(path, site.bands(k), {"datetime": f"{site.times[k]}Z", "sensor": "S2A"}, crs=None)
    monitor = Monitor(site.site, threads=1)
    result = monitor.visit(now=_now(site))
    assert "no CRS" in result.scenes[0]["reason"]
    write_tif(path, site.bands(k), {"datetime": f"{site.times[k]}Z", "sensor": "S2A"}, crs="EPSG:32634")
    result = monitor.visit(now=_now(site))
    assert any(s["status"] == "rejected" and "overlap" in s["reason"] for s in result.scenes)
    assert monitor.status(now=_now(site))["not_used"][0]["scene"] == site.name(k)
    site.write(k)
    assert _status(monitor.visit(now=_now(site)))[site.name(k)] == "valid"


def test_a_scene_that_is_all_cloud_changes_not_a_bit_of_the_state(site):
    ks = _watched(site, 3)
    site.write_many(ks[:2])
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=_now(site))
    before = monitor.fingerprint()
    site.write(ks[2], cloud=True)
    result = monitor.visit(now=_now(site))
    assert _status(result)[site.name(ks[2])] == "empty"
    assert not result.new
    assert monitor.fingerprint() == before


def test_a_scene_that_lacks_a_band_waits_and_is_then_taken_as_it_is(site):
    k = _watched(site, 1)[0]
    values = site.bands(k)
    tags = {"datetime": f"{site.times[k]}Z", "sensor": "S2A"}
    path = site.folder / "scenes" / f"{site.name(k)}.tif"
    write_tif(path, {"nir": values["nir"]}, tags)
    monitor, now = Monitor(site.site, threads=1), _now(site)
    assert _status(monitor.visit(now=now)) == {site.name(k): "waiting"}
    assert monitor.visit(now=now - 86400).scenes == []  # a clock that was set back
    late = monitor.visit(now=now + 25 * 3600)
    assert site.name(k) in _status(late)
    assert "partial" in json.dumps(monitor.history(site.name(k))["products"])
    write_tif(path, values, tags)
    assert _status(monitor.visit(now=now + 26 * 3600))[site.name(k)] == "valid"
    assert monitor.fingerprint() == _straight(site, [k])


def test_a_scene_from_before_the_watch_that_comes_late_is_named_and_left_out(site):
    site.write(0, name="early_20220108", processing="05.00")
    path = site.folder / "scenes" / "early_20220108.tif"
    write_tif(path, site.bands(1), {"datetime": "2022-01-08T10:00:00Z", "sensor": "S2A"})
    monitor = Monitor(site.site, threads=1)
    result = monitor.visit(now=_now(site))
    assert _status(result) == {"early_20220108": "before_baseline"}
    assert monitor.visit(now=_now(site)).scenes == []


def test_an_outage_ends_no_alert_and_is_told(site):
    ks = _watched(site, 4)
    site.write_many(ks)
    monitor = Monitor(site.site, threads=1)
    during = monitor.visit(now=_now(site, ks[-1]) + 86400)
    assert during.health["status"] == "ok"
    assert during.alerts
    later = monitor.visit(now=_now(site, ks[-1]) + 60 * 86400)
    assert later.health["status"] == "stale"
    assert "not looked at" in later.health["reasons"][0]
    assert later.alerts == during.alerts
    assert later.changes == []
    told = monitor.status(now=_now(site, ks[-1]) + 60 * 86400)
    assert told["health"]["tiles"]["clearing"][0]["days"] == pytest.approx(60, abs=1)


# --------------------------------------------------------------------------------------------------------- the disk


def test_a_full_disk_leaves_what_is_published_and_the_next_visit_goes_on(site):
    ks = _watched(site, 3)
    site.write_many(ks)
    monitor = Monitor(site.site, threads=1)
    before = os.readlink(monitor.folder / "latest")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        with pytest.raises((GeoalignError, OSError)):
            monitor.visit(now=_now(site))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert os.readlink(monitor.folder / "latest") == before
    assert not list((monitor.folder / "generations").glob(".part-*"))
    monitor.visit(now=_now(site))
    assert monitor.fingerprint() == _straight(site, ks)
    assert not any(f.status == "bad" for f in monitor.doctor())


def test_a_write_that_fails_for_want_of_space_is_told_by_its_file(site, monkeypatch):
    site.write_many(_watched(site, 1))
    monitor = Monitor(site.site, threads=1)

    def full(path, arrays, attrs):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(fold, "write_arrays", full)
    assert cli.main(["monitor", str(site.site)]) == 1
    monkeypatch.undo()
    told = monitor.status(now=_now(site))
    assert told["health"]["status"] == "failed"
    assert "No space left on device" in told["health"]["reasons"][-1]
    assert json.loads((monitor.folder / "health.json").read_text())["status"] == "failed"
    assert monitor.visit(now=_now(site)).health["status"] != "failed"


# -------------------------------------------------------------------------------------------------- damaged files


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def test_a_flipped_bit_in_a_state_is_noticed_and_the_state_is_made_again(site):
    ks = _watched(site, 4)
    site.write_many(ks[:3])
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=_now(site))
    for path in (monitor.folder / "state").rglob("r00016c00000.state"):
        _flip(path)
    assert any(f.status == "bad" for f in monitor.doctor())
    site.write(ks[3])
    monitor.visit(now=_now(site))
    assert monitor.fingerprint() == _straight(site, ks)
    assert any(e["kind"] == "repaired" for e in monitor.history()["events"])


def test_damaged_evidence_is_noticed_and_rebuilt_from_its_scene(site):
    ks = _watched(site, 2)
    site.write_many(ks)
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=_now(site))
    before = monitor.fingerprint()
    with Ledger(monitor.folder / LEDGER, readonly=True) as known:
        key = known.row("SELECT key FROM evidence WHERE scene = ?", site.name(ks[0]))["key"]
    chunk = sorted((evidence.path_of(monitor.folder, key) / "c").rglob("*"))[-1]
    _flip(chunk)
    shutil.rmtree(monitor.folder / "state")
    with pytest.raises(StateError, match="rebuild"):
        monitor.visit(now=_now(site))
    monitor.rebuild(now=_now(site))
    assert monitor.fingerprint() == before
    assert not any(f.status == "bad" for f in monitor.doctor())


def test_a_missing_tile_of_evidence_is_never_taken_for_cloud(site):
    k = _watched(site, 1)[0]
    site.write(k)
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=_now(site))
    with Ledger(monitor.folder / LEDGER, readonly=True) as known:
        key = known.row("SELECT key FROM evidence WHERE scene = ?", site.name(k))["key"]
    frame = next(iter(_frames(monitor).values()))
    next(p for p in sorted((evidence.path_of(monitor.folder, key) / "c").rglob("*")) if p.is_file()).unlink()
    assert evidence.verify(monitor.folder, key, frame)


def _frames(monitor):
    from geoalign.monitor.visit import known_frames

    with Ledger(monitor.folder / LEDGER, readonly=True) as known:
        return known_frames(known)


def test_a_newer_ledger_is_refused_and_an_older_one_brought_up(site, monkeypatch):
    monitor = Monitor(site.site, threads=1)
    path = monitor.folder / LEDGER
    monkeypatch.setattr(ledger, "VERSION", ledger.VERSION + 1)
    monkeypatch.setitem(ledger.MIGRATIONS, ledger.VERSION - 1, "ALTER TABLE visits ADD COLUMN note TEXT DEFAULT '';")
    with pytest.raises(StateError, match="next visit brings it"):
        monitor.status()
    before = sqlite3.connect(path).execute("SELECT count(*) FROM evidence").fetchone()
    monitor.visit(now=_now(site))
    assert "note" in monitor.history()["visits"][0]
    assert sqlite3.connect(path).execute("SELECT count(*) FROM evidence").fetchone() == before
    monkeypatch.undo()
    with pytest.raises(StateError, match="Upgrade geoalign"):
        monitor.visit(now=_now(site))


def test_a_damaged_ledger_is_told_and_nothing_is_written(site):
    monitor = Monitor(site.site, threads=1)
    path = monitor.folder / LEDGER
    path.write_bytes(b"not a database, surely" * 100)
    with pytest.raises(StateError, match="damaged"):
        monitor.visit(now=_now(site))
    assert (monitor.folder / "latest" / "manifest.json").is_file()


def test_other_keys_than_those_of_the_baseline_are_refused(site):
    site.write_site("tile_px = 32\n")
    with pytest.raises(ConfigError, match="tile_px was 16 and is 32"):
        Monitor(site.site, threads=1).visit(now=_now(site))


def test_ids_of_visits_only_grow_when_the_clock_goes_back(site):
    monitor = Monitor(site.site, threads=1)
    numbers = [monitor.visit(now=_now(site) - 1e6 * k).number for k in range(3)]
    assert numbers == sorted(set(numbers))


# ---------------------------------------------------------------------------------------------------- to be stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_visit_that_is_asked_to_stop_ends_soon_and_keeps_what_is_done(
    site, number, code, monkeypatch, capsys, request
):
    if number == signal.SIGINT:  # a shell's background jobs ignore it, and so would the tests of such a one
        kept = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, kept))
    site.write_many(_watched(site, 3))
    monitor = Monitor(site.site, threads=1)
    plain = fold.read_tile

    asked, read = threading.Event(), []

    def slow(*args):
        read.append(args)
        if len(read) > 1:
            asked.wait(5)  # however busy the machine is, it is asked to stop before the visit is done
            time.sleep(0.5)
        return plain(*args)

    def ask():
        os.kill(os.getpid(), number)
        asked.set()

    monkeypatch.setattr(fold, "read_tile", slow)
    timer = threading.Timer(0.0, lambda: None)

    def stop(name):
        nonlocal timer
        if name == "fold":
            timer = threading.Timer(0.3, ask)
            timer.start()

    monkeypatch.setattr("geoalign.progress.progress", lambda: _Steps(stop))
    begin = time.monotonic()
    assert cli.main(["monitor", str(site.site)]) == code
    assert time.monotonic() - begin < 10
    timer.join()
    monkeypatch.undo()
    assert "stopped" in capsys.readouterr().err
    assert not store.stopping.is_set()
    assert monitor.history()["visits"][0]["status"] == "interrupted"
    monitor.visit(now=_now(site))
    assert monitor.fingerprint() == _straight(site, _watched(site, 3))


class _Steps:
    def __init__(self, call):
        self.call = call

    def __enter__(self):
        return self.call

    def __exit__(self, *exc):
        return False


# ---------------------------------------------------------------------------------------------------- command line


def test_the_command_line_visits_and_tells(site, capsys):
    Monitor(site.site, threads=1).visit()  # the folder was moved: its files are known again by their content
    site.write_many(_watched(site, 3))
    assert cli.main(["monitor", str(site.site), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["stacks"]["scenes"]["new"]) == 3
    assert cli.main(["monitor", str(site.site), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sum(result["alerts"].values()) == 1
    for words in (["status"], ["history"], ["history", result["changes"][0]["alert"][:8]], ["doctor"], ["rebuild"]):
        assert cli.main(["monitor", str(site.site), *words]) == 0
        assert capsys.readouterr().out
    assert cli.main(["monitor", "status", str(site.site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["site"] == "small"
    assert cli.main(["monitor", str(site.site), "history", "nobody"]) == 1
    assert cli.main(["monitor", str(site.site), "lok"]) == 2
    assert cli.main(["monitor", str(site.site), "retry", "nobody"]) == 2
    assert not any(f.status == "bad" for f in Monitor(site.site).doctor())


def test_health_counts_in_words():
    from geoalign.monitor.health import assess

    one = assess({}, {}, now=0.0, left_out=1, waiting=1, undelivered=1).reasons
    two = assess({}, {}, now=0.0, left_out=2, waiting=2, undelivered=2).reasons
    assert [r.partition(": ")[2].split(";")[0] for r in one] == [
        "1 scene can't be used", "1 scene still without all its bands", "1 notice could not be delivered yet",
    ]  # fmt: skip
    assert [r.partition(": ")[2].split(";")[0] for r in two] == [
        "2 scenes can't be used", "2 scenes still without all their bands", "2 notices could not be delivered yet",
    ]  # fmt: skip


def test_a_lost_ledger_is_made_again_with_the_same_alerts(site):
    monitor = Monitor(site.site, threads=1)
    site.write_many(site.watched())
    monitor.visit(now=_now(site))
    before = monitor.fingerprint()
    for path in monitor.folder.glob("ledger.sqlite*"):
        path.unlink()
    with pytest.raises(StateError, match="the ledger was lost"):
        monitor.status()
    monitor.rebuild(now=_now(site))
    assert monitor.fingerprint() == before
    assert all(f.status != "bad" for f in monitor.doctor())
    assert not list((monitor.folder / "generations").glob(".part*"))


def test_an_edited_smallest_alert_holds_for_the_alerts_that_are_there_and_can_be_taken_back(site):
    monitor = Monitor(site.site, threads=1)
    site.write_many(site.watched())
    assert monitor.visit(now=_now(site)).alerts == {"confirmed": 1}
    before, text = monitor.fingerprint(), site.site.read_text()
    site.site.write_text(text.replace("min_area_m2 = 500", "min_area_m2 = 900000"))
    result = Monitor(site.site, threads=1).visit(now=_now(site))
    assert result.alerts == {}
    assert [(c["status"], c["reason"]) for c in result.changes] == [
        ("retracted", "the site file asks for other alerts")
    ]
    site.site.write_text(text)
    monitor = Monitor(site.site, threads=1)
    assert monitor.visit(now=_now(site)).alerts == {"confirmed": 1}
    assert monitor.fingerprint() == before


def test_a_copy_does_not_give_its_name_to_the_scene_and_a_scene_elsewhere_is_refused_in_one_line(site):
    monitor = Monitor(site.site, threads=1)
    first = site.write(site.n_history)
    monitor.visit(now=_now(site))
    before = monitor.fingerprint()
    shutil.copy2(first, first.with_name(f"a_copy_of_{first.name}"))
    other = {"datetime": "2022-08-02T10:00:00Z", "sensor": "S2A"}
    write_tif(first.with_name("elsewhere.tif"), site.bands(20), other, crs="EPSG:3035")
    result = monitor.visit(now=_now(site))
    assert not result.new
    assert monitor.fingerprint() == before
    told = {s["scene"]: (s["status"], s["reason"]) for s in result.scenes}
    assert told[f"a_copy_of_{first.stem}"] == ("duplicate", f"the same bytes as {first.stem}")
    assert told["elsewhere"][0] == "rejected"
    assert told["elsewhere"][1].startswith("elsewhere: no overlap with the grid")
    assert "\n" not in told["elsewhere"][1]
