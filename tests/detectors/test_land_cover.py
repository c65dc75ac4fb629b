import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, check_changes, detect, new_stack
from geoalign.detectors.land_cover import LandCover, class_table
from geoalign.types.changes import changed

GROUND = {
    "water": (-19.0, -27.0, 0.0),
    "field": (-11.0, -18.0, 1.2),
    "wood": (-8.0, -13.0, 0.2),
    "town": (-1.0, -8.0, 0.0),
}


def region(n=70, side=60, seed=0, looks=4.4):
    """Four kinds of ground in columns; in the upper third woods become fields, and in the lower fields towns."""
    rng = np.random.default_rng(seed)
    days = np.arange(n) * 12
    before = np.repeat(np.arange(4), side // 4)[None].repeat(side, 0)
    after = before.copy()
    after[: side // 3][before[: side // 3] == 2] = 1
    after[-side // 3 :][before[-side // 3 :] == 1] = 3
    kinds = np.where(np.arange(n)[:, None, None] >= n // 2, after, before)
    season = np.cos(2 * np.pi * days / 365.25)[:, None, None]
    levels = np.array(list(GROUND.values()))
    bands = {
        name: 10 ** ((levels[kinds, k] + season * levels[kinds, 2]) / 10) * rng.gamma(looks, 1 / looks, kinds.shape)
        for k, name in enumerate(("vv", "vh"))
    }
    return new_stack(bands, np.datetime64("2021-01-03") + days), before, after


def test_a_change_says_from_what_to_what():
    stack, before, after = region()
    found = check_changes(detect(stack, "land_cover", n_class=6), values=True)
    moved = before != after
    hit = changed(found).values
    assert hit[moved].mean() > 0.97
    assert (found.class_from.values[~moved & ~hit] == found.class_to.values[~moved & ~hit]).all()
    # a class is what most pixels of a kind of ground have: kinds are told apart, and from and to are theirs
    kind_of = {}
    for kind in range(4):
        values, counts = np.unique(found.class_from.values[(before == kind) & ~moved], return_counts=True)
        kind_of[kind] = values[counts.argmax()]
        assert counts.max() / counts.sum() > 0.85
    assert len(set(kind_of.values())) == 4
    assert kind_of[0] == 0
    for old, new in ((2, 1), (1, 3)):
        these = (before == old) & (after == new) & hit
        assert (found.class_from.values[these] == kind_of[old]).mean() > 0.85
        assert (found.class_to.values[these] == kind_of[new]).mean() > 0.9
    table = class_table(found)
    assert table.loc[kind_of[1], "season"] > table.loc[kind_of[2], "season"] + 0.4
    assert table.loc[kind_of[3], "vv"] == pytest.approx(-1.0, abs=0.5)
    assert int(table.pixels.sum()) == before.size


@pytest.mark.parametrize("chunks", [{"time": 1, "y": 60, "x": 33}, {"time": -1, "y": 7, "x": 20}])
def test_classes_do_not_depend_on_chunks(chunks, no_compute):
    stack, *_ = region(n=30, seed=1)
    eager = detect(stack, "land_cover", seed=3)
    with no_compute():
        lazy = detect(stack.chunk(chunks), "land_cover", seed=3)
    xr.testing.assert_identical(lazy.compute(), eager)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="n_class is 1"):
        LandCover(n_class=1)
