import numpy as np
import pytest
import xarray as xr

from benchmarks.series_worlds import BANDS, null, optical, reliability, score_changes, wandering
from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.types.changes import WHY, changed


@pytest.fixture(scope="module")
def world():
    return optical(640, seed=21)


@pytest.fixture(scope="module")
def found(world):
    return detect(world.stack(), "breaks")


def test_losses_of_cover_are_found_and_dated(world, found):
    check_changes(found, values=True)
    scores = score_changes(world, found)
    assert scores["f1"] > 0.97
    assert scores["false"] <= 0.005
    assert scores["recall_15"] > 0.9
    assert scores["median_days"] <= 14
    assert scores["exact"] > 0.82
    assert scores["inside"] > 0.9
    assert scores["width_days"] <= 48


def test_probability_is_the_share_that_changed(world, found):
    p = found.probability.values.reshape(-1)[: world.loss.size]
    assert reliability(world.changed, p, found.attrs["prior"]) < 0.03


def test_sizes_and_directions_are_those_planted(world, found):
    hit = changed(found).values.reshape(-1)[: world.loss.size] & world.changed
    size = found.magnitude.values.reshape(-1)[: world.loss.size]
    assert (size[hit] < 0).mean() > 0.99
    assert (found.direction.values.reshape(-1)[: world.loss.size][hit] == np.sign(size[hit])).all()
    # NDVI at full and at lost cover, from the mixture itself
    for loss, drop in ((0.25, -0.115), (0.85, -0.395)):
        assert np.median(size[hit & (world.loss == loss)]) == pytest.approx(drop, abs=0.03)


def test_bands_together_date_better_than_their_index():
    few = optical(256, seed=22)
    together = score_changes(few, detect(few.stack(BANDS), "breaks"))
    alone = score_changes(few, detect(few.stack(BANDS), "breaks", index="ndvi"))
    assert together["recall"] >= alone["recall"] > 0.97
    assert together["exact"] > max(alone["exact"], 0.9)


def test_autocorrelated_noise_is_no_change():
    stable = null(1500, seed=23, ar=0.3, missed=0.01)
    assert float(changed(detect(stable.stack(), "breaks", alpha=0.01)).sum()) / 1500 < 0.02


@pytest.mark.parametrize("bands", [("ndvi",), BANDS])
def test_seasons_that_come_early_or_late_are_no_change(bands):
    """Twelve years of a scene every five days, spring some two weeks off from year to year; cleared ground is seen."""
    stable = wandering(150, seed=25)
    assert float(changed(detect(stable.stack(bands), "breaks")).sum()) / 150 <= 0.04
    cleared = wandering(60, seed=26, loss=0.4)
    assert score_changes(cleared, detect(cleared.stack(bands), "breaks"))["recall"] > 0.95


def test_what_is_on_its_way_has_changed():
    """Burnt woods are not bare at once: the date is that of the first observation that is rather bare than woods."""
    rng = np.random.default_rng(27)
    time = np.arange("2014-01-01", "2024-01-01", 16, "datetime64[D]")
    course = np.where(np.arange(time.size) < 120, 0.7, 0.3)
    course[120:123] = 0.42
    stack = new_stack({"ndvi": course[:, None, None] + rng.normal(0, 0.02, (time.size, 4, 10))}, time)
    found = detect(stack, "breaks")
    assert (found.date.values == time[120]).mean() > 0.9
    assert (found.date_by.values >= time[120]).all()


