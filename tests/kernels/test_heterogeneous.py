import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from geoalign.kernels.heterogeneous import broken, judged, k_means, kind_counts, kind_shares, kinds, learn, otsu


def test_otsu_parts_two_heaps():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 900), rng.normal(10, 1, 300)])
    assert 2 < otsu(values) < 8


def twin(before, after, k, rounds=6):
    """`broken`, a sample at a time."""
    say = np.ones(len(before))
    for _ in range(rounds):
        score = np.zeros(len(before))
        for own, other in ((before, after), (after, before)):
            surprise = []
            for i in range(len(own)):
                near = np.argsort(((own - own[i]) ** 2).sum(axis=1), kind="stable")[:k]
                weight = say[near] + 1e-4
                mean = np.average(other[near], axis=0, weights=weight)
                variance = np.average((other[near] - mean) ** 2, axis=0, weights=weight)
                surprise.append(np.sqrt(((other[i] - mean) ** 2 / (variance + 0.1)).mean()))
            score += np.array(surprise) / np.median(surprise)
        threshold = otsu(score)
        say = 1 / (1 + np.exp((score - threshold) / (0.1 * threshold)))
    return score, threshold


def test_samples_that_break_the_relation_surprise():
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 4, 400)
    other = kind.copy()
    other[:30] = (kind[:30] + 2) % 4
    before = np.array([-2.0, -0.5, 0.8, 2.2])[kind][:, None] + rng.normal(0, 0.1, (400, 1))
    after = np.array([[1.0, 0.0], [-1, 2], [0, -2], [2, 2]])[other] + rng.normal(0, 0.1, (400, 2))
    score, threshold = broken(before, after)
    assert (score[:30] > threshold).mean() > 0.9
    assert (score[30:] > threshold).mean() < 0.02
    expected, cut = twin(before, after, 50)
    np.testing.assert_allclose(score, expected, rtol=1e-5)
    assert threshold == pytest.approx(max(cut, 5.0))


def test_a_date_without_values_teaches_nothing():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(4, 100))
    values[[1, 3]] = np.nan  # the second date, coarse and fine
    out = learn([values], 1, 4, 0)
    assert (out[2:4] == 0).all()
    assert np.isinf(out[4:12]).all()


def test_shares_are_counted_by_kind():
    kind = np.array([[0, 0, 1], [1, -1, -2]], np.int16)
    labels = np.array([[1, 0, 1], [1, -2, 0]], np.int8)
    shares = kind_shares([kind_counts(kind, labels, 3)])
    assert shares.tolist() == [0.5, 1.0, 0.0, 0.75]


@pytest.mark.parametrize("n_plane", [2, 7])
def test_k_means_agree_with_another_implementation(n_plane):
    rng = np.random.default_rng(3)
    points = rng.normal(size=(8, n_plane))[rng.integers(0, 8, 500)] * 3 + rng.normal(0, 0.3, (500, n_plane))
    centres, kind = k_means(points, 10, 5)
    expected, named = kmeans2(points, 10, minit="++", seed=5, iter=30)
    np.testing.assert_allclose(centres, expected)
    np.testing.assert_array_equal(kind, named)


def test_a_mixture_of_unchanged_sides_is_an_edge():
    ramp = np.clip((np.arange(40) - 16) / 8, 0, 1)
    view = np.zeros((2, 2, 20, 40), np.float32)
    view[:, 0], view[:, 1] = ramp, 1 - ramp
    view[:, 1, :, 30] = 3.0
    learnt = np.concatenate([[0, 0], [1, 1], [0, 1, 0.5, 0.5, 1, 0, 1, 3], [0, 1, 0, 1], [0, 0, 0, 0]]).astype(float)
    kind, shrink, mixed = kinds(view, np.zeros((2, 20, 40)), learnt, 1, 4)
    assert kind[10, [5, 20, 25, 30]].tolist() == [0, 1, 2, 3]
    assert mixed[10, 20] & 1
    assert not mixed[10, 30] & 1
    shares = np.array([0.0, 1.0, 0.0, 1.0, 0.1])
    first = (shares[kind] > 0.5).astype(np.int8)
    labels, _, _ = judged(kind, shrink, mixed, first, first, shares, 0.5, 3)
    assert labels[10, 20] == 0
    assert labels[10, 30] == 1
