"""Polygons: attributes against a naive count, geometry by the simple feature rules, one answer for any chunks."""

import functools

import geopandas.testing
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio.features
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import ConfigError, StateError, polygons, vectors
from geoalign.chunked import row_blocks
from geoalign.vectors import FIELDS
from tests import naive
from tests.handmade import UTM, changes_at, day, geobox, random_changes


def stamp(text):
    return pd.Timestamp(text)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_attributes_are_those_of_a_naive_count(connectivity):
    changes = random_changes()
    frame = polygons(changes, connectivity=connectivity)
    where = changes.status.values > 0
    expected = naive.zones(np.where(where, changes.direction.values + 2, 0), connectivity)
    assert len(frame) == len(expected)
    for row, pixels in zip(frame.itertuples(), expected):
        at = tuple(np.array(sorted(pixels)).T)
        dates = np.sort(changes.date.values[at])
        assert row.n_pixels == len(pixels)
        assert row.direction == changes.direction.values[at][0]
        assert row.start_date == dates[(len(dates) - 1) // 2]
        assert (row.first_date, row.last_date) == (dates[0], dates[-1])
        assert row.date_after == changes.date_after.values[at].min()
        assert row.date_by == changes.date_by.values[at].max()
        np.testing.assert_allclose(row.magnitude, changes.magnitude.values[at].mean(dtype=float), rtol=1e-6)
        np.testing.assert_allclose(row.probability, changes.probability.values[at].mean(dtype=float), rtol=1e-6)
        ended = (changes.status.values[at] == 4).all()
        assert row.status == ("ended" if ended else "confirmed")
        assert row.end_date == changes.date_end.values[at].max() if ended else pd.isna(row.end_date)


def test_shapes_are_those_of_gdal():
    changes = random_changes((50, 60), share=0.6, direction=1)
    frame = polygons(changes, connectivity=4)
    mask = (changes.status.values > 0).astype(np.uint8)
    theirs = rasterio.features.shapes(mask, mask > 0, connectivity=4, transform=changes.odc.geobox.affine)
    theirs = {shapely.normalize(shapely.geometry.shape(shape)).wkb for shape, _ in theirs}
    assert {shapely.normalize(shape.geoms[0]).wkb for shape in frame.geometry} == theirs


@pytest.mark.parametrize("share", [0.1, 0.45, 0.6, 0.9])
def test_every_polygon_is_valid(share):
    frame = polygons(random_changes((60, 60), share=share, seed=3))
    assert frame.is_valid.all()
    assert (frame.geom_type == "MultiPolygon").all()
    np.testing.assert_allclose(frame.area, frame.n_pixels * 100.0)


def test_pixels_that_touch_at_a_corner_make_one_valid_patch():
    frame = polygons(changes_at(np.eye(5)))
    assert len(frame) == 1
    assert len(frame.geometry[0].geoms) == 5
    assert frame.geometry[0].is_valid
    assert len(polygons(changes_at(np.eye(5)), connectivity=4)) == 5


def test_a_ring_closed_only_at_a_corner_keeps_its_hole():
    flag = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
    shape = polygons(changes_at(flag)).geometry[0]
    assert shape.is_valid
    assert shape.area == flag.sum() * 100
    assert not shape.contains(shapely.Point(500015, 4999985))


def test_holes_are_kept_and_islands_in_them_too():
    flag = np.ones((7, 7))
    flag[1:6, 1:6] = 0
    flag[3, 3] = 1
    frame = polygons(changes_at(flag))
    assert frame.n_pixels.tolist() == [24, 1]
    assert len(frame.geometry[0].geoms[0].interiors) == 1


def test_unlike_directions_are_not_joined():
    flag = np.ones((2, 4))
    direction = np.repeat([[-1, 1]], 2, axis=1).repeat(2, axis=0)
    frame = polygons(changes_at(flag, direction=direction))
    assert frame.direction.tolist() == [-1, 1]
    assert frame.n_pixels.tolist() == [4, 4]


def test_two_events_that_touch_are_one_patch_that_shows_its_dates():
    dates = np.full((1, 5), day("2024-03-01"))
    dates[0, 3:] = day("2024-09-01")
    frame = polygons(changes_at(np.ones((1, 5)), date=dates))
    assert len(frame) == 1
    assert frame.start_date[0] == stamp("2024-03-01")
    assert (frame.first_date[0], frame.last_date[0]) == (stamp("2024-03-01"), stamp("2024-09-01"))


def test_times_of_day_become_days():
    frame = polygons(changes_at(np.ones((1, 2)), date=np.full((1, 2), np.datetime64("2024-03-01T17:12:03", "ns"))))
    assert frame.start_date[0] == stamp("2024-03-01")


def test_a_patch_has_ended_once_all_of_it_has():
    ends = np.full((1, 4), day("2024-06-01"))
    status = np.array([[4, 3, 4, 4]])
    frame = polygons(changes_at([[1, 1, 0, 1]], status=status, date_end=ends))
    assert frame.status.tolist() == ["confirmed", "ended"]
    assert frame.end_date.isna().tolist() == [True, False]
    assert frame.end_date[1] == stamp("2024-06-01")


def test_only_what_changed_makes_polygons_unless_asked():
    changes = changes_at(np.ones((1, 6)), status=np.array([[1, 0, 2, 255, 3, 4]]))
    assert polygons(changes).n_pixels.tolist() == [2]
    watched = polygons(changes, status=("first", "provisional"))
    assert watched.status.tolist() == ["first", "provisional"]
    mixed = changes_at(np.ones((1, 2)), status=np.array([[1, 3]]))
    assert polygons(mixed, status=("first", "confirmed")).status.tolist() == ["confirmed"]


def test_certain_change_without_a_date_has_none():
    flag = np.ones((1, 3))
    dates = np.full((1, 3), np.datetime64("NaT", "ns"))
    frame = polygons(changes_at(flag, date=dates))
    assert frame[["start_date", "first_date", "last_date", "date_after", "date_by"]].isna().all(axis=None)


def test_lazy_is_eager_for_any_chunks():
    changes = random_changes((41, 37), share=0.5, seed=5)
    expected = polygons(changes, min_area_m2=300, run_id="r", detected_at="2024-09-01")
    for chunks in ({"y": 1, "x": -1}, {"y": 7, "x": 5}, {"y": 41, "x": 1}, {"y": (20, 1, 20), "x": (30, 7)}):
        found = polygons(changes.chunk(chunks), min_area_m2=300, run_id="r", detected_at="2024-09-01")
        geopandas.testing.assert_geodataframe_equal(found, expected)
        assert (found.geometry.to_wkb() == expected.geometry.to_wkb()).all()


def test_blocks_of_rows_make_no_seams(monkeypatch):
    changes = random_changes((41, 37), share=0.5, seed=6)
    expected = polygons(changes)
    monkeypatch.setattr(vectors, "row_blocks", functools.partial(row_blocks, rows=3))
    geopandas.testing.assert_geodataframe_equal(polygons(changes), expected)


def test_ids_are_unique_stable_and_their_own():
    changes = random_changes(seed=2)
    ids = polygons(changes).id
    assert ids.is_unique
    assert (polygons(changes.chunk(y=4)).id == ids).all()
    assert not set(polygons(changes, site="elsewhere").id) & set(ids)


def test_a_patch_keeps_its_id_while_it_grows():
    flag, dates = np.zeros((6, 6)), np.full((6, 6), day("2024-05-01"))
    flag[3, 3] = 1
    before = polygons(changes_at(flag, date=dates)).id[0]
    flag[1:5, 2:6] = 1
    dates[flag > 0] = day("2024-06-01")
    dates[3, 3] = day("2024-05-01")
    assert polygons(changes_at(flag, date=dates)).id.tolist() == [before]


def test_an_id_does_not_depend_on_the_window_that_was_looked_at():
    flag = np.zeros((8, 8))
    flag[4:6, 4:7] = 1
    cut = changes_at(flag).isel(y=slice(3, 8), x=slice(2, 8))
    assert polygons(cut).id.tolist() == polygons(changes_at(flag)).id.tolist()


def test_area_on_the_ground_is_that_of_the_ellipsoid():
    # 36 x 36 pixels of 1/120 degree: 0.3 degree squares at 60 north, whose area follows from the meridian arc
    shape = (36, 36)
    box = GeoBox(shape, Affine(1 / 120, 0, 10.0, 0, -1 / 120, 60.0), "EPSG:4326")
    frame = polygons(changes_at(np.ones(shape), box=box))
    a, e2 = 6378137.0, 0.0066943799901413165

    def zone(lat):  # area between the equator and a latitude, a radian of longitude wide (Snyder 1987, eq. 3-12)
        e, s = np.sqrt(e2), np.sin(np.radians(lat))
        return a**2 * (1 - e2) / 2 * (s / (1 - e2 * s**2) + np.log((1 + e * s) / (1 - e * s)) / (2 * e))

    expected = np.radians(0.3) * (zone(60.0) - zone(59.7))
    np.testing.assert_allclose(frame.area_ha[0] * 1e4, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("crs", "x", "y"), [(UTM, 500000.0, 5000000.0), (UTM, 833000.0, 1000000.0), ("EPSG:3857", 1e6, 8e6)]
)
def test_area_follows_the_ellipsoid_in_any_projection(crs, x, y):
    box = geobox((40, 40), crs, 20.0, x, y)
    flag = np.zeros((40, 40))
    flag[5:30, 10:20] = 1
    flag[10:12, 12:14] = 0
    frame = polygons(changes_at(flag, box=box))
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    shape = shapely.segmentize(frame.geometry[0], 20.0)
    shape = shapely.transform(shape, lambda xy: np.column_stack(to_degrees.transform(*xy.T)))
    expected = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shape)[0])
    np.testing.assert_allclose(frame.area_ha[0] * 1e4, expected, rtol=1e-6)


