import numpy as np
import pytest

from benchmarks.sar_stack import speckle
from geoalign.detectors.gamma_glr import limits
from geoalign.kernels.gamma_breaks import breaks
from geoalign.kernels.gamma_lanes import (
    COMMON,
    INVERSE,
    LANE,
    LOGS,
    MASS,
    SUMS,
    WEIGHTS,
    Z,
    chances,
    correlated,
    fill_odds,
    fill_uniform,
    interval,
    padded,
    part_peaks,
    ratios,
)
from tests.naive import gamma_steps


def gamma(shape, looks=4.4, seed=0):
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape).astype(np.float32)


def run(series, looks=4.4, alpha=0.01, d0=np.inf, lag=0.0, slope=0.0, sigma=0.0, prior=0.1, max_breaks=4):
    """`breaks` of (band, time, pixel), as a dict of (pixel,) arrays."""
    n_band, n_time, n = series.shape
    own, steep = (np.full((n_band, 1, n), v, np.float32) for v in (looks, slope))
    shift = np.full((1, 1, n), sigma, np.float32)
    out = breaks(
        tuple(series[:, :, None]), own, steep, shift, limits(alpha, n_time, n_band), d0, lag, prior, 4 / 4.343, 3,
        max_breaks,
    )  # fmt: skip
    names = ["n_obs", "n_changes", "flag", "strongest", "after", "by", "magnitude", "direction", "probability"]
    names += ["break_date", "break_after", "break_by", "break_magnitude", "break_probability"]
    return {name: values[..., 0, :] for name, values in zip(names, out, strict=True)}


def steps(values, looks, low, high, lag=0.0, lane=5):
    """(rows Z, COMMON, MASS of a segment, the largest of the first two), in a lane among others that are idle."""
    n_band, n = values.shape
    size = padded(n) * LANE
    sums, shift = np.zeros((4, n_band, n + 1, LANE)), np.zeros(LANE, bool)
    for row, what in ((SUMS, looks * values), (WEIGHTS, looks), (LOGS, looks * np.log(values)), (INVERSE, 1 / looks)):
        sums[row, :, 1:, lane] = np.cumsum(what, axis=1)
    start, length = np.zeros((2, LANE), np.int64)
    start[lane], length[lane], shift[lane] = low, high - low, True
    own, tables = np.ones((n_band, LANE), np.float32), np.zeros((6, size), np.float32)
    work, out, odds = (np.zeros((k, size), np.float32) for k in (2, 3, 3))
    best, factor = np.zeros((2, LANE), np.float32), np.zeros(LANE)
    wider = correlated(n, lag) if lag else np.ones((0, 0), np.float32)
    fill_uniform(length.astype(np.float32), padded(high - low - 1), wider, tables)
    m = ratios(sums, start, length, own, shift, np.inf, tables, work, out, best)
    fill_odds(sums, start, length, m, own, shift, 0.9, tables, odds)
    chances(out, odds, length, m, factor)
    return out.reshape(3, -1, LANE)[:, : high - low - 1, lane], best[:, lane], out


@pytest.mark.parametrize("n_band", [1, 2, 3])
@pytest.mark.parametrize(("low", "high"), [(0, 70), (3, 68), (10, 12)])
def test_ratios_are_those_of_the_definition(n_band, low, high):
    values = gamma((n_band, 70)).astype(float) * 0.02
    looks = np.random.default_rng(1).uniform(1, 9, values.shape)
    out, best, _ = steps(values, looks, low, high)
    z, alike = gamma_steps(values[:, low:high], looks[:, low:high])
    np.testing.assert_allclose(out[Z], z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[COMMON], alike, rtol=1e-4, atol=1e-5)
    assert list(best) == pytest.approx([z.max(), alike.max()], rel=1e-5)


