import numpy as np
import pytest
from scipy import stats

from geoalign.kernels.enl import (
    SCATTER_LOW,
    SCATTER_STEP,
    difference_histogram,
    difference_median,
    local_excess,
    looks_and_evenness,
    looks_of_differences,
    mean_intensity,
    scatter_histogram,
)


def estimate(series):
    one = np.ones((1, *series.shape[1:]), np.float32)
    return looks_and_evenness([scatter_histogram(series[None], one, False)])


@pytest.mark.parametrize("looks", [1.0, 4.4, 40.0])
@pytest.mark.parametrize("n_time", [2, 5, 20])
def test_looks_of_pure_speckle(looks, n_time):
    series = np.random.default_rng(0).gamma(looks, 1 / looks, (n_time, 120, 120))
    texture = np.exp(np.random.default_rng(1).normal(size=(120, 120)))
    found, even = estimate(series * texture)
    # Bartlett's factor is of first order: for a single look, twice observed, it is weakest
    assert found == pytest.approx(looks, rel=0.05 if looks > 1 else 0.12)
    assert even > (40 if looks * n_time < 5 else 100)


CHANGES = {
    "step": (slice(5, None), -5),
    "weak step": (slice(5, None), -3),
    "three dates": (slice(4, 7), -8),
    "four dates": (slice(3, 7), 6),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize(("share", "off"), [(0.1, 0.03), (0.2, 0.06)])
def test_change_hardly_moves_the_looks(what, share, off):
    rng = np.random.default_rng(3)
    series = rng.gamma(4.4, 1 / 4.4, (10, 150, 150))
    stable, _ = estimate(series)
    dates, size_db = CHANGES[what]
    series[dates, rng.random((150, 150)) < share] *= 10 ** (size_db / 10)
    found, even = estimate(series)
    assert found == pytest.approx(stable, rel=off)
    assert even > 40


@pytest.mark.parametrize("n_band", [1, 2])
def test_leaving_out_steps_leaves_the_scatter_of_stable_pixels_as_it_is(n_band):
    series = np.random.default_rng(9).gamma(6, 1 / 6, (n_band, 12, 250, 250))
    one = np.ones((n_band, 250, 250), np.float32)
    kept = scatter_histogram(series, one, False)[0, 12]
    share = np.cumsum(kept) / kept.sum()
    everything = (12 * np.log(series.mean(axis=1)) - np.log(series).sum(axis=1)).sum(axis=0)
    assert 0.7 < kept.sum() / everything.size < 0.9
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95, 0.99):
        at = np.exp(SCATTER_LOW + SCATTER_STEP * (np.searchsorted(share, quantile) + 1))
        assert (everything < at).mean() == pytest.approx(quantile, abs=0.02 if quantile < 0.9 else 0.006)


def test_where_every_pixel_steps_the_looks_are_still_a_number():
    series = np.random.default_rng(10).gamma(50, 1 / 50, (10, 12, 12))
    series[4:] *= 20
    found, _ = estimate(series)
    assert 0 < found < 2


def test_uneven_looks_are_noticed():
    rng = np.random.default_rng(4)
    looks = 8 * rng.chisquare(16, (200, 200)) / 16
    _, even = estimate(rng.gamma(looks, 1 / looks, (12, 200, 200)))
    assert 8 < even < 40


def test_gaps_of_every_length_are_used():
    rng = np.random.default_rng(5)
    series = rng.gamma(4.4, 1 / 4.4, (10, 150, 150))
    series[rng.random(series.shape) < 0.4] = np.nan
    found, _ = estimate(series)
    assert found == pytest.approx(4.4, rel=0.06)


def test_blocks_add_up_to_the_whole():
    series = np.random.default_rng(6).gamma(4.4, 1 / 4.4, (1, 8, 60, 50))
    one = np.ones((1, 60, 50), np.float32)
    whole = scatter_histogram(series, one, False)
    parts = [scatter_histogram(series[..., a], one[..., a], False) for a in (slice(0, 13), slice(13, 50))]
    np.testing.assert_array_equal(whole, parts[0] + parts[1])


