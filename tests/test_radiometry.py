import numpy as np
import pytest
import xarray as xr

from geoalign import StackError, new_stack
from geoalign.radiometry import normalise
from tests.detectors.test_irmad import scene_pair


def test_unchanged_ground_agrees_after_normalisation():
    stack, mask = scene_pair(0)
    even = normalise(stack)
    xr.testing.assert_equal(even.isel(time=0).drop_vars([c for c in even.coords if c.startswith(("gain", "level"))]),
                            stack.isel(time=0))  # fmt: skip
    for band in stack.data_vars:
        left = (even[band][1] - even[band][0]).values[~mask]
        assert abs(np.median(left)) < 0.3
        assert np.std(left) < 1.6 * 1.5 * np.hypot(1, float(even[f"gain_{band}"][1]))


def test_lazy_is_eager_and_any_scene_can_be_the_reference():
    stack, _ = scene_pair(1)
    stack = stack.assign_coords(scene=("time", ["a", "b"]))
    eager = normalise(stack, "b")
    lazy = normalise(stack.chunk(time=1, y=37, x=50), "b")
    assert lazy.red.chunks is not None
    xr.testing.assert_identical(lazy.compute(), eager)
    np.testing.assert_array_equal(eager.red[1], stack.red[1])


def test_what_cannot_be_normalised_is_refused_or_nan():
    stack, _ = scene_pair(1)
    with pytest.raises(StackError, match="two or more"):
        normalise(stack[["red"]])
    with pytest.raises(StackError, match="no scene"):
        normalise(stack, "c")
    with pytest.raises(StackError, match="no scene"):
        normalise(stack, 5)
    apart = new_stack({"red": np.ones((2, 9, 9)), "nir": np.ones((2, 9, 9))}, ["2020-01-01", "2021-01-01"])
    assert np.isnan(normalise(apart).red[1]).all()
