"""LandTrendr on planted disturbances: which year, how large, which years are looked at."""

import numpy as np
import pytest

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.landtrendr import years_of
from geoalign.types.changes import changed


def stack_of(day="2012-03-10", size=-0.3, step=16, years=18, shape=(6, 6), seed=0, gaps=0.3, noise=0.03):
    rng = np.random.default_rng(seed)
    time = np.arange("2002-01-05", f"{2002 + years}-01-01", step, "datetime64[D]")
    season = 0.08 * np.cos(2 * np.pi * ((time - time[0]).astype(float) / 365.25 - 0.5))
    ndvi = 0.7 + season[:, None, None] + rng.normal(0, noise, (time.size, *shape))
    if day is not None:
        ndvi[time >= np.datetime64(day)] += size
    ndvi[rng.random(ndvi.shape) < gaps] = np.nan
    return new_stack({"ndvi": ndvi}, time)


def test_a_disturbance_is_dated_to_its_year_sized_and_directed():
    stack = stack_of()
    found = check_changes(detect(stack, "landtrendr"), values=True)
    assert changed(found).all()
    year = found.date.values.astype("datetime64[Y]").astype(int) + 1970
    assert (year == 2012).mean() > 0.9
    day = np.datetime64("2012-03-10")
    assert ((found.date_after.values < day) & (day <= found.date_by.values)).mean() > 0.9
    assert abs(float(found.magnitude.median()) + 0.3) < 0.04
    assert (found.direction == -1).all()
    assert float(found.probability.min()) > 0.9
    first = [np.isfinite(stack.ndvi.values[:, r, c]) & (stack.time.values >= np.datetime64("2012-01-01"))
             for r in range(6) for c in range(6)]  # fmt: skip
    dates = stack.time.values[[np.flatnonzero(f)[0] for f in first]].reshape(6, 6)
    assert (found.date.values == dates)[year == 2012].all()


def test_vertices_are_years_and_values_of_the_fit():
    found = detect(stack_of(), "landtrendr")
    assert found.vertex_year.dims == ("vertex", "y", "x")
    assert (found.vertex_year[0] == 2002).all()
    assert (found.vertex_year.max("vertex") == 2019).all()
    assert ((found.vertex_year > 0) == np.isfinite(found.vertex_value)).all()
    last = found.vertex_value.ffill("vertex").isel(vertex=-1)
    assert abs(float(last.median()) - 0.4) < 0.05


@pytest.mark.parametrize("step", [16, 23, 61])
def test_the_number_of_observations_a_year_does_not_matter(step):
    found = detect(stack_of(step=step, noise=0.02), "landtrendr")
    year = found.date.values.astype("datetime64[Y]").astype(int) + 1970
    assert (year == 2012).mean() > 0.85


def test_gains_are_found_upside_down():
    stack = stack_of(size=0.25)
    assert not changed(detect(stack, "landtrendr", p_value=0.001)).any()
    found = detect(stack, "landtrendr", disturbance="up")
    assert changed(found).all()
    assert (found.direction == 1).all()
    assert abs(float(found.magnitude.median()) - 0.25) < 0.04


def test_a_season_leaves_other_scenes_out():
    stack = stack_of()
    summer = detect(stack, "landtrendr", season="05-01/09-30")
    assert (summer.n_obs < detect(stack, "landtrendr").n_obs).all()
    assert changed(summer).all()
    days = ["2010-01-15", "2010-05-01", "2010-12-01", "2011-02-28", "2011-03-01"]
    assert years_of(days).tolist() == [2010, 2010, 2010, 2011, 2011]
    assert years_of(days, "05-01/12-01").tolist() == [-1, 2010, 2010, -1, -1]
    assert years_of(days, "12-01/02-28").tolist() == [2009, -1, 2010, 2010, -1]


def test_since_and_until_bound_what_is_counted():
    stack = stack_of()
    late = detect(stack, "landtrendr", since="2013-06-01")
    assert changed(late).mean() < 0.3
    assert (late.date.values[changed(late).values] >= np.datetime64("2013-06-01")).all()
    assert changed(detect(stack, "landtrendr", until="2011-12-31")).mean() < 0.2


def test_short_series_and_bad_options_are_refused():
    with pytest.raises(StackError, match="5 years"):
        detect(stack_of(years=5), "landtrendr")
    bad = {"p_value": 1, "max_segments": 1, "max_years": 0, "recovery": 0, "disturbance": "left", "season": "June"}
    for option, value in bad.items():
        with pytest.raises(ConfigError, match=option):
            detect(stack_of(), "landtrendr", **{option: value})
