"""What has come: files become deliveries of scenes, deliveries of one acquisition become the one that counts.

A file is read whole once, when it is new or changed. Which delivery counts depends on the deliveries alone, never on
the order in which they came: the newest processing, then the most bands, then the latest file.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoalign.errors import GeoalignError, NoUsableData, StackError
from geoalign.monitor import catalogue
from geoalign.monitor.ledger import Ledger, insert
from geoalign.monitor.store import digest
from geoalign.publish import file_sha256

log = logging.getLogger("geoalign")

VALID, WAITING, QUARANTINED, SUPERSEDED, DUPLICATE = "valid", "waiting", "quarantined", "superseded", "duplicate"


@dataclass(frozen=True)
class Product:
    """One delivery of one scene. `rank` decides among deliveries of the same ground at the same time; `bands` are ours.

    content : hashes of its files; status : valid, waiting (for bands), quarantined, superseded, duplicate
    """

    key: str
    stack: str
    scene: str
    acquisition: str
    time: str
    sensor: str
    orbit: int
    tile: str
    processing: str
    bands: tuple[str, ...]
    paths: tuple[str, ...]
    content: tuple[str, ...]
    mtime_ns: int
    status: str
    reason: str
    arrived: float
    visit: int = 0

    @property
    def rank(self) -> tuple:
        return (self.processing, len(self.bands), self.mtime_ns, *self.content)

    def row(self) -> dict[str, Any]:
        return {
            "key": self.key, "stack": self.stack, "scene": self.scene, "acquisition": self.acquisition,
            "time": self.time, "sensor": self.sensor, "orbit": self.orbit, "tile": self.tile,
            "processing": self.processing, "bands": " ".join(self.bands), "paths": json.dumps(self.paths),
            "rank": json.dumps([self.content, self.mtime_ns]), "status": self.status, "reason": self.reason,
            "arrived": self.arrived, "visit": self.visit,
        }  # fmt: skip

    @classmethod
    def of(cls, row: dict[str, Any]) -> Product:
        content, mtime_ns = json.loads(row["rank"])
        known = {k: v for k, v in row.items() if k not in ("rank", "bands", "paths")}
        paths, bands = tuple(json.loads(row["paths"])), tuple(row["bands"].split())
        return cls(**known, bands=bands, paths=paths, content=tuple(content), mtime_ns=mtime_ns)


@dataclass
class Arrivals:
    """What one look at the sources found: rows to write, and words about them."""

    files: list[dict[str, Any]] = field(default_factory=list)
    products: dict[str, Product] = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)  # kind, subject, detail
    n_listed: int = 0

    def tell(self, kind: str, subject: str, detail: str) -> None:
        log.log(logging.INFO if kind.startswith("duplicate") else logging.WARNING, "%s: %s: %s", kind, subject, detail)
        self.events.append((kind, subject, detail))

    def write(self, db, visit: int) -> None:
        """Put all of it into the ledger, inside a transaction."""
        for row in self.files:
            insert(db, "files", row, replace=True)
        for product in self.products.values():
            insert(db, "products", replace(product, visit=product.visit or visit).row(), replace=True)
        write_events(db, visit, self.events)


def write_events(db, visit: int, events) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    for kind, subject, detail in events:
        insert(db, "events", {"visit": visit, "at": at, "kind": kind, "subject": subject, "detail": detail})


def look(config, stack: str, ledger: Ledger, *, bands, now: float, again=(), read: bool = True) -> Arrivals:
    """List a source, and read what is new in it.

    Parameters
    ----------
    bands : those a scene must have to be whole; one that lacks some waits for `grace_hours`. None before a baseline is
    now : seconds since 1970, for the grace time alone
    again : scene ids whose files are read again although they are known (`retry`)
    read : False looks at headers only (`--dry-run`)
    """
    from geoalign.io.geotiff import SUFFIXES, is_remote
    from geoalign.io.open import expand

    out, source = Arrivals(), config.sources[stack]
    try:
        listed = [source] if is_remote(source) else expand(source)
    except NoUsableData as err:
        out.tell("no_scenes", stack, str(err))
        listed = []
    paths = [p for p in listed if p.lower().endswith(SUFFIXES) and not is_remote(p)]
    old = [Product.of(r) for r in ledger.rows("SELECT * FROM products WHERE stack = ?", stack)]
    for other in listed:
        if other in paths:
            continue
        if not (is_remote(other) or other.lower().endswith((".json", ".geojson"))):
            raise StackError(f"{other} can't be watched: give GeoTIFF, COG or JPEG 2000 files, or a STAC catalogue.")
        catalogue.products_of(config, stack, other, old, now, again, read, ledger.path.parent / "items", out)
    known = {r["path"]: r for r in ledger.rows("SELECT * FROM files WHERE stack = ?", stack)}
    out.n_listed += len(paths)
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for row in known.values():
        groups.setdefault(row["product"], {})[row["path"]] = row
    touched: dict[str, None] = {}
    for path in paths:
        stamp = _stamp(path)
        row = known.get(path)
        if stamp is None or (row and (row["size"], row["mtime_ns"]) == stamp and row["product"] not in again):
            continue
        row = _file(path, stack, stamp, read, out)
        if row["path"] in known:
            groups[known[path]["product"]].pop(path, None)
            touched[known[path]["product"]] = None
        groups.setdefault(row["product"], {})[path] = row
        touched[row["product"]] = None
        if read:
            out.files.append({k: v for k, v in row.items() if not k.startswith("_")})
    for scene in touched:
        _products_of(scene, groups.get(scene, {}), [p for p in old if p.scene == scene], config, stack, now, out)
    _settle(out, old, bands, config.monitor.grace_hours * 3600, now)
    return out


def _stamp(path):
    try:
        stat = os.stat(path)
    except OSError:  # gone between listing and looking; a dead link is told when it is there again
        return None
    return stat.st_size, stat.st_mtime_ns


def _file(path, stack, stamp, read, out):
    """A row of `files`; `_error` where it is refused, `_layers` else."""
    from geoalign.io.dates import describe
    from geoalign.io.geotiff import read_header, validate_file
    from geoalign.io.scenes import scene_by_name

    row = {"path": path, "stack": stack, "size": stamp[0], "mtime_ns": stamp[1], "sha256": "", "product": ""}
    try:
        header = read_header(path)
        facts = describe(path, header.tags)
        row["product"] = facts.scene
        if read:
            validate_file(path)
            row["sha256"] = file_sha256(path)
        if _stamp(path) != stamp:
            raise StackError(f"{path} changed while it was read: it is still being written. It is looked at again.")
        row |= {"_header": header, "_facts": facts}
    except (GeoalignError, OSError) as err:
        row["product"] = row["product"] or scene_by_name(path) or Path(path).name
        row["_error"] = str(err)
        row["sha256"] = row["sha256"] or f"unread-{stamp[0]}-{stamp[1]}"
    return row


def _products_of(scene, files, old, config, stack, now, out):
    """The delivery that the files of one scene id make up now; those whose files were replaced are superseded."""
    from geoalign.io.dates import describe
    from geoalign.io.geotiff import read_header

    distinct: dict[str, dict[str, Any]] = {}
    for path, row in sorted(files.items()):
        if _stamp(path) is None:
            continue
        if row["sha256"] and row["sha256"] in distinct:
            other = distinct[row["sha256"]]["path"]
            out.tell("duplicate_ignored", scene, f"{path} holds the same bytes as {other}")
            continue
        if "_header" not in row and "_error" not in row:
            try:
                header = read_header(path)
                row = row | {"_header": header, "_facts": describe(path, header.tags)}
            except GeoalignError as err:
                row = row | {"_error": str(err)}
        distinct[row["sha256"] or path] = row
    sets = _versions(distinct)
    made = [_product(scene, rows, config, stack, now) for rows in sets]
    before = {p.key: p for p in old} | {k: p for k, p in out.products.items() if p.scene == scene}
    for product in made:
        twin = before.get(product.key)
        if twin is not None and twin.status not in (QUARANTINED, WAITING):
            if set(product.paths) != set(twin.paths):
                out.products[twin.key] = replace(twin, paths=product.paths)
            continue
        if twin is not None:
            product = replace(product, arrived=twin.arrived, visit=twin.visit)
        out.products[product.key] = product
        if product.status == QUARANTINED and (twin is None or twin.reason != product.reason):
            out.tell("quarantined", scene, product.reason)
    there = {row["path"]: row["sha256"] for row in distinct.values()}
    for key, product in before.items():
        if key in {p.key for p in made} or product.status == SUPERSEDED:
            continue
        replaced = [p for p in product.paths if p in there and there[p] not in product.content]
        grown = [m for m in made if set(product.content) < set(m.content)]
        if replaced or grown:
            reason = f"{replaced[0]} was replaced" if replaced else f"{len(grown[0].paths)} files now"
            out.products[key] = replace(product, status=SUPERSEDED, reason=reason)


def _versions(distinct):
    """Files of one scene id, split where two of them hold the same layer: those are versions of one another."""
    sets: list[list[dict[str, Any]]] = []
    for row in sorted(distinct.values(), key=lambda r: (r["mtime_ns"], r["path"])):
        names = _names(row)
        home = next((s for s in sets if names and not any(names & _names(r) for r in s)), None)
        if home is None:
            sets.append([row])
        else:
            home.append(row)
    return sets


def _names(row):
    if "_header" not in row:
        return set()
    header, facts = row["_header"], row["_facts"]
    if header.count == 1:
        return {facts.band or header.descriptions[0] or "band1"}
    return {d or f"band{k}" for k, d in enumerate(header.descriptions, start=1)}


def _product(scene, rows, config, stack, now) -> Product:
    from geoalign.io.scenes import file_layers, make_scene

    paths = tuple(r["path"] for r in rows)
    content = tuple(sorted(r["sha256"] for r in rows))
    blank = Product(
        key=digest(stack, scene, content), stack=stack, scene=scene, acquisition="", time="", sensor="", orbit=-1,
        tile="", processing="", bands=(), paths=paths, content=content,
        mtime_ns=max(r["mtime_ns"] for r in rows), status=QUARANTINED, reason="", arrived=now,
    )  # fmt: skip
    errors = [r["_error"] for r in rows if "_error" in r]
    if errors:
        return replace(blank, reason=errors[0])
    try:
        product = config.product_of(stack)
        layers = [layer for r in rows for layer in file_layers(r["_header"], r["_facts"], product)]
        made = make_scene(layers, product)
    except (GeoalignError, OSError) as err:
        return replace(blank, reason=str(err))
    return described(blank, made, config, stack)


def described(blank: Product, made, config, stack: str) -> Product:
    """A delivery with what its opened scene says of itself; quarantined where the site watches another orbit."""
    facts = made.facts
    stamp = str(facts.time.astype("datetime64[ns]"))
    box = made.geobox
    tile = facts.tile or f"{box.crs}{tuple(round(v, 6) for v in box.affine[:6])}{tuple(box.shape)}"
    wanted = config.orbit_of(stack)
    if wanted is not None and facts.orbit != wanted:
        return replace(blank, reason=f"its relative orbit is {facts.orbit}, the site watches {wanted}", time=stamp)
    return replace(
        blank, acquisition=f"{stamp[:19]} {facts.sensor} {facts.orbit}", time=stamp, sensor=facts.sensor,
        orbit=int(facts.orbit), tile=tile, processing=facts.baseline, bands=tuple(sorted(made.bands)), status=VALID,
    )  # fmt: skip


def _settle(out, old, bands, grace, now):
    """Waiting scenes whose time is over, or whose bands have come."""
    if bands is None:
        return
    everything = {p.key: p for p in old} | out.products
    for key, product in everything.items():
        if product.status not in (VALID, WAITING) or not product.acquisition:
            continue
        missing = [b for b in bands if b not in product.bands]
        if not missing:
            status, reason = VALID, ""
        elif now - product.arrived >= grace:
            status, reason = VALID, f"partial: no {', '.join(missing)}"
        else:
            status, reason = WAITING, f"no {', '.join(missing)} yet"
        if product.status == VALID and key not in out.products:
            continue  # decided before
        if (status, reason) != (product.status, product.reason):
            out.products[key] = replace(product, status=status, reason=reason)
            if status == WAITING:
                out.tell("waiting", product.scene, reason)
            elif reason:
                out.tell("partial", product.scene, reason)


@dataclass(frozen=True)
class Acquisition:
    """The deliveries of one moment that count: one for each tile. `content` is what its evidence is named by."""

    stack: str
    name: str
    scene: str
    time: str
    sensor: str
    orbit: int
    products: tuple[Product, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(p for product in self.products for p in product.paths)

    @property
    def content(self) -> tuple[tuple[str, ...], ...]:
        return tuple(sorted(p.content for p in self.products))

    @property
    def partial(self) -> bool:
        return any(p.reason.startswith("partial") for p in self.products)


def resolve(products) -> tuple[dict[str, Acquisition], dict[str, tuple[str, str]]]:
    """Which deliveries count, by acquisition; and key -> (status, reason) of those that do not.

    A pure function of the set of deliveries.
    """
    tiles: dict[tuple[str, str], list[Product]] = {}
    for product in products:
        if product.status == VALID and product.acquisition:
            tiles.setdefault((product.acquisition, product.tile), []).append(product)
    chosen: dict[str, list[Product]] = {}
    losers: dict[str, tuple[str, str]] = {}
    for (name, _), rivals in sorted(tiles.items()):
        best = max(rivals, key=lambda p: p.rank)
        # of files of the same bytes the shortest name counts: copies are called "scene (1)" or "copy of scene"
        twins = sorted((p for p in rivals if p.content == best.content), key=lambda p: (len(p.scene), p.scene))
        best = twins[0]
        chosen.setdefault(name, []).append(best)
        for product in rivals:
            if product.key == best.key:
                continue
            if product.content == best.content:
                losers[product.key] = (DUPLICATE, f"the same bytes as {best.scene}")
            else:
                why = f"processing {best.processing}" if best.processing != product.processing else "a later file"
                losers[product.key] = (SUPERSEDED, f"superseded by {best.scene} ({why})")
    out = {}
    for name, parts in chosen.items():
        parts = sorted(parts, key=lambda p: (p.tile, p.scene))
        first = min(parts, key=lambda p: p.scene)
        out[name] = Acquisition(
            first.stack, name, first.scene, first.time, first.sensor, first.orbit, tuple(parts),
        )  # fmt: skip
    return out, losers
