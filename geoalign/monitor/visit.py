"""One visit: find -> validate -> align to the frozen baseline -> evidence -> fold -> alerts -> publish.

The only file that knows the order. Whatever ends a visit at whatever place, the next one finds either nothing of it or
finished pieces under the names it would give them itself, and comes to the same result.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time as clock
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from geoalign import publish
from geoalign.errors import ConfigError, GeoalignError, NoUsableData, StateError
from geoalign.monitor import arrivals, baseline, budget, evidence, feeds, fold, outbox
from geoalign.monitor import health as healths
from geoalign.monitor.alerts import RETRACTED, Alert, Alerts, fold_scene, ground_of, renewed
from geoalign.monitor.arrivals import Acquisition, Product, resolve
from geoalign.monitor.baseline import Frame
from geoalign.monitor.cluster import Runner
from geoalign.monitor.evidence import Scene
from geoalign.monitor.fold import RENEW, SCENE, Theme
from geoalign.monitor.ledger import Ledger, insert
from geoalign.monitor.store import digest, point, remove, staged_folder, sync_path

log = logging.getLogger("geoalign")

LATEST = "latest"
RECENT_DAYS = 30
"""A scene that can't be used makes the site degraded for so long; `status` names it as long as it is so."""
EMPTY, REJECTED, BEFORE = "empty", "rejected", "before_baseline"


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


def visit(work: Work, *, again=()) -> Visit:
    """Do a visit; the lock is held and the ledger open. again : scenes to look at again although they were refused."""
    begin = clock.perf_counter()
    started = datetime.fromtimestamp(work.now, UTC).isoformat(timespec="seconds")
    with work.ledger.writing() as db:
        db.execute("UPDATE visits SET status = 'interrupted' WHERE status = 'running'")
        row = {"started": started, "finished": "", "generation": "", "status": "running", "summary": "{}"}
        insert(db, "visits", row)
        work.number = int(db.execute("SELECT max(id) FROM visits").fetchone()[0])
    point_latest(work.root, work.ledger)
    with work.step("find"):
        acquisitions = _find(work, again)
    with work.step("baseline"):
        frames = _frames(work, acquisitions)
    with work.step("evidence"):
        _gather(work, acquisitions, frames, again)
    themes = themes_of(work.config, work.ledger, frames)
    with work.step("fold"):
        told = {t.name: fold_theme(work, t) for t in themes}
    with work.step("publish"):
        result = _publish(work, themes, told, started)
    with work.step("deliver"):
        _deliver(work)
    work.timings["total"] = round(clock.perf_counter() - begin, 3)
    return replace(result, timings=dict(work.timings))


def failed(work: Work, err: BaseException) -> None:
    """Write down why a visit ended; where even that can't be written, the next one finds it interrupted."""
    text = str(err) or type(err).__name__
    stopped = isinstance(err, KeyboardInterrupt | SystemExit)
    try:
        with work.ledger.writing() as db:
            db.execute(
                "UPDATE visits SET status = ?, finished = ?, summary = ? WHERE id = ? AND status = 'running'",
                ("interrupted" if stopped else "failed", _utc(), json.dumps({"error": text}), work.number),
            )
        frames = known_frames(work.ledger)
        themes = themes_of(work.config, work.ledger, frames) if frames else []
        state = health_of(
            work.config, work.ledger, themes, work.ledger.get("tiles", {}), work.now, "" if stopped else text
        )
        publish.write_json(work.root / "health.json", state.plain() | {"generation": work.ledger.get("generation", "")})
    except (GeoalignError, OSError) as again:
        log.debug("the failure can't be written down: %s", again)


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def rebuild(work: Work) -> Visit:
    """A visit that folds everything again from the evidence, and makes damaged evidence again from its scenes."""
    frames = known_frames(work.ledger)
    if not frames:
        raise StateError("the site has no baseline yet: there is nothing to rebuild. Run `geoalign monitor` first.")
    with work.step("verify"):
        for stack, frame in frames.items():
            rows = work.ledger.rows("SELECT * FROM evidence WHERE stack = ? AND status = 'valid'", stack)
            bad = {r["key"]: r for r in rows if evidence.verify(work.root, r["key"], frame)}
            if not bad:
                continue
            products = work.ledger.rows("SELECT * FROM products WHERE stack = ?", stack)
            acquisitions, _ = resolve([Product.of(r) for r in products])
            for key, row in bad.items():
                acquisition = acquisitions.get(row["acquisition"])
                if acquisition is None or evidence.evidence_key(acquisition, frame) != key:
                    raise StateError(
                        f"the evidence of {row['scene']} is damaged, and the scene it was made of is gone."
                    )
                remove(evidence.path_of(work.root, key))
                record = evidence.make_evidence(_job(work, acquisition, frame, history=bool(row["history"])))
                if record["status"] != "valid":
                    raise StateError(f"the evidence of {row['scene']} can't be made again: {record['reason']}")
                work.events.append(("repaired", row["scene"], "its evidence was damaged and is made again"))
    remove(work.root / "state")
    return visit(work)


