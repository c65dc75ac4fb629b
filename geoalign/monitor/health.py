"""Is the region being looked at? "No alert" means nothing where no scene was seen, so it is said with every result."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

OK, DEGRADED, STALE, FAILED = "ok", "degraded", "stale", "failed"
_ORDER = (OK, DEGRADED, STALE, FAILED)

STALE_REVISITS = 2.5
"""A tile is stale when half of it was last seen longer ago than so many usual revisits."""


@dataclass
class Health:
    """status : ok, degraded, stale or failed, the worst of `reasons`; tiles : freshness, by theme.

    notes : what to know when the alerts are read, while nothing is wrong with the watching itself
    """

    status: str = OK
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tiles: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    checked: str = ""

    def worse(self, status: str, reason: str) -> None:
        """Take a reason in."""
        self.reasons.append(f"{status}: {reason}")
        if _ORDER.index(status) > _ORDER.index(self.status):
            self.status = status

    def plain(self) -> dict[str, Any]:
        return {
            "status": self.status, "reasons": self.reasons, "notes": self.notes, "checked": self.checked,
            "tiles": self.tiles,
        }  # fmt: skip


def counted(n: int, word: str) -> str:
    """A number and its word: 1 scene, 2 scenes."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def fresh(tiles: list[dict[str, Any]], revisit_days: float, now: float) -> list[dict[str, Any]]:
    """Tiles with `days` since half of them was last seen, `limit_days`, and `state` (fresh, stale or never)."""
    today, limit = now / 86400.0, STALE_REVISITS * revisit_days
    out = []
    for tile in tiles:
        days = None if tile["typical"] is None else max(0.0, round(today - tile["typical"], 1))
        state = "never" if days is None else "stale" if days > limit else "fresh"
        last = None if tile["typical"] is None else str(np.datetime64(tile["typical"], "D"))
        out.append({**tile, "last_seen": last, "days": days, "limit_days": round(limit, 1), "state": state})
    return out


def assess(tiles, revisit_days, *, now, left_out, waiting, undelivered, failure="", alarms=()) -> Health:
    """The health of a site.

    Parameters
    ----------
    tiles : theme -> figures of its tiles, as the folds give them
    revisit_days : theme -> usual days between scenes
    now : seconds since 1970
    left_out : scenes that are quarantined or rejected; waiting : for bands; undelivered : notices not sent yet
    failure : why the last visit failed, "" where it did not; alarms : reasons of budgets that were overdrawn
    """
    health = Health(checked=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"))
    for theme, known in tiles.items():
        told = fresh(known, revisit_days[theme], now)
        health.tiles[theme] = told
        old = [t for t in told if t["state"] != "fresh"]
        if not old:
            continue
        days = [t["days"] for t in old if t["days"] is not None]
        seen = f"last seen {min(days):.0f} days ago or more" if days else "never seen"
        limit = f"{STALE_REVISITS:g} x {revisit_days[theme]:g} days"
        if len(old) == len(told):
            health.worse(STALE, f"{theme}: not looked at: {seen} (limit {limit}); no alert means nothing here")
        else:
            health.worse(DEGRADED, f"{theme}: {len(old)} of {len(told)} tiles {seen} (limit {limit})")
    if left_out:
        scenes = counted(left_out, "scene")
        health.worse(DEGRADED, f"{scenes} can't be used; `history` says why, `retry` looks again")
    if waiting:
        health.worse(OK, f"{counted(waiting, 'scene')} still without all {'its' if waiting == 1 else 'their'} bands")
    if undelivered:
        health.worse(DEGRADED, f"{counted(undelivered, 'notice')} could not be delivered yet")
    for reason in alarms:
        health.worse(DEGRADED, reason)
    if failure:
        health.worse(FAILED, f"the last visit failed: {failure}")
    return health
