"""CFAR: thresholds against their definitions, and the share of clutter that passes."""

import numpy as np
import pytest
from scipy.stats import gamma

from geoalign.kernels import cfar
from tests import naive


def clutter(looks, shape=(600, 600), seed=0, level=0.02):
    rng = np.random.default_rng(seed)
    return (level * rng.gamma(looks, 1 / looks, shape)).astype(np.float32)


def passing(image, looks, pfa, texture=False):
    floor, power = cfar.floor_and_power([cfar.scene_histogram(image)])
    land, _, sea, ratio = cfar.ground(image, None, floor, power, buffer_px=3)
    looks = looks or cfar.looks_of([cfar.ratio_histogram(ratio)])
    return cfar.cells_of(image, land, sea, floor, power, looks, pfa=pfa, low_pfa=1e-3, texture=texture)


def test_one_look_gives_the_classical_threshold():
    assert cfar.factor(1e-3, 1, 64) == pytest.approx(64 * ((1e-3) ** (-1 / 64) - 1), rel=1e-9)


def test_many_cells_give_the_gamma_quantile():
    assert cfar.factor(1e-5, 4.4, 1e9) == pytest.approx(gamma.isf(1e-5, 4.4) / 4.4, rel=1e-5)


@pytest.mark.parametrize("pfa", [1e-3, 1e-6])
def test_the_table_is_the_threshold(pfa):
    rng = np.random.default_rng(1)
    looks, n = np.exp(rng.uniform(-1, 3, (1, 200))), rng.integers(20, 7000, (1, 200))
    np.testing.assert_allclose(cfar.interpolated(looks, n, pfa), cfar.factor(pfa, looks, n), rtol=1e-3)


@pytest.mark.parametrize("order", [0.7, 3.0, 50.0])
def test_k_clutter_passes_its_threshold_as_often_as_asked(order):
    rng = np.random.default_rng(2)
    values = rng.gamma(order, 1 / order, 400_000) * rng.gamma(4.4, 1 / 4.4, 400_000)
    assert (values > cfar.k_factor(1e-3, 4.4, order)[0]).mean() == pytest.approx(1e-3, rel=0.15)


@pytest.mark.parametrize("radius", [0, 2, 40])
def test_box_sums_are_sums_over_boxes(radius):
    values = np.random.default_rng(3).integers(-5, 1000, (17, 23))
    np.testing.assert_array_equal(cfar.box_sums(values, radius), naive.box_sums(values, radius))


@pytest.mark.parametrize("looks", [1.0, 4.4, 10.0])
@pytest.mark.parametrize("pfa", [1e-3, 1e-4])
def test_as_much_clutter_passes_as_asked(looks, pfa):
    shares = [passing(clutter(looks, seed=seed), looks, pfa)[0].mean() for seed in (1, 2)]
    # two standard errors beyond the 20 % that are promised
    assert abs(np.mean(shares) / pfa - 1) < 0.2 + 2 / np.sqrt(2 * 600**2 * pfa)


@pytest.mark.parametrize("looks", [1.0, 4.4, 10.0])
def test_the_looks_of_a_sea_are_found_with_ships_on_it(looks):
    image = clutter(looks)
    image[::60, ::12] *= 300
    floor, power = cfar.floor_and_power([cfar.scene_histogram(image)])
    ratio = cfar.ground(image, None, floor, power, buffer_px=3)[3]
    assert cfar.looks_of([cfar.ratio_histogram(ratio)]) == pytest.approx(looks, rel=0.04)


def test_k_clutter_needs_its_own_threshold():
    rng = np.random.default_rng(4)
    image = clutter(4.4) * rng.gamma(3, 1 / 3, (600, 600)).astype(np.float32)
    assert passing(image, 4.4, 1e-3, texture=True)[0].mean() < 1.4e-3
    assert passing(image, 4.4, 1e-3)[0].mean() > 3e-3


def test_ships_around_do_not_hide_a_ship():
    image = clutter(4.4, (160, 160))
    image[60:100:8, 40:120:8] = 0.5
    assert passing(image, 4.4, 1e-6)[0][60:100:8, 40:120:8].all()


def test_gaps_are_no_sea():
    image = clutter(4.4, (200, 200))
    image[np.random.default_rng(5).random(image.shape) < 0.5] = np.nan
    hit, _, ratio, evidence = passing(image, 4.4, 1e-3)
    assert not hit[np.isnan(image)].any()
    np.testing.assert_array_equal(np.isnan(ratio), np.isnan(image))
    assert np.nanmean(ratio) == pytest.approx(1, abs=0.02)
    assert np.isnan(evidence[np.isnan(image)]).all()


def test_eight_bit_looks_are_told_by_their_values():
    look = np.clip(np.rint(20 * np.sqrt(clutter(1.0, level=1.0))), 0, 255).astype(np.float32)
    assert cfar.floor_and_power([cfar.scene_histogram(look)])[1] == 2
    assert cfar.floor_and_power([cfar.scene_histogram(look * 0.5)])[1] == 1
    assert np.isnan(cfar.floor_and_power([cfar.scene_histogram(np.full((5, 5), np.nan))])[0])


@pytest.mark.parametrize("looks", [1.0, 4.4])
def test_evidence_is_the_ratio_of_two_densities(looks):
    r = np.exp(np.linspace(np.log(0.5), np.log(12), 40_000))
    ship = np.exp(cfar.ln_ship_ratio(r, looks, 1e7)) * gamma.pdf(r, looks, scale=1 / looks)
    contrast = np.exp(np.random.default_rng(6).uniform(np.log(10**0.3), np.log(10**4), 200_000))
    sample = contrast * np.random.default_rng(7).gamma(looks, 1 / looks, 200_000)
    for low, high in ((0.5, 1), (1, 4), (4, 12)):
        inside = (r >= low) & (r < high)
        expected = ((sample >= low) & (sample < high)).mean()
        assert np.trapezoid(ship[inside], r[inside]) == pytest.approx(expected, rel=0.05)
