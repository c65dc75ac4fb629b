"""The whole order, in one place: open -> mask -> register -> detect -> vectorize -> export.

`run` does what a site file says; `plan` says what `run` would do without reading a pixel. Results of a run lie in
OUTPUT/runs/<time>-<id>/ and are published whole: written to a hidden folder, renamed, and only then does
OUTPUT/latest point there, so that a reader sees the old set or the new one, never half of one.
"""

from __future__ import annotations

import json
import logging
import time as clock
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geoalign import publish
from geoalign.config import Config, Detect, load_config
from geoalign.errors import ConfigError, GeoalignError, MatchError, NoUsableData
from geoalign.record import crs_text, manifest, measured, now, summary
from geoalign.usable import read_once, reference_of

log = logging.getLogger("geoalign")

CHUNK_BYTES = 2**26
"""Bytes of one chunk of the series that a detector works on (all times and bands), at the most."""

ROW_BYTES = 2**29
"""Bytes of one row of such chunks: the rows above and below wait in memory with it for what looks around a pixel."""

HELD_BYTES = 2**28
"""A stack of up to this size is kept in memory while a run lasts, not read and resampled again by each step."""

LAYER_BYTES = 40
"""Bytes a pixel of one detector's layers: 27 of those that all have, and of two dates and a measure of its own."""

REGISTRATION_COLUMNS = ("stack", "scene", "status", "warp_kind", "planted_rms_px", "rmse_px", "max_px", "sigma_px")
DETECTION_COLUMNS = (
    "layer", "precision", "recall", "f1", "median_abs_acquisitions", "mean_abs_acquisitions", "median_abs_days",
    "n_not_observable",
)  # fmt: skip
"""What people look at first of the accuracy; `accuracy.json` has all of it."""


@dataclass(frozen=True)
class Run:
    """What a run did.

    folder : where the results lie (OUTPUT/runs/...); run_id : of these inputs and this configuration, the same when
    repeated; layers : name -> record (detector, kind, stack, files, counts, area_ha, dates, ...); registration : a row
    for each scene of each stack, columns of `Alignment.report` after `stack`; skipped : scenes left out, with reason;
    failed : detectors that could not work, with reason; accuracy : against the truth, {} where none is known;
    timings : seconds a step; peak_rss_mb : of the whole process; exit_code : 0 done, 1 a detector failed, 3 some
    scenes were left out
    """

    folder: Path
    run_id: str
    layers: dict[str, dict[str, Any]]
    registration: pd.DataFrame
    skipped: list[dict[str, str]]
    failed: dict[str, str]
    accuracy: dict[str, Any]
    timings: dict[str, float]
    peak_rss_mb: float
    exit_code: int

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def report(self) -> Path | None:
        page = self.folder / "report.html"
        return page if page.exists() else None


@dataclass
class _Work:
    """One run while it lasts."""

    config: Config
    folder: Path
    on_step: Callable[[str], None]
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    run_id: str = ""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    no_data: bool = True  # whether all that failed did so for want of data
    scenes: list[dict[str, Any]] = field(default_factory=list)
    reports: list[pd.DataFrame] = field(default_factory=list)
    alignments: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, name):
        log.info("%s", name)
        self.on_step(name)
        start = clock.perf_counter()
        yield
        took = clock.perf_counter() - start
        self.timings[name] = round(self.timings.get(name, 0.0) + took, 3)
        log.debug("%s took %.1f s", name, took)

    def skip(self, stack, scene, reason, kind="failed", *, tell=True):
        """Note a scene that is left out; `tell=False` where it has been logged already."""
        log.log(logging.WARNING if tell else logging.DEBUG, "%s: scene %s is left out: %s", stack, scene, reason)
        self.skipped.append({"stack": stack, "scene": str(scene), "kind": kind, "reason": str(reason)})


