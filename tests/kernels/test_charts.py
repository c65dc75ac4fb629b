"""The charts' limits are what their docstring says, and a chart does what its formula says."""

import numpy as np
import pytest

from geoalign.kernels import charts


def by_formula(z, chart):
    """Largest value of a chart over whole series z (n_series, n), written out."""
    n = z.shape[1]
    if chart == "ewma":
        mean, values = np.zeros(z.shape[0]), []
        for i in range(n):
            mean = 0.7 * mean + 0.3 * z[:, i]
            sd = np.sqrt(0.3 / 1.7 * (1 - 0.7 ** (2 * (i + 1))))
            values.append(np.abs(mean) / sd if i >= 2 else 0 * mean)
        return np.max(values, axis=0)
    if chart == "cusum":
        up = down = top = np.zeros(z.shape[0])
        for i in range(n):
            up, down = np.maximum(0, up + z[:, i] - 0.5), np.maximum(0, down - z[:, i] - 0.5)
            top = np.maximum(top, np.maximum(up, down))
        return top
    sums = np.cumsum(np.pad(z, ((0, 0), (1, 0))), axis=1)
    return np.abs(sums[:, 5:] - sums[:, :-5]).max(axis=1) / np.sqrt(5)


def errors(n, n_series=4000, seed=0):
    rng = np.random.default_rng(seed)
    z = np.clip(rng.standard_normal((n_series, n)), -3, 3)
    return np.where(rng.random(z.shape) < 0.01, -3.0, z)


@pytest.mark.parametrize("chart", charts.CHARTS)
@pytest.mark.parametrize("n", [8, 100])
def test_the_limit_is_passed_as_often_as_asked(chart, n):
    top = by_formula(errors(n), chart)
    for alpha in (0.2, 0.05):
        assert (top > charts.limits(chart, alpha, n)[n]).mean() == pytest.approx(alpha, abs=0.25 * alpha + 0.005)


@pytest.mark.parametrize("chart", charts.CHARTS)
def test_the_chart_is_its_formula(chart):
    z = errors(60, 200, seed=1)
    top = by_formula(z, chart)
    code = charts.CHARTS.index(chart)
    for row, expected in zip(z, top):
        begin, crossed, reached, sign = charts.run_chart(row, 0, row.size, code, 1e9, 0)
        assert reached == pytest.approx(expected, abs=1e-9)
        assert crossed == -1
        begin, crossed, reached, sign = charts.run_chart(row, 0, row.size, code, expected - 1e-6, 0)
        assert reached == pytest.approx(expected, abs=1e-9)
        assert 0 <= begin <= crossed < row.size
        assert np.sign(row[begin : crossed + 1].sum()) == sign


def test_limits_grow_with_time_and_with_care():
    for chart in charts.CHARTS:
        strict, loose = charts.limits(chart, 0.0001, 3000), charts.limits(chart, 0.05, 3000)
        assert np.isinf(loose[:3]).all()
        assert (np.diff(loose[5:]) >= 0).all()
        assert (strict[5:] > loose[5:]).all()
