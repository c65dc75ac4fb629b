import numpy as np
import pytest

from geoalign.kernels.speckle import boxcar, majority, relative_gradient
from tests.naive import window_mean


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_boxcar_is_the_mean_of_what_is_observed(radius):
    rng = np.random.default_rng(radius)
    image = rng.gamma(4, 0.25, (9, 11))
    image[rng.random(image.shape) < 0.3] = np.nan
    np.testing.assert_allclose(boxcar(image, radius), window_mean(image, radius))


def test_boxcar_keeps_the_mean_of_flat_ground_and_multiplies_its_looks():
    image = np.random.default_rng(0).gamma(4.4, 1 / 4.4, (300, 300))
    smooth = boxcar(image, 1)[1:-1, 1:-1]
    assert smooth.mean() == pytest.approx(1, abs=0.005)
    assert smooth.mean() ** 2 / smooth.var() == pytest.approx(9 * 4.4, rel=0.05)


def test_boxcar_leaves_a_step_two_pixels_away_alone():
    image = np.ones((7, 12))
    image[:, 6:] = 10
    smooth = boxcar(image, 1)
    assert (smooth[:, :5] == 1).all()
    assert (smooth[:, 7:] == 10).all()


def test_gradient_of_a_ramp():
    rows, cols = np.mgrid[0:8, 0:9].astype(float)
    image = 10 + 0.3 * rows + 0.4 * cols
    slope = relative_gradient(image, np.zeros(image.shape))
    np.testing.assert_allclose(slope[1:-1, 1:-1], (0.5 / image)[1:-1, 1:-1])
    assert (slope[0] == 0).all()


def test_gradient_of_an_edge_is_the_whole_step_on_either_side():
    image = np.ones((5, 8))
    image[:, 4:] = 4
    slope = relative_gradient(image, np.zeros(image.shape))[2]
    np.testing.assert_allclose(slope[1:7], [0, 0, 3, 0.75, 0, 0])


def test_gradient_does_not_take_speckle_for_ground():
    looks = 60
    image = np.random.default_rng(0).gamma(looks, 1 / looks, (200, 200))
    bare = relative_gradient(image, np.zeros(image.shape))
    freed = relative_gradient(image, np.full(image.shape, 1 / looks))
    assert (freed**2).mean() < 0.5 * (bare**2).mean()


def test_a_gap_next_door_gives_no_gradient():
    image = np.arange(25.0).reshape(5, 5) + 1
    image[2, 2] = np.nan
    assert (relative_gradient(image, np.zeros(image.shape)) == 0).all()


def test_majority_outvotes_single_pixels_and_keeps_ties():
    labels = np.zeros((5, 5), np.int8)
    labels[2, 2] = 1
    valid = np.ones((5, 5), bool)
    assert (majority(labels, valid, 1) == 0).all()
    two = np.array([[1, -1]], np.int8)
    np.testing.assert_array_equal(majority(two, np.ones((1, 2), bool), 1), two)


def test_majority_asks_valid_pixels_only():
    labels = np.array([[1, 0, 0, 0]], np.int8)
    valid = np.array([[True, True, False, False]])
    np.testing.assert_array_equal(majority(labels, valid, 2), [[1, 0, 0, 0]])
