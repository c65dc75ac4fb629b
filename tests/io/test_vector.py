"""Polygons through files: what is written is what GIS programs and other libraries read."""

import json
import sqlite3

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from geoalign import ConfigError, polygons, write_polygons
from geoalign.io.vector import FORMATS
from tests.handmade import changes_at, random_changes

DATES = ["start_date", "end_date", "first_date", "last_date", "date_after", "date_by"]


@pytest.fixture(scope="module")
def frame():
    return polygons(random_changes(share=0.3), sensor="S1", run_id="r1", detected_at="2024-09-01T10:20:30Z")


def read(path):
    return gpd.read_parquet(path) if "parquet" in path.suffix else gpd.read_file(path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("empty", [False, True])
def test_round_trip(tmp_path, frame, suffix, empty):
    frame = frame.iloc[:0] if empty else frame
    path = write_polygons(frame, tmp_path / f"changes{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = read(path)
    assert len(again) == len(frame)
    json_like = FORMATS[suffix] == "GeoJSON"
    assert again.crs == ("EPSG:4326" if json_like else frame.crs)
    if json_like and empty:  # GeoJSON has no schema without features
        return
    assert list(again.columns) == list(frame.columns)
    # FlatGeobuf stores features in the order of its spatial index
    again = again.set_index("id").loc[frame.id].reset_index()
    for name in DATES:
        np.testing.assert_array_equal(
            pd.to_datetime(again[name]).values.astype("M8[D]"), frame[name].values.astype("M8[D]")
        )
    for name in ("change_type", "status", "sensor", "run_id", "n_pixels", "direction", "area_ha", "magnitude"):
        assert again[name].tolist() == frame[name].tolist()
    if not empty:
        assert (again.detected_at == frame.detected_at).all()
    if not json_like:
        assert shapely.equals_exact(again.geometry.values, frame.geometry.values, normalize=True).all()


@pytest.mark.parametrize("empty", [False, True])
def test_geopackage_has_one_layer_of_version_1_2_with_real_dates(tmp_path, frame, empty):
    path = write_polygons(frame.iloc[:0] if empty else frame, tmp_path / "changes.gpkg")
    assert pyogrio.list_layers(path).tolist() == [["changes", "MultiPolygon"]]
    with sqlite3.connect(path) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (10200,)
        types = {name: kind for _, name, kind, *_ in base.execute("PRAGMA table_info(changes)")}
        values = base.execute("SELECT start_date, detected_at, end_date FROM changes LIMIT 1").fetchall()
    base.close()
    assert {types[name] for name in DATES} == {"DATE"}
    assert types["detected_at"] == "DATETIME"
    assert all(name == name.lower() and name.isascii() for name in types)
    if not empty:
        start, detected, _ = values[0]
        assert start == str(frame.start_date[0].date())
        assert detected == "2024-09-01T10:20:30.000Z"


def test_geoparquet_has_dates(tmp_path, frame):
    schema = pq.read_schema(write_polygons(frame.iloc[:0], tmp_path / "changes.parquet"))
    assert {schema.field(name).type for name in DATES} == {pa.date32()}


def test_geojson_follows_rfc_7946(tmp_path, frame):
    document = json.loads(write_polygons(frame, tmp_path / "changes.geojson").read_text())
    assert "crs" not in document
    feature = document["features"][0]
    assert feature["id"] == frame.id[0]
    assert feature["properties"]["start_date"] == str(frame.start_date[0].date())
    to_degrees = frame.to_crs(4326)
    for feature, shape in zip(document["features"], to_degrees.geometry):
        for outer, *holes in feature["geometry"]["coordinates"]:
            assert shapely.LinearRing(outer).is_ccw
            assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)
            numbers = np.array(outer)
            np.testing.assert_allclose(numbers, numbers.round(7), atol=1e-12)
        found = shapely.geometry.shape(feature["geometry"])
        np.testing.assert_allclose(found.bounds, shape.bounds, atol=1e-6)  # longitude first
        assert 14 < found.bounds[0] < 16
        assert found.is_valid


def test_area_survives_geojson_to_half_a_percent(tmp_path):
    frame = polygons(changes_at(np.ones((20, 30))))
    again = gpd.read_file(write_polygons(frame, tmp_path / "a.geojson")).to_crs(frame.crs)
    np.testing.assert_allclose(again.area, frame.area, rtol=0.005)


def test_an_unknown_suffix_names_the_known_ones(tmp_path, frame):
    with pytest.raises(ConfigError, match=r"\.shp.*\.gpkg"):
        write_polygons(frame, tmp_path / "changes.shp")


def test_geojson_without_crs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no CRS"):
        write_polygons(polygons(changes_at(np.ones((2, 2)), box=None)), tmp_path / "a.geojson")


def test_a_frame_without_crs_can_be_a_geopackage(tmp_path):
    frame = polygons(changes_at(np.ones((2, 2)), box=None))
    assert len(gpd.read_file(write_polygons(frame, tmp_path / "a.gpkg"))) == 1


def test_a_failed_write_keeps_the_old_file(tmp_path, frame, monkeypatch):
    path = write_polygons(frame, tmp_path / "changes.gpkg")
    before = path.read_bytes()

    def fail(frame, path, **options):
        path.write_bytes(b"half of it")
        raise RuntimeError("disk full")

    monkeypatch.setattr(pyogrio, "write_dataframe", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_polygons(frame, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["changes.gpkg"]


def test_the_frame_is_not_changed(tmp_path, frame):
    before = frame.copy(deep=True)
    write_polygons(frame, tmp_path / "a.gpkg")
    pd.testing.assert_frame_equal(pd.DataFrame(frame), pd.DataFrame(before))


def test_times_that_are_not_days_stay_times(tmp_path, frame):
    timed = frame.assign(seen=pd.Timestamp("2024-05-01T10:00"))
    fields = pyogrio.read_info(write_polygons(timed, tmp_path / "a.gpkg"))
    assert dict(zip(fields["fields"], fields["ogr_types"]))["seen"] == "OFTDateTime"
