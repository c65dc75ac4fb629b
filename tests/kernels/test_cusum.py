"""Cumulative sums: the statistic against its definition, the boundary against simulation, dates against the truth."""

import numpy as np
import pytest
from scipy import stats

from geoalign.kernels.cusum import ALPHAS, BOUNDARIES, CAP, LENGTHS, boundaries, locate, scan, student_to_normal
from geoalign.kernels.harmonic import regressors
from tests import naive

OUTCOME, DATE, AFTER, BY, CONFIRMED, SIZE, PROBABILITY, N_OBS, RATIO, OVER, NOISE = range(11)


def noise(n_pixel, n_time, seed=0, gaps=0.0, ar=0.0):
    rng = np.random.default_rng(seed)
    e = rng.standard_normal((n_pixel, n_time))
    for t in range(1, n_time if ar else 0):
        e[:, t] = ar * e[:, t - 1] + np.sqrt(1 - ar**2) * e[:, t]
    e[rng.random(e.shape) < gaps] = np.nan
    return (0.6 + 0.03 * e).astype(np.float32)


def run(series, first, *, order=1, alpha=0.01, direction=0, prior=0.05, step_days=16, widening=0.0, cap=CAP):
    years = np.arange(series.shape[1]) * step_days / 365.25
    x = regressors(years, order)
    wide = np.full(len(series), widening)
    bound = boundaries(alpha, years.size)
    return scan(series, x, years, first, wide, np.ones(years.size), order, bound, direction, prior, 3.0, cap)


@pytest.mark.parametrize("df", [3, 8, 30])
def test_student_values_keep_their_tail(df):
    z = np.array([0.5, 1.5, 3.0, 4.0])
    t = stats.t.isf(stats.norm.sf(z), df)
    found = np.array([student_to_normal(v, float(df)) for v in t])
    np.testing.assert_allclose(found, z, rtol=0.04)
    assert student_to_normal(-2.0, 5.0) == -student_to_normal(2.0, 5.0)


def test_statistic_is_the_largest_of_its_definition():
    """Without the cap the largest sum over all starts and lengths is what plain least squares gives."""
    series = noise(3, 60)
    first, order = 50, 1
    # more than two years of history, so that the trend is free; outliers beyond 3 sd would be left out of the reference
    found = run(series, first, order=order, cap=50.0)
    x = regressors(np.arange(60) * 16 / 365.25, order)
    for p in range(3):
        y = series[p].astype(float)
        largest = 0.0
        for j in range(first, 60):
            for m in LENGTHS[60 - j >= LENGTHS]:
                t, df = naive.standardised_sum(x, y, j, j + m)
                largest = max(largest, abs(student_to_normal(t, float(df))))
        # the recursion divides the kept squares by the variance of errors cut at 3 sd
        assert found[p, RATIO] * boundaries(0.01, 10)[10] == pytest.approx(largest, rel=0.02)


@pytest.mark.parametrize("row", [3, 8])
def test_boundary_is_the_quantile_of_simulated_sums(row):
    rng = np.random.default_rng(12)
    n = LENGTHS[row]
    z = np.clip(rng.standard_normal((60_000, n)), -CAP, CAP)
    c = np.concatenate([np.zeros((len(z), 1)), z.cumsum(1)], 1)
    largest = np.zeros(len(z))
    for m in LENGTHS[n >= LENGTHS]:
        largest = np.maximum(largest, np.abs(c[:, m:] - c[:, :-m]).max(1) / np.sqrt(m))
    for alpha in (0.05, 0.01):
        assert (largest > boundaries(alpha, n)[n]).mean() == pytest.approx(alpha, rel=0.12)


def test_boundary_rises_with_length_and_falls_with_level():
    assert (np.diff(BOUNDARIES, axis=0) > 0).all()
    assert (np.diff(BOUNDARIES, axis=1) > 0).all()
    assert (np.diff(boundaries(0.003, 3000)[3:]) > 0).all()
    assert np.isinf(boundaries(0.01, 5)[:3]).all()
    np.testing.assert_allclose([boundaries(a, 64)[64] for a in ALPHAS], BOUNDARIES[10], rtol=1e-12)
    assert boundaries(1e-6, 64)[64] > BOUNDARIES[10, -1]


