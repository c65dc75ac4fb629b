"""Decimation counts what was observed, and nothing else."""

import numpy as np
import pytest

from geoalign.kernels.decimate import block_sums, mean_of


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_sums_and_counts_are_those_of_the_observed_pixels(factor):
    image = np.random.default_rng(1).normal(size=(23, 31)).astype(np.float32)
    image[4:9, 3:20] = np.nan
    image[0, 0] = np.inf
    total, count = block_sums(image, factor)
    assert total.shape == (23 // factor, 31 // factor)
    for i, j in np.ndindex(*total.shape):
        block = image[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
        seen = block[np.isfinite(block)].astype(float)
        assert count[i, j] == seen.size
        assert total[i, j] == pytest.approx(seen.sum(), abs=1e-9)
    assert np.isnan(mean_of(total, count, factor**2)[count < 0.5 * factor**2]).all()
