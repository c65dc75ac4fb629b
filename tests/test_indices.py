"""Indices: the published formulas on hand-worked numbers, gaps, laziness, and errors that help."""

import warnings

import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, new_stack
from geoalign.indices import INDICES, index, possible

BANDS = {"blue": 0.05, "green": 0.08, "red": 0.06, "nir": 0.30, "swir1": 0.20, "swir2": 0.12}


@pytest.fixture
def stack():
    bands = {name: np.full((2, 3, 4), value, np.float32) for name, value in BANDS.items()}
    bands["red"][0, 0, 0] = np.nan
    bands["nir"][1, 1, 1] = bands["red"][1, 1, 1] = 0.0
    return new_stack(bands, ["2024-01-01", "2024-01-11"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ndfi", 0.639522),  # fractions by SciPy's nnls
        ("ndvi", 0.24 / 0.36),
        ("evi", 2.5 * 0.24 / (0.30 + 0.36 - 0.375 + 1)),
        ("evi2", 2.5 * 0.24 / (0.30 + 0.144 + 1)),
        ("savi", 1.5 * 0.24 / 0.86),
        ("nbr", 0.18 / 0.42),
        ("nbr2", 0.08 / 0.32),
        ("ndmi", 0.10 / 0.50),
        ("ndwi", -0.22 / 0.38),
        ("mndwi", -0.12 / 0.28),
        ("ndbi", -0.10 / 0.50),
        ("bsi", (0.26 - 0.35) / 0.61),
        ("ndsi", -0.12 / 0.28),
        ("awesh", 0.05 + 0.20 - 0.75 - 0.03),
        ("awensh", -0.48 - 0.075 - 0.33),
        ("brightness", 0.010215 + 0.033264 + 0.033144 + 0.17223 + 0.06248 + 0.027636),
        ("greenness", -0.008015 - 0.022552 - 0.029604 + 0.2382 - 0.00004 - 0.017352),
        ("wetness", 0.001575 + 0.016168 + 0.018612 + 0.04782 - 0.13612 - 0.073308),
    ],
)
def test_value_is_that_of_the_formula(stack, name, value):
    assert float(index(stack, name)[1, 2, 2]) == pytest.approx(value, abs=1e-5)


def test_every_index_is_tested():
    marks = test_value_is_that_of_the_formula.pytestmark[0].args[1]
    assert {name for name, _ in marks} == set(INDICES)


@pytest.mark.parametrize("name", INDICES)
def test_gaps_and_empty_light_give_nan_without_a_warning(stack, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = index(stack, name)
    assert found.dtype == np.float32
    assert found.dims == ("time", "y", "x")
    assert found.attrs["long_name"]
    assert bool(found[0, 0, 0].isnull()) == ("red" in INDICES[name].bands)
    if name == "ndvi":
        assert np.isnan(found[1, 1, 1])


@pytest.mark.parametrize("name", INDICES)
def test_lazy_is_eager(stack, name, no_compute):
    with no_compute():
        lazy = index(stack.chunk(time=1, y=2, x=3), name)
    xr.testing.assert_identical(lazy.compute().reset_coords(drop=True), index(stack, name).reset_coords(drop=True))


def test_the_stack_stays_what_it_was(stack):
    before = stack.copy(deep=True)
    index(stack, "evi")
    xr.testing.assert_identical(stack, before)


def test_an_unknown_index_names_the_nearest(stack):
    with pytest.raises(ConfigError, match="did you mean 'ndvi'"):
        index(stack, "ndvii")


def test_a_missing_band_is_named_with_what_is_possible(stack):
    with pytest.raises(StackError, match=r"swir2 is missing.*ndvi"):
        index(stack.drop_vars("swir2"), "nbr")
    with pytest.raises(StackError, match="No index is possible"):
        index(stack[["blue"]], "nbr")
    assert possible(stack[["red", "nir"]]) == ["ndvi", "evi2", "savi"]
