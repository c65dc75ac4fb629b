"""LandTrendr's pieces: against slow twins of the parts, and on planted falls."""

import itertools

import numpy as np
import pytest
from scipy import stats

from geoalign.kernels.landtrendr import (
    NO_DATA,
    TOO_FEW,
    _anchored,
    _composites,
    _despike,
    _joint,
    _p_of_f,
    _too_fast,
    _vertices,
    scan,
)

YEAR = np.repeat(np.arange(2000, 2020), 5).astype(np.int32)


def run(series, *, slope=0.0, spread=None, p_value=0.05, recovery=0.25, max_years=4.0, first=0, sign=1.0, year=YEAR):
    spread = np.zeros(year.size) if spread is None else spread
    series = np.atleast_2d(series).astype(np.float32)
    return scan(series, np.full(len(series), slope), spread, year, sign, 6, p_value, recovery, max_years, first)


def hats(x, place):
    """Design of joined pieces: one hat a vertex."""
    return np.stack([np.interp(x, x[place], row) for row in np.eye(len(place))], axis=1)


def vertices_slowly(x, y, most):
    place = [0, len(y) - 1]
    while len(place) - 1 < most + 3:
        worst = None
        for a, b in itertools.pairwise(place):
            if b - a > 1:
                off = np.abs(y[a : b + 1] - np.polyval(np.polyfit(x[a : b + 1], y[a : b + 1], 1), x[a : b + 1]))
                if worst is None or (off**2).mean() > worst[0]:
                    worst = ((off**2).mean(), a + 1 + int(off[1:-1].argmax()))
        place = sorted([*place, worst[1]])
    span = y.max() - y.min()
    while len(place) - 1 > most:
        angle = np.arctan(np.diff(y[place]) / span / np.diff(x[place]))
        fall = np.maximum(-np.diff(y[place]), 0) / span
        del place[1 + int((np.abs(np.diff(angle)) * (1 + 2 * fall[1:])).argmin())]
    return place


@pytest.mark.parametrize("seed", range(6))
def test_vertices_and_values_are_those_of_the_slow_way(seed):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.choice(np.arange(1985, 2020), 22, replace=False)).astype(float)
    y = rng.normal(0, 0.03, 22)
    y[rng.integers(5, 18) :] -= 0.3
    place, value = np.zeros(12, np.int64), np.zeros(12)
    m = _vertices(x, y, 22, y.max() - y.min(), 6, place)
    assert place[: m + 1].tolist() == vertices_slowly(x, y, 6)
    rss = _joint(x, y, place, m, value, np.empty((3, 12)))
    best, left, *_ = np.linalg.lstsq(hats(x, place[: m + 1]), y, rcond=None)
    np.testing.assert_allclose(value[: m + 1], best, atol=1e-10)
    assert rss == pytest.approx(left[0])
    anchored = _anchored(x, y, place, m, value)
    assert anchored == pytest.approx(((y - hats(x, place[: m + 1]) @ value[: m + 1]) ** 2).sum())
    assert anchored >= rss - 1e-12


@pytest.mark.parametrize(("n", "m"), [(6, 1), (12, 3), (20, 6), (35, 2)])
def test_p_of_f_is_that_of_the_distribution(n, m):
    for share in (0.9, 0.5, 0.1, 1e-3):
        free = n - 2 * m - 1
        f = (1 - share) / (2 * m) / (share / free)
        assert _p_of_f(share * 2.5, 2.5, n, m) == pytest.approx(stats.f.sf(f, 2 * m, free), rel=1e-9)
    assert _p_of_f(0.1, 1.0, 2 * m + 1, m) == 1.0