def run(
    config,
    *,
    threads: int | None = None,
    on_step: Callable[[str], None] | None = None,
    then: Iterable[Callable[[Path], Any]] = (),
) -> Run:
    """Do all that a site file says, and publish the results.

    Parameters
    ----------
    config : path of a site's TOML file, or a Config
    threads : dask threads; None is the number of processors
    on_step : called with the name of each step as it starts (a progress bar)
    then : callables that get the folder of the run before it is published, e.g. `geoalign.report.write_report`

    Returns
    -------
    Run

    Raises
    ------
    ConfigError
        The site file is wrong (exit code 2).
    NoUsableData
        Nothing to work on: no scenes, everything masked or rejected (exit code 4).
    GeoalignError
        No detector could work, or another run is writing to the same folder (exit code 75).

    Examples
    --------
    >>> from geoalign import run
    >>> run("valley.toml").layers["flood"]["area_ha"]  # doctest: +SKIP
    12.4
    """
    import dask

    config = config if isinstance(config, Config) else load_config(config)
    if not config.detect:
        raise ConfigError("a run needs at least one [[detect]] section.")
    _check_detectors(config)
    output = config.output_folder
    begin = clock.perf_counter()
    options = {"scheduler": "threads"} | ({"num_workers": threads} if threads else {})
    with publish.locked(output), publish.staging(output) as folder, dask.config.set(**options), _gdal():
        work = _Work(config, folder, on_step or (lambda name: None))
        geobox, stacks = _open_all(work)
        aligned = _align_all(work, stacks, geobox)
        if not aligned:
            raise NoUsableData("no stack is left to look at. " + _reasons(work))
        work.inputs = publish.inputs(work.scenes)
        work.run_id = publish.run_id(config.plain(), work.inputs)
        _detect_all(work, aligned)
        if not work.layers:
            raise _nothing_detected(work, aligned)
        with work.step("pictures"):
            work.pictures = _pictures(folder, aligned)
        if config.truth_folder is not None:
            with work.step("accuracy"):
                work.accuracy = measured(work, aligned)
                publish.write_json(folder / "accuracy.json", work.accuracy)
        document = manifest(work, geobox)
        publish.write_json(folder / "manifest.json", document)
        with work.step("report"):
            for finish in then:
                finish(folder)
        work.timings["total"] = round(clock.perf_counter() - begin, 3)
        document |= {"timings": work.timings, "peak_rss_mb": publish.peak_rss_mb(), "finished": now()}
        document["files"] = publish.checksums(folder)
        publish.write_json(folder / "manifest.json", document)
        final = publish.publish(folder, output, f"{work.started:%Y%m%dT%H%M%SZ}-{work.run_id}")
    return read_run(final)


def read_run(folder) -> Run:
    """The Run that lies in a folder: a run's own, or an OUTPUT folder, whose latest run is taken."""
    folder = publish.resolve(folder)
    document = publish.read_manifest(folder)
    return Run(
        folder=folder,
        run_id=document["run_id"],
        layers=document["layers"],
        registration=pd.DataFrame(document["registration"]),
        skipped=document["skipped"],
        failed=document["failed"],
        accuracy=document["accuracy"],
        timings=document["timings"],
        peak_rss_mb=document["peak_rss_mb"],
        exit_code=document["exit_code"],
    )


@dataclass(frozen=True)
class Plan:
    """What a run would do: scenes by stack, the grid, chunks, and estimates; no pixel was read.

    memory_mb : working memory expected; disk_mb : the most the layers can take while they are made: uncompressed, and
        beside it the files, with overviews, that did not shrink
    """

    scenes: dict[str, list[dict[str, str]]]
    skipped: list[dict[str, str]]
    shape: tuple[int, int]
    crs: str
    resolution: float
    bbox: tuple[float, float, float, float]
    chunks: dict[str, dict[str, int]]
    detectors: list[dict[str, str]]
    memory_mb: int
    disk_mb: int
    output: str


