"""State is a fold: what a theme knows of a tile is a pure function of the evidence, in the order of acquisition.

The order of arrival enters nowhere. Steps (the start of a model, one scene after another, the renewal of the model on
its schedule) form a chain of hashes; a checkpoint is named by the hash of all that is folded in it. A late scene
changes the chain from its place on, so that the last checkpoint before it is the last whose name still holds: the fold
goes on from there, and gives the bits that it would have given in order.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoalign.errors import StateError
from geoalign.kernels.zones import NO_DAY
from geoalign.monitor.baseline import Frame
from geoalign.monitor.evidence import Scene, Tile, lazy_values, read_tile, stack_of, tiles
from geoalign.monitor.store import digest, go_on, point, read_arrays, remove, write_arrays
from geoalign.types.plugins import Selective

log = logging.getLogger("geoalign")

FORMAT = 3
"""Version of what a step means, alerts and files included; another one folds all again from the evidence."""
EVERY_SCENES, EVERY_DAYS = 16, 90
"""A checkpoint is kept after so many scenes or days, whichever comes first."""
KEPT = 8
"""Checkpoints that are kept before the newest state; a scene later than the oldest refolds from the model's start."""

YEAR_DAYS = 350
"""History with gaps at its ends that still shows every season."""
EAGER_PX = 2**20
"""Pixels up to which the state of a whole grid is held in memory."""

START, SCENE, RENEW = "start", "scene", "renew"
FRAME_COLUMNS = {
    "pixel": "int64", "status": "uint8", "direction": "int8", "date": "int32", "after": "int32", "by": "int32",
    "magnitude": "float32", "probability": "float32", "n_obs": "uint16",
}  # fmt: skip
"""What alerts are made of: a row for each flagged pixel (status 1 to 4) after a scene. Days since 1970, NO_DAY none."""


@dataclass(frozen=True)
class Step:
    """One step of a chain: `hash` names the state after it. baseline : version of the model, from 1."""

    kind: str
    hash: str
    baseline: int
    scene: Scene | None = None
    since: str = ""
    checkpoint: bool = False


@dataclass(frozen=True)
class Theme:
    """One detector on one stack, with its frame and its steps."""

    name: str
    kind: str
    detector: Any
    frame: Frame
    history: tuple[Scene, ...]
    steps: tuple[Step, ...]

    @property
    def head(self) -> Step:
        return self.steps[-1]

    @property
    def learned_days(self) -> float:
        """Days from the first scene that the present model has learned from to the last."""
        begin = max(k for k, s in enumerate(self.steps) if s.kind != SCENE)
        known = [*self.history, *(s.scene for s in self.steps[:begin] if s.kind == SCENE)]
        stamps = sorted(np.datetime64(scene.time, "ns") for scene in known)
        return float((stamps[-1] - stamps[0]) / np.timedelta64(1, "D")) if stamps else 0.0

    def short_history(self) -> str:
        """A word of warning where the model has not seen a year, "" where it has."""
        if self.learned_days >= YEAR_DAYS:
            return ""
        return (
            f"{self.name}: its model has learned from {self.learned_days:.0f} days, less than a year: the season that "
            "it has not seen looks like change, so expect false alarms until it is renewed ([monitor] refit_days)"
        )

    def folder(self, root: Path) -> Path:
        return root / "state" / self.name

    def kept(self) -> list[int]:
        """Steps whose state stays on disk: the model's start, the last checkpoints, and the newest."""
        begin = max(k for k, s in enumerate(self.steps) if s.kind != SCENE)
        marks = [k for k, s in enumerate(self.steps) if s.checkpoint and k > begin][-KEPT:]
        return sorted({begin, *marks, len(self.steps) - 1})


