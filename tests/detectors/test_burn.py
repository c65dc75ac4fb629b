import numpy as np
import pytest

from geoalign import StackError, detect
from geoalign.types.changes import changed
from tests.detectors.ground import FELLED, MUD, WATER, ground, times

ASH = np.array([0.045, 0.05, 0.06, 0.10, 0.16, 0.19])


@pytest.mark.parametrize("place", ["forest", "grass"])
def test_fires_are_found_dated_and_graded(place):
    stack, mask = ground(ASH, place, clouds=0.01)
    found = detect(stack, "burn")
    hit = changed(found).values
    assert hit[mask].mean() > 0.95
    assert hit[~mask].mean() < 0.01
    late = np.searchsorted(times(), found.date.values[hit & mask].astype("datetime64[D]")) - 38
    assert np.median(np.abs(late)) <= 1
    assert np.median(found.severity.values[hit & mask]) >= (4 if place == "forest" else 3)


@pytest.mark.parametrize("cover", [MUD, WATER])
def test_water_is_no_fire(cover):
    stack, mask = ground(cover, "grass")
    assert changed(detect(stack, "burn")).values[mask].mean() < 0.02


def test_without_swir2_it_is_refused():
    stack, _ = ground(FELLED, "forest")
    with pytest.raises(StackError, match="nir and swir2"):
        detect(stack[["red", "nir"]], "burn")