# ------------------------------------------------------------------------------------------------------------- find


def _find(work, again) -> dict[str, dict[str, Acquisition]]:
    """Look at the sources and write down what was found; stack -> acquisition -> the deliveries of it that count."""
    config, found = work.config, {}
    for stack in config.sources:
        found[stack] = arrivals.look(
            config, stack, work.ledger, bands=_bands(work, stack), now=work.now, again=set(again)
        )
    point("find.before")
    with work.ledger.writing() as db:
        for seen in found.values():
            seen.write(db, work.number)
            for product in seen.products.values():
                if product.status == arrivals.VALID:
                    continue  # told with its evidence
                work.note(product.scene, product.status, product.reason)
        out = {}
        for stack in config.sources:
            rows = db.execute("SELECT * FROM products WHERE stack = ?", (stack,))
            out[stack], losers = resolve([Product.of(dict(row)) for row in rows])
            for key, (status, reason) in losers.items():
                db.execute("UPDATE products SET status = ?, reason = ? WHERE key = ?", (status, reason, key))
                scene = db.execute("SELECT scene FROM products WHERE key = ?", (key,)).fetchone()[0]
                kind = "duplicate_ignored" if status == arrivals.DUPLICATE else status
                arrivals.write_events(db, work.number, [(kind, scene, reason)])
                log.info("%s: %s: %s", kind, scene, reason)
                work.note(scene, status, reason)
        point("find.transaction")
    point("find.after")
    return out


def _bands(work, stack):
    """The bands that a scene must have to be whole."""
    row = work.ledger.row("SELECT document FROM baselines WHERE stack = ?", stack)
    if row is not None:
        return Frame.of(row["document"]).bands
    return work.config.bands_of(stack)


# --------------------------------------------------------------------------------------------------------- baseline


