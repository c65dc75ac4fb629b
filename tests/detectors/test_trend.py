import numpy as np
import pytest

from geoalign import ConfigError, detect, new_stack
from geoalign.types.changes import WHY, changed
from tests.kernels.test_trend import autocorrelated

TIME = np.arange("2000-01-15", "2024-01-01", 30, "datetime64[D]")


def series(seed, r=0.6, n=900, sd=0.03, gaps=0.3):
    rng = np.random.default_rng(seed)
    values = 0.5 + sd * autocorrelated(seed, (n, TIME.size), r)
    values += 0.15 * np.cos(2 * np.pi * np.arange(TIME.size) * 30 / 365.25)
    values[rng.random(values.shape) < gaps] = np.nan
    return values


def stack_of(values):
    side = int(np.sqrt(len(values)))
    return new_stack({"ndvi": values.T.reshape(-1, side, len(values) // side)}, TIME)


def test_autocorrelated_noise_with_a_season_is_no_trend():
    share = np.mean([changed(detect(stack_of(series(k)), "trend")).mean() for k in range(3)])
    assert 0.02 < share < 0.062


def test_slopes_are_found_a_year_with_an_interval():
    values = series(5, r=0.3) + 0.005 * np.arange(TIME.size) * 30 / 365.25
    found = detect(stack_of(values), "trend")
    assert changed(found).mean() > 0.95
    assert float(found.magnitude.median()) == pytest.approx(0.005, rel=0.05)
    assert ((found.slope_low < 0.005) & (found.slope_high > 0.005)).mean() > 0.85
    assert (found.why.values[changed(found).values] == WHY["unlocated"]).all()


def test_a_step_is_no_trend_and_its_date_is_told():
    values = series(6, r=0.3)
    values[:, 150:] -= 0.15
    found = detect(stack_of(values), "trend")
    assert changed(found).mean() < 0.1
    assert (np.abs(found.step_date.values - TIME[150].astype("datetime64[ns]")) < np.timedelta64(400, "D")).mean() > 0.9


def test_false_discovery_control_leaves_few_false_among_the_found():
    values = series(7, r=0.2)
    values[:300] += 0.006 * np.arange(TIME.size) * 30 / 365.25
    found = detect(stack_of(values), "trend", fdr=True, alpha=0.1)
    hit = changed(found).values.ravel()
    assert hit[:300].mean() > 0.9
    assert hit[300:].sum() / hit.sum() < 0.15
    assert (found.q_value >= found.p_value - 1e-6).all()
    order = np.argsort(found.p_value.values.ravel())
    assert (np.diff(found.q_value.values.ravel()[order]) >= -1e-6).all()


def test_options_are_checked():
    with pytest.raises(ConfigError, match="period is 'week'"):
        detect(stack_of(series(0, n=4)), "trend", period="week")
    with pytest.raises(ConfigError, match="fdr is 3"):
        detect(stack_of(series(0, n=4)), "trend", fdr=3)
