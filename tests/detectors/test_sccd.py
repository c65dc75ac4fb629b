"""S-CCD: breaks as of `cold`, and a state that is the same however the scenes came."""

import numpy as np
import pytest
import xarray as xr

from geoalign import StateError, check_changes, detect
from geoalign.detectors.sccd import Sccd
from geoalign.types.changes import WHY, changed
from tests.detectors.test_ccdc import optical


def test_breaks_are_counted_dated_and_directed():
    stack = optical([(80, 0.8), (160, 0.2)])
    found = check_changes(detect(stack, "sccd"), values=True)
    assert (found.n_changes.values == 2).mean() > 0.9
    for k, scene in enumerate((80, 160)):
        late = np.searchsorted(stack.time.values, found.break_date.values[k])
        seen = np.isfinite(stack.nir.values)
        first = np.array([[np.flatnonzero(seen[scene:, r, c])[0] + scene for c in range(4)] for r in range(3)])
        assert np.median(np.abs(late - first)) == 0
    assert (found.break_magnitude.values[0] < 0).mean() > 0.9
    assert (found.break_magnitude.values[1] > 0).mean() > 0.9
    assert (found.break_probability.values[:2] > 0.9).mean() > 0.9


def test_stable_pixels_stay_unflagged_and_improbable():
    found = detect(optical(shape=(8, 8), seed=3), "sccd")
    assert not changed(found).any()
    assert float(found.probability.mean()) < 0.1


@pytest.mark.parametrize("cuts", [(40,), (1, 2, 85), tuple(range(10, 230, 10))])
def test_folding_in_pieces_gives_the_same_bits(cuts):
    stack = optical([(80, 0.8), (160, 0.2)], missed=0.03)
    watching = Sccd()
    begun = watching.start(stack.isel(time=slice(0, 1)))
    at_once = watching.update(begun, stack.isel(time=slice(1, None)))
    state, last = begun, 1
    for cut in (*[c for c in cuts if c > 1], None):
        state = watching.update(state, stack.isel(time=slice(last, cut)))
        last = cut
    xr.testing.assert_identical(state, at_once)
    whole = watching.start(stack)
    xr.testing.assert_identical(watching.report(whole), watching.report(state))
    xr.testing.assert_identical(watching.report(whole), detect(stack, watching))


def test_a_lazy_state_is_the_same():
    stack = optical([(80, 0.8)], shape=(5, 6))
    watching = Sccd()
    lazy = watching.start(stack.isel(time=slice(0, 100)).chunk(time=9, y=2, x=4))
    lazy = watching.update(lazy, stack.isel(time=slice(100, None)).chunk(time=9, y=2, x=4))
    eager = watching.update(watching.start(stack.isel(time=slice(0, 100))), stack.isel(time=slice(100, None)))
    xr.testing.assert_identical(lazy.compute(), eager)


def test_a_break_is_reported_as_soon_as_six_observations_are_off():
    stack = optical([(100, 0.9)], gaps=0.0, missed=0.0)
    watching = Sccd()
    state = watching.start(stack.isel(time=slice(0, 105)))
    assert not changed(watching.report(state)).any()
    state = watching.update(state, stack.isel(time=slice(105, 106)))
    found = watching.report(state)
    assert changed(found).all()
    assert (found.date.values == stack.time.values[100]).all()


def test_scenes_out_of_order_and_foreign_states_are_refused():
    stack = optical()
    watching = Sccd()
    state = watching.start(stack.isel(time=slice(0, 50)))
    with pytest.raises(StateError, match="later ones"):
        watching.update(state, stack.isel(time=slice(49, 60)))
    with pytest.raises(StateError, match="not by"):
        Sccd(threshold=0.999).update(state, stack.isel(time=slice(50, 60)))
    with pytest.raises(StateError, match="same bands"):
        watching.update(state, stack[["red", "nir"]].isel(time=slice(50, 60)))


def test_until_and_since_bound_what_is_asked():
    stack = optical([(80, 0.8), (160, 0.2)])
    middle = str(stack.time.values[120])[:10]
    assert (detect(stack, "sccd", since=middle).n_changes.values == 1).mean() > 0.9
    assert (detect(stack, "sccd", until=middle).n_changes.values == 1).mean() > 0.9


def test_reasons():
    stack = optical(shape=(2, 2)).copy(deep=True)
    for band in stack.data_vars:
        stack[band][:, 0, 0] = np.nan
        stack[band][10:, 0, 1] = np.nan
    found = check_changes(detect(stack, "sccd"), values=True)
    assert found.why.values[0].tolist() == [WHY["no_data"], WHY["too_few"]]
    assert (found.status.values[1] == 0).all()


def test_a_dense_year_fits_into_the_state():
    stack = optical([(300, 0.9)], n=420, step_days=7, gaps=0.1, shape=(2, 2))
    found = detect(stack, "sccd")
    assert changed(found).all()
    assert np.median(np.searchsorted(stack.time.values, found.date.values) - 300) <= 1