def _frames(work, acquisitions) -> dict[str, Frame]:
    """The frozen frame of each stack; made, and its evidence with it, where there is none yet."""
    config = work.config
    frames = known_frames(work.ledger)
    for frame in frames.values():
        baseline.check_params(config, frame)
    missing = [s for s in {config.stack_of(d) for d in config.detect} if s not in frames]
    if not missing:
        return frames
    since = np.datetime64(config.monitor.since, "ns")
    before = {
        s: sorted((a for a in acquisitions[s].values() if np.datetime64(a.time, "ns") < since), key=lambda a: a.time)
        for s in missing
    }
    for stack, items in before.items():
        if not items:
            raise NoUsableData(
                f"{stack} has no usable scene before [monitor] since = {config.monitor.since}: there is nothing to "
                f"learn what is usual from. {_why_none(work, stack)}Give a later date, or add earlier scenes."
            )
    grid = next(iter(frames.values())).geobox if frames else baseline.choose_grid(config, before)
    if not grid.crs.projected:
        raise ConfigError(
            f"the grid is in degrees ({grid.crs}), so that alerts have no size in metres. Give [grid] a projected crs, "
            "for example the local UTM zone, and resolution_m."
        )
    for stack, items in before.items():
        frame, left = baseline.freeze(config, stack, items, grid, work.root)
        jobs = [_job(work, a, frame, history=True) for a in items if a.name in frame.scenes]
        made = work.runner.map(evidence.make_evidence, jobs, at_once=1)
        rows = [_evidence_row(job, record, work.number, history=1) for job, record in zip(jobs, made)]
        usable = [row for row in rows if row["status"] == "valid"]
        history = [_scene(row) for row in usable]
        _check_history(work, stack, frame, history)
        alphas, untold = budget.thresholds(config, stack, frame, history, work.root, detector_of)
        for name, why in untold.items():
            work.events.append(("budget", name, f"its alpha stays the detector's own: {why}"))
            log.warning("%s: no alpha for the budget: %s", name, why)
        with work.ledger.writing() as db:
            insert(
                db, "baselines",
                {"stack": stack, "key": frame.key, "document": frame.document(), "visit": work.number}, replace=True,
            )  # fmt: skip
            for row in rows:
                insert(db, "evidence", row, replace=True)
            Ledger.put(db, "alphas", work.ledger.get("alphas", {}) | alphas)
            names = {a.name: a.scene for a in items}
            arrivals.write_events(db, work.number, [("left_out", names[n], r) for n, r in left.items()])
        for row in rows:
            work.note(row["scene"], "baseline" if row["status"] == "valid" else row["status"], row["reason"])
        frames[stack] = frame
    return frames


def _why_none(work, stack):
    rows = work.ledger.rows(
        "SELECT scene, reason FROM products WHERE stack = ? AND status = 'quarantined' LIMIT 3", stack
    )
    return "".join(f"{r['scene']}: {r['reason']} " for r in rows)


def _check_history(work, stack, frame, history):
    """Start every theme once on a corner of the baseline, so that one that is too short is told before it is frozen."""
    for name, item in work.config.layers.items():
        if work.config.stack_of(item) != stack:
            continue
        tile = evidence.tiles(frame.shape, frame.tile_px)[0]
        tile = replace(tile, height=min(tile.height, 8), width=min(tile.width, 8))
        order = sorted(history, key=lambda s: s.time)
        if not order:
            raise NoUsableData(f"no scene of the baseline of {stack} shows anything; there is nothing to learn from.")
        values = [np.zeros((len(frame.bands), tile.height, tile.width), np.float32) + np.float32(0.5) for _ in order]
        try:
            detector_of(work.config, name).start(evidence.stack_of(values, order, frame))
        except GeoalignError as err:
            raise NoUsableData(f"{name}: {err} Only scenes before [monitor] since are history.") from err


def known_frames(ledger: Ledger) -> dict[str, Frame]:
    return {r["stack"]: Frame.of(r["document"]) for r in ledger.rows("SELECT stack, document FROM baselines")}


# --------------------------------------------------------------------------------------------------------- evidence


def _job(work, acquisition: Acquisition, frame: Frame, *, history: bool) -> dict[str, Any]:
    config, stack = work.config, acquisition.stack
    register = config.register_of(stack)
    there = {b for p in acquisition.products for b in p.bands}
    return {
        "root": str(work.root), "frame": frame.document(), "key": evidence.evidence_key(acquisition, frame),
        "stack": stack, "scene": acquisition.scene, "acquisition": acquisition.name, "time": acquisition.time,
        "sensor": acquisition.sensor, "orbit": acquisition.orbit, "paths": acquisition.paths,
        "products": [p.key for p in acquisition.products], "partial": acquisition.partial, "history": history,
        "bands": [b for b in frame.bands if b in there], "threads": work.runner.threads,
        "options": {
            "product": config.product_of(stack), "mask": config.mask_of(stack),
            "register": None if register is None else register.model_dump(),
        },
    }  # fmt: skip


