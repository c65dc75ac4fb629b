import numpy as np
import pytest
import xarray as xr

from geoalign import mask, new_stack
from geoalign.errors import ConfigError


def stack_of(**bands):
    n = next(iter(bands.values())).shape[0]
    return new_stack(bands, np.datetime64("2024-01-01", "ns") + np.arange(n) * np.timedelta64(12, "D"))


@pytest.fixture
def sar():
    rng = np.random.default_rng(0)
    return stack_of(
        vv=rng.gamma(4.4, 0.02, (3, 20, 24)).astype(np.float32),
        vh=rng.gamma(4.4, 0.004, (3, 20, 24)).astype(np.float32),
    )


def test_a_flood_stays_and_border_noise_goes(sar):
    sar.vv[1, 5:9] = 10**-2.6  # water at -26 dB
    sar.vh[1, 5:9] = 10**-3.3
    sar.vv[2, :2] = 1e-7
    sar.vh[0, 0, 0] = -1e-4
    out = mask(sar)
    assert not np.isnan(out.vv.values[1]).any()
    assert np.isnan(out.vh.values[2, :2]).all()
    assert np.isnan(out.vv.values[0, 0, 0])
    assert np.isnan(out.vv.values).sum() == 2 * 24 + 1


def test_layover_and_incidence_are_dropped_in_every_scene(sar):
    layover = np.zeros((20, 24), bool)
    layover[3, 4] = True
    angle = np.linspace(15, 50, 24)[None, :].repeat(20, 0)
    assert np.isnan(mask(sar, layover=layover).vv.values[:, 3, 4]).all()
    out = mask(sar, incidence=angle, incidence_range=(20, 46))
    gone = np.isnan(out.vh.values).all(axis=(0, 1))
    np.testing.assert_array_equal(gone, (angle[0] < 20) | (angle[0] > 46))
    with pytest.raises(ConfigError, match="shape"):
        mask(sar, layover=layover[:5])


def test_lazy_is_eager(sar, no_compute):
    sar.vv[2, :2, :5] = np.nan
    sar.vh[2, :2, :5] = np.nan
    eager = mask(sar, dilate_px=3)
    assert np.isnan(eager.vv.values[2, 4, 2])
    with no_compute():
        lazy = mask(sar.chunk({"time": 1, "y": 6, "x": 7}), dilate_px=3)
    xr.testing.assert_identical(lazy.compute(), eager)
