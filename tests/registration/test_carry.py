"""What an alignment carries besides images: truth is planted in the warp."""

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine as Transform
from odc.geo.geobox import GeoBox

from geoalign import Affine, Alignment, ConfigError, Field, Shift, StackError
from geoalign.types.stack import grid_coords

SHAPE = (90, 120)
BOX = GeoBox(SHAPE, Transform(10, 0, 500000, 0, -10, 5400000), "EPSG:32633")
RNG = np.random.default_rng(3)
BENT = Field(RNG.normal(0, 3, (6, 7)), RNG.normal(0, 3, (6, 7)), -10, -10, 24, 24)
GROWN = Affine(((1.1, 0, -4), (0, 1.1, -6)))  # a reference pixel is 1.1 pixels wide in the scene


def aligned(warp=BENT, box=BOX, shape=SHAPE):
    report = pd.DataFrame({"scene": ["a", "b", "c"], "status": ["reference", "aligned", "rejected"],
                           "reason": ["", "", "snow everywhere"]})  # fmt: skip
    return Alignment("a", {"a": Shift(), "b": warp}, report, box, shape)


def place(rows, cols):
    return 500000 + 10 * (np.asarray(cols) + 0.5), 5400000 - 10 * (np.asarray(rows) + 0.5)


def drawn():
    x, y = place([20, 20, 60, 60], [15, 80, 80, 15])
    outer = shapely.Polygon(np.column_stack([x, y]), [np.column_stack(place([30, 40, 40], [30, 30, 50]))])
    line = shapely.LineString(np.column_stack(place([5, 80], [5, 110])))
    shapes = [outer, line, shapely.Point(*place(44.25, 51.5)), shapely.Point(500300, 5399700, 212.0), None]
    return gpd.GeoDataFrame({"crop": list("abcde")}, geometry=shapes, crs=BOX.crs.to_wkt(), index=[7, 3, 9, 4, 1])


