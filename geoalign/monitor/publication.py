"""The end of a visit: what it found becomes a generation, whole, in one transaction."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from geoalign import publish
from geoalign.io.atomic import synced_later
from geoalign.monitor import arrivals, budget, feeds, fold, mirror, outbox
from geoalign.monitor import health as healths
from geoalign.monitor.alerts import RETRACTED, Alert
from geoalign.monitor.fold import SCENE
from geoalign.monitor.ledger import Ledger, insert
from geoalign.monitor.store import digest, point, remove, staged_folder, sync_path
from geoalign.monitor.work import LATEST, RECENT_DAYS, REJECTED, Site, Visit, utc

log = logging.getLogger("geoalign")

GROWN = 0.25
"""An alert whose extent changed by this share since it was last told is told again; its figures move at every scene."""


def publish_visit(work, themes, told, started) -> Visit:
    """Stage a generation, rename it, and make it the one that counts in one transaction, with all that follows."""
    config, ledger = work.config, work.ledger
    # a scene of a year ago does not make the region fresh, and a clock that was set back does not make it stale
    alerts = [a for found, _ in told.values() for a in found.alerts]
    revisions, current = _revisions(work, themes, alerts)
    tiles = {name: figures for name, (_, figures) in told.items()}
    heads = {t.name: t.head.hash for t in themes}
    signature = digest(heads, _signed(config))
    before = ledger.get("generation", "")
    new = signature != ledger.get("signature") or not (work.root / "generations" / before / "manifest.json").is_file()
    generation = f"{work.number:06d}-{signature[:12]}" if new else before
    site = Site(
        config.name, config, themes[0].frame.geobox, generation, work.number, datetime.fromtimestamp(work.now, UTC),
        {t.name: t.kind for t in themes},
    )  # fmt: skip
    state = _health(work, themes, tiles)
    spent = _budget(work, themes, current, site)
    if spent["status"] == "alarm":
        state.worse(healths.DEGRADED, spent["reason"])
    if new:
        retracted = [a for a, _ in revisions if a.status == RETRACTED]
        with staged_folder(work.root / "generations" / generation) as part, synced_later():
            _layers(work, themes, part, before, heads)
            _write_alerts(part, current, retracted, site)
            publish.write_json(part / "health.json", state.plain())
            publish.write_json(part / "budget.json", spent)
            document = _manifest(work, themes, site, current, part)
            publish.write_json(part / "manifest.json", document)
            point("publish.staged")
        point("publish.renamed")
    finished = utc()
    counts = _counts(current)
    with ledger.writing() as db:
        for alert, change in revisions:
            record = json.dumps(alert.plain(), sort_keys=True)
            insert(
                db, "revisions",
                {"alert": alert.id, "revision": alert.revision, "theme": alert.theme, "status": alert.status,
                 "change": change, "record": record, "visit": work.number, "at": started},
            )  # fmt: skip
        outbox.enqueue(db, revisions, site)
        Ledger.put(db, "generation", generation)
        Ledger.put(db, "signature", signature)
        Ledger.put(db, "tiles", tiles)
        Ledger.put(db, "heads", heads)
        Ledger.put(db, "folded", {t.name: [s.scene.key for s in t.steps if s.kind == SCENE] for t in themes})
        Ledger.put(db, "detectors", {t.name: repr(t.detector) for t in themes})
        arrivals.write_events(db, work.number, work.events)
        summary = {"scenes": work.scenes, "alerts": counts, "revisions": len(revisions), "timings": work.timings}
        db.execute(
            "UPDATE visits SET status = 'done', finished = ?, generation = ?, summary = ? WHERE id = ?",
            (finished, generation, json.dumps(summary), work.number),
        )
        point("publish.transaction")
    point("publish.committed")
    point_latest(work.root, ledger)
    if config.monitor.mirror:
        behind = mirror.copy(work.root, ledger, config.monitor.mirror, keep=config.monitor.keep)
        if behind:
            state.worse(healths.DEGRADED, behind)
    publish.write_json(work.root / "health.json", state.plain() | {"generation": generation})
    _tidy(work, themes)
    changes = [
        {"alert": a.id, "revision": a.revision, "theme": a.theme, "status": a.status, "change": c, "reason": a.reason,
         "date": a.date, "area_ha": a.area_ha}
        for a, c in revisions
    ]  # fmt: skip
    bad = {arrivals.QUARANTINED, REJECTED}
    code = 3 if any(s["status"] in bad for s in work.scenes) else 0
    folder = work.root / "generations" / generation
    return Visit(work.number, generation, new, folder, work.scenes, counts, changes, state.plain(), {}, code)


def _signed(config):
    return {"feeds": config.monitor.feeds, "min_area_m2": config.vectors.min_area_m2, "name": config.name}


def _counts(alerts) -> dict[str, int]:
    out: dict[str, int] = {}
    for alert in alerts:
        out[alert.status] = out.get(alert.status, 0) + 1
    return out


def _revisions(work, themes, alerts) -> tuple[list[tuple[Alert, str]], list[Alert]]:
    """(what is told anew, with words on what moved; the current alerts, with the revision last told)."""
    rows = work.ledger.rows("SELECT alert, max(revision) AS revision, record FROM revisions GROUP BY alert")
    last = {r["alert"]: Alert.of(json.loads(r["record"])) for r in rows}
    out, current = [], []
    for alert in alerts:
        old = last.pop(alert.id, None)
        if alert.status == RETRACTED and (old is None or old.status == RETRACTED):
            continue  # came and went between two visits, or is told already
        change = "new status" if old is None else _change(old, alert)
        alert = alert.with_revision((0 if old is None else old.revision) + bool(change))
        if change:
            out.append((alert, change))
        if alert.status != RETRACTED:
            current.append(alert)
    for old in last.values():
        if old.status != RETRACTED:
            day = str(np.datetime64(round(work.now), "s").astype("datetime64[D]"))
            reason = _why_gone(work, themes, old)
            gone = replace(old, status=RETRACTED, reason=reason, date_retracted=day, revision=old.revision + 1)
            out.append((gone, "status retracted"))
    current.sort(key=lambda a: (a.theme, a.id))
    return sorted(out, key=lambda r: (r[0].theme, r[0].id)), current


def _change(old, new) -> str:
    """Words on what is worth telling; "" where only figures moved, which the feeds show without a notice."""
    words = ["status"] if old.status != new.status else []
    if any(getattr(old, n) != getattr(new, n) for n in ("date", "date_first", "date_confirmed", "date_end")):
        words.append("dates")
    if abs(new.n_pixels - old.n_pixels) > GROWN * max(old.n_pixels, 1):
        words.append("extent")
    if new.status == RETRACTED:
        words.append("retracted")
    return " ".join(words)


def _why_gone(work, themes, alert) -> str:
    """Why an alert that was published is no longer in the fold: what has come, gone or changed since."""
    theme = next((t for t in themes if t.name == alert.theme), None)
    if theme is None:
        return "its theme is no longer in the site file"
    if work.ledger.get("detectors", {}).get(alert.theme) != repr(theme.detector):
        return "the site file gives the detector other options"
    names = {s.scene.key: s.scene.scene for s in theme.steps if s.kind == SCENE}
    old, new = work.ledger.get("folded", {}).get(alert.theme, []), list(names)
    n = next((k for k, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
    came = [names[k] for k in new[n:] if k not in set(old)]
    replaced = [k for k in old if k not in names]
    rows = [work.ledger.row("SELECT scene, reason FROM evidence WHERE key = ?", k) or {} for k in replaced]
    if replaced:
        scenes = ", ".join(str(r.get("scene", "?")) for r in rows[:3])
        return f"reprocessed scenes ({scenes}) no longer show it"
    if came:
        return f"late scenes ({', '.join(came[:3])}) no longer let it stand as it was"
    return "the site file asks for other alerts"


def _layers(work, themes, part, before, heads) -> None:
    """The rasters of every theme; those of a theme that saw nothing new are the same files as before."""
    from geoalign.io import write_changes

    old = work.ledger.get("heads", {})
    for theme in themes:
        target = part / "layers" / theme.name
        source = work.root / "generations" / before / "layers" / theme.name
        if before and old.get(theme.name) == heads[theme.name] and source.is_dir():
            _link(source, target)
            continue
        seen = [s.scene for s in theme.steps if s.kind == SCENE]
        changes = fold.report(theme, work.root, theme.head.hash)
        changes.attrs["inputs"] = seen[-1].scene if seen else ""
        scenes = [*theme.history, *seen]
        run = {
            "id": f"{theme.name}-{heads[theme.name][:12]}", "site": work.config.name,
            "created": datetime.fromtimestamp(work.now, UTC), "start": np.datetime64(scenes[0].time, "ns"),
            "end": np.datetime64(scenes[-1].time, "ns"), "parameters": {"detector": repr(theme.detector)},
            "sensor": ", ".join(sorted({s.sensor for s in scenes})),
        }  # fmt: skip
        write_changes(changes, target, run=run)
        point("publish.layer_written")


def _link(source, target):
    target.mkdir(parents=True)
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copy2(path, target / path.name)


def _manifest(work, themes, site, current, part) -> dict[str, Any]:
    return {
        "format": "geoalign.monitor", "version": 1, "site": site.name, "generation": site.generation,
        "visit": site.visit, "created": site.created.isoformat(timespec="seconds"), **publish.environment(),
        "themes": {
            t.name: {
                "kind": t.kind, "detector": repr(t.detector), "stack": t.frame.stack, "head": t.head.hash,
                "baseline": t.head.baseline, "frame": t.frame.key,
                "scenes": sum(s.kind == SCENE for s in t.steps), "history": len(t.history),
                "last": next((s.scene.time for s in reversed(t.steps) if s.kind == SCENE), ""),
            }
            for t in themes
        },
        "alerts": _counts(current), "files": publish.checksums(part),
    }  # fmt: skip


def _health(work, themes, tiles, failure=""):
    return health_of(work.config, work.ledger, themes, tiles, work.now, failure)


def health_of(config, ledger, themes, tiles, now, failure=""):
    """The health of a site from its ledger. tiles : theme -> figures, as the last fold gave them."""
    revisit = {t.name: config.monitor.revisit_days or t.frame.gap_days for t in themes}
    since = now - RECENT_DAYS * 86400
    one = ledger.row(
        "SELECT (SELECT count(*) FROM products WHERE status = 'quarantined' AND arrived > ?) + "
        "(SELECT count(*) FROM evidence WHERE status = 'rejected' AND acquisition IN "
        "(SELECT acquisition FROM products WHERE arrived > ?)) AS bad, "
        "(SELECT count(*) FROM products WHERE status = 'waiting') AS waiting, "
        "(SELECT count(*) FROM outbox WHERE delivered IS NULL AND attempts > 0) AS late",
        since,
        since,
    )
    health = healths.assess(
        tiles, revisit, now=now, left_out=one["bad"], waiting=one["waiting"], undelivered=one["late"], failure=failure,
    )  # fmt: skip
    health.notes += [note for theme in themes if (note := theme.short_history())]
    return health


def _write_alerts(part, current, retracted, site) -> None:
    """The current alerts as this library reads them again; the feeds for others are made beside it."""
    document = {"alerts": [a.plain() for a in current], "retracted": [a.plain() for a in retracted]}
    publish.write_json(part / "alerts" / "alerts.json", document)
    feeds.write_feeds(part / "alerts", current, retracted, site)
    point("publish.feeds_written")


def deliver(work) -> None:
    """Send what is due."""
    told = outbox.deliver(work.ledger, work.config, now=work.now)
    if told["sent"] or told["waiting"]:
        log.info("webhooks: %d sent, %d waiting, %d of them failed", told["sent"], told["waiting"], told["failed"])


def _budget(work, themes, current, site) -> dict[str, Any]:
    """False alarms against their budget, theme by theme, from what each scene let see."""
    shares = {r["key"]: r["observed"] or 0.0 for r in work.ledger.rows("SELECT key, observed FROM evidence")}
    watched = {
        t.name: [(s.scene.time, shares.get(s.scene.key, 0.0)) for s in t.steps if s.kind == SCENE] for t in themes
    }
    return budget.assess(current, site, watched) | {"thresholds": work.ledger.get("alphas", {})}


def point_latest(root: Path, ledger: Ledger) -> None:
    """Let `latest` say what the ledger says: it follows a commit, and is put right where a kill came between."""
    generation = ledger.get("generation", "")
    pointer, target = root / LATEST, os.path.join("generations", generation)
    if not generation:
        return
    if pointer.is_symlink() and os.readlink(pointer) == target:
        return
    if pointer.is_file() and not pointer.is_symlink() and pointer.read_text(encoding="utf-8") == target:
        return
    part = root / f".part-{os.getpid()}-{LATEST}"
    part.unlink(missing_ok=True)
    try:
        os.symlink(target, part, target_is_directory=True)
    except OSError:  # a file with the name where links are not allowed
        part.write_text(target, encoding="utf-8")
    if pointer.is_dir() and not pointer.is_symlink():  # a backup that followed the link was put back
        remove(pointer)
    point("latest.staged")
    os.replace(part, pointer)
    sync_path(root)
    point("latest.swapped")


def _tidy(work, themes) -> None:
    """Remove what nothing names any more: old generations, states off the chain, evidence that was superseded."""
    kept = {
        r["generation"]
        for r in work.ledger.rows(
            "SELECT generation FROM visits WHERE generation != '' GROUP BY generation ORDER BY max(id) DESC LIMIT ?",
            work.config.monitor.keep,
        )
    }
    folder = work.root / "generations"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            remove(path)
    for theme in themes:
        fold.sweep_states(theme, work.root)
    names = {t.name for t in themes}
    for path in (work.root / "state").iterdir():
        if path.name not in names:
            remove(path)
    used = {r["key"] for r in work.ledger.rows("SELECT key FROM evidence WHERE status IN ('valid', 'empty')")}
    for path in (work.root / "evidence").iterdir():
        if path.stem not in used:
            remove(path)
    point("tidied")
