"""A consensus affine survives wrong matches; images are stretched whatever is in them."""

import numpy as np
from scipy.ndimage import gaussian_filter

from geoalign.kernels.features import between_pixels, clustering, magsac_affine, stretched


def blobs(seed=0, n=400):
    return gaussian_filter(np.random.default_rng(seed).normal(size=(n, n)), 2.5)


def test_magsac_finds_the_affine_among_wrong_matches():
    rng = np.random.default_rng(0)
    true = np.array([[0.98, 0.17, 5.0], [-0.17, 0.98, 3.0]])
    points = rng.uniform(0, 400, (100, 2))
    found = points @ true[:, :2].T + true[:, 2] + 0.1 * rng.standard_normal((100, 2))
    found[:40] = rng.uniform(0, 400, (40, 2))
    matrix, inliers = magsac_affine(points, found, seed=1)
    np.testing.assert_allclose(matrix[:, :2], true[:, :2], atol=0.01)
    np.testing.assert_allclose(matrix[:, 2], true[:, 2], atol=0.5)
    assert inliers[40:].all()
    assert inliers[:40].sum() <= 1
    again, _ = magsac_affine(points, found, seed=1)
    np.testing.assert_array_equal(matrix, again)


def test_too_few_matches_give_no_affine():
    matrix, inliers = magsac_affine(np.zeros((3, 2)), np.zeros((3, 2)))
    assert matrix is None
    assert not inliers.any()


def test_stretching_survives_gaps_and_emptiness():
    image = blobs(n=64)
    image[:5] = np.nan
    grey, mask = stretched(image)
    assert grey.dtype == np.uint8
    assert not mask[:9].any()
    assert mask[12:].all()
    assert not stretched(np.full((32, 32), np.nan))[1].any()


def test_patches_are_placed_between_the_pixels_whatever_their_brightness():
    rng = np.random.default_rng(5)
    fine = gaussian_filter(rng.normal(size=(800, 800)), 10)
    ref, mov = (fine[o : o + 600, o : o + 600].reshape(150, 4, 150, 4).mean((1, 3)) for o in (40, 41))
    mov = 5 * mov + 2
    mov[:40, :40] = np.nan
    points = rng.uniform(20, 130, (60, 2))
    guess = np.array([[1.0, 0, 0.4], [0, 1.0, -0.5]])
    at, found, variance = between_pixels(ref, mov, points, guess)
    good = np.isfinite(variance)
    assert 30 < good.sum() < 60
    # a patch across the mask's border holds little, and may be a few hundredths off
    assert np.quantile(np.abs((found - at)[good] + 0.25), 0.95) < 0.02


def test_errors_that_neighbours_share_count_together():
    rng = np.random.default_rng(0)
    places, weight = rng.uniform(0, 1, (2000, 2)), np.ones(2000)
    alone = rng.normal(size=(2000, 2))
    cell = (places * 8).astype(int) @ [8, 1]
    assert clustering(places, alone, weight) < 1.6
    assert clustering(places, rng.normal(size=(64, 2))[cell], weight) > 10
