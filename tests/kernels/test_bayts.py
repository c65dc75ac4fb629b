import math

import numpy as np
import pytest

from geoalign.kernels.bayts import CONFIRMED, FLAGGED, NONE, QUIET, fold, learn


def followed(series, days, mean, variance, drop, temper, confirm, patience):
    """One pixel and orbit, in chances instead of logarithms: (state, chance, date flagged, date confirmed)."""
    state, alert, since, until, before = QUIET, 0.5, NONE, NONE, 0.5
    for t in range(series.shape[1]):
        odds = 1.0
        for b in range(series.shape[0]):
            d = series[b, t] - mean[b]
            cleared, woods = (math.exp(-((d - m) ** 2) / (2 * variance[b])) for m in (-drop[b], 0.0))
            odds *= cleared / woods
        chance = min(max(odds / (1 + odds), 0.1), 0.9)
        chance = 1 / (1 + ((1 - chance) / chance) ** temper)
        if state != CONFIRMED:
            if state == FLAGGED and days[t] - days[since] > patience:
                state = QUIET
            prior = alert if state == FLAGGED else before
            joint = prior * chance / (prior * chance + (1 - prior) * (1 - chance))
            if state == QUIET and chance >= 0.5:
                state, since, alert = FLAGGED, t, joint
            elif state == FLAGGED:
                alert = joint
            if state == FLAGGED and alert < 0.5 - 1e-5:
                state = QUIET
            elif state == FLAGGED and alert >= confirm and chance >= 0.5:
                state, until = CONFIRMED, t
        before = chance
    return state, alert, since, until


def run(series, days, mean, variance, drop, temper, confirm=0.99, patience=90.0, group=None):
    n_band, n_time, n = series.shape
    i, f = (np.full(n, NONE, np.int32) for _ in range(4)), (np.zeros(n, np.float32) for _ in range(4))
    group = np.zeros(n_time, np.int64) if group is None else group
    last, since, after, until = i
    ln_sum, previous, odds, size = f
    ln_sum -= np.float32(1e30)
    return fold(
        series, group, days, 0, np.full(n, temper, np.float32), drop, math.log(confirm / (1 - confirm)), patience,
        mean, variance, np.zeros(n, np.uint16), np.zeros(n, np.uint16), ln_sum, previous, last,
        np.zeros(n, np.uint8), odds, since, after, until, size, np.zeros(n, np.uint16),
    )  # fmt: skip


@pytest.mark.parametrize("temper", [1.0, 0.6])
def test_alerts_are_those_of_the_rule_in_chances(temper):
    rng = np.random.default_rng(0)
    series = rng.normal(0, 2, (2, 40, 200)).astype(np.float32)
    series[:, 20:, ::2] -= 2.5
    days, drop = np.arange(40) * 12.0, np.array([2.0, 4.0])
    mean, variance = np.zeros((2, 200), np.float32), np.full((2, 200), 4.0, np.float32)
    found = run(series, days, mean, variance, drop, temper)
    state, odds, since, until = found[5], found[6], found[7], found[9]
    confirmed = 0
    for p in range(200):
        wanted = followed(series[:, :, p], days, mean[:, p], variance[:, p], drop, temper, 0.99, 90.0)
        assert (state[p], until[p]) == (wanted[0], wanted[3])
        if wanted[0] != QUIET:
            assert since[p] == wanted[2]
            assert 1 / (1 + math.exp(-odds[p])) == pytest.approx(wanted[1], abs=1e-4)
        confirmed += wanted[0] == CONFIRMED
    assert 60 < confirmed < 150


def test_the_history_is_learned_orbit_by_orbit():
    rng = np.random.default_rng(1)
    group = np.arange(40) % 2
    series = (rng.normal(0, 2, (1, 40, 3000)) + np.where(group, -12.0, -15.0)[:, None]).astype(np.float32)
    series[0, 8:, 0] = np.nan
    mean, variance, n_obs = learn(series, group, 2, np.zeros((1, 3000), np.float32))
    np.testing.assert_allclose(mean[:, 1:].mean(axis=1), [-15, -12], atol=0.05)
    # the next value's variance, 1/n for the mean and Student's width included
    assert variance[:, 1:].mean() == pytest.approx(4 * (1 + 1 / 20) * 19 / 17, rel=0.02)
    assert np.isnan(mean[:, 0]).all()
    assert (n_obs[0], n_obs[1]) == (8, 40)
    assert learn(series, group, 2, np.ones((1, 3000), np.float32))[1][0, 5] == pytest.approx(variance[0, 5] + 1)


def test_an_orbit_without_history_says_nothing():
    series = np.full((1, 5, 1), -30, np.float32)
    mean, variance = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    found = run(series, np.arange(5.0), mean, variance, np.array([4.0]), 1.0, group=np.full(5, NONE))
    assert (found[0][0], found[5][0]) == (0, QUIET)
