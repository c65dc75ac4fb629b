import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, check_changes, detect, new_stack
from geoalign.kernels.mean_ratio import FINE, STEP, cut, histogram

TIME = ["2024-01-01", "2024-01-13"]


def pair(db, looks=4, seed=0, shape=(100, 110)):
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, bool)
    truth[30:70, 40:90] = True
    power = 0.05 * rng.gamma(looks, 1 / looks, (2, *shape))
    power[1, truth] *= 10 ** (db / 10)
    return new_stack({"vv": power}, TIME), truth


@pytest.mark.parametrize("name", ["mean_ratio", "pca_kmeans"])
@pytest.mark.parametrize("db", [-6, 6])
def test_a_planted_change_is_found_with_its_sign(name, db):
    stack, truth = pair(db)
    found = check_changes(detect(stack, name), values=True)
    hit = found.status.values == 3
    assert hit[truth].mean() > 0.9
    assert hit[~truth].mean() < 0.05
    assert (found.direction.values[hit & truth] == np.sign(db)).all()
    assert found.probability.values[truth].mean() > 0.8 > 0.2 > found.probability.values[~truth].mean()


@pytest.mark.parametrize("name", ["mean_ratio", "pca_kmeans"])
def test_lazy_is_eager(name, no_compute):
    stack, _ = pair(-6)
    stack.vv[1, 3:9, 5:30] = np.nan
    eager = detect(stack, name)
    with no_compute():
        lazy = detect(stack.chunk({"y": 29, "x": 51}), name)
    xr.testing.assert_identical(lazy.compute(), eager)


@pytest.mark.parametrize("name", ["mean_ratio", "pca_kmeans"])
def test_a_prior_moves_the_probability_and_nothing_else(name):
    stack, _ = pair(-4)
    rare, common = detect(stack, name, prior=0.01), detect(stack, name, prior=0.5)
    assert float(rare.probability.mean()) < float(common.probability.mean())
    xr.testing.assert_equal(rare.status, common.status)


def test_the_ratio_is_that_of_the_smaller_mean_over_the_larger():
    ratio = np.log(np.array([[2.0, 0.5, 1.0, np.nan]]))
    counts = histogram(ratio, np.zeros((1, 4), bool))
    assert counts.sum() == 3
    assert counts[int(np.log(2) / STEP)] == 2  # halved or doubled
    assert counts[0] == 1
    assert np.isinf(cut([np.zeros(FINE)])[0])


def test_mistakes_are_named():
    stack, _ = pair(-4)
    with pytest.raises(ConfigError, match="radius is 0"):
        detect(stack, "mean_ratio", radius=0)
    with pytest.raises(ConfigError, match="side is 4"):
        detect(stack, "pca_kmeans", side=4)
    with pytest.raises(ConfigError, match="components is 30"):
        detect(stack, "pca_kmeans", components=30)
