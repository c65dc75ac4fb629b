"""Alerts, a site and a ledger made by hand, for the tests of what lies around the core of monitoring."""

from datetime import UTC, datetime
from types import SimpleNamespace

from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign.config import parse_config
from geoalign.monitor.alerts import Alert

BOX = GeoBox((100, 120), Affine(10, 0, 500000, 0, -10, 5400000), "EPSG:32633")

SITE = """
name = "valley"
scenes = "scenes/*.tif"
output = "out"
[[detect]]
detector = "watch"
[monitor]
since = "2022-07-01"
"""


def config_of(folder, more=""):
    (folder / "scenes").mkdir(exist_ok=True)
    return parse_config(SITE + more, folder=folder)


def site_of(config, visit=1):
    """What `visit.Site` holds."""
    return SimpleNamespace(
        name=config.name, config=config, geobox=BOX, generation=f"{visit:06d}-abc", visit=visit,
        created=datetime(2023, 5, visit, 10, tzinfo=UTC), themes={"watch": "change"},
    )  # fmt: skip


def alert_of(number=1, *, row=10, col=20, rows=4, cols=5, status="confirmed", **changes):
    """A rectangular alert."""
    content = {
        "id": f"00000000-0000-5000-8000-{number:012d}", "theme": "watch", "kind": "change", "status": status,
        "reason": "three scenes agree", "date": "2023-04-01", "date_after": "2023-03-22", "date_by": "2023-04-11",
        "date_first": "2023-04-01", "date_confirmed": "2023-04-21", "date_end": "", "date_retracted": "",
        "probability": 0.98, "magnitude": -0.2, "direction": -1, "n_pixels": rows * cols,
        "area_ha": rows * cols / 100, "row": row, "col": col, "episode": 0, "n_obs": 40,
        "scenes": ("S2A_20230401", "S2A_20230421"), "baseline": 1,
        "runs": tuple((row + k, col, col + cols) for k in range(rows)), "revision": 1,
    }  # fmt: skip
    return Alert(**(content | changes))
