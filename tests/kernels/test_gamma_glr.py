import numpy as np
import pytest

from geoalign.kernels.gamma_glr import RUN, STEP, date_looks, draw, own_likelihood, pool, run_ratio, scan
from tests.naive import gamma_run_ratio

DAYS = 12.0 * np.arange(20)


def speckle(shape, looks=40, seed=0):
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape)


def scanned(series, kind, sign=-1, looks=40, lead=-1, first=0, most_days=180.0):
    n, n_band, n_time = series.shape
    even, none = np.full((n, n_band), float(looks)), np.zeros((n, n_band))
    return scan(
        series, even, none, np.zeros((n, 1)), 12.0 * np.arange(n_time), kind, sign, lead, first, 3,
        1 if kind == RUN else 3, most_days, 6, 0.0,
    )  # fmt: skip


def test_ratio_is_that_of_the_densities():
    values = speckle(15, 4.4)
    looks = 4.4
    z, ln = run_ratio(looks * values.sum(), looks * 15, looks * values[4:9].sum(), looks * 5)
    assert z == pytest.approx(gamma_run_ratio(values, looks, 4, 9))
    assert ln == pytest.approx(np.log(values[4:9].mean() / np.delete(values, range(4, 9)).mean()))


def test_pooling_cancels_texture_and_keeps_a_common_ratio():
    ground = np.exp(np.random.default_rng(0).normal(size=(8, 9)))
    series = np.broadcast_to(ground, (1, 6, 8, 9)).copy()
    series[:, 3:] /= 2
    pooled = pool(series, 2)
    np.testing.assert_allclose(pooled[0, 3] / pooled[0, 0], 0.5, rtol=1e-6)
    np.testing.assert_allclose(pooled[0, 0], pooled[0, 0, 0, 0], rtol=1e-6)


def test_pooling_keeps_gaps_and_uses_what_is_left():
    series = np.ones((1, 4, 5, 5))
    series[0, 1, 2, 2] = np.nan
    series[0, 2] = np.nan
    series[0, 0, 0, 0] = 0.0
    pooled = pool(series, 1)
    assert np.isnan(pooled[0, 1, 2, 2])
    assert np.isnan(pooled[0, 2]).all()
    assert np.isnan(pooled[0, 0, 0, 0])
    assert pooled[0, 1, 1, 1] == 1


def test_a_flood_is_dated_at_both_ends():
    series = speckle((200, 2, 20))
    series[:, :, 9:13] *= 0.45
    n_obs, z, other, sudden, start, stop, ratio = scanned(series, RUN)
    assert (n_obs == 20).all()
    assert ((start == 9) & (stop == 13)).mean() > 0.97
    assert (z > other + 6).all()
    assert np.median(sudden) == pytest.approx(1, abs=0.1)
    assert np.median(ratio) == pytest.approx(np.log(0.45), abs=0.05)


def test_what_rises_for_good_was_not_flooded_before():
    series = speckle((200, 2, 20))
    series[:, :, 10:] *= 2.5
    _, z, other, *_ = scanned(series, RUN)
    assert (z < other).all()


def test_a_step_is_no_run_and_a_run_no_step():
    step = speckle((200, 1, 20))
    step[:, :, 11:] *= 0.5
    run = speckle((200, 1, 20), seed=1)
    run[:, :, 8:12] *= 0.4
    _, z, other, _, start, stop, _ = scanned(step, STEP)
    assert (start == 11).mean() > 0.95
    assert (stop == -1).all()
    assert (other < 1.25 * z + 6).all()
    _, z, other, *_ = scanned(run, STEP)
    assert (other > 1.25 * z + 6).all()


def test_a_season_is_not_sudden():
    series = speckle((200, 1, 30), 400) * np.exp(0.3 * np.cos(np.pi * np.arange(30) / 29))
    _, _, _, sudden, *_ = scanned(series, STEP, looks=400)
    assert np.median(sudden) < 0.6


def test_gaps_shift_dates_to_what_was_seen():
    series = speckle((100, 1, 20), 200)
    series[:, :, 12:] *= 0.4
    series[:, :, 12:14] = np.nan
    _, _, _, _, start, *_ = scanned(series, STEP, looks=200)
    assert (start == 14).all()


def test_since_keeps_earlier_changes_out():
    series = speckle((50, 1, 20))
    series[:, :, 6:] *= 0.3
    assert (scanned(series, STEP, first=10)[4] >= 10).all()


def test_too_few_observations_give_a_count_only():
    series = np.full((2, 1, 20), np.nan)
    series[1, 0, :5] = 1.0
    n_obs, z, *_, start, _, _ = scanned(series, STEP)
    np.testing.assert_array_equal(n_obs, [0, 5])
    assert (z == 0).all()
    assert (start == -1).all()


def test_own_likelihood_has_the_sign_of_the_truth():
    none, looks, ratio = np.zeros(1), np.full(1, 4.4), np.full(1, np.log(0.5))
    stable = speckle((300, 1, 20), 4.4)
    changed = stable * np.where(np.arange(20) >= 10, 0.5, 1)
    odds = [
        np.array([own_likelihood(s, looks, none, none, 10, -1, ratio) for s in group]) for group in (stable, changed)
    ]
    assert (odds[0] < 0).mean() > 0.9
    assert (odds[1] > 0).mean() > 0.9


def test_looks_fall_with_the_shift_and_twice_as_much_in_two_bands():
    assert date_looks(4.4, 0.0, 1.0, 2) == 4.4
    one, two = date_looks(4.4, 0.5, 0.4, 1), date_looks(4.4, 0.5, 0.4, 2)
    assert two < one < 4.4
    assert date_looks(4.4, 0.5, 0.4 * np.sqrt(2), 1) == pytest.approx(two)


def test_drawing_follows_the_edge_and_not_the_window():
    truth = np.zeros((24, 24), bool)
    truth[6:17, 8:19] = True
    series = speckle((1, 20, 24, 24), 8, seed=3)
    series[:, 10:, truth] *= 0.4
    look = np.full((1, 24, 24), 8.0, np.float32)
    none = np.zeros((1, 24, 24), np.float32)
    near = np.zeros((24, 24), bool)
    near[4:19, 6:21] = True  # what a pooled series would pass
    z = np.where(truth, 100.0, 0.0)
    start, stop = np.full((24, 24), 10, np.int32), np.full((24, 24), -1, np.int32)
    ratio = np.full((1, 24, 24), np.log(0.4), np.float32)
    p, t0, t1, before, _ = draw(series, look, none, none, z, start, stop, ratio, near, truth, 3, 6, 0.6, -5.0)
    drawn = p > 0.5
    assert (drawn & truth).sum() / truth.sum() > 0.97
    assert (drawn & ~truth).sum() <= 4
    assert (t0[drawn] == 10).all()
    assert (before[drawn] == 9).all()
    assert (t1[drawn] == -1).all()
    assert (p[~near] == 0).all()
