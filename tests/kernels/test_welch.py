import numpy as np
import pytest
from scipy import stats

from geoalign.kernels.welch import BORROWED, first_of_two, stouffer, welch


def naive(after, before):
    """Welch's t with the variance after the event moderated by that before; scipy's where nothing is borrowed."""
    s1, s2 = before.var(ddof=1), after.var(ddof=1)
    n1, n2 = before.size, after.size
    s2 = ((n2 - 1) * s2 + BORROWED * s1) / (n2 - 1 + BORROWED)
    v1, v2 = s1 / n1, s2 / n2
    df = (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1 + BORROWED))
    return (after.mean() - before.mean()) / np.sqrt(v1 + v2), min(df, n1 + n2 - 2)


def test_t_is_welchs_orbit_by_orbit_with_gaps():
    rng = np.random.default_rng(0)
    series = rng.normal(0, 1, (20, 30))
    series[:, 22:] += 0.7
    series[rng.random(series.shape) < 0.2] = np.nan
    orbit = np.arange(30) % 2
    t, df, _ = welch(series, np.zeros(20), orbit, 2, np.array([[0, 22, 30]]))
    for p in range(20):
        for o in range(2):
            before, after = (
                x[orbit[part] == o] for x, part in ((series[p, :22], slice(22)), (series[p, 22:], slice(22, 30)))
            )
            before, after = before[np.isfinite(before)], after[np.isfinite(after)]
            if before.size < 3 or after.size < 2:
                assert df[p, 0, o] == 0
                continue
            assert (t[p, 0, o], df[p, 0, o]) == pytest.approx(naive(after, before))


def test_with_many_observations_it_is_that_of_scipy():
    rng = np.random.default_rng(1)
    before, after = rng.normal(0, 1, 400), rng.normal(0.1, 2, 400)
    t, _, _ = welch(np.append(before, after)[None], np.zeros(1), np.zeros(800, np.int64), 1, np.array([[0, 400, 800]]))
    assert t[0, 0, 0] == pytest.approx(stats.ttest_ind(after, before, equal_var=False).statistic, rel=0.01)


def test_size_is_nominal_with_few_after_the_event_where_the_normal_law_is_not():
    series = np.random.default_rng(1).normal(0, 1, (40_000, 44))
    t, df, _ = welch(series, np.zeros(len(series)), np.arange(44) % 2, 2, np.array([[0, 38, 44]]))
    z = stouffer(t, df)[:, 0]
    assert (np.abs(z) > 2.576).mean() == pytest.approx(0.007, abs=0.004)
    as_normal = np.abs(t[:, 0].sum(axis=1)) / np.sqrt(2) > 2.576
    assert as_normal.mean() > 0.015


def test_no_orbit_with_enough_dates_gives_nan():
    t, df, change = welch(np.zeros((1, 4)), np.zeros(1), np.zeros(4, np.int64), 1, np.array([[0, 3, 4]]))
    assert np.isnan(stouffer(t, df)).all()
    assert np.isnan(change).all()


def test_a_constant_series_has_no_t():
    t, df, _ = welch(np.ones((1, 12)), np.zeros(1), np.zeros(12, np.int64), 1, np.array([[0, 8, 12]]))
    assert (t == 0).all()
    assert (df > 0).all()
    np.testing.assert_array_equal(stouffer(t, df), 0)


def test_a_residual_shift_counts_as_variance():
    series = np.random.default_rng(2).normal(0, 1, (5, 30))
    splits = np.array([[0, 20, 30]])
    plain, wide = (welch(series, np.full(5, v), np.zeros(30, np.int64), 1, splits)[0] for v in (0.0, 3.0))
    assert (np.abs(wide) < np.abs(plain)).all()


def test_the_date_is_the_first_of_two_in_a_row():
    series = 0.1 * np.random.default_rng(3).normal(size=(4, 1, 30))
    series[0, 0, 24:] += 2
    series[1, 0, 22] += 2
    series[1, 0, 25:] -= 2
    series[2, 0, 20:] = np.nan
    series[3, 0, 23] = np.nan
    series[3, 0, 24:] += 2
    date, before, n = first_of_two(series, 20, 30, 4.0)
    assert date.tolist() == [24, 25, -1, 24]
    assert before.tolist() == [23, 24, -1, 22]
    assert n.tolist() == [30, 30, 20, 29]
