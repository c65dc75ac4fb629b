"""Alerts: patches of change with an identity and a life, folded scene by scene from what a theme saw.

An alert is a pure function of the evidence: the same scenes give the same alerts with the same ids, in whatever order
they arrived. What was published before and is no longer so is told as a revision, never dropped in silence.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoalign.kernels.zones import NO_DAY, label_runs
from geoalign.monitor.store import read_arrays, write_arrays

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
    date, date_after, date_by : first changed observation, the change lies in (after, by]; lower medians of its pixels;
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
    return np.array([[affine.a, affine.d], [affine.b, affine.e]])


# --------------------------------------------------------------------------------------------------------- the fold

_OPEN = (FIRST, PROVISIONAL, CONFIRMED)
_SHRUNK = 0.5
"""Share of the smallest area below which one that isn't confirmed is withdrawn, and what is left of another is over."""
_BACK = 0.8
"""Share of a confirmed alert that has to be back before what is left of it is looked at."""


@dataclass
class Alerts:
    """The alerts of one theme after a step: every one that ever was, those that are alive, and who owns which pixel.

    alerts : in order of birth; alive : their numbers; pixels, owners : sorted pixel numbers of the alive ones' extents
    """

    alerts: list[Alert] = field(default_factory=list)
    alive: set[int] = field(default_factory=set)
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    owners: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))

    def save(self, path: Path) -> None:
        document = {"alerts": [a.plain() for a in self.alerts], "alive": sorted(self.alive)}
        write_arrays(path, {"pixels": self.pixels, "owners": self.owners}, document)

    @classmethod
    def load(cls, path: Path) -> Alerts:
        arrays, document = read_arrays(path)
        alerts = [Alert.of(plain) for plain in document["alerts"]]
        return cls(alerts, set(document["alive"]), arrays["pixels"], arrays["owners"])


@dataclass(frozen=True)
class Ground:
    """What the fold has to know of the site and the theme. pixel_ha : area of a pixel; min_px : smallest alert, px."""

    site: str
    theme: str
    kind: str
    geobox: Any
    pixel_ha: float
    min_px: int


def ground_of(config, theme: str, kind: str, geobox) -> Ground:
    pixel_m2 = abs(float(geobox.affine.determinant))
    min_px = max(1, int(np.ceil(config.vectors.min_area_m2 / pixel_m2 * 0.995)))
    return Ground(config.name, theme, kind, geobox, pixel_m2 / 1e4, min_px)


def fold_scene(before: Alerts, table: dict[str, np.ndarray], scene, ground: Ground, baseline: int) -> Alerts:
    """Alerts after one more scene. `table` are the flagged pixels after it, as `fold.Frames.step` gives them.

    A pixel belongs to the alert that first took it, for as long as it is flagged, so that alerts that grow together
    stay two. Patches of flagged pixels (touching, also at corners; of one direction) that belong to none and are large
    enough are born as new ones. An alert goes forwards only: provisional or confirmed once pixels of that status
    make up the smallest area; withdrawn, with the reason, where observations are normal again before it was confirmed;
    ended once a confirmed one is back to what it was, but for pieces that would be no alert (`_over`). Scenes that saw
    nothing of it change nothing: a pixel's status moves with its observations, not with the days.
    """
    day = str(np.datetime64(scene.time, "D"))
    pixel, status = table["pixel"], table["status"]
    owner = _owners(before, pixel)
    labels = _patches(pixel, np.where(status <= 3, table["direction"].astype(np.int16) + 2, 0), ground.geobox.shape[1])
    alerts, alive = list(before.alerts), set(before.alive)
    if labels.size and labels.max() >= 0:
        owner = _adopt(owner, labels)
        for group in _groups(np.where(owner < 0, labels, -1)):
            if group.size >= ground.min_px:
                owner[group] = len(alerts)
                alive.add(len(alerts))
                alerts.append(_born(alerts, pixel[group], table, group, day, scene, ground, baseline))
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(alerts) + 1))
    for k in sorted(alive):
        mine = order[bounds[k] : bounds[k + 1]]
        alerts[k] = _lived(
            alerts[k], {name: column[mine] for name, column in table.items()}, day, scene, ground, baseline
        )
        if alerts[k].status not in _OPEN:
            alive.discard(k)
    held = np.isin(owner, np.fromiter(alive, np.int32, len(alive)))
    return Alerts(alerts, alive, pixel[held], owner[held].astype(np.int32))


