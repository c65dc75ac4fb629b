"""Steps in one series: found, dated, located in time and direction; what has too little history says so."""

import warnings

import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.types.changes import CONFIRMED, ENDED, FIRST, NOT_OBSERVABLE, PROVISIONAL, WHY, changed
from tests.worlds import optical

N = 90


def days(n=N, step=16):
    return np.datetime64("2018-01-03T10:00") + np.arange(n) * np.timedelta64(step, "D")


def seasonal(shape=(20, 21), *, n=N, seed=0, gaps=0.3, noise=0.02, step=0.0, first=60, clouds=0.0):
    """NDVI with two harmonics and a small trend; the upper half of the image steps at `first`."""
    rng = np.random.default_rng(seed)
    year = (days(n) - days(n)[0]) / np.timedelta64(1, "D") / 365.25
    mean = 0.55 + 0.15 * np.sin(2 * np.pi * year) + 0.04 * np.cos(4 * np.pi * year) + 0.003 * year
    values = mean[:, None, None] + noise * rng.standard_normal((n, *shape))
    values[first:, : shape[0] // 2] += step
    values -= 0.4 * (rng.random(values.shape) < clouds)
    values[rng.random(values.shape) < gaps] = np.nan
    return new_stack({"ndvi": values}, days(n))


@pytest.mark.parametrize("since", [None, "2019-12-31"])
@pytest.mark.parametrize("step", [-0.1, 0.1])
def test_a_step_is_found_dated_and_signed(since, step):
    found = check_changes(detect(seasonal(step=step, clouds=0.01), "harmonic_cusum", since=since), values=True)
    hit = changed(found).values
    assert hit[:10].mean() > 0.97
    assert hit[10:].mean() < 0.04
    error = np.searchsorted(days(), found.date.values[:10][hit[:10]]) - 60
    assert np.median(error) == 0
    assert (np.abs(error) <= 2).mean() > 0.92  # three in a hundred are hidden by cloud for longer
    assert (found.direction.values[:10][hit[:10]] == np.sign(step)).mean() > 0.99
    assert np.median(found.magnitude.values[:10][hit[:10]]) == pytest.approx(step, abs=0.01)
    assert np.median(found.probability.values[:10]) > 0.99
    assert np.median(found.probability.values[10:]) < 0.05
    assert np.median(found.noise) == pytest.approx(0.02, rel=0.1)
    confirmed = found.date_confirmed.values[:10][hit[:10]]
    assert (confirmed >= found.date.values[:10][hit[:10]]).mean() > 0.98


def test_the_interval_holds_the_date():
    found = detect(seasonal((40, 40), step=-0.07), "harmonic_cusum")
    hit = changed(found).values[:20]
    after, by = found.date_after.values[:20][hit], found.date_by.values[:20][hit]
    assert hit.mean() > 0.9
    assert ((after < days()[60]) & (days()[60] <= by + np.timedelta64(32, "D"))).mean() > 0.9


def test_a_disturbance_that_passed_is_ended():
    stack = seasonal(step=-0.15)
    back = stack.ndvi.values.copy()
    back[70:, :10] += 0.15
    found = detect(new_stack({"ndvi": back}, days()), "harmonic_cusum")
    status = found.status.values[:10]
    assert (status == ENDED).mean() > 0.9
    end = np.searchsorted(days(), found.date_end.values[:10][status == ENDED])
    assert np.median(end) == 70


def test_first_signs_are_shown_while_watching_only():
    stack = seasonal(step=-0.3, first=N - 2, gaps=0.0)
    watching = detect(stack, "harmonic_cusum", since="2021-01-01")
    early = watching.status.values[:10]
    assert np.isin(early, (PROVISIONAL, CONFIRMED)).mean() > 0.97
    assert (early == PROVISIONAL).mean() > 0.7
    one = detect(seasonal(step=-0.3, first=N - 1, gaps=0.0), "harmonic_cusum", since="2021-01-01")
    assert (one.status.values[:10] == FIRST).mean() > 0.9
    back = detect(stack, "harmonic_cusum")
    assert not np.isin(back.status.values, (FIRST, PROVISIONAL)).any()
    check_changes(watching, values=True)


def test_lazy_is_eager_under_odd_chunks(no_compute):
    stack = seasonal(step=-0.08)
    eager = detect(stack, "harmonic_cusum", sigma_px=0.2)
    for chunks in ({"time": 1, "y": 20, "x": 21}, {"time": 13, "y": 7, "x": 4}):
        with no_compute():
            lazy = detect(stack.chunk(chunks), "harmonic_cusum", sigma_px=0.2)
        xr.testing.assert_identical(lazy.compute(), eager)


@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_false_alarms_keep_the_level(alpha):
    found = detect(seasonal((60, 60), seed=2), "harmonic_cusum", alpha=alpha)
    assert changed(found).mean() < 1.3 * alpha + 0.004


def test_odd_pixels_are_defined_without_warnings():
    stack = seasonal()
    stack.ndvi[:, 0, 0] = np.nan
    stack.ndvi[5:, 0, 1] = np.nan
    stack.ndvi[30:, 0, 2] = np.nan
    stack.ndvi[:, 0, 3] = 0.5
    stack.ndvi[:, 0, 4] = np.where(np.arange(N) < 60, 0.5, 0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check_changes(detect(stack, "harmonic_cusum", since="2019-12-31"), values=True)
    np.testing.assert_array_equal(found.status.values[0, :5], [NOT_OBSERVABLE] * 3 + [0, CONFIRMED])
    np.testing.assert_array_equal(found.why.values[0, :4], [WHY["no_data"], WHY["too_few"], WHY["too_few"], 0])
    assert found.date.values[0, 4] == days()[60]
    assert int(found.n_obs[0, 0]) == 0


def test_hiding_observations_never_makes_surer():
    stack = seasonal(step=-0.05, gaps=0.0)
    rng = np.random.default_rng(1)
    certainty = []
    for hidden in (0.0, 0.3, 0.6):
        keep = xr.DataArray(rng.random(stack.ndvi.shape) >= hidden, dims=("time", "y", "x"))
        p = detect(stack.where(keep), "harmonic_cusum").probability
        certainty.append(float(np.abs(p - 0.05).fillna(0).mean()))
    assert certainty == sorted(certainty, reverse=True)


@pytest.mark.parametrize("shift_px", [0.25, 0.5])
def test_a_residual_shift_is_not_change(shift_px):
    """Later scenes lie off by a constant shift, on an image with fields of different level."""
    rng = np.random.default_rng(3)
    cols = np.arange(60)
    level = np.where((cols // 6) % 2, 0.75, 0.35)
    shifted = np.interp(cols + shift_px, cols, level)
    mean = np.where((np.arange(N) >= 60)[:, None], shifted, level)[:, None, :]
    stack = new_stack({"ndvi": mean + 0.02 * rng.standard_normal((N, 12, 60))}, days())
    ignoring = float(changed(detect(stack, "harmonic_cusum", sigma_px=0)).mean())
    knowing = float(changed(detect(stack, "harmonic_cusum", sigma_px=shift_px)).mean())
    assert ignoring > 0.1
    assert knowing < 0.02


def test_change_is_still_found_where_every_scene_has_a_shift_of_its_own():
    """Slopes of 0.06 a px under shifts of 0.8 px: what is stable stays so, and a loss of 0.25 is seen all the same."""
    rng = np.random.default_rng(4)
    cols = np.arange(60)
    level = 0.55 + 0.18 * np.sin(2 * np.pi * cols / 19)
    mean = np.stack([np.interp(cols + s, cols, level) for s in rng.normal(0, 0.8, N)])[:, None, :].repeat(40, 1)
    mean[70:, :10] -= 0.25
    stack = new_stack({"ndvi": mean + 0.03 * rng.standard_normal(mean.shape)}, days())
    flagged = changed(detect(stack, "harmonic_cusum", sigma_px=0.8)).values
    assert flagged[:10].mean() > 0.97
    assert flagged[10:].mean() < 0.015


@pytest.mark.parametrize(("index", "units"), [("nbr", "1"), ("nir", "1"), (None, "1")])
def test_bands_and_indices_by_name(index, units):
    world = optical("deforestation")
    found = detect(world.stack, "harmonic_cusum", index=index)
    assert changed(found).values[world.changed].mean() > 0.9
    assert found.magnitude.attrs["units"] == units


def test_backscatter_is_followed_in_decibels():
    rng = np.random.default_rng(4)
    power = 0.1 * rng.gamma(9, 1 / 9, (60, 8, 9))
    power[40:, :4] /= 4
    found = detect(new_stack({"vh": power}, days(60, 12)), "harmonic_cusum")
    assert found.magnitude.attrs["units"] == "dB"
    assert changed(found).values[:4].mean() > 0.95
    assert np.nanmedian(found.magnitude.values[:4]) == pytest.approx(-6, abs=0.7)


def test_time_is_cut_as_asked():
    stack = seasonal(step=-0.1)
    assert not changed(detect(stack, "harmonic_cusum", until=str(days()[59]))).values[:10].mean() > 0.04
    short = detect(stack, "harmonic_cusum", since=str(days()[50]), history=420.0)
    assert int(short.n_obs.max()) <= N - 50 + 27
    assert changed(short).values[:10].mean() > 0.8


def test_errors_say_what_to_do():
    stack = seasonal((3, 3))
    with pytest.raises(ConfigError, match="index 'ndvy' is neither a band"):
        detect(stack, "harmonic_cusum", index="ndvy")
    with pytest.raises(StackError, match="leaves no history"):
        detect(stack, "harmonic_cusum", since="2017-01-01")
    with pytest.raises(StackError, match="leaves no scene"):
        detect(stack, "harmonic_cusum", until="2010-01-01")
    with pytest.raises(StackError, match="which series is meant"):
        detect(stack.assign(other=stack.ndvi), "harmonic_cusum")
    for wrong in ({"alpha": 1.0}, {"prior": 0}, {"order": 5}, {"direction": 2}, {"since": "yesterday-ish"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            detect(stack, "harmonic_cusum", **wrong)


def test_one_direction_keeps_the_level_too():
    stack = seasonal((60, 60), seed=5)
    shares = [float(changed(detect(stack, "harmonic_cusum", alpha=0.1, direction=d)).mean()) for d in (-1, 1)]
    assert all(0.06 < share < 0.14 for share in shares)
