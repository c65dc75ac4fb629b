"""Control charts as detectors: a step is found, dated and signed; the level holds; backscatter and one direction."""

import numpy as np
import pytest

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.types.changes import changed

CHARTS = ("ewma", "cusum", "mosum")
N, FIRST = 150, 110


def days(n=N, step=16):
    return np.datetime64("2015-01-03T10:20:30") + np.arange(n) * np.timedelta64(step, "D")


def seasonal(shape=(20, 21), *, n=N, step=0.0, seed=0, clouds=0.0, ar=0.0):
    rng = np.random.default_rng(seed)
    year = np.arange(n) * 16 / 365.25
    mean = 0.55 + 0.15 * np.sin(2 * np.pi * year) + 0.003 * year
    error = rng.standard_normal((n, *shape))
    for i in range(1, n):
        error[i] = ar * error[i - 1] + np.sqrt(1 - ar * ar) * error[i]
    values = mean[:, None, None] + 0.02 * error
    values[FIRST:, : shape[0] // 2] += step
    values -= 0.4 * (rng.random(values.shape) < clouds)
    values[rng.random(values.shape) < 0.3] = np.nan
    return new_stack({"ndvi": values}, days(n))


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("step", [-0.08, 0.08])
def test_a_step_is_found_dated_and_signed(chart, step):
    found = check_changes(detect(seasonal(step=step, clouds=0.01), chart, since=str(days()[80])), values=True)
    hit = changed(found).values
    assert hit[:10].mean() > 0.97
    assert hit[10:].mean() < 0.03
    date = np.searchsorted(days(), found.date.values[:10][hit[:10]])
    assert np.median(date) == FIRST
    assert (np.abs(date - FIRST) <= 3).mean() > 0.85
    assert (found.direction.values[:10][hit[:10]] == np.sign(step)).mean() > 0.97
    assert np.nanmedian(found.magnitude.values[:10]) == pytest.approx(step, abs=0.012)
    assert np.median(found.probability.values[:10]) > 0.95
    assert np.median(found.probability.values[10:]) < 0.05
    assert (found.date_confirmed.values[hit] >= found.date.values[hit]).all()


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize(("ar", "clouds", "most"), [(0.0, 0.0, 0.05), (0.0, 0.01, 0.06), (0.3, 0.0, 0.075)])
def test_the_level_is_held(chart, ar, clouds, most):
    stack = seasonal((40, 50), n=360, ar=ar, clouds=clouds, seed=3)
    assert changed(detect(stack, chart, since=str(days(360)[180]), alpha=0.05)).mean() <= most


@pytest.mark.parametrize("chart", CHARTS)
def test_one_direction_finds_that_only(chart):
    stack = seasonal(step=-0.08)
    since = str(days()[80])
    assert changed(detect(stack, chart, since=since, direction=-1)).values[:10].mean() > 0.97
    assert changed(detect(stack, chart, since=since, direction=1)).values[:10].mean() < 0.1


def test_cusum_follows_backscatter_in_decibels():
    rng = np.random.default_rng(4)
    power = 0.1 * rng.gamma(4.4, 1 / 4.4, (90, 20, 20))
    power[60:, :10] /= 4
    stack = new_stack({"vh": power}, days(90, 12))
    stack.vh.attrs["enl"] = 4.4
    found = detect(stack, "cusum", since=str(days(90, 12)[40]), alpha=0.05)
    assert found.magnitude.attrs["units"] == "dB"
    assert changed(found).values[:10].mean() > 0.95
    assert changed(found).values[10:].mean() < 0.06
    assert np.nanmedian(found.magnitude.values[:10][changed(found).values[:10]]) == pytest.approx(-6, abs=0.8)
    assert float(found.noise.min()) >= 2.18


@pytest.mark.parametrize("shift_px", [0.25, 0.5])
def test_a_shift_that_stays_is_not_change(shift_px):
    rng = np.random.default_rng(3)
    cols = np.arange(60)
    level = np.where((cols // 6) % 2, 0.75, 0.35)
    shifted = np.interp(cols + shift_px, cols, level)
    mean = np.where((np.arange(N) >= FIRST)[:, None], shifted, level)[:, None, :]
    stack = new_stack({"ndvi": mean + 0.02 * rng.standard_normal((N, 12, 60))}, days())
    since = str(days()[80])
    for chart in CHARTS:
        assert float(changed(detect(stack, chart, since=since, sigma_px=0)).mean()) > 0.1
        assert float(changed(detect(stack, chart, since=since, sigma_px=shift_px)).mean()) < 0.02


def test_errors_say_what_to_do():
    with pytest.raises(StackError, match="needs 16"):
        detect(seasonal(), "cusum", since=str(days()[9]))
    with pytest.raises(ConfigError, match="direction"):
        detect(seasonal(), "ewma", direction=2)