def plan(config, *, threads: int | None = None) -> Plan:
    """What `run` would do with this site file (`--dry-run`)."""
    import os

    config = config if isinstance(config, Config) else load_config(config)
    _check_detectors(config)
    work = _Work(config, config.output_folder, lambda name: None)
    geobox, stacks = _open_all(work)
    pixels = geobox.shape[0] * geobox.shape[1]
    chunks = {name: {"time": s.sizes["time"], "y": _side(s), "x": _side(s)} for name, s in stacks.items()}
    largest = max(s.sizes["time"] * len(s.data_vars) * min(_side(s) ** 2, pixels) * 4 for s in stacks.values())
    workers = threads or os.cpu_count() or 1
    return Plan(
        scenes={
            name: [
                {"scene": str(scene), "time": str(t)[:19], "sensor": str(sensor)}
                for scene, t, sensor in zip(s.scene.values, s.time.values, s.sensor.values)
            ]
            for name, s in stacks.items()
        },
        skipped=work.skipped,
        shape=tuple(int(n) for n in geobox.shape),
        crs=crs_text(geobox),
        resolution=float(abs(geobox.resolution.y)),
        bbox=tuple(float(v) for v in geobox.boundingbox.bbox),
        chunks=chunks,
        detectors=[
            {"layer": name, "detector": item.detector, "on": config.stack_of(item)}
            for name, item in config.layers.items()
        ],
        # a chunk of series, its source windows and the layers made of it live at the same time in each thread
        memory_mb=round(400 + workers * 6 * largest / 2**20),
        disk_mb=1 + round(pixels * LAYER_BYTES * (1 + 4 / 3) * len(config.layers) / 2**20),
        output=str(config.output_folder),
    )


# ------------------------------------------------------------------------------------------------------- the steps


def _check_detectors(config):
    """Make every detector before any work is done, so that an option it refuses is told at once."""
    from geoalign.detectors import make

    problems = []
    for name, item in config.layers.items():
        try:
            make(item.detector, **item.options)
        except (GeoalignError, TypeError, ValueError) as err:
            problems.append(f"{name}: {err}")
    if problems:
        raise ConfigError("\n".join(problems), tuple(problems))


def _open_all(work) -> tuple[Any, dict[str, Any]]:
    """Every stack of the site on one project grid, lazily."""
    from geoalign.io import open_stack

    config = work.config
    stacks: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    with work.step("open"):
        like = config.like or grid_from_box(config)
        natural: dict[str, Any] = {}
        for name in config.sources:
            try:
                natural[name] = open_stack(config.sources[name], **_door(config, name), like=like)
            except NoUsableData as err:
                reasons[name] = str(err)
        if not natural:
            raise NoUsableData(" ".join(reasons.values()))
        for name, reason in reasons.items():
            work.skip(name, "*", reason)
        if like is None:
            like = common_grid(config, natural)
            natural = {n: open_stack(config.sources[n], **_door(config, n), like=like) for n in natural}
        for name, stack in natural.items():
            for record in json.loads(stack.attrs.get("skipped", "[]")):
                work.skip(name, record.get("scene") or record.get("path", "?"), record["reason"], tell=False)
            stacks[name] = stack
        geobox = next(iter(stacks.values())).odc.geobox
        if config.vectors.min_area_m2 > 0 and not geobox.crs.projected:
            raise ConfigError(
                f"vectors.min_area_m2 is {config.vectors.min_area_m2:g}, but the grid is in degrees "
                f"({crs_text(geobox)}), so that its pixels have no size in metres. Give [grid] a projected crs (for "
                "example the local UTM zone) and resolution_m, or leave min_area_m2 out."
            )
    return geobox, stacks


def _door(config, name) -> dict[str, Any]:
    return {
        "product": config.product_of(name),
        "bands": config.bands_of(name),
        "time": config.time,
        "orbit": config.orbit_of(name),
    }


def grid_from_box(config):
    """The project grid where the site gives a bbox; else None: the scenes' extent decides."""
    grid = config.grid
    if grid.crs is None or grid.bbox is None:
        return None
    from odc.geo.geobox import GeoBox

    return GeoBox.from_bbox(grid.bbox, grid.crs, resolution=grid.resolution_m)


def common_grid(config, stacks):
    """One grid over all stacks: in the site's CRS and resolution where given, else the first stack's own, extended."""
    from odc.geo.geobox import GeoBox

    first = next(iter(stacks.values())).odc.geobox
    crs = config.grid.crs or first.crs
    resolution = config.grid.resolution_m or abs(first.resolution.y)
    if config.grid.crs is None and len(stacks) == 1:
        return first
    boxes = [s.odc.geobox.extent.to_crs(crs).boundingbox.bbox for s in stacks.values()]
    lows, highs = np.min([b[:2] for b in boxes], axis=0), np.max([b[2:] for b in boxes], axis=0)
    anchor = (first.affine.c, first.affine.f) if str(first.crs) == str(crs) else (0.0, 0.0)
    # the edges fall on the first stack's pixel edges (or on whole pixels), so that scenes already on them stay put
    low = [a + np.floor((v - a) / resolution + 1e-6) * resolution for v, a in zip(lows, anchor)]
    high = [a + np.ceil((v - a) / resolution - 1e-6) * resolution for v, a in zip(highs, anchor)]
    return GeoBox.from_bbox((*low, *high), crs, resolution=resolution, tight=True)


