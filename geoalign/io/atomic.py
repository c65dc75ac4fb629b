"""Files appear whole or not at all, under names that no input can bend."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


@contextmanager
def atomic(path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there replaces `path` when the block ends without an error.

    The temporary name keeps the suffix (some drivers look at it). The file and its folder are synced to disk, so that
    after a power cut either the old file or the new one is there. On an error the old file stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic(target) as partial:
    ...     _ = partial.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        for left in path.parent.glob(f"{partial.name}*"):  # also a driver's side files (journals, .aux.xml)
            left.unlink(missing_ok=True)


def safe_name(text: str) -> str:
    """`text` with everything but A-Z a-z 0-9 . _ - replaced by "_", never empty, hidden or a step up the tree.

    Examples
    --------
    >>> safe_name("../../etc/passwd"), safe_name("Wald & Wiese")
    ('_.._etc_passwd', 'Wald___Wiese')
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", str(text)).lstrip(".")
    return name[:120] or "_"


_LATER: ContextVar[bool] = ContextVar("synced_later", default=False)


@contextmanager
def synced_later() -> Iterator[None]:
    """What is written inside is not synced file by file: the caller syncs all of it before anything leads to it.

    For folders that are staged under another name, synced whole, and renamed: twice would take twice as long.
    """
    token = _LATER.set(True)
    try:
        yield
    finally:
        _LATER.reset(token)


def _sync(path):
    if _LATER.get():
        return
    if os.name == "nt" and path.is_dir():  # Windows can't sync a folder, and needs no sync for its names
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into(part, folder) -> None:
    """Move every file of one folder into another on the same disk, replacing files of the same name, each whole."""
    part, folder = Path(part), Path(folder)
    for path in sorted(part.iterdir()):
        _sync(path)
        os.replace(path, folder / path.name)
    _sync(folder)
