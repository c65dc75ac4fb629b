import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.log_ratio import LogRatio
from geoalign.types.changes import WHY

TIME = ["2024-01-01", "2024-01-13", "2024-01-25", "2024-02-06"]


def pair(db, looks=4.4, seed=0, shape=(120, 130), n=2):
    """Speckled ground of which a block changes by `db` in the last half of the dates; (stack, truth)."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, bool)
    truth[30:70, 40:100] = True
    power = 0.05 * np.exp(rng.normal(0, 0.2, shape)) * rng.gamma(looks, 1 / looks, (n, *shape))
    power[n // 2 :, truth] *= 10 ** (db / 10)
    return new_stack({"vv": power}, TIME[:n]), truth


def f1(found, truth):
    hit = np.isin(found.status.values, (3, 4))
    return 2 * (hit & truth).sum() / (hit.sum() + truth.sum())


@pytest.mark.parametrize(("db", "looks"), [(-3, 4.4), (-6, 4.4), (5, 4.4), (8, 1), (-3, 20)])
def test_a_planted_change_is_found_with_its_sign(db, looks):
    stack, truth = pair(db, looks)
    found = check_changes(LogRatio().detect(stack), values=True)
    assert f1(found, truth) > 0.93
    hit = found.status.values == 3
    assert (found.direction.values[hit & truth] == np.sign(db)).all()
    assert np.nanmedian(found.magnitude.values[truth]) == pytest.approx(db, abs=0.5)
    assert (found.probability.values[30:70, 40:100] > 0.5).mean() > 0.9


@pytest.mark.parametrize("looks", [1, 4.4, 30])
def test_nothing_is_forced_where_nothing_changed(looks):
    stack, _ = pair(0, looks)
    found = LogRatio().detect(stack)
    assert (found.status == 0).all()
    assert (found.why == WHY["not_detectable"]).all()
    assert (found.probability == 0).all()


def test_longer_stacks_compare_first_and_last_or_the_means_about_since():
    stack, truth = pair(-3, 2.0, n=4)
    ends = LogRatio().detect(stack)
    means = LogRatio(since="2024-01-20").detect(stack)
    assert f1(means, truth) > 0.93
    assert str(ends.date.values[50, 60])[:10] == TIME[3]
    assert str(means.date.values[50, 60])[:10] == TIME[2]
    assert str(means.date_after.values[50, 60])[:10] == TIME[1]
    assert int(means.n_obs[50, 60]) == 4


def test_gaps_are_not_observable_and_dates_are_the_pixels_own():
    stack, _ = pair(-8, n=4)
    stack.vv[2, 40:50, 50:60] = np.nan
    stack.vv[:, 0, 0] = np.nan
    stack.vv[2:, 1, 1] = 0.0
    found = check_changes(LogRatio(since="2024-01-20").detect(stack), values=True)
    assert str(found.date.values[45, 55])[:10] == TIME[3]
    assert (int(found.status[0, 0]), int(found.why[0, 0])) == (255, WHY["no_data"])
    assert (int(found.status[1, 1]), int(found.why[1, 1])) == (255, WHY["too_few"])


def test_zero_is_the_darkest_grey_of_a_quick_look():
    stack, truth = pair(-8, 10)
    grey = new_stack({"intensity": np.clip(np.round(stack.vv.values * 800), 0, 255)}, TIME[:2])
    grey.intensity.values[1, truth] = 0
    found = LogRatio().detect(grey)
    assert (found.status != 255).all()
    assert f1(found, truth) > 0.95


def test_clipped_ground_does_not_set_the_centre():
    stack, truth = pair(-6, 10)
    stack.vv[0, 80:, :] = 0.001
    stack.vv[1, 80:, :] = 0.0017
    assert f1(LogRatio().detect(stack), truth) > 0.93


def test_a_prior_moves_the_probability_and_nothing_else():
    stack, _ = pair(-3)
    rare, common = LogRatio(prior=0.01).detect(stack), LogRatio(prior=0.3).detect(stack)
    assert float(rare.probability.mean()) < float(common.probability.mean())
    xr.testing.assert_equal(rare.status, common.status)


def test_a_residual_shift_at_an_edge_is_no_change():
    rng = np.random.default_rng(4)
    edge = np.where(np.arange(120) % 24 < 12, 0.3, 0.02)
    cols = np.arange(120)
    scenes = [np.interp(cols + s, cols, edge) * rng.gamma(20, 1 / 20, (100, 120)) for s in (0.0, 3.0)]
    stack = new_stack({"vv": np.stack(scenes)}, TIME[:2])
    told = stack.assign_coords(sigma_px=("time", [0.0, 3.0]))
    ignoring, knowing = LogRatio().detect(stack), LogRatio().detect(told)
    assert float((ignoring.status == 3).mean()) > 0.05
    assert (knowing.status == 3).sum() < 0.3 * (ignoring.status == 3).sum()
    assert ((knowing.why & WHY["misregistered"]) > 0).any()


@pytest.mark.parametrize("chunks", [{"time": 1, "y": 37, "x": 130}, {"time": 2, "y": 5, "x": 31}])
def test_lazy_is_eager(chunks, no_compute):
    stack, _ = pair(-4)
    stack.vv[1, 3:9, 5:30] = np.nan
    eager = LogRatio().detect(stack)
    with no_compute():
        lazy = detect(stack.chunk(chunks), "log_ratio")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_mistakes_are_named():
    stack, _ = pair(-4)
    with pytest.raises(ConfigError, match=r"prior is 1\.5"):
        LogRatio(prior=1.5)
    with pytest.raises(StackError, match="leaves 0 scenes before"):
        LogRatio(since="2020-01-01").detect(stack)
    with pytest.raises(StackError, match="2 scenes are needed"):
        LogRatio().detect(stack.isel(time=[0]))
    with pytest.raises(StackError, match="which band is meant"):
        LogRatio().detect(new_stack({"red": stack.vv.values, "nir": stack.vv.values}, TIME[:2]))
