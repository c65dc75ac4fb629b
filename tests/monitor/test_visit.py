"""A visit end to end: scenes on disk become alerts whose place and life are known."""

import json
import os

import geopandas as gpd
import numpy as np
import pytest

from geoalign import read_changes
from geoalign.errors import ConfigError, NoUsableData
from geoalign.monitor import Monitor
from geoalign.monitor.alerts import Alert, alert_frame
from tests.monitor.watched import Watched


def _now(site, k=-1):
    return float(site.times[k].astype("datetime64[s]").astype(int)) + 86400.0


def test_a_clearing_is_first_seen_then_provisional_then_confirmed_at_its_place(tmp_path):
    site = Watched(tmp_path)
    site.write_site()
    site.write_many(site.history())
    monitor = Monitor(site.site, threads=1)
    assert monitor.visit(now=_now(site)).alerts == {}
    life = []
    for k in site.watched():
        site.write(k)
        result = monitor.visit(now=_now(site, k))
        assert result.exit_code == 0
        life.append(result.alerts)
    assert life[: site.clearing] == [{}] * site.clearing
    assert [next(iter(found)) for found in life[site.clearing : site.clearing + 3]] == [
        "first", "provisional", "confirmed",
    ] or life[site.clearing + 2] == {"confirmed": 1}  # fmt: skip
    assert life[-1] == {"confirmed": 1}
    document = json.loads((result.folder / "alerts" / "alerts.json").read_text())
    alert = Alert.of(document["alerts"][0])
    assert alert.date == str(site.times[site.n_history + site.clearing])[:10]
    frame = alert_frame([alert], _geobox(site))
    r0, r1, c0, c1 = site.hole
    box = (500000 + 10 * c0, 5400000 - 10 * r1, 500000 + 10 * c1, 5400000 - 10 * r0)
    truth = gpd.GeoSeries.from_wkt([_box(box)], crs=frame.crs)
    both = frame.geometry[0].intersection(truth[0]).area / frame.geometry[0].union(truth[0]).area
    assert both > 0.9
    layers = read_changes(result.folder / "layers" / "clearing").load()
    held = np.zeros(layers.status.shape, bool)
    for row, start, stop in alert.runs:
        held[row, start:stop] = True
    assert (layers.status.values[held] == 3).all()
    assert os.path.realpath(monitor.folder / "latest") == str(result.folder)
    again = monitor.visit(now=_now(site))
    assert not again.new
    assert again.generation == result.generation
    assert again.scenes == []
    assert again.changes == []


def test_a_site_whose_detector_can_not_watch_names_those_that_can(tmp_path):
    site = Watched(tmp_path)
    site.write_site(theme='[[detect]]\ndetector = "harmonic_cusum"\nindex = "ndvi"\n')
    with pytest.raises(ConfigError, match=r"can't watch.*bayts.*sccd.*watch"):
        Monitor(site.site)


def test_a_site_without_enough_baseline_says_so_and_freezes_nothing(tmp_path):
    site = Watched(tmp_path, n_history=5)
    site.write_site()
    site.write_many(site.history())
    with pytest.raises(NoUsableData, match="16 or more"):
        Monitor(site.site, threads=1).visit(now=_now(site))
    more = Watched(tmp_path, n_history=18)
    for k in more.history():
        more.write(k)
    more.write_site()
    assert Monitor(more.site, threads=1).visit(now=_now(more)).alerts == {}


@pytest.mark.slow
def test_scenes_that_are_displaced_are_brought_to_the_baseline(tmp_path):
    site = Watched(tmp_path, register=True, moved_px=0.7, size=64)
    site.write_site()
    site.write_many(range(site.n))
    result = Monitor(site.site, threads=1).visit(now=_now(site))
    assert all(s["status"] in ("valid", "baseline") for s in result.scenes)
    document = json.loads((result.folder / "alerts" / "alerts.json").read_text())
    alert = max((Alert.of(a) for a in document["alerts"]), key=lambda a: a.n_pixels)
    assert alert.status == "confirmed"
    r0, r1, c0, c1 = site.hole
    inside = sum(max(0, min(b, c1) - max(a, c0)) for r, a, b in alert.runs if r0 <= r < r1)
    assert inside > 0.9 * (r1 - r0) * (c1 - c0)
    assert alert.n_pixels < 1.3 * (r1 - r0) * (c1 - c0)


def _geobox(site):
    from odc.geo.geobox import GeoBox

    return GeoBox.from_bbox(
        (500000, 5400000 - 10 * site.size, 500000 + 10 * site.size, 5400000), "EPSG:32633", resolution=10
    )


def _box(bounds):
    import shapely

    return shapely.box(*bounds).wkt


def test_the_frame_of_no_alerts_has_all_columns(tmp_path):
    frame = alert_frame([], _geobox(Watched(tmp_path)))
    assert len(frame) == 0
    assert {"id", "revision", "status", "geometry"} <= set(frame.columns)
    assert np.issubdtype(frame["date"].dtype, np.datetime64)


def test_a_history_of_less_than_a_year_is_told_by_visits_and_by_doctor(tmp_path, caplog):
    site = Watched(tmp_path / "short", size=24, n_history=16, n_watched=2)
    site.write_site()
    site.write_many(site.history())
    now = float(site.times[-1].astype("datetime64[s]").astype(int))
    monitor = Monitor(site.site, threads=1)
    told = monitor.visit(now=now).health
    assert told["status"] == "ok"
    assert "learned from 150 days, less than a year" in told["notes"][0]
    assert sum("less than a year" in r.getMessage() for r in caplog.records) == 1
    assert [(f.what, f.status) for f in monitor.doctor() if f.status != "ok"] == [("history clearing", "doubtful")]
    assert monitor.history()["events"][0]["kind"] == "short_history"
    whole = Watched(tmp_path / "whole", size=24, n_history=16, n_watched=2, gap=24)
    whole.write_site()
    whole.write_many(whole.history())
    now = float(whole.times[-1].astype("datetime64[s]").astype(int))
    monitor = Monitor(whole.site, threads=1)
    assert monitor.visit(now=now).health["notes"] == []
    assert all(f.status == "ok" for f in monitor.doctor())
