"""The project grid where none is given, and cutting a grid to a box."""

from __future__ import annotations

import logging
import math
from collections import Counter

import numpy as np
from affine import Affine as Transform
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoalign.errors import NoUsableData, StackError
from geoalign.io.tiff import MAX_PIXELS

log = logging.getLogger("geoalign")


def choose_grid(boxes: list[GeoBox]) -> GeoBox:
    """The grid for scenes on these grids (one a scene, its finest).

    All the same: that one. Otherwise the CRS of the most scenes, their finest resolution, and the union of all extents,
    snapped to multiples of the resolution; or to the pixel lattice that more than half of those scenes share (Landsat's
    lies half a pixel off), so that they are moved by whole pixels and keep their values.
    """
    if len(set(boxes)) == 1:
        return boxes[0]
    names = Counter(str(box.crs) for box in boxes)
    most = max(names.values())
    crs = min(
        (name for name, n in names.items() if n == most),
        key=lambda c: (min(_size(b) for b in boxes if str(b.crs) == c), c),
    )
    same = [box for box in boxes if str(box.crs) == crs]
    size = min(_size(box) for box in same)
    phases = Counter(_phase(box, size) for box in same if math.isclose(_size(box), size, rel_tol=1e-9))
    (px, py), shared = phases.most_common(1)[0]
    if 2 * shared <= sum(phases.values()):
        px = py = 0.0
    bounds = [_bounds(box, crs) for box in boxes]
    left, bottom = (min(b[k] for b in bounds) for k in (0, 1))
    right, top = (max(b[k] for b in bounds) for k in (2, 3))
    # a hundredth of a pixel of slack, so that rounding adds no row
    x0 = math.floor((left - px) / size + 0.01) * size + px
    y1 = math.ceil((top - py) / size - 0.01) * size + py
    width = max(1, math.ceil((right - x0) / size - 0.01))
    height = max(1, math.ceil((y1 - bottom) / size - 0.01))
    if width * height > MAX_PIXELS:
        raise StackError(
            f"the scenes lie so far apart that their grid would have {width} x {height} pixels. Give like= or bbox=."
        )
    box = GeoBox((height, width), Transform(size, 0, x0, 0, -size, y1), crs)
    log.info(
        "%d scenes on %d grids: taken onto %s, %g units a pixel, %d x %d px (most scenes' CRS, finest pixel, union)",
        len(boxes), len(set(boxes)), crs, size, height, width,
    )  # fmt: skip
    return box


def check_size(box: GeoBox) -> None:
    """StackError where a grid has more pixels than any scene: a box in other units than its CRS."""
    height, width = box.shape
    if height * width > MAX_PIXELS:
        raise StackError(
            f"the grid has {width} x {height} pixels, and at most 2^31 are taken. Is its box in the units of its CRS "
            f"({crs_name(box.crs)})? Give a smaller one, or a coarser resolution."
        )


def crs_name(crs) -> str:
    """EPSG code of a CRS where it has one, else its name: what a message says instead of a page of WKT."""
    return f"EPSG:{crs.epsg}" if crs.epsg else crs.proj.name