def _align_all(work, stacks, geobox) -> dict[str, Any]:
    """Every stack masked and aligned; small ones at the same time, for matching keeps one processor busy."""
    small = all(stack.nbytes <= HELD_BYTES for stack in stacks.values())
    parts = {name: _Work(work.config, work.folder, work.on_step, started=work.started) for name in stacks}
    with ThreadPoolExecutor(len(stacks) if small else 1) as pool:
        tasks = {name: pool.submit(_aligned, parts[name], name, stack, geobox) for name, stack in stacks.items()}
        aligned = {name: task.result() for name, task in tasks.items()}
    for part in parts.values():  # in the order of the site file, whichever ended first
        work.timings |= part.timings
        work.alignments |= part.alignments
        work.skipped += part.skipped
        work.scenes += part.scenes
        work.reports += part.reports
    return {name: stack for name, stack in aligned.items() if stack is not None}


def _aligned(work, name, stack, geobox):
    """The stack masked and aligned, one resampling on the way in; None where no scene is left."""
    from geoalign.io import open_stack
    from geoalign.masks import mask
    from geoalign.registration import coregister

    config = work.config
    options = config.mask_of(name)
    with work.step(f"read {name}"):
        masked = _scan(work, name, mask(stack, **options))
        if masked is None:
            return None
        masked = _held(masked)
    register = config.register_of(name)
    if register is None:
        return masked
    with work.step(f"register {name}"):
        given = register.model_dump(exclude={"resampling"})
        lost = {r["scene"]: r["reason"] for r in work.skipped}
        try:
            given["reference"] = reference_of(
                register.reference, masked, config.folder, product=config.product_of(name), lost=lost
            )
            alignment = coregister(masked, **given)
        except (MatchError, NoUsableData) as err:
            work.skip(name, "*", f"the stack can't be aligned: {err}")
            return None
        alignment.save(work.folder / "registration" / f"{name}.json")
        work.alignments[name] = alignment
        work.reports.append(alignment.report.assign(stack=name))
        for row in alignment.report.itertuples():
            if row.status in ("failed", "rejected"):
                work.skip(name, row.scene, f"can't be aligned: {row.reason}", row.status, tell=False)
    if not alignment.warps:
        return None
    door = _door(config, name) | {"resampling": register.resampling, "chunks": _side(stack)}
    with work.step(f"align {name}"):
        return _held(mask(open_stack(config.sources[name], **door, like=geobox, alignment=alignment), **options))


