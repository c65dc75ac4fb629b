"""The algebra of the field: splines, banded matrices, evidence and the errors drawn from it."""

import numpy as np
import pytest

from geoalign.kernels import flow
from geoalign.kernels.mapping import expectation, mapped
from geoalign.kernels.spline import spline_coefficients, spline_eval

GRID = (6, 7)


def random_hessian(rng):
    """Hessian of a random problem by the kernel, and the same densely from its definition."""
    shape = (40, 45)
    left_r, w_r = flow.basis(shape[0], -24.0, 12.0, 8)
    left_c, w_c = flow.basis(shape[1], -24.0, 12.0, 9)
    ref, by_row, by_col, mov = rng.normal(size=(4, *shape))
    known, seen = rng.uniform(size=(2, *shape)) > 0.2
    gain, noise = rng.uniform(0.5, 2, (2, *shape))
    turn = np.array([[1.0, 0.1], [-0.2, 0.9]])
    out = flow.normal_and_score(
        ref, by_row, by_col, known, mov, seen, gain, noise, turn, left_r, w_r, left_c, w_c, 8, 9
    )
    e = mov - gain * ref
    weight = np.where(known & seen, 1 / (noise + e**2 / flow.CAUCHY**2), 0.0)
    jac = gain[..., None] * np.stack([by_row, by_col], -1) @ turn.T
    b_r, b_c = flow.dense_basis(left_r, w_r, 8), flow.dense_basis(left_c, w_c, 9)
    design = np.einsum("ri,cj,rca->rcija", b_r, b_c, jac).reshape(shape[0] * shape[1], -1)
    return out, design, weight.ravel(), e.ravel()


def dense(matrix):
    n, half = matrix.shape
    out = np.zeros((n, n))
    for p in range(n):
        for k in range(min(half, n - p)):
            out[p, p + k] = out[p + k, p] = matrix[p, k]
    return out


def test_the_basis_is_the_spline_that_fields_are_read_with():
    rng = np.random.default_rng(0)
    nodes = np.repeat(rng.normal(size=(8, 1)), 4, axis=1)
    left, weights = flow.basis(41, -20.0, 10.0, 8)
    coef = spline_coefficients(nodes)
    there = spline_eval(coef, (np.arange(41) + 20.0) / 10.0, np.zeros(41))
    np.testing.assert_allclose(flow.dense_basis(left, weights, 8) @ coef[:, 0], there, atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


def test_normal_matrix_and_score_are_their_definition():
    (hessian, score, _, trace), design, weight, e = random_hessian(np.random.default_rng(1))
    expected = design.T @ (weight[:, None] * design)
    np.testing.assert_allclose(dense(flow.banded(hessian, 2.0)), 2 * expected, atol=1e-9)
    np.testing.assert_allclose(np.moveaxis(score, 0, -1).ravel(), design.T @ (weight * e), atol=1e-9)
    assert trace > 0


def test_cholesky_and_solution_agree_with_lapack():
    (hessian, *_), *_ = random_hessian(np.random.default_rng(2))
    matrix = flow.banded(hessian, 1.0)
    matrix[:, 0] += 0.1
    right = np.random.default_rng(3).normal(size=len(matrix))
    factor = flow.cholesky(matrix)
    np.testing.assert_allclose(flow.solve(factor, right), np.linalg.solve(dense(matrix), right), rtol=1e-9)
    np.testing.assert_allclose(flow.product(matrix, right), dense(matrix) @ right, atol=1e-9)
    draws = flow.posterior_draws(factor, 4000, 0)
    np.testing.assert_allclose(draws.var(axis=0), np.diag(np.linalg.inv(dense(matrix))), rtol=0.2)


@pytest.mark.parametrize("order", [2, 3])
def test_the_prior_costs_nothing_for_polynomials_below_its_order(order):
    prior = dense(flow.banded(flow.bending(*GRID, order), 1.0))
    i, j = np.mgrid[0 : GRID[0], 0 : GRID[1]].astype(float)
    for p in range(order):
        for q in range(order - p):
            x = np.stack([i**p * j**q, 2 * i**p * j**q], -1).ravel()
            assert abs(x @ prior @ x) < 1e-8 * (x @ x)
    x = np.stack([i**order, 0 * i], -1).ravel()
    assert x @ prior @ x > 1
    assert np.linalg.matrix_rank(prior) == 2 * (i.size - order * (order + 1) // 2)


def test_evidence_finds_the_stiffness_that_the_coefficients_were_drawn_with():
    rng = np.random.default_rng(4)
    n_r, n_c = 20, 21
    prior = flow.banded(flow.bending(n_r, n_c, 3), 1.0)
    values, vectors = np.linalg.eigh(dense(prior))
    free = values > 1e-9
    truth = vectors[:, free] @ (0.3 * rng.normal(size=free.sum()) / np.sqrt(values[free]))
    information = np.zeros_like(prior)
    information[:, 0] = 1 / 0.05**2
    target = information[:, 0] * (truth + 0.05 * rng.normal(size=truth.size))
    bends = [0.03, 0.1, 0.3, 1.0, 3.0]
    cost = [flow.evidence(information, prior, target, b, int(free.sum()))[0] for b in bends]
    assert bends[int(np.argmin(cost))] == 0.3


def test_a_curve_tells_what_one_image_leads_us_to_expect():
    rng = np.random.default_rng(5)
    x = rng.uniform(-2, 2, (120, 120)).astype(np.float32)
    y = np.cos(1.5 * x) + 0.5 * rng.normal(size=x.shape)
    both = rng.uniform(size=x.shape) > 0.1
    curve = expectation(x, y, both)
    assert curve[2] == pytest.approx(1 - 0.25 / y.var(), abs=0.03)
    shown = mapped(np.where(both, x, np.nan), curve)
    assert np.isnan(shown[~both]).all()
    assert np.abs(shown - np.cos(1.5 * x))[both & (np.abs(x) < 1.9)].mean() < 0.05
    assert abs(expectation(rng.normal(size=x.shape), y, both)[2]) < 0.01
    assert expectation(x[:10, :10], y[:10, :10], both[:10, :10]) is None
