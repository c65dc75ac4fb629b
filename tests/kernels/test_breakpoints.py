"""Breakpoints by dynamic programming: against the best of all ways to cut a short series, and on planted breaks."""

import itertools

import numpy as np
import pytest

from geoalign.kernels.breakpoints import NO_DATA, TOO_FEW, regressors, scan

YEARS = np.arange(0, 8, 16 / 365.25)


def run(series, order=1, trend=True, share=0.15, schwarz=False, years=None, first=0, slope=0.0, spread=None):
    years = YEARS[: series.shape[1]] if years is None else years
    spread = np.zeros(years.size) if spread is None else spread
    x = regressors(years, order, trend)
    return scan(
        series.astype(np.float32), np.full(len(series), slope), spread, x, order, trend, share, round(1 / share),
        schwarz, 0.1, first, 5,
    )  # fmt: skip


def best_cut(y, x, least, m):
    """Least sum of squares over every way to place m breaks."""

    def rss(i, j):
        return ((y[i:j] - x[i:j] @ np.linalg.lstsq(x[i:j], y[i:j], rcond=None)[0]) ** 2).sum()

    table = {(i, j): rss(i, j) for i in range(len(y)) for j in range(i + least, len(y) + 1)}
    cuts = [
        c for c in itertools.combinations(range(least, len(y) - least + 1), m)
        if all(b - a >= least for a, b in itertools.pairwise((0, *c, len(y))))
    ]  # fmt: skip
    return min(cuts, key=lambda c: sum(table[a, b] for a, b in itertools.pairwise((0, *c, len(y)))))


@pytest.mark.parametrize("seed", range(4))
def test_the_cut_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    n = 48
    y = rng.normal(0, 0.02, n) + 0.05 * np.cos(2 * np.pi * YEARS[:n])
    places = (rng.integers(13, 19), rng.integers(31, 36))
    y[places[0] :] += 0.2
    y[places[1] :] -= 0.3
    outcome, _, at, _, _ = run(y[None], share=0.2)
    assert outcome[0] == 2
    x = regressors(YEARS[:n], 1, True)[:, :4]
    assert tuple(at[0, :2, 0]) == best_cut(y.astype(np.float32).astype(float), x, 9, 2)


def test_criteria_and_stable_series():
    rng = np.random.default_rng(1)
    y = 0.6 + 0.1 * np.sin(2 * np.pi * YEARS) + rng.normal(0, 0.03, (300, YEARS.size))
    few = (run(y)[0] > 0).mean()
    more = (run(y, schwarz=True)[0] > 0).mean()
    assert few <= 0.01
    assert few <= more <= 0.08
    evidence = run(y)[4]
    assert (evidence < 0).mean() > 0.95


def test_the_interval_holds_the_break_in_nine_of_ten():
    rng = np.random.default_rng(2)
    y = rng.normal(0, 0.05, (400, YEARS.size))
    y[:, 90:] += 0.15
    outcome, _, at, size, _ = run(y, schwarz=True)
    one = outcome == 1
    assert one.mean() > 0.8
    inside = (at[one, 0, 1] < 90) & (at[one, 0, 2] >= 90)
    assert 0.83 < inside.mean() < 0.99
    assert abs(np.median(size[one, 0, 0]) - 0.15) < 0.02


def test_lone_clouds_are_left_out():
    rng = np.random.default_rng(3)
    y = 0.7 + rng.normal(0, 0.02, (50, YEARS.size))
    y[:, 100:] -= 0.1
    y[:, 7::23] -= 0.4
    outcome, n_obs, at, _, _ = run(y)
    assert (outcome == 1).mean() > 0.9
    assert abs(np.median(at[:, 0, 0]) - 100) <= 1
    assert (n_obs == YEARS.size).all()


def test_too_little_is_said_and_constants_have_no_break():
    y = np.full((3, 60), np.nan)
    y[1, :9] = 0.5
    y[2] = 0.25
    outcome, n_obs, at, _, _ = run(y)
    assert outcome.tolist() == [NO_DATA, TOO_FEW, 0]
    assert n_obs.tolist() == [0, 9, 60]
    assert (at == -1).all()


def test_scenes_that_lie_off_count_less():
    rng = np.random.default_rng(4)
    y = rng.normal(0, 0.02, (200, YEARS.size))
    off = np.zeros(YEARS.size)
    off[110:] = 4.0
    y[:, 110:] += rng.normal(0, 0.5, (200, YEARS.size - 110))
    blind = (run(y, schwarz=True)[0] > 0).mean()
    told = (run(y, schwarz=True, slope=0.0625, spread=off)[0] > 0).mean()
    assert told < 0.5 * blind
