"""The frozen frame of a stack: grid, bands, the alignment of the scenes before the watch, and the images to tie to.

A new scene is tied to baseline scenes alone, never to other arrivals, so that no order of arrival can matter. The frame
stays as it is for the life of the site; the models that detectors learn are renewed on their own schedule (`fold`).
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from geoalign.errors import ConfigError, MatchError, NoUsableData, StateError
from geoalign.monitor.store import digest, point, staged_folder

log = logging.getLogger("geoalign")

HELD_BYTES = 2**28
"""A baseline up to this size is held in memory while it is aligned."""
FORMAT = 1
"""Version of what evidence means; another one names other files."""


@dataclass(frozen=True)
class Frame:
    """What every scene of a stack is brought to. `key` names it; `params` are the site's keys that it was made with.

    crs, transform, shape : the grid; bands : of the evidence; kind : sar or optical; orbits : relative orbits it holds;
    band : the one scenes are tied by ("" where they are taken as they lie); gap_days : median time between its scenes;
    scenes : of the baseline, in order, acquisition -> scene id
    """

    key: str
    stack: str
    crs: str
    transform: tuple[float, ...]
    shape: tuple[int, int]
    tile_px: int
    bands: tuple[str, ...]
    kind: str
    orbits: tuple[int, ...]
    band: str
    gap_days: float
    scenes: dict[str, str]
    params: dict[str, Any]

    @property
    def geobox(self):
        from affine import Affine
        from odc.geo.geobox import GeoBox

        return GeoBox(self.shape, Affine(*self.transform), self.crs)

    def document(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of(cls, document: str) -> Frame:
        plain = json.loads(document)
        for name in ("transform", "shape", "bands", "orbits"):
            plain[name] = tuple(plain[name])
        return cls(**plain)

    def folder(self, root: Path) -> Path:
        return root / "baseline" / self.key


def frame_params(config, stack: str) -> dict[str, Any]:
    """The keys of the site file that the frame depends on; they can't change while the site is watched."""
    register = config.register_of(stack)
    return {
        "grid": config.grid.model_dump(mode="json"),
        "register": None if register is None else register.model_dump(mode="json"),
        "mask": json.loads(json.dumps(config.mask_of(stack), default=str)),
        "product": config.product_of(stack),
        "bands": config.bands_of(stack),
        "orbit": config.orbit_of(stack),
        "since": config.monitor.since,
        "tile_px": config.monitor.tile_px,
    }


def check_params(config, frame: Frame) -> None:
    """ConfigError where the site file asks for another frame than the one that was frozen."""
    now, then = frame_params(config, frame.stack), frame.params
    now = json.loads(json.dumps(now))
    changed = [key for key in now if now[key] != then.get(key)]
    if changed:
        said = "; ".join(f"{key} was {then.get(key)!r} and is {now[key]!r}" for key in changed)
        raise ConfigError(
            f"the baseline of {frame.stack} was frozen with other keys: {said}. Put them back, or give the new site "
            "another `output`: alerts of two frames can't be compared."
        )


def choose_grid(config, acquisitions: dict[str, list]):
    """The grid of all stacks: the site's, or that of the baseline's scenes."""
    from geoalign.io import open_stack
    from geoalign.pipeline import common_grid, grid_from_box

    like = config.like or grid_from_box(config)
    if like is not None:
        from geoalign.io.open import _grid_of

        return _grid_of(like)
    natural = {}
    for stack, items in acquisitions.items():
        paths = [p for a in items for p in a.paths]
        natural[stack] = open_stack(paths, product=config.product_of(stack), bands=config.bands_of(stack))
    return common_grid(config, natural)


