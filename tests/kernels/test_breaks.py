import numpy as np
import pytest

from geoalign.kernels.break_fit import HELD, fit, space
from geoalign.kernels.break_noise import ONE, outlier_limits, spikes
from geoalign.kernels.break_tests import best_pair, best_passing, best_season, best_step, change_limits, step_sums
from geoalign.kernels.breaks import find
from geoalign.kernels.segments import PACKED, products, regressors, running


def stage(n=150, seed=0, n_band=1):
    rng = np.random.default_rng(seed)
    years = np.sort(rng.uniform(15, 23, n))
    x = regressors(years, 3)
    total = np.zeros((n + 1, PACKED))
    running(products(x), np.arange(n), 0, n, total)
    return years, x, total, rng.normal(size=(n_band, n)), space(n_band, n)


def look(values, years, alpha=0.001, prior=0.1, most=4, free=True, order=3, drift=0.04):
    """`find` on (n_pixel, n_time) of one band."""
    x = regressors(years, order)
    cuts, spike = outlier_limits(1)
    cube = np.ascontiguousarray(values[:, None].astype(np.float32))
    soft = 1 / (0.5 * (years[-1] - years[0]) / 2) ** 2
    limits = change_limits(alpha, years.size, 1)
    return find(
        cube, np.zeros(cube.shape[:2]), x, products(x), years, False, order, free, soft, cuts, limits, spike, drift,
        0.0, prior, most,
    )  # fmt: skip


def squares(x, y):
    return np.linalg.lstsq(x.T, y, rcond=None)[1][0]


def test_gains_of_steps_are_those_of_two_regressions():
    years, x, total, w, s = stage(n_band=2)
    p, left, _ = fit(w, x, total, years, 0, 150, 2, False, 0.0, (1e9, 1.0, 1e9), s)
    assert p == 6
    assert left == pytest.approx(sum(squares(x[:6], band) for band in w))
    step_sums(total, 0, 150, p, 2, s)
    top, place = best_step(150, 2, s)
    gain = [left - sum(squares(np.vstack([x[:6], np.arange(150) >= i]), band) for band in w) for i in range(6, 145)]
    assert place == 6 + int(np.argmax(gain))
    assert top == pytest.approx(max(gain))
    top, begin, length = best_passing(150, p, 2, s)
    inside = (np.arange(150) >= begin) & (np.arange(150) < begin + length)
    assert top == pytest.approx(left - sum(squares(np.vstack([x[:6], inside]), band) for band in w))


def test_gain_of_another_season_is_that_of_two_fits():
    years, x, total, w, s = stage(seed=1)
    p, left, _ = fit(w, x, total, years, 0, 150, 1, False, 0.0, (1e9, 1.0, 1e9), s)
    top, at = best_season(x, total, years, 0, 150, p, 1, s)
    assert top == pytest.approx(left - squares(x[:p, :at], w[0, :at]) - squares(x[:p, at:], w[0, at:]))


def test_the_fit_hardly_moves_for_outliers():
    years, x, total, w, s = stage(seed=2)
    truth = np.array([5.0, 1.0, 3.0, -2.0])
    w[0] += truth @ x[:4]
    w[0, ::20] -= 30
    p, _, _ = fit(w, x, total, years, 0, 150, 3, True, 0.0, ONE, s)
    assert p == 4
    np.testing.assert_allclose(s.beta[0, :4], truth, atol=0.45)


def test_a_stretch_of_a_few_months_has_no_season_or_trend():
    years, x, total, w, s = stage(seed=3)
    p, _, _ = fit(w, x, total, years, 0, 10, 3, True, 0.0, ONE, s)
    assert p == 2
    assert abs(s.beta[0, 1]) < 1e3 / HELD


def test_spikes_are_told_from_steps():
    e = np.random.default_rng(4).normal(size=(1, 60))
    e[0, 30:] += 12
    e[0, [10, 45]] -= 9
    keep = np.empty(60, bool)
    assert spikes(e, 60, outlier_limits(1)[1], keep) == 58
    assert list(np.flatnonzero(~keep)) == [10, 45]


def test_limits_hold_their_level_on_white_noise():
    rng = np.random.default_rng(5)
    years = 15 + np.arange(120) * 0.06
    values = 0.5 + 0.1 * np.cos(2 * np.pi * years) + rng.normal(0, 0.03, (2500, 120))
    flagged = (look(values, years, alpha=0.1, drift=0.0)[0] == 1).mean()
    assert 0.015 < flagged < 0.11