@pytest.mark.parametrize("n_band", [1, 2])
def test_peaks_of_both_parts_are_those_of_each_alone(n_band):
    values, n, looks = gamma((n_band, 41, LANE)).astype(float), 41, np.full((n_band, LANE), 4.4, np.float32)
    sums = np.zeros((4, n_band, n + 1, LANE))
    sums[SUMS, :, 1:] = np.cumsum(values, axis=1)
    at = np.random.default_rng(2).integers(1, n + 1, LANE)
    size = padded(n) * LANE
    work, out, best = np.zeros((2, size), np.float32), np.zeros((3, size), np.float32), np.zeros((4, LANE), np.float32)
    part_peaks(sums, at, n, looks, np.zeros((6, size), np.float32), work, out, best)
    for k in range(LANE):
        for part, (low, high) in enumerate(((0, at[k]), (at[k], n))):
            if high - low > 1:
                z, alike = gamma_steps(values[:, low:high, k], np.full((n_band, high - low), 4.4))
                assert list(best[2 * part : 2 * part + 2, k]) == pytest.approx([z.max(), alike.max()], rel=1e-4)
            else:
                assert max(best[2 * part : 2 * part + 2, k]) < 1e-6


@pytest.mark.parametrize(("d0", "lag"), [(np.inf, 0.0), (40.0, 0.0), (np.inf, 0.3), (40.0, 0.3)])
def test_pixels_are_searched_alike_alone_and_among_full_lanes(d0, lag):
    series = gamma((2, 60, 3 * LANE), seed=5)
    series[:, 20:, ::2] *= 0.4
    series[:, 40:, ::6] *= 0.4
    together = run(series, d0=d0, lag=lag)
    assert (together["n_changes"] > 1).sum() > 20
    # lanes that are not all filled take the longer way
    alone = [run(series[:, :, i : i + 37].copy(), d0=d0, lag=lag) for i in range(0, 3 * LANE, 37)]
    for name, values in together.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in alone], axis=-1), values, err_msg=name)


def test_correlated_dates_make_a_mean_as_uncertain_as_it_is():
    lag, n, j = 0.4, 30, 12
    cov = lag ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    contrast = np.where(np.arange(n) < j, -1 / j, 1 / (n - j))
    wider = contrast @ cov @ contrast / (contrast @ contrast)
    values, looks = gamma((1, n)).astype(float), np.full((1, n), 4.4)
    assert steps(values, looks, 0, n)[0][Z, j - 1] / steps(values, looks, 0, n, lag)[0][Z, j - 1] == pytest.approx(
        wider, rel=1e-4
    )


def test_the_posterior_of_dates_adds_up_and_its_interval_holds_what_it_says():
    values, looks = gamma((2, 40), seed=4).astype(float), np.full((2, 40), 4.4)
    values[:, 25:] *= 0.6
    out, _, rows = steps(values, looks, 0, 40, lane=7)
    assert out[MASS].sum() == pytest.approx(1)
    at, first, last = interval(rows[MASS], 39, 7, 0.95)
    assert first <= at <= last
    assert out[MASS, first : last + 1].sum() >= 0.95
    assert out[MASS, at] == out[MASS].max()


@pytest.mark.parametrize(("looks", "n_time", "n_band"), [(1, 30, 2), (4.4, 12, 1), (4.4, 90, 2), (15, 40, 3)])
def test_size_is_alpha(looks, n_time, n_band):
    flagged = run(gamma((n_band, n_time, 60_000), looks, seed=n_time), looks)["n_changes"] > 0
    assert 0.006 < flagged.mean() < 0.012


def test_size_holds_for_correlated_dates_whose_correlation_is_known():
    series = np.stack([speckle(np.random.default_rng(s), (60, 20_000), 4.4, 0.3) for s in (6, 7)]).astype(np.float32)
    assert (run(series)["n_changes"] > 0).mean() > 0.07
    assert (run(series, lag=0.3)["n_changes"] > 0).mean() < 0.011


def test_size_holds_where_looks_vary_between_pixels():
    rng = np.random.default_rng(2)
    looks = 8 * rng.chisquare(20, 60_000) / 20
    series = rng.gamma(looks, 1 / looks, (2, 20, 60_000)).astype(np.float32)
    assert (run(series, 8)["n_changes"] > 0).mean() > 0.02
    assert 0.004 < (run(series, 8, d0=20.0)["n_changes"] > 0).mean() < 0.013


