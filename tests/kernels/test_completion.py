"""The second phase of a building: one rise after the clearing, found in spite of gaps and lone clouds."""

import numpy as np
import pytest

from geoalign.kernels.completion import complete


def series(seed, n=300, n_time=70, begin=20, ready=45, rise=0.35, noise=0.03):
    rng = np.random.default_rng(seed)
    v = -0.49 + noise * rng.normal(size=(n, n_time))
    v[:, ready:] += rise
    v[rng.random(v.shape) < 0.02] += 0.5
    v[:, :begin] = -0.6
    v[rng.random(v.shape) < 0.4] = np.nan
    return v.astype(np.float32), np.full(n, begin)


def first_clear(v, scene):
    return np.array([scene + np.flatnonzero(np.isfinite(row[scene:]))[0] for row in v])


def test_the_rise_is_dated_at_its_first_observation():
    v, date = series(0)
    ready, last, first, doubt = complete(v, date, 0.05)
    assert (ready == first_clear(v, 45)).mean() > 0.85
    np.testing.assert_allclose([np.median(last), np.median(first)], [-0.14, -0.49], atol=0.01)
    assert np.median(np.abs(last + 0.14) / doubt) < 1.5


@pytest.mark.parametrize("rise", [0.0, -0.35])
def test_without_a_rise_it_was_complete_at_once(rise):
    v, date = series(1, rise=rise)
    ready = complete(v, date, 0.05)[0]
    assert (ready == first_clear(v, 20)).mean() > 0.97


def test_too_little_after_it_is_said():
    v, date = series(2, n=3)
    v[0, 22:] = np.nan
    date[1] = -1
    ready, last, *_ = complete(v, date, 0.05)
    assert ready[0] == ready[1] == -1
    assert ready[2] >= 20
    assert np.isnan(last[:2]).all()