def chain(detector, frame: Frame, history, scenes, *, since: str, refit_days: float) -> tuple[Step, ...]:
    """The steps of a theme: a start, all scenes in order of acquisition, and renewals where their time has come.

    A pure function of the scenes, whose order does not matter.
    """
    order = sorted(scenes, key=lambda s: (np.datetime64(s.time), s.scene, s.key))
    before = sorted(history, key=lambda s: (np.datetime64(s.time), s.scene, s.key))
    begin = np.datetime64(since, "ns")
    name = digest(START, FORMAT, repr(detector), frame.key, [s.key for s in before])
    steps = [Step(START, name, 1, since=str(begin))]
    version, folded = 1, 0
    every, bin_days = np.timedelta64(max(1, round(refit_days * 86400)), "s"), np.timedelta64(EVERY_DAYS, "D")
    for k, scene in enumerate(order):
        moment = np.datetime64(scene.time, "ns")
        if refit_days > 0 and moment >= begin + every * version:
            version = int((moment - begin) // every) + 1
            at = str(begin + every * (version - 1))
            name = digest(RENEW, name, at)
            steps.append(Step(RENEW, name, version, since=at))
            folded = 0
        name = digest(SCENE, name, scene.key, scene.scene, scene.time)  # its id is told in alerts
        folded += 1
        after = np.datetime64(order[k + 1].time, "ns") if k + 1 < len(order) else moment
        mark = folded % EVERY_SCENES == 0 or (moment - begin) // bin_days != (after - begin) // bin_days
        steps.append(Step(SCENE, name, version, scene, checkpoint=bool(mark)))
    return tuple(steps)


# --------------------------------------------------------------------------------------------------- state on disk


def state_path(folder: Path, step: str, tile: Tile) -> Path:
    return folder / step / f"{tile.name}.state"


def frames_path(folder: Path, first: str, last: str, tile: Tile) -> Path:
    return folder / "frames" / f"{first}-{last}" / tile.name


def save_state(path: Path, state, seen: np.ndarray, used: np.ndarray | None = None) -> None:
    """A tile's State, the day each pixel was last used (days since 1970, NO_DAY never), and `n_obs` where known."""
    arrays = {f"v:{name}": v.values for name, v in state.data_vars.items()}
    arrays |= {f"c:{name}": c.values for name, c in state.coords.items() if not {"y", "x"} & set(c.dims) and c.ndim}
    dims = {name: list(map(str, state[name.partition(":")[2]].dims)) for name in arrays}
    attrs = {k: v.item() if hasattr(v, "item") else v for k, v in state.attrs.items()}
    known = {"seen": seen.astype(np.int32)} | ({} if used is None else {"used": used})
    write_arrays(path, {**arrays, **known}, {"dims": dims, "state": attrs})


def load_state(path: Path):
    """(State, seen, used) of a tile; used is None where it was not stored."""
    import xarray as xr

    arrays, attrs = read_arrays(path)
    seen, used = arrays.pop("seen"), arrays.pop("used", None)
    made = {name: (attrs["dims"][name], values) for name, values in arrays.items()}
    state = xr.Dataset({n[2:]: v for n, v in made.items() if n.startswith("v:")}, attrs=attrs["state"])
    return state.assign_coords({n[2:]: v for n, v in made.items() if n.startswith("c:")}), seen, used


# -------------------------------------------------------------------------------------------------- one tile's fold


def fold_tile(job: dict[str, Any]) -> dict[str, Any]:
    """Fold scenes into one tile; the task of a worker, which may run twice, or be killed, without harm.

    job : root, folder, detector, frame (document), tile, first (step to go on from), steps (kind scene), keep (hashes
    whose state is written)
    Returns tile, seen figures of the newest state. Everything else lies in files: states of `keep`, and the flagged
    pixels after every step in `frames`.
    """
    root, folder, tile = Path(job["root"]), Path(job["folder"]), job["tile"]
    frame, detector, steps = Frame.of(job["frame"]), job["detector"], job["steps"]
    target = frames_path(folder, job["first"], steps[-1].hash if steps else job["first"], tile)
    last = state_path(folder, steps[-1].hash if steps else job["first"], tile)
    if target.exists() and all(state_path(folder, s, tile).exists() for s in job["keep"]):
        try:
            read_arrays(target)
            return _seen_figures(tile, load_state(last)[1])
        except StateError:
            log.warning("%s is damaged and is made again", target)
    state, seen, n_obs = load_state(state_path(folder, job["first"], tile))
    flagged: dict[str, list[np.ndarray]] = {name: [] for name in FRAME_COLUMNS}
    counts = []
    if n_obs is None:
        known = state if isinstance(detector, Selective) else detector.report(state)
        n_obs = known.n_obs.values
    for step in steps:
        go_on()
        values = read_tile(root, step.scene.key, tile)
        # also where nothing of the tile was seen: scenes are counted, and what a tile knows must not depend on its size
        state = detector.update(state, stack_of([values], [step.scene], frame)).compute()
        now, found = _looked(detector, state, tile, frame.shape[1])
        day = int(np.datetime64(step.scene.time, "D").astype(np.int64))
        np.copyto(seen, np.int32(day), where=now > n_obs)
        n_obs = now
        counts.append(found["pixel"].size)
        for name, column in found.items():
            flagged[name].append(column)
        if step.hash in job["keep"]:
            save_state(state_path(folder, step.hash, tile), state, seen, n_obs)
            point("fold.state_written")
    columns = {
        name: np.concatenate(parts) if parts else np.empty(0, FRAME_COLUMNS[name]) for name, parts in flagged.items()
    }
    write_arrays(target, {**columns, "counts": np.array(counts, np.int64)}, {})
    point("fold.tile_written")
    return _seen_figures(tile, seen)


def _looked(detector, state, tile, width):
    """(n_obs of every pixel, columns of the flagged ones); a detector that can asks itself about suspects only."""
    if not isinstance(detector, Selective):
        changes = detector.report(state).compute()
        return changes.n_obs.values, _flagged(changes, None, tile, width)
    import xarray as xr

    at = np.flatnonzero(detector.suspects(state))
    cut = {}
    for name in detector.reads:
        layer = state.variables[name]
        flat = layer.values.reshape(*layer.shape[:-2], -1)
        cut[name] = (layer.dims, np.take(flat, at, axis=-1)[..., None, :])
    # made at once: dropping and assigning takes as long as the scene itself where the tile is small
    bare = {name: layer for name, layer in state.coords.items() if not {"y", "x"} & set(layer.dims)}
    few = xr.Dataset(cut, coords=bare, attrs=state.attrs)
    return state.n_obs.values, _flagged(detector.report(few), at, tile, width)


def _flagged(changes, at, tile, width):
    """Columns of the flagged pixels, in order of `pixel`. at : places in the tile that the changes are of; None all."""
    from geoalign.types.changes import days_since_1970

    flat = {name: changes[name].values.reshape(-1) for name in ("status", "direction", *_MEASURED, *_DATED.values())}
    found = np.flatnonzero(flat["status"] - np.uint8(1) < 4)  # 0 wraps round to 255
    rows, cols = np.divmod(found if at is None else at[found], tile.width)
    out = {"pixel": (rows + tile.row) * width + cols + tile.col}
    out |= {name: flat[name][found] for name in ("status", "direction", *_MEASURED)}
    return out | {name: days_since_1970(flat[layer][found], NO_DAY) for name, layer in _DATED.items()}


_MEASURED = ("magnitude", "probability", "n_obs")
_DATED = {"date": "date", "after": "date_after", "by": "date_by"}


def _seen_figures(tile, seen) -> dict[str, Any]:
    """When a tile was last looked at: the newest day of any pixel, and that by which half of it was last seen."""
    days = seen[seen > NO_DAY]
    return {
        "tile": tile.name, "row": tile.row, "col": tile.col, "height": tile.height, "width": tile.width,
        "newest": int(days.max()) if days.size else None,
        "typical": int(np.quantile(days, 0.5, method="lower")) if days.size else None,
        "never": float(1 - days.size / seen.size),
    }  # fmt: skip


class Frames:
    """The flagged pixels of the whole grid after each of some steps, put together from the tiles' files."""

    def __init__(self, folder: Path, first: str, steps, squares):
        last = steps[-1].hash if steps else first
        self.parts = [read_arrays(frames_path(folder, first, last, tile))[0] for tile in squares]
        self.ends = [np.cumsum(p["counts"]) for p in self.parts]

    def step(self, k: int) -> dict[str, np.ndarray]:
        """Columns after step `k`, in order of `pixel`."""
        cuts = []
        for part, ends in zip(self.parts, self.ends):
            cuts.append({name: part[name][ends[k] - part["counts"][k] : ends[k]] for name in FRAME_COLUMNS})
        table = {name: np.concatenate([cut[name] for cut in cuts]) for name in FRAME_COLUMNS}
        order = np.argsort(table["pixel"], kind="stable")
        return {name: column[order] for name, column in table.items()}


# ----------------------------------------------------------------------------------------------- starts and reports


def start_states(theme: Theme, step: int, root: Path) -> None:
    """Write the states of all tiles after a start or a renewal, in one pass over the scenes before it.

    A start looks around its pixels and at the whole image, so that it is made of the whole and then cut. A renewal
    learns from all that was seen before it, without what lies before a confirmed change of the pixel: the season of
    woods that are gone is not what is usual now.
    """
    import dask

    folder, frame = theme.folder(root), theme.frame
    this = theme.steps[step]
    squares = [t for t in tiles(frame.shape, frame.tile_px) if not state_path(folder, this.hash, t).exists()]
    if not squares:
        return
    scenes = list(theme.history) + [s.scene for s in theme.steps[:step] if s.kind == SCENE]
    scenes.sort(key=lambda s: (np.datetime64(s.time), s.scene, s.key))
    values = [lazy_values(root, s, frame) for s in scenes]
    if this.kind == RENEW:
        values = _since_change(values, scenes, theme, step, root)
    history = stack_of(values, scenes, frame)
    side = frame.tile_px
    history = history.chunk({"time": -1, "y": side, "x": side})
    state = theme.detector.start(history)
    state = state.chunk({d: side if d in ("y", "x") else -1 for d in state.sizes})
    blocks = {name: v.data.to_delayed(optimize_graph=False) for name, v in state.data_vars.items()}
    bare = state.drop_vars(list(state.data_vars))
    seen = _last_seen(values, scenes).to_delayed(optimize_graph=False)
    writes = []
    for tile in squares:
        i, j = tile.row // side, tile.col // side
        cut = {name: b[(0,) * (b.ndim - 2) + (i, j)] for name, b in blocks.items()}
        dims = {name: state[name].dims for name in cut}
        path = state_path(folder, this.hash, tile)
        writes.append(dask.delayed(_write_block)(path, cut, dims, bare, seen[i, j]))
    dask.compute(*writes)


def _write_block(path, blocks, dims, bare, seen):
    save_state(path, bare.assign({n: (dims[n], b) for n, b in blocks.items()}), seen)
    point("start.tile_written")


def _last_seen(values, scenes):
    """Days since 1970 of the last scene in which a pixel has a value, NO_DAY for none; lazy (y, x) int32."""
    import dask.array as da

    out = da.full(values[0].shape[1:], NO_DAY, np.int32, chunks=values[0].chunks[1:])
    for value, scene in zip(values, scenes):
        day = np.int32(np.datetime64(scene.time, "D").astype(np.int64))
        out = da.where(da.isfinite(value).any(axis=0), day, out)
    return out


def _since_change(values, scenes, theme, step, root):
    """The values without those before a confirmed change of their pixel, as the model before knew it."""
    import dask.array as da

    from geoalign.types.changes import changed

    before = report(theme, root, theme.steps[step - 1].hash)
    moment = da.where(changed(before).data, before.date.data, np.datetime64("NaT"))
    out = []
    for value, scene in zip(values, scenes):
        old = np.datetime64(scene.time, "ns") < moment  # False where it is NaT
        out.append(da.where(old[None], np.float32(np.nan), value))
    return out


def report(theme: Theme, root: Path, step: str):
    """Changes (y, x) of the whole grid after a step, with `last_seen`, the day a pixel was last used.

    Lazy, a task a tile, but for small grids, where graphs would take longer than what they compute.
    """
    from geoalign.types.stack import grid_coords

    folder, frame = theme.folder(root), theme.frame
    squares = tiles(frame.shape, frame.tile_px)
    coords = grid_coords(frame.geobox, frame.shape)
    if frame.shape[0] * frame.shape[1] <= EAGER_PX:
        return _reported(theme.detector, *_whole_state(folder, step, squares)).assign_coords(coords)
    pattern = _reported(theme.detector, *load_state(state_path(folder, step, squares[0]))[:2])
    bare = pattern.drop_vars(list(pattern.data_vars))
    return bare.assign(_lazy_layers(theme, folder, step, squares, pattern)).assign_coords(coords)


def _reported(detector, state, seen):
    """The Changes of a state, with the day each pixel was last used."""
    import xarray as xr

    changes = detector.report(state)
    day = np.where(seen > NO_DAY, seen.astype("datetime64[D]").astype("datetime64[ns]"), np.datetime64("NaT", "ns"))
    return changes.assign(last_seen=xr.Variable(("y", "x"), day, {"long_name": "last usable observation"}))


def _whole_state(folder, step, squares):
    """(State, seen) of the whole grid, put together from its tiles."""
    loaded = [load_state(state_path(folder, step, tile)) for tile in squares]
    pattern = loaded[0][0]
    layers = {}
    for name in [*pattern.data_vars, "seen"]:
        rows: dict[int, list] = {}
        for tile, (state, seen, _) in zip(squares, loaded):
            rows.setdefault(tile.row, []).append(seen if name == "seen" else state[name].values)
        layers[name] = np.concatenate([np.concatenate(row, axis=-1) for row in rows.values()], axis=-2)
    seen = layers.pop("seen")
    bare = pattern.drop_vars(list(pattern.data_vars))
    return bare.assign({n: (pattern[n].dims, v) for n, v in layers.items()}), seen


def _lazy_layers(theme, folder, step, squares, pattern):
    """Variables of the Changes, each tile of all of them one task."""
    from operator import getitem

    import dask.array as da
    import xarray as xr
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    side, shape = theme.frame.tile_px, theme.frame.shape
    name = f"report-{tokenize(str(folder), step)}"
    # written by hand: delayed calls would make several tasks a tile of each layer
    graph = {
        (name, tile.row // side, tile.col // side): (_tile_layers, theme.detector, state_path(folder, step, tile))
        for tile in squares
    }
    base = HighLevelGraph.from_collections(name, graph, dependencies=[])
    chunks = tuple(tuple(min(side, n - k) for k in range(0, n, side)) for n in shape)
    out = {}
    for layer, like in pattern.data_vars.items():
        lead = like.shape[:-2]
        own = f"{layer}-{name}"
        cut = {(own, *(0,) * len(lead), *key[1:]): (getitem, key, layer) for key in graph}
        whole = HighLevelGraph(base.layers | {own: cut}, base.dependencies | {own: {name}})
        array = da.Array(whole, own, (*((n,) for n in lead), *chunks), like.dtype)
        out[layer] = xr.Variable(like.dims, array, like.attrs)
    return out


def _tile_layers(detector, path):
    state, seen, _ = load_state(path)
    return {name: layer.values for name, layer in _reported(detector, state, seen).data_vars.items()}


def sweep_states(theme: Theme, root: Path) -> int:
    """Remove the states that no later visit will go on from, and all frames; returns how many steps went."""
    folder = theme.folder(root)
    keep = {theme.steps[k].hash for k in theme.kept()}
    gone = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in keep:
            remove(path)
            gone += 1
    return gone


def head_digest(theme: Theme, root: Path) -> str:
    """A hash of every bit of the newest state of all tiles, for comparing one history of arrival with another."""
    folder, frame = theme.folder(root), theme.frame
    found = []
    for tile in tiles(frame.shape, frame.tile_px):
        arrays, attrs = read_arrays(state_path(folder, theme.head.hash, tile))
        found.append([tile.name, {n: [str(a.dtype), digest(a.tobytes().hex())] for n, a in arrays.items()}, attrs])
    return digest(json.dumps(found, sort_keys=True))