def test_nothing_observed_gives_nan():
    found, even = estimate(np.full((5, 10, 10), np.nan))
    assert np.isnan(found)
    assert np.isinf(even)
    assert np.isnan(difference_median([difference_histogram(np.full((5, 4, 4), np.nan))]))


def test_noisy_ground_is_found_and_even_ground_is_left_alone():
    rng = np.random.default_rng(7)
    series = rng.gamma(20, 1 / 20, (10, 60, 60))
    series[:, :, 40:] = rng.gamma(4, 1 / 4, (10, 60, 20))
    excess = local_excess(series, difference_median([difference_histogram(series[:, :, :40])]))
    assert excess[:, :30].mean() < 1.08
    assert 3 < np.median(excess[:, 48:]) < 6


def test_a_step_over_the_whole_window_is_not_noise():
    rng = np.random.default_rng(8)
    series = rng.gamma(20, 1 / 20, (10, 40, 40))
    scene = difference_median([difference_histogram(series)])
    quiet = local_excess(series, scene).mean()
    series[5:, 5:25, 5:25] *= 0.2
    assert local_excess(series, scene)[10:20, 10:20].mean() < quiet + 0.1


def test_mean_leaves_out_what_is_not_power():
    series = np.array([[1.0, 4.0, np.nan, 0.0, -2.0], [np.nan] * 5])
    np.testing.assert_array_equal(mean_intensity(series), np.array([2.0, np.nan], np.float32))


@pytest.mark.parametrize(("row0", "col0"), [(0, 0), (5, 11), (13, 7)])
def test_excess_of_a_window_is_that_of_the_image(row0, col0):
    rng = np.random.default_rng(11)
    series = rng.gamma(8, 1 / 8, (40, 31, 32))
    series[:, :, 16:] = rng.gamma(3, 1 / 3, (40, 31, 16))
    series[rng.random(series.shape) < 0.2] = np.nan
    whole = local_excess(series, 0.4)
    part = local_excess(series[:, row0:, col0:].copy(), 0.4, row0, col0)
    edge = (4 if row0 else 0, 4 if col0 else 0)
    np.testing.assert_array_equal(part[edge[0] :, edge[1] :], whole[row0 + edge[0] :, col0 + edge[1] :])
    assert whole.max() > 1


def test_excess_is_the_median_over_dates_of_how_many_differences_are_large():
    rng = np.random.default_rng(12)
    series = rng.gamma(2, 1 / 2, (8, 9, 9))
    difference = np.abs(np.diff(np.log(series[:, 1:8, 1:8]), axis=0)).reshape(7, -1)
    share = np.median((difference > 0.4).mean(axis=1))
    wanted = (stats.norm.isf(0.25) / stats.norm.isf(share / 2)) ** 2 * np.exp(-2.33 / np.sqrt(7 * 49))
    assert local_excess(series, 0.4)[3:6, 3:6] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("looks", [1.0, 4.4, 20.0])
@pytest.mark.parametrize("ratio", [1.5, 4.0, 10.0])
def test_excess_is_the_ratio_of_variances_whatever_the_looks(looks, ratio):
    rng = np.random.default_rng(13)
    noise = np.log(rng.gamma(looks, 1 / looks, (25, 60, 60)))
    noise[:, :, 20:] *= np.sqrt(ratio)
    scene = difference_median([difference_histogram(np.exp(noise[:, :, :20]))])
    assert np.median(local_excess(np.exp(noise), scene)[:, 26:]) == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("looks", [0.8, 4.4, 60.0])
def test_looks_of_differences_of_pure_speckle(looks):
    series = np.random.default_rng(5).gamma(looks, 1 / looks, (20, 90, 90)).astype(np.float32)
    assert looks_of_differences(difference_median([difference_histogram(series)])) == pytest.approx(looks, rel=0.03)
    assert np.isnan(looks_of_differences(np.nan))
