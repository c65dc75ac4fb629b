"""Scenes that can't be tied to the baseline are rejected with the reason, and nothing is computed from them."""

from dataclasses import replace

import numpy as np
import pytest

from geoalign.monitor import Monitor
from tests.monitor.watched import Watched


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A site with registration whose baseline is frozen."""
    site = Watched(tmp_path_factory.mktemp("site"), size=64, n_history=17, n_watched=8, register=True, moved_px=0.5)
    site.write_site()
    site.write_many(site.history())
    monitor = Monitor(site.site)
    monitor.visit(now=now_of(site, site.n_history))
    return site, monitor


def now_of(site, k):
    return float(site.times[min(k, site.n - 1)].astype("datetime64[s]").astype(int)) + 86400


def another_ground(site, k):
    return replace(site, seed=site.seed + 77).bands(k)


def flat_water(site, k):
    rng = np.random.default_rng(k)
    return {b: (0.04 + rng.normal(0, 0.002, (site.size, site.size))).astype("f4") for b in ("red", "nir")}


def far_off(site, k):
    return {b: np.roll(v, (31, 27), (0, 1)) for b, v in site.bands(k).items()}


@pytest.mark.parametrize("make", [another_ground, flat_water, far_off])
def test_a_scene_that_does_not_fit_the_baseline_is_rejected_and_moves_nothing(frozen, make):
    site, monitor = frozen
    before = monitor.fingerprint()
    k = site.n_history + [another_ground, flat_water, far_off].index(make)
    site.write(k, bands=make(site, k))
    done = monitor.visit(now=now_of(site, k))
    assert [s["status"] for s in done.scenes] == ["rejected"]
    assert "registration_failed" in done.scenes[0]["reason"]
    assert done.exit_code == 3
    assert monitor.fingerprint() == before
    assert done.health["status"] != "ok"