def test_a_step_is_dated_sized_and_directed():
    series = gamma((2, 60, 800))
    series[:, 37:] /= 4
    found = run(series)
    assert (found["n_changes"] >= 1).all()
    assert (found["strongest"] == 37).mean() > 0.7
    assert ((found["after"] < 37) & (found["by"] >= 37)).mean() > 0.94
    assert (found["direction"] == -1).mean() > 0.99
    assert np.median(found["magnitude"]) == pytest.approx(-6.02, abs=0.2)
    assert np.median(found["probability"]) > 0.999


def test_several_changes_are_told_apart_in_order():
    series = gamma((2, 80, 300), 10)
    series[:, 20:45] *= 4
    series[:, 60:] *= 0.3
    found = run(series, 10)
    three = found["n_changes"] == 3
    assert three.mean() > 0.95
    assert (np.abs(found["break_date"][:3, three] - [[20], [45], [60]]) <= 1).mean() > 0.97
    assert (np.sign(found["break_magnitude"][:3, three]) == [[1], [-1], [-1]]).all()
    assert (found["break_date"][3, three] == -1).all()
    assert (found["break_probability"][:3, three] > 0.9).mean() > 0.97


def test_probability_is_the_share_that_changed():
    rng = np.random.default_rng(5)
    n, prior = 60_000, 0.2
    changed = rng.random(n) < prior
    both = rng.multivariate_normal([0, 0], 0.85 * np.array([[1, 0.7], [0.7, 1]]), n).T
    after = changed & (np.arange(24)[:, None] >= rng.integers(1, 24, n))
    series = rng.gamma(4.4, 1 / 4.4, (2, 24, n)) * np.where(after, np.exp(both)[:, None], 1)
    p = run(series.astype(np.float32), prior=prior)["probability"]
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.01)):
        some = (p >= low) & (p < high)
        assert changed[some].mean() == pytest.approx(p[some].mean(), abs=0.04)


def test_pixels_use_their_own_dates():
    series = gamma((2, 40, 200), 10)
    series[:, 22:] *= 5
    series[:, 20:25] = np.nan
    series[0, 3] = 0.0  # not a power
    series[1, 4] = np.inf
    found = run(series, 10)
    assert (found["n_obs"] == 33).all()
    assert (found["strongest"] == 25).mean() > 0.95
    assert (found["after"][found["strongest"] == 25] <= 19).all()


def test_a_pixel_has_the_same_answer_wherever_it_lies_in_its_row():
    series = gamma((2, 33, 50), 4.4, seed=9)
    series[:, 20:, ::3] *= 0.4
    series[0, 5, ::4] = np.nan
    whole = run(series)
    for start in (1, 7, 33):
        part = run(np.ascontiguousarray(series[:, :, start:]))
        for name, values in part.items():
            np.testing.assert_array_equal(values, whole[name][..., start:])


def test_too_few_and_constant_series_have_defined_answers():
    series = np.full((1, 6, 4), np.nan, np.float32)
    series[0, :2, 1] = 1.0
    series[:, :, 2] = 0.25
    series[:, :, 3] = np.inf
    found = run(series)
    np.testing.assert_array_equal(found["n_obs"], [0, 2, 6, 0])
    np.testing.assert_array_equal(found["n_changes"], 0)
    assert np.isnan(found["probability"][[0, 1, 3]]).all()
    assert found["probability"][2] < 0.1


def test_a_residual_shift_widens_the_noise():
    series = gamma((1, 30, 2000), 10)
    series[:, 15:] *= 1.4
    sure, doubtful = run(series, 10), run(series, 10, slope=0.8, sigma=0.5)
    assert (doubtful["n_changes"] > 0).mean() < 0.5 * (sure["n_changes"] > 0).mean()
    excused = (sure["n_changes"] > 0) & (doubtful["n_changes"] == 0)
    assert (doubtful["flag"][excused] & 2 > 0).all()