def test_a_point_goes_where_the_warp_says():
    moved = aligned().propagate(drawn(), scene="b").geometry[9]
    r, c = BENT.pull(44.25, 51.5)
    assert (moved.x, moved.y) == pytest.approx(place(r, c), abs=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035"])
def test_there_and_back_is_home(crs):
    first = drawn().to_crs(crs)
    alignment = aligned()
    there = alignment.propagate(first, scene="b")
    back = alignment.propagate(there, scene="b", inverse=True)
    for a, b in zip(first.to_crs(BOX.crs.to_wkt()).geometry[:4], back.to_crs(BOX.crs.to_wkt()).geometry[:4]):
        away = shapely.distance(shapely.points(shapely.get_coordinates(b)), a.boundary if a.area else a).max()
        assert away < 0.1  # metres: a hundredth of a pixel
        assert a.area == pytest.approx(b.area, rel=1e-5)


def test_rows_attributes_crs_and_heights_stay():
    first = drawn().to_crs(4326)
    moved = aligned().propagate(first, scene="b")
    assert list(moved.index) == [7, 3, 9, 4, 1]
    assert list(moved.crop) == list("abcde")
    assert moved.crs == first.crs
    assert moved.geometry[1] is None
    assert moved.geometry[4].z == 212
    assert not moved.geometry[3].has_z
    assert shapely.equals(drawn().to_crs(4326).geometry[:4], first.geometry[:4]).all(), "the input was changed"


def test_edges_follow_the_bend_of_a_field():
    start, end = np.array([5.0, 5.0]), np.array([80.0, 110.0])
    line = aligned().propagate(drawn(), scene="b").geometry[3]
    at = start + np.linspace(0, 1, 2000)[:, None] * (end - start)
    truth = shapely.points(np.column_stack(place(*BENT.pull(at[:, 0], at[:, 1]))))
    straight = shapely.LineString([truth[0], truth[-1]])
    assert shapely.distance(straight, truth).max() > 10
    assert shapely.distance(line, truth).max() < 0.02


def test_a_shift_adds_no_vertices():
    moved = aligned(Shift(1.5, -2)).propagate(drawn(), scene="b")
    assert shapely.get_num_coordinates(moved.geometry[7]) == shapely.get_num_coordinates(drawn().geometry[7])


@pytest.mark.parametrize(("scene", "words"), [("c", "rejected and has no warp: snow"), ("x", "with a warp: a, b")])
def test_a_scene_without_a_warp_is_refused_with_its_reason(scene, words):
    for call in (
        lambda a: a.propagate(drawn(), scene=scene),
        lambda a: a.transfer(np.zeros(SHAPE, int), scene=scene),
        lambda a: a.accumulate({scene: np.zeros(SHAPE)}, per_pixel=True),
    ):
        with pytest.raises(StackError, match=words):
            call(aligned())


def test_geometries_that_leave_the_grid_are_named():
    frame = drawn()
    frame.loc[9, "geometry"] = shapely.Point(400000, 5400000)
    with pytest.raises(StackError, match=r"1 of 5 geometries leave .*index 9"):
        aligned().propagate(frame, scene="b")


def test_a_frame_needs_a_crs_where_the_grid_has_one_and_none_where_it_has_not():
    with pytest.raises(StackError, match="no CRS"):
        aligned().propagate(drawn().set_crs(None, allow_override=True), scene="b")
    with pytest.raises(StackError, match="no grid"):
        aligned(box=None).propagate(drawn(), scene="b")


def test_labels_of_a_shifted_raster_are_exact():
    labels = RNG.integers(1, 6, SHAPE).astype(np.uint8)
    moved = aligned(Shift(3, -2)).transfer(labels, scene="b")
    assert moved.dtype == np.uint8
    np.testing.assert_array_equal(moved[3:, :-2], labels[:-3, 2:])
    assert (moved[:3] == 0).all()
    back = aligned(Shift(3, -2)).transfer(moved, scene="b", inverse=True)
    np.testing.assert_array_equal(back[:-3, 2:], labels[:-3, 2:])


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.int32, bool, np.float64])
def test_labels_keep_their_type_and_digits(dtype):
    labels = RNG.integers(0, 2**31 - 1, SHAPE) if dtype != np.float64 else RNG.integers(0, 2**24, SHAPE)
    labels = labels.astype(dtype) * (-1 if dtype == np.int64 else 1)
    labels = labels.astype(dtype)
    moved = aligned(Shift(0, 1)).transfer(labels, scene="b")
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved[:, 1:], labels[:, :-1])


@pytest.mark.parametrize("method", ["nearest", "probability"])
def test_what_was_not_observed_stays_so(method):
    labels = np.ones(SHAPE, np.int16)
    labels[:, 60:] = 2
    labels[40:50, 30:80] = -9
    given = xr.DataArray(labels, dims=("y", "x"), coords=grid_coords(BOX, SHAPE), attrs={"nodata": -9}, name="cover")
    moved = aligned(Shift(0.4, 0.3)).transfer(given, scene="b", method=method)
    assert moved.name == "cover"
    assert moved.attrs["nodata"] == -9
    np.testing.assert_array_equal(moved[1:, 1:] == -9, (labels == -9)[1:, 1:])
    floats = np.where(labels < 0, np.nan, labels)
    again = aligned(Shift(0.4, 0.3)).transfer(floats, scene="b", method=method)
    np.testing.assert_array_equal(np.isnan(again), moved.values == -9)
    np.testing.assert_array_equal(again[~np.isnan(again)], moved.values[moved.values != -9])


def test_the_probability_is_the_share_of_the_label():
    labels = np.where(np.arange(120) < 60, 1, 7) * np.ones((90, 1), int)
    moved, share = aligned(Shift(0, 0.25)).transfer(labels, scene="b", method="probability", return_probability=True)
    assert moved[5, 59:62].tolist() == [1, 7, 7]
    np.testing.assert_allclose(share[5, 58:62], [1, 1, 0.75, 1], atol=1e-6)


def test_a_pixel_that_nobody_shares_goes_to_the_majority_around_it():
    # at (.5, .5) nearest takes one of the four at random; membership takes what two of them are
    labels = np.tile([[1, 2], [3, 2]], (45, 60))
    moved = aligned(Shift(0.5, 0.5)).transfer(labels, scene="b", inverse=True, method="probability")
    assert (moved[:-1, :-1] == 2).all()