def freeze(config, stack: str, acquisitions, geobox, root: Path) -> tuple[Frame, dict[str, str]]:
    """Align the scenes before the watch with each other and keep the result; acquisition -> reason of those left out.

    Raises
    ------
    NoUsableData
        No scene is left to learn from (exit code 4). Nothing is kept then.
    """
    import dask

    from geoalign.io import open_stack
    from geoalign.masks import mask
    from geoalign.registration import coregister
    from geoalign.registration.network import sharpest_band
    from geoalign.types.stack import is_sar
    from geoalign.usable import read_once, reference_of

    if not acquisitions:
        raise NoUsableData(
            f"{stack} has no scene before since = {config.monitor.since}: there is nothing to learn what is usual "
            "from. Give a later date, or add earlier scenes."
        )
    with dask.config.set(scheduler="threads"):
        stack_in = open_stack(
            [p for a in acquisitions for p in a.paths], product=config.product_of(stack), bands=config.bands_of(stack),
            like=geobox, chunks=config.monitor.tile_px, orbit=config.orbit_of(stack),
        )  # fmt: skip
        home = {p: a.name for a in acquisitions for p in a.paths}
        home |= {p.scene: a.name for a in acquisitions for p in a.products}
        # tiles of one pass were merged under a name of their own: such a scene is known by its files or tiles
        names = {}
        for record in json.loads(stack_in.attrs["applied"]):
            said = (*record["paths"], record["scene"], *(t["scene"] for t in record.get("tiles", ())))
            names[str(record["scene"])] = next(home[text] for text in said if text in home)
        masked, _, lost = read_once(mask(stack_in, **config.mask_of(stack)), hold_bytes=HELD_BYTES)
        left = {str(r["scene"]): r["reason"] for r in json.loads(stack_in.attrs.get("skipped", "[]"))}
        left |= {scene: reason for scene, (_, reason) in lost.items()}
        if masked.sizes["time"] == 0:
            raise NoUsableData(f"no scene of {stack} before {config.monitor.since} can be used: {left}")
        register, alignment, band = config.register_of(stack), None, ""
        if register is not None:
            options = register.model_dump(exclude={"resampling"})
            options["reference"] = reference_of(
                register.reference, masked, config.folder, product=config.product_of(stack), lost=left
            )
            try:
                alignment = coregister(masked, **options)
            except MatchError as err:
                raise NoUsableData(f"the baseline of {stack} can't be aligned: {err}") from err
            band = alignment.band or sharpest_band(masked, register.seed)
            for row in alignment.report.itertuples():
                if row.status in ("failed", "rejected"):
                    left[str(row.scene)] = f"can't be aligned: {row.reason}"
    used = [str(s) for s in masked.scene.values if alignment is None or str(s) in alignment.warps]
    content = sorted(a.content for a in acquisitions if a.name in {names[s] for s in used})
    days = masked.time.values.astype("datetime64[s]").astype(np.int64) / 86400.0
    params = json.loads(json.dumps(frame_params(config, stack)))
    transform = tuple(float(v) for v in geobox.affine[:6])
    crs = f"EPSG:{geobox.crs.epsg}" if geobox.crs.epsg else geobox.crs.to_wkt()
    frame = Frame(
        key=digest("frame", FORMAT, stack, params, content, crs, transform, list(geobox.shape)), stack=stack, crs=crs,
        transform=transform, shape=tuple(int(n) for n in geobox.shape), tile_px=config.monitor.tile_px,
        bands=tuple(map(str, masked.data_vars)), kind="sar" if is_sar(masked) else "optical",
        orbits=tuple(sorted({int(o) for o in masked.orbit.values})), band=band,
        gap_days=float(np.median(np.diff(days))) if days.size > 1 else 1.0,
        scenes={names[scene]: scene for scene in used}, params=params,
    )  # fmt: skip
    point("baseline.before")
    with staged_folder(frame.folder(root)) as part:
        (part / "frame.json").write_text(frame.document(), encoding="utf-8")
        if alignment is not None:
            alignment.save(part / "alignment.json")
            with dask.config.set(scheduler="threads"):
                _save_images(masked, band, frame, part / "images.zarr")
    point("baseline.after")
    return frame, {names[scene]: reason for scene, reason in left.items() if scene in names}


def _save_images(stack, band, frame, path):
    """The bands that new scenes are tied by, as they lie before alignment."""
    kept = list(frame.bands) if frame.kind == "sar" else [band]
    images = stack[kept].drop_vars([n for n in stack.coords if n not in ("time", "scene", "sensor", "orbit")])
    images = images.reset_coords()
    images = images.assign({n: images[n].astype(str) for n in ("scene", "sensor")})
    for name in images.variables:
        images[name].attrs.clear()
        images[name].encoding.clear()
    images.attrs.clear()
    images = images.chunk({"time": 1, "y": frame.tile_px, "x": frame.tile_px})
    # what there is of a scene beside its image is read for all of them at once
    images = images.assign({n: images[n].compute() for n in ("scene", "sensor", "orbit")})
    images.to_zarr(path, zarr_format=2, consolidated=False)


def images(frame: Frame, root: Path):
    """(Stack of the baseline's images, their Alignment), lazy."""
    folder = frame.folder(root)
    try:
        return _images(folder, frame.key, (folder / "alignment.json").stat().st_mtime_ns)
    except (OSError, KeyError, ValueError) as err:
        raise StateError(f"{folder / 'images.zarr'} can't be read: {err}. Put back a copy of it.") from err


@lru_cache(maxsize=4)
def _images(folder, key, stamp):
    """What `images` gives; every scene of a visit is tied to the same baseline, which is looked up once."""
    import xarray as xr

    from geoalign.types.alignment import Alignment
    from geoalign.types.stack import grid_coords

    frame = Frame.of((folder / "frame.json").read_text(encoding="utf-8"))
    stack = xr.open_zarr(folder / "images.zarr", consolidated=False)
    known = {name: stack[name].load() for name in ("scene", "sensor", "orbit")}
    stack = stack.assign_coords(known | grid_coords(frame.geobox, frame.shape))
    return stack, Alignment.load(folder / "alignment.json")
