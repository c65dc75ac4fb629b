"""What is new in an area of interest since its reader last looked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geoalign.errors import ConfigError, StateError
from geoalign.monitor.alerts import Alert, outline
from geoalign.sitecheck import absolute

_MAX_BYTES = 2**24
_SHOWN = ("id", "revision", "theme", "kind", "status", "reason", "date", "date_after", "date_by", "area_ha",
          "probability", "magnitude", "direction")  # fmt: skip


def load_area(path):
    """The polygons of a GeoJSON file as one shape, in degrees; ConfigError where it holds none."""
    import shapely

    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_BYTES // 2**20} MB; that is no area of interest.")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise ConfigError(f"{path} can't be read as GeoJSON: {err}.") from err
    parts = []
    for geometry in _geometries(document):
        try:
            parts.append(shapely.make_valid(shapely.from_geojson(json.dumps(geometry))))
        except (shapely.GEOSException, ValueError, TypeError) as err:
            raise ConfigError(f"{path} holds a geometry that can't be read: {err}.") from err
    shape = shapely.union_all([p for p in parts if p.area > 0])
    if shape.is_empty:
        raise ConfigError(f"{path} holds no polygon; give a Feature, FeatureCollection or geometry of polygons.")
    west, south, east, north = shape.bounds
    if west < -180.001 or east > 180.001 or south < -90.001 or north > 90.001:
        raise ConfigError(f"{path} is not in degrees (it spans {west:g} to {east:g}); GeoJSON is (RFC 7946).")
    return shape


def _geometries(document):
    if not isinstance(document, dict):
        return
    if document.get("type") == "FeatureCollection":
        for feature in document.get("features") or []:
            yield from _geometries(feature)
    elif document.get("type") == "Feature":
        yield from _geometries(document.get("geometry"))
    elif "type" in document:
        yield document


def digest(ledger, config, name: str, geobox) -> dict[str, Any]:
    """What was published about an area since it was last marked as seen.

    Parameters
    ----------
    ledger : Ledger; reading is enough
    config : Config, whose `[[monitor.area]]` has the name
    name : of the area
    geobox : of the site

    Returns
    -------
    dict: area; seen (visit up to which it was marked), visit (the last one that published); alerts, a list with the
    newest revision of each alert that touches the area, `change` the words of all that moved since; counts by status,
    and "new"; looked_at, when the region was last seen, in words
    """
    area = next((a for a in config.monitor.area if a.name == name), None)
    if area is None:
        known = ", ".join(a.name for a in config.monitor.area) or "none; add [[monitor.area]] with name and path"
        raise ConfigError(f"there is no area {name!r} (known: {known}).")
    shape = _on_grid(load_area(absolute(config.folder, area.path)), geobox)
    row = ledger.row("SELECT visit FROM seen WHERE area = ?", name)
    seen = 0 if row is None else int(row["visit"])
    rows = ledger.rows("SELECT * FROM revisions WHERE visit > ? ORDER BY alert, revision", seen)
    last = ledger.row("SELECT max(id) AS visit FROM visits WHERE status = 'done'")["visit"] or seen
    changes: dict[str, list[str]] = {}
    newest: dict[str, Alert] = {}
    for entry in rows:
        changes.setdefault(entry["alert"], []).extend(entry["change"].split())
        newest[entry["alert"]] = Alert.of(json.loads(entry["record"]))
    alerts = []
    counts = {"new": 0}
    for key, alert in sorted(newest.items(), key=lambda pair: (pair[1].date, pair[0])):
        if not outline(alert.runs, geobox).intersects(shape):
            continue
        words = list(dict.fromkeys(changes[key]))
        alerts.append({k: getattr(alert, k) for k in _SHOWN} | {"change": words})
        counts["new"] += "new" in words
        counts[alert.status] = counts.get(alert.status, 0) + 1
    return {
        "area": name, "seen": seen, "visit": int(last), "alerts": alerts, "counts": counts,
        "looked_at": _looked_at(ledger),
    }  # fmt: skip


def _looked_at(ledger) -> str:
    """No alert means nothing where nothing was looked at: the last scene that showed anything, in words."""
    row = ledger.row("SELECT max(time) AS time FROM evidence WHERE status = 'valid'")
    visit = ledger.row("SELECT max(started) AS at FROM visits WHERE status = 'done'")
    if row is None or row["time"] is None:
        return "no scene has been seen yet"
    return f"last scene of {row['time'][:10]}, last visit {str(visit['at'])[:16] if visit else 'none'}"


def mark_seen(ledger, name: str, visit: int) -> None:
    """Note that the reader of an area has seen the log up to a visit; never back."""
    with ledger.writing() as db:
        if db.execute("SELECT 1 FROM visits WHERE id = ?", (visit,)).fetchone() is None:
            raise StateError(f"there is no visit {visit}; an area is marked as seen up to one that was.")
        db.execute(
            "INSERT INTO seen (area, visit) VALUES (?, ?) ON CONFLICT (area) DO UPDATE SET visit = max(visit, ?)",
            (name, visit, visit),
        )


def _on_grid(shape, geobox):
    import shapely
    from pyproj import Transformer

    if geobox.crs is None:
        raise ConfigError("the site's grid has no CRS, so an area in degrees has no place on it.")
    change = Transformer.from_crs("EPSG:4326", str(geobox.crs), always_xy=True)
    # sides bend between the two systems; a point every 0.01 degrees at least
    shape = shapely.segmentize(shape, 0.01)
    return shapely.make_valid(shapely.transform(shape, change.transform, interleaved=False))