def test_wrong_labels_are_told():
    with pytest.raises(ConfigError, match="method"):
        aligned().transfer(np.zeros(SHAPE), scene="b", method="mode")
    with pytest.raises(StackError, match="shape"):
        aligned().transfer(np.zeros((3, 3)), scene="b")
    with pytest.raises(StackError, match="classes"):
        aligned().transfer(np.arange(10800).reshape(SHAPE), scene="b", method="probability")
    with pytest.raises(ConfigError, match="nodata -1"):
        aligned().transfer(np.zeros(SHAPE, np.uint8), scene="b", nodata=-1)


def smooth():
    rows, cols = np.mgrid[:90, :120]
    return 50 * np.exp(-(((rows - 40) / 6) ** 2 + ((cols - 60) / 8) ** 2) / 2)


def rough():
    values = np.zeros(SHAPE)
    values[20:70, 20:100] = RNG.poisson(3.0, (50, 80))
    return values


@pytest.mark.parametrize(("make", "within"), [(smooth, 1e-4), (rough, 2e-3)])
@pytest.mark.parametrize("warp", [GROWN, Affine(((0.9, 0, 3), (0, 0.9, 5))), BENT])
def test_totals_are_conserved(make, within, warp):
    counts = make()
    carried = aligned(warp).accumulate({"b": counts}, per_pixel=True).total
    assert float(carried.sum()) == pytest.approx(counts.sum(), rel=within)
    plain = aligned(warp).accumulate({"b": counts}, per_pixel=False).total
    if warp is GROWN:
        assert float(plain.sum()) == pytest.approx(counts.sum() / 1.21, rel=2e-3)


def test_densities_stay_what_they_are():
    rain = aligned(GROWN).accumulate({"b": np.full(SHAPE, 12.0), "a": np.full(SHAPE, 3.0)}, per_pixel=False)
    assert float(rain.total[45, 60]) == pytest.approx(15.0)
    assert int(rain.n_obs[45, 60]) == 2


def test_only_what_was_observed_is_summed_and_counted():
    first, second = np.ones(SHAPE), np.full(SHAPE, 2.0)
    first[10:20] = np.nan
    second[15:30] = np.nan
    both = aligned(Shift(0, 0)).accumulate({"a": first, "b": second}, per_pixel=True)
    assert both.total[[5, 12, 17, 25], 50].values.tolist() == pytest.approx([3, 2, np.nan, 1], nan_ok=True)
    assert both.n_obs[[5, 12, 17, 25], 50].values.tolist() == [2, 1, 0, 1]


def test_lazy_layers_stay_lazy_and_give_the_same_bits():
    counts, labels = rough(), RNG.integers(1, 5, SHAPE)
    counts[30:35, 40:50] = np.nan
    for warp in (BENT, GROWN):
        alignment = aligned(warp)
        lazy = alignment.accumulate({"a": counts, "b": da.from_array(counts, chunks=(37, 41))}, per_pixel=True)
        assert lazy.total.chunks is not None
        xr.testing.assert_identical(lazy.compute(), alignment.accumulate({"a": counts, "b": counts}, per_pixel=True))
        for method in ("nearest", "probability"):
            lazy = alignment.transfer(da.from_array(labels, chunks=(37, 41)), scene="b", method=method)
            assert isinstance(lazy, da.Array)
            np.testing.assert_array_equal(lazy.compute(), alignment.transfer(labels, scene="b", method=method))


def test_a_stack_of_layers_is_taken_by_its_scenes():
    cube = xr.DataArray(np.stack([smooth(), smooth()]), dims=("time", "y", "x"),
                        coords={"time": [0, 1], "scene": ("time", ["a", "b"])})  # fmt: skip
    whole = aligned().accumulate(cube, per_pixel=True)
    parts = aligned().accumulate({"a": smooth(), "b": smooth()}, per_pixel=True)
    xr.testing.assert_identical(whole, parts)
    with pytest.raises(StackError, match="`scene`"):
        aligned().accumulate(cube.drop_vars("scene"), per_pixel=True)
