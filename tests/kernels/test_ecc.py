"""Moments of blocks agree with a plain sum over pixels; a step finds what is left; the jackknife sees real scatter."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from geoalign.kernels import ecc
from geoalign.kernels.refine import spline

RNG = np.random.default_rng(3)
SCENE = gaussian_filter(RNG.normal(size=(110, 110)), 2.5)
FREE = (0.0, 0.0, np.inf)


def seen(image):
    return np.ones(image.shape, bool)


def test_moments_are_what_a_plain_sum_over_pixels_gives():
    ref, mov = SCENE[:40, :40].copy(), SCENE[2:42, 1:41].copy()
    ok, mov_ok = seen(ref), seen(mov)
    ok[20:24, 8:15], mov_ok[30:, 25:] = False, False
    matrix = np.array([[1.01, 0.02, -1.3], [-0.01, 0.99, -0.6], [0.0, 0.0, 1.0]])
    centre, size = np.array([19.5, 19.5]), 20.0
    found, n = ecc.block_moments(ref, ok, 6, 5, 24, 26, spline(mov), mov_ok, matrix, centre, size, 8, (0.1, 0.8, 0.3))
    total, count = np.zeros((11, 11)), 0
    for r in range(6, 30):
        for c in range(5, 31):
            p, q = (matrix @ [r, c, 1])[:2]
            cross = [(r + d, c) for d in range(-2, 3)] + [(r, c + d) for d in range(-2, 3)]
            corners = [(int(p) + i, int(q) + j) for i in (0, 1) for j in (0, 1)]
            if not (all(ok[k] for k in cross) and 1 <= p < 38 and 1 <= q < 38 and all(mov_ok[k] for k in corners)):
                continue
            y = map_coordinates(mov, [[p], [q]], order=3, mode="mirror")[0]
            gr = (8 * (ref[r + 1, c] - ref[r - 1, c]) - (ref[r + 2, c] - ref[r - 2, c])) / 12
            gc = (8 * (ref[r, c + 1] - ref[r, c - 1]) - (ref[r, c + 2] - ref[r, c - 2])) / 12
            u, v = (r - 19.5) / 20, (c - 19.5) / 20
            along = gr * u + gc * v
            f = np.array([1, ref[r, c], gr * u, gr * v, gr, gc * u, gc * v, gc, -along * u, -along * v, y])
            e = (y - 0.1 - 0.8 * ref[r, c]) / (2.385 * 0.3)
            total += np.outer(f, f) / (1 + e * e)
            count += 1
    assert n == count > 100
    np.testing.assert_allclose(found, total, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("model", list(ecc.PARAMETERS))
def test_a_step_that_was_taken_is_found_by_its_parameters(model):
    q = 0.8 * RNG.normal(size=ecc.PARAMETERS[model])
    free, centre, size = ecc.basis(model), np.array([50.0, 40.0]), 60.0
    there = ecc.stepped(model, np.eye(3), free @ q, centre, size)
    back = ecc.stepped(model, there, -(free @ q), centre, size)
    # steps add up to second order, and stay within their model
    np.testing.assert_allclose(back @ [70, 20, 1], [70, 20, 1], atol=0.1)
    a = there[:2, :2]
    if model in ("rigid", "similarity"):
        np.testing.assert_allclose(a @ a.T, np.linalg.det(a) * np.eye(2), atol=1e-12)
    if model == "rigid":
        assert abs(np.linalg.det(a) - 1) < 1e-12


def test_gain_and_level_of_a_block_are_its_own():
    mov = SCENE.copy()
    mov[:55] = 3.0 + 0.5 * mov[:55]
    rows = np.array([(4, 4), (4, 56), (60, 4), (60, 56)])
    out = [
        ecc.block_moments(SCENE, seen(mov), r, c, 44, 46, spline(mov), seen(mov), np.eye(3), np.zeros(2), 55.0, 6, FREE)
        for r, c in rows
    ]
    fits = ecc.block_fit(np.array([m for m, _ in out]), np.array([n for _, n in out]))
    assert fits["good"].all()
    np.testing.assert_allclose(fits["gain"], [0.5, 0.5, 1, 1], atol=0.01)
    np.testing.assert_allclose(fits["left"], 0, atol=0.01)


def test_the_jackknife_is_as_wide_as_answers_scatter():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(40, 50, 3))
    normal = np.einsum("bni,bnj->bij", design, design)
    answers, sigma = [], []
    for _ in range(60):
        # all pixels of a block share an error: what white noise would say is far too small
        noise = rng.normal(size=(40, 50)) + design @ np.ones(3) * rng.normal(size=(40, 1))
        right = np.einsum("bni,bn->bi", design, noise)
        answers.append(ecc.solve(normal.sum(0), right.sum(0))[0])
        sigma.append(np.sqrt(np.diag(ecc.jackknife(normal, right))))
    np.testing.assert_allclose(np.mean(sigma, 0), np.std(answers, 0), rtol=0.3)


def test_structure_of_a_masked_image_does_not_see_what_is_masked():
    holed = SCENE.copy()
    holed[40:60, 40:60] = np.nan
    a, ok = ecc.structure(holed, 0.9, 3.6)
    assert not ok[40:60, 40:60].any()
    assert ok[2:30, 2:-2].all()
    full, _ = ecc.structure(SCENE, 0.9, 3.6)
    np.testing.assert_allclose(a[15:20, 15:-15], full[15:20, 15:-15], atol=1e-5)
