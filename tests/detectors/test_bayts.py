import numpy as np
import pytest
import xarray as xr

from benchmarks.sar_stack import sar_stack, speckle
from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.bayts import Bayts
from geoalign.errors import StateError
from geoalign.types.changes import CONFIRMED, changed


def parts(stack, *cuts):
    return [stack.isel(time=slice(a, b)) for a, b in zip((0, *cuts), (*cuts, None))]


def test_two_updates_are_one_and_both_are_detect():
    truth = sar_stack((20, 24), n=40, seed=2)
    stack = truth.stack().where(np.random.default_rng(0).random((40, 20, 24)) > 0.2)
    bayts = Bayts(since=str(stack.time.values[20])[:10])
    history, some, rest = parts(stack, 20, 27)
    state = bayts.start(history)
    twice = bayts.update(bayts.update(state, some), rest)
    once = bayts.update(state, xr.concat([some, rest], "time"))
    xr.testing.assert_identical(twice, once)
    found = bayts.report(twice)
    whole = bayts.detect(stack)
    xr.testing.assert_identical(found, whole.assign_attrs(found.attrs))
    check_changes(found, values=True)


def test_clearing_is_found_and_confirmed_within_weeks():
    truth = sar_stack((60, 60), n=60, seed=3)
    found = detect(truth.stack(), "bayts", since=truth.time[18])
    strong = truth.drop_db >= 5
    hit = changed(found).values
    assert hit[strong].mean() > 0.88
    assert hit[~truth.changed].mean() < 0.015
    lag = (found.date_confirmed.values - truth.time[truth.first].astype("datetime64[ns]"))[hit & strong]
    assert np.median(lag / np.timedelta64(1, "D")) <= 60


def test_orbits_are_modelled_apart_and_combined():
    rng = np.random.default_rng(4)
    orbit = np.where(np.arange(80) % 2, 44, 117)
    level = np.where(orbit == 44, 0.02, 0.06)[:, None, None]
    power = level * speckle(rng, (80, 30, 30), 4.4)
    power[60:, :, :15] *= 0.3
    time = np.datetime64("2022-01-01") + 6 * np.arange(80)
    stack = new_stack({"vh": power}, time, orbit=orbit)
    found = detect(stack, "bayts", since=time[50])
    one = detect(stack.isel(time=np.flatnonzero(orbit == 44)), "bayts", since=time[50])
    hit = changed(found).values
    assert hit[:, :15].mean() > 0.97
    assert hit[:, 15:].mean() < 0.02
    delays = []
    for f in (found, one):
        days = (f.date_confirmed.values - time[60].astype("M8[ns]"))[:, :15] / np.timedelta64(1, "D")
        delays.append(np.median(days[changed(f).values[:, :15]]))
    assert delays[0] < 0.8 * delays[1]


def test_correlated_dates_confirm_no_more():
    rng = np.random.default_rng(5)
    time = np.datetime64("2022-01-01") + 12 * np.arange(80)
    white, correlated = (
        new_stack({b: 0.05 * speckle(rng, (80, 60, 60), 4.4, lag) for b in ("vv", "vh")}, time) for lag in (0, 0.4)
    )
    rates = [float((detect(s, "bayts", since=time[40]).status == CONFIRMED).mean()) for s in (white, correlated)]
    assert rates[0] < 0.015
    assert rates[1] < 0.015


def test_states_and_options_that_do_not_fit_are_refused():
    stack = sar_stack((4, 5), n=20).stack()
    bayts = Bayts()
    history, rest = parts(stack, 12)
    state = bayts.update(bayts.start(history), rest)
    with pytest.raises(StateError, match="not later"):
        bayts.update(state, rest)
    with pytest.raises(StateError, match="px"):
        bayts.update(bayts.start(history), rest.isel(x=slice(0, 3)))
    with pytest.raises(StackError, match="vh is missing"):
        bayts.update(bayts.start(history), rest[["vv"]])
    with pytest.raises(StateError, match="was made by"):
        Bayts(drop_db=3).report(state)
    for options, words in (({"confirm": 0.4}, "confirm is 0.4"), ({"drop_db": -1}, "drop_db is -1")):
        with pytest.raises(ConfigError, match=words):
            Bayts(**options)
