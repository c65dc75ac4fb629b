"""One visit: find -> validate -> align to the frozen baseline -> evidence -> fold -> alerts -> publish.

The only file that knows the order. Whatever ends a visit at whatever place, the next one finds either nothing of it or
finished pieces under the names it would give them itself, and comes to the same result.
"""

from __future__ import annotations

import json
import logging
import time as clock
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from geoalign import publish
from geoalign.errors import ConfigError, GeoalignError, NoUsableData, StateError
from geoalign.monitor import arrivals, baseline, budget, evidence
from geoalign.monitor.arrivals import Acquisition, Product, resolve
from geoalign.monitor.baseline import Frame
from geoalign.monitor.ledger import Ledger, insert
from geoalign.monitor.publication import deliver, health_of, point_latest, publish_visit
from geoalign.monitor.store import point, remove
from geoalign.monitor.themes import detector_of, fold_theme, scene_of, themes_of
from geoalign.monitor.work import BEFORE, REJECTED, Visit, Work, known_frames, utc

log = logging.getLogger("geoalign")


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
    fresh = not known_frames(work.ledger)
    with work.step("baseline"):
        frames = _frames(work, acquisitions)
    with work.step("evidence"):
        _gather(work, acquisitions, frames, again)
    themes = themes_of(work.config, work.ledger, frames)
    if fresh:
        _warn_of_short_histories(work, themes)
    with work.step("fold"):
        told = {t.name: fold_theme(work, t) for t in themes}
    with work.step("publish"):
        result = publish_visit(work, themes, told, started)
    with work.step("deliver"):
        deliver(work)
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
                ("interrupted" if stopped else "failed", utc(), json.dumps({"error": text}), work.number),
            )
        frames = known_frames(work.ledger)
        themes = themes_of(work.config, work.ledger, frames) if frames else []
        state = health_of(
            work.config, work.ledger, themes, work.ledger.get("tiles", {}), work.now, "" if stopped else text
        )
        publish.write_json(work.root / "health.json", state.plain() | {"generation": work.ledger.get("generation", "")})
    except (GeoalignError, OSError) as again:
        log.debug("the failure can't be written down: %s", again)


def rebuild(work: Work) -> Visit:
    """A visit that folds everything again from the evidence, and makes damaged evidence again from its scenes."""
    frames = known_frames(work.ledger)
    if not frames and any((work.root / "evidence").glob("*")):
        log.warning(
            "the ledger is lost: the scenes are taken in again. Alerts get the names they had; notices are sent again."
        )
        return visit(work)
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
        history = [scene_of(row) for row in usable]
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


def _warn_of_short_histories(work, themes) -> None:
    """Told once, when the baseline is frozen; `health` and `doctor` go on saying it."""
    for theme in themes:
        if note := theme.short_history():
            log.warning("%s", note)
            work.events.append(("short_history", theme.name, note))


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
