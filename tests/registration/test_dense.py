"""Fields through all pixels, and what `auto` makes of images of one kind and of two."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign import Field, MatchError, Shift, match
from geoalign.kernels.resample import resample
from geoalign.registration.field import field_match, turned_round
from geoalign.registration.select import fit
from geoalign.registration.tiepoints import Image

SIZE, FINE, PAD = 256, 3, 16


def wave(rows, cols):
    """Displacement (dy, dx) of up to 2.5 px."""
    dy = 1.5 * np.sin(2 * np.pi * (rows / 190 + 0.2)) + 0.8 * np.cos(2 * np.pi * cols / 230)
    return dy, 1.6 * np.sin(2 * np.pi * (cols / 210 - rows / 400)) - 0.5


def ground(seed):
    rng = np.random.default_rng(seed)
    n = (SIZE + 2 * PAD) * FINE
    scene = gaussian_filter(rng.normal(size=(n, n)), 4) * 7 + gaussian_filter(rng.normal(size=(n, n)), 25) * 30
    for _ in range(120):
        r, c = rng.integers(0, n - 150, 2)
        scene[r : r + rng.integers(30, 150), c : c + rng.integers(30, 150)] += rng.normal(0, 1.2)
    return gaussian_filter(scene, 1.5).astype(np.float32)


def render(scene, displaced=None):
    """Mean over FINE x FINE samples of each pixel; `displaced`: the moving image, seen where the field puts it."""
    rows, cols = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    total = np.zeros((SIZE, SIZE))
    for a in (np.arange(FINE) + 0.5) / FINE - 0.5:
        for b in (np.arange(FINE) + 0.5) / FINE - 0.5:
            r, c = rows + a, cols + b
            if displaced is not None:
                for _ in range(10):
                    dy, dx = displaced(r, c)
                    r, c = rows + a - dy, cols + b - dx
            total += resample(scene, (r + PAD + 0.5) * FINE - 0.5, (c + PAD + 0.5) * FINE - 0.5, "bspline")
    return total / FINE**2


@pytest.fixture(scope="module")
def images():
    """Reference, moving and moving as another sensor with speckle would show it, noise included."""
    rng = np.random.default_rng(3)
    scene = ground(2)
    reference, moving = render(scene), render(scene, wave)
    z = (moving - reference.mean()) / reference.std()
    other = np.log(np.exp(0.9 * np.cos(1.8 * z)) * rng.gamma(4.4, 1 / 4.4, z.shape))
    noisy = [im + 0.02 * reference.std() * rng.normal(size=im.shape) for im in (reference, moving)]
    return tuple(np.asarray(im, np.float32) for im in (*noisy, other))


def errors(found, margin=0):
    rows, cols = np.mgrid[margin : SIZE - margin : 6, margin : SIZE - margin : 6].astype(float)
    r, c = found.warp.pull(rows, cols)
    dy, dx = wave(rows, cols)
    return r - rows - dy, c - cols - dx, found.sigma_px(rows, cols)


def rms(found):
    ey, ex, _ = errors(found)
    return float(np.sqrt((ey**2 + ex**2).mean()))


def test_auto_finds_that_the_image_bends_and_how(images):
    found = match(*images[:2])
    assert isinstance(found.warp, Field)
    assert rms(found) < 0.05
    assert found.rmse_px < 0.05
    assert 0 < found.cv_px < 0.1
    # an affine leaves far more
    assert rms(match(*images[:2], model="affine")) > 0.5


def test_the_predicted_error_of_a_field_is_what_its_errors_are(images):
    ey, ex, sigma = errors(match(*images[:2]))
    inside = np.abs(np.stack([ey, ex]) / sigma)
    assert 0.5 < (inside < 1).mean() < 0.95
    assert (inside < 2).mean() > 0.85


def test_there_and_back_is_home(images):
    rows, cols = np.mgrid[8 : SIZE - 8 : 8, 8 : SIZE - 8 : 8].astype(float)
    for pair in (images[:2], (images[0], images[2])):
        ahead, back = match(*pair, matcher="dense"), match(*pair[::-1], matcher="dense")
        r, c = back.warp.pull(*ahead.warp.pull(rows, cols))
        assert np.sqrt(((r - rows) ** 2 + (c - cols) ** 2).mean()) < 0.05


def test_a_field_across_sensors_that_no_correlation_sees(images):
    reference, _, other = images
    assert abs(np.corrcoef(reference.ravel(), other.ravel())[0, 1]) < 0.3
    found = match(reference, other)
    assert isinstance(found.warp, Field)
    assert rms(found) < 0.35
    turned = match(other, reference)
    assert isinstance(turned.warp, Field)


def test_clouds_that_are_masked_do_not_pull(images):
    reference, moving = (im.copy() for im in images[:2])
    valid = np.ones(reference.shape, bool)
    valid[60:110, 90:150] = False
    reference[~valid] = 30.0
    moving[150:200, 40:90] = np.nan
    found = match(reference, moving, valid=(valid, None))
    assert rms(found) < 0.12


def test_a_field_that_would_fold_is_refused():
    rng = np.random.default_rng(5)
    image = gaussian_filter(rng.normal(size=(160, 160)), 1.5).astype(np.float32)
    mirror = np.ascontiguousarray(image[:, ::-1])
    with pytest.raises(MatchError, match=r"fold|no better|windows bear"):
        field_match(Image(image), Image(mirror), Shift(0.0, 0.0), 0.9, 0, "dense")


def test_turning_a_match_round_swaps_its_points_and_inverts_its_warp(images):
    found = match(*images[:2])
    back = turned_round(found)
    rows, cols = np.array([100.0, 30.0]), np.array([60.0, 200.0])
    r, c = back.warp.pull(*found.warp.pull(rows, cols))
    np.testing.assert_allclose(r, rows, atol=0.02)
    np.testing.assert_allclose(c, cols, atol=0.02)
    np.testing.assert_array_equal(back.tie_points.row, found.tie_points.row_moving)


def test_a_pure_shift_is_never_answered_with_a_field():
    scene = ground(4)
    reference, moving = render(scene), render(scene, lambda r, c: (0 * r + 1.25, 0 * c - 2.5))
    rng = np.random.default_rng(6)
    pair = [(im + 0.02 * reference.std() * rng.normal(size=im.shape)).astype(np.float32) for im in (reference, moving)]
    found = match(*pair)
    assert isinstance(found.warp, Shift)
    assert (found.warp.dy, found.warp.dx) == pytest.approx((1.25, -2.5), abs=0.01)


def test_a_polynomial_of_the_second_degree_is_held_exactly():
    def truth(rows, cols):
        u, v = (rows - 128) / 128, (cols - 128) / 128
        return 1 + 0.5 * u + 1.5 * u * u - 0.7 * u * v, -2 + 0.9 * v - 1.1 * v * v

    rng = np.random.default_rng(7)
    points = rng.uniform(0, SIZE, (120, 2))
    found = points + np.stack(truth(*points.T), axis=1)
    error = np.broadcast_to(np.eye(2) * 0.05**2, (len(points), 2, 2))
    use = np.ones(len(points), bool)
    rows, cols = np.mgrid[0:SIZE:16, 0:SIZE:16].astype(float)
    dy, dx = truth(rows, cols)
    exact = fit("polynomial2", points, found, error, use=use, shape=(SIZE, SIZE))
    np.testing.assert_allclose(exact.warp.pull(rows, cols), (rows + dy, cols + dx), atol=1e-9)
    noisy = fit("polynomial2", points, found + rng.normal(0, 0.05, found.shape), error, use=use, shape=(SIZE, SIZE))
    off = np.stack(noisy.warp.pull(rows, cols)) - (rows + dy, cols + dx)
    assert 0.5 < np.sqrt((off**2).mean()) / noisy.sigma_px < 1.6


def test_a_polynomial_is_fitted_where_it_is_asked_for():
    def truth(rows, cols):
        u, v = (rows - 128) / 128, (cols - 128) / 128
        return 1 + 0.5 * u + 1.5 * u * u, -1.2 * u * v

    scene = ground(2)
    found = match(*(im.astype(np.float32) for im in (render(scene), render(scene, truth))), model="polynomial2")
    rows, cols = np.mgrid[0:SIZE:6, 0:SIZE:6].astype(float)
    dy, dx = truth(rows, cols)
    np.testing.assert_allclose(found.warp.pull(rows, cols), (rows + dy, cols + dx), atol=0.02)


@pytest.mark.parametrize("seed", [0, 1])
def test_waves_on_water_are_never_answered(seed):
    rng = np.random.default_rng(seed)
    crests = [np.sin(np.arange(SIZE)[:, None] / 5 + phase) * 0.4 for phase in rng.uniform(0, 6, 2)]
    images = [(c + rng.normal(size=(SIZE, SIZE))).astype(np.float32) for c in crests]
    with pytest.raises(MatchError):
        match(*images)
