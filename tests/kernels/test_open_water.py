import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from geoalign.kernels.open_water import (
    CENTRES,
    classes,
    decibel,
    evidence,
    gauss,
    level_histogram,
    settled,
    split,
    water_field,
)

BOUNDS, KNOWN = (-28.0, -11.0), (-19.0, 2.75)


def scene(water=0.3, seed=0, side=128):
    rng = np.random.default_rng(seed)
    wet = np.arange(side) < water * side
    db = np.where(wet, -20.0, -10.0) + rng.normal(0, 0.5, (side, side))
    return rng.gamma(4.4, 10 ** (db / 10) / 4.4), np.broadcast_to(wet, db.shape)


def counts_of(power, side=64):
    tiles = [power[r : r + side, c : c + side] for r in range(0, 128, side) for c in range(0, 128, side)]
    return np.stack([level_histogram(np.ascontiguousarray(tile)[None, None])[0] for tile in tiles])


def test_the_gaussian_is_one_and_knows_gaps():
    image = np.random.default_rng(0).normal(size=(20, 25))
    want = gaussian_filter1d(gaussian_filter1d(image, 1.0, 0, radius=3), 1.0, 1, radius=3)
    np.testing.assert_allclose(gauss(image, 1.0)[4:-4, 4:-4], want[4:-4, 4:-4])
    image[:] = 3.0
    image[5, 5] = np.nan
    out = gauss(image, 1.5)
    assert np.isnan(out[5, 5])
    np.testing.assert_allclose(out[np.isfinite(out)], 3.0)


def test_decibel_leaves_out_what_is_no_power():
    np.testing.assert_allclose(decibel(np.array([[1.0, 0.1, 0.0, np.nan, np.inf]])), [[0, -10, np.nan, np.nan, np.nan]])


def test_classes_are_learnt_where_tiles_hold_both():
    power, _ = scene()
    water, water_sd, land, land_sd, learnt = classes(counts_of(power), BOUNDS, KNOWN)
    assert learnt == 1
    assert (water, land) == (pytest.approx(-20.5, abs=0.8), pytest.approx(-10.5, abs=0.8))
    assert 0.7 < water_sd < 2
    assert 0.7 < land_sd < 2


def test_ground_without_water_is_told_as_such():
    power, _ = scene(water=0.0)
    found = classes(counts_of(power), BOUNDS, KNOWN)
    assert found[4] == 0
    np.testing.assert_allclose(found[:2], KNOWN)
    assert found[2] == pytest.approx(-10.5, abs=0.8)
    assert classes(np.zeros((2, 1, 240)), BOUNDS, KNOWN)[4] == 0


def test_a_dark_class_that_reaches_land_is_no_water_where_the_classes_have_to_be_apart():
    texture = gauss(np.random.default_rng(0).normal(0, 15, (128, 128)), 2.0)
    fields = counts_of(10 ** ((np.where(np.arange(128) < 50, -17.0, -10.0) + texture) / 10))
    assert [classes(fields, BOUNDS, KNOWN, reach)[4] for reach in (0.0, 4.0)] == [1, 0]
    assert classes(counts_of(scene()[0]), BOUNDS, KNOWN, 4.0)[4] == 1


def test_a_split_parts_two_normal_classes():
    h = 0.3 * np.exp(-0.5 * ((CENTRES + 20) / 1.5) ** 2) + 0.7 * np.exp(-0.5 * ((CENTRES + 10) / 1.5) ** 2)
    share, m1, s1, _, m2, s2 = split(h)
    assert share == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose([m1, s1, m2, s2], [-20, 1.5, -10, 1.5], atol=0.1)


def test_evidence_is_even_at_the_crossing_and_bounded():
    kind = np.array([-20.0, 2.0, -10.0, 2.0, 1.0])
    assert evidence(-15.0, kind) == pytest.approx(0)
    assert evidence(-40.0, kind) == evidence(-20.0, kind) == 3
    assert evidence(5.0, kind) == -3


def test_water_is_drawn_with_its_edge():
    power, wet = scene(seed=1)
    kinds = classes(counts_of(power), BOUNDS, KNOWN)[None]
    power[60:70, 100:110] = np.nan
    odds = water_field(power[None], kinds)
    assert np.isnan(odds[60:70, 100:110]).all()
    good = np.isfinite(odds)
    assert ((odds > 0) == wet)[good].mean() > 0.99


def test_water_that_fills_no_tile_is_learnt_from_its_hump():
    power, wet = scene(water=0.04)
    counts = counts_of(power)
    kind = classes(counts, BOUNDS, (-17.0, 2.75), 4.0)
    assert kind[4] == 0
    found = settled(counts, BOUNDS, kind)
    assert found[4] == 1
    assert (found[0], found[2]) == (pytest.approx(-20.5, abs=0.8), pytest.approx(-10.5, abs=0.8))
    assert settled(counts_of(scene(water=0.0)[0]), BOUNDS, kind)[4] == 0
    assert settled(np.zeros((2, 1, 240)), BOUNDS, kind).tolist() == kind.tolist()


def test_land_is_the_middle_of_what_is_no_water():
    power, _ = scene()
    counts = counts_of(np.where(np.random.default_rng(2).random((128, 128)) < 0.05, 1.0, power))
    found = settled(counts, BOUNDS, np.array([-20.0, 1.0, -14.0, 4.0, 1.0]))
    assert found[2] == pytest.approx(-10.3, abs=0.8)
    assert found[3] < 2.5
