"""Sift: rotations and scales without being told, with errors that are what it says."""

import numpy as np
import pytest

from geoalign.errors import MatchError
from geoalign.registration.sift import SiftMatcher
from geoalign.types.warp import Affine, Shift

SHAPE = (256, 240)


def turned(degrees, scale=1.0, shift=(3.3, -5.8)):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    m, middle = np.array([[c, -s], [s, c]]), (np.array(SHAPE) - 1) / 2
    return Affine(np.column_stack([m, middle - m @ middle + shift]))


@pytest.mark.parametrize("true", [Shift(4.3, -7.6), turned(12, 1.1), turned(-30, 0.85)])
def test_shifts_rotations_and_scales_are_found(ground, error_px, true):
    found = SiftMatcher()(ground.scene(Shift(), SHAPE), 4000 * ground.scene(true, SHAPE, seed=1))
    assert found.method == "sift"
    assert error_px(found.warp, true, SHAPE) < 0.02


def test_unrelated_images_are_refused(ground):
    for seed in range(2):
        with pytest.raises(MatchError):
            SiftMatcher()(ground.scene(Shift(), SHAPE), type(ground)(50 + seed).scene(Shift(), SHAPE))
