import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, despeckle, new_stack
from geoalign.speckle import METHODS


def stack(looks=4, n=4, shape=(70, 72), seed=0, edge=None):
    power = 0.1 * np.random.default_rng(seed).gamma(looks, 1 / looks, (n, *shape))
    if edge:
        power[:, :, shape[1] // 2 :] *= edge
    made = new_stack({"vv": power}, np.datetime64("2024-01-01") + 12 * np.arange(n))
    made.vv.attrs["enl"] = looks
    return made


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_of_even_ground_is_kept_and_its_looks_are_told(method):
    before = stack(n=3, shape=(120, 120), seed=1)
    after = despeckle(before, method)
    bound = {"refined_lee": 0.01, "gamma_map": 0.02, "non_local": 0.02}.get(method, 0.005)
    assert float(after.vv.mean()) == pytest.approx(float(before.vv.mean()), rel=bound)
    inner = after.vv.values[:, 5:-5, 5:-5].astype(float)
    looks = (inner.mean(axis=(1, 2)) ** 2 / inner.var(axis=(1, 2))).mean()
    assert looks > 1.5 * 4
    assert after.vv.attrs["enl"] == pytest.approx(looks, rel=0.35)
    assert before.vv.attrs["enl"] == 4


@pytest.mark.parametrize("method", METHODS)
def test_gaps_stay_and_do_not_spread(method):
    before = stack(n=2, shape=(40, 42))
    before.vv[0, 10:14, 20] = np.nan
    after = despeckle(before, method)
    np.testing.assert_array_equal(np.isnan(after.vv.values), np.isnan(before.vv.values))


@pytest.mark.parametrize("method", ["refined_lee", "non_local"])
def test_two_pixels_from_an_edge_the_level_is_kept(method):
    after = despeckle(stack(n=2, shape=(150, 40), edge=10.0), method).vv.values.astype(float)
    for column, level in ((17, 0.1), (22, 1.0)):
        assert abs(10 * np.log10(after[:, :, column].mean() / level)) < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_lazy_is_eager(method):
    before = stack(n=2, shape=(30, 31))
    xr.testing.assert_identical(despeckle(before.chunk(y=7, x=13), method).compute(), despeckle(before, method))


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="lea"):
        despeckle(stack(), "lea")
    with pytest.raises(ConfigError, match="radius is 0"):
        despeckle(stack(), radius=0)
    bare = stack()
    del bare.vv.attrs["enl"]
    with pytest.raises(StackError, match="the looks of band 'vv'"):
        despeckle(bare)
    with pytest.raises(StackError, match="no backscatter"):
        despeckle(stack().rename(vv="red"))


def test_looks_of_a_stack_lazy_or_not():
    import pandas as pd

    from geoalign import estimate_enl

    power = 0.1 * np.random.default_rng(1).gamma(4.4, 1 / 4.4, (6, 150, 140))
    stack = new_stack({"vv": power, "vh": power / 4}, np.arange("2024-01-01", "2024-01-07", dtype="datetime64[D]"))
    found = estimate_enl(stack)
    assert list(found.method) == ["spatial", "log", "temporal"] * 2
    assert (abs(found.enl / 4.4 - 1) < 0.12).all()
    assert ((found.low <= found.enl) & (found.enl <= found.high)).all()
    pd.testing.assert_frame_equal(found, estimate_enl(stack.chunk({"time": 1, "y": 64, "x": 50})))
