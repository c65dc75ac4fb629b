"""The same bits from threads, from processes and from any size of tile; workers and schedulers may die."""

import os
import shutil
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from geoalign.errors import ConfigError, GeoalignError
from geoalign.monitor import Monitor, cluster
from tests.monitor.watched import Watched


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Watched(tmp_path_factory.mktemp("cluster") / "site", size=40, n_history=16, n_watched=5, clearing=1,
                   hole=(8, 20, 10, 24))  # fmt: skip
    site.write_site("tile_px = 16\n")
    site.write_many(range(site.n))
    monitor = Monitor(site.site, threads=2)
    monitor.visit(now=_now(site))
    return site, monitor.fingerprint()


def _now(site):
    return float(site.times[-1].astype("datetime64[s]").astype(int))


def _again(site, folder, text):
    other = replace(site, folder=folder)
    shutil.copytree(site.folder / "scenes", folder / "scenes")
    other.write_site(text)
    return other


def _comparable(prints):
    """Rasters and alerts; chains and states are named by tiles."""
    return {k: v["layers"] if isinstance(v, dict) else v for k, v in prints.items()}


@pytest.mark.parametrize("tile_px", [17, 64])
def test_the_size_of_tiles_changes_not_a_bit(site, tmp_path, tile_px):
    plain, expected = site
    monitor = Monitor(_again(plain, tmp_path / "site", f"tile_px = {tile_px}\n").site, threads=3)
    monitor.visit(now=_now(plain))
    assert _comparable(monitor.fingerprint()) == _comparable(expected)


@pytest.mark.slow
def test_a_model_that_looks_around_its_pixels_does_not_see_the_tiles(site, tmp_path):
    """With `sigma_px` a start takes gradients over the neighbours: tiles must not have edges there."""
    plain, _ = site
    prints = []
    for tile_px in (16, 64):
        aligned = replace(plain, folder=tmp_path / f"site{tile_px}", register=True, size=64, n_watched=3)
        aligned.write_site(f"tile_px = {tile_px}\n")
        if prints:
            shutil.copytree(tmp_path / "site16" / "scenes", aligned.folder / "scenes", dirs_exist_ok=True)
        else:
            aligned.write_many(range(aligned.n))
        monitor = Monitor(aligned.site, threads=2)
        monitor.visit(now=_now(plain))
        prints.append(_comparable(monitor.fingerprint()))
    assert prints[0] == prints[1]


def test_no_client_answers_and_two_ways_at_once_are_told(monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_S", 1)
    with pytest.raises(ConfigError, match="either --workers"), cluster.runner(workers=2, scheduler="tcp://x:1"):
        pass
    with pytest.raises(GeoalignError, match="no scheduler answers"), cluster.runner(scheduler="tcp://127.0.0.1:9"):
        pass


@pytest.mark.slow
def test_two_processes_give_the_bits_of_threads_and_a_killed_worker_changes_nothing(site, tmp_path, monkeypatch):
    plain, expected = site
    other = _again(plain, tmp_path / "site", "tile_px = 16\n")
    killed = []
    plain_runner = cluster.runner

    def watched_runner(**options):
        return _Killing(plain_runner(**options), killed)

    monkeypatch.setattr("geoalign.monitor.runner", watched_runner)
    monitor = Monitor(other.site, workers=2, threads=2)
    monitor.visit(now=_now(plain))
    assert killed
    assert monitor.fingerprint() == expected


class _Killing:
    """A runner whose cluster loses a worker in the middle of its tasks."""

    def __init__(self, context, killed):
        self.context, self.killed = context, killed

    def __enter__(self):
        hands = self.context.__enter__()
        assert "127.0.0.1" in hands.dashboard or not hands.dashboard
        workers = hands.client.run(os.getpid)

        def kill():
            time.sleep(2.0)
            pid = next(iter(workers.values()))
            try:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
            except ProcessLookupError:
                pass

        self.thread = threading.Thread(target=kill)
        self.thread.start()
        return hands

    def __exit__(self, *exc):
        self.thread.join()
        return self.context.__exit__(*exc)


@pytest.mark.slow
def test_a_scheduler_that_dies_leaves_the_next_visit_to_go_on(site, tmp_path):
    from distributed import LocalCluster

    plain, expected = site
    other = _again(plain, tmp_path / "site", "tile_px = 16\n")
    with LocalCluster(
        n_workers=1, threads_per_worker=1, protocol="tcp://", dashboard_address=None, processes=False
    ) as running:
        address = running.scheduler_address
        steps = []

        def on_step(name):
            steps.append(name)
            if name == "fold":
                running.close(timeout=5)

        with pytest.raises((GeoalignError, OSError, RuntimeError)):
            Monitor(other.site, scheduler=address).visit(now=_now(plain), on_step=on_step)
    monitor = Monitor(other.site, threads=1)
    assert not (monitor.folder / "latest").exists()
    kept = sorted((monitor.folder / "evidence").iterdir())
    assert len(kept) == plain.n
    monitor.visit(now=_now(plain))
    assert monitor.fingerprint() == expected
    assert sorted((monitor.folder / "evidence").iterdir()) == kept
    assert np.all([p.stat().st_size for p in kept])
