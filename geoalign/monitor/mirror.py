"""What is published, copied to an object store: a generation first, and then the one object that says which it is.

An object store has neither locks nor renaming, but a single object is replaced in one step. So the site itself (ledger,
state, evidence) stays on a disk, and readers elsewhere follow `latest.json` to a generation that is there in whole and
never changes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from geoalign.errors import ConfigError, GeoalignError
from geoalign.monitor.ledger import Ledger
from geoalign.monitor.store import point

log = logging.getLogger("geoalign")

POINTER = "latest.json"
"""The object that names the generation that counts: {"generation", "manifest", "site", "visit"}."""
DONE = "mirrored"
"""Key of the ledger: where the last generation was copied to."""


def filesystem(url: str):
    """(fsspec filesystem, path) of a mirror; ConfigError where its protocol needs a package that is not there."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as err:
        raise ConfigError(f"[monitor] mirror = {url!r} can't be opened: {err}") from err


def copy(root: Path, ledger: Ledger, url: str, *, keep: int) -> str:
    """Copy the generation that counts, where that is not done yet; "" or the reason why it could not be done.

    Safe to be killed and to be run again at any moment: the generation is copied under its own name, every object is
    looked up again, and the pointer follows last. A mirror that is down does not hold the visit up; the next one tries.

    keep : generations that stay in the mirror
    """
    name = ledger.get("generation", "")
    if not name or ledger.get(DONE) == [url, name]:
        return ""
    try:
        _copy(root / "generations" / name, ledger, url, name, keep)
    except ConfigError as err:
        return str(err)
    except Exception as err:  # what a store's client raises is its own: OSError, botocore's, aiohttp's ...
        log.warning("the mirror %s can't be written: %s", url, err)
        return f"the mirror {url} is behind: {type(err).__name__}: {err}"
    with ledger.writing() as db:
        Ledger.put(db, DONE, [url, name])
    return ""


def _copy(folder, ledger, url, name, keep):
    store, place = filesystem(url)
    place = place.rstrip("/")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    target = f"{place}/generations/{name}"
    wanted = {path: told["bytes"] for path, told in manifest["files"].items()}
    wanted["manifest.json"] = (folder / "manifest.json").stat().st_size  # last: it says that the others are there
    there = _sizes(store, target)
    for path, size in wanted.items():
        if there.get(f"{target}/{path}") != size:
            store.makedirs(f"{target}/{path}".rpartition("/")[0], exist_ok=True)
            store.put_file(str(folder / path), f"{target}/{path}")
    there = _sizes(store, target)
    short = [path for path, size in wanted.items() if there.get(f"{target}/{path}") != size]
    if short:
        raise GeoalignError(f"{len(short)} objects are not there in whole after they were written, e.g. {short[0]}.")
    point("mirror.copied")
    pointer = {
        "generation": name, "manifest": f"generations/{name}/manifest.json", "site": manifest["site"],
        "visit": manifest["visit"],
    }  # fmt: skip
    store.pipe_file(f"{place}/{POINTER}", json.dumps(pointer, indent=1).encode())
    point("mirror.pointed")
    old = sorted(path.rstrip("/") for path in store.ls(f"{place}/generations", detail=False))
    for path in old[:-keep]:
        if not path.endswith(f"/{name}"):
            store.rm(path, recursive=True)


def _sizes(store, target) -> dict[str, int]:
    """Path -> bytes of the objects under a prefix, as they are now."""
    store.invalidate_cache()
    found: dict[str, Any] = store.find(target, detail=True) if store.exists(target) else {}
    return {path: int(told["size"]) for path, told in found.items()}
