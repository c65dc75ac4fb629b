import numpy as np
import pytest

from geoalign.kernels.land_cover import NONE, assign, classes, describe, sample


def test_segments_are_described_as_they_are():
    years = np.arange(80) * 12 / 365.25
    wave = 1.5 * np.cos(2 * np.pi * (years - 0.2))
    series = np.full((2, 80, 1, 2), np.nan)
    series[0, :, 0, 0] = 10 ** ((-9 + wave) / 10)
    series[1, :, 0, 0] = 10 ** ((-16 + wave) / 10)
    series[:, 50:, 0, 0] = 0.01
    series[0, 10, 0, 0] = 0.0  # not a power
    breaks = np.full((2, 1, 2), -1, np.int32)
    breaks[0, 0, 0] = 50
    out = describe(series, breaks, years).reshape(3, 5, 1, 2)[..., 0, 0]
    assert out[0, 0] == pytest.approx(-9, abs=0.4)
    assert out[0, 2] == pytest.approx(-7, abs=0.05)
    assert out[0, 4] == pytest.approx(1.5, abs=1e-3)
    assert out[0, 3] == pytest.approx(1.5 / np.sqrt(2), abs=0.1)
    np.testing.assert_allclose(out[1, :4], [-20, -20, 0, 0], atol=1e-4)
    assert out[1, 4] == pytest.approx(0, abs=1e-3)
    assert np.isnan(out[2]).all()
    assert np.isnan(describe(series, breaks, years)[:, 0, 1]).all()
    assert np.isnan(describe(series[:, :20], np.full((1, 1, 2), -1, np.int32), years[:20])[4, 0, 0])


def planted(rng, centres, n):
    of = rng.integers(0, len(centres), n)
    return centres[of] + rng.normal(0, 0.4, (n, centres.shape[1])), of


def test_planted_classes_are_found_in_order_of_backscatter():
    rng = np.random.default_rng(0)
    centres = np.array([[-8, 2.2, 2.2, 1.0], [-20, 0, 3, 0.5], [-13, 1, 2.5, 2.0]])
    points, of = planted(rng, centres, 3000)
    scale = np.array([2.0, 2.0, 1.0, 2.0])
    found = classes([points[:1000], points[1000:]], n_class=3, scale=scale, apart=1.0, seed=0)
    np.testing.assert_allclose(found.reshape(3, 4), centres[[1, 2, 0]], atol=0.1)
    again = classes([points[:1000], points[1000:]], n_class=3, scale=scale, apart=1.0, seed=0)
    np.testing.assert_array_equal(found, again)
    # more classes than there are kinds of ground: those alike are one
    more = classes([points], n_class=6, scale=scale, apart=1.0, seed=1).reshape(6, 4)
    assert np.isfinite(more[:, 0]).sum() == 3
    features = np.tile(points.T[:, None].astype(np.float32), (1, 1, 1))
    none = np.full((1, 1, 3000), -1, np.int32)
    given = assign(features, none[0], none, found, scale)[0][0, 0]
    assert (given == np.array([2, 0, 1])[of]).mean() > 0.99


def test_before_and_after_are_those_of_the_strongest_change():
    scale = np.ones(4)
    centres = np.array([[-20.0, 0, 2, 0], [-10.0, 0, 2, 0]]).ravel()
    features = np.full((3 * 4, 1, 2), np.nan, np.float32)
    for s, level in enumerate((-20, -10, -19)):
        features[4 * s : 4 * s + 3, 0, 0] = [level, 0, 2]
    breaks = np.array([[[10, -1]], [[20, -1]]], np.int32)
    of, before, after = assign(features, np.array([[20, -1]], np.int32), breaks, centres, scale)
    assert of[:, 0, 0].tolist() == [0, 1, 0]
    assert (before[0, 0], after[0, 0]) == (1, 0)
    assert (of[:, 0, 1] == NONE).all()
    assert before[0, 1] == after[0, 1] == NONE


def test_too_few_segments_make_no_classes():
    assert np.isnan(classes([np.zeros((2, 4))], n_class=5, scale=np.ones(4), apart=1.0, seed=0)).all()
    assert sample(np.full((8, 3, 3), np.nan, np.float32), n_feature=4).shape == (0, 4)
