"""A simulated site, replayed: what arrives in disorder comes to what arrives at once, and is scored by the truth."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from geoalign.errors import StateError
from geoalign.monitor import Monitor
from geoalign.monitor.alerts import Alert
from geoalign.monitor.replay import judge, replay
from geoalign.simulation import MonitoredSite, simulate_monitoring

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    made = simulate_monitoring(
        tmp_path_factory.mktemp("replay"), size=64, history_days=400, watched_days=300, misregistration_px=0, seed=2
    )
    monitor = Monitor(made.site, threads=1)
    with pytest.raises(StateError):
        judge(monitor, made)
    return made, monitor, list(replay(monitor, made, idle_days=10))


def test_each_kind_of_delivery_meets_its_fate(replayed):
    made, _, visits = replayed
    fate = {}
    for done in visits:
        for scene in done.scenes:
            fate.setdefault(scene["scene"], []).append(scene["status"])
    of = {what: [d.scene for d in made.deliveries if d.what == what] for what in {d.what for d in made.deliveries}}
    assert fate[of["cut"][0]][0] == "quarantined"
    assert fate[of["cut"][0]][-1] == "valid"
    assert fate[of["cloud"][0]] == ["empty"]
    for scene in of["reprocessed"]:
        assert fate[scene][0] == "valid"
        assert "superseded" in fate[scene.removesuffix("_N0511")]
    assert len(visits) > len(list(made.batches()))


def test_the_year_in_disorder_is_the_year_at_once(replayed, tmp_path):
    made, monitor, visits = replayed
    other = MonitoredSite.load(shutil.copytree(made.folder, tmp_path / "other", ignore=shutil.ignore_patterns("out")))
    shutil.rmtree(other.folder / "scenes")
    other.deliver(d for d in other.deliveries if d.what not in ("cut", "again", "copy"))
    at_once = Monitor(other.site, threads=1)
    at_once.visit(now=pd.Timestamp(visits[-1].health["checked"]).timestamp())
    assert at_once.fingerprint() == monitor.fingerprint()


def test_the_score_is_that_of_what_was_planted(replayed):
    made, monitor, _ = replayed
    score = judge(monitor, made)
    assert len(score.events) == len(made.truth.events)
    assert score.km2 == pytest.approx(0.64**2)
    found = [e for e in score.events if e["confirmed"] is not None]
    large = [e for e in score.events if e["n_pixels"] >= 60 and e["seen"] >= 6]
    assert len(large) >= 1
    assert all(e["confirmed"] is not None for e in large)
    for event in found:
        assert event["first"] <= event["confirmed"]
        assert event["confirmed"] > event["date"]
        assert event["found"] >= 0.1
    assert np.isfinite(score.delays()).sum() == len(found)
    assert score.false <= 1


def test_one_mixed_pixel_does_not_stretch_the_interval_of_an_alert(replayed):
    _, monitor, _ = replayed
    document = json.loads((monitor.folder / "latest" / "alerts" / "alerts.json").read_text())
    alerts = [Alert.of(a) for a in document["alerts"]]
    dated = [a for a in alerts if a.status == "confirmed" and a.n_pixels >= 30]
    assert dated
    for alert in dated:
        assert alert.date_after < alert.date <= alert.date_by
        assert np.datetime64(alert.date_by) - np.datetime64(alert.date_after) < np.timedelta64(120, "D")