def renewed(before: Alerts, at: str, baseline: int) -> Alerts:
    """Alerts after the model was renewed: what wasn't confirmed is withdrawn, what was stays as the old one left it."""
    day = str(np.datetime64(at, "D"))
    alerts = list(before.alerts)
    for k in sorted(before.alive):
        if alerts[k].status != CONFIRMED:
            alerts[k] = replace(
                alerts[k], status=RETRACTED, date_retracted=day,
                reason=f"not confirmed before the model was renewed (baseline {baseline})",
            )  # fmt: skip
        else:
            alerts[k] = replace(alerts[k], reason=f"{alerts[k].reason}; as baseline {alerts[k].baseline} left it")
    return Alerts(alerts, set())


def _owners(before, pixel):
    owner = np.full(pixel.size, -1, np.int64)
    if before.pixels.size:
        at = np.minimum(np.searchsorted(before.pixels, pixel), before.pixels.size - 1)
        same = before.pixels[at] == pixel
        owner[same] = before.owners[at[same]]
    return owner


def _patches(pixel, code, width):
    """Label of each pixel's patch, -1 for those with code 0; pixels of unlike code are never joined."""
    labels = np.full(pixel.size, -1, np.int64)
    at = np.flatnonzero(code > 0)
    if at.size == 0:
        return labels
    p, c = pixel[at], code[at]
    row, col = p // width, p % width
    new = np.ones(at.size, bool)
    new[1:] = (np.diff(p) != 1) | (col[1:] == 0) | (np.diff(c) != 0)
    first = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    length = np.diff(np.append(first, at.size))
    starts = col[first].astype(np.int32)
    found = label_runs(
        row[first].astype(np.int32), starts, (starts + length).astype(np.int32), c[first].astype(np.uint8), 1
    )
    labels[at] = found[run]
    return labels


