"""Masked correlation against its definition, and its peak between the pixels."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign.kernels.phase import masked_correlation, parabola_peak, upsampled_peak, window_correlation
from tests import naive


def images(seed, shape=(14, 17), other=(16, 13)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.random(shape) > 0.3, rng.normal(size=other), rng.random(other) > 0.3


@pytest.mark.parametrize("seed", range(3))
def test_every_lag_is_the_sum_over_shared_pixels(seed):
    pair = images(seed)
    surface, shared = masked_correlation(*pair, (-5, -4, 9, 10), overlap=0.0)
    for i in range(9):
        for j in range(10):
            value, count = naive.masked_correlation(*pair, i - 5, j - 4)
            assert shared[i, j] == count
            np.testing.assert_allclose(surface[i, j], value, atol=1e-10)


def test_many_pairs_at_once_are_each_pair_alone():
    many = [np.stack(v) for v in zip(*(images(seed) for seed in range(3)))]
    surfaces, _ = masked_correlation(*many, (-3, -3, 7, 7))
    for k in range(3):
        alone, _ = masked_correlation(*images(k), (-3, -3, 7, 7))
        np.testing.assert_allclose(surfaces[k], alone, atol=1e-12)


@pytest.mark.parametrize("gaps", ["none", "reference", "moving", "both"])
def test_windows_are_correlated_as_by_transforms_whatever_is_masked(gaps):
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(4, 9, 9)), rng.normal(size=(4, 15, 15))
    a_ok = rng.random(a.shape) > (0.3 if gaps in ("reference", "both") else -1)
    b_ok = rng.random(b.shape) > (0.3 if gaps in ("moving", "both") else -1)
    surface, shared = window_correlation(a, a_ok, np.where(b_ok, b, np.nan), b_ok, 0.5)
    expected, counts = masked_correlation(a, a_ok, b, b_ok, (0, 0, 7, 7), 0.5)
    np.testing.assert_allclose(surface, expected, atol=1e-12)
    np.testing.assert_array_equal(shared, counts)


def test_what_lies_under_the_masks_does_not_matter():
    a, a_ok, b, b_ok = images(0)
    surface, _ = masked_correlation(a, a_ok, b, b_ok, (-3, -3, 7, 7))
    spoiled, _ = masked_correlation(np.where(a_ok, a, 1e6), a_ok, np.where(b_ok, b, np.nan), b_ok, (-3, -3, 7, 7))
    np.testing.assert_allclose(surface, spoiled, atol=1e-12)


def test_lags_with_little_overlap_count_nothing():
    ones = np.ones((10, 10), bool)
    surface, shared = masked_correlation(
        np.ones((10, 10)), ones, np.ones((10, 10)), ones, (-9, -9, 19, 19), overlap=0.5
    )
    assert surface[0, 0] == 0
    assert shared[0, 0] == 0
    assert surface[9, 9] == pytest.approx(1)


@pytest.mark.parametrize("true", [(0.0, 0.0), (1.3, -2.6), (-0.45, 0.15)])
def test_the_upsampled_peak_is_the_planted_shift(true):
    noise = gaussian_filter(np.random.default_rng(4).normal(size=(80, 80)), 2, mode="wrap")
    k = np.fft.fftfreq(80)
    moved = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-2j * np.pi * (k[:, None] * true[0] + k[None, :] * true[1]))).real
    ok = np.ones((80, 80), bool)
    ok_gap = ok.copy()
    ok_gap[20:40, 30:50] = False
    start = tuple(np.rint(true))
    dy, dx, score = upsampled_peak(noise, ok, moved, ok_gap, start)
    assert abs(dy - true[0]) < 0.03
    assert abs(dx - true[1]) < 0.03
    assert score > 0.97


def test_the_parabola_finds_its_own_peak_and_stays_at_edges():
    r, c = np.mgrid[0:7, 0:7]
    surface = -((r - 3.2) ** 2) - (c - 2.7) ** 2
    np.testing.assert_allclose(parabola_peak(surface, 3, 3), (0.2, -0.3))
    assert parabola_peak(surface, 0, 6) == (0.0, 0.0)
