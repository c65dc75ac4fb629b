"""Watching online: split, stored and continued with the same bits; found, dated, confirmed, ended; the level held."""

import itertools

import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, StateError, check_changes, detect, new_stack
from geoalign.detectors.watch import Watch
from geoalign.types.changes import CONFIRMED, ENDED, FIRST, NOT_OBSERVABLE, PROVISIONAL, WHY, changed
from geoalign.types.state import check_state

N, HISTORY, STEP = 110, 70, 90


def days(n=N, step=16):
    return np.datetime64("2018-01-03T10:20:30") + np.arange(n) * np.timedelta64(step, "D")


def seasonal(shape=(20, 21), *, n=N, seed=0, gaps=0.3, noise=0.02, step=0.0, first=STEP, clouds=0.0, ar=0.0):
    """NDVI with two harmonics and a small trend; the upper half of the image steps at `first`."""
    rng = np.random.default_rng(seed)
    year = (days(n) - days(n)[0]) / np.timedelta64(1, "D") / 365.25
    mean = 0.55 + 0.15 * np.sin(2 * np.pi * year) + 0.04 * np.cos(4 * np.pi * year) + 0.003 * year
    error = rng.standard_normal((n, *shape))
    for i in range(1, n):
        error[i] = ar * error[i - 1] + np.sqrt(1 - ar * ar) * error[i]
    values = mean[:, None, None] + noise * error
    values[first:, : shape[0] // 2] += step
    values -= 0.4 * (rng.random(values.shape) < clouds)
    values[rng.random(values.shape) < gaps] = np.nan
    return new_stack({"ndvi": values}, days(n))


def cut(stack, *places):
    edges = (0, *places, stack.sizes["time"])
    return [stack.isel(time=slice(a, b)) for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("step", [-0.08, 0.08])
def test_a_step_is_found_dated_signed_and_confirmed_later(step):
    since = str(days()[HISTORY])[:10]
    found = check_changes(detect(seasonal(step=step, clouds=0.01), "watch", since=since), values=True)
    hit = changed(found).values
    assert hit[:10].mean() > 0.97
    assert hit[10:].mean() < 0.05
    date = np.searchsorted(days(), found.date.values[:10][hit[:10]])
    assert np.median(np.abs(date - STEP)) == 0
    assert np.isin(found.date.values[hit], days()).all()
    assert (found.direction.values[:10][hit[:10]] == np.sign(step)).mean() > 0.99
    assert np.median(found.magnitude.values[:10][hit[:10]]) == pytest.approx(step, abs=0.008)
    assert np.median(found.probability.values[:10]) > 0.99
    assert np.nanmedian(found.probability.values[10:]) < 0.05
    assert np.median(found.noise) == pytest.approx(0.02, rel=0.1)
    late = found.date_confirmed.values[:10][hit[:10]] - found.date.values[:10][hit[:10]]
    assert (late >= np.timedelta64(32, "D")).all()
    assert np.median(late) <= np.timedelta64(96, "D")
    inside = (found.date_after < days()[STEP]) & (found.date_by >= days()[STEP])
    assert inside.values[:10][hit[:10]].mean() > 0.9


def test_split_stored_and_continued_gives_the_same_bits(tmp_path):
    stack = seasonal((9, 13), step=-0.1)
    stack = stack.assign_coords(sigma_px=("time", np.full(N, 0.2)))
    history, first, second, third = cut(stack, HISTORY, 71, 95)
    watch = Watch()
    whole = watch.update(watch.start(history), stack.isel(time=slice(HISTORY, None)))
    state = watch.start(history)
    for number, scenes in enumerate((first, second, third)):
        state = watch.update(state, scenes)
        state.to_zarr(tmp_path / f"{number}.zarr")
        state = check_state(xr.open_zarr(tmp_path / f"{number}.zarr"), detector=repr(watch)).load()
    xr.testing.assert_identical(state, whole)
    assert {k: v.dtype for k, v in state.data_vars.items()} == {k: v.dtype for k, v in whole.data_vars.items()}
    xr.testing.assert_identical(watch.report(state), watch.report(whole))
    since = str(stack.time.values[HISTORY])
    xr.testing.assert_equal(Watch(since=since).detect(stack), watch.report(whole))


def test_the_state_is_small():
    watch = Watch()
    state = watch.start(cut(seasonal((30, 40)), HISTORY)[0])
    assert sum(layer.nbytes for layer in state.data_vars.values()) / 1200 <= 100


def test_lazy_is_eager_and_nothing_is_computed_early(no_compute):
    stack = seasonal((14, 15), step=-0.08)
    sigma = np.random.default_rng(0).uniform(0, 0.4, (N, 14, 15)).astype(np.float32)
    for data in (stack, stack.assign_coords(sigma_px=(("time", "y", "x"), sigma))):
        history, scenes = cut(data, HISTORY)
        watch = Watch()
        eager = watch.report(watch.update(watch.start(history), scenes))
        for chunks in ({"time": 1, "y": 14, "x": 15}, {"time": 13, "y": 5, "x": 4}):
            a, b = (s.chunk({**chunks, "time": min(chunks["time"], s.sizes["time"])}) for s in (history, scenes))
            with no_compute():
                lazy = watch.report(watch.update(watch.start(a), b))
            xr.testing.assert_identical(lazy.compute(), eager)


def test_first_and_provisional_before_confirmed():
    stack = seasonal(step=-0.15, first=STEP, gaps=0.0)
    watch = Watch()
    history, scenes = cut(stack, HISTORY)
    seen = []
    for k in (STEP, STEP + 1, STEP + 2, STEP + 3, STEP + 4, STEP + 5):
        state = watch.update(watch.start(history), scenes.isel(time=slice(0, k - HISTORY)))
        seen.append(check_changes(watch.report(state), values=True))
    assert np.isin(seen[1].status.values[:10], (FIRST, PROVISIONAL)).mean() > 0.9
    assert (seen[2].status.values[:10] == PROVISIONAL).mean() > 0.8
    assert (seen[2].status.values[:10] == CONFIRMED).mean() < 0.15  # two alone don't, with one before them
    assert (seen[5].status.values[:10] == CONFIRMED).mean() > 0.95
    assert np.isnat(seen[2].date_confirmed.values[seen[2].status.values == PROVISIONAL]).all()
    probability = [np.median(c.probability.values[:10]) for c in seen]
    assert probability == sorted(probability)


def test_what_passed_is_ended():
    stack = seasonal(step=-0.15, first=80)
    back = stack.ndvi.values.copy()
    back[95:, :10] += 0.15
    found = detect(new_stack({"ndvi": back}, days()), "watch", since=str(days()[HISTORY]))
    status = found.status.values[:10]
    assert (status == ENDED).mean() > 0.9
    end = np.searchsorted(days(), found.date_end.values[:10][status == ENDED])
    assert np.median(end) == 95
    assert np.median(found.probability.values[:10]) > 0.95


def test_lone_outliers_confirm_nothing():
    stack = seasonal(gaps=0.0)
    stack.ndvi[[72, 81, 95, 109], :10] -= 0.5
    found = detect(stack, "watch", since=str(days()[HISTORY]))
    assert changed(found).values[:10].mean() < 0.08


@pytest.mark.parametrize(("clouds", "ar"), [(0.0, 0.0), (0.01, 0.3)])
def test_the_level_is_held(clouds, ar):
    stack = seasonal((60, 50), n=360, clouds=clouds, ar=ar, seed=4)
    found = detect(stack, "watch", since=str(days(360)[180]), alpha=0.05)
    assert changed(found).mean() <= 0.06


@pytest.mark.parametrize("shift_px", [0.25, 0.5])
def test_a_shift_that_stays_is_not_change(shift_px):
    rng = np.random.default_rng(3)
    cols = np.arange(60)
    level = np.where((cols // 6) % 2, 0.75, 0.35)
    shifted = np.interp(cols + shift_px, cols, level)
    mean = np.where((np.arange(N) >= STEP)[:, None], shifted, level)[:, None, :]
    stack = new_stack({"ndvi": mean + 0.02 * rng.standard_normal((N, 12, 60))}, days())
    since = str(days()[HISTORY])
    assert float(changed(detect(stack, "watch", since=since, sigma_px=0)).mean()) > 0.1
    assert float(changed(detect(stack, "watch", since=since, sigma_px=shift_px)).mean()) < 0.02


def test_backscatter_is_watched_in_decibels():
    rng = np.random.default_rng(4)
    power = 0.1 * rng.gamma(4.4, 1 / 4.4, (90, 20, 20))
    power[60:, :10] /= 4
    found = detect(new_stack({"vh": power}, days(90, 12)), "watch", since=str(days(90, 12)[40]))
    assert found.magnitude.attrs["units"] == "dB"
    assert changed(found).values[:10].mean() > 0.95
    assert changed(found).values[10:].mean() < 0.05
    assert np.nanmedian(found.magnitude.values[:10]) == pytest.approx(-6, abs=0.7)


def test_what_can_not_be_watched_says_why():
    stack = seasonal()
    stack.ndvi[:, 0, 0] = np.nan
    stack.ndvi[5:, 0, 1] = np.nan
    stack.ndvi[HISTORY:, 0, 2] = np.nan
    stack.ndvi[:, 0, 3] = 0.5
    found = check_changes(detect(stack, "watch", since=str(days()[HISTORY])), values=True)
    np.testing.assert_array_equal(found.status.values[0, :4], [NOT_OBSERVABLE] * 3 + [0])
    np.testing.assert_array_equal(found.why.values[0, :4], [WHY["no_data"], WHY["too_few"], WHY["too_few"], 0])


def test_errors_say_what_to_do():
    stack = seasonal((3, 3))
    history, scenes = cut(stack, HISTORY)
    watch = Watch()
    state = watch.update(watch.start(history), scenes)
    with pytest.raises(StateError, match="is not later"):
        watch.update(state, scenes)
    with pytest.raises(StateError, match="one grid"):
        watch.update(watch.start(history), scenes.isel(x=slice(0, 2)))
    with pytest.raises(StateError, match="made by"):
        Watch(alpha=0.1).update(state, scenes)
    with pytest.raises(StackError, match="needs 16"):
        watch.start(stack.isel(time=slice(0, 9)))
    with pytest.raises(ConfigError, match="alpha"):
        Watch(alpha=0)
    until = Watch(until=str(days()[HISTORY]))
    kept = until.start(history)
    assert until.update(kept, scenes.isel(time=slice(5, None))) is kept


def test_suspects_are_all_that_the_report_flags_and_reported_alone_they_get_the_same_answer():
    stack, watch = seasonal(step=-0.06, clouds=0.02, seed=4), Watch(order=2)
    state, flagged = watch.start(stack.isel(time=slice(0, HISTORY))), 0
    for k in range(HISTORY, N):
        state = watch.update(state, stack.isel(time=slice(k, k + 1)))
        whole = watch.report(state)
        at = np.flatnonzero(watch.suspects(state))
        flags = np.flatnonzero(np.isin(whole.status, (FIRST, PROVISIONAL, CONFIRMED, ENDED)))
        assert np.isin(flags, at).all()
        flagged += flags.size
        few = state.drop_vars(["y", "x"], errors="ignore").stack(p=("y", "x")).isel(p=at).drop_vars(["p", "y", "x"])
        few = few.rename(p="x").expand_dims("y").transpose(..., "y", "x")
        alone = watch.report(few.drop_vars([n for n in few.data_vars if n not in watch.reads]))
        for name in whole.data_vars:
            np.testing.assert_array_equal(alone[name].values[0], whole[name].values.reshape(-1)[at], err_msg=str(name))
    assert flagged > 1000
    assert at.size < 0.9 * stack.ndvi[0].size
