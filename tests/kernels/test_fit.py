"""Fits give back the planted model, resist outliers, and know their error."""

import numpy as np
import pytest

from geoalign.kernels.field_fit import fit_field, node_grid
from geoalign.kernels.fit import PARAMETERS, consensus, fit_model
from geoalign.types.warp import Affine, Field, Projective

TRUE = {
    "shift": [[1, 0, 2.5], [0, 1, -1.25], [0, 0, 1]],
    "rigid": [[np.cos(0.2), -np.sin(0.2), 9.0], [np.sin(0.2), np.cos(0.2), -4.0], [0, 0, 1]],
    "similarity": [[1.02, -0.03, 2.0], [0.03, 1.02, 5.0], [0, 0, 1]],
    "affine": [[1.01, 0.004, -3.0], [-0.02, 0.98, 4.0], [0, 0, 1]],
    "projective": [[1.01, 0.004, -3.0], [-0.02, 0.98, 4.0], [2e-5, -3e-5, 1]],
}


def points_of(matrix, n=80, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 300, (n, 2))
    found = np.stack(Projective(matrix).pull(*points.T), axis=1)
    sigma = rng.uniform(0.5, 2.0, n) * noise
    return points, found + sigma[:, None] * rng.standard_normal((n, 2)), sigma


def isotropic(sigma):
    return np.maximum(sigma, 1e-3)[:, None, None] ** 2 * np.eye(2)


@pytest.mark.parametrize("model", PARAMETERS)
def test_exact_points_give_the_model_back(model):
    points, found, sigma = points_of(TRUE[model])
    fitted = fit_model(model, points, found, isotropic(sigma))
    np.testing.assert_allclose(fitted["matrix"], TRUE[model], atol=1e-6)


@pytest.mark.parametrize("model", PARAMETERS)
def test_outliers_get_no_weight(model):
    points, found, sigma = points_of(TRUE[model], noise=0.05)
    found[::5] += (6.0, -4.0)
    fitted = fit_model(model, points, found, isotropic(sigma))
    assert (fitted["weight"][::5] == 0).all()
    clean = np.stack(Projective(fitted["matrix"]).pull(*points.T), 1) - np.stack(
        Projective(TRUE[model]).pull(*points.T), 1
    )
    assert np.abs(clean).max() < 0.15


@pytest.mark.parametrize("model", ["shift", "affine"])
def test_the_covariance_is_that_of_repeated_fits(model):
    lengths = []
    keep = [2, 5] if model == "shift" else list(range(6))
    for seed in range(150):
        points, found, sigma = points_of(TRUE[model], n=40, noise=0.1, seed=seed)
        # the errors are told wrong by a common factor: it is found from the scatter
        fitted = fit_model(model, points, found, isotropic(3 * sigma))
        error = (fitted["matrix"] - np.array(TRUE[model])).ravel()[keep]
        lengths.append(error @ np.linalg.solve(fitted["covariance"], error) / len(keep))
    assert 0.75 < np.mean(lengths) < 1.4


def test_held_out_residuals_are_those_of_fits_without_the_point():
    points, found, sigma = points_of(TRUE["affine"], n=25, noise=0.1)
    fitted = fit_model("affine", points, found, isotropic(sigma))
    for k in (0, 7, 19):
        use = np.arange(25) != k
        without = Affine(fit_model("affine", points, found, isotropic(sigma), use=use)["matrix"][:2])
        expected = found[k] - np.array(without.pull(*points[k]))
        np.testing.assert_allclose(fitted["held_out"][k], expected, atol=0.03)


def test_too_few_or_aligned_points_give_nothing():
    points, found, sigma = points_of(TRUE["affine"])
    assert fit_model("affine", points[:2], found[:2], isotropic(sigma[:2])) is None
    line = np.stack([np.arange(20.0), np.arange(20.0)], axis=1)
    assert fit_model("affine", line, line, isotropic(np.ones(20))) is None


def test_consensus_finds_the_motion_that_most_agree_on():
    points, found, _ = points_of(TRUE["affine"], n=60)
    rng = np.random.default_rng(1)
    wrong = rng.permutation(60)[:30]
    found[wrong] = points[wrong] + rng.uniform(-40, 40, (30, 2))
    inside = consensus(points, found, np.ones(60))
    right = np.setdiff1d(np.arange(60), wrong)
    assert inside[right].mean() > 0.9
    assert inside[wrong].mean() < 0.1


def test_a_field_is_fitted_to_its_noise():
    rng = np.random.default_rng(5)
    true = Field(*rng.standard_normal((2, 5, 5)), -60.0, -60.0, 90.0, 90.0)
    points = rng.uniform(0, 240, (200, 2))
    sigma = np.full(200, 0.1)
    found = np.stack(true.pull(*points.T), 1) + 0.1 * rng.standard_normal((200, 2))
    found[::10] += 5.0
    grid = node_grid((241, 241), 60)
    fitted = fit_field(grid, points, found, isotropic(sigma), use=np.ones(200, bool))
    field = Field(fitted["dy"], fitted["dx"], *grid[2:])
    rows, cols = np.mgrid[10:231:10, 10:231:10].astype(float)
    error = np.stack(field.pull(rows, cols)) - np.stack(true.pull(rows, cols))
    assert np.sqrt((error**2).mean()) < 0.09
    assert (fitted["weight"][::10] == 0).all()


def test_a_stiff_field_keeps_an_affine():
    points, found, sigma = points_of(TRUE["affine"], noise=0.02)
    grid = node_grid((301, 301), 60)
    fitted = fit_field(grid, points, found, isotropic(sigma), use=np.ones(80, bool))
    field = Field(fitted["dy"], fitted["dx"], *grid[2:])
    rows, cols = np.mgrid[0:301:20, 0:301:20].astype(float)
    for got, expected in zip(field.pull(rows, cols), Projective(TRUE["affine"]).pull(rows, cols)):
        np.testing.assert_allclose(got, expected, atol=0.15)


def test_too_few_points_give_no_field():
    points, found, sigma = points_of(TRUE["affine"], n=10)
    assert fit_field(node_grid((301, 301), 60), points, found, isotropic(sigma), use=np.ones(10, bool)) is None
