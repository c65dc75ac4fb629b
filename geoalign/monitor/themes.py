"""What is watched for: the chain of steps of every theme, folded from the last checkpoint that still holds."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geoalign.errors import StateError
from geoalign.monitor import evidence, fold
from geoalign.monitor.alerts import Alerts, fold_scene, ground_of, renewed
from geoalign.monitor.evidence import Scene
from geoalign.monitor.fold import RENEW, SCENE, Theme
from geoalign.monitor.ledger import Ledger
from geoalign.monitor.store import digest, point, remove
from geoalign.monitor.work import Work

log = logging.getLogger("geoalign")


def scene_of(row) -> Scene:
    return Scene(
        row["key"], row["scene"], row["acquisition"], row["time"], row["sensor"], row["orbit"], row["sigma_px"]
    )


def apart(scenes) -> list[Scene]:
    """Scenes with times of their own: those of one moment are set apart by a microsecond each, in the order of ids."""
    out: list[Scene] = []
    for scene in sorted(scenes, key=lambda s: (np.datetime64(s.time, "ns"), s.scene, s.key)):
        moment = np.datetime64(scene.time, "ns")
        if out and moment <= np.datetime64(out[-1].time, "ns"):
            moment = np.datetime64(out[-1].time, "ns") + np.timedelta64(1, "us")
        out.append(replace(scene, time=str(moment)))
    return out


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
        history = apart(scene_of(r) for r in rows if r["history"])
        scenes[stack] = history, apart(scene_of(r) for r in rows if not r["history"])
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
    begin = _go_on_from(theme, folder, ground)
    while True:
        try:
            return _fold_from(work, theme, folder, ground, begin)
        except StateError as err:
            if begin is None:
                raise
            earlier = [k for k in range(begin) if _alerts_path(folder, theme.steps[k].hash, ground).exists()]
            log.warning("%s", err)
            work.events.append(("repaired", theme.name, f"{err} Folded again from an earlier checkpoint."))
            _drop(theme, folder, begin)
            begin = max(earlier, default=None)


def _drop(theme, folder, at):
    """Remove what was made at and after a step that is damaged."""
    for step in theme.steps[at:]:
        remove(folder / step.hash)
    remove(folder / "frames")


def _alerts_path(folder, step, ground) -> Path:
    """Named by what shapes alerts beside the chain, so that an edited site file has them folded anew, states not."""
    return folder / step / f"alerts-{digest(ground.site, ground.min_px)[:8]}"


def _go_on_from(theme, folder, ground):
    """The last step whose state and alerts are there; None where the model has to be started."""
    for k in range(len(theme.steps) - 1, -1, -1):
        if _alerts_path(folder, theme.steps[k].hash, ground).exists():
            return k
    return None


def _fold_from(work, theme, folder, ground, begin):
    keep = set(theme.kept())
    squares = evidence.tiles(theme.frame.shape, theme.frame.tile_px)
    if begin is None:
        fold.start_states(theme, 0, work.root)
        Alerts().save(_alerts_path(folder, theme.steps[0].hash, ground))
        begin = 0
    alerts = Alerts.load(_alerts_path(folder, theme.steps[begin].hash, ground))
    at, figures = begin, None
    while figures is None or at < len(theme.steps) - 1:
        if at + 1 < len(theme.steps) and theme.steps[at + 1].kind == RENEW:
            at += 1
            step = theme.steps[at]
            fold.start_states(theme, at, work.root)
            alerts = renewed(alerts, step.since, step.baseline)
            alerts.save(_alerts_path(folder, step.hash, ground))
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
                alerts.save(_alerts_path(folder, step.hash, ground))
                point("fold.alerts_written")
        at = stop - 1
    return alerts, figures
