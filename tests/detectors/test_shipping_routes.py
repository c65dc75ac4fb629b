"""Routes planted in simulated traffic: drawn within 500 m, dated within 60 days, and none where there is none."""

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import ConfigError, StackError, check_changes, detect, new_stack, polygons
from geoalign.detectors import ships
from geoalign.detectors.shipping_routes import ShippingRoutes, find, passes_of
from geoalign.simulation.traffic import Route, Sea, simulate_traffic
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, changed
from tests.worlds import geobox

SIDE = 40_000.0
LATE = ((0.0, 0.5, 12.0, 0.0, 4000.0), (0.45, 1.0, 12.0, 1000.0, 4000.0), (0.4, 0.55, 6.0, 1200.0, 4000.0))


def sea(*routes, **options):
    return Sea(size_m=(SIDE, SIDE), routes=routes, **options)


def points(line, step=250.0):
    place = np.append(0, np.cumsum(np.hypot(*np.diff(line, axis=0).T)))
    even = np.linspace(0, place[-1], int(place[-1] / step) + 2)
    return np.column_stack([np.interp(even, place, line[:, k]) for k in (0, 1)])


def off(a, b):
    return np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)).min(axis=1)


def check_line(row, route):
    found, truth = points(np.asarray(row.geometry.coords)), points(np.asarray(route.line, float))
    assert off(found, truth).max() < 500
    assert (off(truth, found) < 500).mean() > 0.9


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("line", [((0, 1e4), (SIDE, 25e3)), ((0, 3e4), (15e3, 28e3), (SIDE, 8e3))])
def test_a_new_route_is_drawn_and_dated(line, seed):
    route = Route(line=line, since=900, ships_a_day=24)
    found = find(*simulate_traffic(sea(route), seed=seed))
    assert len(found.lines) == 1
    row = found.lines.iloc[0]
    check_line(row, route)
    assert row.formed
    assert abs((row.first_seen - pd.Timestamp("2019-01-01")).days - 900) <= 60
    assert row.first_after < row.first_seen
    assert row.p_value < 1e-6
    assert row.width_m == pytest.approx(1500, rel=0.35)
    changes = check_changes(found.changes, values=True)
    on = changes.route.values == 0
    assert (changes.status.values[on] == CONFIRMED).all()
    assert (changes.date.values[on] == np.datetime64(row.first_seen)).all()
    assert (changes.status.values[~on] == NO_CHANGE).all()
    assert float(changes.probability.where(changes.route < 0).max()) <= 0.5


def test_routes_that_cross_stay_two_and_the_old_one_is_not_new():
    old, new = Route(line=((0, 5e3), (SIDE, 35e3)), ships_a_day=24), Route(line=((5e3, SIDE), (35e3, 0)), since=1000)
    found = find(*simulate_traffic(sea(old, new), seed=1))
    lines = found.lines
    assert sorted(lines.formed) == [False, True]
    check_line(lines[~lines.formed].iloc[0], old)
    check_line(lines[lines.formed].iloc[0], new)
    assert lines[~lines.formed].iloc[0].first_seen < pd.Timestamp("2019-02-15")
    assert (found.changes.status.values[found.changes.route.values == int(np.argmin(lines.formed))] == NO_CHANGE).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_route_where_there_is_none(seed):
    empty = sea(tracks=LATE, background_100km2=0.4, grounds=((13e3, 26e3, 4e3, 3.0),))
    assert len(find(*simulate_traffic(empty, seed=seed)).lines) == 0
    assert len(find(*simulate_traffic(sea(), seed=seed)).lines) == 0


def test_a_platform_is_no_route():
    import geopandas as gpd

    catch, passes = simulate_traffic(sea(), seed=4)
    fixed = gpd.GeoDataFrame(
        {"time": passes.time}, geometry=gpd.points_from_xy([2e4] * len(passes), [2e4] * len(passes)), crs=catch.crs
    )
    assert len(find(pd.concat([catch, fixed], ignore_index=True), passes).lines) == 0


def test_no_ships_and_one_pass():
    catch, passes = simulate_traffic(sea(), seed=5)
    assert len(find(catch.iloc[:0], passes).lines) == 0
    one = passes.iloc[:1]
    found = find(catch[catch.time == one.time.iloc[0]], one)
    assert len(found.lines) == 0
    check_changes(found.changes, values=True)


