"""Ncc: windows are found, also in a turned image, and what does not belong together is refused."""

import numpy as np
import pytest

from geoalign.errors import MatchError
from geoalign.registration.ncc import NccMatcher
from geoalign.types.warp import Affine, Shift

SHAPE = (256, 240)


def turned(degrees, shift=(3.3, -5.8)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    m, middle = np.array([[c, -s], [s, c]]), (np.array(SHAPE) - 1) / 2
    return Affine(np.column_stack([m, middle - m @ middle + shift]))


@pytest.mark.parametrize("true", [Shift(4.3, -7.6), turned(0.6), turned(10)])
def test_shifts_and_rotations_are_found(ground, error_px, true):
    found = NccMatcher()(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert found.method == "ncc"
    assert error_px(found.warp, true, SHAPE) < 0.03
    assert found.sigma_px(128.0, 120.0) < 0.03


def test_windows_of_other_contrast_are_found_alike(ground, error_px):
    true = Shift(-2.4, 1.7)
    moving = ground.scene(true, SHAPE, seed=1)
    moving[:, :120] = 0.2 * moving[:, :120] + 5
    found = NccMatcher("shift")(ground.scene(Shift(), SHAPE), moving)
    assert error_px(found.warp, true, SHAPE) < 0.03


def test_unrelated_images_are_refused(ground):
    with pytest.raises(MatchError):
        NccMatcher()(ground.scene(Shift(), SHAPE), type(ground)(50).scene(Shift(), SHAPE))