def _gather(work, acquisitions, frames, again) -> None:
    """Evidence of what is new; what a newer delivery replaces is superseded. One transaction."""
    since = np.datetime64(work.config.monitor.since, "ns")
    jobs, gone, early, renamed = [], [], [], []
    for stack, frame in frames.items():
        rows = work.ledger.rows("SELECT key, acquisition, status, scene FROM evidence WHERE stack = ?", stack)
        known = {(r["acquisition"], r["key"]): r["status"] for r in rows}
        names = {r["key"]: r["scene"] for r in rows}
        current: dict[str, list[str]] = {}
        for row in rows:
            current.setdefault(row["acquisition"], []).append(row["key"])
        for name, acquisition in acquisitions.get(stack, {}).items():
            key = evidence.evidence_key(acquisition, frame)
            status = known.get((name, key))
            if np.datetime64(acquisition.time, "ns") < since:
                if name not in frame.scenes and name not in current:
                    early.append((acquisition, key))
                continue
            if status in (None, arrivals.SUPERSEDED) or (status == REJECTED and acquisition.scene in again):
                jobs.append(_job(work, acquisition, frame, history=False))
                jobs[-1]["frame_orbits"] = frame.orbits if frame.kind == "sar" else ()
                gone += [k for k in current.get(name, ()) if k != key]
            elif names[key] != acquisition.scene:
                renamed.append((acquisition.scene, key))  # a copy came before its original
    wrong = [job for job in jobs if job["frame_orbits"] and job["orbit"] not in job["frame_orbits"]]
    right = [job for job in jobs if job not in wrong]
    made = work.runner.map(evidence.make_evidence, right, at_once=1)
    rows = [_evidence_row(job, record, work.number) for job, record in zip(right, made)]
    for job in wrong:
        orbits = ", ".join(map(str, job["frame_orbits"]))
        reason = f"other_orbit: its relative orbit is {job['orbit']}, the baseline holds {orbits}"
        record = {"status": REJECTED, "reason": reason, "sigma_px": None, "observed": 0.0}
        rows.append(_evidence_row(job, record, work.number))
    point("evidence.before")
    with work.ledger.writing() as db:
        for row in rows:
            insert(db, "evidence", row, replace=True)
            work.note(row["scene"], row["status"], row["reason"])
            if row["status"] != "valid":
                log.warning("%s: %s: %s", row["status"], row["scene"], row["reason"])
                arrivals.write_events(db, work.number, [(row["status"], row["scene"], row["reason"])])
        for key in gone:
            db.execute("UPDATE evidence SET status = ? WHERE key = ?", (arrivals.SUPERSEDED, key))
        db.executemany("UPDATE evidence SET scene = ? WHERE key = ?", renamed)
        for acquisition, key in early:
            reason = f"of {acquisition.time[:10]}, before since, and not in the baseline, which is frozen"
            log.warning("%s: %s", acquisition.scene, reason)
            record = {"status": BEFORE, "reason": reason, "sigma_px": None, "observed": 0.0}
            row = _evidence_row(_early(acquisition, key), record, work.number)
            insert(db, "evidence", row, replace=True)
            arrivals.write_events(db, work.number, [(BEFORE, acquisition.scene, reason)])
            work.note(acquisition.scene, BEFORE, reason)
        point("evidence.transaction")
    point("evidence.after")


def _early(acquisition, key):
    return {
        "key": key, "stack": acquisition.stack, "scene": acquisition.scene, "acquisition": acquisition.name,
        "time": acquisition.time, "sensor": acquisition.sensor, "orbit": acquisition.orbit,
        "products": [p.key for p in acquisition.products], "partial": False,
    }  # fmt: skip


