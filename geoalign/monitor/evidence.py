"""Evidence: one scene, masked and on the frozen frame, as an immutable Zarr array in tiles.

What the detectors of any theme need of a scene, so that a fold never goes back to the files it came from. Named by its
content and by all that shaped it; every tile carries a checksum that is looked at whenever it is read.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoalign.errors import GeoalignError, MatchError, StackError, StateError
from geoalign.monitor.baseline import FORMAT, Frame, images
from geoalign.monitor.store import checksum, digest, go_on, point, staged_folder

log = logging.getLogger("geoalign")

EAGER_PX = 2**18
"""Pixels of a grid up to which a scene of evidence is read at once rather than tile by tile when it is asked for."""
HELD_BYTES = 2**27
"""Scenes up to this size are held in memory while they are aligned and masked."""


@dataclass(frozen=True)
class Tile:
    """A square of the grid: first row and column, height and width, px."""

    row: int
    col: int
    height: int
    width: int

    @property
    def name(self) -> str:
        return f"r{self.row:05d}c{self.col:05d}"

    @property
    def place(self) -> tuple[slice, slice]:
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


def tiles(shape, tile_px: int) -> list[Tile]:
    """The squares that a grid is cut into, row by row."""
    rows, cols = shape
    return [
        Tile(r, c, min(tile_px, rows - r), min(tile_px, cols - c))
        for r in range(0, rows, tile_px)
        for c in range(0, cols, tile_px)
    ]


@dataclass(frozen=True)
class Scene:
    """One scene of evidence as the folds see it: its name in the store, and when and what it is."""

    key: str
    scene: str
    acquisition: str
    time: str
    sensor: str
    orbit: int
    sigma_px: float | None


def evidence_key(acquisition, frame: Frame) -> str:
    """Name of an acquisition's evidence: of its bytes, the frame and the format."""
    return digest("evidence", FORMAT, frame.key, acquisition.content)


def path_of(root: Path, key: str) -> Path:
    return root / "evidence" / f"{key}.zarr"


def make_evidence(job: dict[str, Any]) -> dict[str, Any]:
    """Align, mask and store one scene; the task of a worker, which may run twice without harm.

    job : root, key, frame (document), acquisition (paths, scene, time, sensor, orbit), options (product, mask,
    register), threads
    Returns what the ledger keeps: status (valid, empty, rejected), reason, sigma_px, observed (share of the grid).
    """
    import dask

    root, frame = Path(job["root"]), Frame.of(job["frame"])
    path = path_of(root, job["key"])
    if path.is_dir():
        try:
            return dict(_document(path)["attributes"]["record"])
        except (StateError, KeyError):
            log.warning("%s can't be read and is made again", path)
    with dask.config.set(scheduler="threads", num_workers=job["threads"]):
        try:
            stack, sigma, reason = _aligned(job, frame, root)
        except MatchError as err:
            return {"status": "rejected", "reason": f"registration_failed: {err}", "sigma_px": None, "observed": 0.0}
        except (StackError, OSError) as err:
            return {"status": "rejected", "reason": str(err), "sigma_px": None, "observed": 0.0}
        return _write(stack, sigma, reason, job, frame, path)


def _aligned(job, frame, root):
    """(Stack of the one scene on the frame, sigma_px or None, note)."""
    from geoalign.io import open_stack
    from geoalign.masks import mask
    from geoalign.registration import coregister

    options, register = job["options"], job["options"]["register"]
    door = {"product": options["product"], "bands": job["bands"], "like": frame.geobox, "chunks": frame.tile_px}
    raw = mask(_held(_one(open_stack(list(job["paths"]), **door), job)), **options["mask"])
    if register is None:
        return raw, None, ""
    scene = str(raw.scene.values[0])
    baseline, frozen = images(frame, root)
    if scene in frozen.warps and job["history"]:
        alignment = frozen
    else:
        given = {k: v for k, v in register.items() if k not in ("resampling", "reference")}
        # a scene of the baseline has its own id among the images; any other is tied to them
        baseline = baseline.isel(time=np.flatnonzero(baseline.scene.values.astype(str) != scene))
        alignment = coregister(raw, reference=baseline, frozen=frozen, band=frame.band, **given)
    row = alignment.report.set_index(alignment.report["scene"].astype(str)).loc[scene]
    if scene not in alignment.warps:
        raise MatchError(str(row["reason"]))
    sigma = float(np.nan_to_num(float(row["sigma_px"])))
    moved = open_stack(list(job["paths"]), **door, alignment=alignment, resampling=register["resampling"])
    return mask(_held(_one(moved, job)), **options["mask"]), sigma, str(row["reason"] or "")


def _held(stack):
    """The scene in memory where it is small: what looks at it again and again is quicker without graphs."""
    return stack.compute() if stack.nbytes < HELD_BYTES else stack


def _one(stack, job):
    if stack.sizes["time"] != 1:
        raise StackError(
            f"{stack.sizes['time']} scenes where one was expected ({', '.join(map(str, stack.scene.values))})"
        )
    skipped = json.loads(stack.attrs.get("skipped", "[]"))
    if skipped:
        raise StackError("; ".join(str(r["reason"]) for r in skipped))
    return stack


