import numpy as np
import pytest
import xarray as xr

from benchmarks.optical_worlds import optical, scores
from geoalign import ConfigError, StackError, check_changes, detect
from geoalign.types.changes import CONFIRMED, ENDED, WHY, changed
from tests.detectors.ground import CANOPY, MUD, PLACES, ground, times


@pytest.mark.parametrize("place", ["crop", "grass"])
def test_a_flood_is_found_with_its_dates(place):
    stack, mask = ground(MUD, place, 40, 46, clouds=0.01)
    found = check_changes(detect(stack, "flood"), values=True)
    hit = changed(found).values
    assert hit[mask].mean() > 0.97
    assert hit[~mask].mean() < 0.002
    assert (found.status.values[hit & mask] == ENDED).mean() > 0.98
    error = np.searchsorted(times(), found.date.values[hit & mask]) - 40
    assert np.median(error) == 0
    assert (error >= 0).all()
    end = np.searchsorted(times(), found.date_end.values[hit & mask]) - 46
    assert np.median(end) == 0
    assert (found.direction.values[hit] == 1).all()
    assert found.probability.values[hit & mask].mean() > 0.95
    assert np.nanmean(found.probability.values[~mask]) < 0.02


def test_a_flood_still_on_is_confirmed_without_an_end():
    stack, mask = ground(MUD, "crop", 56)
    found = detect(stack, "flood")
    assert (found.status.values[mask] == CONFIRMED).mean() > 0.97
    assert np.isnat(found.date_end.values[mask]).all()


def test_permanent_water_is_told_apart():
    stack, _ = ground()
    found = detect(stack, "flood")
    assert not changed(found).any()
    water = found.isel(x=PLACES["water"])
    assert ((water.why & WHY["not_detectable"]) > 0).all()
    assert float(water.probability.max()) == 0


@pytest.mark.parametrize("clouds", [0.0, 0.03])
def test_undetected_clouds_are_no_flood(clouds):
    stack, _ = ground(clouds=clouds, seed=3)
    assert changed(detect(stack, "flood")).mean() < 0.001


def test_cast_shadow_is_no_flood():
    stack, _ = ground(seed=4)
    shadow = stack.copy(deep=True)
    for band, factor in zip(stack.data_vars, (0.58, 0.52, 0.48, 0.38, 0.38, 0.40)):
        shadow[band][40:42, 5:20] *= factor
    assert changed(detect(shadow, "flood")).mean() < 0.005


def test_ndwi_takes_over_without_swir1():
    stack, mask = ground(MUD, "grass", 40, 46)
    found = detect(stack[["green", "nir"]], "flood")
    assert changed(found).values[mask].mean() > 0.9
    assert changed(found).values[~mask].mean() < 0.01


def test_since_starts_the_watch():
    stack, mask = ground(MUD, "crop", 40, 46)
    late = detect(stack, "flood", since=str(times()[50]))
    assert not changed(late).values[~mask].any()
    assert changed(late).values[mask].mean() < 0.02
    assert changed(detect(stack, "flood", until=str(times()[39]))).sum() == 0


def test_small_patches_are_left_out():
    stack, _ = ground(seed=5)
    for band, value in zip(stack.data_vars, MUD):
        stack[band][40:46, 3:6, 30:32] = value
    assert int(changed(detect(stack, "flood", min_area_m2=0)).sum()) == 6
    assert int(changed(detect(stack, "flood", min_area_m2=600)).sum()) == 6
    assert int(changed(detect(stack, "flood", min_area_m2=700)).sum()) == 0


def test_lazy_is_eager_under_odd_chunks():
    stack, _ = ground(MUD, "crop", 40, 46)
    eager = detect(stack, "flood")
    lazy = detect(stack.chunk(time=7, y=11, x=13), "flood")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_false_alarms_under_noise_keep_below_alpha():
    stack, _ = ground(noise=0.03, gaps=0.1, seed=6)
    assert changed(detect(stack, "flood", alpha=0.05, min_area_m2=0)).isel(x=slice(0, 42)).mean() < 0.05


def test_missing_bands_say_what_would_work():
    stack, _ = ground()
    with pytest.raises(StackError, match=r"green and nir.*SAR.*blue"):
        detect(stack[["blue"]], "flood")
    for wrong in ({"alpha": 0}, {"prior": 2}, {"min_area_m2": -1}, {"since": "soon"}, {"history": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            detect(stack, "flood", **wrong)


def test_dark_woods_are_no_water():
    assert CANOPY[3] > 0.2
    stack, _ = ground(seed=7)
    assert not changed(detect(stack, "flood")).isel(x=PLACES["forest"]).any()


@pytest.mark.parametrize("options", [{}, {"water": "lake"}, {"water": "mud water"}, {"length": 12}])
def test_kinds_of_water_under_irregular_dates_and_missed_clouds(options):
    world = optical("flood", seed=1, shape=(72, 72), days=900, step=10, **options)
    found = scores(world, detect(world.stack, "flood"))
    assert found["f1"] > 0.93
    assert found["false"] < 0.002
    assert found["median"] <= 1


def test_missed_clouds_and_shadows_in_heaps_are_no_flood():
    world = optical(None, seed=9, shape=(72, 72), days=900, step=10, missed=0.02, shadow=0.01)
    assert changed(detect(world.stack, "flood")).mean() < 0.001


def test_what_clouds_hid_since_watching_began_says_so():
    stack, _ = ground(MUD, "crop", 40, 46)
    since = times()[38]
    hidden = stack.where((stack.time < since) | (stack.x > stack.x[5]))
    found = check_changes(detect(hidden, "flood", since=str(since)), values=True)
    assert (found.status.values[:, :5] == 255).all()
    assert (found.why.values[:, :5] == WHY["cloud"]).all()
    assert (found.status.values[:, 8:] != 255).mean() > 0.95
