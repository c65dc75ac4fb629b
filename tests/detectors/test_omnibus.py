import numpy as np
import pytest
import xarray as xr

from benchmarks.sar_stack import wishart
from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.omnibus import C2_BANDS, Omnibus
from geoalign.types.changes import WHY


def times(n):
    return np.datetime64("2024-01-03") + 12 * np.arange(n) * np.timedelta64(1, "D")


def series(n=12, looks=4.4, shape=(60, 70), bands=("vv", "vh"), seed=0, step=None):
    """Stable gamma speckle; `step` = (first changed date, dB) is planted in a tenth of the pixels. (stack, truth)"""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.1
    power = {b: 0.05 * rng.gamma(looks, 1 / looks, (n, *shape)) for b in bands}
    if step:
        for values in power.values():
            values[step[0] :, truth] *= 10 ** (step[1] / 10)
    return new_stack(power, times(n)), truth


@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("enl", [4.4, None])
def test_size_is_alpha_with_looks_given_or_estimated(n, enl):
    stack, _ = series(n, shape=(320, 320), seed=n, bands=("vv",))
    found = Omnibus(alpha=0.01, enl=enl).detect(stack)
    assert 0.008 < float((found.status == 3).mean()) < 0.013


def test_a_planted_drop_is_found_dated_and_directed():
    stack, truth = series(20, step=(12, -6))
    found = check_changes(Omnibus().detect(stack), values=True)
    hit = found.status.values == 3
    assert hit[truth].mean() > 0.97
    assert hit[~truth].mean() < 0.02
    both = hit & truth
    assert (found.date.values[both] == times(20)[12]).mean() > 0.75
    assert (found.date_after.values[both] < found.date.values[both]).all()
    assert (found.direction.values[both] == -1).mean() > 0.97
    assert np.median(found.magnitude.values[both]) == pytest.approx(-6, abs=0.5)
    assert float(found.probability.values[truth].mean()) > 0.95


def test_first_and_last_and_every_break_between():
    stack, truth = series(24, looks=20, bands=("vv",))
    stack.vv[8:16] = xr.where(xr.DataArray(truth, dims=("y", "x")), stack.vv[8:16] * 5, stack.vv[8:16])
    found = Omnibus(max_breaks=3).detect(stack)
    two = truth & (found.n_changes.values == 2)
    assert two.sum() / truth.sum() > 0.9
    assert (found.first_date.values[two] == times(24)[8]).mean() > 0.97
    assert (found.last_date.values[two] == times(24)[16]).mean() > 0.97
    assert found.break_date.dims == ("break", "y", "x")
    assert (np.sign(found.break_magnitude.values[:2, two]).T == [1, -1]).all()
    assert np.isnat(found.break_date.values[2][two]).all()


def test_the_bands_own_looks_are_believed():
    stack, _ = series(12, bands=("vv",), shape=(100, 100))
    for looks, least, most in ((4.4, 0.004, 0.016), (8.0, 0.1, 1.0)):
        stack.vv.attrs["enl"] = looks
        assert least < float((Omnibus().detect(stack).status == 3).mean()) < most


def test_a_residual_shift_is_not_change():
    rng = np.random.default_rng(0)
    cols = np.arange(64)
    edge = np.where(cols % 16 < 8, 0.2, 0.05)
    shifts = rng.normal(0, 0.4, 16)
    ground = np.stack([np.interp(cols + s, cols, edge) for s in shifts])[:, None]
    stack = new_stack({"vv": ground * rng.gamma(4.4, 1 / 4.4, (16, 80, 64))}, times(16))
    ignoring = Omnibus(enl=4.4).detect(stack)
    knowing = Omnibus(enl=4.4).detect(stack.assign_coords(sigma_px=("time", np.full(16, 0.4))))
    assert float((ignoring.status == 3).mean()) > 0.03
    assert (knowing.status == 3).mean() < 0.02
    excused = (ignoring.status == 3) & (knowing.status == 0)
    assert ((knowing.why & WHY["misregistered"]) > 0).where(excused).mean() > 0.95


@pytest.mark.parametrize("chunks", [{"time": 1, "y": 60, "x": 33}, {"time": 5, "y": 7, "x": 70}])
@pytest.mark.parametrize("shift", [False, True])
def test_lazy_is_eager(chunks, shift, no_compute):
    stack, _ = series(9, step=(4, 4))
    stack = stack.where(np.random.default_rng(1).random((9, 60, 70)) > 0.2)
    if shift:
        stack = stack.assign_coords(sigma_px=("time", np.linspace(0, 0.5, 9)))
    eager = Omnibus().detect(stack)
    with no_compute():
        lazy = detect(stack.chunk(chunks), "omnibus")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_missing_zero_and_constant_pixels_have_defined_answers():
    stack, _ = series(8)
    stack.vv[:, 0, 0] = np.nan
    stack.vh[2:, 1, 1] = 0.0
    stack.vv[:, 2, 2] = stack.vh[:, 2, 2] = 0.1
    before = stack.copy(deep=True)
    found = check_changes(Omnibus().detect(stack), values=True)
    assert (int(found.status[0, 0]), int(found.why[0, 0])) == (255, WHY["no_data"])
    assert (int(found.status[1, 1]), int(found.why[1, 1])) == (255, WHY["too_few"])
    assert int(found.n_obs[1, 1]) == 2
    assert int(found.status[2, 2]) == 0
    xr.testing.assert_identical(stack, before)


def test_mistakes_are_named():
    stack, _ = series(6)
    for options, words in (({"alpha": 0}, "alpha is 0"), ({"enl": -1}, "enl is -1"), ({"min_obs": 1}, "min_obs is 1")):
        with pytest.raises(ConfigError, match=words):
            Omnibus(**options).detect(stack)
    with pytest.raises(StackError, match="no backscatter band"):
        Omnibus().detect(stack.rename(vv="red", vh="nir"))
    mixed = stack.assign_coords(orbit=("time", [44, 117] * 3))
    with pytest.raises(StackError, match="mixes the relative orbits 44, 117"):
        Omnibus().detect(mixed)


@pytest.mark.parametrize("enl", [6, None])
def test_matrices_are_tested_where_given(enl):
    values = wishart((60, 60, 20), 6, [[0.1, 0.04], [0.04, 0.02]], seed=4)
    values[:20, :20, :, 12:] = wishart((20, 20, 8), 6, [[0.1, -0.02], [-0.02, 0.02]], seed=5)
    bands = {name: values[:, :, i].transpose(2, 0, 1).astype(np.float32) for i, name in enumerate(C2_BANDS)}
    stack = new_stack(bands, np.datetime64("2024-01-01") + 12 * np.arange(20))
    found = Omnibus(enl=enl).detect(stack)
    hit = found.n_changes.values > 0
    assert hit[:20, :20].mean() > 0.95
    assert 0.002 < hit[:, 20:].mean() < 0.016
    lazy = Omnibus(enl=enl).detect(stack.chunk({"time": 5, "y": 23, "x": 31})).compute()
    xr.testing.assert_identical(lazy, found)


def test_two_intensities_without_their_covariance_are_refused():
    stack = new_stack(
        {"c11": np.ones((4, 5, 5)), "c22": np.ones((4, 5, 5))},
        np.arange("2024-01-01", "2024-01-05", 1, "datetime64[D]"),
    )
    with pytest.raises(StackError, match="no backscatter band"):
        Omnibus().detect(stack)
