import numpy as np
import pytest

from benchmarks.sar_stack import speckle, wishart
from geoalign.kernels.omnibus import best_step, breaks_of, equal_means, gate, ln_evidence, omnibus, tail, wider
from tests.naive import omnibus_z


def gamma(shape, looks=4.4, seed=0):
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape)


def run(series, looks=4.4, alpha=0.01, d0=np.inf, slope=0.0, sigma=0.0, lag=0.0, **options):
    n_pixel, n_band, _ = series.shape
    options = {"prior": 0.1, "spread": 0.9, "min_obs": 3, "max_breaks": 3} | options
    enl = np.full((n_pixel, n_band), looks, np.float32)
    return omnibus(
        series, enl, np.full((n_pixel, n_band), slope), np.full((n_pixel, 1), sigma), d0, alpha,
        options["prior"], options["spread"], options["min_obs"], options["max_breaks"], lag,
    )  # fmt: skip


@pytest.mark.parametrize("n_band", [1, 2, 3])
@pytest.mark.parametrize("n_time", [2, 7, 30])
def test_q_is_conradsens_where_looks_are_equal(n_band, n_time):
    values = gamma((n_band, n_time)) * 0.07
    z, f, omega = equal_means(values, np.full(values.shape, 4.4), 0, n_time, 0)
    assert (z, f, omega) == pytest.approx(omnibus_z(values, 4.4))


def test_factors_multiply_to_q():
    values = gamma((2, 12))
    looks = np.full(values.shape, 1e6)  # Bartlett's factors differ, and are 1 in this limit
    whole = equal_means(values, looks, 0, 12, 0)[0]
    factors = [equal_means(values, looks, 0, j, j - 1)[0] for j in range(2, 13)]
    assert sum(factors) == pytest.approx(whole, rel=1e-5)


def test_scale_and_order_do_not_matter_to_q():
    values = gamma((1, 9))
    looks = np.full(values.shape, 4.4)
    z = equal_means(values, looks, 0, 9, 0)[0]
    assert equal_means(values * 1e-4, looks, 0, 9, 0)[0] == pytest.approx(z)
    assert equal_means(values[:, ::-1].copy(), looks, 0, 9, 0)[0] == pytest.approx(z)


@pytest.mark.parametrize(("n_time", "n_band"), [(10, 1), (30, 1), (10, 2), (30, 2)])
def test_size_of_the_gate_at_4_4_looks(n_time, n_band):
    flagged = run(gamma((100_000, n_band, n_time), seed=n_time + n_band))[1] > 0
    assert 0.008 < flagged.mean() < 0.013


def test_size_holds_where_every_date_has_its_own_looks():
    looks = np.linspace(2, 12, 12)
    rng = np.random.default_rng(1)
    values = rng.gamma(looks, 1 / looks, (20_000, 1, 12))
    p = np.array([gate(v, looks[None].copy(), 0, 12, np.inf)[0] for v in values])
    assert 0.007 < (p < 0.01).mean() < 0.013


def test_size_holds_where_looks_vary_between_pixels():
    rng = np.random.default_rng(2)
    looks = 8 * rng.chisquare(20, (60_000, 1, 1)) / 20
    flagged = [run(rng.gamma(looks, 1 / looks, (60_000, 1, 10)), 8, d0=d0)[1] for d0 in (np.inf, 20.0)]
    assert (flagged[0] > 0).mean() > 0.015
    assert 0.006 < (flagged[1] > 0).mean() < 0.014


def test_a_planted_step_is_dated_and_directed():
    series = gamma((500, 2, 20), 10)
    series[:, :, 13:] /= 4
    n_obs, n, _, first, last, strongest, before, size, direction, p, *_ = run(series, 10)
    assert (n > 0).all()
    assert (strongest == 13).mean() > 0.9
    assert (before < strongest).all()
    assert (direction == -1).mean() > 0.99
    assert np.median(size) == pytest.approx(-6.02, abs=0.2)
    assert np.median(p) > 0.99


def test_two_changes_are_told_apart_in_order():
    series = gamma((300, 1, 24), 20)
    series[:, :, 8:16] *= 4
    *_, break_date, break_size, break_p = run(series, 20)
    two = (break_date[:, 1] >= 0) & (break_date[:, 2] < 0)
    assert two.mean() > 0.9
    assert (np.abs(break_date[two, :2] - [8, 16]) <= 0).mean() > 0.95
    assert (np.sign(break_size[two, :2]) == [1, -1]).all()
    assert (break_p[two, :2] > 0.9).mean() > 0.95


def test_hundreds_of_dates_neither_overflow_nor_underflow():
    series = gamma((20, 2, 400), 4.4) * 1e-3
    series[:, :, 200:] *= 0.1
    assert (run(series)[5] == 200).mean() > 0.9


