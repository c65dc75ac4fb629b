"""Scenes that come through a STAC catalogue are watched like files."""

import json

import pytest

from geoalign.errors import GeoalignError
from geoalign.monitor import Monitor
from tests.monitor.watched import Watched


def _now(site):
    return float(site.times[-1].astype("datetime64[s]").astype(int))


def _items(site, ks, updated=""):
    """An ItemCollection of scenes, hrefs relative to it."""
    features = []
    for k in ks:
        properties = {"datetime": f"{site.times[k]}Z", "platform": "sentinel-2a", "updated": updated or "2026-01-01"}
        asset = {"href": f"./scenes/{site.name(k)}.tif", "type": "image/tiff; application=geotiff",
                 "eo:bands": [{"name": "red"}, {"name": "nir"}]}  # fmt: skip
        features.append(
            {"type": "Feature", "stac_version": "1.0.0", "id": site.name(k), "properties": properties, "geometry": None,
             "bbox": None, "links": [], "assets": {"values": asset}}
        )  # fmt: skip
    path = site.folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_new_items_of_a_catalogue_are_taken_in_once(tmp_path):
    site = Watched(tmp_path, size=32, n_history=16, n_watched=4, clearing=1, hole=(8, 18, 10, 22))
    site.write_site()
    site.write_many(range(site.n))
    text = site.site.read_text().replace('scenes = "scenes"', 'stac = "items.json"')
    site.site.write_text(text)
    _items(site, site.history())
    monitor = Monitor(site.site, threads=1)
    assert len(monitor.visit(now=_now(site)).scenes) == 16
    _items(site, range(site.n), updated="2026-06-01")
    result = monitor.visit(now=_now(site))
    assert [s["scene"] for s in result.scenes] == [site.name(k) for k in site.watched()]
    assert {s["status"] for s in result.scenes} == {"valid"}
    assert sum(result.alerts.values()) == 1
    assert monitor.visit(now=_now(site)).scenes == []


def test_a_catalogue_that_can_not_be_read_is_told_and_the_visit_goes_on(tmp_path):
    site = Watched(tmp_path, size=32, n_history=16, n_watched=1)
    site.write_site()
    site.write_many(range(site.n))
    site.site.write_text(site.site.read_text().replace('scenes = "scenes"', 'stac = "items.json"'))
    path = _items(site, site.history())
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=_now(site))
    path.write_text("{ half of")
    assert monitor.visit(now=_now(site)).exit_code == 0
    assert any(e["kind"] == "source_unreachable" for e in monitor.history()["events"])
    with pytest.raises(GeoalignError, match="nobody"):
        monitor.history("nobody")
