import numpy as np
import pytest
import xarray as xr

from benchmarks.sar_worlds import WATER, flood, scores
from geoalign import StackError, check_changes, detect, new_stack
from geoalign.types.changes import WHY


def flagged(found):
    return np.isin(found.status.values, (3, 4))


@pytest.fixture(scope="module")
def world():
    return flood(seed=1)


@pytest.fixture(scope="module")
def found(world):
    return check_changes(detect(world.stack, "flood"), values=True)


def test_a_flood_is_drawn_and_dated_beside_water_wind_shadow_and_wet_fields(world, found):
    of = scores(world, found)
    assert of["f1"] > 0.94
    assert of["median"] == 0
    assert not flagged(found)[world.cover == WATER].any()
    hit = flagged(found) & world.changed
    assert (found.date_end.values[hit] == world.stack.time.values[world.last]).mean() > 0.95
    assert (found.date_peak.values[hit] >= found.date.values[hit]).all()
    assert (found.date_peak.values[hit] < found.date_end.values[hit]).all()
    assert np.isnat(found.date_peak.values[~flagged(found)]).all()


@pytest.mark.parametrize("seed", [0, 6])
def test_wet_fields_alone_are_little_flood(seed):
    dry = flood(seed=seed, flooded=False)
    assert flagged(detect(dry.stack, "flood")).mean() < 0.01


def test_a_flood_rough_with_wind_is_seen_on_ground_that_keeps_still():
    """4 dB in vv and 3 in vh beside a calm river: what the demo's scenes hold, far from the level of water."""
    rng = np.random.default_rng(8)
    rows, cols = np.mgrid[:96, :96]
    river, over = np.abs(cols - 40) < 3, (np.hypot(rows - 50, cols - 48) < 22) & (np.abs(cols - 40) >= 3)
    bands = {}
    for name, ground, water, drop in (("vv", -11.5, -19.5, 4.0), ("vh", -18.5, -26.0, 3.0)):
        db = np.broadcast_to(np.where(river, water, ground + 0.8 * (cols > 60)), (30, 96, 96)).copy()
        db[12:16, over] -= drop
        bands[name] = rng.gamma(4.4, 10 ** (db / 10) / 4.4).astype(np.float32)
    stack = new_stack(bands, np.datetime64("2024-01-03") + 12 * np.arange(30))
    hit = flagged(detect(stack, "flood"))
    assert hit[over].mean() > 0.85
    assert hit[~over].mean() < 0.01


def test_usual_water_has_its_reason(world, found):
    assert ((found.why.values[world.cover == WATER] & WHY["not_detectable"]) > 0).mean() > 0.5


@pytest.mark.parametrize(("n", "at"), [(2, 1), (5, 4)])
def test_a_few_scenes_need_a_dry_one_before(n, at):
    made = flood(seed=3, n=n, at=at, length=1)
    found = check_changes(detect(made.stack, "flood"), values=True)
    assert scores(made, found)["f1"] > 0.95
    assert flagged(found)[made.cover == WATER].mean() < 0.01


def test_a_single_scene_shows_all_open_water_unless_told_better(world):
    one = world.stack.isel(time=[world.last - 1])
    found = check_changes(detect(one, "flood"), values=True)
    wet = world.changed | (world.cover == WATER)
    hit = flagged(found)
    assert 2 * (hit & wet).sum() / (hit.sum() + wet.sum()) > 0.85
    shares = xr.DataArray(np.where(world.cover == WATER, 95.0, 0.0), dims=("y", "x"))
    known = detect(one.assign_coords(water_occurrence=shares), "flood")
    assert not flagged(known)[world.cover == WATER].any()
    assert ((known.why.values[world.cover == WATER] & WHY["excluded"]) > 0).all()
    assert 2 * (flagged(known) & world.changed).sum() / (flagged(known).sum() + world.changed.sum()) > 0.7


@pytest.mark.parametrize(("name", "value"), [("hand_m", 80.0), ("slope_deg", 20.0)])
def test_no_flood_on_heights_and_slopes(world, name, value):
    one = world.stack.isel(time=[world.last - 1])
    layer = np.zeros(world.cover.shape)
    layer[:60] = value
    found = detect(one.assign_coords({name: (("y", "x"), layer)}), "flood")
    assert not flagged(found)[:60].any()
    assert flagged(found)[60:].any()


def test_layover_is_not_observable(world):
    layer = np.zeros(world.cover.shape, bool)
    layer[:9] = True
    found = check_changes(detect(world.stack.assign_coords(layover=(("y", "x"), layer)), "flood"), values=True)
    assert (found.status.values[:9] == 255).all()
    assert (found.status.values[9:] != 255).all()


def test_layers_of_another_shape_are_refused(world):
    with pytest.raises(StackError, match="hand_m"):
        detect(world.stack.assign_coords(hand_m=("y", np.zeros(128))), "flood")


@pytest.mark.parametrize("n", [1, 3])
def test_lazy_is_eager_with_few_scenes(n, no_compute):
    stack = flood(seed=2, n=n, at=n - 1, length=1, shape=(70, 75)).stack
    stack = stack.assign_coords(hand_m=(("y", "x"), np.linspace(0, 60, 70 * 75).reshape(70, 75)))
    eager = detect(stack, "flood")
    with no_compute():
        lazy = detect(stack.chunk(time=1, y=33, x=20), "flood")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_where_no_tile_holds_water_that_is_said():
    made = flood(seed=5, n=1, at=0, length=1, flooded=False)
    dry = made.stack.where(xr.DataArray(made.cover != WATER, dims=("y", "x")), 0.1).isel(y=slice(40, None))
    found = detect(dry, "flood")
    assert flagged(found).mean() < 0.01
    assert ((found.why.values & WHY["fallback_threshold"]) > 0).mean() > 0.9
