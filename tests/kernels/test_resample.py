import numpy as np
import pytest
from hypothesis import given
from scipy.ndimage import map_coordinates

from geoalign.kernels.resample import KINDS, noise_gain, resample
from geoalign.kernels.spline import spline_coefficients, spline_eval
from tests.naive import bspline_value, keys_cubic
from tests.strategies import images

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", KINDS)
@given(image=images())
def test_no_motion_gives_the_image_back(kind, image):
    rows, cols = np.mgrid[0:40, 0:37].astype(float)
    np.testing.assert_array_equal(resample(image, rows, cols, kind), image)


def test_cubic_is_keys():
    image = RNG.normal(size=(20, 20)).astype(np.float32) + 9
    rows, cols = RNG.uniform(3, 15, (2, 4, 5))
    expected = [[keys_cubic(image, r, c) for r, c in zip(a, b)] for a, b in zip(rows, cols)]
    np.testing.assert_allclose(resample(image, rows, cols, "cubic"), expected, rtol=1e-5)


def test_bspline_is_the_interpolating_spline():
    image = RNG.normal(size=(64, 64)).astype(np.float32)
    rows, cols = RNG.uniform(20, 43, (2, 6, 7))
    expected = map_coordinates(image.astype(float), [rows, cols], order=3, mode="mirror")
    np.testing.assert_allclose(resample(image, rows, cols, "bspline"), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "limit"), [("bilinear", 0.08), ("cubic", 0.02), ("bspline", 0.004), ("lanczos", 0.01)]
)
def test_a_smooth_scene_is_shifted_truly(kind, limit):
    def scene(r, c):
        return 2 + np.sin(r / 2.0) * np.cos(c / 2.5)

    rows, cols = np.mgrid[0:80, 0:80].astype(float)
    image = scene(rows, cols).astype(np.float32)
    inner = (slice(20, 60), slice(20, 60))
    found = resample(image, rows + 0.4, cols - 0.3, kind)
    assert np.abs(found - scene(rows + 0.4, cols - 0.3))[inner].max() < limit


@pytest.mark.parametrize("kind", KINDS)
def test_edges_are_neither_eaten_nor_bled(kind):
    image = np.full((40, 40), 3.0, np.float32)
    image[:, 20:] = np.nan
    rows, cols = np.mgrid[0:40, 0:40].astype(float)
    for shift in (-0.49, -0.2, 0.2, 0.49):
        found = resample(image, rows + 0.1, cols + shift, kind)
        # valid exactly where the nearest source pixel is, and there the flat value itself
        np.testing.assert_array_equal(np.isnan(found), np.isnan(resample(image, rows + 0.1, cols + shift, "nearest")))
        np.testing.assert_allclose(found[~np.isnan(found)], 3.0, rtol=1e-5)
    found = resample(image, rows, cols + 0.49, kind)
    assert np.isnan(found).sum() == 20 * 40


@pytest.mark.parametrize("kind", ["cubic", "bspline", "lanczos"])
def test_power_never_rings_below_zero(kind):
    image = np.full((60, 60), 1e-3, np.float32)
    image[30, 30] = 100.0
    rows, cols = np.mgrid[0:60, 0:60].astype(float)
    assert (resample(image, rows + 0.5, cols + 0.5, kind)[1:-2, 1:-2] > 0).all()


def test_a_coarser_target_is_averaged_not_aliased():
    image = np.indices((64, 64)).sum(0).astype(np.float32) % 2
    rows, cols = np.mgrid[0:16, 0:16] * 4.0 + 1.5
    found = resample(image, rows, cols, "cubic", scale=(4, 4))
    np.testing.assert_allclose(found[1:-1, 1:-1], 0.5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_gives_the_same_bits(kind):
    image = RNG.normal(size=(90, 90)).astype(np.float32)
    image[50:53, 50:53] = np.nan
    rows, cols = np.mgrid[40:60, 40:60] + RNG.uniform(-1, 1, (2, 20, 20))
    whole = resample(image, rows, cols, kind)
    part = resample(image[20:85, 21:86], rows, cols, kind, row0=20, col0=21)
    np.testing.assert_array_equal(whole, part)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_gain_is_the_variance_that_is_left(kind):
    noise = RNG.normal(size=(400, 400)).astype(np.float32)
    rows, cols = np.mgrid[20:380, 20:380].astype(float)
    for dy, dx in ((0.5, 0.25), (-0.2, 1.0)):
        measured = resample(noise, rows + dy, cols + dx, kind).var() / noise.var()
        assert noise_gain(kind, dy, dx) == pytest.approx(measured, rel=0.03)


def test_spline_eval_is_its_definition_and_its_slopes():
    nodes = RNG.normal(size=(5, 6))
    c = spline_coefficients(nodes)
    u, v = RNG.uniform(-1, 6, (2, 30))
    np.testing.assert_allclose(spline_eval(c, u, v), [bspline_value(c, a, b) for a, b in zip(u, v)], atol=1e-12)
    u, v = RNG.uniform(0.1, 3.9, (2, 30))
    h = 1e-6
    np.testing.assert_allclose(
        spline_eval(c, u, v, 1), (spline_eval(c, u + h, v) - spline_eval(c, u - h, v)) / (2 * h), atol=1e-6
    )
    np.testing.assert_allclose(
        spline_eval(c, u, v, 2), (spline_eval(c, u, v + h) - spline_eval(c, u, v - h)) / (2 * h), atol=1e-6
    )


def test_outside_and_infinite_coordinates_are_not_observed():
    image = np.ones((10, 10), np.float32)
    rows = np.array([[np.nan, -0.51, 9.49, 9.51, np.inf]])
    found = resample(image, rows, np.full((1, 5), 5.0))
    np.testing.assert_array_equal(np.isnan(found), [[True, True, False, True, True]])
