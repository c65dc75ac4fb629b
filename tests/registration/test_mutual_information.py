"""Mutual information: pairs whose intensities are related, but not alike."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from geoalign import Affine, ConfigError, MatchError, Shift
from geoalign.registration import tiepoints
from geoalign.registration.mutual_information import MutualInformationMatcher

FINE, SIZE = 2, 200


@pytest.fixture(scope="module")
def ground():
    rng = np.random.default_rng(5)
    n = (SIZE + 80) * FINE
    scene = gaussian_filter(rng.normal(size=(n, n)), 4) * 8 + gaussian_filter(rng.normal(size=(n, n)), 30) * 30
    for _ in range(120):
        r, c = rng.integers(0, n - 80, 2)
        h, w = rng.integers(20, 80, 2)
        scene[r : r + h, c : c + w] += rng.normal(0, 1.5)
    return gaussian_filter(scene, 1.2)


def seen(ground, warp=None):
    """Pixel means of the ground, where the inverse of the warp puts them."""
    total, inverse = np.zeros((SIZE, SIZE)), (warp or Shift()).inverse()
    rows, cols = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    for a in (-0.25, 0.25):
        for b in (-0.25, 0.25):
            places = [(v + 40.5) * FINE - 0.5 for v in inverse.pull(rows + a, cols + b)]
            total += map_coordinates(ground, places, order=3, mode="reflect")
    return total / 4


def radar(image, looks, seed=1):
    """The image as a radar of another mind might see it: no correlation with it, and speckle."""
    z = (image - image.mean()) / image.std()
    power = np.exp(0.9 * np.cos(1.8 * z)) * np.random.default_rng(seed).gamma(looks, size=z.shape)
    return np.log(power)


def turned(degrees, scale, shift=(2.25, -3.5)):
    t, m = np.radians(degrees), (SIZE - 1) / 2
    a = scale * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    return Affine(np.column_stack([a, np.array([m, m]) - a @ [m, m] + shift]))


def error_px(found, truth):
    rows, cols = np.mgrid[0:SIZE:10, 0:SIZE:10].astype(float)
    (a, b), (r, c) = found.pull(rows, cols), truth.pull(rows, cols)
    return np.sqrt(np.mean((a - r) ** 2 + (b - c) ** 2))


@pytest.mark.parametrize("looks", [1, 4])
def test_a_shift_between_unlike_sensors_is_found_either_way_round(ground, looks):
    truth = Shift(-13.25, 20.75)
    optical, sar = seen(ground), radar(seen(ground, truth), looks)
    there = MutualInformationMatcher("shift")(optical, sar)
    back = MutualInformationMatcher("shift")(sar, optical)
    assert error_px(there.warp, truth) < 0.08
    assert error_px(back.warp, truth.inverse()) < 0.08


@pytest.mark.parametrize(("degrees", "scale"), [(10.0, 0.92), (-11.0, 1.1)])
def test_a_turn_and_a_scale_are_found_without_being_told(ground, degrees, scale):
    truth = turned(degrees, scale)
    found = MutualInformationMatcher()(seen(ground), radar(seen(ground, truth), 4))
    assert error_px(found.warp, truth) < 0.15


@pytest.mark.parametrize("model", ["shift", "rigid", "similarity", "affine"])
def test_each_model_is_kept_to(ground, model):
    truth = {"shift": Shift(2.25, -3.5), "rigid": turned(3, 1.0)}.get(model, turned(3, 1.02))
    found = MutualInformationMatcher(model)(seen(ground), -seen(ground, truth)).warp
    assert error_px(found, truth) < 0.03
    if model in ("rigid", "similarity"):
        a = np.array(found.matrix)[:, :2]
        square = a.T @ a
        np.testing.assert_allclose(square, square[0, 0] * np.eye(2), atol=1e-9)
        assert (abs(square[0, 0] - 1) < 1e-9) == (model == "rigid")


def test_auto_answers_a_shift_with_a_shift(ground):
    truth = Shift(1.25, -2.75)
    found = MutualInformationMatcher()(seen(ground), radar(seen(ground, truth), 4))
    assert isinstance(found.warp, Shift)


def test_models_it_does_not_fit_are_named(ground):
    with pytest.raises(ConfigError, match="affine"):
        MutualInformationMatcher("field")(seen(ground), seen(ground))


def test_another_scene_is_refused(ground):
    image = seen(ground)
    with pytest.raises(MatchError, match="stands out"):
        MutualInformationMatcher()(image, radar(np.rot90(image), 4))


def test_smooth_noise_is_refused():
    rng = np.random.default_rng(256)
    with pytest.raises(MatchError):
        MutualInformationMatcher()(*(gaussian_filter(rng.normal(size=(256, 256)), 3) for _ in range(2)))


def test_its_errors_are_of_the_size_it_says(ground):
    truth = turned(1.0, 1.01)
    optical, other = seen(ground), seen(ground, truth)
    ratios = []
    for seed in range(8):
        found = MutualInformationMatcher("affine")(optical, radar(other, 3, seed))
        rows, cols = np.mgrid[20:SIZE:80, 20:SIZE:80].astype(float)
        (a, b), (r, c) = found.warp.pull(rows, cols), truth.pull(rows, cols)
        ratios += [(a - r) / found.sigma_px(rows, cols), (b - c) / found.sigma_px(rows, cols)]
    ratios = np.abs(ratios)
    assert 0.4 < (ratios < 1).mean() < 0.95
    assert (ratios < 3).mean() > 0.95


def test_points_held_out_agree_with_the_rest(ground):
    truth = Shift(1.25, -2.75)
    found = MutualInformationMatcher("shift")(seen(ground), radar(seen(ground, truth), 4))
    table = found.tie_points
    assert (table.use == "check").sum() >= 8
    assert 0 < found.cv_px < 3 * found.rmse_px
    fit = table[table.use == "fit"]
    away = np.hypot(fit.row_moving - fit.row - truth.dy, fit.col_moving - fit.col - truth.dx)
    assert np.median(away) < 0.5


def test_large_images_are_read_by_tiles(ground, monkeypatch):
    truth = turned(0.5, 1.005)
    optical, sar = seen(ground), radar(seen(ground, truth), 4)
    monkeypatch.setattr(tiepoints, "WHOLE_PX", 128)
    monkeypatch.setattr(tiepoints, "COARSE_PX", 100)
    found = MutualInformationMatcher("affine").align(tiepoints.Image(optical), tiepoints.Image(sar))
    assert error_px(found.warp, truth) < 0.12
