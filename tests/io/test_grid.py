import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign.errors import NoUsableData, StackError
from geoalign.io.grid import check_size, choose_grid, crop, largest_cluster, overlaps, shared_area


def box_at(x0, y0, *, shape=(100, 100), res=10.0, crs="EPSG:32633"):
    return GeoBox(shape, Affine(res, 0, x0, 0, -res, y0), crs)


def test_default_grid_takes_the_pixels_that_most_scenes_share():
    def box(x0, y0, shape=(10, 10)):
        return GeoBox(shape, Affine(30, 0, x0, 0, -30, y0), "EPSG:32633")

    grid = choose_grid([box(15.0, 300.0), box(75.0, 390.0)])
    assert (grid.affine.c, grid.affine.f) == (15.0, 390.0)
    assert tuple(grid.shape) == (13, 12)
    assert choose_grid([box(15.0, 300.0)] * 3) == box(15.0, 300.0)
    odd = choose_grid([box(17.0, 301.0), box(71.0, 392.0)])  # nothing shared: multiples of the resolution
    assert (odd.affine.c, odd.affine.f) == (0.0, 420.0)


def test_crop_keeps_the_pixels():
    box = GeoBox((100, 100), Affine(0.01, 0, 10.0, 0, -0.01, 50.0), "EPSG:4326")
    part = crop(box, (10.195, 49.5, 10.305, 49.75))
    assert tuple(part.shape) == (25, 12)
    np.testing.assert_allclose((part.affine.c, part.affine.f), (10.19, 49.75))
    with pytest.raises(NoUsableData, match="does not overlap"):
        crop(box, (20, 49, 21, 50))
    with pytest.raises(StackError, match="degrees"):
        crop(box, (500000, 4000000, 600000, 5000000))


def test_the_crs_of_most_scenes_and_their_finest_resolution():
    far = box_at(971600.0, 5017600.0, res=5.0, crs="EPSG:32632")
    grid = choose_grid([box_at(500000, 5000000), box_at(500000, 5000000, res=20.0), far])
    assert grid.crs == "EPSG:32633"
    assert grid.resolution.x == 10
    assert overlaps(grid, far)


def test_a_grid_over_half_a_continent_is_refused():
    with pytest.raises(StackError, match=r"so far apart.*like= or bbox="):
        choose_grid([box_at(300000, 1000000), box_at(700000, 9000000)])


def test_overlap_across_crs():
    one = box_at(500000, 5000000)
    assert overlaps(one, box_at(500990, 5000000))
    assert not overlaps(one, box_at(501000, 5000000))  # touching is no overlap
    assert overlaps(one, box_at(971700.0, 5017600.0, crs="EPSG:32632"))
    assert not overlaps(one, box_at(500000, 5000000, crs="EPSG:32632"))
    assert shared_area(one, box_at(500500, 5000000)) == 5000
    assert shared_area(one, box_at(502000, 5000000)) == 0


def test_the_largest_group_that_hangs_together():
    near = [box_at(500000 + 1000 * k, 5000000) for k in range(3)]
    assert largest_cluster([near[0], box_at(800000, 5000000), *near[1:]]) == [0, 2, 3]
    assert largest_cluster([near[0]] * 4) == [0, 1, 2, 3]


def test_an_odd_bbox_is_refused():
    with pytest.raises(StackError, match="west, south, east, north"):
        crop(box_at(500000, 5000000), (16, 45, 15, 46))
    part = crop(box_at(500000, 5000000), box_at(500105, 4999905, shape=(5, 5)).extent.boundingbox)
    assert tuple(part.shape) == (6, 6)
    np.testing.assert_allclose((part.affine.c, part.affine.f), (500100, 4999910))


def test_a_grid_of_more_pixels_than_any_scene_is_refused():
    box = GeoBox.from_bbox((-5e7, -5e6, 5e7, 5e6), "EPSG:32633", resolution=10)
    with pytest.raises(StackError, match=r"10000000 x 1000000 pixels.*EPSG:32633"):
        check_size(box)
