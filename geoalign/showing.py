"""What `info`, `run` and those that run show of a stack, a plan and a result."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoalign import terminal


def show_stack(stack, path, json) -> int:
    """What the files of a stack hold and what was applied to them; the exit code."""
    from geoalign.io.refused import holds
    from geoalign.record import crs_text

    applied = {r.get("scene"): r for r in jsonlib.loads(stack.attrs.get("applied", "[]"))}
    skipped = jsonlib.loads(stack.attrs.get("skipped", "[]"))
    box = stack.odc.geobox
    scenes = [
        {"scene": str(s), "time": str(t)[:19], "sensor": str(n), "orbit": int(o)}
        | _without(applied.get(str(s), {}), "scene")
        for s, t, n, o in zip(stack.scene.values, stack.time.values, stack.sensor.values, stack.orbit.values)
    ]
    document = {
        "bands": list(map(str, stack.data_vars)),
        "crs": crs_text(box),
        "shape": list(map(int, box.shape)),
        "resolution": abs(float(box.resolution.y)),
        "bbox": [float(v) for v in box.boundingbox.bbox],
        "scenes": scenes,
        "skipped": skipped,
    }
    if json:
        return terminal.print_json(document) or (3 if skipped else 0)
    terminal.out(f"bands {' '.join(document['bands'])}")
    terminal.out(f"grid  {box.shape[1]} x {box.shape[0]} px of {document['resolution']:g}, {document['crs']}")
    same, rows = _shared([_without(s, "paths", "source") for s in scenes])
    for name, value in same.items():
        terminal.out(f"all   {name}: {terminal.short(value)}")
    rows = [_without(row, "orbit") if row.get("orbit") == -1 else row for row in rows]
    terminal.table(f"{len(scenes)} scene{'' if len(scenes) == 1 else 's'}", rows)
    if skipped:
        terminal.table("can't be used", skipped)
        known = dict(holds(path))
        for record in skipped:
            if Path(record["path"]).name in known:
                terminal.out(f"{Path(record['path']).name}: {known[Path(record['path']).name]}")
    return 3 if skipped else 0


def show_run(result, json) -> int:
    """A run's results, as JSON or as tables; its exit code."""
    if json:
        terminal.print_json(run_document(result))
    else:
        run_summary(result)
    return result.exit_code


def run_document(result) -> dict[str, Any]:
    """A run as JSON has it."""
    from geoalign.publish import read_manifest

    keys = (
        "run_id",
        "exit_code",
        "started",
        "finished",
        "layers",
        "registration",
        "skipped",
        "failed",
        "accuracy",
        "timings",
    )
    document = read_manifest(result.folder)
    return {"folder": str(result.folder), "report": str(result.report or "")} | {
        k: document[k] for k in (*keys, "peak_rss_mb")
    }


def run_summary(result) -> None:
    """What was found, what was left out, where the results lie."""
    rows = []
    for name, layer in result.layers.items():
        days = list(layer["dates"])
        rows.append(
            {
                "layer": name, "stack": layer["stack"], "area_ha": layer["area_ha"], "polygons": layer["polygons"],
                "first": days[0] if days else "", "last": days[-1] if days else "",
                "not_observable_px": layer["pixels"]["not_observable"],
            }
        )  # fmt: skip
    terminal.table("found", rows)
    if result.skipped:
        terminal.table("scenes left out", result.skipped)
    for name, reason in result.failed.items():
        terminal.say(f"{name} failed: {reason}")
    if result.layers:
        terminal.out(f"layers    {result.folder / 'layers'}: {', '.join(result.layers)}")
    terminal.out(f"manifest  {result.manifest}")
    if result.report:
        terminal.out(f"report    {result.report}")
    terminal.out(f"{result.timings['total']:.1f} s, peak memory {result.peak_rss_mb:,.0f} MB")


def show_plan(plan, json) -> int:
    """What a run would do; always 0."""
    if json:
        return terminal.print_json(asdict(plan))
    for name, scenes in plan.scenes.items():
        terminal.table(f"{name}: {len(scenes)} scenes", scenes)
    if plan.skipped:
        terminal.table("can't be used", plan.skipped)
    box = ", ".join(f"{v:.10g}" for v in plan.bbox)
    terminal.out(f"grid    {plan.shape[1]} x {plan.shape[0]} px of {plan.resolution:g}, {plan.crs}, {box}")
    for name, sizes in plan.chunks.items():
        terminal.out(f"chunks  {name}: " + ", ".join(f"{k} {v}" for k, v in sizes.items()))
    for item in plan.detectors:
        terminal.out(f"detect  {item['layer']}: {item['detector']} on {item['on']}")
    terminal.out(f"memory  about {plan.memory_mb:,} MB\ndisk    at most {plan.disk_mb:,} MB in {plan.output}")
    return 0


def _shared(rows):
    """What is the same and not empty in all rows, and the rows without it; scene and time stay."""
    same = {
        name: value
        for name, value in rows[0].items()
        if name not in ("scene", "time") and len(rows) > 1 and all(row.get(name) == value for row in rows)
    }
    shown = {name: value for name, value in same.items() if value not in (None, "", [], -1)}
    return shown, [_without(row, *same) for row in rows]


def _without(record, *names):
    return {k: v for k, v in record.items() if k not in names}
