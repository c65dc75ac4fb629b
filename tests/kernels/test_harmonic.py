"""Season and trend: against NumPy's least squares, with outliers and with too few observations."""

import numpy as np
import pytest

from geoalign.kernels.harmonic import (
    add_observation,
    choose_order,
    free_trend,
    predict,
    regressors,
    robust_fit,
    solve_normal,
)
from tests import naive


@pytest.fixture
def series():
    rng = np.random.default_rng(4)
    years = np.sort(rng.uniform(0, 6, 70))
    x = regressors(years, 2)
    beta = np.array([0.5, 0.1, -0.05, 0.01, 0.03, 0.02])
    return years, x, beta, x @ beta + rng.normal(0, 0.01, years.size)


def fit(x, y, ridge=0.0):
    n, p = x.shape
    keep, inverse, beta = np.empty(n), np.empty((p, p)), np.empty(p)
    squares = robust_fit(x, y, n, p, ridge, keep, inverse, beta)
    return squares, keep, inverse, beta


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_regressors_are_those_of_the_definition(order):
    years = np.array([0.0, 0.3, 4.71])
    expected = [naive.harmonic_terms(year, order) for year in years]
    np.testing.assert_allclose(regressors(years, order), expected, atol=1e-12)


def test_season_has_one_phase_in_leap_years_too():
    first, last = regressors([20.25, 24.25], 1)
    np.testing.assert_allclose(first[:3], last[:3], atol=1e-9)


def test_clean_series_give_plain_least_squares(series):
    _, x, _, y = series
    squares, keep, inverse, beta = fit(x, y)
    expected, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert keep.all()
    np.testing.assert_allclose(beta, expected, rtol=1e-8)
    np.testing.assert_allclose(squares, rss[0], rtol=1e-8)
    np.testing.assert_allclose(inverse, np.linalg.inv(x.T @ x), rtol=1e-6, atol=1e-10)


def test_undetected_clouds_are_left_out(series):
    _, x, truth, y = series
    y = y.copy()
    bad = np.arange(3, 70, 9)
    y[bad] -= 0.3
    squares, keep, _, beta = fit(x, y)
    assert not keep[bad].any()
    assert keep.sum() >= 70 - bad.size - 2
    np.testing.assert_allclose(beta, truth, atol=0.01)
    assert squares < 70 * 0.01**2 * 1.5


def test_one_season_of_observations_is_singular_not_a_crash():
    x = regressors(np.full(12, 3.5), 1)
    assert fit(x, np.ones(12))[0] == -1.0


def test_a_constant_series_is_fitted_exactly(series):
    _, x, _, _ = series
    squares, _, _, beta = fit(x, np.full(70, 0.7))
    np.testing.assert_allclose(beta, [0.7, 0, 0, 0, 0, 0], atol=1e-12)
    assert squares < 1e-20


def test_recursive_update_is_the_fit_of_all(series):
    _, x, _, y = series
    n, p = 40, x.shape[1]
    _, _, inverse, beta = fit(x[:n], y[:n])
    for i in range(n, 70):
        add_observation(x[i], y[i] - predict(x[i], beta, p), inverse, beta, p)
    np.testing.assert_allclose(beta, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-6)
    np.testing.assert_allclose(inverse, np.linalg.inv(x.T @ x), rtol=1e-6, atol=1e-10)


def test_ridge_holds_the_trend_only(series):
    _, x, _, y = series
    n, p = x.shape
    inverse, beta = np.empty((p, p)), np.empty(p)
    assert solve_normal(x, y, np.ones(n), n, p, 44.0, inverse, beta)
    penalty = np.zeros((p, p))
    penalty[3, 3] = 44.0
    np.testing.assert_allclose(beta, np.linalg.solve(x.T @ x + penalty, x.T @ y), rtol=1e-8)


def test_a_freed_trend_is_that_of_plain_least_squares(series):
    _, x, _, y = series
    n, p = x.shape
    inverse, beta = np.empty((p, p)), np.empty(p)
    solve_normal(x, y, np.ones(n), n, p, 44.0, inverse, beta)
    penalised = ((y - x @ beta) ** 2).sum() + 44.0 * beta[3] ** 2
    penalised -= free_trend(44.0, inverse, beta, p)
    expected, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
    np.testing.assert_allclose(beta, expected, rtol=1e-6)
    np.testing.assert_allclose(inverse, np.linalg.inv(x.T @ x), rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(penalised, rss[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "order", "expected"), [(100, 2, 6), (8, 2, 4), (6, 2, 0), (7, 1, 4), (5, 0, 2), (4, 0, 0), (12, 3, 8)]
)
def test_order_is_limited_by_the_observations(n, order, expected):
    assert choose_order(n, order) == expected