def _held(stack):
    """The stack in memory where it is small, in chunks that keep all threads busy; else as it is, lazy."""
    if stack.nbytes > HELD_BYTES:
        return stack
    side = min(_side(stack), max(64, -(-max(stack.sizes["y"], stack.sizes["x"]) // 4)))
    return stack.chunk({"time": -1, "y": side, "x": side}).persist()


def _scan(work, name, stack):
    """The stack without scenes of no use, each noted with its reason; None where none is left."""
    applied = {r.get("scene"): r for r in json.loads(stack.attrs.get("applied", "[]"))}
    stack_left, clear, lost = read_once(stack)
    for scene, stamp, sensor in zip(stack.scene.values, stack.time.values, stack.sensor.values):
        work.scenes.append(
            {
                "stack": name,
                "scene": str(scene),
                "time": str(stamp)[:19],
                "sensor": str(sensor),
                "clear": clear.get(str(scene), float("nan")),
                "applied": applied.get(str(scene), {}),
            }
        )
    for scene, (kind, reason) in lost.items():
        work.skip(name, scene, reason, kind)
    return stack_left if stack_left.sizes["time"] else None


def _detect_all(work, stacks):
    for name, item in work.config.layers.items():
        on = work.config.stack_of(item)
        if on not in stacks:
            work.failed[name] = f"stack {on!r} has no usable scene"
            continue
        try:
            with work.step(f"detect {name}"):
                work.layers[name] = _detect_one(work, name, item, stacks[on])
        except ConfigError:
            raise
        except GeoalignError as err:
            log.error("%s failed: %s", name, err)
            work.failed[name] = str(err)
            work.no_data &= isinstance(err, NoUsableData)


def _detect_one(work, name, item: Detect, stack) -> dict[str, Any]:
    from geoalign.detectors import detect
    from geoalign.io import read_changes, write_changes, write_polygons
    from geoalign.vectors import polygons

    config, on = work.config, work.config.stack_of(item)
    _check_since(item, stack)
    side = min(_side(stack), max(stack.chunksizes["y"]))
    changes = detect(stack.chunk({"time": -1, "y": side, "x": side}), item.detector, **item.options)
    folder = work.folder / "layers" / name
    known = {
        "min_area_m2": config.vectors.min_area_m2,
        "site": config.name,
        "sensor": ", ".join(sorted(set(map(str, stack.sensor.values)))),
        "run_id": work.run_id,
        "detected_at": work.started,
    }
    # polygons are made of the layers as written, so that nothing is computed twice
    frames = []
    files = write_changes(
        changes,
        folder,
        polygons=lambda layers: frames.append(polygons(layers, **known)) or frames[0],
        run=_provenance(work, name, item, stack),
    )
    frame = frames[0]
    for suffix in config.vectors.formats:
        if suffix != "gpkg":
            files[suffix] = write_polygons(frame, folder / f"changes.{suffix}")
    changes = read_changes(folder)
    return {
        "detector": item.detector,
        "repr": changes.attrs["detector"],
        "kind": changes.attrs["kind"],
        "stack": on,
        "options": json.loads(json.dumps(item.options, default=str)),
        "files": {key: Path(path).relative_to(work.folder).as_posix() for key, path in files.items()},
        **summary(changes),
        "polygons": len(frame),
    }


def _check_since(item, stack):
    """Nothing can be found after the last scene; a result of "no change" would be a lie."""
    since, last = item.options.get("since"), stack.time.values[-1]
    if since is not None and np.datetime64(str(since)) > last:
        raise NoUsableData(
            f"since = {str(since)[:10]} lies after the last usable scene ({str(last)[:10]}): there is nothing to look "
            "at. Give an earlier date, or add later scenes."
        )


def _provenance(work, name, item, stack) -> dict[str, Any]:
    """What the STAC item of a layer says about the run."""
    on = work.config.stack_of(item)
    used = set(map(str, stack.scene.values))
    return {
        "id": f"{name}-{work.run_id}",
        "site": work.config.name,
        "created": work.started,
        "start": stack.time.values[0],
        "end": stack.time.values[-1],
        "inputs": {r["scene"]: r["path"] for r in work.inputs if r["stack"] == on and r["scene"] in used},
        "parameters": {"detector": item.detector, **item.options},
        "sensor": ", ".join(sorted(set(map(str, stack.sensor.values)))),
    }


def _side(stack) -> int:
    """Chunk side (px) for detection: 1024 at the most, less where the series are long or the image wide."""
    series = stack.sizes["time"] * len(stack.data_vars) * 4
    side = 1024
    while side > 128 and (side * side * series > CHUNK_BYTES or side * stack.sizes["x"] * series > ROW_BYTES):
        side //= 2
    return side


def _pictures(folder, stacks) -> dict[str, Any]:
    from geoalign.quicklook import before_after

    out = {}
    for name, stack in stacks.items():
        out[name] = before_after(stack, folder / "pictures", name)
    return out


def _nothing_detected(work, stacks) -> GeoalignError:
    reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in work.failed.items())
    few = max(stack.sizes["time"] for stack in stacks.values()) < 2
    kind = NoUsableData if few or work.no_data else GeoalignError
    return kind(f"no detector could work. {reasons}. {_reasons(work)}".strip())


def _reasons(work) -> str:
    if not work.skipped:
        return ""
    shown = "; ".join(f"{r['scene']}: {r['reason'].rstrip('.')}" for r in work.skipped[:3])
    more = f" (and {len(work.skipped) - 3} more)" if len(work.skipped) > 3 else ""
    return f"Scenes left out: {shown}{more}."


@contextmanager
def _gdal():
    """GDAL's block cache bounded and its lookups of sibling files off, for the time of a run."""
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=2**28, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_VRT_ENABLE_PYTHON="NO"):
        yield
