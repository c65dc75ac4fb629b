"""Structure: descriptors forget grey values, their correlation knows masks, its peak knows how sure it is."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign.kernels.structure import CHANNELS, correlate, darkest, describe, peaks


@pytest.fixture
def scene():
    return gaussian_filter(np.random.default_rng(2).normal(size=(90, 100)), 2).astype(np.float32)


def test_contrast_and_its_reversal_are_forgotten(scene):
    channels, valid = describe(scene, 1.0)
    assert channels.shape == (CHANNELS, *scene.shape)
    assert valid.all()
    for other in (-scene, 7 * scene + 3):
        np.testing.assert_allclose(describe(other, 1.0)[0], channels, atol=2e-3)


def test_gaps_are_not_described_and_far_from_them_nothing_changes(scene):
    whole, _ = describe(scene, 1.0)
    holed = scene.copy()
    holed[40:50, 30:60] = np.nan
    channels, valid = describe(holed, 1.0)
    assert not valid[40:50, 30:60].any()
    assert valid[:35].all()
    assert np.abs(channels[:, 40:50, 30:60]).max() == 0
    assert np.corrcoef(channels[:, :30].ravel(), whole[:, :30].ravel())[0, 1] > 0.999
    assert not describe(np.full((40, 40), np.nan, np.float32), 1.0)[1].any()


def test_correlation_is_that_of_the_shared_pixels(scene):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 3, 12, 14)).astype(np.float32)
    a_ok, b_ok = rng.random((2, 12, 14)) > 0.2
    a, b = a * a_ok, b * b_ok
    surface, shared = correlate(a, a_ok, b, b_ok, (-3, -2, 7, 5), overlap=0.0)
    for i, dy in enumerate(range(-3, 4)):
        for j, dx in enumerate(range(-2, 3)):
            here = np.s_[max(0, -dy) : 12 - max(0, dy), max(0, -dx) : 14 - max(0, dx)]
            there = np.s_[max(0, dy) : 12 - max(0, -dy), max(0, dx) : 14 - max(0, -dx)]
            both = a_ok[here] & b_ok[there]
            p, q = a[:, *here][:, both], b[:, *there][:, both]
            assert shared[i, j] == both.sum()
            assert surface[i, j] == pytest.approx((p * q).sum() / np.sqrt((p**2).sum() * (q**2).sum()), abs=1e-4)


def test_peaks_are_found_between_the_pixels_and_straight_edges_are_uncertain_along():
    rows, cols = np.mgrid[-6:7, -6:7].astype(float)
    noise = np.random.default_rng(4).normal(0, 0.01, (2, 13, 13))
    spot = np.exp(-0.5 * ((rows - 1.3) ** 2 + (cols + 0.6) ** 2) / 2**2)
    ridge = np.exp(-0.5 * (rows / 2) ** 2 - 0.5 * (cols / 20) ** 2)
    offset, covariance, height, found = peaks(np.stack([spot, ridge]) + noise)
    assert found.all()
    np.testing.assert_allclose(offset[0], (1.3, -0.6), atol=0.1)
    assert height[0] > 0.9
    assert covariance[1, 1, 1] > 10 * covariance[1, 0, 0]
    edge = np.exp(-0.5 * ((rows - 6) ** 2 + cols**2) / 4)
    assert not peaks(edge[None])[3].any()


def test_speckled_intensity_is_known_by_its_tail(scene):
    rng = np.random.default_rng(5)
    intensity = np.exp(scene / scene.std()) * rng.gamma(1.0, size=scene.shape)
    assert darkest(intensity.astype(np.float32)) > 0
    assert darkest(np.log(intensity).astype(np.float32)) is None
    assert darkest(scene - scene.min()) is None
    assert darkest(np.full((4, 4), np.nan, np.float32)) is None
