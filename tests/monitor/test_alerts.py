"""The life of an alert, scene by scene, from tables of flagged pixels made by hand."""

import numpy as np
import pytest

from geoalign.kernels.zones import NO_DAY
from geoalign.monitor.alerts import Alerts, Ground, fold_scene
from geoalign.monitor.evidence import Scene
from geoalign.monitor.fold import FRAME_COLUMNS
from tests.monitor.things import BOX

GROUND = Ground("site", "theme", "flood", BOX, 0.01, 20)
WIDTH = BOX.shape[1]


def square(row=10, col=10, side=10):
    rows, cols = np.mgrid[row : row + side, col : col + side]
    return (rows * WIDTH + cols).ravel()


def after(before, k, pixels, status):
    """Alerts after scene k, in which `pixels` have `status` (one for all, or each its own)."""
    order = np.argsort(pixels)
    columns = {"pixel": pixels[order], "status": np.broadcast_to(status, pixels.shape)[order]}
    columns |= {"direction": -1, "date": 19000, "after": NO_DAY, "by": 19010, "magnitude": -0.3, "probability": 0.9}
    columns["n_obs"] = 30
    table = {n: np.broadcast_to(columns[n], pixels.shape).astype(t) for n, t in FRAME_COLUMNS.items()}
    time = str(np.datetime64("2022-01-10T10:00:00", "ns") + np.timedelta64(10 * k, "D"))
    return fold_scene(before, table, Scene(f"key{k}", f"s{k}", f"a{k}", time, "S2A", -1, None), GROUND, 1)


def confirmed(pixels):
    alerts = after(Alerts(), 0, pixels, 1)
    alerts = after(alerts, 1, pixels, 2)
    alerts = after(alerts, 2, pixels, 3)
    assert [a.status for a in alerts.alerts] == ["confirmed"]
    return alerts


def test_a_flood_that_went_back_ends_although_pixels_at_its_edge_stay_in_doubt():
    flood = square()
    alerts = confirmed(flood)
    dry = np.full(flood.size, 4)
    dry[:9] = 3  # a row of nine: less than half of the smallest alert
    half = np.where(np.arange(flood.size) < 50, 3, 4)
    alerts = after(alerts, 3, flood, half)
    assert [a.status for a in alerts.alerts] == ["confirmed"]
    alerts = after(alerts, 4, flood, dry)
    (alert,) = alerts.alerts
    assert (alert.status, alert.date_end, alert.n_pixels) == ("ended", "2022-02-19", 100)
    for k in range(5, 8):  # what is left is no new alert either
        alerts = after(alerts, k, flood, dry)
    assert [a.status for a in alerts.alerts] == ["ended"]


def test_a_part_that_would_be_an_alert_of_its_own_keeps_it_open():
    flood = square(side=12)
    alerts = confirmed(flood)
    still = np.where(np.isin(flood, square(side=4)), 3, 4)
    alerts = after(alerts, 3, flood, still)
    assert [a.status for a in alerts.alerts] == ["confirmed"]


@pytest.mark.parametrize("step", [2, 3])
def test_what_is_confirmed_in_scattered_pixels_is_not_over(step):
    patch = square(side=14)
    alerts = after(Alerts(), 0, patch, 1)
    alerts = after(alerts, 1, patch, 2)
    scattered = np.where(np.arange(patch.size) % step == 0, 3, 2)
    alerts = after(alerts, 2, patch, scattered)
    assert [a.status for a in alerts.alerts] == ["confirmed"]
    alerts = after(alerts, 3, patch, scattered)
    assert [a.status for a in alerts.alerts] == ["confirmed"]