def _evidence_row(job, record, number, history=0):
    return {
        "key": job["key"], "stack": job["stack"], "scene": job["scene"], "acquisition": job["acquisition"],
        "time": job["time"], "sensor": job["sensor"], "orbit": job["orbit"], "products": json.dumps(job["products"]),
        "status": record["status"], "reason": record["reason"], "sigma_px": record["sigma_px"],
        "observed": record["observed"], "partial": int(job["partial"]), "history": history, "visit": number,
    }  # fmt: skip


def _scene(row) -> Scene:
    return Scene(
        row["key"], row["scene"], row["acquisition"], row["time"], row["sensor"], row["orbit"], row["sigma_px"]
    )


def _apart(scenes) -> list[Scene]:
    """Scenes with times of their own: those of one moment are set apart by a microsecond each, in the order of ids."""
    out: list[Scene] = []
    for scene in sorted(scenes, key=lambda s: (np.datetime64(s.time, "ns"), s.scene, s.key)):
        moment = np.datetime64(scene.time, "ns")
        if out and moment <= np.datetime64(out[-1].time, "ns"):
            moment = np.datetime64(out[-1].time, "ns") + np.timedelta64(1, "us")
        out.append(replace(scene, time=str(moment)))
    return out


# ------------------------------------------------------------------------------------------------------------- fold


def detector_of(config, name: str):
    """The detector of a theme; `since` is the site's where the detector has one and the theme gives none."""
    from dataclasses import fields

    from geoalign.detectors import make

    item = config.layers[name]
    made = make(item.detector, **item.options)
    if "since" in {f.name for f in fields(made)} and made.since is None:
        made = replace(made, since=config.monitor.since)
    return made


def themes_of(config, ledger: Ledger, frames) -> list[Theme]:
    """Every theme with its chain of steps, from the valid evidence in the ledger."""
    scenes: dict[str, tuple[list[Scene], list[Scene]]] = {}
    for stack in frames:
        rows = ledger.rows("SELECT * FROM evidence WHERE stack = ? AND status = 'valid'", stack)
        history = _apart(_scene(r) for r in rows if r["history"])
        scenes[stack] = history, _apart(_scene(r) for r in rows if not r["history"])
    out, alphas = [], ledger.get("alphas", {})
    for name, item in config.layers.items():
        stack = config.stack_of(item)
        history, after = scenes[stack]
        detector = detector_of(config, name)
        if name in alphas and "alpha" not in item.options:
            detector = replace(detector, alpha=alphas[name]["alpha"])
        steps = fold.chain(
            detector, frames[stack], history, after, since=config.monitor.since, refit_days=config.monitor.refit_days
        )
        out.append(Theme(name, detector.kind, detector, frames[stack], tuple(history), steps))
    return out


def fold_theme(work: Work, theme: Theme) -> tuple[Alerts, list[dict[str, Any]]]:
    """(Alerts, figures of the tiles) after the last step; goes on from the last checkpoint whose name still holds."""
    folder = theme.folder(work.root)
    ground = ground_of(work.config, theme.name, theme.kind, theme.frame.geobox)
    begin = _go_on_from(theme, folder)
    while True:
        try:
            return _fold_from(work, theme, folder, ground, begin)
        except StateError as err:
            if begin is None:
                raise
            earlier = [k for k in range(begin) if _alerts_path(folder, theme.steps[k].hash).exists()]
            log.warning("%s", err)
            work.events.append(("repaired", theme.name, f"{err} Folded again from an earlier checkpoint."))
            _drop(theme, folder, begin)
            begin = max(earlier, default=None)


def _drop(theme, folder, at):
    """Remove what was made at and after a step that is damaged."""
    for step in theme.steps[at:]:
        remove(folder / step.hash)
    remove(folder / "frames")


def _alerts_path(folder, step) -> Path:
    return folder / step / "alerts"


def _go_on_from(theme, folder):
    """The last step whose state and alerts are there; None where the model has to be started."""
    for k in range(len(theme.steps) - 1, -1, -1):
        if _alerts_path(folder, theme.steps[k].hash).exists():
            return k
    return None


