import numpy as np
import pytest

from geoalign.kernels.glr_null import ONE_SIDED, SEGMENT, TWO_SIDED, max_quantile, max_tail


def largest(n, n_band, kind, n_series=40_000):
    """Largest statistic of each of many Gaussian series, by brute force."""
    x = np.random.default_rng(n + n_band).standard_normal((n_series, n_band, n))
    sums = np.concatenate([np.zeros((n_series, n_band, 1)), np.cumsum(x, axis=2)], axis=2)
    best = np.zeros(n_series)
    for a in range(1, n):
        for b in range(a + 1, n + 1) if kind == SEGMENT else [n]:
            m = b - a
            d = (sums[..., b] - sums[..., a] - m / n * sums[..., n]) / np.sqrt(m * (n - m) / n)
            d = d if kind == TWO_SIDED else np.minimum(d, 0)
            best = np.maximum(best, (d**2).sum(axis=1))
    return best


@pytest.mark.parametrize("kind", [TWO_SIDED, ONE_SIDED, SEGMENT])
@pytest.mark.parametrize(("n", "n_band"), [(5, 1), (9, 2), (14, 1)])
def test_the_quantile_is_passed_as_often_as_said(kind, n, n_band):
    best = largest(n, n_band, kind)
    for alpha in (0.1, 0.01):
        assert (best > max_quantile(alpha, n, n_band, kind)).mean() == pytest.approx(alpha, rel=0.2)


def test_the_tail_falls_with_z_and_rises_with_dates():
    z = np.linspace(0.5, 60, 200)
    p = np.array([max_tail(v, 20, 2, SEGMENT) for v in z])
    assert (np.diff(p) < 0).all()
    assert max_tail(15.0, 60, 1, TWO_SIDED) > max_tail(15.0, 10, 1, TWO_SIDED)
    assert max_tail(15.0, 1000, 1, TWO_SIDED) > max_tail(15.0, 256, 1, TWO_SIDED)


def test_ends_are_defined():
    assert max_tail(0.0, 10, 1, TWO_SIDED) == 1.0
    assert max_tail(5.0, 1, 1, TWO_SIDED) == 1.0
    assert 0 <= max_tail(1e4, 10, 1, TWO_SIDED) < 1e-100
