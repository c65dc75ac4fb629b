import numpy as np
import pytest
from scipy import special, stats

from geoalign.kernels.special import chi2_sf, gammaincc, looks_of_variance, normal_upper, trigamma


@pytest.mark.parametrize("a", [0.5, 1.0, 4.5, 29.0, 150.0])
@pytest.mark.parametrize("x", [0.0, 1e-3, 0.7, 5.0, 40.0, 400.0])
def test_upper_gamma_agrees_with_scipy(a, x):
    assert gammaincc(a, x) == pytest.approx(special.gammaincc(a, x), rel=1e-9, abs=1e-300)


def test_chi_square_tail_agrees_with_scipy():
    for f in (1, 2, 9, 58):
        for z in (0.1, 3.0, 30.0, 120.0):
            assert chi2_sf(z, f) == pytest.approx(stats.chi2.sf(z, f), rel=1e-9)


def test_trigamma_agrees_with_scipy_and_is_turned_round():
    for looks in (0.2, 1.0, 4.4, 37.0, 5000.0):
        assert trigamma(looks) == pytest.approx(special.polygamma(1, looks), rel=1e-9)
        assert looks_of_variance(trigamma(looks)) == pytest.approx(looks, rel=1e-5)


def test_normal_quantile_agrees_with_scipy():
    for p in (1e-9, 1e-3, 0.1, 0.26, 0.4, 0.5):
        assert normal_upper(p) == pytest.approx(stats.norm.isf(p), rel=1e-6, abs=1e-9)


def test_no_variance_means_endless_looks():
    assert looks_of_variance(0.0) == np.inf