def _adopt(owner, labels):
    """Owners with the free pixels of a patch given to its oldest alert."""
    owner = owner.copy()
    owned = (owner >= 0) & (labels >= 0)
    if owned.any():
        oldest = np.full(labels.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(oldest, labels[owned], owner[owned])
        free = (owner < 0) & (labels >= 0)
        taken = free & (oldest[np.maximum(labels, 0)] < np.iinfo(np.int64).max)
        owner[taken] = oldest[labels[taken]]
    return owner


def _groups(labels):
    """Places of each label's members, by label; -1 is none."""
    at = np.flatnonzero(labels >= 0)
    if at.size == 0:
        return []
    order = at[np.argsort(labels[at], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _born(alerts, pixel, table, group, day, scene, ground, baseline) -> Alert:
    width = ground.geobox.shape[1]
    row, col = divmod(int(_seed(pixel, width)), width)
    episode = sum(1 for a in alerts if (a.row, a.col) == (row, col))
    x, y = ground.geobox.affine * (col + 0.5, row + 0.5)
    name = f"{ground.site}|{ground.theme}|{ground.geobox.crs}|{round(x * 100)}|{round(y * 100)}|{episode}"
    return Alert(
        id=str(uuid.uuid5(NAMESPACE, name)), theme=ground.theme, kind=ground.kind, status="", reason="",
        date="", date_after="", date_by="", date_first=day, date_confirmed="", date_end="", date_retracted="",
        probability=0.0, magnitude=0.0, direction=int(table["direction"][group[0]]), n_pixels=0, area_ha=0.0,
        row=row, col=col, episode=episode, n_obs=0, scenes=(), baseline=baseline, runs=(),
    )  # fmt: skip


def _seed(pixel, width):
    """The pixel that an alert is named by: of its inner ones (all four neighbours in it) that with the smallest hash.

    The smallest hash of a set stays the same with the chance that two sets share (MinHash): a late scene that takes or
    adds a few pixels at the edge leaves the name as it was.
    """
    inner = pixel[
        np.isin(pixel - 1, pixel) & np.isin(pixel + 1, pixel) & np.isin(pixel - width, pixel)
        & np.isin(pixel + width, pixel)
    ]  # fmt: skip
    pool = inner if inner.size else pixel
    h = pool.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    return pool[np.lexsort((pool, h))[0]]


def _lived(alert: Alert, mine, day, scene, ground, baseline) -> Alert:
    """An alert after a scene: `mine` are its flagged pixels."""
    status = mine["status"]
    n_sure, n_likely = int((status >= 3).sum()), int((status >= 2).sum())
    was = alert.status
    if was == CONFIRMED:
        if _over(mine, ground):
            reason = "the series is back to what was usual" if status.size else "no longer seen"
            alert = replace(alert, status=ENDED, reason=reason, date_end=day, scenes=(*alert.scenes, scene.scene))
            return _measured(alert, mine, status >= 3, ground) if n_sure else alert
    elif status.size < max(1.0, _SHRUNK * ground.min_px):
        why = "later observations were normal" if status.size == 0 else "too little of it is left"
        return replace(alert, status=RETRACTED, reason=why, date_retracted=day, scenes=(*alert.scenes, scene.scene))
    elif n_sure >= ground.min_px:
        alert = replace(alert, status=CONFIRMED, reason="confirmed by later observations", date_confirmed=day)
    elif n_likely >= ground.min_px:
        alert = replace(alert, status=PROVISIONAL, reason="seen more than once")
    elif not was:
        alert = replace(alert, status=FIRST, reason="seen once")
    if alert.status != was:
        alert = replace(alert, scenes=(*alert.scenes, scene.scene))
    level = {FIRST: status >= 1, PROVISIONAL: status >= 2, CONFIRMED: status >= 3}[alert.status]
    alert = replace(alert, baseline=baseline)
    return _measured(alert, mine, level if level.any() else status >= 1, ground)


def _over(mine, ground) -> bool:
    """Whether a confirmed alert is over: all of it is back, or nearly all, and what is left would be no alert.

    Single pixels at the edge of a flood stay in doubt for a year after the rest is dry.
    """
    left, back = mine["status"] == 3, int((mine["status"] == 4).sum())
    n_left = int(left.sum())
    if n_left == 0 or back < _BACK * (back + n_left):
        return n_left == 0
    labels = _patches(mine["pixel"][left], np.ones(n_left, np.int16), ground.geobox.shape[1])
    return bool(np.bincount(labels).max() < max(1.0, _SHRUNK * ground.min_px))


def _middle_day(days) -> str:
    """Lower median of those that are known, "" where none is."""
    known = np.sort(days[days > NO_DAY])
    return _iso(known[(known.size - 1) // 2]) if known.size else ""


def _measured(alert: Alert, mine, at, ground) -> Alert:
    """The alert with dates, size and certainty of the pixels `at`."""
    pixel, dates = mine["pixel"][at], mine["date"][at]
    seed = mine["n_obs"][mine["pixel"] == alert.row * ground.geobox.shape[1] + alert.col]
    n = int(pixel.size)
    return replace(
        alert,
        # medians keep the order after < date <= by; one mixed pixel at the edge can't stretch the interval
        date=_middle_day(dates),
        date_after=_middle_day(mine["after"][at]),
        date_by=_middle_day(mine["by"][at]),
        probability=_mean(mine["probability"][at]),
        magnitude=_mean(mine["magnitude"][at]),
        n_pixels=n,
        area_ha=round(n * ground.pixel_ha, 6),
        n_obs=int(seed[0]) if seed.size else alert.n_obs,
        runs=_runs(pixel, ground.geobox.shape[1]),
    )


def _iso(day) -> str:
    return str(np.datetime64(int(day), "D"))


def _mean(values) -> float:
    values = values[np.isfinite(values)].astype(np.float64)
    return round(float(values.mean()), 6) if values.size else 0.0


def _runs(pixel, width):
    pixel = np.sort(pixel)
    new = np.ones(pixel.size, bool)
    new[1:] = (np.diff(pixel) != 1) | (pixel[1:] % width == 0)
    first = np.flatnonzero(new)
    last = np.append(first[1:], pixel.size) - 1
    return tuple(
        (int(pixel[a] // width), int(pixel[a] % width), int(pixel[b] % width) + 1) for a, b in zip(first, last)
    )
