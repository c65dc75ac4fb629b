import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import check_changes, detect, new_stack
from geoalign.types.changes import WHY

N = 24
TIME = np.datetime64("2023-01-05") + 12 * np.arange(N) * np.timedelta64(1, "D")
GROUND_DB = {"vv": -10.0, "vh": -15.0}
CHANGE_DB = {  # vv, vh; first changed scene, first scene back
    "flood": ((-4.0, -3.0), 12, 17),
    "deforestation": ((-1.5, -3.0), 11, N),
    "urbanization": ((5.0, 4.0), 13, N),
}
SHAPE = (72, 80)


def objects():
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return ((rows - 24) ** 2 + (cols - 26) ** 2 < 14**2) | ((abs(rows - 54) < 9) & (abs(cols - 58) < 7))


def scene(*events, seed=0, looks=4.4, gaps=0.0, bands=("vv", "vh")):
    """4.4-look speckle on textured ground, with the events planted in two objects."""
    rng = np.random.default_rng(seed)
    texture = rng.normal(0, 0.8, SHAPE)
    power = {}
    for k, name in enumerate(("vv", "vh")):
        db = np.broadcast_to(GROUND_DB[name] + texture, (N, *SHAPE)).copy()
        for event in events:
            change, first, last = CHANGE_DB[event]
            db[first:last, objects()] += change[k]
        values = rng.gamma(looks, 10 ** (db / 10) / looks)
        values[rng.random(values.shape) < gaps] = np.nan
        power[name] = values
    geobox = GeoBox(SHAPE, Affine(10, 0, 500000, 0, -10, 5400000), "EPSG:32633")
    return new_stack({b: power[b] for b in bands}, TIME, geobox=geobox)


def f1(found):
    hit = np.isin(found.status.values, (3, 4))
    return 2 * (hit & objects()).sum() / (hit.sum() + objects().sum())


@pytest.mark.parametrize("theme", CHANGE_DB)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_planted_change_is_drawn_and_dated(theme, seed):
    found = check_changes(detect(scene(theme, seed=seed), theme), values=True)
    assert f1(found) > 0.95
    hit = np.isin(found.status.values, (3, 4)) & objects()
    _, first, last = CHANGE_DB[theme]
    assert (found.date.values[hit] == TIME[first]).mean() > 0.95
    assert (found.date_after.values[hit] == TIME[first - 1]).mean() > 0.95
    assert (found.status.values[hit] == (4 if last < N else 3)).mean() > 0.98
    if last < N:
        assert (found.date_end.values[hit] == TIME[last]).mean() > 0.95
    assert np.isnat(found.date_end.values[~np.isin(found.status.values, (3, 4))]).all()


@pytest.mark.parametrize("theme", CHANGE_DB)
@pytest.mark.parametrize("other", CHANGE_DB)
def test_one_theme_is_not_taken_for_another(theme, other):
    if theme == other:
        pytest.skip("that is the theme itself")
    found = detect(scene(other, seed=3), theme)
    assert float(found.status.isin((3, 4)).mean()) < 0.01


@pytest.mark.parametrize("theme", CHANGE_DB)
@pytest.mark.parametrize("band", ["vv", "vh"])
def test_one_band_is_enough(theme, band):
    if (theme, band) == ("deforestation", "vv"):
        pytest.skip("1.5 dB in vv is below what is called a clearing")
    if (theme, band) == ("flood", "vh"):
        pytest.skip("3 dB in vh alone, to -18 dB, could as well be wet ground")
    assert f1(detect(scene(theme, seed=4, bands=(band,)), theme)) > 0.88


@pytest.mark.parametrize("theme", CHANGE_DB)
def test_stable_ground_is_left_alone(theme):
    found = detect(scene(seed=5), theme, alpha=0.05, min_area_m2=0)
    assert float(found.status.isin((3, 4)).mean()) < 0.01
    assert float(found.probability.mean()) < 0.01


def test_a_season_is_no_theme():
    stack = scene(seed=6)
    course = 10 ** (0.1 * np.cos(2 * np.pi * np.arange(N) / 30.4))
    stack = stack * xr.DataArray(course.astype("float32"), dims="time")
    for theme in CHANGE_DB:
        assert float(detect(stack, theme).status.isin((3, 4)).mean()) < 0.01


@pytest.mark.parametrize("theme", CHANGE_DB)
def test_gaps_are_bridged_with_each_pixels_own_dates(theme):
    stack = scene(theme, seed=7, gaps=0.15)
    found = check_changes(detect(stack, theme), values=True)
    assert f1(found) > 0.9
    seen = stack.vv.notnull() & stack.vh.notnull()
    hit = found.status.isin((3, 4))
    for edge in ("date", "date_after"):
        at = (xr.DataArray(TIME.astype("datetime64[ns]"), dims="time") == found[edge]).transpose("time", "y", "x")
        assert bool((seen.drop_vars("time") & at).any("time").where(hit, True).all())


