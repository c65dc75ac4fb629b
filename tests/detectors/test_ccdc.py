"""CCDC and COLD on planted breaks: how many, when, which way; what is screened; what is not looked at."""

import numpy as np
import pytest

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.types.changes import WHY, changed

VEGETATION = {"blue": 0.03, "green": 0.06, "red": 0.04, "nir": 0.32, "swir1": 0.15, "swir2": 0.07}
SOIL = {"blue": 0.09, "green": 0.13, "red": 0.17, "nir": 0.24, "swir1": 0.30, "swir2": 0.24}
NAMES = ("ccdc", "cold")


def optical(breaks=(), *, n=230, shape=(3, 4), noise=0.008, gaps=0.3, missed=0.01, seed=0, step_days=16):
    """Six bands; `breaks`: (scene, share of soil from there on)."""
    rng = np.random.default_rng(seed)
    days = np.arange(n) * step_days + rng.integers(-3, 4, n)
    time = np.datetime64("2008-03-05T10:00") + days * np.timedelta64(1, "D")
    soil = np.full(n, 0.25)
    for scene, share in breaks:
        soil[scene:] = share
    soil = soil + 0.1 * np.cos(2 * np.pi * days / 365.25)
    cloud, haze = rng.random((n, *shape)) < gaps, rng.random((n, *shape)) < missed
    bands = {}
    for name in VEGETATION:
        mean = (VEGETATION[name] * (1 - soil) + SOIL[name] * soil)[:, None, None] * np.ones(shape)
        values = np.where(haze, 0.6 * mean + 0.18, mean) + rng.normal(0, noise, mean.shape)
        bands[name] = np.where(cloud, np.nan, values)
    return new_stack(bands, time)


@pytest.mark.parametrize("name", NAMES)
def test_breaks_are_counted_dated_and_directed(name):
    stack = optical([(80, 0.8), (160, 0.2)])
    found = check_changes(detect(stack, name), values=True)
    assert (found.n_changes.values == 2).mean() > 0.9
    for k, scene in enumerate((80, 160)):
        seen = np.isfinite(stack.nir.values)
        first = np.array([[np.flatnonzero(seen[scene:, r, c])[0] + scene for c in range(4)] for r in range(3)])
        late = np.searchsorted(stack.time.values, found.break_date.values[k]) - first
        assert np.median(np.abs(late)) == 0
        assert (np.abs(late) <= 2).mean() > 0.9
    assert (found.break_magnitude.values[0] < 0).mean() > 0.9
    assert (found.break_magnitude.values[1] > 0).mean() > 0.9
    assert (found.break_probability.values[:2] > 0.9).mean() > 0.9
    assert np.isnan(found.break_magnitude.values[2:]).mean() > 0.9
    inside = (found.date_after.values < stack.time.values[160]) | (found.date_after.values < stack.time.values[80])
    assert inside.all()


@pytest.mark.parametrize("name", NAMES)
def test_stable_pixels_stay_unflagged_and_improbable(name):
    found = detect(optical(shape=(8, 8), seed=3), name)
    assert not changed(found).any()
    assert float(found.probability.mean()) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_one_index_alone_is_enough(name):
    stack = optical([(100, 0.9)])
    ndvi = (stack.nir - stack.red) / (stack.nir + stack.red)
    alone = new_stack({"ndvi": ndvi.values}, stack.time.values)
    found = check_changes(detect(alone, name), values=True)
    assert changed(found).mean() > 0.9
    assert (found.magnitude.values[changed(found).values] < 0).all()
    by_name = detect(stack, name, index="ndvi")
    np.testing.assert_array_equal(by_name.date.values, found.date.values)


@pytest.mark.parametrize("name", NAMES)
def test_since_and_until_bound_what_is_asked(name):
    stack = optical([(80, 0.8), (160, 0.2)])
    late = detect(stack, name, since=str(stack.time.values[120])[:10])
    assert (late.n_changes.values == 1).mean() > 0.9
    early = detect(stack, name, until=str(stack.time.values[120])[:10])
    assert (early.n_changes.values == 1).mean() > 0.9
    assert (np.searchsorted(stack.time.values, early.date.values[changed(early).values]) < 120).all()


@pytest.mark.parametrize("name", NAMES)
def test_lone_clouds_and_values_that_no_surface_has_are_left_out(name):
    stack = optical(missed=0.05, seed=5)
    stack = stack.map(lambda b: b.where(np.arange(b.sizes["time"])[:, None, None] % 17 > 0, 2.0))
    found = detect(stack, name)
    assert not changed(found).any()
    assert int(found.n_obs.max()) < 230 * 16 / 17


@pytest.mark.parametrize("name", NAMES)
def test_snow_is_no_change_and_lasting_snow_is_not_looked_at(name):
    stack = optical(shape=(2, 2))
    month = stack.time.dt.month
    winter = (month <= 2) | (month == 12)
    white = {"blue": 0.8, "green": 0.8, "red": 0.78, "nir": 0.7, "swir1": 0.1, "swir2": 0.08}
    snowy = stack.map(lambda b: b.where(~winter | b.isnull(), white[b.name]), keep_attrs=True)
    found = detect(snowy, name)
    assert not changed(found).any()
    always = stack.map(lambda b: b.where(month == 8, white[b.name] + 0 * b.fillna(0)), keep_attrs=True)
    lasting = check_changes(detect(always, name), values=True)
    assert (lasting.status == 255).all()
    assert (lasting.why == WHY["not_detectable"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_too_few_observations_say_so(name):
    stack = optical(gaps=0.93, shape=(4, 4))
    found = check_changes(detect(stack, name), values=True)
    few = found.n_obs.values < 24
    assert few.any()
    assert (found.status.values[few] == 255).all()
    assert (found.why.values[few] == WHY["too_few"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_irregular_and_sparse_series_work(name):
    """Nothing assumes a whole number of observations a year."""
    stack = optical([(60, 0.9)], n=120, step_days=29, gaps=0.2)
    found = detect(stack, name)
    assert changed(found).mean() > 0.9
    late = np.searchsorted(stack.time.values, found.date.values[changed(found).values]) - 60
    assert np.median(late) <= 1


def test_backscatter_is_followed_only_where_asked():
    power = np.random.default_rng(0).gamma(8, 0.01, (120, 2, 2))
    power[70:] *= 6
    stack = new_stack({"vv": power, "vh": power / 4}, np.datetime64("2016-01-01") + np.arange(120) * 12)
    with pytest.raises(StackError, match="index='vh'"):
        detect(stack, "cold")
    found = detect(stack, "cold", index="vh")
    assert changed(found).all()
    assert found.magnitude.attrs["units"] == "dB"


def test_bad_options_are_refused():
    for option in ({"threshold": 1.2}, {"prior": 0}, {"since": "soon"}, {"max_breaks": 0}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            detect(optical(n=30), "ccdc", **option)


@pytest.mark.parametrize("name", [*NAMES, "sccd"])
def test_a_large_break_is_sure_beside_a_young_model_too(name):
    """Of six vectors cut at the threshold, two years of history would leave it at one in a hundred."""
    stack = optical([(60, 0.9)], gaps=0.5, noise=0.012, seed=2)
    found = detect(stack, name)
    assert changed(found).mean() > 0.8
    assert (found.probability.values[changed(found).values] > 0.9).all()


@pytest.mark.parametrize("since", [2014, 2014.5, (2014, 1), "soon"])
def test_since_is_a_date(since):
    with pytest.raises(ConfigError, match="since is"):
        detect(optical(n=40), "ccdc", since=since)
