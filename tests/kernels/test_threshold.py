import numpy as np
import pytest

from geoalign.kernels.threshold import GATE, half_threshold, posterior, shape_of_ratio, two_sided

LOW, STEP, N = -8.0, 0.005, 3200


def histogram(values):
    return np.histogram(values, N, (LOW, LOW + N * STEP))[0].astype(float)


@pytest.mark.parametrize(("beta", "ratio"), [(2.0, np.pi / 2), (1.0, 2.0)])
def test_shape_of_a_gaussian_and_of_a_laplacian(beta, ratio):
    assert shape_of_ratio(ratio) == pytest.approx(beta, abs=1e-6)


def test_the_cut_lies_where_two_gaussians_cross():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 0.2, 90_000), rng.normal(1.2, 0.2, 10_000)])
    fit = two_sided(histogram(values), LOW, STEP)
    # equal spreads: the densities times their shares cross at 0.6 + 0.04 ln(9) / 1.2
    assert fit[13] == pytest.approx(0.6 + 0.04 * np.log(9) / 1.2, abs=0.06)
    assert np.isinf(fit[1])
    assert fit[0] == pytest.approx(0, abs=0.02)


def test_both_sides_are_cut_where_both_hold_change():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0.3, 0.15, 50_000), rng.normal(1.3, 0.2, 6_000), rng.normal(-0.9, 0.2, 4_000)])
    fit = two_sided(histogram(values), LOW, STEP)
    assert fit[0] == pytest.approx(0.3, abs=0.03)
    assert 0.3 < fit[1] < 0.9
    assert 0.3 < fit[13] < 0.8


@pytest.mark.parametrize("looks", [1, 4, 20])
@pytest.mark.parametrize("width", [9, 25])
def test_speckle_alone_is_not_cut(looks, width):
    rng = np.random.default_rng(looks)
    ratio = np.log(rng.gamma(looks * width, 1, 60_000) / rng.gamma(looks * width, 1, 60_000))
    fit = two_sided(histogram(ratio), LOW, STEP)
    assert np.isinf(fit[[1, 13]]).all()
    assert fit[[2, 14]].max() < GATE


def test_a_heavy_tail_is_not_taken_for_a_second_class():
    values = np.random.default_rng(2).laplace(0, 0.2, 60_000)
    fit = two_sided(histogram(values), LOW, STEP)
    assert np.isinf(fit[[1, 13]]).all()


def test_nothing_observed_gives_no_centre_and_no_threshold():
    fit = two_sided(np.zeros(N), LOW, STEP)
    assert np.isnan(fit[0])
    assert np.isinf(fit[[1, 13]]).all()


def test_one_value_everywhere_is_not_cut():
    fit = two_sided(histogram(np.full(1000, 0.25)), LOW, STEP)
    assert fit[0] == pytest.approx(0.25, abs=STEP)
    assert np.isinf(fit[[1, 13]]).all()


def test_posterior_rises_with_distance_and_with_the_prior():
    x = (np.arange(200) + 0.5) * 0.01
    weights = np.exp(-0.5 * (x / 0.2) ** 2) + 0.2 * np.exp(-0.5 * ((x - 1.2) / 0.2) ** 2)
    _, _, class0, class1 = half_threshold(weights / weights.sum(), x, 0.002)
    p = np.array([posterior(d, class0, class1, 0.1) for d in np.linspace(0, 3, 60)])
    assert (np.diff(p) >= -1e-12).all()
    assert p[0] < 0.01
    assert p[-1] > 0.99
    assert posterior(0.7, class0, class1, 0.5) > posterior(0.7, class0, class1, 0.1)
    assert (posterior(0.7, class0, class1, 0.0), posterior(0.7, class0, class1, 1.0)) == (0.0, 1.0)
