"""Scenes out of STAC catalogues: what is new among the items, each kept as a file of its own.

Only the JSON of a catalogue is read at every visit; assets are opened for items that were not there before, or that say
something else now.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from geoalign.errors import GeoalignError, StackError
from geoalign.io.atomic import atomic
from geoalign.monitor.store import digest
from geoalign.publish import file_sha256

log = logging.getLogger("geoalign")

_MOVING = ("created", "updated", "expires")
"""Properties that don't say what is in an item: a catalogue that is written anew brings nothing new."""


def products_of(config, stack: str, source: str, old, now: float, again, read: bool, folder: Path, out) -> None:
    """Put the deliveries that are new in a catalogue into `out`; an item's file lies in `folder` under its key."""
    from geoalign.io.scenes import Skipped
    from geoalign.io.stac import items_of, scenes_of_stac

    skipped = Skipped(False)
    try:
        items, base = items_of(source, None, None, skipped)
    except GeoalignError as err:
        out.tell("source_unreachable", stack, f"{err} It is asked again at the next visit.")
        return
    for record in skipped.records:
        out.tell("left_out", record["scene"] or record["path"], record["reason"])
    out.n_listed += len(items)
    known = {p.key: p for p in old}
    for item in items:
        plain = _plain(item, base)
        key = digest(stack, _identity(plain))
        twin = known.get(key)
        if twin is not None and item.id not in again and twin.scene not in again:
            continue
        path = folder / f"{key}.json"
        blank = _blank(key, stack, plain, path, now if twin is None else twin.arrived)
        if not read:
            out.products[key] = replace(blank, status="valid")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(path) as part:
            part.write_text(json.dumps(plain), encoding="utf-8")
        refused = Skipped(False)
        try:
            found = scenes_of_stac(str(path), config.product_of(stack), refused)
            if not found:
                raise StackError("; ".join(r["reason"] for r in refused.records) or "the item holds no scene")
            out.products[key] = _product(blank, found[0], config, stack)
        except (GeoalignError, OSError) as err:
            out.products[key] = replace(blank, reason=str(err))
            out.tell("quarantined", item.id, str(err))


def _plain(item, base) -> dict[str, Any]:
    """The item as a document that stands alone: its assets by absolute path or address, without links."""
    from geoalign.io.stac import _href

    plain = item.to_dict(include_self_link=False, transform_hrefs=False)
    plain["links"] = []
    for name, asset in item.assets.items():
        try:
            plain["assets"][name]["href"] = _href(item, asset, base)
        except StackError as err:
            log.warning("%s, asset %s: %s", item.id, name, err)
            del plain["assets"][name]
    return plain


def _identity(plain) -> dict[str, Any]:
    """What makes an item another delivery: all it says, without when it was written and how addresses are signed."""
    properties = {k: v for k, v in plain["properties"].items() if k not in _MOVING}
    assets = {}
    for name, asset in plain["assets"].items():
        href, local = asset["href"].split("?")[0], Path(asset["href"])
        stamp = [local.stat().st_size, local.stat().st_mtime_ns] if local.is_file() else []
        assets[name] = [{k: v for k, v in asset.items() if k != "href"}, href, stamp]
    return {"id": plain["id"], "properties": properties, "assets": assets}


def _blank(key, stack, plain, path, now):
    from geoalign.io.dates import safe_name
    from geoalign.monitor.arrivals import QUARANTINED, Product

    return Product(
        key=key, stack=stack, scene=safe_name(plain["id"]), acquisition="", time="", sensor="", orbit=-1, tile="",
        processing="", bands=(), paths=(str(path),), content=(key,), mtime_ns=0, status=QUARANTINED, reason="",
        arrived=now,
    )  # fmt: skip


def _product(blank, scene, config, stack):
    """The delivery of one item; its local files are read whole, remote ones when their evidence is made."""
    from geoalign.io.geotiff import is_remote, validate_file
    from geoalign.monitor.arrivals import described

    content = []
    for path in scene.paths:
        if not is_remote(path):
            validate_file(path)
            content.append(file_sha256(path))
    return described(replace(blank, content=tuple(sorted(content)) or blank.content), scene, config, stack)
