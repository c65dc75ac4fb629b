"""The series that benchmarks and tests share: what is planted is there, and the scores count by the rules."""

import numpy as np

from benchmarks.series_worlds import dates, first_clear, noise, null, optical, reliability, score


def test_the_stack_is_the_one_described():
    time = dates()
    assert time.size == 456
    assert (np.diff(time).astype(int) > 0).all()
    world = optical(400, seed=1)
    assert world.bands.shape == (6, 400, 456)
    assert abs(np.isnan(world.ndvi).mean() - 0.3) < 0.01
    assert abs(world.changed.mean() - 0.3) < 0.07
    assert set(np.unique(world.loss)) <= {0, 0.15, 0.25, 0.40, 0.60, 0.85}
    # a loss of 85 % of the cover is plain to see
    gone = np.flatnonzero(world.loss == 0.85)
    after = world.time[None] >= world.change[gone, None]
    drop = np.nanmean(np.where(after, world.ndvi[gone], np.nan)) - np.nanmean(np.where(after, np.nan, world.ndvi[gone]))
    assert drop < -0.25


def test_null_stacks_are_stable_and_autocorrelated_as_asked():
    world = null(200, seed=2, ar=0.3, cloudy=0.0)
    assert not world.changed.any()
    e = noise(np.random.default_rng(0), (50, 400), 2.0, 0.3)
    assert abs(e.std() - 2) < 0.05
    assert abs((e[:, 1:] * e[:, :-1]).mean() / e.var() - 0.3) < 0.02


def test_scores_count_by_the_rules():
    world = optical(300, seed=3)
    truth = first_clear(world)
    perfect = score(world, truth, truth - 40, truth)
    assert perfect["f1"] == 1
    assert perfect["false"] == 0
    assert perfect["exact"] == 1
    late = score(world, truth + 400)
    assert late["recall"] == 0
    assert late["precision"] == 0
    everywhere = np.where(np.isnat(truth), world.time[200], truth)
    assert score(world, everywhere)["false"] == 1
    twice = score(world, truth, every=np.stack([truth, truth - 1000]))
    assert twice["precision"] == 0.5
    assert twice["recall"] == 1


def test_reliability_of_an_honest_forecast_is_small():
    rng = np.random.default_rng(0)
    p = rng.random(20000)
    changed = rng.random(20000) < p
    assert reliability(changed, p, changed.mean()) < 0.02
    assert reliability(changed, np.sqrt(p), changed.mean()) > 0.1
