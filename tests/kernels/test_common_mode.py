import numpy as np
import pytest

from geoalign.kernels.common_mode import common_factor, divide, one_level, ratio_histogram


def level(series, orbit, block):
    return one_level(np.asarray(series, float), orbit, block, int(orbit.max()) + 1, int(block.max()) + 1)


def naive_level(logs, orbit, block):
    """Least squares on dummies of orbits and blocks."""
    x = np.concatenate([np.eye(block.max() + 1)[block], np.eye(orbit.max() + 1)[orbit][:, 1:]], axis=1)
    seen = np.isfinite(logs)
    beta = np.linalg.lstsq(x[seen], logs[seen], rcond=None)[0]
    own = np.append(0.0, beta[block.max() + 1 :])[orbit]
    return logs - own + own[seen].mean()


def test_levels_of_orbits_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    orbit, block = np.arange(24) % 3, np.arange(24) // 12
    logs = rng.normal(0, 0.5, (5, 24)) + np.array([0.0, 1.0, -0.5])[orbit]
    logs[rng.random(logs.shape) < 0.2] = np.nan
    want = np.stack([naive_level(row, orbit, block) for row in logs])
    np.testing.assert_allclose(np.log(level(np.exp(logs), orbit, block)), want, atol=1e-4)


def test_a_step_stays_whole_where_orbits_saw_unequal_parts_of_it():
    n = 40
    orbit = np.where(np.arange(n) < 20, np.arange(n) % 2, np.arange(n) % 4 == 0).astype(np.int64)
    series = np.where(np.arange(n) < 20, 1.0, 0.5) * np.where(orbit == 1, 3.0, 1.0)
    out = level(series[None], orbit, np.arange(n) // 4)[0]
    assert np.log(out[20:].mean() / out[:20].mean()) == pytest.approx(np.log(0.5), abs=0.02)
    assert out[:20].std() < 0.02 * out[:20].mean()


def scene(n=6, side=40, seed=0):
    return np.random.default_rng(seed).gamma(4.4, 1 / 4.4, (1, n, side, side)) * np.exp(
        np.random.default_rng(1).normal(size=(side, side))
    )


def test_the_factor_of_a_scene_is_found_whatever_a_third_of_it_does():
    series = scene(side=80)
    series[:, 3] *= 10**0.2
    series[:, 4:, :28] *= 10**-0.5
    factor = common_factor([ratio_histogram(series, 2)])
    assert factor[3] - factor[:3].mean() == pytest.approx(0.2 * np.log(10), abs=0.05)
    assert factor[4:].mean() - factor[:3].mean() == pytest.approx(0, abs=0.1)


def test_parts_of_an_image_speak_together():
    series = scene()
    parts = [ratio_histogram(np.ascontiguousarray(series[..., :20]), 2), np.zeros((1, 6, 800))]
    np.testing.assert_array_equal(common_factor(parts), common_factor(parts[:1]))


def test_too_few_pixels_say_nothing():
    assert (common_factor([ratio_histogram(scene(side=9), 2)]) == 0).all()


def test_dividing_keeps_gaps():
    out = divide(np.array([[1.0, np.nan, 4.0]]), np.log([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(out, [[1.0, np.nan, 1.0]])
