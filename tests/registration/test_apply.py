"""Apply: lazy, once, on the grid it was made for."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geoalign import new_stack
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.kernels.resample import noise_gain, resample
from geoalign.types.alignment import REPORT_COLUMNS, Alignment
from geoalign.types.warp import Affine, Shift

SHAPE = (60, 70)
WARPS = {"a": Shift(), "b": Shift(1.5, -0.25), "d": Affine([[1.01, 0.0, 0.4], [0.0, 0.99, -0.7]])}


@pytest.fixture
def stack():
    rng = np.random.default_rng(0)
    values = rng.gamma(4, 0.25, (4, *SHAPE)).astype(np.float32)
    values[1, 20:30, 10:40] = np.nan
    dates = ["2024-01-01", "2024-01-13", "2024-01-25", "2024-02-06"]
    stack = new_stack({"vv": values, "vh": values / 4}, dates, scene=list("abcd"), sensor="S1", orbit=7)
    stack.vv.attrs["enl"] = 4.4
    return stack


@pytest.fixture
def alignment():
    report = pd.DataFrame({"scene": list("abcd"), "sigma_px": [0.0, 0.05, np.nan, 0.11]})
    report = report.reindex(columns=REPORT_COLUMNS)
    return Alignment("a", WARPS, report, None, SHAPE)


def test_each_scene_is_resampled_once_by_its_warp(alignment, stack):
    out = alignment.apply(stack, resampling="cubic")
    rows, cols = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(float)
    for name in "abd":
        given = stack.vv.values[list("abcd").index(name)]
        expected = resample(given, *WARPS[name].pull(rows, cols), "cubic")
        np.testing.assert_array_equal(out.vv.values[list(out.scene.values).index(name)], expected)


def test_scenes_without_a_warp_are_left_out_and_named(alignment, stack, caplog):
    with caplog.at_level("WARNING", logger="geoalign"):
        out = alignment.apply(stack)
    assert list(out.scene.values) == list("abd")
    assert "left out, because they have no warp: c" in caplog.text
    np.testing.assert_array_equal(out.sigma_px, [0.0, 0.05, 0.11])
    assert list(out.orbit.values) == [7, 7, 7]


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "bspline", "lanczos"])
def test_lazy_is_eager_and_computes_nothing_early(alignment, stack, no_compute, resampling):
    eager = alignment.apply(stack, resampling=resampling)
    for chunks in ({"time": 1, "y": 17, "x": 23}, {"time": 3, "y": 60, "x": 31}):
        chunked = stack.chunk(chunks).assign_coords({k: stack.coords[k] for k in ("scene", "sensor", "orbit")})
        with no_compute():
            lazy = alignment.apply(chunked, resampling=resampling)
        xr.testing.assert_identical(lazy.load(), eager)


def test_looks_grow_by_what_interpolation_averages(alignment, stack):
    out = alignment.apply(stack, resampling="bilinear")
    only = Alignment("a", {"b": Shift(1.5, -0.25)}, alignment.report, None, SHAPE).apply(stack, resampling="bilinear")
    np.testing.assert_allclose(only.vv.attrs["enl"], 4.4 / noise_gain("bilinear", 0.5, 0.75))
    assert 4.4 < out.vv.attrs["enl"] < only.vv.attrs["enl"]
    assert "enl" not in out.vh.attrs
    assert stack.vv.attrs["enl"] == 4.4
    assert alignment.apply(stack, resampling="nearest").vv.attrs["enl"] == 4.4


def test_another_grid_is_refused(alignment, stack):
    with pytest.raises(StackError, match=r"\(60, 70\)"):
        alignment.apply(stack.isel(y=slice(0, 50)))
    from affine import Affine as Transform
    from odc.geo.geobox import GeoBox

    boxes = [GeoBox(SHAPE, Transform(10, 0, east, 0, -10, 5000000), "EPSG:32633") for east in (500000, 500005)]
    placed = new_stack({"vv": stack.vv.values}, stack.time.values, geobox=boxes[1], scene=list("abcd"))
    with pytest.raises(StackError, match="not the alignment's"):
        Alignment("a", WARPS, alignment.report, boxes[0], SHAPE).apply(placed)


def test_wrong_resampling_and_nothing_left_are_errors(alignment, stack):
    with pytest.raises(ConfigError, match="bicubic"):
        alignment.apply(stack, resampling="bicubic")
    with pytest.raises(NoUsableData):
        Alignment("x", {}, alignment.report, None, SHAPE).apply(stack)
