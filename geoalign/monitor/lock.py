"""One writer: a lock of the operating system, and a lease that says who holds it and how long to respect it."""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoalign.errors import GeoalignError
from geoalign.io.atomic import atomic
from geoalign.publish import Locked

log = logging.getLogger("geoalign")

LOCK, LEASE = ".lock", "lease.json"


@contextmanager
def held(folder: Path, *, lease_seconds: float = 600.0) -> Iterator[None]:
    """The lock of a monitor folder, for as long as the block lasts.

    On one machine the lock of the operating system decides, and it frees itself however its holder ends; a lease that a
    dead process of this machine left is broken and logged. A lease of another machine is respected until it has not
    been renewed for `lease_seconds`. Where the file system has no locks (some network disks), the lease alone decides.

    Raises
    ------
    Locked
        Another visit is at work (exit code 75); the message names its process and host.
    GeoalignError
        The folder can't be written to.
    """
    try:
        stream = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as err:
        raise GeoalignError(
            f"{folder} can't be written to: {err.strerror}. Change its permissions, or give another output."
        ) from err
    with stream:
        locks = _flock(stream, folder)
        _respect(folder, locks)
        _write(folder, lease_seconds)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(folder, lease_seconds, stop), daemon=True, name="geoalign-lease")
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            (folder / LEASE).unlink(missing_ok=True)


def holder(folder: Path) -> dict[str, Any] | None:
    """The lease as it is written, None where there is none that can be read."""
    try:
        lease = json.loads((folder / LEASE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return lease if isinstance(lease, dict) and {"pid", "host", "boot", "renewed", "seconds"} <= set(lease) else None


def boot_id() -> str:
    """What tells one start of this machine from another; "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _flock(stream, folder) -> bool:
    """Take the lock of the operating system; False where there are no locks here."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise _locked(folder, holder(folder) or {}) from err
    except OSError as err:
        log.warning("%s has no file locks (%s): only its lease keeps a second visit out", folder, err.strerror)
        return False
    return True


def _respect(folder, locks):
    lease = holder(folder)
    if lease is None:
        return
    here = lease["host"] == platform.node()
    if here and (locks or lease["boot"] != boot_id() or not _alive(int(lease["pid"]))):
        log.warning(
            "the lock of %s was left by process %s on %s, which is gone: broken", folder, lease["pid"], lease["host"]
        )
        return
    # a renewal that lies in the future is of a clock that was set back since: it is counted as now
    age = max(0.0, time.time() - float(lease["renewed"]))
    if age <= float(lease["seconds"]):
        raise _locked(folder, lease)
    log.warning(
        "the lock of %s, of process %s on %s, was last renewed %.0f s ago: broken",
        folder, lease["pid"], lease["host"], age,
    )  # fmt: skip


def _alive(pid) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _locked(folder, lease) -> Locked:
    who = f"process {lease.get('pid', '?')} on {lease.get('host', '?')}"
    return Locked(f"another visit is at work in {folder} ({who}, since {lease.get('since', '?')}). Nothing was done.")


def _write(folder, seconds, since=None):
    now = time.time()
    lease = {
        "pid": os.getpid(), "host": platform.node(), "boot": boot_id(), "renewed": now, "seconds": seconds,
        "since": since or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
    }  # fmt: skip
    with atomic(folder / LEASE) as part:
        part.write_text(json.dumps(lease), encoding="utf-8")
    return lease["since"]


def _beat(folder, seconds, stop):
    since = (holder(folder) or {}).get("since")
    while not stop.wait(seconds / 4):
        try:
            _write(folder, seconds, since)
        except OSError as err:  # a full disk: the lock itself still stands
            log.warning("the lease in %s can't be renewed: %s", folder, err)
