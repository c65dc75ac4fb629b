"""Orb: rotations and scales are found, what does not belong together is refused."""

import numpy as np
import pytest

from geoalign.errors import MatchError
from geoalign.registration.auto import AutoMatcher
from geoalign.registration.orb import OrbMatcher
from geoalign.types.warp import Affine, Shift

SHAPE = (256, 240)


def turned(degrees, scale=1.0, shift=(3.3, -5.8)):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    m, middle = np.array([[c, -s], [s, c]]), (np.array(SHAPE) - 1) / 2
    return Affine(np.column_stack([m, middle - m @ middle + shift]))


@pytest.mark.parametrize("true", [Shift(4.3, -7.6), turned(10), turned(-7, 1.05)])
def test_shifts_rotations_and_scales_are_found(ground, error_px, true):
    found = OrbMatcher()(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert found.method == "orb"
    assert error_px(found.warp, true, SHAPE) < 0.5
    assert found.rmse_px < 1.5


@pytest.mark.parametrize("true", [turned(10), turned(-12, 1.04)])
def test_auto_is_brought_near_by_features_and_refined_by_phase(ground, error_px, true):
    found = AutoMatcher()(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert found.method == "phase"
    assert error_px(found.warp, true, SHAPE) < 0.05


def test_clouds_are_not_features(ground, error_px):
    true = turned(5)
    pair = ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1)
    masks = [ground.clouds(SHAPE, 0.25, seed) for seed in (1, 2)]
    for image, cloud in zip(pair, masks):
        image[cloud] = np.random.default_rng(0).normal(5, 2, cloud.sum())
    found = OrbMatcher()(*pair, valid=tuple(~m for m in masks))
    assert error_px(found.warp, true, SHAPE) < 0.5


def test_unrelated_images_are_refused(ground):
    for seed in range(3):
        with pytest.raises(MatchError):
            OrbMatcher()(ground.scene(Shift(), SHAPE), type(ground)(50 + seed).scene(Shift(), SHAPE))
    with pytest.raises(MatchError):
        OrbMatcher(max_shift_px=5)(ground.scene(Shift(), SHAPE), ground.scene(Shift(30, 0), SHAPE, seed=1))
