"""BFAST Monitor against its definition, written out with NumPy's least squares for one series."""

import numpy as np
import pytest
from scipy import linalg

from geoalign import ConfigError
from geoalign.kernels import bfast_monitor as kernel


def series(n_pixel=60, n_time=220, seed=0):
    rng = np.random.default_rng(seed)
    time = np.datetime64("2000-01-05") + np.cumsum(rng.integers(10, 22, n_time)).astype("timedelta64[D]")
    year = (time - time[0]).astype(float) / 365.25
    y = 0.6 + 0.1 * np.cos(2 * np.pi * year) + 0.01 * year + 0.03 * rng.standard_normal((n_pixel, n_time))
    y[: n_pixel // 3, 150:] -= rng.uniform(0.02, 0.2, (n_pixel // 3, 1))
    y[n_pixel // 3 : n_pixel // 2, :40] += 0.1
    y[rng.random(y.shape) < 0.3] = np.nan
    return y.astype(np.float32), time


def by_definition(y, x, first, process, h, bound, roc):
    """(scene of the break or -1, observations of history, magnitude) of one series, no shortcut taken."""
    p = x.shape[1]
    at = np.flatnonzero(np.isfinite(y))
    past, later = at[at < first], at[at >= first]
    if roc:
        back = past[::-1]
        w = []
        for k in range(p, back.size):
            beta = np.linalg.lstsq(x[back[:k]], y[back[:k]].astype(float), rcond=None)[0]
            xx = np.linalg.inv(x[back[:k]].T @ x[back[:k]])
            w.append((y[back[k]] - x[back[k]] @ beta) / np.sqrt(1 + x[back[k]] @ xx @ x[back[k]]))
        w = np.array(w)
        reach = np.abs(np.cumsum(w)) / (w.std(ddof=1) * np.sqrt(w.size))
        outside = np.flatnonzero(reach > roc * (1 + 2 * np.arange(1, w.size + 1) / w.size))
        if outside.size:
            past = np.sort(back[: p + outside[0]])
    n = past.size
    window = int(h * n)
    if n <= p or window <= 1:
        return -1, 0, np.nan
    beta = np.linalg.lstsq(x[past], y[past].astype(float), rcond=None)[0]
    every = np.concatenate([past, later])
    e = y[every] - x[every] @ beta
    sigma = np.sqrt((e[:n] ** 2).sum() / (n - p))
    found, highest = -1, 0.0
    for k in range(n + 1, every.size + 1):
        share = k / n
        flat = np.sqrt(2 * (1.0 if share <= np.e else np.log(share)))
        curved = np.sqrt(share * (share - 1) * (bound**2 + np.log(share / (share - 1))))
        if process == "ols_mosum":
            reach, limit = abs(e[k - window : k].sum()) / (sigma * np.sqrt(n)), bound * flat
        elif process == "ols_cusum":
            reach, limit = abs(e[:k].sum()) / (sigma * np.sqrt(n)), curved
        else:
            used = every[:k] if process == "re" else every[k - window : k]
            if used.size <= p:
                continue
            now = np.linalg.lstsq(x[used], y[used].astype(float), rcond=None)[0]
            basis = x[past] if process == "re" else x[used]
            root = linalg.sqrtm(basis.T @ basis / basis.shape[0]).real
            highest = max(highest, np.abs(root @ (now - beta)).max() * used.size / (sigma * np.sqrt(n)))
            reach, limit = highest, curved if process == "re" else bound * flat
        if reach > limit and found < 0:
            found = every[k - 1]
    return found, n, np.median(e[n:])


@pytest.mark.parametrize("process", kernel.PROCESSES)
@pytest.mark.parametrize("roc", [False, True])
def test_it_is_what_the_definition_says(process, roc):
    y, time = series(24 if process in ("re", "me") else 60)
    x, _ = kernel.design(time, 1)
    bound = kernel.critical(process, 0.25, 0.05, 4)
    roc = kernel.roc_critical(0.05) if roc else 0.0
    date, after, start, n_history, magnitude, _, n_obs = kernel.monitor(
        np.ascontiguousarray(y.T), x, 110, kernel.PROCESSES.index(process), 0.25, bound, roc
    )
    for i in range(y.shape[0]):
        found, n, size = by_definition(y[i], x, 110, process, 0.25, bound, roc)
        assert date[i] == found
        assert n_history[i] == n
        assert magnitude[i] == pytest.approx(size, abs=1e-6)
        assert after[i] < date[i] or found < 0
    np.testing.assert_array_equal(n_obs, np.isfinite(y).sum(1))
    assert (date >= 0).any()
    assert (start >= 0).all()
    assert not roc or (n_history < np.isfinite(y[:, :110]).sum(1)).any()


def test_critical_values_are_the_published_ones():
    assert kernel.critical("ols_mosum", 0.25, 0.05, 4) == pytest.approx(1.3418, abs=1e-4)
    assert kernel.critical("ols_cusum", 0.25, 0.05, 4) == pytest.approx(2.7955, abs=1e-3)
    assert kernel.roc_critical(0.05) == pytest.approx(0.9479, abs=2e-3)
    assert kernel.critical("me", 0.25, 0.04, 4) == kernel.critical("ols_mosum", 0.25, 0.01, 4)
    with pytest.raises(ConfigError, match=r"0\.001 to 0\.05"):
        kernel.critical("ols_mosum", 0.25, 0.2, 4)


@pytest.mark.parametrize("process", kernel.PROCESSES)
def test_p_values_meet_the_level_at_the_critical_value(process):
    c = np.array([kernel.critical(process, 0.25, alpha, 4) for alpha in (0.05, 0.02)])
    np.testing.assert_allclose(kernel.p_values(c, process, 0.25, 4), [0.05, 0.02], rtol=0.12)


def test_years_are_counted_as_in_r():
    _, time = kernel.design(
        np.array(["2004-01-01", "2004-02-28", "2004-02-29", "2004-03-01", "2005-12-31"], "M8[D]"), 1
    )
    np.testing.assert_allclose(time - [2004, 2004, 2004, 2004, 2005], np.array([0, 58, 59, 59, 364]) / 365, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 41])
def test_the_median_is_the_median(n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(size=n), rng.integers(0, 3, n).astype(float)):
        assert kernel.median(np.append(values, 9.0), n, np.empty((2, n + 1))) == pytest.approx(np.median(values))
