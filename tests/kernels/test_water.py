"""Open water in series made by hand, one case a row."""

import numpy as np
import pytest

from geoalign.kernels.water import evidence, flood_runs, log_ratio, supported

OUTCOME, FIRST_WET, LAST_DRY, FIRST_DRY, RISE, RATIO, N_OBS, SCORE, CONFIRMED = range(9)
LAND, WATER, MIXED = (0.07, 0.32, 0.22), (0.09, 0.05, 0.02), (0.08, 0.18, 0.11)
SHADOW, CLOUD, SNOW = (0.04, 0.20, 0.09), (0.55, 0.58, 0.45), (0.13, 0.14, 0.02)
"""green, nir, swir1"""


def flood(*cases, first=10, n=20, gate=3.0, noise=0.003):
    """`flood_runs` of series of land in which each case puts spectra at some scenes."""
    rng = np.random.default_rng(0)
    cube = np.broadcast_to(np.array(LAND), (len(cases), n, 3)).copy()
    for p, case in enumerate(cases):
        for scene, spectrum in case.items():
            cube[p, scene] = spectrum
    cube = (cube + rng.normal(0, noise, cube.shape)).astype(np.float32)
    green, nir, swir1 = (np.ascontiguousarray(cube[:, :, k]) for k in range(3))
    index = (green - swir1) / (green + swir1)
    season = (np.arange(n) * 16.0) % 365.25
    return flood_runs(index, nir + swir1, nir, green, np.zeros(len(cases)), season, first, np.zeros(n), 3, gate)


def test_two_wet_observations_are_a_flood_with_its_dates():
    found = flood({13: WATER, 14: WATER}, {13: MIXED, 15: MIXED}, {18: WATER, 19: WATER})
    np.testing.assert_array_equal(found[:, OUTCOME], [2, 2, 1])
    np.testing.assert_array_equal(found[:, FIRST_WET], [13, 13, 18])
    np.testing.assert_array_equal(found[:, LAST_DRY], [12, 12, 17])
    np.testing.assert_array_equal(found[:, FIRST_DRY], [15, 16, -1])
    np.testing.assert_array_equal(found[:, SCORE], [4, 2, 4])
    np.testing.assert_array_equal(found[:, CONFIRMED], [13, 15, 18])
    assert (found[[0, 2], RISE] > 1).all()


@pytest.mark.parametrize("what", [SHADOW, CLOUD, SNOW])
def test_what_looks_like_water_is_not(what):
    found = flood({13: what}, {13: what, 14: what, 15: what})
    np.testing.assert_array_equal(found[:, OUTCOME], 0)


def test_water_that_was_there_before_is_no_flood():
    always = dict.fromkeys(range(20), WATER)
    often = dict.fromkeys((1, 4, 7, 13, 14), WATER)
    found = flood(always, often)
    np.testing.assert_array_equal(found[:, OUTCOME], 3)


def test_water_of_every_year_is_no_flood():
    """Two years, a scene every 16 days: the same weeks were wet a year earlier."""
    late, early = dict.fromkeys((25, 26, 27), WATER), dict.fromkeys((1, 2, 3, 4, 5), WATER)
    found = flood(early | late, late, first=22, n=40)
    np.testing.assert_array_equal(found[:, OUTCOME], [0, 2])


def test_the_longest_of_two_floods_is_told():
    found = flood({11: WATER, 16: WATER, 17: WATER, 18: WATER})
    np.testing.assert_array_equal(found[0, [FIRST_WET, FIRST_DRY]], [16, 19])


def test_one_dry_observation_does_not_end_a_flood():
    found = flood({12: WATER, 14: WATER})
    np.testing.assert_array_equal(found[0, [FIRST_WET, FIRST_DRY]], [12, 15])


def test_series_that_can_not_tell_say_why():
    nan = (np.nan,) * 3
    found = flood(dict.fromkeys(range(20), nan), dict.fromkeys(range(8), nan), dict.fromkeys(range(10, 20), nan))
    np.testing.assert_array_equal(found[:, OUTCOME], [-1, -2, -3])
    np.testing.assert_array_equal(found[:, N_OBS], [0, 12, 10])


def test_a_rise_within_the_noise_is_none():
    assert flood({13: MIXED, 14: MIXED}, gate=3.0)[0, OUTCOME] == 2
    assert flood({13: MIXED, 14: MIXED}, gate=60.0)[0, OUTCOME] == 0


def test_evidence_is_that_of_the_rules():
    usual, dark = -0.5, 0.54
    assert evidence(0.6, 0.07, 0.05, 0.09, usual, dark) == 2
    assert evidence(-0.15, 0.29, 0.18, 0.08, usual, dark) == 1
    assert evidence(-0.35, 0.20, 0.12, 0.04, usual, dark) == 0  # shadow
    assert evidence(0.2, 0.50, 0.30, 0.40, usual, dark) == 0  # too bright
    assert evidence(0.7, 0.16, 0.14, 0.13, usual, dark) == 0  # snow
    assert evidence(-0.1, 0.40, 0.15, 0.1, usual, dark) == 0  # not dark enough


def test_one_observation_is_never_proof():
    assert log_ratio(0.5, -0.5, 0.05) > 3
    assert log_ratio(0.5, -0.5, 0.001) < np.log(1 / 0.01) + 1.5
    assert log_ratio(-0.5, -0.5, 0.05) < -3


def test_support_comes_from_neighbours_of_the_same_time():
    score = np.zeros((7, 9), np.float32)
    date = np.full((7, 9), -1, np.float32)
    score[1:4, 1:4], date[1:4, 1:4] = 2, 12
    score[2, 4], date[2, 4] = 1, 12  # doubtful, three sure neighbours
    score[5, 6], date[5, 6] = 2, 12  # alone, one observation of open water
    score[5, 8], date[5, 8] = 4, 12  # alone, two of them
    found = supported(score, date, 2)
    assert found[1:4, 1:4].all()
    assert not found[2, 4]
    assert not found[5, 6]
    assert found[5, 8]
    score[2, 2], date[2, 2] = 1, 12  # doubtful inside
    assert supported(score, date, 2)[2, 2]
    date[2, 2] = 16
    assert not supported(score, date, 2)[2, 2]
