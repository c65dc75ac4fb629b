"""STAC in: catalogues, collections, items and ItemCollections, local or remote; searches through `geoalign[stac]`.

Items of STAC 1.0 (`proj:epsg`, `eo:bands`, `raster:bands`) and 1.1 (`proj:code`, `bands`) alike. Assets are read by the
same door as files, so that radiometry, masks and refusals are the same.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.io import products
from geoalign.io.dates import Facts, describe, parse_time, safe_name, sensor_name
from geoalign.io.geotiff import SUFFIXES, is_remote, read_header
from geoalign.io.scenes import Layer, Scene, Skipped, make_scene
from geoalign.io.select import time_range
from geoalign.types.stack import SAR_BANDS

log = logging.getLogger("geoalign")

_RASTER_TYPES = ("image/tiff", "image/jp2")
_MASK_LAYERS = ("scl", "qa_pixel", "fmask", "mask", "ls_map")
_MAX_ITEMS = 5000


def scenes_of_stac(source, product, skipped: Skipped, *, bands=None, bbox=None, time=None) -> list[Scene]:
    """Scenes of a STAC source; items that are refused go to `skipped`.

    Parameters
    ----------
    source : path or address of a catalogue, collection, item or ItemCollection (JSON); a pystac object; a list of
        items; a pystac-client search; or {"api": address, "collections": [...], ...} for a search
    bands : other assets, but for masks, are not opened
    bbox, time : as in `open_stack`; passed on to an API search, and used to leave out items unopened
    """
    items, base = items_of(source, bbox, time, skipped)
    if not items and not skipped.records:
        raise NoUsableData(f"{_shown(source)} holds no STAC items{' there and then' if bbox or time else ''}.")
    if len(items) > _MAX_ITEMS:
        raise StackError(f"{_shown(source)} holds more than {_MAX_ITEMS} items; narrow it with time= and bbox=.")
    out = []
    for item in items:
        if not _wanted(item, bbox, time):
            continue
        try:
            out.append(_scene(item, base, product, bands))
        except StackError as err:
            skipped.add(item.get_self_href() or item.id, err, safe_name(item.id))
    return out


def items_of(source, bbox, time, skipped):
    import pystac

    if isinstance(source, dict) and "api" in source:
        return _search(source, bbox, time), source["api"]
    if isinstance(source, dict):
        return _of_document(source, None, skipped), None
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        return _of_document(_document(text), text, skipped), text
    if isinstance(source, pystac.Item):
        return [source], source.get_self_href()
    if isinstance(source, pystac.Catalog):
        return _walk(source, skipped), source.get_self_href()
    if isinstance(source, pystac.ItemCollection):
        return list(source), None
    if hasattr(source, "item_collection"):
        return list(source.item_collection()), None
    if isinstance(source, list | tuple) and source and all(isinstance(i, pystac.Item) for i in source):
        return list(source), source[0].get_self_href()
    raise ConfigError(
        f"a source of type {type(source).__name__} is unknown; give a path, a glob, a list of paths, a STAC object "
        'or {"api": ..., "collections": [...]}.'
    )


def _document(text):
    from geoalign.io.remote import Documents

    try:
        return json.loads(Documents(text).read_text(text))
    except ValueError as err:
        raise StackError(f"{_shown(text)} can't be read as STAC: {err}.") from err


def _of_document(document, href, skipped):
    import pystac

    from geoalign.io.remote import Documents

    if not isinstance(document, dict):
        raise StackError(f"{_shown(href)} is no STAC document (a JSON object is expected).")
    if "conformsTo" in document:
        raise ConfigError(
            f"{_shown(href)} is a STAC API: say what to look for, as "
            f'{{"api": "{_shown(href)}", "collections": ["..."]}}, with time= and bbox=.'
        )
    try:
        if document.get("type") == "FeatureCollection":
            return _features(document, href, skipped)
        if document.get("type") == "Feature":
            return [pystac.Item.from_dict(document, href=href, preserve_dict=False)]
        if document.get("type") in ("Catalog", "Collection"):
            if href is None:
                raise StackError("a catalogue given as a dict has no place for its links; give its path or address.")
            kind = pystac.Catalog if document["type"] == "Catalog" else pystac.Collection
            return _walk(kind.from_file(href, stac_io=Documents(href)), skipped)
    except _invalid() as err:
        raise StackError(f"{_shown(href)} is no valid STAC document: {err}.") from err
    raise StackError(f"{_shown(href)} is no STAC document (type {document.get('type')!r}).")


def _invalid():
    """What pystac raises at documents that are not what they should be."""
    import pystac

    return (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, ValueError, AttributeError)


def _features(document, href, skipped):
    """The items of an ItemCollection, one by one, so that a broken one does not take the others with it."""
    import pystac

    out = []
    features = document.get("features")
    if not isinstance(features, list):
        raise StackError(f"{_shown(href)} is an ItemCollection without a list of features.")
    for k, feature in enumerate(features):
        try:
            out.append(pystac.Item.from_dict(feature, preserve_dict=False))
        except _invalid() as err:
            name = str(feature.get("id", "")) if isinstance(feature, dict) else ""
            skipped.add(
                f"{_shown(href)}, feature {k + 1}", f"it is no valid STAC item: {err}", safe_name(name) if name else ""
            )
    return out


def _walk(catalog, skipped):
    """The items below a catalogue, link by link, so that a broken one does not take the others with it."""
    import pystac

    out, waiting, seen = [], [catalog], set()
    while waiting and len(out) <= _MAX_ITEMS:
        parent = waiting.pop(0)
        for link in [*parent.get_item_links(), *parent.get_child_links()]:
            href = link.get_absolute_href() or id(link)
            if href in seen:
                continue
            seen.add(href)
            try:
                target = link.resolve_stac_object(root=parent.get_root()).target
            except (StackError, *_invalid()) as err:
                skipped.add(href, err.__cause__ or err)
                continue
            if isinstance(target, pystac.Item):
                out.append(target)
            elif isinstance(target, pystac.Catalog):
                waiting.append(target)
    return out


def _search(query, bbox, time):
    try:
        import pystac_client
    except ImportError as err:
        raise ConfigError(
            "searching a STAC API needs pystac-client, which is not installed: pip install 'geoalign[stac]'. "
            "Static catalogues and ItemCollections work without it."
        ) from err
    rest = {k: v for k, v in query.items() if k != "api"}
    if time is not None and "datetime" not in rest:
        first, last = (np.datetime_as_string(t, "s") + "Z" for t in time_range(time))
        rest["datetime"] = f"{first}/{last}"
    if bbox is not None and "bbox" not in rest and "intersects" not in rest and getattr(bbox, "crs", None) is None:
        rest["bbox"] = list(bbox)
    if not (rest.get("collections") or rest.get("ids")):
        raise ConfigError(f"a search of {query['api']} needs collections (or ids), e.g. ['sentinel-2-l2a'].")
    try:
        client = pystac_client.Client.open(query["api"])
        return list(client.search(max_items=_MAX_ITEMS + 1, **rest).items())
    except pystac_client.exceptions.APIError as err:
        raise StackError(f"the search of {query['api']} failed: {err}. Try again later, or narrow it.") from err
    except TypeError as err:
        raise ConfigError(f"the search has an unknown key: {err}.") from err


def _wanted(item, bbox, time):
    if time is not None and item.datetime is not None:
        first, last = time_range(time)
        if not first <= np.datetime64(item.datetime.replace(tzinfo=None), "ns") <= last:
            return False
    if bbox is None or item.bbox is None or getattr(bbox, "crs", None) is not None:
        return True
    west, south, east, north = (*item.bbox[:2], *item.bbox[len(item.bbox) // 2 :][:2])
    if west > east:  # across the antimeridian: left to the grid
        return True
    return west < bbox[2] and east > bbox[0] and south < bbox[3] and north > bbox[1]


def _scene(item, base, product, bands):
    wanted = None if bands is None else {*([bands] if isinstance(bands, str) else bands), *_MASK_LAYERS}
    facts = item_facts(item, product)
    profile = products.profile_of(product, facts.product)
    layers, have = [], set()
    for key, asset in sorted(item.assets.items(), key=lambda pair: _rank(*pair)):
        if not _is_raster(asset):
            continue
        infos = asset_bands(asset)
        names = [_name(key, info, len(infos), profile.name, facts.sensor) for info in infos]
        # the same band again: a JPEG 2000 copy, or a coarser one
        if not any(n and n not in have and (wanted is None or n in wanted) for n in names):
            continue
        have.update(names)
        header = read_header(_href(item, asset, base), trusted_host=_host(base))
        if header.count < len(infos):
            raise StackError(f"asset {key} has {header.count} bands, its item says {len(infos)}.")
        _check_crs(item, asset, header)
        for k, (info, name) in enumerate(zip(infos, names)):
            layers.append(_layer(header, k, info, name, facts))
    if not layers:
        raise StackError(
            f"item {item.id} has no raster asset that {profile.name} knows (assets: {', '.join(item.assets)})."
        )
    return make_scene(layers, product)


def _rank(key, asset):
    """Assets that can be read first, then GeoTIFF before JPEG 2000, then the finest (`gsd`, or the key's `_10m`)."""
    scheme = urlsplit(asset.href).scheme.lower()
    size = re.search(r"_(\d+)m$", key)
    gsd = asset.extra_fields.get("gsd") or (float(size[1]) if size else 0.0)
    return (len(scheme) > 1 and scheme not in ("http", "https"), "jp2" in asset.href.lower(), float(gsd))


def item_facts(item, product="auto") -> Facts:
    """What an item says of its scene."""
    p = item.properties
    stamp = item.datetime.isoformat() if item.datetime else p.get("start_datetime")
    if not stamp:
        raise StackError(f"item {item.id} has neither datetime nor start_datetime.")
    moment, day_only = parse_time(stamp, f"item {item.id}, datetime")
    named = ""
    for text in (p.get("product", ""), item.collection_id or "", item.id):
        named = named or (text if text in products.PROFILES else products.collection_product(str(text)))
    by_name = _by_name(item.id)
    named = named or by_name.product
    if named == "hls" and not re.search(r"[LS]30", by_name.sensor):
        by_name = replace(by_name, sensor="HLS-L30" if "l30" in f"{item.collection_id}{item.id}".lower() else "HLS-S30")
    baseline = str(p.get("s2:processing_baseline") or p.get("processing_baseline") or "")
    if not baseline and named == "sentinel2-l2a":
        baseline = str(p.get("processing:version") or "")
    flag = next((p[k] for k in ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied") if k in p), "")
    sensor = by_name.sensor if named == "hls" else sensor_name(str(p.get("platform", ""))) or by_name.sensor
    orbit = p.get("sat:relative_orbit", p.get("landsat:wrs_path", by_name.orbit))
    grid = str(p.get("grid:code", "")).removeprefix("MGRS-") or by_name.tile
    return Facts(
        scene=safe_name(item.id),
        time=moment,
        day_only=day_only,
        sensor=sensor,
        orbit=int(orbit),
        product=named,
        tile=grid,
        baseline=baseline if re.fullmatch(r"\d\d\.\d\d", baseline) else by_name.baseline,
        boa_applied=str(flag).lower(),
        units=by_name.units or str(p.get("units", "")),
        source=f"item {item.id}",
    )


def _by_name(text):
    try:
        return describe(text)
    except StackError:
        return Facts()


def asset_bands(asset) -> list[dict]:
    """One dict a band: name, common_name, scale, offset, nodata (None where not said), from STAC 1.0 or 1.1 fields."""
    extra = asset.extra_fields
    parts = [extra.get(k) or [] for k in ("bands", "eo:bands", "raster:bands")]
    out = []
    for k in range(max(1, *(len(p) for p in parts))):
        merged = {}
        for source in (extra, *(p[k] for p in parts if k < len(p))):
            for key in ("name", "common_name", "scale", "offset", "nodata"):
                for full in (key, f"eo:{key}", f"raster:{key}"):
                    if full in source:
                        merged[key] = source[full]
        out.append(merged)
    return out


def _name(key, info, n_bands, product, sensor):
    candidates = [info.get("name", ""), info.get("common_name", "")]
    # the asset's key is the usual name ("B04", "red", "scl"); a common name is shared by bands (rededge, nir08)
    candidates = [key, *candidates] if n_bands == 1 else candidates
    known = (*products.OPTICAL_BANDS, *_MASK_LAYERS, *SAR_BANDS)
    names = [products.band_name(str(c), product, sensor) for c in candidates if c]
    return next((n for n in names if n in known), names[0] if names and product == "generic" and n_bands > 1 else "")


def _layer(header, k, info, name, facts):
    scale, offset = header.scales[k], header.offsets[k]
    # a scale without its offset says nothing of the offset: it is not taken for zero
    if "scale" in info and "offset" in info:
        scale, offset = float(info["scale"]), float(info["offset"])
    missing = tuple(v for v in (header.nodata[k], _number(info.get("nodata"))) if v is not None)
    return Layer(header, k + 1, name, facts, scale, offset, missing)


def _number(value):
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _is_raster(asset):
    roles = asset.roles or []
    if any(r in ("thumbnail", "overview", "metadata", "visual") for r in roles):
        return False
    kind = (asset.media_type or "").split(";")[0].strip().lower()
    return kind in _RASTER_TYPES or asset.href.split("?")[0].lower().endswith(SUFFIXES)


def _href(item, asset, base):
    href = asset.get_absolute_href() or asset.href
    if is_remote(href):
        return href
    if base is not None and is_remote(base):
        raise StackError(f"item {item.id} of a remote catalogue points to {href!r} on this machine; that is refused.")
    if not os.path.isabs(href) and "://" not in href and base is not None:
        href = str(Path(base).parent / href)
    return href


def _host(base):
    return urlsplit(base).netloc if base is not None and is_remote(base) else None


def _check_crs(item, asset, header):
    for source in (asset.extra_fields, item.properties):
        code = source.get("proj:code") or (f"EPSG:{source['proj:epsg']}" if source.get("proj:epsg") else None)
        if code is None:
            continue
        found = header.geobox.crs.epsg
        if found is not None and str(code).upper().startswith("EPSG:") and int(str(code).split(":")[1]) != found:
            raise StackError(
                f"{header.shown} is in EPSG:{found}, but its item says {code}: one is wrong, and its place unknown."
            )
        return


def _shown(source):
    return str(source).split("?")[0] if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"
