"""A network of affine warps is solved: what was planted comes back, wrong pairs do not pull."""

import numpy as np
import pytest

from geoalign.kernels.adjust import _residual, adjust, matrix_of, onto, params_of, simplest

SIZE = 100.0


def planted(n, rng, *, noise=0.02):
    """Warps of n images, all pairs of those near each other, measured with errors of `noise` px."""
    truth = rng.normal(0, 1.0, (n, 6))
    truth[0] = 0
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if i == 0 or j - i <= 2]
    value = [
        params_of(matrix_of(truth[j], SIZE) @ np.linalg.inv(matrix_of(truth[i], SIZE)), SIZE)
        + noise * rng.normal(size=6)
        for i, j in pairs
    ]
    info = np.broadcast_to(np.eye(6) / noise**2, (len(pairs), 6, 6))
    return truth, np.array(pairs).T, np.array(value), info


def test_planted_warps_come_back_within_their_error():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(20):
        truth, (i, j), value, info = planted(8, rng)
        found = adjust(i, j, value, info, np.zeros((8, 6)), [None] + ["affine"] * 7, SIZE)
        sd = np.sqrt(np.diagonal(found["covariance"][1:], axis1=1, axis2=2))
        z.append((found["params"] - truth)[1:] / sd)
    assert 0.85 < np.std(z) < 1.15
    np.testing.assert_array_equal(found["params"][0], 0)


def test_wrong_pairs_do_not_pull_even_from_a_wrong_start():
    rng = np.random.default_rng(1)
    truth, (i, j), value, info = planted(10, rng)
    wrong = [2, 9, 14]
    value[wrong] += rng.normal(0, 3.0, (3, 6))
    start = truth + rng.normal(0, 2.0, truth.shape)
    start[0] = 0
    found = adjust(i, j, value, info, start, [None] + ["affine"] * 9, SIZE)
    assert np.abs(found["params"] - truth).max() < 0.1
    assert (found["weight"][wrong] < 0.1).all()
    assert np.delete(found["weight"], wrong).min() > 0.3


def test_a_pair_is_asked_nothing_about_what_it_does_not_know():
    truth = np.zeros((3, 6))
    truth[1:, 2] = 1.0, 3.0
    truth[1:, 0] = 0.5
    info = np.stack([np.eye(6), np.diag([0, 0, 1.0, 0, 0, 1.0]), np.eye(6)]) * 1e4
    value = np.array([truth[1], [7.0, 7, 2.0, 7, 7, 0], truth[2]])
    found = adjust([0, 1, 0], [1, 2, 2], value, info, np.zeros((3, 6)), [None, "affine", "affine"], SIZE)
    np.testing.assert_allclose(found["params"], truth, atol=0.02)


def test_the_derivatives_are_those_of_the_residual():
    rng = np.random.default_rng(2)
    one, other, value = rng.normal(size=(3, 6))
    _, by_one, by_other = _residual(value, one, other, SIZE)
    h = 1e-5
    for k, step in enumerate(np.eye(6) * h):
        for jac, plus, minus in (
            (by_one, (one + step, other), (one - step, other)),
            (by_other, (one, other + step), (one, other - step)),
        ):
            change = _residual(value, *minus, SIZE)[0] - _residual(value, *plus, SIZE)[0]
            np.testing.assert_allclose(jac[:, k], change / (2 * h), atol=1e-5)


@pytest.mark.parametrize("model", ["shift", "rigid", "similarity"])
def test_warps_keep_the_model_asked_for(model):
    rng = np.random.default_rng(3)
    truth, (i, j), value, info = planted(6, rng)
    found = adjust(i, j, value, info, np.zeros((6, 6)), [None] + [model] * 5, SIZE)["params"]
    np.testing.assert_allclose([onto(model, p, SIZE) for p in found], found, atol=1e-9)
    m = matrix_of(found[1], SIZE)[:2, :2]
    if model == "rigid":
        np.testing.assert_allclose(m @ m.T, np.eye(2), atol=1e-9)


def test_the_simplest_model_that_is_not_rejected():
    covariance = np.eye(6) * 0.01
    assert simplest(np.array([0.1, 0, 5.0, 0, 0.1, -3.0]), covariance) == "shift"
    assert simplest(np.array([2.0, -1.0, 5.0, 1.0, 2.0, -3.0]), covariance) == "similarity"
    assert simplest(np.array([2.0, 1.0, 5.0, 1.0, -2.0, -3.0]), covariance) == "affine"