def test_ships_of_a_stack_and_its_passes_fit():
    power = 0.01 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, (2, 100, 100))
    power[1, 50:53, 50:56] = 1.0
    power[0, :, 64:] = np.nan
    stack = new_stack({"vv": power}, ["2024-01-01", "2024-01-13"], geobox=geobox((100, 100)))
    passes = passes_of(stack)
    assert passes.area.tolist() == pytest.approx([64 * 100 * 100, 100 * 100 * 100])
    found = find(ships.find(stack, enl=4.4), passes)
    assert len(found.lines) == 0


def test_mistakes_are_named():
    catch, passes = simulate_traffic(sea(years=1), seed=6)
    with pytest.raises(ConfigError, match="CRS"):
        find(catch.to_crs("EPSG:4326"), passes.to_crs("EPSG:4326"))
    with pytest.raises(StackError, match="no pass"):
        find(catch, passes.iloc[1:].iloc[::2])
    with pytest.raises(StackError, match="no pass"):
        find(catch, passes.iloc[:0])
    with pytest.raises(ConfigError, match="cell_m"):
        find(catch, passes, cell_m=0)


def planted(seed=1, n=24, first=12, old=False):
    """A stack at sea, pixels of 100 m: ships of 2 x 2 pixels keep to a slanted line from scene `first` on."""
    rng = np.random.default_rng(seed)
    shape = 160, 170
    power = 0.01 * rng.gamma(4.4, 1 / 4.4, (n, *shape))
    for t in range(0 if old else first, n):
        for col in rng.choice(np.arange(5, 165, 20), 5, replace=False):
            row = int(round(50 + 0.3 * col + rng.normal(0, 4)))
            power[t, row : row + 2, col : col + 2] = 0.5
    power[:, :, :12] = np.nan
    power[2:, :10, 30:40] = np.nan
    time = np.datetime64("2023-01-01T05:00") + np.arange(n) * np.timedelta64(12, "D")
    box = GeoBox(shape, Affine(100.0, 0, 500000.0, 0, -100.0, 4650000.0), "EPSG:32633")
    stack = new_stack({"vv": power}, time, geobox=box)
    stack.vv.attrs["enl"] = 4.4
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return stack, np.abs(rows + 0.5 - (50.5 + 0.3 * cols)) / np.hypot(1, 0.3) * 100.0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_route_in_a_stack_is_mapped_dated_and_drawn(seed):
    stack, off_line = planted(seed)
    found = detect(stack, "shipping_routes")
    check_changes(found, values=True)
    hit = found.status.values == CONFIRMED
    seen = found.status.values != NOT_OBSERVABLE
    assert hit[:, 30:140][(seen & (off_line < 200))[:, 30:140]].mean() > 0.9  # ships lie from column 25 to 146
    assert hit[off_line > 2000].sum() == 0
    step = np.searchsorted(stack.time.values, np.unique(found.date.values[hit]))
    assert step.size == 1
    assert abs(step[0] - 12) <= 1
    assert not seen[:, :12].any()
    assert (found.why.values[:, :12] == WHY["no_data"]).all()
    assert (found.why.values[:10, 30:40] == WHY["too_few"]).all()
    assert len(polygons(found, min_area_m2=1e6)) == 1
    lines = ShippingRoutes().lines(stack)
    assert len(lines) == 1
    assert lines.crs == "EPSG:32633"
    x, y = np.asarray(lines.geometry[0].coords).T
    assert np.abs(4650000.0 - y - 0.3 * (x - 500000.0) - 5050.0).max() / np.hypot(1, 0.3) < 500
    assert lines.first_seen[0] == found.date.values[hit][0]
    assert set(np.unique(found.route.values[hit])) == {0}


def test_what_was_always_there_or_formed_before_since_is_no_change():
    stack, _ = planted(old=True)
    found = detect(stack, "shipping_routes")
    assert (found.route.values == 0).any()
    assert not changed(found).values.any()
    stack, _ = planted()
    assert changed(detect(stack, "shipping_routes", since="2023-02-01")).values.any()
    late = detect(stack, "shipping_routes", since="2023-08-01")
    assert (late.route.values == 0).any()
    assert not changed(late).values.any()
    assert not changed(detect(stack, "shipping_routes", until="2023-05-01")).values.any()


def test_given_land_is_not_observable_and_a_stack_needs_metres():
    stack, _ = planted(n=14)
    land = np.zeros((160, 170), bool)
    land[120:] = True
    found = check_changes(detect(stack.assign_coords(land=(("y", "x"), land)), "shipping_routes"), values=True)
    assert (found.why.values[120:, 12:] == WHY["excluded"]).all()
    with pytest.raises(StackError, match="metres"):
        detect(new_stack({"vv": stack.vv.values}, stack.time.values), "shipping_routes")
