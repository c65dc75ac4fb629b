"""Ships planted on speckle: found, measured, dated; land, ghosts, streaks and speckle left alone."""

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.ships import find
from geoalign.types.changes import CONFIRMED, ENDED, NOT_OBSERVABLE, WHY, changed
from tests.worlds import geobox

LOOKS = 4.4


def sea(n=1, shape=(160, 180), seed=0, level=0.01, looks=LOOKS):
    return level * np.random.default_rng(seed).gamma(looks, 1 / looks, (n, *shape))


def stack_of(power, days=12, box=True, **bands):
    time = np.datetime64("2024-01-01") + days * np.arange(len(power))
    values = {"vv": power, **bands}
    stack = new_stack(values, time, geobox=geobox(power.shape[1:]) if box else None)
    for name in stack.data_vars:
        stack[name].attrs["enl"] = LOOKS
    return stack


def test_a_ship_is_found_with_its_size_and_direction():
    power = sea()
    power[0, 70:74, 60:90] = 1.0
    ships = find(stack_of(power))
    assert len(ships) == 1
    ship = ships.iloc[0]
    assert ship.area_m2 == 120 * 100
    assert (ship.length_m, ship.width_m, ship.heading_deg) == (300, 40, 90)
    assert (ship.xmax - ship.xmin, ship.ymax - ship.ymin) == (300, 40)
    assert ship.geometry.x == pytest.approx(500000 + 10 * 75, abs=10)
    assert ship.geometry.y == pytest.approx(4650000 - 10 * 72, abs=5)
    assert ship.snr_db == pytest.approx(20, abs=1)
    assert not ship.fixed
    assert ships.crs.to_epsg() == 32633


@pytest.mark.parametrize("turn", [0, 30, 60, 120])
def test_heading_is_the_axis_from_north(turn):
    rows, cols = np.mgrid[:160, :180]
    north, east = 80 - rows, cols - 90
    t = np.deg2rad(turn)
    ship = (abs(north * np.cos(t) + east * np.sin(t)) < 20) & (abs(east * np.cos(t) - north * np.sin(t)) < 3)
    power = sea()
    power[0, ship] = 1.0
    found = find(stack_of(power)).iloc[0]
    assert min(abs(found.heading_deg - turn), 180 - abs(found.heading_deg - turn)) <= 5
    assert found.length_m == pytest.approx(400, abs=40)


def test_as_much_clutter_is_flagged_as_asked():
    power = sea(shape=(500, 500))
    found = detect(stack_of(power), "ships", pfa=1e-3, min_area_m2=0)
    assert float(changed(found).mean()) == pytest.approx(1e-3, rel=0.25)
    vh = sea(shape=(500, 500), seed=1)
    found = detect(stack_of(power, vh=vh), "ships", pfa=1e-3, min_area_m2=0)
    assert float(changed(found).mean()) == pytest.approx(1e-3, rel=0.25)
    assert len(find(stack_of(power))) == 0


def test_gone_and_still_there():
    power = sea(3)
    power[1, 30:34, 30:40] = 1.0
    power[2, 60:64, 60:70] = 1.0
    found = check_changes(detect(stack_of(power), "ships"), values=True)
    assert found.status.values[32, 35] == ENDED
    assert str(found.date.values[32, 35])[:10] == "2024-01-13"
    assert str(found.date_after.values[32, 35])[:10] == "2024-01-01"
    assert str(found.date_end.values[32, 35])[:10] == "2024-01-25"
    assert found.status.values[62, 65] == CONFIRMED
    assert found.probability.values[62, 65] > 0.99
    assert float(found.probability.median()) < 0.001
    assert int(changed(found).sum()) == 80


def test_a_platform_is_fixed_from_the_day_it_stood():
    power = sea(14)
    power[5:, 50:53, 50:53] = 0.8
    power[9, 50:53, 50:53] = 0.01  # missed once
    for t in range(14):
        power[t, 100:104, 8 * t + 20 : 8 * t + 28] = 0.8  # a ship passes by
    stack = stack_of(power)
    found = detect(stack, "ships")
    assert bool(found.fixed.values[51, 51])
    assert str(found.date.values[51, 51])[:10] == str(stack.time.values[5])[:10]
    assert found.status.values[51, 51] == CONFIRMED
    assert not found.fixed.values[100:104].any()
    ships = find(stack)
    assert ships.fixed.sum() == 8
    assert (ships[ships.fixed].first_date == stack.time.values[5]).all()
    assert (~ships.fixed).sum() == 14


