"""Alerts: patches of change with an identity and a life, folded scene by scene from what a theme saw.

An alert is a pure function of the evidence: the same scenes give the same alerts with the same ids, in whatever order
they arrived. What was published before and is no longer so is told as a revision, never dropped in silence.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import geopandas as gpd

FIRST, PROVISIONAL, CONFIRMED, ENDED, RETRACTED = "first", "provisional", "confirmed", "ended", "retracted"
LIFE = (FIRST, PROVISIONAL, CONFIRMED, ENDED, RETRACTED)
"""Status of an alert. The first three only go forwards; the last two close it."""

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/geoalign/alerts")


@dataclass(frozen=True)
class Alert:
    """One alert as it stands. All but `revision` is a pure function of the evidence.

    id : UUIDv5 of site, theme, seed pixel and episode, fixed at birth; theme : name of the layer (`config.layers`);
    kind : what changed (`Changes.attrs["kind"]`); status : one of `LIFE`; reason : why it has this status, in words;
    date, date_after, date_by : first changed observation (lower median of its pixels), the change lies in (after, by];
    date_first : scene at which the alert was born; date_confirmed, date_end, date_retracted : scene at which it became
    so, "" where it has not; all dates ISO days, UTC; probability, magnitude : means over its pixels; direction : -1 to
    1; n_pixels, area_ha : its extent; row, col : seed pixel; episode : how many alerts this seed had before; n_obs :
    usable observations at the seed; scenes : ids of the scenes at which its status moved, in order; baseline : version
    of the model that saw it; runs : extent as (row, first col, last col + 1), row by row;
    revision : how often it has been published with another content, from 1; 0 = not published yet
    """

    id: str
    theme: str
    kind: str
    status: str
    reason: str
    date: str
    date_after: str
    date_by: str
    date_first: str
    date_confirmed: str
    date_end: str
    date_retracted: str
    probability: float
    magnitude: float
    direction: int
    n_pixels: int
    area_ha: float
    row: int
    col: int
    episode: int
    n_obs: int
    scenes: tuple[str, ...]
    baseline: int
    runs: tuple[tuple[int, int, int], ...]
    revision: int = 0

    @property
    def key(self) -> str:
        """What deliveries are told apart by."""
        return f"{self.id}+{self.revision}"

    def content(self) -> dict[str, Any]:
        """All that the evidence decides, without the revision: what two histories of arrival must agree on."""
        return {k: v for k, v in asdict(self).items() if k != "revision"}

    def plain(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self) | {"scenes": list(self.scenes), "runs": [list(r) for r in self.runs]}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Alert:
        """From what `plain` gave."""
        runs = tuple(tuple(int(v) for v in r) for r in plain["runs"])
        return cls(**{**plain, "scenes": tuple(plain["scenes"]), "runs": runs})

    def with_revision(self, revision: int) -> Alert:
        return replace(self, revision=revision)


COLUMNS = (
    "id", "revision", "theme", "kind", "status", "reason", "date", "date_after", "date_by", "date_first",
    "date_confirmed", "date_end", "date_retracted", "probability", "magnitude", "direction", "area_ha", "n_pixels",
    "n_obs", "row", "col", "episode", "scenes", "baseline",
)  # fmt: skip
"""Columns of `alert_frame`, in order, before `geometry`."""

DATES = ("date", "date_after", "date_by", "date_first", "date_confirmed", "date_end", "date_retracted")


def alert_frame(alerts, geobox) -> gpd.GeoDataFrame:
    """Alerts as a GeoDataFrame in the grid's CRS: `COLUMNS` and `geometry` (MultiPolygon), sorted by theme and id.

    Dates are datetime64[ms] (NaT = none), `scenes` one text with spaces. Empty with the same columns where none is.
    """
    import geopandas as gpd
    import numpy as np
    import pandas as pd
    import shapely

    alerts = sorted(alerts, key=lambda a: (a.theme, a.id))
    table: dict[str, Any] = {name: [getattr(a, name) for a in alerts] for name in COLUMNS}
    for name in DATES:
        table[name] = np.array([v or "NaT" for v in table[name]], "datetime64[ms]")
    table["scenes"] = [" ".join(a.scenes) for a in alerts]
    frame = pd.DataFrame(table)
    whole = {"revision", "direction", "n_pixels", "n_obs", "row", "col", "episode", "baseline"}
    frame = frame.astype(dict.fromkeys(whole, "int64") | dict.fromkeys(("probability", "magnitude", "area_ha"), "f8"))
    shapes = np.empty(len(alerts), object)
    for k, alert in enumerate(alerts):
        shapes[k] = outline(alert.runs, geobox)
    geometry = gpd.GeoSeries(shapes if len(alerts) else [], crs=None if geobox.crs is None else str(geobox.crs))
    assert all(shapely.is_valid(g) for g in shapes)
    return gpd.GeoDataFrame(frame, geometry=geometry)


def outline(runs, geobox):
    """MultiPolygon of row runs, on the grid."""
    import shapely

    affine = geobox.affine
    boxes = [shapely.box(start, row, stop, row + 1) for row, start, stop in runs]
    shape = shapely.union_all(boxes)
    shape = shapely.transform(shape, lambda p: p @ _linear(affine) + (affine.c, affine.f))
    parts = [shape] if shape.geom_type == "Polygon" else list(shape.geoms)
    return shapely.MultiPolygon([shapely.orient_polygons(p) for p in parts])


def _linear(affine):
    import numpy as np

    return np.array([[affine.a, affine.d], [affine.b, affine.e]])
