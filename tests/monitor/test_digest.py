import json

import pytest
import shapely
from pyproj import Transformer

from geoalign.errors import ConfigError, StateError
from geoalign.monitor.digest import digest, load_area, mark_seen
from geoalign.monitor.ledger import Ledger, insert
from tests.monitor.things import BOX, alert_of, config_of, site_of

LONLAT = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)


def area_file(path, *boxes):
    """GeoJSON of rectangles (row, col, rows, cols) of the grid."""
    features = []
    for row, col, rows, cols in boxes:
        ring = [(col, row), (col + cols, row), (col + cols, row + rows), (col, row + rows), (col, row)]
        ring = [LONLAT.transform(*(BOX.affine * point)) for point in ring]
        features.append({"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def config(tmp_path):
    area_file(tmp_path / "wood.geojson", (0, 0, 40, 40), (60, 0, 20, 20))
    return config_of(tmp_path, '[[monitor.area]]\nname = "wood"\npath = "wood.geojson"\n')


@pytest.fixture
def ledger(tmp_path, config):
    with Ledger(tmp_path / "ledger.sqlite") as made:
        yield made


def publish(ledger, config, visit, *revisions):
    site = site_of(config, visit)
    with ledger.writing() as db:
        row = {
            "started": str(site.created),
            "finished": str(site.created),
            "generation": "",
            "status": "done",
            "summary": "{}",
        }
        insert(db, "visits", row)
        for alert, change in revisions:
            row = {"alert": alert.id, "revision": alert.revision, "theme": alert.theme, "status": alert.status}
            row |= {"change": change, "record": json.dumps(alert.plain()), "visit": visit, "at": str(site.created)}
            insert(db, "revisions", row)


def test_only_what_is_new_in_the_area_since_it_was_seen(ledger, config):
    inside, outside, edge = alert_of(1), alert_of(2, row=80, col=80), alert_of(3, row=62, col=18, status="provisional")
    publish(ledger, config, 1, (inside, "new"), (outside, "new"))
    first = digest(ledger, config, "wood", BOX)
    assert [a["id"] for a in first["alerts"]] == [inside.id]
    assert first["counts"] == {"new": 1, "confirmed": 1}
    mark_seen(ledger, "wood", first["visit"])
    assert digest(ledger, config, "wood", BOX)["alerts"] == []
    publish(ledger, config, 2, (edge, "new"))
    grown = alert_of(3, row=62, col=18, revision=2)
    publish(ledger, config, 3, (grown, "status extent"), (alert_of(1, status="retracted", revision=2), "retracted"))
    second = digest(ledger, config, "wood", BOX)
    assert {a["id"]: a["change"] for a in second["alerts"]} == {
        edge.id: ["new", "status", "extent"],
        inside.id: ["retracted"],
    }
    assert second["counts"] == {"new": 1, "confirmed": 1, "retracted": 1}
    assert (second["seen"], second["visit"]) == (1, 3)
    mark_seen(ledger, "wood", 1)
    mark_seen(ledger, "wood", 3)
    mark_seen(ledger, "wood", 2)
    assert digest(ledger, config, "wood", BOX)["seen"] == 3


def test_areas_and_visits_that_are_not_there_are_named(ledger, config):
    with pytest.raises(ConfigError, match="no area 'field' \\(known: wood"):
        digest(ledger, config, "field", BOX)
    with pytest.raises(StateError, match="no visit 7"):
        mark_seen(ledger, "wood", 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "can't be read as GeoJSON"),
        ('{"type": "Point", "coordinates": [1, 2]}', "no polygon"),
        ('{"type": "Polygon", "coordinates": [[[5e5,54e5],[5e5,55e5],[6e5,55e5],[5e5,54e5]]]}', "not in degrees"),
        ('{"type": "Polygon", "coordinates": "x"}', "can't be read"),
        ("[]", "no polygon"),
    ],
)
def test_what_is_no_area_says_so(tmp_path, content, words):
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(ConfigError, match=words):
        load_area(tmp_path / "a.geojson")


def test_a_ring_that_crosses_itself_is_mended(tmp_path):
    ring = [[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    assert shapely.is_valid(load_area(tmp_path / "a.geojson"))
    assert load_area(tmp_path / "a.geojson").area == pytest.approx(0.5)