def test_land_is_left_out_with_its_reason():
    power = sea(shape=(200, 220))
    power[0, :, :70] = 0.3 * np.random.default_rng(2).gamma(LOOKS, 1 / LOOKS, (200, 70))
    power[0, 40:60, 20:30] = 5.0
    power[0, 120:124, 150:165] = 1.0
    found = detect(stack_of(power), "ships")
    assert (found.status.values[:, 5:60] == NOT_OBSERVABLE).all()
    assert (found.why.values[:, 5:60] == WHY["excluded"]).all()
    assert int(changed(found).sum()) == 60


def test_given_land_counts_with_its_buffer():
    power = sea()
    power[0, 50:54, 40:50] = 1.0
    power[0, 50:54, 120:130] = 1.0
    stack = stack_of(power)
    land = xr.zeros_like(stack.vv[0], dtype=bool).drop_vars("time").reset_coords(drop=True)
    land[:, :30] = True
    with_land = stack.assign_coords(land=(("y", "x"), land.values))
    assert len(find(with_land)) == 1
    assert len(find(with_land, land_buffer_m=50)) == 2


def test_ghosts_of_a_bright_ship_are_dropped():
    power = sea(shape=(700, 120))
    power[0, 50:56, 50:60] = 100.0
    power[0, 550:553, 60:66] = 0.5
    power[0, 300:303, 60:66] = 0.5
    assert len(find(stack_of(power))) == 2
    assert len(find(stack_of(power), ambiguity_m=None)) == 3


def test_lazy_gives_the_same_table():
    power = sea(3, shape=(140, 150))
    power[:, 60:64, 60:70] = 1.0
    stack = stack_of(power)
    eager = find(stack)
    assert len(eager) == 3
    assert find(stack.chunk(time=1, y=61, x=47)).equals(eager)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (12, 9)])
def test_small_and_empty_images(shape):
    stack = new_stack({"vv": sea(2, shape)}, ["2024-01-01", "2024-01-13"])
    check_changes(detect(stack, "ships"), values=True)
    assert len(find(stack)) == 0
    nothing = check_changes(detect(stack.where(False), "ships"), values=True)
    assert (nothing.status == NOT_OBSERVABLE).all()
    assert len(find(stack.where(False))) == 0
    assert len(find(stack * 0)) == 0


def test_land_everywhere():
    stack = stack_of(sea())
    stack = stack.assign_coords(land=(("y", "x"), np.ones((160, 180), bool)))
    found = check_changes(detect(stack, "ships"), values=True)
    assert (found.why == WHY["excluded"]).all()


@pytest.mark.parametrize(
    "options", [{"pfa": 0}, {"pfa": "x"}, {"clutter": "weibull"}, {"enl": -1}, {"land_buffer_m": -5}, {"alpha": 0.1}]
)
def test_options_are_checked(options):
    with pytest.raises(ConfigError):
        find(stack_of(sea(shape=(20, 20))), **options)


def test_bands_that_are_no_backscatter_are_refused():
    with pytest.raises(StackError, match="backscatter"):
        find(new_stack({"red": np.ones((1, 9, 9)), "nir": np.ones((1, 9, 9))}, ["2024-01-01"]))


@pytest.mark.parametrize("size_m", [50.0, 250.0])
def test_ships_of_one_pixel_are_found_beside_much_brighter_ones(size_m):
    rng = np.random.default_rng(4)
    power = sea(shape=(120, 120), seed=4)
    rows, cols = np.unravel_index(rng.choice(40 * 40, 25, replace=False), (40, 40))
    power[0, 3 * rows + 1, 3 * cols + 1] = 0.01 * 10 ** rng.uniform(1.5, 3.2, 25)
    box = GeoBox((120, 120), Affine(size_m, 0, 5e5, 0, -size_m, 4e6), "EPSG:32633")
    found = find(new_stack({"vv": power}, ["2024-01-01"], geobox=box), enl=LOOKS, ambiguity_m=None)
    assert len(found) >= 24
