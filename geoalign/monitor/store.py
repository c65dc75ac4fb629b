"""Immutable files: whole under their name or not there at all, and checked when they are read.

Names say what is in a file (a hash of its inputs), so writing one twice is harmless and finding one is enough.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geoalign.errors import StateError

KILL_POINT = "GEOALIGN_KILL_AT"
"""Environment variable of the tests: `name` or `name:n`, where the process dies by SIGKILL, the n-th time there."""

stopping = threading.Event()
"""Set while a visit is being stopped: tasks that run in threads look at it and end between two tiles."""

_MAGIC = b"GEOALIGN-ARRAYS-2\n"
_PART = ".part-"
SAMPLE = 2**14
"""Values of an array that show whether it is worth packing."""
_passed: dict[str, int] = {}


def point(name: str) -> None:
    """A place where the tests may kill the process; nothing else ever happens here."""
    wanted = os.environ.get(KILL_POINT)
    if not wanted:
        return
    place, _, times = wanted.partition(":")
    if place == name:
        _passed[name] = _passed.get(name, 0) + 1
        if _passed[name] == int(times or 1):
            os.kill(os.getpid(), signal.SIGKILL)


class Stopped(Exception):
    """A task ended because its visit is being stopped."""


def go_on() -> None:
    """Raise `Stopped` where the visit is being stopped."""
    if stopping.is_set():
        raise Stopped


def digest(*parts: Any) -> str:
    """A name of 32 letters for JSON-able values: equal values, equal name."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def array_digest(array: np.ndarray) -> str:
    """A short hash of an array's bytes."""
    return hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data, digest_size=12).hexdigest()


def checksum(array: np.ndarray) -> str:
    """CRC-32 of an array's bytes: cheap enough for every read, and sure to notice a flipped bit."""
    return f"{zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data):08x}"


@contextmanager
def staged_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its name when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{_PART}{_unique()}-{path.name}")
    try:
        yield part
        if sync:
            sync_path(part)
        os.replace(part, path)
        if sync:
            sync_path(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; all its files are synced, then it takes its name. A folder that is there stays.

    `path` names its content, so that whoever is first may win.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{_PART}{_unique()}-{path.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        sync_tree(part)
        try:
            os.rename(part, path)
        except OSError:
            if not path.is_dir():
                raise
        sync_path(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Have the system write a folder and all that is in it to disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync_path(Path(root) / name)
        sync_path(Path(root))


def sync_path(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_arrays(path: Path, arrays: dict[str, np.ndarray], attrs: dict[str, Any]) -> None:
    """Arrays of numbers and dates, and JSON-able attributes, as one compressed file with its checksum.

    It isn't synced: what is derived is recomputed where a power cut or a flipped bit has spoilt it, which the checksum
    tells.
    """
    from numcodecs import Blosc

    # not shuffled: a third of the time, for files that are an eighth larger; and what won't shrink is only copied
    packed, copied = (Blosc(cname="lz4", clevel=level, shuffle=Blosc.NOSHUFFLE) for level in (1, 0))
    header: dict[str, Any] = {"attrs": attrs, "arrays": {}}
    blobs = []
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind not in "biufM":
            raise StateError(f"{name} is {array.dtype}; only numbers, booleans and dates are stored.")
        raw = np.ascontiguousarray(array)
        raw = raw.view(f"i{raw.itemsize}") if raw.dtype.kind == "M" else raw
        blob = b""
        if raw.size:
            sample = raw.reshape(-1)[:SAMPLE]
            blob = (packed if len(packed.encode(sample)) < 0.95 * sample.nbytes else copied).encode(raw)
        header["arrays"][name] = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": len(blob)}
        blobs.append(blob)
    head = json.dumps(header).encode()
    check = 0
    with staged_file(path, sync=False) as part, open(part, "wb") as stream:
        for piece in (_MAGIC, len(head).to_bytes(8, "little"), head, *blobs):
            stream.write(piece)
            check = zlib.crc32(piece, check)
        stream.write(check.to_bytes(4, "little"))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `write_arrays` wrote; StateError where the file is not whole or a bit of it has changed."""
    from numcodecs import Blosc

    try:
        with open(path, "rb", buffering=0) as stream:
            data = memoryview(np.fromfile(stream, np.uint8))
    except OSError as err:
        raise StateError(f"{path} can't be read: {err.strerror or err}.") from err
    body, check = data[:-4], data[-4:]
    if data[: len(_MAGIC)] != _MAGIC or zlib.crc32(body) != int.from_bytes(check, "little"):
        raise StateError(f"{path} is damaged: its checksum differs. `geoalign monitor SITE rebuild` makes it again.")
    at = len(_MAGIC) + 8
    size = int.from_bytes(body[len(_MAGIC) : at], "little")
    header = json.loads(bytes(body[at : at + size]))
    at += size
    codec, arrays = Blosc(), _room(header["arrays"])
    for name, told in header["arrays"].items():
        if told["bytes"]:
            kind = arrays[name].dtype
            target = arrays[name].view(f"i{kind.itemsize}") if kind.kind == "M" else arrays[name]
            codec.decode(body[at : at + told["bytes"]], out=target)
        at += told["bytes"]
    return arrays, header["attrs"]


def _room(told) -> dict[str, np.ndarray]:
    """Arrays of any content in one piece of memory, which the system gives more quickly than many pieces."""
    dtypes = {name: np.dtype(t["dtype"]) for name, t in told.items()}
    sizes = [math.prod(t["shape"]) * dtypes[name].itemsize for name, t in told.items()]
    places = np.cumsum([0, *(-(-size // 64) * 64 for size in sizes)]).tolist()
    room = np.empty(places[-1], np.uint8)
    return {
        name: room[place : place + size].view(dtypes[name]).reshape(t["shape"])
        for (name, t), place, size in zip(told.items(), places, sizes)
    }


def sweep(folder: Path) -> int:
    """Remove what visits that died left under temporary names; returns how many there were."""
    left = [Path(root) / n for root, dirs, names in os.walk(folder) for n in (*dirs, *names) if n.startswith(_PART)]
    for path in left:
        remove(path)
    return len(left)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _unique():
    # of another host too: tasks of a cluster write into one folder
    return f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
