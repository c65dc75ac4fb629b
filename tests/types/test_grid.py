import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoalign import StackError
from geoalign.types.grid import GridMap

UTM33 = GeoBox.from_bbox((500000, 4000000, 506000, 4005000), "EPSG:32633", resolution=10)


@pytest.mark.parametrize(
    "source",
    [
        GeoBox.from_bbox((499500, 3999000, 507000, 4006000), "EPSG:32633", resolution=20),
        GeoBox.from_bbox((-45000, 4000000, -20000, 4030000), "EPSG:32634", resolution=10),
        GeoBox.from_bbox((14.9, 36.1, 15.1, 36.3), "EPSG:4326", resolution=0.0001),
    ],
    ids=["same crs", "other zone", "degrees"],
)
def test_pixels_map_as_pyproj_says(source):
    rng = np.random.default_rng(1)
    rows, cols = rng.uniform(0, 500, (2, 200))
    x, y = UTM33.affine * (cols + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(str(UTM33.crs), str(source.crs), always_xy=True).transform(x, y)
    c, r = ~source.affine * (x, y)
    found = GridMap(UTM33, source).pull(rows, cols)
    np.testing.assert_allclose(found[0], r - 0.5, atol=2e-4)
    np.testing.assert_allclose(found[1], c - 0.5, atol=2e-4)


def test_a_pixel_does_not_depend_on_the_block_asked_for():
    grid = GridMap(UTM33, GeoBox.from_bbox((14.9, 36.1, 15.1, 36.3), "EPSG:4326", resolution=0.0001))
    rows, cols = np.mgrid[0:200, 0:200].astype(float)
    whole = grid.pull(rows, cols)
    part = grid.pull(rows[77:90, 101:133], cols[77:90, 101:133])
    np.testing.assert_array_equal(whole[0][77:90, 101:133], part[0])
    np.testing.assert_array_equal(whole[1][77:90, 101:133], part[1])


def test_a_grid_without_crs_is_refused():
    with pytest.raises(StackError, match="no CRS"):
        GridMap(UTM33, GeoBox((10, 10), UTM33.affine, None))