def test_two_breaks_each_with_its_date_and_size():
    rng = np.random.default_rng(6)
    years = 10 + np.arange(400) * 0.05
    values = 0.6 + 0.1 * np.cos(2 * np.pi * years) + rng.normal(0, 0.03, (30, 400))
    values[:, 150:] -= 0.25
    values[:, 280:] += 0.15
    outcome, _, n_changes, _, noise, date, after, by, magnitude, chance, _ = look(values, years)
    assert (n_changes == 2).all()
    assert (outcome == 1).all()
    assert (np.abs(date[:, :2] - [150, 280]) <= 1).all()
    assert ((after[:, :2] < [150, 280]) & (by[:, :2] >= [150, 280])).mean() > 0.95
    np.testing.assert_allclose(np.median(magnitude[:, :2], axis=0), [-0.25, 0.15], atol=0.01)
    assert (chance[:, :2] > 0.99).all()
    assert (date[:, 2:] == -1).all()
    assert np.median(noise) == pytest.approx(0.03, rel=0.1)


def test_what_passes_is_two_breaks():
    rng = np.random.default_rng(7)
    years = 10 + np.arange(300) * 0.05
    values = 0.6 + rng.normal(0, 0.03, (30, 300))
    values[:, 120:135] -= 0.2
    _, _, n_changes, _, _, date, _, _, magnitude, _, _ = look(values, years)
    assert (n_changes == 2).mean() > 0.9
    both = n_changes == 2
    assert (np.abs(date[both, :2] - [120, 135]) <= 1).all()
    assert (magnitude[both, 0] < 0).all()
    assert (magnitude[both, 1] > 0).all()


def test_another_season_at_the_same_level_is_a_break():
    rng = np.random.default_rng(8)
    years = 10 + np.arange(300) * 0.05
    amplitude = np.where(np.arange(300) < 160, 0.12, 0.02)
    values = 0.5 + amplitude * np.cos(2 * np.pi * years) + rng.normal(0, 0.03, (20, 300))
    date = look(values, years)[5]
    assert (np.abs(date[:, 0] - 160) < 12).mean() > 0.9


def test_of_many_breaks_the_surest_are_kept_in_order():
    rng = np.random.default_rng(9)
    years = 10 + np.arange(400) * 0.05
    values = 0.5 + rng.normal(0, 0.02, (5, 400))
    for k, begin in enumerate(range(60, 400, 60)):
        values[:, begin:] += 0.2 * (-1) ** k
    _, _, n_changes, _, _, date, *_ = look(values, years, most=2)
    assert (n_changes >= 5).all()
    assert (date[:, 0] < date[:, 1]).all()


@pytest.mark.parametrize(("first", "second"), [(-0.3, 0.3), (-0.2, -0.2), (-0.2, 0.1)])
def test_two_steps_do_not_hide_each_other(first, second):
    """In ten years of one season; a test for one step alone sees the other as noise, or as trend and season."""
    rng = np.random.default_rng(4)
    years = np.arange(120) * 12 / 365.25
    values = 0.6 + 0.1 * np.cos(2 * np.pi * years) + 0.02 * rng.normal(size=(20, 120))
    values[:, 36:] += first
    values[:, 76:] += second
    outcome, _, n_changes, *_, date, _, _, _, _, _ = look(values, years, alpha=0.001)
    assert (outcome == 1).all()
    assert (n_changes == 2).mean() >= 0.9
    found = np.sort(np.where(date < 0, 999, date), axis=1)[:, :2]
    assert (np.abs(found - [36, 76]).max(axis=1) <= 1).mean() >= 0.9


def test_the_best_pair_takes_off_what_least_squares_says():
    years, x, total, w, s = stage(90, 3)
    w[0] += np.where(np.arange(90) >= 31, 3.0, 0.0) - np.where(np.arange(90) >= 58, 2.0, 0.0)
    p, squares, _ = fit(w, x, total, years, 0, 90, 1, False, 0.0, (1e9, 1.0, 1e9), s)
    step_sums(total, 0, 90, p, 1, s)
    gain, i, j = best_pair(90, p, 1, s)
    steps = [(np.arange(90) < k).astype(float) for k in (i, j)]
    design = np.column_stack([*x[:p], *steps])
    left = np.linalg.lstsq(design, w[0], rcond=None)[1][0]
    assert abs(i - 31) <= 1
    assert abs(j - 58) <= 1
    np.testing.assert_allclose(squares - gain, left, rtol=1e-6)
