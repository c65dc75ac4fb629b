"""Looking at a watched site without a visit: status, history, what a visit would do, and whether all is whole."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoalign import publish
from geoalign.errors import GeoalignError, StateError
from geoalign.monitor import arrivals, evidence, fold
from geoalign.monitor.ledger import Ledger
from geoalign.monitor.lock import holder
from geoalign.monitor.publication import health_of
from geoalign.monitor.store import digest, read_arrays
from geoalign.monitor.themes import themes_of
from geoalign.monitor.work import LATEST, known_frames

EVENTS_SHOWN = 50


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. status : "ok", "doubtful" or "bad"."""

    what: str
    status: str
    detail: str


def status(config, root: Path, ledger: Ledger, now: float | None = None) -> dict[str, Any]:
    """Health now, what is published, the last visit, what waits, who holds the lock."""
    now = time.time() if now is None else now
    frames = known_frames(ledger)
    themes = themes_of(config, ledger, frames) if frames else []
    last = ledger.row("SELECT * FROM visits ORDER BY id DESC LIMIT 1") or {}
    failure = ""
    if last.get("status") in ("failed", "interrupted") or (last.get("status") == "running" and holder(root) is None):
        failure = json.loads(last["summary"]).get("error", "it was interrupted; the next visit goes on from there")
    state = health_of(config, ledger, themes, ledger.get("tiles", {}), now, failure)
    counts = ledger.rows(
        "SELECT status, count(*) AS n FROM (SELECT alert, max(revision), status FROM revisions GROUP BY alert) "
        "GROUP BY status"
    )
    scenes = ledger.rows("SELECT status, count(*) AS n FROM evidence GROUP BY status")
    refused = ledger.rows("SELECT scene, status, reason FROM products WHERE status IN ('quarantined', 'waiting')")
    refused += ledger.rows("SELECT scene, status, reason FROM evidence WHERE status = 'rejected'")
    return {
        "site": config.name, "health": state.plain(), "generation": ledger.get("generation", ""),
        "last_visit": {k: last.get(k, "") for k in ("id", "started", "finished", "status")},
        "alerts": {r["status"]: r["n"] for r in counts}, "scenes": {r["status"]: r["n"] for r in scenes},
        "not_used": refused, "lock": holder(root),
        "baselines": {
            s: {"key": f.key, "scenes": len(f.scenes), "bands": list(f.bands), "gap_days": f.gap_days}
            for s, f in frames.items()
        },
        "models": {
            t.name: {"detector": repr(t.detector), "baseline": t.head.baseline, "last": _last(t)} for t in themes
        },
    }  # fmt: skip


def grid_of(ledger: Ledger):
    """The site's grid."""
    frames = known_frames(ledger)
    if not frames:
        raise StateError("the site has no baseline yet, so nothing was published. Run `geoalign monitor` first.")
    return next(iter(frames.values())).geobox


def _last(theme):
    return next((s.scene.time[:19] for s in reversed(theme.steps) if s.scene), "")


def history(ledger: Ledger, what: str | None = None) -> dict[str, Any]:
    """All that is known of an alert (an id, or its first letters), of a scene, or of the last visits.

    Raises
    ------
    StateError
        Nothing goes by that name.
    """
    if what is None:
        visits = ledger.rows("SELECT * FROM visits ORDER BY id DESC LIMIT ?", EVENTS_SHOWN)
        for row in visits:
            row["summary"] = json.loads(row["summary"])
        events = ledger.rows("SELECT * FROM events ORDER BY id DESC LIMIT ?", EVENTS_SHOWN)
        return {"visits": visits, "events": events}
    like = what.replace("%", "").replace("_", r"\_") + "%"
    rows = ledger.rows(r"SELECT * FROM revisions WHERE alert LIKE ? ESCAPE '\' ORDER BY alert, revision", like)
    if rows:
        for row in rows:
            row["record"] = json.loads(row["record"])
        return {"revisions": rows}
    scene = {
        "products": ledger.rows("SELECT * FROM products WHERE scene = ?", what),
        "evidence": ledger.rows("SELECT * FROM evidence WHERE scene = ?", what),
        "events": ledger.rows("SELECT * FROM events WHERE subject = ? ORDER BY id", what),
    }
    if not any(scene.values()):
        raise StateError(f"neither an alert nor a scene is called {what!r}. `history` alone lists the last visits.")
    return scene


