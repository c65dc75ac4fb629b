import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau, theilslopes

from geoalign.kernels.harmonic import regressors
from geoalign.kernels.trend import (
    deseasoned_periods,
    lag_one,
    mann_kendall,
    normal_score,
    step_or_line,
    trends,
    unbiased,
)


def autocorrelated(seed, shape, r):
    rng = np.random.default_rng(seed)
    e = rng.normal(size=shape)
    e[:, 0] /= np.sqrt(1 - r**2)
    for k in range(1, shape[1]):
        e[:, k] += r * e[:, k - 1]
    return e * np.sqrt(1 - r**2)


def naive_kendall(y):
    s = sum(np.sign(b - a) for a, b in itertools.combinations(y, 2))
    n = len(y)
    ties = np.unique(y, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    return (s - np.sign(s)) / np.sqrt(variance)


@pytest.mark.parametrize("seed", range(4))
def test_rank_score_and_slope_are_those_of_the_obvious_code(seed):
    rng = np.random.default_rng(seed)
    y = np.round(rng.normal(size=25), 1)
    assert mann_kendall(y, 25) == pytest.approx(naive_kendall(y))
    assert np.sign(mann_kendall(y, 25)) == np.sign(kendalltau(np.arange(25), y).statistic)
    found = trends(y[None], np.zeros(1))[0]
    slope, _, low, high = theilslopes(y, np.arange(25))
    assert found[1] == pytest.approx(slope)
    np.testing.assert_allclose(found[7:9], [low, high], atol=0.02)


@pytest.mark.parametrize("n", [20, 40, 80])
def test_the_size_holds_under_autocorrelation(n):
    found = trends(autocorrelated(n, (3000, n), 0.6), np.zeros(3000))
    called = np.abs(found[:, 2]) > 1.96
    assert 0.032 < called.mean() < 0.062


@pytest.mark.parametrize("size", [2.0, 3.0, 4.0, 6.0, 12.0])
@pytest.mark.parametrize("r", [0.0, 0.6])
def test_steps_are_not_trends(size, r):
    y = autocorrelated(int(size), (800, 30), r)
    place = np.random.default_rng(0).integers(4, 26, 800)
    y += size * (np.arange(30) >= place[:, None])
    found = trends(y, np.zeros(800))
    assert (np.abs(found[:, 2]) > 1.96).mean() < (0.1 if size > 2 else 0.13)
    if size > 5:
        assert np.median(np.abs(found[:, 5] - place)) == 0


def test_trends_are_found_and_not_held_for_steps():
    y = autocorrelated(7, (800, 30), 0.2) + np.linspace(0, 6, 30)
    found = trends(y, np.zeros(800))
    assert (found[:, 2] > 1.96).mean() > 0.9
    assert np.median(found[:, 1]) == pytest.approx(6 / 29, rel=0.05)
    gain, _ = step_or_line(y[0], np.arange(30), 30)
    assert gain == pytest.approx(found[0, 4])


def test_a_residual_shift_weakens_the_score():
    y = autocorrelated(3, (50, 20), 0.0) + np.linspace(0, 4, 20)
    plain, shifted = (trends(y, np.full(50, v))[:, 2] for v in (0.0, 3.0))
    assert (np.abs(shifted) <= np.abs(plain)).all()
    assert np.abs(shifted).mean() < 0.7 * np.abs(plain).mean()


def test_autocorrelation_skips_gaps_and_is_freed_of_its_bias():
    y = np.array([1.0, -1, 1, -1, 1, -1, 1, -1])
    assert lag_one(y, np.arange(8), 8) == pytest.approx(-1)
    assert lag_one(y, np.arange(8) * 2, 8) == 0
    n = 40
    y = autocorrelated(5, (2000, n), 0.6)
    x = np.arange(n) - (n - 1) / 2
    flat = y - y.mean(1, keepdims=True) - (y @ x / (x @ x))[:, None] * x
    assert np.mean([unbiased(lag_one(v, np.arange(n), n), n) for v in flat]) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("n", [8, 12, 25, 200])
def test_scores_keep_their_order_and_sign(n):
    scores = np.linspace(-6, 6, 101)
    normal = np.array([normal_score(s, n, 0.4) for s in scores])
    assert (np.diff(normal) > 0).all()
    np.testing.assert_allclose(normal, -normal[::-1])


def test_the_season_is_taken_out_and_gaps_stay_gaps():
    year = np.arange(0, 12, 1 / 23)
    rng = np.random.default_rng(0)
    series = (0.5 + 0.01 * year + 0.2 * np.cos(2 * np.pi * year) + rng.normal(0, 0.01, year.size))[None]
    series = series.astype(np.float32)
    series[0, (year >= 4) & (year < 5)] = np.nan
    series[0, rng.random(year.size) < 0.4] = np.nan
    number = np.floor(year).astype(np.int64)
    periods, count = deseasoned_periods(series, regressors(year, 2), number, 12, 2)
    assert count[0] == np.isfinite(series).sum()
    assert np.isnan(periods[0, 4])
    assert np.isfinite(np.delete(periods[0], 4)).all()
    expected = 0.5 + 0.01 * (np.arange(12) + 0.5)
    np.testing.assert_allclose(np.delete(periods[0] - expected, 4), 0, atol=0.012)


def test_too_little_is_said():
    y = np.full((3, 20), np.nan)
    y[1, :7] = 1
    y[2, ::2] = np.arange(10)
    assert trends(y, np.zeros(3))[:, 0].tolist() == [-1, -2, -2]


def test_a_period_just_begun_has_no_value():
    number = np.repeat(np.arange(13), [10] * 12 + [1])
    periods, _ = deseasoned_periods(np.ones((1, 121), np.float32), np.ones((121, 2)), number, 13, 0)
    assert np.isnan(periods[0]).tolist() == [False] * 12 + [True]
    thin = np.ones((1, 121), np.float32)
    thin[0, np.arange(121) % 10 > 0] = np.nan
    assert np.isfinite(deseasoned_periods(thin, np.ones((121, 2)), number, 13, 0)[0]).all()
