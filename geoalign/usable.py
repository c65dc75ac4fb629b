"""Which scenes of a stack are of use, and what a site means by its reference: asked before anything is aligned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from geoalign.errors import GeoalignError, NoUsableData
from geoalign.sitecheck import absolute


def read_once(stack, *, hold_bytes: int = 0):
    """Every scene read once, whether it can be read at all and how much of it was observed.

    hold_bytes : a stack up to this size comes back in memory, so that nothing is read twice

    Returns
    -------
    the stack without scenes that can't be read or hold nothing; scene -> share of its pixels with a value in the band
    that has most; scene -> (kind, reason) of those left out. A scene that lacks one band is kept: NaN says so.
    """
    import dask
    from rasterio.errors import RasterioError

    pixels = stack.sizes["y"] * stack.sizes["x"]
    clear: dict[str, float] = {}
    lost: dict[str, tuple[str, str]] = {}
    small, held = stack.nbytes <= hold_bytes, []
    for i, scene in enumerate(map(str, stack.scene.values)):
        layers = [stack[band].isel(time=i) for band in stack.data_vars]
        try:
            if small:
                layers = dask.compute(*layers)
                counts = [np.isfinite(layer.values).sum() for layer in layers]
            else:
                counts = dask.compute(*(layer.notnull().sum() for layer in layers))
        except (GeoalignError, OSError, RasterioError) as err:
            lost[scene] = ("failed", f"can't be read: {err}")
            continue
        clear[scene] = round(max(int(c) for c in counts) / pixels, 4)
        if max(int(c) for c in counts) == 0:
            lost[scene] = ("empty", "nothing was observed: all of it is cloud, nodata or outside the grid")
        elif small:
            held.append([layer.values for layer in layers])
    left = stack.isel(time=[i for i, s in enumerate(map(str, stack.scene.values)) if s not in lost])
    if held:
        left = left.assign(
            {n: left[n].copy(data=np.stack([scene[k] for scene in held])) for k, n in enumerate(stack.data_vars)}
        )
    return left, clear, lost


def reference_of(text, stack, folder, *, product="auto", lost=None):
    """What `reference = "..."` means for a stack: as it is, or the Stack of the raster it names, on the stack's grid.

    lost : scene -> reason of scenes left out before; naming one of them as the reference is an error of its own
    """
    from geoalign.io import open_stack

    if text in ("auto", "median") or text in set(map(str, stack.scene.values)):
        return text
    reasons = {r.get("scene"): r["reason"] for r in json.loads(stack.attrs.get("skipped", "[]"))} | (lost or {})
    if text in reasons:
        raise NoUsableData(
            f"the reference scene {text} is left out: {reasons[text].rstrip('.')}. Mend it, or name another reference."
        )
    path = Path(absolute(folder, text))
    if path.is_file():
        return open_stack(str(path), product=product, like=stack.odc.geobox)
    return text
