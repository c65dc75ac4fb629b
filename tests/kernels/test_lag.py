import numpy as np
import pytest

from benchmarks.sar_stack import speckle
from geoalign.kernels.lag import lag_correlation, lag_histogram


@pytest.mark.parametrize("lag", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("n_time", [12, 60])
def test_a_planted_correlation_is_found(lag, n_time):
    series = speckle(np.random.default_rng(1), (n_time, 40, 40), 4.4, lag)
    assert lag_correlation([lag_histogram(series[None])]) == pytest.approx(lag, abs=0.04 if n_time > 12 else 0.09)


def test_changes_are_not_taken_for_correlation():
    series = speckle(np.random.default_rng(2), (60, 40, 40), 4.4)
    series[30:, :, :15] *= 0.2
    assert lag_correlation([lag_histogram(series[None])]) < 0.03


def test_blocks_add_up_and_few_differences_say_nothing():
    series = speckle(np.random.default_rng(3), (20, 40, 40), 4.4, 0.4)[None]
    parts = [
        lag_histogram(np.ascontiguousarray(series[..., :17])),
        lag_histogram(np.ascontiguousarray(series[..., 17:])),
    ]
    assert lag_correlation(parts) == lag_correlation([lag_histogram(series)])
    assert lag_correlation([lag_histogram(np.ascontiguousarray(series[..., :2, :2]))]) == 0
    assert lag_correlation([lag_histogram(np.full((1, 20, 40, 40), np.nan))]) == 0
