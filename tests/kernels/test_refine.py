"""The band-pass filter with gaps, and the least-squares step."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign.kernels.refine import band_pass, sample, spline, window_step


def waves(rows, cols):
    return np.sin(rows / 4.1) + np.cos(cols / 3.7) + 0.8 * np.sin((rows + 2 * cols) / 7.3)


GRID = np.mgrid[0:64, 0:64].astype(float)
INNER = GRID[:, 16:48, 16:48]


def test_without_gaps_it_is_a_difference_of_gaussians():
    image = np.random.default_rng(0).normal(size=(60, 60))
    values, valid = band_pass(image, 1.0, 4.0)
    expected = gaussian_filter(image, 1, truncate=4) - gaussian_filter(image, 4, truncate=4)
    assert valid[8:-8, 8:-8].all()
    np.testing.assert_allclose(values[16:-16, 16:-16], expected[16:-16, 16:-16], atol=5e-3)


def test_a_gap_has_no_edge_in_the_filtered_image():
    image = np.full((50, 50), 3.0)
    image[20:30, 10:40] = np.nan
    values, valid = band_pass(image, 1.0, 4.0)
    assert not valid[20:30, 10:40].any()
    np.testing.assert_allclose(values, 0, atol=1e-9)


def test_sampling_is_the_image_at_pixels_and_between_them():
    image = waves(*GRID)
    ok = np.ones(image.shape, bool)
    ok[30, 30] = False
    rows, cols = np.array([10.0, 20.4, 29.5, 0.2]), np.array([12.0, 33.7, 29.5, 5.0])
    values, valid = sample(spline(image), ok, rows, cols)
    assert valid.tolist() == [True, True, False, False]
    np.testing.assert_allclose(values[:2], waves(rows[:2], cols[:2]), atol=2e-4)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.2), (-0.5, 0.4)])
@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_steps_lead_to_the_planted_shift(shift, gain):
    reference, moving = waves(*GRID), 2.0 + gain * waves(GRID[0] - shift[0], GRID[1] - shift[1])
    ok = np.ones(reference.shape, bool)
    coef = spline(moving)
    at = np.zeros(2)
    for _ in range(6):
        out = window_step(
            reference, ok, 16, 16, 32, 32, coef, ok, GRID[0, 16:48, 16:48] + at[0], GRID[1, 16:48, 16:48] + at[1]
        )
        at += out[:2]
    np.testing.assert_allclose(at, shift, atol=2e-3)
    assert out[5] > 0.999
    assert out[9] == pytest.approx(gain, rel=0.01)


def test_masked_pixels_and_a_changed_patch_do_not_pull():
    reference, moving = waves(*GRID), waves(GRID[0] - 0.25, GRID[1] + 0.15)
    ok = np.ones(reference.shape, bool)
    ok[20:30, 20:30] = False
    moving[22:28, 22:28] = 50.0
    moving[40:44, 40:46] += 3.0  # changed on the ground, and not masked
    coef = spline(moving)
    at = np.zeros(2)
    for _ in range(6):
        out = window_step(
            reference, ok, 16, 16, 32, 32, coef, ok, GRID[0, 16:48, 16:48] + at[0], GRID[1, 16:48, 16:48] + at[1]
        )
        at += out[:2]
    np.testing.assert_allclose(at, (0.25, -0.15), atol=0.02)
    assert out[6] < 32 * 32


def test_flat_or_empty_windows_give_no_displacement():
    ok, flat = np.ones((64, 64), bool), np.zeros((64, 64))
    rows, cols = INNER
    assert np.isnan(window_step(flat, ok, 16, 16, 32, 32, spline(waves(*GRID)), ok, rows, cols)[0])
    none = window_step(waves(*GRID), ~ok, 16, 16, 32, 32, spline(waves(*GRID)), ok, rows, cols)
    assert np.isnan(none[0])
    assert none[6] == 0
