"""One writer: who comes second is told who was first, and a lock that nobody holds any more is broken."""

import json
import multiprocessing
import os
import platform
import time

import pytest

from geoalign import cli
from geoalign.errors import GeoalignError
from geoalign.monitor import lock
from geoalign.publish import Locked
from tests.monitor.watched import Watched


def _hold(folder, ready, end):
    with lock.held(folder):
        ready.set()
        end.wait(30)


def test_the_second_of_two_visits_exits_75_and_names_process_and_host(tmp_path, capsys):
    site = Watched(tmp_path)
    site.write_site()
    folder = tmp_path / "out" / "monitor"
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(folder, ready, end))
    other.start()
    assert ready.wait(30)
    try:
        assert cli.main(["monitor", str(site.site)]) == 75
        said = capsys.readouterr().err
        assert f"process {other.pid} on {platform.node()}" in said
        assert not (folder / "ledger.sqlite").exists()
    finally:
        end.set()
        other.join()
    with lock.held(folder):
        assert lock.holder(folder)["pid"] == os.getpid()
    assert lock.holder(folder) is None


def _lease(folder, **other):
    known = {"pid": 2**22 - 3, "host": platform.node(), "boot": lock.boot_id(), "renewed": time.time(), "seconds": 60,
             "since": "2026-01-01T00:00:00Z"}  # fmt: skip
    (folder / lock.LEASE).write_text(json.dumps(known | other))


def test_the_lease_of_a_dead_process_of_this_machine_is_broken(tmp_path, caplog):
    _lease(tmp_path)
    with lock.held(tmp_path):
        assert lock.holder(tmp_path)["pid"] == os.getpid()
    assert "which is gone: broken" in caplog.text


def test_the_lease_of_another_machine_is_respected_until_it_expires(tmp_path, caplog):
    _lease(tmp_path, host="elsewhere", pid=17)
    with pytest.raises(Locked, match="process 17 on elsewhere") as told, lock.held(tmp_path):
        pass
    assert told.value.exit_code == 75
    _lease(tmp_path, host="elsewhere", pid=17, renewed=time.time() - 61)
    with lock.held(tmp_path):
        pass
    assert "broken" in caplog.text


def test_a_clock_that_was_set_back_does_not_break_the_lease_of_another_machine(tmp_path):
    _lease(tmp_path, host="elsewhere", pid=17, renewed=time.time() + 86400)
    with pytest.raises(Locked), lock.held(tmp_path):
        pass


def test_where_the_file_system_has_no_locks_the_lease_alone_decides(tmp_path, monkeypatch):
    import fcntl

    def none(stream, flags):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    _lease(tmp_path, pid=os.getppid())
    with pytest.raises(Locked), lock.held(tmp_path):
        pass
    _lease(tmp_path, boot="another start of this machine", pid=os.getppid())
    with lock.held(tmp_path):
        pass


def test_the_lease_is_renewed_while_the_lock_is_held(tmp_path):
    with lock.held(tmp_path, lease_seconds=0.2):
        first = lock.holder(tmp_path)["renewed"]
        time.sleep(0.3)
        assert lock.holder(tmp_path)["renewed"] > first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written_to_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(GeoalignError, match="can't be written to"), lock.held(tmp_path):
        pass


def test_a_folder_that_refuses_to_be_written_to_is_told(tmp_path, monkeypatch):
    import builtins

    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(GeoalignError, match="can't be written to: Permission denied"), lock.held(tmp_path):
        pass
