import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from geoalign.io.lonlat import footprint, to_lonlat
from geoalign.io.vector import write_polygons


def box(crs, x, y, n=100, res=1000.0):
    return GeoBox((n, n), Affine(res, 0, x, 0, -res, y), crs)


def test_a_grid_across_the_antimeridian_is_two_parts_and_no_belt_around_the_globe():
    grid = box("EPSG:32660", 790000, 100000)
    geometry, bbox = footprint(grid)
    shape = shapely.geometry.shape(geometry)
    assert geometry["type"] == "MultiPolygon"
    assert shapely.is_valid(shape)
    assert bbox[0] > 179
    assert bbox[2] < -179
    assert all(-180 <= lon <= 180 for p in shape.geoms for lon, _ in p.exterior.coords)
    assert sum(p.bounds[2] - p.bounds[0] for p in shape.geoms) < 1.0


def test_a_grid_over_a_pole_is_closed_over_it():
    geometry, bbox = footprint(box("EPSG:3031", -50000, 50000))
    shape = shapely.geometry.shape(geometry)
    assert bbox[:2] == [-180.0, -90.0]
    assert bbox[2] == 180.0
    assert shape.contains(shapely.Point(37.0, -89.9))
    assert not shape.contains(shapely.Point(37.0, -89.0))
    far = footprint(box("EPSG:3031", 500000, 600000))
    assert far[1][2] - far[1][0] < 20


def test_an_everyday_grid_is_one_ring_with_its_area():
    grid = box("EPSG:32633", 450000, 5400000, res=100.0)
    geometry, bbox = footprint(grid)
    shape = shapely.geometry.shape(geometry)
    assert geometry["type"] == "Polygon"
    assert shape.exterior.is_ccw
    assert abs(Geod(ellps="GRS80").geometry_area_perimeter(shape)[0]) == pytest.approx(1e8, rel=2e-3)
    assert list(shape.bounds) == pytest.approx(bbox)


def test_a_hole_stays_a_hole_on_both_sides():
    with_hole = shapely.box(790000, 0, 890000, 100000) - shapely.box(820000, 30000, 860000, 60000)
    shape = to_lonlat(with_hole, "EPSG:32660")
    change = Transformer.from_crs("EPSG:32660", "EPSG:4326", always_xy=True)
    rng = np.random.default_rng(0)
    points = rng.uniform((780000, -10000), (900000, 110000), (300, 2))
    for x, y in points:
        near = with_hole.boundary.distance(shapely.Point(x, y)) < 500
        assert near or shape.contains(shapely.Point(*change.transform(x, y))) == with_hole.contains(shapely.Point(x, y))


def test_polygons_across_the_antimeridian_are_written_cut(tmp_path):
    import geopandas as gpd

    frame = gpd.GeoDataFrame({"id": ["a"]}, geometry=[shapely.box(820000, 0, 850000, 30000)], crs="EPSG:32660")
    back = gpd.read_file(write_polygons(frame, tmp_path / "a.geojson"))
    assert sum(p.bounds[2] - p.bounds[0] for p in back.geometry[0].geoms) < 1.0
    assert len(back.geometry[0].geoms) == 2
