import numpy as np
import pytest
from scipy.stats import chi2, kstest

from geoalign.kernels.cva import change_vectors
from geoalign.kernels.irmad import major_axis, noise_by_level, normalisation, reweighted, sample

GAIN, OFFSET = np.array([1.4, 0.6, 0.9]), np.array([0.02, -0.01, 0.05])


def scenes(seed=0, n=8000, share=0.1, noise=0.004):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(3, 3))
    x = rng.normal(size=(n, 3)) @ mix * 0.05 + 0.3
    y = x.copy()
    changed = np.arange(n) < share * n
    y[changed] += rng.normal(0, 0.15, (changed.sum(), 3))
    return x + rng.normal(0, noise, x.shape), y * GAIN + OFFSET + rng.normal(0, noise, x.shape), changed


def test_the_statistic_is_chi2_where_nothing_changed():
    x, y, _ = scenes(share=0.0)
    squares = reweighted(x, y)[0]
    assert kstest(squares, chi2(3).cdf).statistic < 0.03


def test_linear_radiometry_has_no_effect():
    x, y, _ = scenes()
    one = reweighted(x, y)[0]
    other = reweighted(3 * x - 1, y @ np.array([[2.0, 0.1, 0], [0, 0.5, 0.2], [0.1, 0, 5.0]]) + 7)[0]
    np.testing.assert_allclose(other, one, rtol=1e-3)


def test_planted_change_is_far_and_weights_leave_it_out():
    x, y, changed = scenes()
    squares, *_, weight, _ = reweighted(x, y)
    assert np.median(squares[changed]) > 20 * np.median(squares[~changed])
    assert weight[changed].mean() < 0.15 < 0.4 < weight[~changed].mean()


def test_variates_are_those_of_a_plain_canonical_correlation_where_nothing_changed():
    x, y, _ = scenes(share=0.0, noise=0.03)
    rho = reweighted(x, y)[1]
    u, v = (np.linalg.svd(k - k.mean(0), full_matrices=False)[0] for k in (x, y))
    plain = np.linalg.svd(u.T @ v)[1]
    # the middle of a normal cloud is better correlated than the whole of it, in the same order
    assert (rho >= plain - 0.02).all()
    assert (np.diff(rho) <= 1e-9).all()


def test_normalisation_undoes_the_planted_radiometry_despite_change():
    x, y, _ = scenes(share=0.2)
    found = normalisation([np.concatenate([x, y, x, y], 1)], n_band=3)
    np.testing.assert_allclose(found[:3], 1 / GAIN, rtol=0.02)
    np.testing.assert_allclose(found[3:], -OFFSET / GAIN, atol=0.01)
    assert np.isnan(normalisation([np.zeros((10, 12))], n_band=3)).all()


def test_major_axis_of_exact_lines_is_exact():
    x = np.random.default_rng(0).normal(size=(100, 2))
    slope, level = major_axis(x, (x - [1.0, 2.0]) / [3.0, 0.5], np.ones(100))
    np.testing.assert_allclose(slope, [3.0, 0.5])
    np.testing.assert_allclose(level, [1.0, 2.0], atol=1e-12)


def test_change_vectors_find_the_radiometry_and_the_change():
    x, y, changed = scenes()
    squares, dof, slope, level, _ = change_vectors(x, y)
    np.testing.assert_allclose(slope, 1 / GAIN, rtol=0.02)
    np.testing.assert_allclose(level, -OFFSET / GAIN, atol=0.01)
    assert 2 < dof <= 3.0001
    assert np.median(squares[changed]) > 20 * np.median(squares[~changed])


def test_noise_by_level_follows_a_planted_ratio_and_ignores_small_ones():
    rng = np.random.default_rng(0)
    at = rng.uniform(0, 1, 20_000)
    steps = np.abs(rng.normal(0, 1, at.size)) * np.where(at > 0.8, 3.0, 1.0)
    bins, noise = noise_by_level(at, steps)
    assert (np.diff(bins) > 0).all()
    assert noise[2] == 1
    assert noise[-1] == pytest.approx(3 / 1.25, rel=0.1)
    assert (noise_by_level(at, np.full(at.size, np.nan))[1] == 1).all()


def test_a_sample_keeps_complete_pixels_and_their_neighbours():
    before = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    before[0, 2, 3] = np.nan
    got = sample(before, before + 100, step=2)
    assert got.shape == (6, 8)
    np.testing.assert_array_equal(got[0], [0, 20, 100, 120, 1, 21, 101, 121])
    assert np.isnan(got[2, 4:]).all()
    assert np.isnan(got[4, 4:]).all()


def test_it_settles_alike_whichever_part_of_a_scene_is_seen():
    """Nearly half of the ground are crops that grew from one date to the next, unevenly."""
    rng = np.random.default_rng(4)
    n = 30_000
    ground = rng.normal(0.2, 0.05, (n, 3)) @ np.array([[1, 0.6, 0.1], [0, 0.8, -0.4], [0, 0, 0.7]])
    after = ground + rng.normal(0, 0.004, ground.shape)
    crops = rng.random(n) < 0.45
    after[crops] += rng.gamma(2.0, 0.05, (crops.sum(), 1)) * np.array([-0.5, 1.0, 0.3])
    rho = [reweighted(ground[k], after[k])[1] for k in (slice(None), slice(0, 9_000), slice(20_000, None))]
    np.testing.assert_allclose(rho[1], rho[0], atol=0.01)
    np.testing.assert_allclose(rho[2], rho[0], atol=0.01)
