"""BFAST Monitor as a detector: found, refused, and what there is to say about pixels without a history."""

import numpy as np
import pytest

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.types.changes import NOT_OBSERVABLE, WHY, changed


def stack(step=-0.15):
    rng = np.random.default_rng(0)
    time = np.datetime64("2008-01-01") + np.arange(260) * np.timedelta64(16, "D")
    year = np.arange(260) * 16 / 365.25
    values = 0.6 + 0.1 * np.cos(2 * np.pi * year)[:, None, None] + 0.03 * rng.standard_normal((260, 12, 13))
    values[200:, :6] += step
    values[rng.random(values.shape) < 0.3] = np.nan
    return new_stack({"ndvi": values}, time)


@pytest.mark.parametrize("process", ["ols_mosum", "ols_cusum", "re", "me"])
def test_a_step_is_found(process):
    data = stack()
    found = check_changes(
        detect(data, "bfast_monitor", since="2015-01-01", order=1, process=process, alpha=0.04), values=True
    )
    assert changed(found).values[:6].mean() > 0.95
    assert changed(found).values[6:].mean() < 0.45  # the boundary does not hold, and is not ours
    late = found.date.values[:6] - data.time.values[200]
    assert np.median(late[~np.isnat(late)].astype("timedelta64[D]").astype(int)) < 250
    if process.startswith("ols"):
        assert np.nanmedian(found.magnitude.values[:6]) < -0.05
    assert np.median(found.probability.values[:6]) > 0.5 > np.median(found.probability.values[6:])


def test_pixels_without_a_history_say_so():
    data = stack()
    data.ndvi[:, 0, 0] = np.nan
    data.ndvi[:155, 0, 1] = np.nan
    found = check_changes(detect(data, "bfast_monitor", since="2015-01-01"), values=True)
    np.testing.assert_array_equal(found.status.values[0, :2], NOT_OBSERVABLE)
    np.testing.assert_array_equal(found.why.values[0, :2], [WHY["no_data"], WHY["too_few"]])


def test_errors_say_what_to_do():
    for wrong in ({"process": "mosum"}, {"h": 0.3}, {"stable": "bp"}, {"alpha": 0.2}, {"order": None}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            detect(stack(), "bfast_monitor", **wrong)
    with pytest.raises(StackError, match="no scene is left"):
        detect(stack(), "bfast_monitor", since="2030-01-01")