def test_minimum_area_in_square_metres_means_the_same_pixels_everywhere_in_a_zone():
    flag = np.zeros((6, 30))
    flag[1:3, 1:6] = 1  # ten pixels
    flag[4, 10:19] = 1  # nine
    for x in (166021.0, 500000.0, 833978.0):
        frame = polygons(changes_at(flag, box=geobox(flag.shape, x=x, y=1000.0)), min_area_m2=1000)
        assert frame.n_pixels.tolist() == [10]


def test_minimum_area_counts_ground_not_map():
    # at 60 north a Mercator pixel of 20 m covers 10 m
    flag = np.ones((10, 10))
    box = geobox((10, 10), "EPSG:3857", 20.0, 1e6, 8399737.9)
    assert len(polygons(changes_at(flag, box=box), min_area_m2=9000)) == 1
    assert len(polygons(changes_at(flag, box=box), min_area_m2=11000)) == 0


@pytest.mark.parametrize("box", [None, GeoBox((3, 3), Affine(0.1, 0, 10.0, 0, -0.1, 60.0), "EPSG:4326")])
def test_metres_are_refused_where_pixels_have_no_size_in_metres(box):
    changes = changes_at(np.ones((3, 3)), box=box)
    with pytest.raises(ConfigError, match="min_area_m2 is 500"):
        polygons(changes, min_area_m2=500)
    assert len(polygons(changes)) == 1


