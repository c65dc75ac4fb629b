import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from geoalign.kernels.inundation import (
    CROSS_SHARE,
    DEPTH_PX,
    LARGEST,
    SWING_DB,
    WIND_DB,
    WIND_SD,
    WINDY,
    joint_fields,
    roughness,
    roughness_histogram,
    usual_ground,
    water_odds,
)

WATER, LAND, SD = np.array([-20.0, -27.0]), np.array([-10.0, -16.5]), np.array([2.0, 2.0])
KINDS = np.array([[-20.0, 0.8, -10.0, 1.0, 1.0], [-27.0, 0.8, -16.5, 1.0, 1.0]])


def odds_of(level, co=0, cross=1, ground=LAND):
    return water_odds(np.asarray(level, float), ground, SD, SWING_DB**2, WATER, SD, co, cross)


@pytest.mark.parametrize("level", [(-16.0, -22.5), (-15.0, -23.5), (-16.0, -21.0)])
def test_the_odds_are_those_of_two_normal_laws_and_a_mixture(level):
    level = np.array(level)
    land = multivariate_normal(LAND, np.diag(SD**2) + SWING_DB**2).logpdf(level)
    calm = multivariate_normal(WATER, np.diag(SD**2)).logpdf(level)
    assert odds_of(level, -1, -1) == pytest.approx(calm - land)
    over = max(level[1] - WATER[1] - CROSS_SHARE * (level[0] - WATER[0]), 0)
    sd = np.hypot(SD[1], WIND_SD)
    windy = -np.log(WIND_DB) - 0.5 * (over / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
    wet = logsumexp([calm + np.log(1 - WINDY), windy + np.log(WINDY)])
    assert odds_of(level) == pytest.approx(wet - land)


def test_a_wet_field_is_no_water_and_windy_water_is():
    assert odds_of(LAND - 4) < -1
    assert odds_of((-12.5, -23.5)) > 1
    assert odds_of((-12.5, -23.5), -1, -1) < odds_of((-12.5, -23.5))
    assert odds_of((-40.0, -40.0)) == LARGEST
    assert odds_of((0.0, 0.0)) == odds_of(LAND)
    assert odds_of((np.nan, np.nan)) == 0
    assert odds_of((-20.0, np.nan)) > 2


def test_few_dates_draw_a_level_to_the_scene():
    ground = np.empty(1)
    one = usual_ground(np.array([-14.0]), np.array([1.0]), WATER[:1], LAND[:1], np.array([2.0]), ground)
    assert ground[0] == pytest.approx(-12.0)
    assert one == pytest.approx(2.0)
    many = usual_ground(np.array([-14.0 * 50]), np.array([50.0]), WATER[:1], LAND[:1], np.array([2.0]), ground)
    assert ground[0] == pytest.approx(-14.0, abs=0.1)
    assert many < 0.1
    usual_ground(np.array([np.nan]), np.array([0.0]), WATER[:1], LAND[:1], np.array([2.0]), ground)
    assert ground[0] == LAND[0]


def stack_of(wet, looks=4.4, seed=0):
    """(band, time, row, col) power of water where `wet` (time, row, col)."""
    rng = np.random.default_rng(seed)
    db = np.stack([np.where(wet, w, g) for w, g in zip(WATER, LAND)])
    return rng.gamma(looks, 10 ** (db / 10) / looks).astype(np.float32)


def test_roughness_is_that_of_speckle():
    power = stack_of(np.zeros((1, 200, 200), bool))
    found = roughness([roughness_histogram(power)])
    want = np.std(10 * np.log10(power), axis=(1, 2, 3))
    np.testing.assert_allclose(found, want, rtol=0.12)
    assert roughness([np.zeros((1, 400))])[0] == 1


def test_a_shore_is_where_it_is_on_both_dates():
    wet = np.zeros((2, 60, 60), bool)
    wet[:, :, 28:33] = True
    wet[1, 20:40, 15:45] = True
    power = stack_of(wet)
    power[:, :, 50:53, 50:53] = np.nan
    odds = joint_fields(power, KINDS, np.array([2.3, 2.3]), 1, 0, 1)
    assert np.isnan(odds[:, 50:53, 50:53]).all()
    good = np.isfinite(odds)
    assert ((odds > 0) == wet)[good].mean() > 0.995
    assert not ((odds[1] > 0) & ~(odds[0] > -1))[wet[0]].any()


def test_a_window_of_its_depth_gives_the_same_bits():
    wet = np.zeros((2, 70, 70), bool)
    wet[1, 20:50, 20:50] = True
    power = stack_of(wet, seed=1)
    whole = joint_fields(power, KINDS, np.array([2.3, 2.3]), 1, 0, 1)
    part = joint_fields(np.ascontiguousarray(power[:, :, 10:60, 10:60]), KINDS, np.array([2.3, 2.3]), 1, 0, 1)
    d = DEPTH_PX
    np.testing.assert_array_equal(part[:, d:-d, d:-d], whole[:, 10 + d : 60 - d, 10 + d : 60 - d])
