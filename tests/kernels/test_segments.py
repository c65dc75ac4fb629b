import numpy as np
import pytest

from geoalign.kernels.segments import (
    PACKED,
    WIDTH,
    backward,
    factor,
    forward,
    products,
    regressors,
    residuals,
    running,
    trimmed_variance,
)


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    years = np.sort(rng.uniform(18, 25, 120))
    x = regressors(years, 3)
    at = np.flatnonzero(rng.random(120) < 0.7)
    total = np.zeros((121, PACKED))
    running(products(x), at, 0, at.size, total)
    return x[:, at].copy(), total, rng.normal(size=at.size)


@pytest.mark.parametrize(("a", "b", "p"), [(0, 80, 8), (11, 60, 6), (30, 75, 4), (0, 20, 2)])
def test_a_stretch_is_fitted_as_by_least_squares(series, a, b, p):
    x, total, y = series
    lower, z, beta = np.zeros((WIDTH, WIDTH)), np.zeros(WIDTH), np.zeros(WIDTH)
    assert factor(total, a, b, p, 0.0, lower) == p
    forward(lower, x[:, a:b] @ y[a:b], p, z)
    backward(lower, z, p, beta)
    expected, squares, *_ = np.linalg.lstsq(x[:p, a:b].T, y[a:b], rcond=None)
    np.testing.assert_allclose(beta[:p], expected, rtol=1e-8, atol=1e-10)
    assert (beta[p:] == 0).all()
    # every order from one factor
    assert np.dot(y[a:b], y[a:b]) - (z[:p] ** 2).sum() == pytest.approx(squares[0])
    fewer = np.linalg.lstsq(x[: p - 1, a:b].T, y[a:b], rcond=None)[1][0]
    assert np.dot(y[a:b], y[a:b]) - (z[: p - 1] ** 2).sum() == pytest.approx(fewer)
    out = np.zeros(y.size)
    residuals(y, x, a, b, p, beta, out)
    np.testing.assert_allclose(out[a:b], y[a:b] - x[:p, a:b].T @ expected, atol=1e-10)


def test_columns_that_repeat_others_end_the_factor(series):
    x, total, _ = series
    at = np.full(10, 3)
    same = np.zeros((11, PACKED))
    running(products(x), at, 0, 10, same)
    assert factor(same, 0, 10, 8, 0.0, np.zeros((WIDTH, WIDTH))) == 1


def test_a_ridge_holds_the_trend(series):
    x, total, y = series
    lower, z, beta = np.zeros((WIDTH, WIDTH)), np.zeros(WIDTH), np.zeros(WIDTH)
    factor(total, 0, 80, 4, 1e12, lower)
    forward(lower, x[:, :80] @ y[:80], 4, z)
    backward(lower, z, 4, beta)
    assert abs(beta[1]) < 1e-9


def test_variance_in_spite_of_outliers():
    rng = np.random.default_rng(1)
    e = rng.normal(0, 2, 2000)
    e[:100] += 40
    assert trimmed_variance(e**2, e.size, 6.25, 0.9113) == pytest.approx(4, rel=0.12)
