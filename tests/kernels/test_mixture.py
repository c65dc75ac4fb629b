import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import f as fisher_f

from geoalign.kernels.mixture import ln_unchanged, tail_distance, two_classes


def drawn(rng, n, dof, nu, scale):
    return scale * np.sqrt(rng.chisquare(dof, n) / (rng.chisquare(nu, n) / nu))


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_planted_classes_are_found_again(share):
    rng = np.random.default_rng(0)
    n = 60_000
    distance = drawn(rng, n, 6, 15.0, 1.3)
    changed = rng.random(n) < share
    distance[changed] = np.exp(rng.normal(2.4, 0.35, changed.sum()))
    scale, nu, mean, sd, found = two_classes(distance, 6.0)
    assert scale == pytest.approx(np.log(1.3), abs=0.03)
    assert nu == pytest.approx(15, rel=0.35)
    assert mean == pytest.approx(2.4, abs=0.15)
    assert sd == pytest.approx(0.35, abs=0.12)
    assert found == pytest.approx(share, rel=0.2)


def test_density_integrates_to_one_and_is_that_of_an_f():
    x = np.linspace(-12, 12, 20001)
    density = np.exp(ln_unchanged(x, 0.3, 8.0, 6.0))
    assert trapezoid(density, x) == pytest.approx(1, abs=1e-6)
    d = np.exp(x)
    expected = fisher_f.pdf((d / np.exp(0.3)) ** 2 / 6, 6, 8) * 2 * (d / np.exp(0.3)) ** 2 / 6
    np.testing.assert_allclose(density, expected, rtol=1e-6, atol=1e-12)


def test_the_tail_distance_is_exceeded_as_often_as_said():
    distance = drawn(np.random.default_rng(1), 200_000, 4, 10.0, 0.8)
    assert (distance > tail_distance(0.01, np.log(0.8), 10.0, 4.0)).mean() == pytest.approx(0.01, abs=0.001)


def test_too_little_or_constant_gives_nan():
    assert np.isnan(two_classes(np.ones(500), 3.0)).all()
    assert np.isnan(two_classes(np.arange(1.0, 20), 3.0)).all()


def test_change_does_not_trade_places_with_no_change():
    """Where no class stands out the greater part of the pixels is what stayed the same."""
    rng = np.random.default_rng(3)
    for _ in range(4):
        distance = np.exp(rng.normal(0.3, 0.9, 20_000))
        scale, _, mean, _, share = two_classes(distance, 3.0)
        assert share <= 0.5
        assert mean >= scale + 0.5 * np.log(3.0)
