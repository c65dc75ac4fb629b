import numpy as np
import pytest
import xarray as xr

from benchmarks.optical_worlds import optical
from geoalign import StackError, check_changes, detect
from geoalign.types.changes import changed
from tests.detectors.ground import FELLED, MUD, ROOF, SOIL, ground, times


@pytest.mark.parametrize("place", ["grass", "crop"])
def test_building_is_found_and_dated(place):
    stack, mask = ground(ROOF, place, 38, clouds=0.01)
    found = check_changes(detect(stack, "urbanization"), values=True)
    hit = changed(found).values
    assert hit[mask].mean() > 0.95
    assert hit[~mask].mean() < 0.002
    error = np.searchsorted(times(), found.date.values[hit & mask]) - 38
    assert np.median(error) == 0
    assert found.attrs["kind"] == "urbanization"


@pytest.mark.parametrize(("place", "change"), [("crop", SOIL), ("grass", SOIL), ("forest", FELLED), ("grass", MUD)])
def test_bare_felled_and_flooded_ground_is_no_building(place, change):
    stack, _ = ground(change, place, 38)
    assert changed(detect(stack, "urbanization")).mean() < 0.002


def test_a_fallow_season_is_no_building():
    stack, mask = ground(SOIL, "crop", 36, 50)
    assert changed(detect(stack, "urbanization")).values[mask].mean() < 0.02


def test_red_and_nir_do():
    stack, mask = ground(ROOF, "grass", 38)
    assert changed(detect(stack[["red", "nir"]], "urbanization")).values[mask].mean() > 0.95


def test_lazy_is_eager_under_odd_chunks():
    stack, _ = ground(ROOF, "crop", 40)
    eager = detect(stack, "urbanization")
    lazy = detect(stack.chunk(time=7, y=11, x=13), "urbanization")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_missing_bands_say_what_would_work():
    stack, _ = ground()
    with pytest.raises(StackError, match=r"red and nir.*SAR.*blue"):
        detect(stack[["blue"]], "urbanization")


def test_clearing_and_completion_are_dated_apart():
    stack, mask = ground(SOIL, "grass", 30)
    built, _ = ground(ROOF, "grass", 30)
    stack = xr.concat([stack.isel(time=slice(0, 50)), built.isel(time=slice(50, None))], "time")
    found = check_changes(detect(stack, "urbanization"), values=True)
    hit = changed(found).values
    assert hit[mask].mean() > 0.95
    assert hit[~mask].mean() < 0.002
    for layer, scene in (("date", 30), ("date_completed", 50)):
        assert abs(np.median(np.searchsorted(stack.time.values, found[layer].values[hit & mask]) - scene)) <= 1
    assert np.isnat(found.date_completed.values[~hit]).all()
    assert float(found.built_up.values[hit & mask].mean()) > 0.8
    assert float(np.nanmean(found.built_up.values[~mask])) < 0.05


@pytest.mark.parametrize("seed", [301, 302])
def test_fields_built_over_before_a_winter_are_no_returned_fields(seed):
    """The series ends in winter, when fields are bare too: what was built looks like the usual season then."""
    world = optical("urbanization", seed=seed, shape=(72, 72))
    ready = world.more["ready"] < world.stack.time.values[-4]
    found = changed(detect(world.stack, "urbanization")).values
    assert found[world.seen & ready].mean() > 0.9
    assert found[np.isnat(world.date)].mean() < 0.002
