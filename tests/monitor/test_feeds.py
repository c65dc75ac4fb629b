import json
import sqlite3

import geopandas as gpd
import pyarrow.parquet as pq
import pystac
import pytest
import shapely

from geoalign.monitor.alerts import alert_frame
from geoalign.monitor.feeds import FIELDS, feed_frame, plain_text, write_feeds
from tests.monitor.things import BOX, alert_of, config_of, site_of

SOME = [
    alert_of(1),
    alert_of(2, row=40, status="ended", date_end="2023-06-10", direction=1),
    alert_of(3, col=60, status="provisional", date_confirmed="", date_after=""),
]
GONE = [alert_of(4, row=70, status="retracted", date_retracted="2023-05-01", reason="a late scene shows no change")]


@pytest.fixture
def site(tmp_path):
    return site_of(config_of(tmp_path))


@pytest.mark.parametrize("alerts", [SOME, []], ids=["some", "none"])
def test_all_feeds_hold_the_same_fields_and_dates_are_dates(tmp_path, site, alerts):
    gone = GONE if alerts else []
    files = write_feeds(tmp_path / "alerts", alerts, gone, site)
    assert files == {
        "gpkg": "alerts.gpkg", "geojson": "alerts.geojson", "parquet": "alerts.parquet", "stac": "item.json",
    }  # fmt: skip
    folder = tmp_path / "alerts"
    geopackage, parquet = gpd.read_file(folder / "alerts.gpkg"), gpd.read_parquet(folder / "alerts.parquet")
    for frame in (geopackage, parquet):
        assert list(frame.columns) == [*FIELDS, "geometry"]
        assert len(frame) == len(alerts) + len(gone)
        assert frame.crs == BOX.crs.proj
    with sqlite3.connect(folder / "alerts.gpkg") as db:
        types = {r[1]: r[2] for r in db.execute("PRAGMA table_info(changes)")}
    dates = ("start_date", "end_date", "date_after", "date_by", "detected_at", "confirmed_at", "retracted_at")
    schema = pq.read_schema(folder / "alerts.parquet")
    for name in dates:
        assert types[name] == "DATE"
        assert str(schema.field(name).type) == "date32[day]"
    assert types["status"].startswith("TEXT")
    assert types["revision"] == "INTEGER"
    document = json.loads((folder / "alerts.geojson").read_text())
    assert [f["id"] for f in document["features"]] == [a.id for a in (*alerts, *gone)]
    if alerts:
        assert geopackage.status.tolist() == ["confirmed", "ended", "provisional", "retracted"]
        assert document["features"][1]["properties"]["end_date"] == "2023-06-10"
        assert document["features"][0]["properties"]["end_date"] is None


def test_the_item_is_valid_counts_and_leads_to_its_files(tmp_path, site):
    write_feeds(tmp_path / "alerts", SOME, GONE, site)
    item = pystac.Item.from_file(tmp_path / "alerts" / "item.json")
    assert item.properties["geoalign:alerts"] == {"confirmed": 1, "ended": 1, "provisional": 1, "retracted": 1}
    assert {a.href for a in item.assets.values()} == {"./alerts.gpkg", "./alerts.geojson", "./alerts.parquet"}
    assert item.common_metadata.start_datetime.date().isoformat() == "2023-04-01"
    assert item.common_metadata.end_datetime.date().isoformat() == "2023-06-10"
    assert shapely.is_valid(shapely.geometry.shape(item.geometry))


def test_only_the_feeds_that_are_asked_for(tmp_path):
    site = site_of(config_of(tmp_path, 'feeds = ["geojson"]'))
    assert write_feeds(tmp_path / "alerts", SOME, [], site) == {"geojson": "alerts.geojson"}
    assert [p.name for p in (tmp_path / "alerts").iterdir()] == ["alerts.geojson"]


def test_areas_and_shapes_are_those_of_the_pixels(site):
    frame = feed_frame(SOME, site)
    assert frame.geometry.is_valid.all()
    assert (frame.area / 1e4).tolist() == pytest.approx(frame.area_ha.tolist())
    assert frame.geometry.equals(alert_frame(SOME, BOX).geometry)


def test_texts_can_not_be_formulas_or_break_a_line(site):
    bad = alert_of(1, reason="=cmd|'/c calc'!A1", kind="@SUM(1)", scenes=("-2+3", "b\r\nc"))
    frame = feed_frame([bad], site)
    assert frame.reason[0].startswith("'=")
    assert frame.change_type[0].startswith("'@")
    assert frame.scenes[0].startswith("'-")
    assert "\n" not in frame.scenes[0]
    assert plain_text("  +1") == "'  +1"


def test_the_same_alerts_make_the_same_bytes_of_geojson(tmp_path, site):
    for name in ("a", "b"):
        write_feeds(tmp_path / name, SOME[:: 1 if name == "a" else -1], [], site)
    a, b = ((tmp_path / n / "alerts.geojson").read_bytes() for n in ("a", "b"))
    assert a == b
