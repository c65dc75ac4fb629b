import numpy as np

from geoalign.kernels.flood_votes import area_by_date, peak_of, votes, wet_runs
from geoalign.kernels.harmonic import regressors

KINDS = np.array([[-20.0, 2.0, -10.0, 2.0, 1.0]])
WATER = np.array([[-0.394181, -4.142015, 2.754041]])


def polled(series, start, stop, days=12):
    level = np.asarray(series, np.float32)[:, None]
    n = level.shape[2]
    t = np.arange(n) * days / 365.25
    return votes(
        level, level, np.full(len(level), start), np.full(len(level), stop), KINDS, WATER,
        np.full(len(level), 38.0), regressors(t, 3), (t % 1) * 365.25, 0, -1,
    )  # fmt: skip


def ground(n=40, seed=0):
    return -10 + 0.5 * np.random.default_rng(seed).normal(size=(1, n))


def test_water_gets_the_vote_and_a_wet_field_none():
    wet, field = ground(), ground()
    wet[:, 20:23] = -18
    field[:, 20:23] -= 3
    past, *_, usual = polled(np.concatenate([wet, field]), 20, 23)
    assert past[0] > 2
    assert past[1] < -1
    assert not usual.any()


def test_a_shallow_drop_is_unlike_still_ground_but_not_unlike_ground_that_swings():
    still, restless = ground(), ground(seed=1)
    restless += np.where(np.arange(40) % 2 == 0, -2.5, 2.5)
    for series in (still, restless):
        series[:, 20:23] = -14
    past, calm, fall, dip, _ = polled(np.concatenate([still, restless]), 20, 23)
    assert (past < -1).all()
    assert calm[0] > 3
    assert calm[1] < -0.5
    np.testing.assert_allclose(fall, -4, atol=1.5)  # the middle of ground that swings is anywhere in it
    assert dip[0] > -2
    assert dip[1] < -2.5


def test_water_on_many_other_dates_is_usual():
    series = ground()
    series[:, ::3] = -19
    series[:, 20:23] = -19
    assert polled(series, 20, 23)[-1][0]


def test_water_at_the_same_season_is_usual():
    series = ground(92)
    for year in range(3):
        series[:, 10 + 30 * year : 15 + 30 * year] = -19
    assert polled(series, 40, 45, 12.175)[-1][0]
    alone = ground(92)
    alone[:, 40:45] = -19
    assert not polled(alone, 40, 45, 12.175)[-1][0]


def test_a_season_is_the_grounds_own_past():
    t = np.arange(92) * 12 / 365.25
    series = (-12 + 4 * np.cos(2 * np.pi * t))[None] + 0.3 * np.random.default_rng(0).normal(size=(1, 92))
    past = polled(series, 45, 47)[0]
    assert past[0] < 0


def test_no_run_has_no_votes():
    past, *_, usual = polled(ground(), -1, -1)
    assert np.isnan(past[0])
    assert not usual[0]


def test_runs_of_a_short_series():
    odds = np.array([[-5, -5, 4, 4, -5], [5, 5, 5, 5, 5], [-5, -5, -5, -5, -5], [-5, np.nan, np.nan, 4, 4]], float)
    level = np.where(odds > 0, -19.0, -9.0)
    start, before, stop, drop, best, n, stood = wet_runs(odds, level, 2)
    assert start.tolist() == [2, -1, -1, 3]
    assert before.tolist() == [1, -1, -1, 0]
    assert stop.tolist() == [4, -1, -1, -1]
    assert drop[0] == -10
    assert n.tolist() == [5, 5, 5, 3]
    assert stood.tolist() == [False, True, False, False]
    assert best[1] < 0 < best[0]


def test_a_single_scene_shows_all_its_water():
    start, *_ = wet_runs(np.array([[3.0], [-3.0]]), np.array([[-19.0], [-9.0]]), 0)
    assert start.tolist() == [0, -1]


def test_the_peak_is_the_scenes():
    start, stop = np.array([[2, 3, 3, -1]]), np.array([[5, -1, 4, -1]])
    area = area_by_date(start, stop, 6)
    assert area.tolist() == [0, 0, 1, 3, 2, 1]
    assert peak_of(start.ravel(), stop.ravel(), area).tolist() == [3, 3, 3, -1]
