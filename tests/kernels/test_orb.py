"""ORB features are matched between pixels, and not where an image is masked."""

import numpy as np
from scipy.ndimage import gaussian_filter

from geoalign.kernels.orb import orb_matches


def blobs(seed=0, n=400):
    return gaussian_filter(np.random.default_rng(seed).normal(size=(n, n)), 2.5)


def test_matches_follow_a_shift():
    scene = blobs()
    points, found = orb_matches(scene[:256, :256], scene[7:263, 12:268])
    assert len(points) > 50
    np.testing.assert_allclose(np.median(found - points, axis=0), (-7, -12), atol=0.3)


def test_matches_further_than_the_limit_are_dropped():
    scene = blobs()
    points, found = orb_matches(scene[:256, :256], scene[7:263, 12:268], max_shift_px=5)
    assert (np.hypot(*(found - points).T) <= 6.5).all()


def test_a_masked_part_holds_no_features():
    scene = blobs()[:256, :256].copy()
    scene[:, :128] = np.nan
    points, _ = orb_matches(scene, scene)
    assert (points[:, 1] >= 128).all()