def plan(config, ledger: Ledger, now: float | None = None) -> dict[str, Any]:
    """What a visit would take in; headers of new files are read, nothing is written."""
    now = time.time() if now is None else now
    frames = known_frames(ledger)
    out: dict[str, Any] = {"site": config.name, "stacks": {}}
    for stack in config.sources:
        bands = frames[stack].bands if stack in frames else config.bands_of(stack)
        seen = arrivals.look(config, stack, ledger, bands=bands, now=now, read=False)
        rows = [
            {"scene": p.scene, "time": p.time[:19], "status": p.status, "reason": p.reason}
            for p in sorted(seen.products.values(), key=lambda p: (p.time, p.scene))
        ]
        frame = frames.get(stack)
        mb = 0.0 if frame is None else len(frame.bands) * frame.shape[0] * frame.shape[1] * 4 / 2**20
        whole = sum(r["status"] == "valid" for r in rows)
        out["stacks"][stack] = {
            "listed": seen.n_listed, "new": rows, "baseline": "frozen" if frame else "to be made",
            "evidence_mb_at_most": round(mb * whole),
        }  # fmt: skip
    return out


def doctor(config, root: Path, ledger: Ledger) -> list[Finding]:
    """Every checksum looked at: the ledger, the baseline, evidence, state, the generation, the pointer."""
    out = [_finding("ledger", ledger.check(), str(ledger.path))]
    frames = known_frames(ledger)
    for stack, frame in frames.items():
        wrong = []
        folder = frame.folder(root)
        for name in ("frame.json", *(("alignment.json", "images.zarr") if frame.band else ())):
            if not (folder / name).exists():
                wrong.append(f"{folder / name} is missing")
        rows = ledger.rows("SELECT key, scene FROM evidence WHERE stack = ? AND status = 'valid'", stack)
        out.append(_finding(f"baseline {stack}", wrong, f"{len(frame.scenes)} scenes, frozen"))
        wrong = [text for row in rows for text in evidence.verify(root, row["key"], frame)]
        out.append(_finding(f"evidence {stack}", wrong, f"{len(rows)} scenes, every tile"))
    for theme in themes_of(config, ledger, frames) if frames else ():
        if note := theme.short_history():
            out.append(Finding(f"history {theme.name}", "doubtful", note))
        wrong, n = [], 0
        for k in theme.kept():
            for path in sorted((theme.folder(root) / theme.steps[k].hash).glob("*")):
                n += 1
                try:
                    read_arrays(path)
                except StateError as err:
                    wrong.append(str(err))
        if n == 0:
            wrong.append("there is no state; the next visit folds it from the evidence")
        out.append(_finding(f"state {theme.name}", wrong, f"{n} files"))
    out.append(_finding("generation", _generation(root, ledger), ledger.get("generation", "") or "none yet"))
    return out


def _finding(what, wrong, detail) -> Finding:
    return Finding(what, "bad" if wrong else "ok", "; ".join(wrong[:5]) if wrong else detail)


def _generation(root, ledger) -> list[str]:
    name = ledger.get("generation", "")
    if not name:
        return []
    folder, wrong = root / "generations" / name, []
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as err:
        return [f"{folder / 'manifest.json'} can't be read: {err}; the next visit publishes again"]
    for path, record in files.items():
        if not (folder / path).is_file():
            wrong.append(f"{path} is missing")
        elif publish.file_sha256(folder / path) != record["sha256"]:
            wrong.append(f"{path} has changed since it was written")
    if (root / LATEST).resolve() != folder.resolve() and not (root / LATEST).is_file():
        wrong.append("latest points elsewhere; the next visit puts it right")
    return wrong


def fingerprint(config, root: Path, ledger: Ledger) -> dict[str, Any]:
    """Hashes of every bit that is a function of the evidence: states, rasters as they are read, current alerts.

    Two histories of arrival of the same scenes have the same fingerprint.
    """
    from geoalign.io import read_changes
    from geoalign.monitor.alerts import Alert
    from geoalign.monitor.store import array_digest

    out: dict[str, Any] = {}
    folder = root / "generations" / ledger.get("generation", "")
    for theme in themes_of(config, ledger, known_frames(ledger)):
        layers = read_changes(folder / "layers" / theme.name).load()
        out[theme.name] = {
            "chain": theme.head.hash,
            "state": fold.head_digest(theme, root),
            "layers": {str(n): array_digest(v.values) for n, v in sorted(layers.data_vars.items(), key=str)},
        }
    try:
        plain = json.loads((folder / "alerts" / "alerts.json").read_text(encoding="utf-8"))["alerts"]
    except OSError as err:
        raise GeoalignError(f"{folder} holds no alerts: {err}.") from err
    out["alerts"] = digest(sorted((Alert.of(a).content() for a in plain), key=lambda a: a["id"]))
    return out
