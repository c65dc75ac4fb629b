"""Structure: found across sensors without a hint, honest about its error, refused where nothing is shared."""

import numpy as np
import pytest

from geoalign.errors import MatchError
from geoalign.registration.structure import StructureMatcher
from geoalign.types.warp import Affine, Shift

SHAPE = (256, 240)


def turned(degrees, scale=1.0, shift=(3.3, -5.8)):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    m, middle = np.array([[c, -s], [s, c]]), (np.array(SHAPE) - 1) / 2
    return Affine(np.column_stack([m, middle - m @ middle + shift]))


def other_sensor(image):
    """Bright and dark ground look alike, what lies between does not."""
    return np.cos(2.5 * (image - image.mean()) / image.std()).astype(np.float32)


def radar(ground, warp, seed=1, looks=3):
    """Linear intensity of ground whose brightness says little about its backscatter."""
    image = other_sensor(ground.scene(warp, SHAPE, noise=0.0, seed=seed))
    return (10**image * np.random.default_rng(seed).gamma(looks, 1 / looks, SHAPE)).astype(np.float32)


@pytest.mark.parametrize("true", [Shift(4.3, -7.6), Shift(-38.4, 30.7), turned(10), turned(-7, 1.06)])
def test_another_sensor_is_found_without_a_hint(ground, error_px, true):
    found = StructureMatcher()(ground.scene(Shift(), SHAPE), other_sensor(ground.scene(true, SHAPE, noise=0.0)))
    assert found.method == "structure"
    assert error_px(found.warp, true, SHAPE) < 0.3


def test_speckle_in_linear_intensity(ground, error_px):
    true = Shift(6.4, -9.7)
    found = StructureMatcher()(ground.scene(Shift(), SHAPE), radar(ground, true))
    assert error_px(found.warp, true, SHAPE) < 0.5


def test_gaps_do_not_pull(ground, error_px):
    true = Shift(5.3, -4.6)
    pair = ground.scene(Shift(), SHAPE), other_sensor(ground.scene(true, SHAPE, noise=0.0))
    masks = [ground.clouds(SHAPE, 0.25, seed) for seed in (1, 2)]
    for image, cloud in zip(pair, masks):
        image[cloud] = np.random.default_rng(0).normal(5, 2, cloud.sum())
    found = StructureMatcher()(*pair, valid=tuple(~m for m in masks))
    assert error_px(found.warp, true, SHAPE) < 0.3


def test_the_predicted_error_covers_the_error(ground):
    """Over seeds: most errors of a planted shift lie within twice what is predicted, few are far less."""
    ratio = []
    for seed in range(8):
        true = Shift(2.3 + seed / 8, -1.6)
        found = StructureMatcher(model="shift")(ground.scene(Shift(), SHAPE, seed=seed), radar(ground, true, seed=seed))
        sigma = float(found.sigma_px(0.0, 0.0))
        ratio += [(found.warp.dy - true.dy) / sigma, (found.warp.dx - true.dx) / sigma]
    assert 0.3 < np.sqrt(np.mean(np.square(ratio))) < 2.0


def test_unrelated_images_are_refused(ground):
    for seed in range(3):
        other = type(ground)(50 + seed).scene(Shift(), SHAPE)
        with pytest.raises(MatchError, match="stands out"):
            StructureMatcher()(ground.scene(Shift(), SHAPE), other)
    with pytest.raises(MatchError, match=r"\w+"):
        StructureMatcher(max_shift_px=5)(ground.scene(Shift(), SHAPE), ground.scene(Shift(30, 0), SHAPE, seed=1))
