"""What the command line needs of monitoring: the words of `geoalign monitor`, and a tidy end on SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoalign.errors import ConfigError

ACTIONS = ("visit", "status", "history", "digest", "retry", "rebuild", "doctor", "replay")
TERMINATED = 143
"""Exit code of a visit that SIGTERM ended, as a shell would give it."""


def parse(words: list[str]) -> tuple[str, Path, list[str]]:
    """(action, site file, names) of the words after `geoalign monitor`; the action may stand before or after the site.

    Examples
    --------
    >>> parse(["site.toml"])[0], parse(["site.toml", "status"])[0], parse(["history", "site.toml", "4f2a"])[2]
    ('visit', 'status', ['4f2a'])
    """
    if words[0] in ACTIONS and not Path(words[0]).is_file():
        if len(words) < 2:
            raise ConfigError(f"geoalign monitor {words[0]} needs the site's TOML file.")
        return words[0], Path(words[1]), words[2:]
    site, rest = Path(words[0]), words[1:]
    if not rest:
        return "visit", site, []
    if rest[0] not in ACTIONS:
        raise ConfigError(f"{rest[0]!r} is no action of geoalign monitor; choose one of {', '.join(ACTIONS)}.")
    return rest[0], site, rest[1:]


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does: what is done is kept, the lock is given back, the exit code is 143."""

    def end(number, frame):
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
