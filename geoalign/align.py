"""Align a set of scene files in one call: what `geoalign align` does."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geoalign.errors import ConfigError, NoUsableData
from geoalign.publish import make_folder
from geoalign.usable import read_once, reference_of

log = logging.getLogger("geoalign")


@dataclass(frozen=True)
class Aligned:
    """What `align_scenes` made: the Alignment, scenes left out before it, the files, and the exit code for a shell."""

    alignment: object
    skipped: list[dict[str, str]]
    paths: list[Path]

    @property
    def exit_code(self) -> int:
        lost = self.alignment.report.status.isin(["failed", "rejected"]).any()
        return 3 if lost or self.skipped else 0


def align_scenes(
    scenes, output, *, product: str = "auto", resampling: str = "cubic", write: bool = False, **options
) -> Aligned:
    """Open scenes, align them, and write how they lie.

    Parameters
    ----------
    scenes : folder, file, pattern or catalogue, as in `open_stack`
    output : folder for `alignment.json` (`Alignment.load` reads it) and `tie_points.gpkg`
    product : product profile
    resampling : kernel of the one resampling, for `write`
    write : also write every aligned scene as a COG, float32, NaN where not observed, to `output/scenes`
    **options : of `coregister`

    Returns
    -------
    Aligned

    Examples
    --------
    >>> align_scenes("scenes/*.tif", "aligned").alignment.report  # doctest: +SKIP
    """
    from geoalign.io import open_stack, write_polygons
    from geoalign.kernels.resample import KINDS
    from geoalign.masks import mask
    from geoalign.registration import coregister

    if resampling not in KINDS:
        raise ConfigError(f"resampling {resampling!r} is unknown; choose one of {', '.join(KINDS)}.")
    output = make_folder(Path(output))
    stack = open_stack(scenes, product=product)
    usable, _, lost = read_once(mask(stack))
    skipped = json.loads(stack.attrs.get("skipped", "[]"))
    for scene, (_, reason) in lost.items():
        log.warning("scene %s is left out: %s", scene, reason)
        skipped.append({"scene": scene, "path": "", "reason": reason})
    if not usable.sizes["time"]:
        raise NoUsableData("no scene is left to align. " + "; ".join(f"{r['scene']}: {r['reason']}" for r in skipped))
    reasons = {scene: reason for scene, (_, reason) in lost.items()}
    reference = reference_of(options.pop("reference", "auto"), usable, Path.cwd(), product=product, lost=reasons)
    alignment = coregister(usable, reference=reference, **options)
    paths = [alignment.save(output / "alignment.json")]
    if len(alignment.points) and alignment.geobox is not None:
        paths.append(write_polygons(alignment.tie_points(), output / "tie_points.gpkg"))
    if write:
        moved = open_stack(scenes, product=product, like=stack.odc.geobox, alignment=alignment)
        paths += [_write_scene(moved.isel(time=i), output / "scenes") for i in range(moved.sizes["time"])]
    return Aligned(alignment, skipped, paths)


def _write_scene(scene, folder) -> Path:
    """One scene as a COG with its bands, id and time in the tags, so that `open_stack` reads it again."""
    import rasterio
    from odc.geo.xr import ODCExtension  # noqa: F401  (registers the accessor)
    from rasterio.shutil import copy

    from geoalign.io.atomic import atomic, safe_name

    bands = list(scene.data_vars)
    box = scene.odc.geobox
    profile = {
        "driver": "GTiff", "height": box.shape[0], "width": box.shape[1], "count": len(bands), "dtype": "float32",
        "crs": str(box.crs), "transform": box.affine, "nodata": np.nan, "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate", "predictor": 3,
    }  # fmt: skip
    with atomic(folder / f"{safe_name(str(scene.scene.values))}.tif") as partial:
        plain = partial.with_name(f"{partial.name}.plain.tif")
        with rasterio.open(plain, "w", **profile) as file:
            for k, name in enumerate(bands, 1):
                file.set_band_description(k, str(name))
                for row in range(0, box.shape[0], 1024):
                    part = scene[name].isel(y=slice(row, row + 1024)).transpose("y", "x").values
                    file.write(part, k, window=rasterio.windows.Window(0, row, part.shape[1], part.shape[0]))
            file.update_tags(
                scene=str(scene.scene.values), datetime=f"{str(scene.time.values)[:19]}Z",
                sensor=str(scene.sensor.values), orbit=str(int(scene.orbit.values)), product="generic",
            )  # fmt: skip
        copy(plain, partial, driver="COG", compress="deflate", predictor="yes", overview_resampling="average")
        plain.unlink()
    return folder / f"{safe_name(str(scene.scene.values))}.tif"
