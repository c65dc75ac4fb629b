"""What `geoalign monitor` does and shows for each of its words, once the command line is read."""

from __future__ import annotations

import logging
from dataclasses import asdict

from geoalign import terminal
from geoalign.errors import ConfigError, GeoalignError

log = logging.getLogger("geoalign")


def visits(watched, action, names, watch, json) -> int:
    """One visit, or one after another until stopped; a visit that fails is told and the next one tries again."""
    import time

    from geoalign.progress import progress

    while True:
        code = 0
        try:
            with progress() as on_step:
                if action == "retry":
                    result = watched.retry(*names, on_step=on_step)
                else:
                    result = getattr(watched, action)(on_step=on_step)
            code = result.exit_code
            terminal.print_json(asdict(result)) if json else show_visit(result)
        except GeoalignError as err:
            if watch is None or isinstance(err, ConfigError):
                raise
            terminal.say(f"error: {err}")
        if watch is None:
            return code
        action = "visit"
        time.sleep(watch * 60)


def replayed(watched, json) -> int:
    """Deliver a simulated site's scenes as they would arrive, with a visit after each batch; then the score."""
    from geoalign.monitor.replay import judge, replay

    for done in replay(watched):
        counts = ", ".join(f"{n} {name}" for name, n in sorted(done.alerts.items())) or "none"
        log.info("visit %d: alerts %s; %s", done.number, counts, done.health["status"])
    score = judge(watched)
    if json:
        return terminal.print_json(asdict(score) | {"rate": score.rate, "high": score.high})
    rows = [{k: f"{v:%Y-%m-%d}" if hasattr(v, "strftime") else v for k, v in e.items()} for e in score.events]
    terminal.table("planted changes, and when they were published", rows)
    gone = score.retracted
    terminal.out(f"alerts     {terminal.short(score.alerts)}")
    terminal.out(f"retracted  {gone['before']} before they were confirmed, {gone['after_confirmed']} after")
    terminal.out(f"false      {score.false} confirmed alerts in {score.months:.1f} months on {score.km2:.1f} km2:")
    terminal.out(f"           {score.rate:,.0f} a month and 1000 km2 (at most {score.high:,.0f}, 95 %)")
    return 0


def show_digests(documents) -> int:
    for document in documents:
        terminal.table(f"{document['area']}: since visit {document['seen']}", document["alerts"],
               ("theme", "id", "status", "change", "date", "area_ha", "reason"))  # fmt: skip
        terminal.out(f"{document['area']}: {terminal.short(document['counts'])}; {document['looked_at']}")
    return 0


def show_visit(result) -> int:
    if result.scenes:
        terminal.table("scenes", result.scenes)
    if result.changes:
        terminal.table(
            "alerts: what is new", result.changes, ("theme", "alert", "status", "change", "date", "area_ha", "reason")
        )
    counts = ", ".join(f"{n} {name}" for name, n in sorted(result.alerts.items())) or "none"
    terminal.out(f"alerts      {counts}")
    terminal.out(f"health      {result.health['status']}")
    for reason in (*result.health["reasons"], *result.health["notes"]):
        terminal.out(f"            {reason}")
    terminal.out(f"generation  {result.folder}{'' if result.new else ' (nothing new)'}")
    return 0


def show_status(document) -> int:
    health = document["health"]
    terminal.out(f"{document['site']}: {health['status']}")
    for reason in (*health["reasons"], *health["notes"]):
        terminal.out(f"  {reason}")
    tiles = [{"theme": name, **tile} for name, found in health["tiles"].items() for tile in found]
    worst = sorted(tiles, key=lambda t: -(t["days"] if t["days"] is not None else 1e9))[:10]
    terminal.table(
        "tiles, the longest unseen first", worst, ("theme", "tile", "last_seen", "days", "limit_days", "state")
    )
    if document["not_used"]:
        terminal.table("scenes that are not used", document["not_used"])
    for name in ("alerts", "scenes", "last_visit", "models", "lock", "generation"):
        if document[name]:
            terminal.out(f"{name:<12}{terminal.short(document[name])}")
    return 0


def show_history(document) -> int:
    for name, rows in document.items():
        plain = [{k: v for k, v in row.items() if k not in ("record", "summary", "rank", "paths")} for row in rows]
        terminal.table(name, plain)
    return 0


def show_plan(document) -> int:
    for name, stack in document["stacks"].items():
        terminal.out(
            f"{name}: {stack['listed']} files, {len(stack['new'])} new scenes, baseline {stack['baseline']}, at most "
            f"{stack['evidence_mb_at_most']} MB of evidence"
        )
        terminal.table("", stack["new"])
    return 0
