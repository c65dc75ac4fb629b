"""Robust season of a window: against a plain twin, and on planted clouds."""

import numpy as np
import pytest

from geoalign.kernels.tmask import N_TERM, mark_clouds, median_of, select


def marked(values, years, limit):
    n = values.size
    flagged = np.zeros(n, bool)
    mark_clouds(values, n, years, limit, flagged, np.zeros((n, N_TERM)), np.zeros(n), np.zeros(n), np.zeros(n))
    return flagged


def twin(values, years, limit):
    span = np.ceil(years[-1] - years[0])
    angles = 2 * np.pi * years
    x = np.stack([np.ones_like(years), np.cos(angles), np.sin(angles), np.cos(angles / span), np.sin(angles / span)], 1)
    leverage = np.einsum("ij,jk,ik->i", x, np.linalg.inv(x.T @ x), x)
    weight = np.ones(years.size)
    for _ in range(6):
        root = np.sqrt(weight)[:, None]
        beta = np.linalg.lstsq(root * x, root[:, 0] * values, rcond=None)[0]
        left = values - x @ beta
        size = np.abs(left) / np.sqrt(1 - leverage)
        scale = np.median(np.sort(size)[5:]) / 0.6745
        weight = np.where(size < 4.685 * scale, (1 - (size / (4.685 * scale)) ** 2) ** 2, 0)
    return np.abs(left) > limit


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_twin(seed):
    rng = np.random.default_rng(seed)
    years = np.sort(rng.uniform(3.0, 4.7, 26))
    values = 0.1 + 0.03 * np.sin(2 * np.pi * years) + rng.normal(0, 0.01, 26)
    values[rng.integers(0, 26, 3)] += 0.2
    np.testing.assert_array_equal(marked(values, years, 0.04), twin(values, years, 0.04))


def test_clouds_are_marked_and_the_rest_is_not():
    years = np.linspace(0.1, 1.6, 25)
    values = 0.1 + 0.05 * np.cos(2 * np.pi * years)
    values[[4, 11, 19]] += [0.3, 0.15, 0.2]
    assert np.flatnonzero(marked(values, years, 0.04)).tolist() == [4, 11, 19]


def test_windows_of_a_year_and_tiny_ones_are_defined():
    years = np.linspace(0, 1, 12)
    assert not marked(np.full(12, 0.2), years, 0.04).any()
    assert not marked(np.array([0.1, 0.9]), years[:2], 0.04).any()


def test_medians():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 8, 31):
        v = rng.normal(size=n).round(1)
        assert median_of(v.copy(), n) == pytest.approx(np.median(v))
        assert [select(v.copy(), n, k) for k in range(n)] == np.sort(v).tolist()
