import numpy as np
import pytest
import xarray as xr

from benchmarks.sar_stack import sar_stack, score, speckle
from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.gamma_glr import GammaGlr
from geoalign.types.changes import WHY, changed


def times(n):
    return np.datetime64("2024-01-03") + 12 * np.arange(n) * np.timedelta64(1, "D")


@pytest.mark.parametrize("enl", [4.4, None])
def test_the_simulated_stack_of_the_benchmark(enl):
    truth = sar_stack((120, 130), seed=7)
    found = check_changes(detect(truth.stack(enl), "gamma_glr"), values=True)
    scored = score(changed(found).values, found.date.values, truth)
    assert scored["f1"] >= 0.91
    assert scored["false"] <= 0.0062  # 11,000 stable pixels at .005
    assert scored["days"] == 0
    assert scored["by_drop"][3.0] >= 0.97
    first = truth.time[np.maximum(truth.first, 0)].astype(found.date.dtype)
    inside = (found.date_after.values < first) & (found.date_by.values >= first)
    assert inside[changed(found).values & truth.changed].mean() > 0.93


def test_correlated_dates_keep_the_level():
    rng = np.random.default_rng(1)
    stack = new_stack({b: speckle(rng, (60, 70, 70), 4.4, 0.3) for b in ("vv", "vh")}, times(60))
    for enl in (4.4, None):
        assert float(changed(detect(stack, "gamma_glr", alpha=0.01, enl=enl)).mean()) < 0.013


def test_every_change_has_its_layers():
    rng = np.random.default_rng(2)
    power = {b: rng.gamma(10, 0.01, (80, 30, 30)) for b in ("vv", "vh")}
    for values in power.values():
        values[20:45, :, :10] *= 4
        values[60:, :, :5] *= 0.3
    found = check_changes(GammaGlr(enl=10).detect(new_stack(power, times(80))), values=True)
    assert found.break_date.dims == found.break_probability.dims == ("break", "y", "x")
    three = (slice(None), slice(0, 5))
    assert (found.n_changes.values[three] == 3).mean() > 0.95
    assert (found.n_changes.values[:, 5:10] == 2).mean() > 0.95
    good = found.n_changes.values[three] == 3
    dates = found.break_date.values[:3, :, :5][:, good]
    assert (dates == times(80)[[20, 45, 60], None]).mean() > 0.85
    assert (found.break_after.values[:3, :, :5][:, good] < dates).all()
    assert (found.break_by.values[:3, :, :5][:, good] >= dates).all()
    assert np.isnat(found.break_date.values[3]).mean() > 0.98
    # `date` and `magnitude` are those of one of the changes
    own = (found.break_date == found.date).values[:, :, :5][:, good]
    assert (own.sum(axis=0) == 1).all()
    sizes = found.break_magnitude.values[:, :, :5][:, good]
    assert (found.magnitude.values[three][good] == sizes.T[own.T]).all()


def test_a_residual_shift_is_not_change():
    rng = np.random.default_rng(0)
    cols = np.arange(64)
    edge = np.where(cols % 16 < 8, 0.2, 0.05)
    shifts = rng.normal(0, 0.5, 40)
    ground = np.stack([np.interp(cols + s, cols, edge) for s in shifts])[:, None]
    stack = new_stack({"vv": ground * rng.gamma(4.4, 1 / 4.4, (40, 80, 64))}, times(40))
    ignoring = detect(stack, "gamma_glr", enl=4.4, alpha=0.01)
    knowing = detect(stack, "gamma_glr", enl=4.4, alpha=0.01, sigma_px=0.5)
    assert float(changed(knowing).mean()) < 0.013
    excused = changed(ignoring) & ~changed(knowing)
    assert ((knowing.why & WHY["misregistered"]) > 0).where(excused).mean() > 0.9 or not excused.any()


@pytest.mark.parametrize("chunks", [{"time": 1, "y": 60, "x": 33}, {"time": 5, "y": 7, "x": 70}])
def test_lazy_is_eager(chunks, no_compute):
    truth = sar_stack((60, 70), n=24, seed=3)
    stack = truth.stack().where(np.random.default_rng(1).random((24, 60, 70)) > 0.2)
    stack = stack.assign_coords(sigma_px=("time", np.linspace(0, 0.5, 24)))
    eager = detect(stack, "gamma_glr")
    with no_compute():
        lazy = detect(stack.chunk(chunks), "gamma_glr")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_mistakes_are_named():
    stack = sar_stack((10, 10), n=8).stack(4.4)
    for options, words in (
        ({"alpha": 0}, "alpha is 0"),
        ({"change_db": 0}, "change_db is 0"),
        ({"min_obs": 1}, "min_obs"),
    ):
        with pytest.raises(ConfigError, match=words):
            GammaGlr(**options)
    with pytest.raises(StackError, match="mixes the relative orbits"):
        detect(stack.assign_coords(orbit=("time", [44, 117] * 4)), "gamma_glr")
