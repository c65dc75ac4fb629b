import numpy as np
import pytest

from geoalign.kernels.gradient import median_gradient
from tests import naive


def test_gradient_is_that_of_the_median_image():
    rng = np.random.default_rng(1)
    window = rng.normal(size=(7, 6, 5)).astype(np.float32)
    window[rng.random(window.shape) < 0.3] = np.nan
    window[:, 2, 2] = np.nan
    found = median_gradient(window)
    middle = np.full((6, 5), np.nan)
    for r, c in np.argwhere(~np.isnan(window).all(0)):
        values = window[:, r, c]
        middle[r, c] = np.median(values[~np.isnan(values)])
    for r in range(6):
        for c in range(5):
            assert found[r, c] == pytest.approx(naive.squared_gradient(middle, r, c), rel=1e-5, abs=1e-9)


def test_a_ramp_has_its_slope():
    window = np.broadcast_to(0.1 * np.arange(8, dtype=np.float32), (3, 6, 8)).copy()
    np.testing.assert_allclose(median_gradient(window), 0.01, rtol=1e-5)
