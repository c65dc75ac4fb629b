"""The laws, over every registered matcher."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign import ConfigError, MatchError, Shift, chunked, match
from geoalign.registration import MATCHERS
from geoalign.types.alignment import TIE_POINT_COLUMNS, Match

RNG = np.random.default_rng(20)


def ground(seed=1, size=200):
    """A textured scene with fields and edges, finer than the image pixel (4 samples a px)."""
    rng = np.random.default_rng(seed)
    n = size * 4
    scene = gaussian_filter(rng.normal(size=(n, n)), 5) * 8 + gaussian_filter(rng.normal(size=(n, n)), 40) * 40
    for _ in range(60):
        r, c = rng.integers(0, n - 200, 2)
        h, w = rng.integers(40, 200, 2)
        scene[r : r + h, c : c + w] += rng.normal(0, 1.5)
    return gaussian_filter(scene, 2)


def pair(dy=0.0, dx=0.0, size=160, noise=0.02, seed=1):
    """Reference and moving, both pixel means of one finer ground; `pull` adds (dy, dx), multiples of 1/4 px."""
    scene = ground(seed, size + 40)
    oy, ox = round(dy * 4), round(dx * 4)
    base = 80

    def render(r, c):
        crop = scene[r : r + size * 4, c : c + size * 4]
        return crop.reshape(size, 4, size, 4).mean((1, 3))

    rng = np.random.default_rng(seed + 9)
    reference = render(base, base)
    moving = render(base - oy, base - ox)
    spread = reference.std()
    return tuple((im + rng.normal(0, noise * spread, im.shape)).astype(np.float32) for im in (reference, moving))


@pytest.fixture(params=list(MATCHERS))
def name(request):
    return request.param


@pytest.mark.parametrize(("dy", "dx"), [(1.25, -2.5), (-7.75, 4.25), (0.25, 0.5)])
def test_a_planted_shift_is_found(name, dy, dx):
    found = match(*pair(dy, dx), matcher=name)
    rows, cols = np.mgrid[20:140:10, 20:140:10].astype(float)
    r, c = found.warp.pull(rows, cols)
    limit = 0.2 if name == "orb" else 0.05
    assert np.sqrt(np.mean((r - rows - dy) ** 2 + (c - cols - dx) ** 2)) < limit


def test_identical_images_give_no_motion(name):
    image, _ = pair()
    rows, cols = np.mgrid[0:160:20, 0:160:20].astype(float)
    r, c = match(image, image, matcher=name).warp.pull(rows, cols)
    np.testing.assert_allclose(r, rows, atol=2e-3)
    np.testing.assert_allclose(c, cols, atol=2e-3)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_flat_or_empty_image_is_an_error_with_its_reason(name, value):
    image, _ = pair()
    for a, b in ((image, np.full_like(image, value)), (np.full_like(image, value), image)):
        with pytest.raises(MatchError, match=r"\w+"):
            match(a, b, matcher=name)


def test_noise_is_never_answered_with_a_warp(name):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        with pytest.raises(MatchError):
            match(*rng.normal(size=(2, 128, 128)).astype(np.float32), matcher=name)


def test_gaps_and_clouds_do_not_pull(name):
    reference, moving = pair(1.5, -1.25)
    masked = moving.copy()
    masked[20:90, 30:80] = np.nan
    cloudy = reference.copy()
    cloudy[60:120, 90:150] = 50.0
    valid = np.ones(reference.shape, bool)
    valid[60:120, 90:150] = False
    found = match(cloudy, masked, matcher=name, valid=(valid, np.ones_like(valid)))
    r, c = found.warp.pull(80.0, 80.0)
    limit = 0.3 if name == "orb" else 0.08
    assert abs(r - 81.5) < limit
    assert abs(c - 78.75) < limit


def test_a_match_says_how_good_it_is(name):
    found = match(*pair(1.25, -2.5), matcher=name)
    assert isinstance(found, Match)
    assert set(TIE_POINT_COLUMNS) <= set(found.tie_points.columns)
    assert found.n_points == (found.tie_points.use == "fit").sum() or found.n_points > 0
    assert 0 < found.score <= 1
    assert found.rmse_px >= 0
    sigma = found.sigma_px(np.array([10.0, 80.0]), np.array([10.0, 80.0]))
    assert (sigma > 0).all()
    assert (sigma < 0.5).all()


def test_the_same_seed_gives_the_same_bits_and_inputs_stay(name):
    reference, moving = pair(1.25, -2.5)
    before = reference.copy(), moving.copy()
    a, b = (match(reference, moving, matcher=name, seed=4) for _ in range(2))
    assert a.warp == b.warp
    np.testing.assert_array_equal(before[0], reference)
    np.testing.assert_array_equal(before[1], moving)


def test_warping_by_the_answer_makes_the_images_agree(name):
    reference, moving = pair(2.5, -1.75)
    found = match(reference, moving, matcher=name)
    back = chunked.pull(moving, found.warp, reference.shape)
    inner = (slice(20, 140), slice(20, 140))
    assert np.corrcoef(back[inner].ravel(), reference[inner].ravel())[0, 1] > 0.98
    assert np.corrcoef(moving[inner].ravel(), reference[inner].ravel())[0, 1] < 0.98


def test_models_are_what_was_asked_for(name):
    reference, moving = pair(2.5, -1.75)
    assert isinstance(match(reference, moving, matcher=name, model="shift").warp, Shift)
    with pytest.raises(ConfigError, match="model"):
        match(reference, moving, matcher=name, model="afine")


def test_an_unknown_matcher_names_the_nearest():
    with pytest.raises(ConfigError, match="phase"):
        match(*pair(), matcher="phaze")
