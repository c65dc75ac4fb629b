import json

import numpy as np
import pytest
import xarray as xr

from geoalign import mask, new_stack
from geoalign.errors import ConfigError
from geoalign.masks import masked_share


def stack_of(**bands):
    n = next(iter(bands.values())).shape[0]
    return new_stack(bands, np.datetime64("2024-01-01", "ns") + np.arange(n) * np.timedelta64(5, "D"))


def test_defaults_take_impossible_values_only():
    red = np.full((3, 6, 7), 0.05, np.float32)
    nir = np.full((3, 6, 7), 0.3, np.float32)
    nir[1] = 0.02  # a flood seen once
    red[0, 2, 2] = 3.0
    before = stack_of(red=red, nir=nir)
    after = mask(before)
    assert np.isnan(after.red.values).sum() == 1
    assert np.isnan(after.nir.values[0, 2, 2])
    assert not np.isnan(after.nir.values[1]).any()
    assert json.loads(after.attrs["masked"])["valid_range"] == [-0.2, 1.6]
    np.testing.assert_allclose(masked_share(before, after), [1 / 42, 0, 0], rtol=1e-5)
    assert not np.isnan(before.red.values).any()  # inputs are never changed


def test_indices_are_masked_along_but_not_tested():
    stack = stack_of(red=np.full((1, 2, 2), 0.1, np.float32), count=np.full((1, 2, 2), 40.0, np.float32))
    assert not np.isnan(mask(stack)["count"].values).any()


def test_clouds_and_shadows_are_found_when_asked_for():
    rng = np.random.default_rng(1)
    blue = (0.04 + 0.004 * rng.standard_normal((9, 8, 8))).astype(np.float32)
    nir = (0.30 + 0.004 * rng.standard_normal((9, 8, 8))).astype(np.float32)
    blue[4, :3] = 0.5
    nir[6, 5:] = 0.05
    stack = stack_of(blue=blue, nir=nir)
    bad = np.isnan(mask(stack, cloud_sigma=5).blue.values)
    assert bad[4, :3].all()
    assert bad.sum() == 24
    bad = np.isnan(mask(stack, shadow_sigma=5).nir.values)
    assert bad[6, 5:].all()
    assert bad.sum() == 24


def test_gaps_grow_and_lazy_is_eager(no_compute):
    rng = np.random.default_rng(2)
    values = rng.random((6, 23, 31)).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan
    stack = stack_of(red=values, blue=values + np.float32(0.01))
    options = {"dilate_px": 2, "cloud_sigma": 3, "shadow_sigma": 3}
    eager = mask(stack, **options)
    assert np.isnan(eager.red.values).sum() > np.isnan(values).sum()
    for chunks in ({"time": 1, "y": 7, "x": 11}, {"time": 4, "y": 23, "x": 5}):
        with no_compute():
            lazy = mask(stack.chunk(chunks), **options)
        xr.testing.assert_identical(lazy.compute(), eager)


def test_wrong_options_say_what_there_is():
    stack = stack_of(red=np.zeros((2, 3, 3), np.float32))
    with pytest.raises(ConfigError, match=r"no option floor_db for optical.*cloud_sigma"):
        mask(stack, floor_db=-30)
    with pytest.raises(ConfigError, match="valid_range"):
        mask(stack, valid_range=(1, 0))
    with pytest.raises(ConfigError, match="shadow_sigma"):
        mask(stack, shadow_sigma=-1)