def crop(box: GeoBox, bbox) -> GeoBox:
    """The part of a grid that covers a box, on the same pixels.

    bbox : (west, south, east, north) in degrees (WGS 84), or an odc-geo BoundingBox with its own CRS
    """
    crs = getattr(bbox, "crs", None)
    source = "EPSG:4326" if crs is None else str(crs)
    edges = tuple(bbox.bbox) if hasattr(bbox, "bbox") else tuple(bbox)
    if len(edges) != 4 or not (edges[0] < edges[2] and edges[1] < edges[3]):
        raise StackError(f"bbox must be (west, south, east, north), got {tuple(edges)}.")
    if source == "EPSG:4326" and (min(edges[0::2]) < -180 or max(edges[0::2]) > 180 or max(map(abs, edges[1::2])) > 90):
        raise StackError(f"bbox {tuple(edges)} is not in degrees; give (west, south, east, north) in WGS 84.")
    x, y = _outline(*edges)
    if str(box.crs) != source:
        x, y = Transformer.from_crs(source, str(box.crs), always_xy=True).transform(x, y)
    inverse = ~box.affine
    cols, rows = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
    if not (np.isfinite(cols).all() and np.isfinite(rows).all()):
        raise NoUsableData(f"bbox {tuple(edges)} lies outside what {crs_name(box.crs)} can show.")
    r0, c0 = (max(0, math.floor(v.min() + 1e-6)) for v in (rows, cols))
    r1, c1 = (min(n, math.ceil(v.max() - 1e-6)) for v, n in zip((rows, cols), box.shape))
    if r0 >= r1 or c0 >= c1:
        raise NoUsableData(
            f"bbox {tuple(edges)} does not overlap the grid ({box.extent.boundingbox.bbox} in {crs_name(box.crs)})."
        )
    return GeoBox((r1 - r0, c1 - c0), box.affine * Transform.translation(c0, r0), box.crs)


def overlaps(grid: GeoBox, box: GeoBox) -> bool:
    """True where any pixel of `box` could fall onto `grid` (their bounding boxes share area)."""
    left, bottom, right, top = _bounds(box, str(grid.crs))
    g = _bounds(grid, str(grid.crs))
    return bool(left < g[2] and right > g[0] and bottom < g[3] and top > g[1])


def largest_cluster(boxes: list[GeoBox]) -> list[int]:
    """Numbers of the grids in the largest group that hangs together (neighbours within a tenth of their size)."""
    crs = str(boxes[0].crs)
    areas = {box: np.array(_bounds(box, crs)) for box in set(boxes)}
    unique = list(areas)
    grown = []
    for box in unique:
        left, bottom, right, top = areas[box]
        dx, dy = 0.05 * (right - left), 0.05 * (top - bottom)
        grown.append((left - dx, bottom - dy, right + dx, top + dy))
    group = list(range(len(unique)))
    for i, a in enumerate(grown):
        for j, b in enumerate(grown[:i]):
            if group[i] != group[j] and a[0] < b[2] and a[2] > b[0] and a[1] < b[3] and a[3] > b[1]:
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    number = dict(zip(unique, group))
    members: dict[int, list[int]] = {}
    for k, box in enumerate(boxes):
        members.setdefault(number[box], []).append(k)
    return max(members.values(), key=len)


def shared_area(one: GeoBox, other: GeoBox) -> float:
    """Pixels of `one` that the bounding box of `other` covers, in the CRS of `one`."""
    a, b = _bounds(one, str(one.crs)), _bounds(other, str(one.crs))
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height) / abs(one.affine.determinant)


def _size(box):
    a = box.affine
    return float(round(min(math.hypot(a.a, a.d), math.hypot(a.b, a.e)), 12))


def _phase(box, size):
    def wrapped(value):
        rest = value - math.floor(value / size + 1e-6) * size
        return 0.0 if abs(rest) < 1e-6 * size else round(rest, 9)

    return wrapped(box.affine.c), wrapped(box.affine.f)


def _bounds(box, crs):
    rows, cols = box.shape
    x, y = _outline(0, 0, cols, rows)
    a = box.affine
    x, y = a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f
    if str(box.crs) != crs:
        x, y = Transformer.from_crs(str(box.crs), crs, always_xy=True).transform(x, y)
        keep = np.isfinite(x) & np.isfinite(y)
        if not keep.any():
            return (math.inf, math.inf, -math.inf, -math.inf)
        x, y = x[keep], y[keep]
    return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _outline(left, bottom, right, top, n=21):
    t = np.linspace(0.0, 1.0, n)
    x = np.concatenate([left + t * (right - left), np.full(n, right), left + t * (right - left), np.full(n, left)])
    y = np.concatenate([np.full(n, bottom), bottom + t * (top - bottom), np.full(n, top), bottom + t * (top - bottom)])
    return x, y