def _write(stack, sigma, reason, job, frame, path):
    import dask.array as da
    import zarr

    side = frame.tile_px
    layers = []
    for band in frame.bands:
        if band in stack:
            layers.append(stack[band].isel(time=0).transpose("y", "x").data)
        else:
            layers.append(da.full(frame.shape, np.nan, np.float32, chunks=side))
    cube = da.stack([da.asarray(layer).astype(np.float32) for layer in layers]).rechunk((-1, side, side))
    record = {"status": "valid", "reason": reason, "sigma_px": sigma, "observed": 0.0}
    with staged_folder(path) as part:
        array = zarr.create_array(
            part, shape=(len(frame.bands), *frame.shape), chunks=(len(frame.bands), side, side), dtype="float32",
            fill_value=np.nan, config={"write_empty_chunks": True},
            compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
        )  # fmt: skip
        target = _Target(array, side)
        da.store(cube, target, lock=False)
        record["observed"] = target.seen / (frame.shape[0] * frame.shape[1])
        if target.seen == 0:
            record |= {"status": "empty", "reason": "nothing was observed: all cloud, nodata or outside the grid"}
        array.attrs.update(
            {
                "record": record, "bands": list(frame.bands), "scene": job["scene"], "time": job["time"],
                "sensor": job["sensor"], "orbit": job["orbit"], "frame": frame.key, "digests": target.digests,
            }
        )  # fmt: skip
        point("evidence.staged")
    point("evidence.renamed")
    return record


class _Target:
    """What dask stores into: a Zarr array whose every chunk is hashed and counted on its way."""

    def __init__(self, array, side):
        self.array, self.side, self.digests, self.counts = array, side, {}, {}

    def __setitem__(self, region, values):
        go_on()
        name = f"r{region[1].start:05d}c{region[2].start:05d}"
        self.array[region] = values
        self.digests[name] = checksum(np.asarray(values))
        self.counts[name] = int(np.isfinite(values).any(axis=0).sum())

    @property
    def seen(self):
        return sum(self.counts.values())


def _document(path) -> dict[str, Any]:
    """What an evidence array says of itself; read as the small JSON file it is, since that is done for every tile."""
    try:
        return json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise StateError(f"{path} can't be read: {err}. `geoalign monitor SITE rebuild` makes it again.") from err


def read_tile(root: Path, key: str, tile: Tile) -> np.ndarray:
    """Values (band, row, col) of one tile, float32; StateError where a bit of it has changed."""
    from numcodecs import Blosc

    path = path_of(root, key)
    document = _document(path)
    try:
        # a tile is a chunk, and a chunk is a file: taken as such, without a second copy and Zarr's own threads
        shape = document["chunk_grid"]["configuration"]["chunk_shape"]
        values = np.empty(shape, np.float32)
        chunk = path / "c" / "0" / str(tile.row // shape[1]) / str(tile.col // shape[2])
        Blosc().decode(chunk.read_bytes(), out=values)
        told = document["attributes"]["digests"].get(tile.name)
    except (OSError, ValueError, RuntimeError, KeyError) as err:
        raise StateError(f"{path}, tile {tile.name}: {err}. `geoalign monitor SITE rebuild` makes it again.") from err
    values = np.ascontiguousarray(values[:, : tile.height, : tile.width])
    if checksum(values) != told:
        raise StateError(
            f"{path}, tile {tile.name} is damaged: its checksum differs. `geoalign monitor SITE rebuild` makes it "
            "again."
        )
    return values


def stack_of(values: list[np.ndarray], scenes: list[Scene], frame: Frame, *, coords=None):
    """A Stack of scenes' values, each (band, row, col), NumPy or dask; with `sigma_px` where scenes are aligned."""
    import dask.array as da
    import xarray as xr

    lazy = bool(values) and not isinstance(values[0], np.ndarray)
    cube = da.stack(values) if lazy else values[0][None] if len(values) == 1 else np.stack(values)
    units = "power" if frame.kind == "sar" else "1"
    bands = {name: xr.Variable(("time", "y", "x"), cube[:, k], {"units": units}) for k, name in enumerate(frame.bands)}
    stack = xr.Dataset(bands).assign_coords(
        time=("time", np.array([s.time for s in scenes], "datetime64[ns]")),
        scene=("time", [s.scene for s in scenes]),
        sensor=("time", [s.sensor for s in scenes]),
        orbit=("time", [s.orbit for s in scenes]),
    )
    if frame.band:
        stack = stack.assign_coords(sigma_px=("time", [float(s.sigma_px or 0.0) for s in scenes], {"units": "px"}))
    return stack if coords is None else stack.assign_coords(coords)


def lazy_values(root: Path, scene: Scene, frame: Frame):
    """Values (band, y, x) of one scene as a dask array in the frame's tiles, checked as they are read."""
    import dask
    import dask.array as da

    n_band, side = len(frame.bands), frame.tile_px
    if frame.shape[0] * frame.shape[1] <= EAGER_PX:  # a graph of tiles would take longer than they
        held = np.empty((n_band, *frame.shape), np.float32)
        for tile in tiles(frame.shape, side):
            held[(slice(None), *tile.place)] = read_tile(root, scene.key, tile)
        return da.from_array(held, chunks=(-1, side, side), name=False)
    read = dask.delayed(read_tile, pure=True)
    rows: dict[int, list] = {}
    for tile in tiles(frame.shape, side):
        part = da.from_delayed(read(root, scene.key, tile), (n_band, tile.height, tile.width), np.float32)
        rows.setdefault(tile.row, []).append(part)
    return da.concatenate([da.concatenate(row, axis=2) for row in rows.values()], axis=1)


def verify(root: Path, key: str, frame: Frame) -> list[str]:
    """What is wrong with one scene's evidence; empty where nothing is."""
    try:
        for tile in tiles(frame.shape, frame.tile_px):
            read_tile(root, key, tile)
    except GeoalignError as err:
        return [str(err)]
    return []
