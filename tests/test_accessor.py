"""`.geoalign` on Datasets: the public functions, nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import geoalign
from tests import worlds

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def stack():
    return worlds.sar("change").stack


def test_its_methods_are_the_public_functions(stack):
    names = [name for name in dir(stack.geoalign) if not name.startswith("_")]
    assert names == ["composite", "coregister", "detect", "explore", "index", "mask", "polygons", "smooth", "summary"]
    assert all(name in geoalign.__all__ for name in names)


def test_it_gives_what_the_functions_give(stack):
    found = stack.geoalign.detect("log_ratio")
    xr.testing.assert_identical(found, geoalign.detect(stack, "log_ratio"))
    assert found.geoalign.polygons(min_area_m2=100).equals(geoalign.polygons(found, min_area_m2=100))
    xr.testing.assert_identical(stack.geoalign.mask(), geoalign.mask(stack))


def test_it_holds_no_state_and_changes_nothing(stack):
    before = stack.copy(deep=True)
    stack.geoalign.detect("log_ratio")
    xr.testing.assert_identical(stack, before)


@pytest.mark.parametrize(
    "code",
    [
        "import geoalign; geoalign.new_stack",
        "import xarray; import geoalign",
        "import geoalign.accessor",
    ],
)
def test_importing_geoalign_is_enough(code):
    check = f"{code}; import xarray; assert hasattr(xarray.Dataset, 'geoalign')"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_importing_geoalign_loads_neither_xarray_nor_numpy():
    check = "import geoalign, sys; assert not {'xarray', 'numpy', 'dask'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_coregister_is_there_too():
    flat = geoalign.new_stack({"vv": np.ones((2, 8, 8))}, ["2024-01-01", "2024-01-13"])
    report = flat.geoalign.coregister(reference="2024-01-01T00:00:00").report
    assert set(report.status) <= {"reference", "rejected", "failed"}
