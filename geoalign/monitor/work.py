"""A visit while it lasts, and what is told of it."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoalign.monitor.baseline import Frame
from geoalign.monitor.cluster import Runner
from geoalign.monitor.ledger import Ledger

log = logging.getLogger("geoalign")

LATEST = "latest"
RECENT_DAYS = 30
"""A scene that can't be used makes the site degraded for so long; `status` names it as long as it is so."""
REJECTED, BEFORE = "rejected", "before_baseline"


@dataclass(frozen=True)
class Site:
    """What the feeds, the outbox and the budget are told about a visit. created : UTC; themes : name -> kind."""

    name: str
    config: Any
    geobox: Any
    generation: str
    visit: int
    created: datetime
    themes: dict[str, str]


@dataclass(frozen=True)
class Visit:
    """What a visit did. generation : name of what is published now; new : whether this visit published it.

    scenes : scene, status ("valid", "quarantined", "duplicate", ...) and reason of those that this visit dealt with;
    alerts : how many there are by status; changes : alert, status and what moved, for each revision of this visit
    """

    number: int
    generation: str
    new: bool
    folder: Path
    scenes: list[dict[str, str]]
    alerts: dict[str, int]
    changes: list[dict[str, Any]]
    health: dict[str, Any]
    timings: dict[str, float]
    exit_code: int


@dataclass
class Work:
    """A visit while it lasts."""

    config: Any
    root: Path
    ledger: Ledger
    runner: Runner
    now: float
    on_step: Callable[[str], None]
    number: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    scenes: list[dict[str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str):
        log.info("%s", name)
        self.on_step(name)
        begin = clock.perf_counter()
        yield
        self.timings[name] = round(self.timings.get(name, 0.0) + clock.perf_counter() - begin, 3)

    def note(self, scene: str, status: str, reason: str) -> None:
        self.scenes.append({"scene": scene, "status": status, "reason": reason})


def utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def known_frames(ledger: Ledger) -> dict[str, Frame]:
    return {r["stack"]: Frame.of(r["document"]) for r in ledger.rows("SELECT stack, document FROM baselines")}
