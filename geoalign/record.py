"""What a run writes down about itself: figures of its layers, accuracy against a truth, the manifest."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from geoalign import publish

TRUTH = {"flood": "flood", "deforestation": "clearing", "urbanization": "building"}
"""Theme -> the layer of a simulation's truth that it should find."""


def summary(changes) -> dict[str, Any]:
    """Figures of one layer: pixels by status, changed area (ha), dates of change (count a date), probability."""
    import dask

    from geoalign.types.changes import STATUS, WHY, changed
    from geoalign.types.stack import pixel_size_m

    where = changed(changes)
    lazy = [(changes.status == code).sum() for code in STATUS]
    lazy += [((changes.why & bit) > 0).sum() for bit in WHY.values()]
    numbers = [int(v) for v in dask.compute(*lazy)]
    counts = dict(zip(STATUS.values(), numbers))
    why = {key: n for key, n in zip(WHY, numbers[len(STATUS) :]) if n}
    dates = _count_dates(changes.date.where(where))
    side = pixel_size_m(changes)
    n = counts["confirmed"] + counts["ended"]
    return {
        "pixels": counts,
        "why": why,
        "area_ha": None if side is None else round(n * side**2 / 1e4, 4),
        "dates": dates,
    }


def crs_text(geobox) -> str:
    """EPSG code of a grid where it has one, else its name."""
    code = geobox.crs.to_epsg()
    if code:
        return f"EPSG:{code}"
    name, way = str(geobox.crs.proj.name), geobox.crs.proj.coordinate_operation
    return name if name != "unnamed" or way is None else f"{way.method_name} (no EPSG code)"


def _count_dates(dates) -> dict[str, int]:
    """Pixels by day of change, block by block."""
    import dask

    def count(block):
        days = np.asarray(block).astype("datetime64[D]")
        return np.unique(days[~np.isnat(days)], return_counts=True)

    data = dates.data
    blocks = (
        [dask.delayed(count)(b) for b in data.to_delayed().ravel()] if hasattr(data, "to_delayed") else [count(data)]
    )
    total: dict[str, int] = {}
    for days, numbers in dask.compute(*blocks):
        for day, n in zip(days, numbers):
            total[str(day)] = total.get(str(day), 0) + int(n)
    return dict(sorted(total.items()))


def measured(work, stacks) -> dict[str, Any]:
    """Registration residuals and detection scores against a simulation's truth."""
    from geoalign import accuracy
    from geoalign.io import read_changes
    from geoalign.simulation import Truth

    truth = Truth.load(work.config.truth_folder)
    out: dict[str, Any] = {"registration": [], "detection": []}
    for name, alignment in work.alignments.items():
        frame = accuracy.registration(alignment, truth).assign(stack=name)
        out["registration"] += json.loads(frame.to_json(orient="records"))
    for name, layer in work.layers.items():
        if layer["kind"] not in TRUTH:
            continue
        stack = stacks[layer["stack"]]
        alignment = work.alignments.get(layer["stack"])
        seen = truth.dates if alignment is None else truth.on(alignment.reference)
        changes = read_changes(work.folder / "layers" / name).load()
        score = accuracy.assess(changes, seen[TRUTH[layer["kind"]]], times=stack.time.values)
        out["detection"].append({"layer": name, "theme": layer["kind"], "stack": layer["stack"], **_plain(score)})
    return out


def _plain(score) -> dict[str, Any]:
    from dataclasses import asdict, is_dataclass

    values = asdict(score) if is_dataclass(score) else dict(score)
    return {k: v for k, v in values.items() if isinstance(v, int | float | str) or v is None}


def manifest(work, geobox) -> dict[str, Any]:
    config = work.config
    registration = pd.concat(work.reports) if work.reports else pd.DataFrame()
    return {
        "format": "geoalign.run",
        "version": 1,
        "name": config.name,
        "run_id": work.run_id,
        "exit_code": 1 if work.failed else 3 if work.skipped else 0,
        "started": work.started.isoformat(timespec="seconds"),
        "finished": now(),
        **publish.environment(),
        "configuration": config.plain(),
        "grid": {
            "crs": crs_text(geobox),
            "shape": [int(n) for n in geobox.shape],
            "transform": [float(v) for v in geobox.affine[:6]],
            "bbox": [float(v) for v in geobox.boundingbox.bbox],
        },
        "inputs": work.inputs,
        "scenes": work.scenes,
        "skipped": work.skipped,
        "failed": work.failed,
        "registration": json.loads(registration.to_json(orient="records")),
        "layers": work.layers,
        "pictures": work.pictures,
        "accuracy": work.accuracy,
        "timings": work.timings,
        "peak_rss_mb": publish.peak_rss_mb(),
    }


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