def test_a_flood_at_the_end_of_the_series_goes_on():
    stack = scene(seed=8)
    wet = xr.DataArray(objects(), dims=("y", "x")) & (xr.DataArray(np.arange(N), dims="time") >= N - 3)
    found = detect(stack.where(~wet, stack * 0.4), "flood")
    assert f1(found) > 0.93
    assert (found.status.values[objects()] == 3).mean() > 0.9
    assert np.isnat(found.date_end.values).all()


def test_water_can_not_be_flooded():
    stack = scene("flood", seed=9) * np.float32(10**-1.2)
    found = detect(stack, "flood")
    assert not found.status.isin((3, 4)).any()
    assert ((found.why & WHY["not_detectable"]) > 0).mean() > 0.95


def test_small_patches_are_left_out():
    stack = scene(seed=10)
    patch = np.zeros(SHAPE, bool)
    patch[20:27, 20:27] = True
    patch[40:60, 40:60] = True
    wet = xr.DataArray(patch, dims=("y", "x")) & xr.DataArray((np.arange(N) > 9) & (np.arange(N) < 16), dims="time")
    stack = stack.where(~wet, stack * 0.3)
    hit = [detect(stack, "flood", min_area_m2=area).status.values == 4 for area in (1000, 8000)]
    assert hit[0][20:27, 20:27].mean() > 0.9
    assert not hit[1][:36].any()
    assert hit[1][40:60, 40:60].mean() > 0.95


@pytest.mark.parametrize("theme", CHANGE_DB)
def test_since_watches_from_then_on(theme):
    early = detect(scene(theme, seed=11), theme, since=str(TIME[20]))
    assert float(early.status.isin((3, 4)).mean()) < 0.005
    assert f1(detect(scene(theme, seed=11), theme, since=str(TIME[9]))) > 0.95


@pytest.mark.parametrize("theme", CHANGE_DB)
@pytest.mark.parametrize("chunks", [{"time": 1, "y": 29, "x": 80}, {"time": 7, "y": 11, "x": 17}])
def test_lazy_is_eager(theme, chunks, no_compute):
    stack = scene(theme, seed=12, gaps=0.1).assign_coords(sigma_px=("time", np.linspace(0, 0.3, N)))
    eager = detect(stack, theme)
    with no_compute():
        lazy = detect(stack.chunk(chunks), theme)
    xr.testing.assert_identical(lazy.compute(), eager)


@pytest.mark.parametrize("theme", CHANGE_DB)
def test_what_was_not_observed_has_its_reason(theme):
    stack = scene(theme, seed=13)
    stack.vv[:, 30, 30] = np.nan
    stack.vh[4:, 31, 31] = 0.0
    before = stack.copy(deep=True)
    found = check_changes(detect(stack, theme), values=True)
    assert (int(found.status[30, 30]), int(found.why[30, 30])) == (255, WHY["no_data"])
    assert (int(found.status[31, 31]), int(found.why[31, 31])) == (255, WHY["too_few"])
    xr.testing.assert_identical(stack, before)


def swung(stack, dates, gain_db=2.0):
    """Wet or dry ground: the whole scene brighter or darker on some dates."""
    gain = np.zeros(stack.sizes["time"])
    gain[list(dates)] = gain_db
    return stack * xr.DataArray((10 ** (gain / 10)).astype("float32"), dims="time")


@pytest.mark.parametrize("theme", CHANGE_DB)
@pytest.mark.parametrize("dates", [(3, 7, 8, 16), range(15, N), range(10, 14)], ids=["some", "late", "spell"])
def test_moisture_of_the_whole_scene_is_no_change_and_hides_none(theme, dates):
    for gain in (2.0, -2.0):
        assert float(detect(swung(scene(seed=14), dates, gain), theme).status.isin((3, 4)).mean()) < 0.005
    assert f1(detect(swung(scene(theme, seed=15), dates), theme)) > 0.93


@pytest.mark.parametrize("theme", CHANGE_DB)
def test_orbits_are_brought_to_one_level(theme):
    orbit = np.arange(N) % 2
    look = 10 ** (np.random.default_rng(0).normal(0, 2, SHAPE) / 10)
    gain = xr.DataArray(np.where(orbit[:, None, None] == 1, look, 1.0).astype("float32"), dims=("time", "y", "x"))
    stack = (scene(theme, seed=16) * gain).assign_coords(orbit=("time", orbit))
    found = detect(stack, theme)
    assert f1(found) > 0.93
    assert (
        float(detect((scene(seed=17) * gain).assign_coords(orbit=("time", orbit)), theme).status.isin((3, 4)).mean())
        < 0.005
    )


def test_patches_of_a_few_pixels_show():
    stack = scene(seed=18)
    patch = np.zeros(SHAPE, bool)
    for r in range(5, 65, 12):
        patch[r : r + 4, r : r + 4] = True
    late = xr.DataArray(patch, dims=("y", "x")) & xr.DataArray(np.arange(N) >= 12, dims="time")
    found = detect(stack.where(~late, stack * 0.5), "deforestation", min_area_m2=0)
    assert found.status.isin((3, 4)).values[patch].mean() > 0.85
