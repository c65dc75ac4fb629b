"""Phase: what was planted comes back, to the error that is predicted; what can't be known is refused."""

import numpy as np
import pytest

from geoalign.errors import ConfigError, MatchError
from geoalign.registration.phase import NothingToMatch, PhaseMatcher
from geoalign.types.warp import Affine, Field, Projective, Shift

SHAPE = (192, 176)


def turned(degrees, scale=1.0, shift=(1.3, -0.8), shape=SHAPE):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    m, middle = np.array([[c, -s], [s, c]]), (np.array(shape) - 1) / 2
    return Affine(np.column_stack([m, middle - m @ middle + shift]))


@pytest.mark.parametrize("true", [Shift(0.37, -0.81), Shift(-3.25, 2.75), Shift(12.4, -9.6)])
def test_a_shift_is_found_and_answered_with_a_shift(ground, error_px, true):
    found = PhaseMatcher()(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert isinstance(found.warp, Shift)
    assert error_px(found.warp, true, SHAPE) < 0.01


def test_an_affine_is_found(ground, error_px):
    true = Affine([[1.004, -0.006, 1.7], [0.005, 0.997, -0.9]])
    found = PhaseMatcher()(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert isinstance(found.warp, Affine)
    assert error_px(found.warp, true, SHAPE) < 0.03


def test_a_rigid_model_keeps_lengths(ground, error_px):
    true = turned(0.7)
    found = PhaseMatcher(model="rigid")(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert np.isclose(np.linalg.det(np.array(found.warp.matrix)[:, :2]), 1, atol=1e-12)
    assert error_px(found.warp, true, SHAPE) < 0.02


def test_a_projective_is_found_where_it_is_asked_for(ground, error_px):
    true = Projective([[1.002, 0.003, 0.8], [-0.002, 0.999, 1.1], [1.5e-5, -1e-5, 1]])
    found = PhaseMatcher(model="projective")(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert isinstance(found.warp, Projective)
    assert error_px(found.warp, true, SHAPE) < 0.05


def test_a_smooth_field_is_found(ground, error_px):
    shape = (256, 256)
    rng = np.random.default_rng(3)
    dy, dx = 0.9 * rng.standard_normal((2, 5, 5))
    true = Field(dy, dx, -64.0, -64.0, 96.0, 96.0)
    found = PhaseMatcher()(ground.scene(Shift(), shape), ground.scene(true, shape, seed=1))
    assert isinstance(found.warp, Field)
    assert error_px(found.warp, true, shape) < 0.12 < 0.5 < error_px(Shift(), true, shape)


def test_clouds_leave_no_imprint(ground, error_px):
    true = Shift(1.62, -0.45)
    pair = ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1)
    masks = [ground.clouds(SHAPE, 0.3, seed) for seed in (1, 2)]
    for image, cloud in zip(pair, masks):
        image[cloud] = 9.0  # bright, and only the mask says so
    found = PhaseMatcher()(*pair, valid=(~masks[0], ~masks[1]))
    assert error_px(found.warp, true, SHAPE) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_speckled_scenes_in_logarithms(ground, error_px, seed):
    true = Shift(0.7, -1.1)
    pair = [np.log(ground.scene(w, (256, 256), looks=4.4, seed=k + 2 * seed)) for k, w in enumerate((Shift(), true))]
    assert error_px(PhaseMatcher()(*pair).warp, true, (256, 256)) < 0.15


def test_the_predicted_error_is_the_actual_one(ground):
    """Root mean square of the true error over the predicted one, over noise levels and cloud."""
    ratios = []
    for seed in range(16):
        noise = 0.05 * 2 ** (seed % 4)
        true = Shift(0.11 * seed - 0.8, 0.9 - 0.13 * seed)
        pair = [ground.scene(w, (160, 160), noise=noise, seed=2 * seed + k) for k, w in enumerate((Shift(), true))]
        found = PhaseMatcher(model="shift")(*pair)
        error2 = ((found.warp.dy - true.dy) ** 2 + (found.warp.dx - true.dx) ** 2) / 2
        ratios.append(error2 / float(found.sigma_px(0.0, 0.0)) ** 2)
    assert 0.5 < np.sqrt(np.mean(ratios)) < 2


def test_identical_images_give_no_motion(ground):
    image = ground.scene(Shift(), SHAPE)
    found = PhaseMatcher()(image, image.copy())
    assert isinstance(found.warp, Shift)
    assert np.hypot(found.warp.dy, found.warp.dx) < 1e-3


def test_there_and_back_is_home(ground):
    a, b = ground.scene(Shift(), SHAPE), ground.scene(Shift(2.3, -1.4), SHAPE, seed=1)
    there, back = PhaseMatcher()(a, b).warp, PhaseMatcher()(b, a).warp
    assert abs(there.dy + back.dy) < 0.02
    assert abs(there.dx + back.dx) < 0.02


@pytest.mark.parametrize("true", [Shift(38, 4), Shift(-30, 21)])
def test_shifts_up_to_a_fifth_of_the_image_are_found(ground, error_px, true):
    found = PhaseMatcher()(ground.scene(Shift(), SHAPE), ground.scene(true, SHAPE, seed=1))
    assert error_px(found.warp, true, SHAPE) < 0.02


def test_nothing_is_searched_beyond_the_limit(ground):
    pair = ground.scene(Shift(), SHAPE), ground.scene(Shift(15, 0), SHAPE, seed=1)
    with pytest.raises(MatchError):
        PhaseMatcher(max_shift_px=6)(*pair)
    with pytest.raises(ConfigError, match="max_shift_px"):
        PhaseMatcher(max_shift_px=-1)(*pair)


@pytest.mark.parametrize("value", [np.nan, 0.3])
def test_empty_and_flat_images_are_refused(ground, value):
    image, none = ground.scene(Shift(), SHAPE), np.full(SHAPE, value, np.float32)
    for pair in ((image, none), (none, image)):
        with pytest.raises(NothingToMatch):
            PhaseMatcher()(*pair)


@pytest.mark.parametrize("smooth", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_noise_against_noise_is_refused(smooth, seed):
    from scipy.ndimage import gaussian_filter

    pair = np.random.default_rng(seed).standard_normal((2, 160, 160))
    pair = [gaussian_filter(v, smooth) if smooth else v for v in pair]
    with pytest.raises(MatchError):
        PhaseMatcher()(*pair)


def test_unrelated_ground_is_refused(ground):
    other = type(ground)(5)
    with pytest.raises(MatchError):
        PhaseMatcher()(ground.scene(Shift(), SHAPE), other.scene(Shift(), SHAPE))


def test_inputs_are_not_changed_and_a_seed_gives_the_same_answer(ground):
    pair = ground.scene(Shift(), SHAPE), ground.scene(Shift(1, 2), SHAPE, seed=1)
    copies = [v.copy() for v in pair]
    mask = ~ground.clouds(SHAPE, 0.2, 1)
    one, two = (PhaseMatcher()(*pair, valid=mask, seed=3) for _ in range(2))
    assert one.warp == two.warp
    assert one.tie_points.equals(two.tie_points)
    for image, copy in zip(pair, copies):
        np.testing.assert_array_equal(image, copy)


def test_the_table_says_which_points_were_used_held_out_and_rejected(ground):
    true = Shift(1.2, 0.4)
    moving = ground.scene(true, SHAPE, seed=1)
    moving[:60, :60] = ground.scene(Shift(4.0, -3.0), SHAPE, seed=2)[:60, :60]  # a part that moved otherwise
    moving[120:, :70] = np.nan
    found = PhaseMatcher()(ground.scene(Shift(), SHAPE), moving)
    table = found.tie_points
    assert set(table.use) == {"fit", "check", "rejected"}
    assert (table.reason[table.use == "rejected"] != "").all()
    assert "masked or outside" in set(table.reason)
    assert (table.use == "fit").sum() == found.n_points
    used = table[table.use == "fit"]
    rows, cols = found.warp.pull(used.row.to_numpy(), used.col.to_numpy())
    np.testing.assert_allclose(used.row_moving - rows, used.dy_residual, atol=1e-9)
    np.testing.assert_allclose(np.sqrt((used.dy_residual**2 + used.dx_residual**2).mean()), found.rmse_px)
    assert 0 < found.rmse_px < 0.2
    assert 0 < found.cv_px < 0.3
