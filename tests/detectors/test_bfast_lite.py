"""BFAST Lite on planted breaks: which series, how many breaks, when, which way."""

import numpy as np
import pytest

from geoalign import ConfigError, check_changes, detect, new_stack
from geoalign.types.changes import changed
from tests.detectors.test_ccdc import optical


def test_breaks_of_ndvi_are_counted_dated_and_directed():
    stack = optical([(80, 0.8), (160, 0.2)])
    found = check_changes(detect(stack, "bfast_lite"), values=True)
    assert (found.n_changes.values == 2).mean() > 0.9
    for k, scene in enumerate((80, 160)):
        seen = np.isfinite(stack.nir.values)
        first = np.array([[np.flatnonzero(seen[scene:, r, c])[0] + scene for c in range(4)] for r in range(3)])
        assert np.median(np.abs(np.searchsorted(stack.time.values, found.break_date.values[k]) - first)) <= 1
    assert (found.break_magnitude.values[0] < 0).all()
    assert (found.break_magnitude.values[1] > 0).all()
    assert (found.break_probability.values[:2] > 0.9).all()
    assert found.magnitude.attrs["units"] == "1"


def test_stable_pixels_stay_unflagged_and_improbable():
    found = detect(optical(shape=(8, 8), seed=3), "bfast_lite")
    assert changed(found).mean() < 0.05
    assert float(found.probability.mean()) < 0.1


def test_since_leaves_earlier_breaks_out():
    stack = optical([(80, 0.8), (160, 0.2)])
    late = detect(stack, "bfast_lite", since=str(stack.time.values[120])[:10])
    assert (late.n_changes.values == 1).mean() > 0.9
    assert (np.searchsorted(stack.time.values, late.date.values[changed(late).values]) > 120).all()


def test_backscatter_steps_are_found_in_db():
    power = np.random.default_rng(0).gamma(5, 0.01, (60, 4, 4))
    power[35:] /= 4
    stack = new_stack({"vh": power}, np.datetime64("2016-01-01") + np.arange(60) * 12)
    found = detect(stack, "bfast_lite", index="vh")
    assert changed(found).mean() > 0.9
    assert found.magnitude.attrs["units"] == "dB"
    assert abs(float(found.magnitude.median()) + 6) < 1


def test_bad_options_are_refused():
    for option in ({"criterion": "AIC"}, {"share": 0.7}, {"order": 5}, {"prior": 1}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            detect(optical(n=30), "bfast_lite", **option)