def _fold_from(work, theme, folder, ground, begin):
    keep = set(theme.kept())
    squares = evidence.tiles(theme.frame.shape, theme.frame.tile_px)
    if begin is None:
        fold.start_states(theme, 0, work.root)
        Alerts().save(_alerts_path(folder, theme.steps[0].hash))
        begin = 0
    alerts = Alerts.load(_alerts_path(folder, theme.steps[begin].hash))
    at, figures = begin, None
    while figures is None or at < len(theme.steps) - 1:
        if at + 1 < len(theme.steps) and theme.steps[at + 1].kind == RENEW:
            at += 1
            step = theme.steps[at]
            fold.start_states(theme, at, work.root)
            alerts = renewed(alerts, step.since, step.baseline)
            alerts.save(_alerts_path(folder, step.hash))
        ends = [k for k in range(at + 1, len(theme.steps)) if theme.steps[k].kind == RENEW]
        stop = ends[0] if ends else len(theme.steps)
        steps = theme.steps[at + 1 : stop]
        # before a renewal the last state is needed to know what was confirmed
        wanted = [s.hash for k, s in enumerate(steps, start=at + 1) if k in keep or k == stop - 1]
        first = theme.steps[at].hash
        jobs = [
            {
                "root": str(work.root), "folder": str(folder), "detector": theme.detector,
                "frame": theme.frame.document(), "tile": tile, "first": first, "steps": steps, "keep": wanted,
            }
            for tile in squares
        ]  # fmt: skip
        figures = work.runner.map(fold.fold_tile, jobs)
        point("fold.tiles_done")
        frames = fold.Frames(folder, first, steps, squares)
        for k, step in enumerate(steps):
            assert step.kind == SCENE
            alerts = fold_scene(alerts, frames.step(k), step.scene, ground, step.baseline)
            if step.hash in wanted:
                alerts.save(_alerts_path(folder, step.hash))
                point("fold.alerts_written")
        at = stop - 1
    return alerts, figures


# ---------------------------------------------------------------------------------------------------------- publish


def _publish(work, themes, told, started) -> Visit:
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
        with staged_folder(work.root / "generations" / generation) as part:
            _layers(work, themes, part, before, heads)
            _write_alerts(part, current, retracted, site)
            publish.write_json(part / "health.json", state.plain())
            publish.write_json(part / "budget.json", spent)
            document = _manifest(work, themes, site, current, part)
            publish.write_json(part / "manifest.json", document)
            point("publish.staged")
        point("publish.renamed")
    finished = _utc()
    counts = _counts(current)
    with ledger.writing() as db:
        for alert, change in revisions:
            record = json.dumps(alert.plain(), sort_keys=True)
            insert(
                db, "revisions",
                {"alert": alert.id, "revision": alert.revision, "theme": alert.theme, "status": alert.status,
                 "change": change, "record": record, "visit": work.number, "at": started},
            )  # fmt: skip
        _enqueue(db, revisions, site)
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


GROWN = 0.25
"""An alert whose extent changed by this share since it was last told is told again; its figures move at every scene."""


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
    return healths.assess(
        tiles, revisit, now=now, left_out=one["bad"], waiting=one["waiting"], undelivered=one["late"], failure=failure,
    )  # fmt: skip


def _write_alerts(part, current, retracted, site) -> None:
    """The current alerts as this library reads them again; the feeds for others are made beside it."""
    document = {"alerts": [a.plain() for a in current], "retracted": [a.plain() for a in retracted]}
    publish.write_json(part / "alerts" / "alerts.json", document)
    feeds.write_feeds(part / "alerts", current, retracted, site)
    point("publish.feeds_written")


def _enqueue(db, revisions, site) -> None:
    """Rows of the outbox, inside the transaction that publishes."""
    outbox.enqueue(db, revisions, site)


def _deliver(work) -> None:
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
