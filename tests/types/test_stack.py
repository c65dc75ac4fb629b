import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox

from geoalign import StackError, check_stack, new_stack
from geoalign.types.stack import geobox_of, is_sar, pixel_size_m

BOX = GeoBox.from_bbox((500000, 4000000, 500700, 4000500), "EPSG:32633", resolution=10)
TIMES = ["2024-01-01", "2024-01-13"]


def test_a_stack_carries_its_grid_times_and_names():
    stack = new_stack({"vv": np.ones((2, *BOX.shape))}, TIMES, geobox=BOX, orbit=44, sensor="s1")
    assert geobox_of(stack) == BOX
    assert pixel_size_m(stack) == 10
    assert stack.vv.dtype == np.float32
    assert stack.orbit.values.tolist() == [44, 44]
    assert is_sar(stack)
    assert check_stack(stack, bands=["vv"]) is stack


def test_values_are_never_rescaled_or_dropped():
    values = np.array([[[1e6, -5, np.nan]]])
    stack = new_stack({"a": values}, ["2020-01-01"])
    np.testing.assert_array_equal(stack.a.values, values.astype(np.float32))
    assert geobox_of(stack) is None


def test_aware_times_become_utc():
    stack = new_stack({"a": np.ones((1, 2, 2))}, ["2024-06-01T00:30:00+02:00"])
    assert stack.time.values[0] == np.datetime64("2024-05-31T22:30:00")


@pytest.mark.parametrize(
    ("bands", "time", "options", "says"),
    [
        ({}, TIMES, {}, "no bands"),
        ({"a": np.ones((2, 3))}, TIMES, {}, "shape"),
        ({"a": np.ones((2, 3, 3)), "b": np.ones((2, 3, 4))}, TIMES, {}, r"\(2, 3, 4\)"),
        ({"a": np.ones((3, 3, 3))}, TIMES, {}, "2 times"),
        ({"a": np.ones((2, 3, 3))}, TIMES[::-1], {}, "sorted"),
        ({"a": np.ones((2, 3, 3))}, [TIMES[0]] * 2, {}, "twice"),
        ({"a": np.ones((2, 3, 3))}, ["yesterday-ish", "x"], {}, "can't be read"),
        ({"a": np.ones((2, 3, 3))}, TIMES, {"geobox": BOX}, "geobox"),
        ({"a": np.ones((2, 3, 3))}, TIMES, {"scene": ["s", "s"]}, "scene ids"),
        ({"a": np.ones((2, 3, 3))}, TIMES, {"orbit": [1, 2, 3]}, "orbit"),
        ({"a": np.ones((2, 3, 3))}, [None, TIMES[0]], {}, "missing|can't"),
    ],
)
def test_what_is_wrong_is_said(bands, time, options, says):
    with pytest.raises(StackError, match=says):
        new_stack(bands, time, **options)


def test_check_names_the_missing_band_and_those_there_are():
    stack = new_stack({"vv": np.ones((2, 3, 3))}, TIMES)
    with pytest.raises(StackError, match=r"'ndvi' is missing \(bands: vv\)"):
        check_stack(stack, bands=["ndvi"])
    with pytest.raises(StackError, match="3 scenes"):
        check_stack(stack, min_scenes=3)
    with pytest.raises(StackError, match="time is missing"):
        check_stack(xr.Dataset({"a": (("y", "x"), np.ones((2, 2)))}))


def test_packed_integers_are_refused_with_what_their_attrs_say():
    packed = xr.DataArray(np.zeros((2, 1, 1), np.int16), dims=("time", "y", "x"), attrs={"scale_factor": 1e-4})
    with pytest.raises(StackError, match=r"still packed \(scale_factor 0.0001\)"):
        new_stack({"ndvi": packed}, ["2024-01-01", "2024-01-02"])
    new_stack({"ndvi": packed.astype("float32")}, ["2024-01-01", "2024-01-02"])
    new_stack({"ndvi": packed.drop_attrs()}, ["2024-01-01", "2024-01-02"])