def test_without_a_crs_coordinates_are_pixels_and_area_is_unknown():
    frame = polygons(changes_at([[0, 1], [0, 0]], box=None))
    assert frame.crs is None
    assert frame.geometry[0].bounds == (0.5, -0.5, 1.5, 0.5)
    assert frame.area_ha.isna().all()
    assert frame.geometry[0].geoms[0].exterior.is_ccw


def test_nothing_changed_gives_an_empty_frame_with_everything():
    empty, full = polygons(changes_at(np.zeros((4, 4)))), polygons(changes_at(np.ones((4, 4))))
    assert len(empty) == 0
    assert list(empty.columns) == [*FIELDS, "geometry"]
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert empty.crs == full.crs
    assert len(polygons(changes_at(np.ones((2, 2))), min_area_m2=1e6)) == 0


def test_texts_and_time_are_written():
    frame = polygons(
        changes_at(np.ones((1, 1))), sensor="S1", run_id="abc", detected_at=np.datetime64("2024-07-01T10:00")
    )
    assert (frame.sensor[0], frame.run_id[0], frame.change_type[0]) == ("S1", "abc", "flood")
    assert frame.detected_at[0] == pd.Timestamp("2024-07-01T10:00", tz="UTC")


def test_wrong_options_say_what_is_allowed():
    changes = changes_at(np.ones((2, 2)))
    with pytest.raises(ConfigError, match="8"):
        polygons(changes, connectivity=6)
    with pytest.raises(ConfigError, match="not_observable"):
        polygons(changes, status=("not_observable",))
    with pytest.raises(StateError, match="Changes"):
        polygons(xr.Dataset())


def test_inputs_are_not_changed():
    changes = random_changes()
    before = changes.copy(deep=True)
    polygons(changes)
    xr.testing.assert_identical(changes, before)
