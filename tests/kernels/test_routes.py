"""Exact tests, ridges and the CUSUM behind shipping routes, against their definitions."""

import numpy as np
import pytest
from scipy.stats import binom

from geoalign.kernels import route_lines, routes


@pytest.mark.parametrize(("n_in", "n_out", "ratio"), [(0, 5, 1.0), (4, 1, 0.5), (30, 12, 2.0), (3, 0, 0.1)])
def test_the_exact_test_is_the_binomial_tail(n_in, n_out, ratio):
    expected = binom.sf(n_in - 1, n_in + n_out, ratio / (1 + ratio))
    assert float(routes.exact_tail(n_in, ratio, n_out, 1.0)) == pytest.approx(expected, rel=1e-9)
    expected = binom.cdf(n_in, n_in + n_out, ratio / (1 + ratio))
    assert routes.fewer_before(n_in, ratio, n_out, 1.0) == pytest.approx(expected, rel=1e-9)


def test_benjamini_and_hochberg():
    p = np.random.default_rng(0).random(200) ** 3
    limit = routes.accepted(p, 0.2)
    ranked = np.sort(p)
    good = [v for k, v in enumerate(ranked, 1) if v <= 0.2 * k / 200]
    assert limit == max(good)
    assert routes.accepted(np.full(10, 0.5), 0.05) == 0


def test_the_cusum_finds_the_best_run():
    rng = np.random.default_rng(1)
    for _ in range(50):
        gain, cost = rng.poisson(0.7, 40) * 1.0, np.where(rng.random(40) < 0.2, 0, 0.8)
        gain = np.where(cost > 0, gain, 0)
        start, stop, score = routes.rising_run(gain, cost)
        sums = {(a, b): (gain - cost)[a : b + 1].sum() for a in range(40) for b in range(a, 40)}
        assert score == pytest.approx(max(0, max(sums.values())))
        if score > 0:
            assert sums[start, stop] == pytest.approx(score)
    assert routes.rising_run(np.zeros(5), np.ones(5)) == (-1, -1, 0.0)


def test_strips_have_their_area():
    for turn in (0.0, 0.4, np.pi / 2):
        inner, left, right = routes.strips(500.0, 1500.0, turn)
        assert inner.sum() * 0.25 == pytest.approx(15, rel=0.05)
        assert left.sum() * 0.25 == pytest.approx(30, rel=0.05)
        np.testing.assert_allclose(left, right[::-1, ::-1])


def test_places_along_and_across():
    line = np.array([[0.0, 0], [10_000, 0], [10_000, 10_000]])
    along, across = route_lines.along_and_across(
        line, np.array([[5000.0, 300], [10_400, 5000], [-2000, 0], [4000, 9000]])
    )
    np.testing.assert_allclose(along[:2], [5000, 15_000])
    np.testing.assert_allclose(across[:2], [300, -400])
    assert np.isnan(along[2:]).all()


def test_a_bent_line_is_drawn_to_its_ships():
    rng = np.random.default_rng(2)
    truth = np.array([[0.0, 0], [20_000, 3000], [40_000, 20_000]])
    place = route_lines.resampled(truth, 100.0)
    ships = place[rng.integers(0, len(place), 300)] + rng.normal(0, 500, (300, 2))
    ships = np.vstack([ships, rng.uniform((-5000, -5000), (45_000, 25_000), (200, 2))])
    rough = route_lines.resampled(np.array([[0.0, 800], [18_000, 2200], [40_000, 19_000]]), 500.0)
    fitted = route_lines.fitted(rough, ships)
    gap = np.hypot(*(route_lines.resampled(fitted, 500.0)[:, None] - place[None]).transpose(2, 0, 1)).min(axis=1)
    assert gap.max() < 350
    assert len(fitted) <= 4


def test_noise_has_few_small_p():
    count = np.random.default_rng(3).poisson(0.5, (80, 80)).astype(float)
    p = np.exp(routes.oriented_tests(count, np.ones((80, 80)), 500.0, 1500.0))
    for level in (0.1, 0.01):
        assert (p <= level).mean() <= level


def test_a_rise_is_dated_with_its_interval():
    rng = np.random.default_rng(0)
    covered = []
    for start in (40, 60, 90):
        for _ in range(40):
            count = rng.poisson(np.where(np.arange(150) < start, 0.05, 0.6)).astype(float)
            soonest, likeliest, latest = routes.began(count, np.ones(150), 0.05, 0.6)
            assert soonest <= likeliest <= latest
            covered.append(soonest <= start <= latest)
    assert np.mean(covered) > 0.9
    assert routes.began(np.zeros(3), np.zeros(3), 0.1, 0.5) == (-1, -1, -1)
    # a ship or two long before are traffic as usual
    count = np.zeros(200)
    count[[3, 40]] = 1
    count[120:] = 1
    assert routes.began(count, np.ones(200), 0.02, 1.0)[1] == 120


def test_a_constant_rate_seldom_seems_to_rise():
    rng = np.random.default_rng(1)
    p = []
    for _ in range(600):
        count = rng.poisson(0.4, 200).astype(float)
        start = routes.began(count, np.ones(200), 0.1, 0.4)[1]
        test = routes.fewer_before(count[:start].sum(), start, count[start:].sum(), 200 - start)
        p.append(routes.splits(200) * test)
    assert np.mean(np.array(p) <= 0.05) < 0.06
