"""Composites of a Stack: periods, laziness, what is kept."""

import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, composite, detect, new_stack, smooth


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(0)
    time = np.datetime64("2021-11-20") + np.cumsum(rng.integers(3, 12, 60))
    bands = {b: rng.uniform(0.05, 0.4, (60, 5, 7)).astype(np.float32) for b in ("red", "nir", "swir2")}
    hidden = rng.random((60, 5, 7)) < 0.3
    return new_stack({b: np.where(hidden, np.nan, v) for b, v in bands.items()}, time)


@pytest.mark.parametrize("how", ["median", "medoid", "geomedian"])
@pytest.mark.parametrize("by", ["month", "quarter", "year", "all", 16])
def test_lazy_is_eager(stack, by, how):
    eager = composite(stack, by, how=how)
    lazy = composite(stack.chunk(time=7, y=2, x=3), by, how=how)
    assert all(lazy[name].chunks is not None for name in lazy.data_vars)
    xr.testing.assert_identical(lazy.compute(), eager)


def test_a_period_is_dated_by_its_first_day_and_counted(stack):
    yearly = composite(stack, "year")
    assert [str(t)[:10] for t in yearly.time.values[:2]] == ["2021-01-01", "2022-01-01"]
    assert int(yearly.n_scenes.sum()) == 60
    inside = stack.time.dt.year.values == 2022
    np.testing.assert_allclose(yearly.red[1], np.nanmedian(stack.red.values[inside], 0), rtol=1e-6)
    np.testing.assert_array_equal(yearly.n_clear[1], np.isfinite(stack.red.values[inside]).sum(0))
    assert [str(t)[:10] for t in composite(stack, "quarter").time.values[:2]] == ["2021-10-01", "2022-01-01"]


def test_periods_without_scenes_are_left_out():
    few = new_stack({"ndvi": np.ones((2, 1, 1))}, ["2020-01-05", "2020-06-05"])
    assert composite(few).sizes["time"] == 2
    assert [str(t)[:10] for t in composite(few, 30).time.values] == ["2020-01-05", "2020-06-03"]


def test_a_composite_is_a_stack_that_detectors_take(stack):
    found = detect(composite(stack, 16), "breaks", index="ndvi")
    assert found.sizes == {"y": 5, "x": 7, "break": 4}


def test_the_input_stays_as_it_is(stack):
    before = stack.copy(deep=True)
    composite(stack)
    smooth(stack)
    xr.testing.assert_identical(stack, before)


@pytest.mark.parametrize("options", [{"by": "week"}, {"by": 0}, {"by": True}, {"how": "mean"}])
def test_unknown_options_are_refused(stack, options):
    with pytest.raises(ConfigError, match="choose"):
        composite(stack, **options)


def test_smoothing_is_lazy_and_fills_short_gaps(stack):
    eager = smooth(stack, days=60)
    xr.testing.assert_identical(smooth(stack.chunk(time=9, y=3, x=2), days=60).compute(), eager)
    middle = slice(12, -12)
    assert np.isfinite(eager.red[middle]).all()
    assert np.isnan(stack.red[middle]).any()
    assert list(eager.data_vars) == list(stack.data_vars)
    assert eager.red.dims == ("time", "y", "x")


def test_scenes_of_one_pass_do_not_upset_the_curve():
    time = np.datetime64("2021-01-01T10:00:00") + np.arange(40) // 2 * np.timedelta64(8, "D")
    time = time + np.arange(40) % 2 * np.timedelta64(25, "s")
    ndvi = 0.5 + np.random.default_rng(1).normal(0, 0.05, (40, 1, 1))
    assert float(np.abs(smooth(new_stack({"ndvi": ndvi}, time)).ndvi - 0.5).max()) < 0.08


def test_smoothing_takes_days_above_zero(stack):
    with pytest.raises(ConfigError, match="above 0"):
        smooth(stack, days=0)
