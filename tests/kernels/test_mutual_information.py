"""Mutual information against its definition, and its gradient against differences."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign.kernels import mutual_information as kernel
from tests import naive


@pytest.fixture
def images():
    rng = np.random.default_rng(3)
    ground = gaussian_filter(rng.normal(size=(72, 72)), 2.5)
    return ground[4:68, 4:68], np.cos(9 * ground)[4:68, 4:68] + 0.1 * rng.normal(size=(64, 64))


def asked(lattice, image, shift, bins=16):
    """(information, gradient by (row, col) summed over the samples, samples) with `lattice` seen at `shift`."""
    rows, cols = (v.ravel().astype(float) for v in np.mgrid[10:54, 10:54])
    level = kernel.ranks(lattice[10:54, 10:54].ravel(), bins)
    low, width = kernel.bin_range(image.ravel(), bins)
    coef, ok = kernel.spline_image(image, low + 2 * width, low + (bins - 3) * width)
    samples = np.empty((rows.size, 3))
    matrix = np.column_stack([np.eye(2), shift])
    kernel.interpolate(coef, ok, 0, 0, rows, cols, matrix, samples)
    joint, count = kernel.joint_histogram(level, samples, low, width, bins, bins)
    information, logs, expected = kernel.tables(joint)
    cell = np.zeros(rows.size, np.int32)
    gradient, curvature, _ = kernel.scores(
        level, samples, rows, cols, cell, 1, logs, expected, low, width, np.array([32.0, 32.0]), 45.0
    )
    return information, gradient[0], curvature, count


def test_lags_by_transforms_are_the_information_of_the_shared_pixels():
    rng = np.random.default_rng(0)
    a = rng.integers(-1, 4, (40, 37)).astype(np.int16)
    b = np.roll(a, (2, -1), (0, 1))
    b[rng.random(b.shape) < 0.3] = 2
    surface = kernel.information_surface(a, b, 4, 5)
    for dy, dx in ((0, 0), (2, -1), (-5, 3), (4, 5)):
        assert surface[5 + dy, 5 + dx] == pytest.approx(naive.class_information(a, b, dy, dx), rel=1e-3, abs=0.3)
    assert np.unravel_index(surface.argmax(), surface.shape) == (7, 4)


def test_the_gradient_is_that_of_the_information(images):
    for shift in ((0.9, -0.4), (-1.3, 0.7)):
        _, gradient, _, count = asked(*images, shift)
        h = 0.05
        for axis, number in ((0, 2), (1, 5)):
            step = h * np.eye(2)[axis]
            difference = asked(*images, shift + step)[0] - asked(*images, shift - step)[0]
            assert gradient[number] / count == pytest.approx(difference / (2 * h), rel=0.15, abs=0.01)


def test_a_step_of_expected_curvature_leads_to_the_top(images):
    rng = np.random.default_rng(1)
    noisy = images[1] + 0.8 * rng.normal(size=images[1].shape)
    _, gradient, curvature, _ = asked(noisy, images[0], (0.3, -0.3))
    step = gradient[[2, 5]] / np.diag(curvature)[[2, 5]]
    assert np.abs(step - [-0.3, 0.3]).max() < 0.2


def test_gaps_leave_no_imprint(images):
    image = images[0].copy()
    image[20:30, 20:40] = np.nan
    coef, ok = kernel.spline_image(image, -9, 9)
    whole, _ = kernel.spline_image(images[0], -9, 9)
    spread = images[0].std()
    assert not ok[18:32, 18:42].any()
    assert ok[:17].all()
    assert np.abs(coef - whole)[ok].max() < 0.05 * spread


def test_smoothed_keeps_the_level_beside_gaps():
    image = np.full((20, 20), 7.0)
    image[5:9, 5:9] = np.nan
    out = kernel.smoothed(image, 1.5)
    assert np.isnan(out[5:9, 5:9]).all()
    np.testing.assert_allclose(out[np.isfinite(out)], 7.0)


def test_bins_of_the_lattice_hold_equal_numbers():
    values = np.random.default_rng(2).gamma(1.0, size=9000)
    level = kernel.ranks(values, 16)
    counts = np.histogram(level, np.arange(16))[0]
    assert counts.min() > 0.95 * counts.max()


def test_scatter_is_the_variance_of_the_sum():
    rng = np.random.default_rng(4)
    independent = rng.normal(size=(48 * 48, 1))
    assert kernel.scatter(independent, (48, 48), 4)[0, 0] == pytest.approx(48 * 48, rel=0.25)
    # what crosses a border of two cells adds to one what it takes from the other, and cancels in the sum
    flow = rng.normal(size=(48, 49))
    crossing = np.diff(flow, axis=1).reshape(-1, 1)
    assert kernel.scatter(crossing, (48, 48), 4)[0, 0] < 0.3 * (crossing**2).sum()
