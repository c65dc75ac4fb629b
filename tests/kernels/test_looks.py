"""Looks of simulated speckle, with texture, correlation and gaps."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign.kernels.looks import log_looks, spatial_looks, temporal_looks


def speckle(looks, shape, seed=0):
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape).astype(np.float32)


def ground(shape):
    """Fields of several levels with sharp borders."""
    rows, cols = np.indices(shape)
    level = np.random.default_rng(5).uniform(0.02, 0.3, (1 + shape[0] // 40, 1 + shape[1] // 40))
    return level[rows // 40, cols // 40]


@pytest.mark.parametrize("looks", [1.0, 4.4, 12.0])
@pytest.mark.parametrize("estimate", [spatial_looks, log_looks])
def test_even_fields(looks, estimate):
    image = ground((240, 240)) * speckle(looks, (240, 240))
    image[:30, :50] = np.nan
    assert estimate(image) == pytest.approx(looks, rel=0.15)


def test_correlated_speckle_has_the_looks_that_its_pixels_have():
    fine = gaussian_filter(speckle(3.0, (400, 400)), 0.6, mode="wrap")
    true = fine.mean() ** 2 / fine.var()
    assert true > 10
    assert spatial_looks(fine) == pytest.approx(true, rel=0.2)
    assert log_looks(fine) == pytest.approx(true, rel=0.2)


def test_in_time_change_does_not_count():
    series = ground((80, 80)) * speckle(4.4, (20, 80, 80))
    series[10:, :30] *= 0.2
    assert temporal_looks(series) == pytest.approx(4.4, rel=0.1)


def test_too_little_is_no_estimate():
    assert np.isnan(spatial_looks(speckle(4, (20, 20))))
    assert np.isnan(temporal_looks(speckle(4, (3, 80, 80))))
    assert np.isnan(log_looks(np.full((100, 100), np.nan, np.float32)))