def test_all_breaks_of_a_pixel_are_listed():
    rng = np.random.default_rng(24)
    time = np.datetime64("2005-01-01") + np.arange(300) * 16
    ndvi = rng.normal(0.7, 0.02, (300, 1, 2))
    ndvi[100:, 0, 0] -= 0.3
    ndvi[200:, 0, 0] += 0.2
    result = detect(new_stack({"ndvi": ndvi}, time), "breaks")
    assert list(result.n_changes.values[0]) == [2, 0]
    assert list(result.break_date.values[:2, 0, 0].astype("datetime64[D]")) == [time[100], time[200]]
    np.testing.assert_allclose(result.break_magnitude.values[:2, 0, 0], [-0.3, 0.2], atol=0.02)
    assert np.isnat(result.break_date.values[:, 0, 1]).all()
    assert result.date.values[0, 0] in (time[100], time[200])
    later = detect(new_stack({"ndvi": ndvi}, time), "breaks", since=str(time[150]))
    assert int(later.n_changes[0, 0]) == 1
    assert later.date.values[0, 0] == time[200]
    assert later.direction.values[0, 0] == 1
    before = detect(new_stack({"ndvi": ndvi}, time), "breaks", until=str(time[150]))
    assert before.date.values[0, 0] == time[100]
    assert int(before.n_obs[0, 0]) == 151


def test_short_series_and_gaps_of_years():
    rng = np.random.default_rng(25)
    day = np.concatenate([np.arange(0, 700, 12), np.arange(2200, 2900, 12)])
    ndvi = rng.normal(0.6, 0.03, (day.size, 20, 20))
    ndvi[day > 2500] -= 0.2
    ndvi[:, 10:] = rng.normal(0.6, 0.03, (day.size, 10, 20))
    result = check_changes(detect(new_stack({"ndvi": ndvi}, np.datetime64("2015-01-01") + day), "breaks"), values=True)
    assert changed(result).values[:10].mean() > 0.97
    assert changed(result).values[10:].mean() < 0.02


def test_too_few_observations_say_so():
    ndvi = np.full((30, 1, 2), 0.5)
    ndvi[11:, 0, 0] = np.nan
    ndvi[:, 0, 1] = np.nan
    result = detect(new_stack({"ndvi": ndvi}, np.datetime64("2020-01-01") + np.arange(30) * 10), "breaks")
    assert list(result.status.values[0]) == [255, 255]
    assert list(result.why.values[0]) == [WHY["too_few"], WHY["no_data"]]


def test_chunks_do_not_change_a_bit(world, found):
    lazy = detect(world.stack().chunk(time=50, y=3, x=17), "breaks")
    xr.testing.assert_identical(lazy.compute(), found)


def test_input_that_makes_no_sense_is_refused():
    time = np.datetime64("2020-01-01") + np.arange(30) * 10
    with pytest.raises(StackError, match="omnibus"):
        detect(new_stack({"vv": np.ones((30, 2, 2)), "vh": np.ones((30, 2, 2))}, time), "breaks")
    with pytest.raises(StackError, match="which series"):
        detect(new_stack({"one": np.ones((30, 2, 2)), "two": np.ones((30, 2, 2))}, time), "breaks")
    with pytest.raises(ConfigError, match="max_breaks"):
        detect(new_stack({"ndvi": np.ones((30, 2, 2))}, time), "breaks", max_breaks=0)


def test_the_largest_break_is_found_before_a_restless_end():
    """More breaks than are followed up: the surest of them are, wherever they lie."""
    time = np.arange("1990-01-01", "2020-01-01", 8, "datetime64[D]")
    ndvi = np.random.default_rng(3).normal(0.6, 0.02, (time.size, 1, 1))
    ndvi[200:] -= 0.4
    for k in range(24):
        ndvi[500 + 30 * k : 530 + 30 * k] += 0.15 if k % 2 else 0.0
    found = detect(new_stack({"ndvi": ndvi}, time), "breaks")
    assert found.date.values[0, 0].astype("datetime64[D]") == time[200]


def test_the_last_six_of_thirty_observations_are_a_change():
    """To a robust fit of all they are outliers, however far off; one cloud before is none of it."""
    rng = np.random.default_rng(31)
    time = np.datetime64("2014-08-16") + np.sort(rng.choice(np.arange(0, 640, 8), (30), replace=False))
    values = 0.84 + rng.normal(0, 0.02, (30, 6, 10))
    values[24:] -= 0.45
    values[14] = 0.44
    found = detect(new_stack({"ndvi": values}, time), "breaks")
    assert changed(found).mean() > 0.9
    assert (found.date.values[changed(found).values] == time[24]).mean() > 0.9
