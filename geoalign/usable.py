"""Which scenes of a stack are of use, and what a site means by its reference: asked before anything is aligned."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from geoalign.errors import GeoalignError, NoUsableData
from geoalign.sitecheck import absolute

log = logging.getLogger("geoalign")


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
    whole, failures = None, (GeoalignError, OSError, RasterioError)
    if stack.nbytes <= hold_bytes:
        try:
            whole = stack.compute()
        except failures:
            log.debug("a scene can't be read; each is read alone to see which")
    for i, scene in enumerate(map(str, stack.scene.values)):
        layers = [(stack if whole is None else whole)[band].isel(time=i) for band in stack.data_vars]
        try:
            counts = dask.compute(*(layer.notnull().sum() for layer in layers))
        except failures as err:
            lost[scene] = ("failed", f"can't be read: {err}")
            continue
        clear[scene] = round(max(int(c) for c in counts) / pixels, 4)
        if max(int(c) for c in counts) == 0:
            lost[scene] = ("empty", "nothing was observed: all of it is cloud, nodata or outside the grid")
    stack = stack if whole is None else whole
    left = stack.isel(time=[i for i, s in enumerate(map(str, stack.scene.values)) if s not in lost])
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