def test_years_are_medians_of_what_was_observed():
    rng = np.random.default_rng(0)
    series = rng.normal(0, 1, 100).astype(np.float32)
    series[rng.random(100) < 0.4] = np.nan
    series[10:15] = np.nan
    year = YEAR.copy()
    year[5] = -1
    x, y, held = np.empty(100), np.empty(100), np.empty(100)
    scene = np.empty((100, 3), np.int32)
    n, n_obs, shaken = _composites(series, 0.5, np.full(100, 0.3), year, -1.0, x, y, scene, held)
    seen = {k: np.flatnonzero((year == k) & np.isfinite(series)) for k in range(2000, 2020)}
    seen = {k: at for k, at in seen.items() if at.size}
    assert 2002 not in seen
    assert x[:n].tolist() == list(seen)
    np.testing.assert_allclose(y[:n], [-np.median(series[at]) for at in seen.values()], rtol=1e-6)
    assert n_obs == sum(map(len, seen.values()))
    assert scene[:n].tolist() == [[at[0], at[(at.size + 1) // 2 - 1], at[-1]] for at in seen.values()]
    assert shaken == pytest.approx(sum(np.pi / 2 * 0.5 * 0.3 / at.size for at in seen.values()), rel=1e-4)


def test_a_lone_year_is_pulled_in_and_a_step_is_not():
    y = np.full(20, 0.7)
    y[6] = 0.1
    y[12:] = 0.3
    _despike(y, 20)
    np.testing.assert_allclose(y, np.where(np.arange(20) < 12, 0.7, 0.3))


def test_a_planted_fall_is_found_where_and_how_large():
    rng = np.random.default_rng(1)
    series = 0.7 + rng.normal(0, 0.02, (300, 100))
    series[:, 60:] -= 0.3
    outcome, n_obs, at, size, evidence, vertex, fitted = run(series, p_value=0.001)
    assert (outcome > 0).mean() > 0.98
    assert (outcome == 1).mean() > 0.9
    assert (n_obs == 100).all()
    strongest = np.nan_to_num(np.abs(size[:, :, 0])).argmax(axis=1)
    where = at[np.arange(300), strongest]
    assert (where[:, 0] == 60).mean() > 0.95
    assert ((where[:, 1] < 60) & (where[:, 2] >= 60)).mean() > 0.95
    assert abs(np.median(size[np.arange(300), strongest, 0]) + 0.3) < 0.02
    assert (evidence > 5).mean() > 0.98
    assert (vertex[:, 0] == 2000).all()
    assert abs(np.median(fitted[:, 0]) - 0.7) < 0.02


def test_the_other_way_is_the_same_upside_down():
    rng = np.random.default_rng(2)
    series = rng.normal(0, 0.05, (60, 100))
    series[:, 45:] -= 0.3
    down, up = run(series), run(-series, sign=-1.0)
    for a, b in zip((down[0], down[2], down[5]), (up[0], up[2], up[5])):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(down[3][:, :, 0], -up[3][:, :, 0])
    np.testing.assert_allclose(down[6], -up[6])


def test_slow_declines_are_trends_and_fast_recoveries_refused():
    rng = np.random.default_rng(3)
    series = 0.7 - 0.02 * (YEAR - 2000) + rng.normal(0, 0.005, (100, 100))
    assert (run(series, p_value=0.001)[0] > 0).mean() < 0.05
    series = rng.normal(0, 0.02, (100, 100))
    series[:, 50:] += 0.4
    _, _, _, _, _, vertex, fitted = run(series)
    span = np.nanmax(fitted, axis=1) - np.nanmin(fitted, axis=1)
    rise = np.diff(fitted, axis=1) / np.diff(np.where(vertex < 0, np.nan, vertex), axis=1)
    # the range is that of the values, of which the fit may reach beyond
    assert np.nanmax(rise / span[:, None]) < 0.4
    assert _too_fast(np.arange(3.0), np.array([0, 1, 2]), np.array([0.0, 1.0, 1.0]), 2, 1.0, 0.25)


def test_a_fall_in_two_pieces_is_one_disturbance_and_since_leaves_it_out():
    series = np.repeat(np.where(np.arange(20) < 9, 0.8, 0.2), 5).astype(float)
    series[45:50] = 0.6
    series += 0.001 * np.sin(np.arange(100.0) ** 2)
    outcome, _, at, size, *_ = run(series)
    assert outcome[0] == 1
    assert size[0, 0, 0] == pytest.approx(-0.6, abs=0.02)
    assert at[0, 0, 0] == 50
    assert run(series, first=60)[0][0] == 0


def test_too_little_is_said_and_constants_have_no_fall():
    y = np.full((3, 100), np.nan)
    y[1, :25] = 0.5
    y[2] = 0.25
    outcome, n_obs, at, _, _, vertex, _ = run(y)
    assert outcome.tolist() == [NO_DATA, TOO_FEW, 0]
    assert n_obs.tolist() == [0, 25, 100]
    assert (at == -1).all()
    assert vertex[2, :3].tolist() == [2000, 2019, -1]


def test_what_a_shift_explains_is_no_fall():
    rng = np.random.default_rng(4)
    off = np.full(100, 0.25)
    y = rng.normal(0, 0.1, (300, 100))
    blind = (run(y)[0] > 0).mean()
    told = (run(y, slope=0.04, spread=off)[0] > 0).mean()
    assert told < 0.5 * blind