def test_pixels_use_their_own_dates():
    series = gamma((200, 1, 20), 10)
    series[:, :, 12:] *= 5
    series[:, :, 10:14] = np.nan
    series[:, :, 3] = 0.0  # not a power
    n_obs, _, _, _, _, strongest, before, *_ = run(series, 10)
    assert (n_obs == 15).all()
    assert (strongest == 14).mean() > 0.9
    assert (before[strongest == 14] == 9).all()


def test_too_few_and_constant_series_have_defined_answers():
    series = np.full((4, 1, 6), np.nan)
    series[1, 0, :2] = 1.0
    series[2] = 0.25
    series[3] = np.inf
    n_obs, n, flag, *rest = run(series)
    np.testing.assert_array_equal(n_obs, [0, 2, 6, 0])
    np.testing.assert_array_equal(n, 0)
    probability = rest[6]
    assert np.isnan(probability[[0, 1, 3]]).all()
    assert probability[2] < 0.1


def test_probability_is_the_share_that_changed():
    rng = np.random.default_rng(5)
    n, prior = 40_000, 0.2
    changed = rng.random(n) < prior
    series = rng.gamma(4.4, 1 / 4.4, (n, 1, 12))
    start = rng.integers(1, 12, n)
    ratio = np.exp(rng.normal(0, 0.9, n))
    after = changed[:, None] & (np.arange(12) >= start[:, None])
    series[:, 0] *= np.where(after, ratio[:, None], 1)
    p = run(series, prior=prior, spread=0.9)[9]
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.7), (0.7, 0.9), (0.9, 1.01)):
        some = (p >= low) & (p < high)
        assert changed[some].mean() == pytest.approx(p[some].mean(), abs=0.05)


def test_a_residual_shift_widens_the_noise():
    series = gamma((2000, 1, 12), 10)
    series[:, :, 6:] *= 1.6
    sure = run(series, 10)
    doubtful = run(series, 10, slope=0.8, sigma=0.5)
    assert (doubtful[1] > 0).mean() < 0.5 * (sure[1] > 0).mean()
    excused = (sure[1] > 0) & (doubtful[1] == 0)
    assert (doubtful[2][excused] & 2 > 0).all()


def test_parts_agree_with_each_other():
    values = gamma((1, 15), 8)
    values[:, 9:] *= 3
    looks = np.full(values.shape, 8.0)
    found = np.empty(15, np.int64)
    count, p, located = breaks_of(values, looks, 0.01, np.inf, found)
    where, z, p_step = best_step(values, looks, 0, 15, np.inf)
    assert (count, found[0], located) == (1, where, True)
    assert p <= p_step / 0.9 + 1e-12
    assert tail(z, 1.0, 0.0) < p_step
    assert ln_evidence(values, looks, np.inf, found, count, 0.9) > 3


@pytest.mark.parametrize("looks", [1.0, 4.4, 20.0])
@pytest.mark.parametrize("n_time", [5, 60, 200])
def test_factors_in_logarithms_add_up_to_q(looks, n_time):
    """sum ln R_j = ln Q, Bartlett's factors taken off again."""
    values = gamma((2, n_time), looks)
    weights = np.full(values.shape, looks)

    def ln_ratio(stop, part):
        z, f, omega = equal_means(values, weights, 0, stop, part)
        inverse = stop / looks if part == 0 else 1 / (looks * part) + 1 / (looks * (stop - part))
        degrees = stop - 1.0 if part == 0 else 1.0
        return -0.5 * z / max(1 - (inverse - 1 / (looks * stop)) / (6 * degrees), 0.1)

    parts = [ln_ratio(j, j - 1) for j in range(2, n_time + 1)]
    assert sum(parts) == pytest.approx(ln_ratio(n_time, 0), rel=1e-9)


