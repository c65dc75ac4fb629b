"""Ecc: the most precise within one sensor, whatever is masked, and silent where brightness does not rise together."""

import numpy as np
import pytest

from geoalign.errors import ConfigError, MatchError
from geoalign.registration.ecc import EccMatcher
from geoalign.types.warp import Affine, Projective, Shift

SHAPE = (256, 240)


def turned(degrees, scale=1.0, shift=(3.3, -5.8)):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    m, middle = np.array([[c, -s], [s, c]]), (np.array(SHAPE) - 1) / 2
    return Affine(np.column_stack([m, middle - m @ middle + shift]))


@pytest.mark.parametrize(
    ("true", "kind"),
    [(Shift(4.3, -7.6), Shift), (turned(1, 1.004), Affine), (turned(10, 1.08), Affine), (turned(-12, 0.92), Affine)],
)
def test_shifts_rotations_and_scales_are_found_to_a_hundredth(ground, error_px, true, kind):
    found = EccMatcher()(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert isinstance(found.warp, kind)
    assert error_px(found.warp, true, SHAPE) < 0.01
    assert found.cv_px < 0.1


def test_a_projective_warp_is_found_where_it_is_asked_for(ground, error_px):
    true = Projective(((1.01, 0.004, 2.0), (-0.003, 1.0, -1.5), (2e-5, -3e-5, 1.0)))
    found = EccMatcher("projective")(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert isinstance(found.warp, Projective)
    assert error_px(found.warp, true, SHAPE) < 0.02
    assert found.covariance.shape == (8, 8)


def test_clouds_masked_in_either_image_do_not_pull(ground, error_px):
    true = turned(0.5)
    pair = ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1)
    masks = [ground.clouds(SHAPE, 0.25, seed) for seed in (1, 2)]
    for image, cloud in zip(pair, masks):
        image[cloud] = np.random.default_rng(0).normal(5, 2, cloud.sum())
    found = EccMatcher()(*pair, valid=tuple(~m for m in masks))
    assert error_px(found.warp, true, SHAPE) < 0.02


def test_sigma_is_what_errors_are(ground):
    rows, cols = np.mgrid[0 : SHAPE[0] : 40, 0 : SHAPE[1] : 40].astype(float)
    z = []
    for seed in range(7):
        true = turned(0.2 * seed - 1, 1 + 0.001 * seed, (0.37 * seed, -1.1))
        pair = (
            ground.scene(Shift(), SHAPE, noise=0.2, seed=2 * seed),
            ground.scene(true, SHAPE, noise=0.2, seed=2 * seed + 1),
        )
        found = EccMatcher("affine")(*pair)
        apart = np.subtract(found.warp.pull(rows, cols), true.pull(rows, cols))
        z.append(apart / found.sigma_px(rows, cols))
    z = np.abs(z)
    assert 0.5 < (z < 1).mean() < 0.9
    assert (z < 2).mean() > 0.85


def test_what_does_not_belong_together_is_refused(ground):
    for seed in range(2):
        with pytest.raises(MatchError):
            EccMatcher()(ground.scene(Shift(), SHAPE), type(ground)(50 + seed).scene(Shift(), SHAPE))
    inverted = -ground.scene(Shift(2, 1), SHAPE, seed=1)
    with pytest.raises(MatchError, match="not alike"):
        EccMatcher()(ground.scene(Shift(), SHAPE), inverted)


def test_a_field_is_not_what_ecc_fits(ground):
    with pytest.raises(ConfigError, match="field"):
        EccMatcher("field")(*[ground.scene(Shift(), SHAPE)] * 2)
