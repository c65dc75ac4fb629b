import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.types.changes import changed
from tests.detectors.test_sar_themes import SHAPE, TIME, N, f1, objects, scene, swung

FIRST = 15


def hit_town(gain_db=3.0, *, seed=0, rise=None, first=FIRST, **options):
    """A stack with half of the objects' pixels up and half down by gain_db from scene `first` on."""
    stack = scene(seed=seed, **options)
    up = np.arange(SHAPE[1]) < 40 if rise is None else np.full(SHAPE[1], rise)
    sign = xr.DataArray(np.where(up, 1.0, -1.0), dims="x")
    late = xr.DataArray(objects(), dims=("y", "x")) & xr.DataArray(np.arange(N) >= first, dims="time")
    return stack * xr.where(late, 10 ** (sign * gain_db / 10), 1.0).transpose("time", "y", "x").astype("float32")


@pytest.mark.parametrize("since", [None, str(TIME[FIRST])])
@pytest.mark.parametrize("seed", [0, 1])
def test_rise_and_fall_are_found_and_dated(seed, since):
    found = check_changes(detect(hit_town(seed=seed), "damage", since=since), values=True)
    assert f1(found) > 0.95
    hit = changed(found).values & objects()
    assert (found.date.values[hit] == TIME[FIRST]).mean() > 0.97
    left = np.arange(SHAPE[1])[None] < 40
    assert (found.direction.values[hit & left] == 1).mean() > 0.98
    assert (found.direction.values[hit & ~left] == -1).mean() > 0.98
    assert np.median(np.abs(found.magnitude.values[hit])) == pytest.approx(3, abs=0.4)


def test_damage_before_since_is_not_the_question():
    found = detect(hit_town(first=8), "damage", since=str(TIME[FIRST]))
    assert float(changed(found).mean()) < 0.005


@pytest.mark.parametrize("gain", [2.0, -2.0])
@pytest.mark.parametrize("name", ["damage", "pwtt"])
def test_moisture_of_the_whole_scene_is_no_damage(name, gain):
    for dates in ((3, 7, 8, 16, 20), range(FIRST, N)):
        found = detect(swung(scene(seed=2), dates, gain), name, since=str(TIME[FIRST]))
        assert float(changed(found).mean()) < (0.003 if name == "damage" else 0.02)


def test_optical_stacks_are_refused():
    with pytest.raises(StackError, match=r"SAR.*ndvi"):
        detect(new_stack({"ndvi": np.ones((9, 4, 4))}, TIME[:9]), "damage")


def test_orbits_are_tested_apart():
    orbit = np.arange(N) % 2
    gain = xr.DataArray(np.where(orbit == 1, 1.0, 0.3).astype("float32"), dims="time")
    stack = (hit_town() * gain).assign_coords(orbit=("time", orbit))
    for name, least in (("damage", 0.93), ("pwtt", 0.75)):
        assert f1(detect(stack, name, since=str(TIME[FIRST]))) > least


def test_pwtt_finds_and_dates_what_was_hit():
    found = check_changes(detect(hit_town(seed=3), "pwtt", since=str(TIME[FIRST])), values=True)
    hit = changed(found).values
    assert hit[objects()].mean() > 0.97
    inside = hit & objects()
    assert (found.date.values[inside] == TIME[FIRST]).mean() > 0.8
    assert (np.sign(found.z.values[inside]) == found.direction.values[inside]).all()


def test_placebos_measure_the_false_alarm_rate():
    stack = hit_town(seed=4)
    found = detect(stack, "pwtt", since=str(TIME[FIRST]), alpha=0.05)
    assert float(found.placebo.mean()) == pytest.approx(0.05, abs=0.025)
    assert np.isnan(detect(stack, "pwtt", since=str(TIME[4])).placebo).all()


def test_swaying_ground_widens_the_test():
    """Noise that lasts from scene to scene makes plain p too small; the placebos see it."""
    rng = np.random.default_rng(5)
    sway = np.zeros((N, *SHAPE))
    for t in range(1, N):
        sway[t] = 0.8 * sway[t - 1] + rng.normal(0, 0.25, SHAPE).repeat(1, 0)
    from scipy.ndimage import uniform_filter

    sway = 3 * uniform_filter(sway, (0, 3, 3))
    stack = scene(seed=5) * xr.DataArray(np.exp(sway).astype("float32"), dims=("time", "y", "x"))
    found = detect(stack, "pwtt", since=str(TIME[18]), alpha=0.01)
    assert float(changed(found).mean()) < 0.03


def test_too_few_after_the_event_is_said():
    found = check_changes(detect(hit_town(), "pwtt", since=str(TIME[-1])), values=True)
    assert (found.status == 255).all()


def test_options_are_checked():
    for name in ("damage", "pwtt"):
        for wrong in ({"alpha": 0}, {"since": "soon"}, {"min_area_m2": -1}):
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                detect(scene(), name, **wrong)