@pytest.mark.parametrize("n_time", [60, 120, 160])
def test_a_drop_of_10_db_is_found_in_long_series(n_time):
    series = gamma((60, 2, n_time), 4.4, seed=n_time) * 0.05
    series[:, :, n_time // 2 :] *= 0.1
    found = run(series)
    assert (found[1] > 0).all()
    assert (np.abs(found[5] - n_time // 2) <= 1).mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("n_time", [2, 10, 60, 200])
@pytest.mark.parametrize("looks", [2.0, 20.0])
def test_size_over_lengths_and_looks(n_time, looks):
    n = min(60_000, 3_000_000 // n_time**2)
    flagged = (run(gamma((max(n, 2000), 1, n_time), looks, seed=n_time), looks, alpha=0.05, min_obs=2)[1] > 0).mean()
    assert 0.035 < flagged < 0.065


def test_correlated_dates_are_allowed_for():
    lag, n, j = 0.4, 20, 7
    cov = lag ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    contrast = np.where(np.arange(n) < j, -1 / j, 1 / (n - j))
    assert wider(j, n - j, lag) == pytest.approx(contrast @ cov @ contrast / (contrast @ contrast))
    series = np.moveaxis(np.stack([speckle(np.random.default_rng(s), (40, 4000), 4.4, 0.3) for s in (1, 2)]), 2, 0)
    flagged = [(run(np.ascontiguousarray(series), lag=r)[1] > 0).mean() for r in (0.0, 0.3)]
    assert flagged[0] > 0.05
    assert flagged[1] < 0.012


CORRELATED = [[0.1, 0.03 + 0.01j], [0.03 - 0.01j, 0.02]]


def of_matrices(series, looks, alpha=0.01):
    one = np.full((len(series), 1), float(looks))
    return omnibus(series, one, 0 * one, 0 * one, np.inf, alpha, 0.1, 0.9, 3, 3)


def conradsen_covariances(values, looks):
    """The omnibus of k matrices of 2 x 2 and equal looks, as written: (z, f, omega2, ln Q)."""
    k, p = values.shape[1], 2
    c = np.array([[values[0], values[2] + 1j * values[3]], [values[2] - 1j * values[3], values[1]]]).transpose(2, 0, 1)
    ln_det = np.log(np.linalg.det(looks * c).real).sum()
    ln_q = looks * (p * k * np.log(k) + ln_det - k * np.log(np.linalg.det(looks * c.sum(axis=0)).real))
    f = (k - 1) * p**2
    rho = 1 - (2 * p**2 - 1) / (6 * (k - 1) * p) * (k / looks - 1 / (looks * k))
    omega = p**2 * (p**2 - 1) / (24 * rho**2) * (k / looks**2 - 1 / (looks * k) ** 2)
    return -2 * rho * ln_q, f, omega - p**2 * (k - 1) / 4 * (1 - 1 / rho) ** 2, ln_q


@pytest.mark.parametrize("n_time", [2, 9])
def test_q_of_matrices_is_conradsens_where_looks_are_equal(n_time):
    values = wishart((n_time,), 5, CORRELATED)
    found = equal_means(values, np.full((1, n_time), 5.0), 0, n_time, 0)
    assert found == pytest.approx(conradsen_covariances(values, 5)[:3])


def test_factors_of_matrices_multiply_to_q():
    values = wishart((12,), 5, CORRELATED)
    looks = np.full((1, 12), 5.0)

    def ln_ratio(stop, n_part):
        z, f, _ = equal_means(values, looks, 0, stop, n_part)
        groups = np.full(12, 5.0) if n_part == 0 else np.array([5.0 * n_part, 5.0])
        return -0.5 * z / (1 - 7 / (12 * (groups.size - 1)) * ((1 / groups).sum() - 1 / groups.sum()))

    assert sum(ln_ratio(j, j - 1) for j in range(2, 13)) == pytest.approx(ln_ratio(12, 0), rel=1e-9)
    assert ln_ratio(12, 0) == pytest.approx(conradsen_covariances(values, 5)[3])


@pytest.mark.parametrize(("n_time", "looks"), [(5, 5), (20, 5), (20, 12)])
def test_size_of_the_gate_of_matrices(n_time, looks):
    flagged = of_matrices(wishart((30_000, n_time), looks, CORRELATED, seed=n_time).copy(), looks)[1] > 0
    assert 0.007 < flagged.mean() < 0.014


def test_a_change_of_the_correlation_alone_is_found_by_the_matrices_alone():
    series = wishart((400, 20), 6, [[0.1, 0.04], [0.04, 0.02]])
    series[..., 12:] = wishart((400, 8), 6, [[0.1, -0.02], [-0.02, 0.02]], seed=1)
    n, strongest, direction = (of_matrices(series, 6)[i] for i in (1, 5, 8))
    assert (n > 0).mean() > 0.98
    assert (abs(strongest - 12) <= 1).mean() > 0.9
    assert (direction == 0).all()
    assert (run(series[:, :2].copy(), 6)[1] > 0).mean() < 0.05


def test_a_matrix_that_grows_has_its_direction_and_one_that_is_none_is_not_observed():
    series = wishart((200, 20), 6, CORRELATED)
    series[..., 12:] *= 4
    series[:50, 2, 3] = series[:50, 0, 3]
    n_obs, n, *_, size, direction, _, _, _, _, _ = of_matrices(series, 6)
    assert (n > 0).all()
    assert (direction == 1).mean() > 0.99
    assert np.median(size) == pytest.approx(6.02, abs=0.3)
    assert (n_obs[:50] == 19).all()
    assert (n_obs[50:] == 20).all()
