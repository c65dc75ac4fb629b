"""LASSO from sums: optimal by the conditions that define it, and equal to least squares without penalty."""

import numpy as np
import pytest

from geoalign.kernels.lasso import N_COEF, add_to_sums, clear_sums, coefficients, design, fit_sums


def fitted(x, y, p, penalty):
    n_band = y.shape[1]
    gram, cross, square = np.zeros((N_COEF, N_COEF)), np.zeros((n_band, N_COEF)), np.zeros(n_band)
    beta, coef, rmse = np.zeros((n_band, N_COEF)), np.zeros((n_band, N_COEF)), np.zeros(n_band)
    clear_sums(gram, cross, square)
    for row, values in zip(x, y):
        add_to_sums(row, values, gram, cross, square)
    fit_sums(gram, cross, square, p, penalty, beta, coef, rmse, np.zeros((N_COEF, N_COEF)), np.zeros(N_COEF))
    return coef, rmse


def series(seed, n=40):
    rng = np.random.default_rng(seed)
    years = 11 + np.sort(rng.uniform(0, 4, n))
    y = 0.3 + 0.1 * np.sin(2 * np.pi * years)[:, None] * [1, 0.5] + 0.01 * (years[:, None] - 11) * [0, 1]
    return design(years), y + rng.normal(0, 0.01, y.shape)


@pytest.mark.parametrize("p", [4, 6, 8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_optimality_conditions_hold(p, seed):
    x, y = series(seed)
    penalty = 0.002
    coef, rmse = fitted(x, y, p, penalty)
    for k in range(y.shape[1]):
        left = y[:, k] - x[:, :p] @ coef[k, :p]
        assert abs(left.mean()) < 1e-9
        assert rmse[k] == pytest.approx(np.sqrt((left**2).sum() / (len(left) - p)), rel=1e-4)
        scaled = (x[:, 1:p] - x[:, 1:p].mean(0)) / x[:, 1:p].std(0)
        pull = scaled.T @ left / len(left)
        beta = coef[k, 1:p] * x[:, 1:p].std(0)
        np.testing.assert_allclose(pull[beta != 0], penalty * np.sign(beta[beta != 0]), atol=2e-5)
        assert (np.abs(pull[beta == 0]) <= penalty + 2e-5).all()
        assert (coef[k, p:] == 0).all()


def test_without_penalty_it_is_least_squares():
    x, y = series(3, n=80)
    coef, _ = fitted(x, y, 8, 0.0)
    np.testing.assert_allclose(coef.T, np.linalg.lstsq(x, y, rcond=None)[0], atol=5e-3)


def test_a_penalty_above_everything_leaves_the_mean():
    x, y = series(4)
    coef, _ = fitted(x, y, 8, 10.0)
    np.testing.assert_allclose(coef[:, 0], y.mean(0))
    assert (coef[:, 1:] == 0).all()


def test_coefficients_by_observations():
    assert [coefficients(n) for n in (12, 17, 18, 23, 24, 300)] == [4, 4, 6, 6, 8, 8]
