"""A commented site file to begin with, its grid taken from the scenes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from geoalign.errors import ConfigError
from geoalign.registry import detector_options

TEXT = """# A site: which scenes, on which grid, what to look for. Paths are relative to this file.
# Check it with `geoalign validate`, run it with `geoalign run`.

name = {name}
scenes = {scenes}
output = "out"
{comment}
[grid]
crs = {crs}
resolution_m = {resolution}
bbox = {bbox}  # west, south, east, north in the CRS above; smaller is faster

[register]
reference = "auto"  # or a scene's id, or "median"
# model = "shift"   # auto: the simplest that held-out points allow

[[detect]]
detector = {detector}
# alpha = 0.01               # chance of a false alarm at a stable pixel, over the whole time
# prior = 0.02               # share of change that the probability assumes
# since = "2024-01-01"       # what came before is history

[vectors]
min_area_m2 = 1000

# [monitor]                  # for `geoalign monitor`: with a detector that watches (watch, bayts, sccd)
# since = "2024-01-01"       # scenes before are the baseline
"""


def write_site(path, scenes: str, *, detector: str = "flood", product: str = "auto") -> Path:
    """Write a site file for scenes that are there.

    Parameters
    ----------
    path : where to write; a file that is there is never replaced
    scenes : folder or glob, relative to the working directory
    detector : the first to be run
    product : as in `open_stack`

    Returns
    -------
    Path of the file.

    Raises
    ------
    ConfigError
        The file exists, or there is no such detector.
    NoUsableData
        None of the scenes can be opened; the reasons are in it.

    Examples
    --------
    >>> write_site("site.toml", "data/sar/*.tif", detector="flood")  # doctest: +SKIP
    PosixPath('site.toml')
    """
    from geoalign.io import open_stack

    path = Path(path)
    if path.exists():
        raise ConfigError(f"{path} is there already; choose another name, or remove it first.")
    known = detector_options()
    if detector not in known:
        raise ConfigError(f"there is no detector {detector!r}; choose one of {', '.join(sorted(known))}.")
    stack = open_stack(scenes, product=product)
    box = stack.odc.geobox
    bounds = ", ".join(f"{v:.10g}" for v in (box.boundingbox.left, box.boundingbox.bottom, box.boundingbox.right,
                                               box.boundingbox.top))  # fmt: skip
    # a path and a site file that move together stay together
    place = scenes if Path(scenes).is_absolute() else Path(os.path.relpath(scenes, path.absolute().parent)).as_posix()
    first, last = (str(stack.time.values[k])[:10] for k in (0, -1))
    comment = f"# {stack.sizes['time']} scenes, {first} to {last}; bands {' '.join(map(str, stack.data_vars))}\n"
    if product != "auto":
        comment = f"product = {_toml(product)}\n" + comment
    crs = f"EPSG:{box.crs.to_epsg()}" if box.crs.to_epsg() else box.crs.to_wkt()
    text = TEXT.format(
        name=_toml(path.absolute().parent.name or "site"), scenes=_toml(place), comment=comment, crs=_toml(crs),
        resolution=f"{abs(box.resolution.x):.10g}", bbox=f"[{bounds}]", detector=_toml(detector),
    )  # fmt: skip
    # "x": another process that made it meanwhile is not overwritten either
    with open(path, "x", encoding="utf-8") as stream:
        stream.write(text)
    return path


def _toml(text):
    """A TOML basic string; those of JSON are a part of them."""
    return json.dumps(text, ensure_ascii=False)
