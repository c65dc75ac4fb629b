"""SIFT features: where the ground is, dim or bright, turned or not, and nothing from under a mask."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign.kernels.sift import sift_matches

SCENE = gaussian_filter(np.random.default_rng(0).normal(size=(400, 400)), 2.5)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 4000.0])
def test_matches_follow_a_shift_whatever_the_units(scale):
    scene = (scale * (SCENE + 0.3)).astype(np.float32)
    points, found = sift_matches(scene[:256, :256], scene[7:263, 12:268])
    assert len(points) > 50
    np.testing.assert_allclose(np.median(found - points, axis=0), (-7, -12), atol=0.05)


def test_a_turned_image_is_matched_without_an_offset():
    points, found = sift_matches(SCENE[:255, :255], np.rot90(SCENE[:255, :255]).copy())
    apart = found - np.column_stack([254 - points[:, 1], points[:, 0]])
    near = np.hypot(*apart.T) < 2
    assert near.sum() > 50
    np.testing.assert_allclose(np.median(apart[near], axis=0), 0, atol=0.05)


def test_a_dim_half_has_features_too():
    scene = SCENE[:256, :256].copy()
    scene[:, :128] *= 0.05
    points, _ = sift_matches(scene, scene)
    assert (points[:, 1] < 120).sum() > 0.2 * len(points)


def test_masked_parts_and_far_matches_are_left_out():
    scene = SCENE[:256, :256].copy()
    scene[:, :128] = np.nan
    points, _ = sift_matches(scene, scene)
    assert len(points) > 20
    assert (points[:, 1] >= 128).all()
    points, found = sift_matches(SCENE[:256, :256], SCENE[7:263, 12:268], max_shift_px=5)
    assert (np.hypot(*(found - points).T) <= 5).all()