@pytest.mark.parametrize(("n_history", "n_watched"), [(60, 20), (90, 100), (40, 200)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_size_is_the_level_whatever_the_length(n_history, n_watched, alpha):
    """0.7 to 1.3 of alpha over the whole time watched, 30 % gaps, a season and a trend to be learned."""
    found = run(noise(2500, n_history + n_watched, seed=n_watched, gaps=0.3), n_history, order=2, alpha=alpha)
    share = np.isin(found[:, OUTCOME], (1, 2)).mean()
    margin = 2.6 * np.sqrt(alpha * (1 - alpha) / 2500)
    assert 0.7 * alpha - margin < share < 1.3 * alpha + margin


def test_a_step_of_three_sd_is_found_and_dated():
    series = noise(1500, 70, seed=3)
    series[:, 40:] -= 0.09
    found = run(series, 20)
    assert (found[:, OUTCOME] == 1).mean() > 0.99
    error = found[:, DATE] - 40
    assert np.median(error) == 0
    assert (np.abs(error) <= 1).mean() > 0.9
    assert np.abs(found[:, SIZE] + 0.09).mean() < 0.02
    inside = (found[:, AFTER] < 40) & (found[:, BY] >= 40)
    assert inside.mean() > 0.91
    assert (found[:, CONFIRMED] >= 42).mean() > 0.96
    assert np.median(found[:, CONFIRMED]) <= 44


def test_single_clouds_raise_no_alarm():
    series = noise(1500, 90, seed=5)
    series[np.arange(1500), 50 + np.arange(1500) % 20] -= 0.5
    assert np.isin(run(series, 40)[:, OUTCOME], (1, 2)).mean() < 0.02


def test_what_comes_back_is_over():
    series = noise(400, 100, seed=6)
    series[:, 50:60] -= 0.15
    found = run(series, 30)
    assert (found[:, OUTCOME] == 2).mean() > 0.97
    assert np.median(found[:, DATE]) == 50
    assert np.median(found[:, OVER]) == 60


@pytest.mark.parametrize("direction", [-1, 1])
def test_direction_is_obeyed(direction):
    series = noise(300, 80, seed=7)
    series[:150, 50:] -= 0.12
    series[150:, 50:] += 0.12
    found = np.isin(run(series, 30, direction=direction)[:, OUTCOME], (1, 2))
    asked = found[:150] if direction < 0 else found[150:]
    other = found[150:] if direction < 0 else found[:150]
    assert asked.mean() > 0.98
    assert other.mean() < 0.03


def test_last_observations_far_off_are_first_signs():
    series = noise(300, 60, seed=8)
    series[:100, 58:] -= 0.3
    series[100:200, 59:] -= 0.3
    outcome = run(series, 40)[:, OUTCOME]
    assert (outcome[:100] == 3).mean() > 0.7  # the rest is confirmed: the observation before was low as well
    assert np.isin(outcome[:100], (1, 3)).mean() > 0.97
    assert (outcome[100:200] == 4).mean() > 0.9
    assert np.isin(outcome[200:], (3, 4)).mean() < 0.02


def test_widening_excuses_what_a_shift_explains():
    series = noise(500, 80, seed=9)
    series[:, 50:] -= 0.06
    plain = np.isin(run(series, 30)[:, OUTCOME], (1, 2)).mean()
    wide = np.isin(run(series, 30, widening=0.2**2)[:, OUTCOME], (1, 2)).mean()
    assert plain > 0.9
    assert wide < 0.01


def test_probability_is_the_share_that_changed():
    """Series drawn from the prior it assumes: of those given p, a share p changed."""
    rng = np.random.default_rng(10)
    n, watched = 4000, 40
    series = noise(n, 100, seed=10)
    moved = rng.random(n) < 0.2
    start = rng.integers(60, 100, n)
    size = rng.normal(0, 3 * 0.03, n)
    series += np.where(moved[:, None] & (np.arange(100) >= start[:, None]), size[:, None], 0).astype(np.float32)
    p = run(series, 100 - watched, prior=0.2)[:, PROBABILITY]
    for low, high in ((0, 0.2), (0.2, 0.8), (0.8, 1.01)):
        group = (p >= low) & (p < high)
        assert moved[group].mean() == pytest.approx(p[group].mean(), abs=0.08)


def test_odd_series_are_defined():
    series = np.full((6, 40), 0.7, np.float32)
    series[1] = np.nan
    series[2, 5:] = np.nan
    series[3] = 0.0
    series[4, 25:] = 0.2
    series[5, 22:] = np.nan
    found = run(series, 20)
    np.testing.assert_array_equal(found[:, OUTCOME], [0, -1, -2, 0, 1, -3])
    assert found[4, DATE] == 25
    assert found[0, PROBABILITY] < 0.05
    np.testing.assert_array_equal(found[:, N_OBS], [40, 0, 5, 40, 40, 22])


def test_without_since_a_pixel_takes_the_history_it_needs():
    series = noise(1, 60, seed=11)
    series[0, :18] = np.nan
    assert run(series, 10)[0, OUTCOME] == -2
    assert run(series, -10)[0, OUTCOME] == 0


def test_a_step_without_noise_is_located_exactly():
    error = np.zeros(40)
    error[22:] = -5.0
    assert locate(error, 0, 40, 20, 39, CAP)[0] == 22


def test_errors_that_follow_each_other_are_no_change():
    """With eight years of reference; the boundary for independent errors alone let .36 through in twelve years."""
    rng = np.random.default_rng(14)
    e = rng.normal(0, 0.03, (1200, 320))
    for i in range(1, 320):
        e[:, i] = 0.3 * e[:, i - 1] + np.sqrt(1 - 0.09) * e[:, i]
    series = e.astype(np.float32)
    assert np.isin(run(series, 130, alpha=0.05)[:, OUTCOME], (1, 2)).mean() < 0.09
    series[:, 220:] -= 0.06
    assert np.isin(run(series, 130, alpha=0.05)[:, OUTCOME], (1, 2)).mean() > 0.95
