"""STAC 1.1 out: an item that describes a run's layers, and a collection over items. All links are relative."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from geoalign.errors import ConfigError
from geoalign.io.atomic import atomic, safe_name
from geoalign.io.lonlat import footprint
from geoalign.io.style import STATUS_COLOURS
from geoalign.types.changes import STATUS, WHY
from geoalign.types.stack import geobox_of

RUN_KEYS = {
    "id": "name of the run, the item's id; by default kind and span of the changes",
    "site": "name of the site, part of the collection's id",
    "title": "one line for people",
    "created": "when the run ended, UTC; now by default",
    "start": "first time looked at; by default the first date among the changes",
    "end": "last time looked at; by default the last date among the changes",
    "inputs": "the scenes: mapping scene id -> path or address of the file or STAC item, or a list of those",
    "report": "path of the report, linked as an asset",
    "parameters": "mapping of the run's options",
    "sensor": "platform or sensor name",
}
"""What `run` may hold, all optional."""

EXTENSIONS = {
    "projection": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
}

_MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": "application/geo+json",
    ".parquet": "application/vnd.apache.parquet",
    ".html": "text/html",
    ".json": "application/json",
    ".qlr": "application/xml",
}


def check_run(run) -> dict:
    """The mapping itself, {} for None; ConfigError naming what is not in `RUN_KEYS`."""
    unknown = sorted(set(run or {}) - set(RUN_KEYS))
    if unknown:
        raise ConfigError(f"run holds {', '.join(unknown)}; it can hold {', '.join(RUN_KEYS)}.")
    return dict(run or {})


def write_item(folder, changes, layers, files, *, counts=None, span=None, run=None) -> Path:
    """Write `item.json`: what the layers in a folder are, from when, on which grid, made how and from what.

    Parameters
    ----------
    folder : where the item is written
    changes : Changes, for their attributes and grid
    layers : list of `encoding.Layer`
    files : dict name -> Path of the layers, `polygons`, `project`; those that exist become assets
    counts : mapping status name -> pixels, optional
    span : first and last datetime64 among the changes, optional
    run : mapping, see `RUN_KEYS`

    Returns
    -------
    Path of the item.
    """
    import pystac

    folder, run = Path(folder), check_run(run)
    created = _utc(run.get("created")) or datetime.now(UTC).replace(microsecond=0)
    start, end = (_utc(run.get(key)) or _utc(value) for key, value in zip(("start", "end"), span or (None, None)))
    if start is None or end is None:  # nothing changed and nobody said what was looked at
        start = end = start or end or created
    kind = str(changes.attrs["kind"])
    name = safe_name(run.get("id") or f"{kind}-{start:%Y%m%d}-{end:%Y%m%d}")
    geometry, bbox = _footprint(changes)
    properties = {
        "title": run.get("title") or f"{kind}, {start:%Y-%m-%d} to {end:%Y-%m-%d}",
        "created": _iso(created),
        "processing:software": {"geoalign": str(changes.attrs["geoalign_version"])},
        "processing:datetime": _iso(created),
        "processing:lineage": str(changes.attrs["detector"]),
        "geoalign:kind": kind,
        "geoalign:prior": _finite(changes.attrs["prior"]),
        **_projection(changes),
    }
    if counts:
        properties["geoalign:pixels"] = dict(counts)
    if run.get("parameters"):
        properties["geoalign:parameters"] = json.loads(json.dumps(run["parameters"], default=str))
    if run.get("sensor"):
        properties["platform"] = str(run["sensor"])
    item = pystac.Item(name, geometry, bbox, None, properties, start_datetime=start, end_datetime=end)
    item.stac_extensions = list(EXTENSIONS.values())
    for layer in layers:
        item.add_asset(layer.name, _layer_asset(layer, files[layer.name], changes))
    for key, title, roles in (
        ("polygons", "changes as polygons", ["data"]),
        ("project", "layer definition for QGIS", ["metadata"]),
    ):
        if key in files:
            item.add_asset(key, _asset(files[key].name, title, roles))
    if run.get("report"):
        report = os.path.relpath(run["report"], folder.parent if folder.name.startswith(".part-") else folder)
        item.add_asset("report", _asset(Path(report).as_posix(), "report of the run", ["overview"]))
    item.collection_id = _collection_id(run.get("site"), kind)
    for relation in ("root", "parent", "collection"):
        item.add_link(pystac.Link(relation, "./collection.json", "application/json"))
    for href, title in _inputs(run.get("inputs"), changes, folder):
        item.add_link(pystac.Link("derived_from", href, _MEDIA.get(Path(href).suffix), title))
    return _write(folder / "item.json", item.to_dict(include_self_link=False, transform_hrefs=False))


def write_collection(path, items, *, title: str = "", description: str = "") -> Path:
    """Write a STAC collection over items that lie anywhere beside or below it; links are relative.

    Parameters
    ----------
    path : of the collection's file
    items : paths of item files; their ids, extents and `collection` names are read
    title, description : str

    Returns
    -------
    Path of the collection.
    """
    import pystac

    path = Path(path)
    documents = [json.loads(Path(item).read_text(encoding="utf-8")) for item in items]
    boxes = [document["bbox"] for document in documents if document.get("bbox")]
    west, south, east, north = np.array(boxes or [[-180.0, -90.0, 180.0, 90.0]]).T
    bbox = [float(west.min()), float(south.min()), float(east.max()), float(north.max())]
    starts = [_utc(document["properties"]["start_datetime"]) for document in documents]
    ends = [_utc(document["properties"]["end_datetime"]) for document in documents]
    interval = [min(starts, default=None), max(ends, default=None)]
    extent = pystac.Extent(pystac.SpatialExtent([bbox]), pystac.TemporalExtent([interval]))
    name = next((document["collection"] for document in documents if document.get("collection")), "geoalign")
    text = description or "Changes on the ground found by geoalign, one item a run."
    collection = pystac.Collection(name, text, extent, title=title or None, license="other")
    collection.add_link(pystac.Link("root", f"./{path.name}", "application/json"))
    for item, document in zip(items, documents):
        href = Path(os.path.relpath(item, path.parent)).as_posix()
        collection.add_link(
            pystac.Link("item", href if href.startswith("..") else f"./{href}", "application/geo+json", document["id"])
        )
    return _write(path, collection.to_dict(include_self_link=False, transform_hrefs=False))


def write_feed_item(path, geobox, files, *, name, title, created, start, end, properties=None, related=()) -> Path:
    """Write the item of one state of a feed: which files hold it, of what ground and time. Links are relative.

    Parameters
    ----------
    path : of the item
    geobox : of the site
    files : mapping asset name -> (file name beside the item, title)
    name, title : str
    created : when it was made, UTC
    start, end : first and last time looked at; `created` where None
    properties : mapping, more properties
    related : pairs (relative address, title) of other documents
    """
    import pystac

    created = _utc(created)
    start, end = (_utc(v) or created for v in (start, end))
    geometry, bbox = (None, None) if geobox.crs is None else footprint(geobox)
    own = {"title": title, "created": _iso(created), "processing:software": {"geoalign": _version()}}
    item = pystac.Item(
        safe_name(name), geometry, bbox, None, own | dict(properties or {}), start_datetime=start, end_datetime=end
    )
    item.stac_extensions = [EXTENSIONS["processing"]]
    for key, (file, text) in files.items():
        item.add_asset(key, _asset(file, text, ["data"]))
    for href, text in related:
        item.add_link(pystac.Link("related", href, _MEDIA.get(Path(href).suffix), text))
    return _write(Path(path), item.to_dict(include_self_link=False, transform_hrefs=False))


def _version():
    from geoalign import __version__

    return __version__


def _layer_asset(layer, path, changes):
    band = {"name": layer.name, "description": layer.title, "data_type": layer.stored, "nodata": _nodata(layer)}
    if layer.units:
        band["unit"] = layer.units
    resolution = _resolution(changes)
    if resolution:
        band["raster:spatial_resolution"] = resolution
    bands = [band]
    if layer.dim:
        bands = [band | {"name": f"{layer.name}_{k + 1}"} for k in range(layer.size)]
    extra: dict = {"bands": bands}
    if layer.name == "status":
        extra["classification:classes"] = [
            {"value": code, "name": meaning, "color_hint": "".join(f"{v:02X}" for v in STATUS_COLOURS[code][:3])}
            | ({"nodata": True} if code == 255 else {})
            for code, meaning in STATUS.items()
        ]
    if layer.name == "why":
        extra["classification:bitfields"] = [
            {"name": name, "offset": bit.bit_length() - 1, "length": 1, "classes": _NO_YES} for name, bit in WHY.items()
        ]
    return _asset(path.name, layer.title, ["data"], extra)


_NO_YES = [{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}]


def _asset(href, title, roles, extra=None):
    import pystac

    href = href if href.startswith("..") else f"./{href}"
    return pystac.Asset(href, title, media_type=_MEDIA.get(Path(href).suffix), roles=roles, extra_fields=extra or {})


def _nodata(layer):
    return "nan" if np.isnan(layer.nodata) else layer.nodata


def _resolution(changes):
    box = geobox_of(changes)
    return None if box is None or not box.crs.projected else float(abs(box.resolution.x))


def _projection(changes):
    box = geobox_of(changes)
    shape = [changes.sizes["y"], changes.sizes["x"]]
    if box is None:
        return {"proj:code": None, "proj:shape": shape}
    place = {"proj:shape": shape, "proj:transform": [float(v) for v in box.affine[:6]]}
    if box.crs.epsg:
        return {"proj:code": f"EPSG:{box.crs.epsg}", **place}
    return {"proj:code": None, "proj:wkt2": box.crs.to_wkt(), **place}


def _footprint(changes):
    """Outline in longitude and latitude (counter-clockwise) and its box; None without a CRS."""
    box = geobox_of(changes)
    return (None, None) if box is None else footprint(box)


def _inputs(inputs, changes, folder):
    """Links to what the layers were made from; files by relative path."""
    if inputs is None:
        return
    pairs = inputs.items() if hasattr(inputs, "items") else ((None, source) for source in inputs)
    home = folder.parent if folder.name.startswith(".part-") else folder
    for title, source in pairs:
        href = str(source)
        if "://" not in href:
            href = Path(os.path.relpath(href, home)).as_posix()
        yield href, None if title is None else str(title)


def _collection_id(site, kind):
    return safe_name(f"{site}-{kind}" if site else f"geoalign-{kind}")


def _utc(value):
    """Any time as an aware UTC datetime; None for None."""
    if value is None:
        return None
    stamp = pd.Timestamp(value)
    stamp = stamp.tz_localize(UTC) if stamp.tzinfo is None else stamp.tz_convert(UTC)
    return stamp.to_pydatetime(warn=False)


def _iso(stamp):
    return stamp.isoformat().replace("+00:00", "Z")


def _finite(value):
    return float(value) if np.isfinite(value) else None


def _write(path, document):
    with atomic(path) as partial:
        partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path
