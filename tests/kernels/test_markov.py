import numpy as np
import pytest

from geoalign.kernels.markov import DIAGONAL, WEIGHT, mean_field


def naive(labels, low, high, beta, n_round):
    """The same field, a pixel at a time from the definition."""
    belief = {k: (labels == k).astype(float) for k in (-1, 0, 1)}
    evidence = {-1: low, 0: np.zeros_like(low), 1: high}
    n_row, n_col = labels.shape
    for _ in range(n_round):
        score = {}
        for k, own in belief.items():
            padded = np.pad(own, 1)
            near = sum(
                (1.0 if i == 0 or j == 0 else DIAGONAL) * padded[1 + i : 1 + i + n_row, 1 + j : 1 + j + n_col]
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
                if (i, j) != (0, 0)
            )
            score[k] = evidence[k] + 2 * beta * near / WEIGHT
        total = sum(np.exp(score[k]) for k in score)
        belief = {k: np.where(labels >= -1, np.exp(score[k]) / total, 0) for k in score}
    return belief


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_it_is_the_mean_field_of_the_definition(beta):
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, 2, (17, 23)).astype(np.int8)
    labels[3:6, 4:9] = -2
    low, high = rng.normal(-1, 2, (2, 17, 23))
    out, odds = mean_field(labels, low, high, beta, 5)
    belief = naive(labels, low, high, beta, 5)
    seen = labels >= -1
    expected = np.log((belief[-1] + belief[1])[seen] / belief[0][seen])
    np.testing.assert_allclose(odds[seen], expected, atol=1e-4)
    assert (out[~seen] == -2).all()
    changed = out[seen] != 0
    assert (changed == (expected > 0)).all()
    assert (out[seen][changed] == np.where(belief[1] > belief[-1], 1, -1)[seen][changed]).all()


def test_no_prior_leaves_each_pixel_to_itself():
    low, high = np.full((3, 3), -5.0), np.array([[1.0, -1.0, 1.0]] * 3)
    out, odds = mean_field(np.zeros((3, 3), np.int8), low, high, 0.0, 4)
    assert out.tolist() == [[1, 0, 1]] * 3
    assert odds[0, 0] == pytest.approx(np.log(np.exp(1.0) + np.exp(-5.0)), abs=1e-6)


def test_lone_pixels_go_and_holes_close():
    high = np.full((20, 20), -1.5)
    high[5:15, 5:15] = 1.5
    high[2, 17], high[10, 10] = 3.0, -3.0
    out, _ = mean_field((high > 0).astype(np.int8), np.full_like(high, -50.0), high, 3.0, 10)
    assert out[2, 17] == 0
    assert out[10, 10] == 1
    assert (out[6:14, 6:14] == 1).all()
    assert out.sum() >= 96  # only the corners may go


def test_what_lies_farther_than_the_rounds_does_not_matter():
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 2, (40, 40)).astype(np.int8)
    low, high = rng.normal(0, 2, (2, 40, 40))
    whole = mean_field(labels, low, high, 3.0, 6)
    part = mean_field(labels[4:30, 5:31].copy(), low[4:30, 5:31].copy(), high[4:30, 5:31].copy(), 3.0, 6)
    for a, b in zip(whole, part):
        np.testing.assert_array_equal(a[10:24, 11:25], b[6:20, 6:20])
