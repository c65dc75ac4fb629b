import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, check_changes, detect
from geoalign.types.changes import CONFIRMED, changed
from tests.detectors.ground import FELLED, MUD, ROOF, SOIL, ground, times


def test_a_clearing_is_found_and_dated():
    stack, mask = ground(FELLED, "forest", 38, clouds=0.01)
    found = check_changes(detect(stack, "deforestation"), values=True)
    hit = changed(found).values
    assert hit[mask].mean() > 0.98
    assert hit[~mask].mean() < 0.002
    assert (found.status.values[hit] == CONFIRMED).all()
    error = np.searchsorted(times(), found.date.values[hit & mask]) - 38
    assert np.median(error) == 0
    assert (np.abs(error) <= 2).mean() > 0.95
    assert (found.direction.values[hit] == -1).all()
    assert (found.magnitude.values[hit] < -0.2).all()
    assert found.attrs["kind"] == "deforestation"
    assert not np.isnat(found.date_confirmed.values[hit]).any()


@pytest.mark.parametrize("bands", [("red", "nir"), ("red", "nir", "swir1")])
def test_fewer_bands_do(bands):
    stack, mask = ground(FELLED, "forest", 38)
    found = changed(detect(stack[list(bands)], "deforestation")).values
    assert found[mask].mean() > 0.95
    assert found[~mask].mean() < 0.01


@pytest.mark.parametrize(("place", "change"), [("crop", SOIL), ("grass", SOIL), ("grass", ROOF), ("crop", MUD)])
def test_what_was_no_forest_is_no_deforestation(place, change):
    stack, _ = ground(change, place, 38)
    assert changed(detect(stack, "deforestation")).mean() < 0.001


def test_what_comes_back_is_no_deforestation():
    stack, mask = ground(FELLED, "forest", 38, 44)
    assert changed(detect(stack, "deforestation")).values[mask].mean() < 0.05


def test_two_last_observations_of_a_whole_patch_are_enough():
    stack, mask = ground(FELLED, "forest", 58, gaps=0.0)
    found = detect(stack, "deforestation")
    assert changed(found).values[mask].mean() > 0.95
    assert changed(found).values[~mask].mean() < 0.001


def test_watching_shows_first_signs():
    stack, mask = ground(FELLED, "forest", 59, gaps=0.0)
    found = detect(stack, "deforestation", since=str(times()[40]))
    assert (found.status.values[mask] == 1).mean() > 0.9
    assert (found.date.values[mask & (found.status.values == 1)] == times()[59]).all()
    check_changes(found, values=True)


def test_lazy_is_eager_under_odd_chunks():
    stack, _ = ground(FELLED, "forest", 50)
    eager = detect(stack, "deforestation")
    lazy = detect(stack.chunk(time=7, y=11, x=13), "deforestation")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_missing_bands_say_what_would_work():
    stack, _ = ground()
    with pytest.raises(StackError, match=r"red and nir.*SAR.*blue"):
        detect(stack[["blue"]], "deforestation")


@pytest.mark.parametrize("index", ["nbr", "ndmi", "ndvi", "ndfi"])
def test_every_index_tells_felled_woods(index):
    stack, mask = ground(FELLED, "forest", 40)
    found = check_changes(detect(stack, "deforestation", index=index), values=True)
    assert changed(found).values[mask].mean() > 0.9
    assert changed(found).values[~mask].mean() < 0.002
    assert (found.magnitude.values[changed(found).values] < -0.2).all()


def test_indices_that_say_nothing_of_woods_are_refused():
    with pytest.raises(ConfigError, match=r"mndwi.*ndfi"):
        detect(ground()[0], "deforestation", index="mndwi")
