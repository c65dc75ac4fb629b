"""Whittaker's smoother on irregular dates, held against dense linear algebra and known curves."""

import numpy as np

from geoalign.kernels.whittaker import penalty, smooth


def dense(y, days, days_halved, rounds=5):
    """The same, written out: a matrix for the curvature, solved as a whole."""
    n = days.size
    seen = np.isfinite(y)
    curve = np.zeros((n, n))
    for i in range(1, n - 1):
        a, b = days[i] - days[i - 1], days[i + 1] - days[i]
        row = np.zeros(n)
        row[i - 1 : i + 2] = 2 / (a * (a + b)), -2 / (a * b), 2 / (b * (a + b))
        curve += (a + b) / 2 * np.outer(row, row)
    at = np.flatnonzero(seen)
    strength = (days_halved / (2 * np.pi)) ** 4 * (at.size - 1) / (days[at[-1]] - days[at[0]])
    w = seen.astype(float)
    for _ in range(rounds):
        z = np.linalg.solve(np.diag(w) + strength * curve, w * np.where(seen, y, 0))
        r = np.abs(y - z)[seen]
        u = r / (4.685 * np.median(r) / 0.6745)
        w[seen] = np.where(u < 1, (1 - u**2) ** 2, 0)
    z[: at[0]] = np.nan
    z[at[-1] + 1 :] = np.nan
    return z


def series(seed, n_pixel=6, n_time=90):
    rng = np.random.default_rng(seed)
    days = np.cumsum(rng.uniform(4, 20, n_time))
    truth = 0.5 + 0.2 * np.sin(2 * np.pi * (days / 365.25 + rng.random((n_pixel, 1))))
    y = truth + rng.normal(0, 0.02, truth.shape)
    return rng, days, truth, y


def test_it_is_the_solution_of_the_whole_system():
    rng, days, _, y = series(0)
    y[rng.random(y.shape) < 0.3] = np.nan
    found = smooth(y.astype(np.float32), days, penalty(days), (90 / (2 * np.pi)) ** 4, 1e9)
    for k in range(len(y)):
        np.testing.assert_allclose(found[k], dense(y[k].astype(np.float32).astype(float), days, 90.0), atol=2e-4)


def test_single_clouds_are_passed_by():
    rng, days, truth, y = series(1, n_pixel=200)
    y[rng.random(y.shape) < 0.03] = -0.1
    found = smooth(y.astype(np.float32), days, penalty(days), (90 / (2 * np.pi)) ** 4, 1e9)
    assert np.abs(found - truth)[:, 5:-5].mean() < 0.012
    assert np.quantile(np.abs(found - truth)[:, 5:-5], 0.99) < 0.05


def test_a_swing_as_long_as_asked_is_halved():
    days = np.arange(0, 3000, 5.0)
    y = np.sin(2 * np.pi * days / 120)[None].astype(np.float32)
    found = smooth(y, days, penalty(days), (120 / (2 * np.pi)) ** 4, 1e9)[0, 100:-100]
    assert abs(found.max() - 0.5) < 0.02


def test_it_is_left_out_in_long_gaps_outside_and_where_there_is_little():
    _, days, _, y = series(2, n_pixel=3)
    y[0, 30:60] = np.nan
    y[0, :3] = np.nan
    y[1, 3:] = np.nan
    y[2, 40:42] = np.nan
    found = smooth(y.astype(np.float32), days, penalty(days), (90 / (2 * np.pi)) ** 4, 100.0)
    assert np.isnan(found[0, 30:60]).all()
    assert np.isfinite(found[0, 3:30]).all()
    assert np.isnan(found[0, :3]).all()
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[2]).all()


def test_a_constant_stays_one():
    days = np.arange(50) * 8.0
    found = smooth(np.full((1, 50), 0.3, np.float32), days, penalty(days), 1e5, 1e9)
    np.testing.assert_allclose(found, 0.3, atol=1e-6)
