"""Objects on the ground: patches told by their shape (roads, industrial areas), and buildings given what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geoalign.errors import ConfigError
from geoalign.types.changes import CONFIRMED, ENDED, NOT_OBSERVABLE, check_changes, days_since_1970
from geoalign.types.stack import geobox_of, transform_of

if TYPE_CHECKING:
    import geopandas as gpd

FINE = 5
"""Samples of a pixel, along each axis, by which a footprint's part of it is measured."""
NONE_DAY = 0


def forms(frame, *, elongation: float = 5.0, large_m2: float = 20_000.0) -> gpd.GeoDataFrame:
    """Polygons told by their shape: line (a road, a railway), large (an industrial area, an estate), small.

    Parameters
    ----------
    frame : GeoDataFrame
        As `polygons` gives them; any CRS, but geometries without one are taken as metres.
    elongation : float
        Length over width from which a patch is a line, and at least half as much where it is larger than `large_m2`.
    large_m2 : float
        Area from which one that is no line is large.

    Returns
    -------
    GeoDataFrame : a copy with `length_m`, `width_m` (of the strip with the same area and outline, so that a road may
    bend and branch), `elongation` and `form` ("line", "large" or "small").

    Examples
    --------
    >>> import geopandas as gpd
    >>> from shapely import box
    >>> frame = gpd.GeoDataFrame(geometry=[box(0, 0, 20, 900), box(0, 0, 200, 300), box(0, 0, 30, 30)], crs=32633)
    >>> forms(frame).form.to_list()
    ['line', 'large', 'small']
    """
    import shapely

    if elongation < 1 or large_m2 < 0:
        raise ConfigError(
            f"elongation={elongation!r}, large_m2={large_m2!r}: give a ratio of 1 or more, an area of 0 or more."
        )
    metric = frame.geometry
    if frame.crs is not None and not (frame.crs.is_projected and frame.crs.axis_info[0].unit_name == "metre"):
        metric = frame.geometry.to_crs(frame.estimate_utm_crs()) if len(frame) else frame.geometry
    # stairs of pixels make an outline up to 1.4 times too long
    smooth = shapely.simplify(metric.values, _step(metric) * 1.01)
    empty = shapely.is_empty(smooth)
    area = shapely.area(metric.values)
    half = 0.5 * np.where(empty, shapely.length(metric.values), shapely.length(smooth))
    root = np.sqrt(np.maximum(half**2 - 4 * area, 0.0))
    length, width = 0.5 * (half + root), 0.5 * (half - root)
    ratio = np.divide(length, width, out=np.ones_like(length), where=width > 0)
    line = ratio >= np.where(area >= large_m2, 0.5 * elongation, elongation)
    form = np.where(line, "line", np.where(area >= large_m2, "large", "small"))
    return frame.assign(length_m=length, width_m=width, elongation=ratio, form=form)


def footprints(changes, frame, *, min_share: float = 0.3) -> gpd.GeoDataFrame:
    """What happened to each of many objects, as buildings: share of it that changed, probability, date.

    Parameters
    ----------
    changes : Changes (y, x)
        As `detect(stack, "damage")` or `"pwtt"` gives them; computed here.
    frame : GeoDataFrame of polygons, in any CRS
    min_share : float
        Part of an object's observable ground that must have changed for it to count as changed.

    Returns
    -------
    GeoDataFrame : a copy with `observed` (share of the footprint that could be observed; 0 outside the grid),
    `share` (of that, what changed), `changed` (share of at least `min_share`), `probability`, `magnitude` (means,
    weighted by the part of each pixel that the footprint covers; magnitude of what changed), `date`, `date_after`,
    `date_by` (of the changed pixels: the lower median, the earliest, the latest; NaT where none did).

    Raises
    ------
    ConfigError
        `min_share` out of 0..1, or a frame without CRS on a grid with one.

    Examples
    --------
    >>> import geopandas as gpd, numpy as np
    >>> from shapely import box
    >>> from geoalign import detect, new_stack
    >>> power = 0.3 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, (30, 32, 32))
    >>> power[22:, 8:14, 8:14] /= 2
    >>> changes = detect(new_stack({"vv": power}, np.datetime64("2023-01-02") + 12 * np.arange(30)), "damage")
    >>> houses = gpd.GeoDataFrame(geometry=[box(8.5, 8.5, 12.5, 12.5), box(20, 20, 24, 24)])
    >>> footprints(changes, houses).changed.to_list()
    [True, False]
    """
    if not 0 <= min_share <= 1:
        raise ConfigError(f"min_share is {min_share!r}; it is a share, 0 to 1.")
    check_changes(changes)
    box = geobox_of(changes)
    shapes = frame.geometry
    if box is not None:
        if frame.crs is None:
            raise ConfigError("the footprints have no CRS, the grid has; say which with frame.set_crs(...).")
        shapes = shapes.to_crs(str(box.crs))
    names = ["status", "probability", "magnitude", "date", "date_after", "date_by"]
    layers = {name: layer.values for name, layer in changes[names].compute().data_vars.items()}
    transform = transform_of(changes)
    rows = [_of(shape, layers, transform, min_share) for shape in shapes.values]
    out = frame.copy()
    for k, name in enumerate(("observed", "share", "changed", "probability", "magnitude")):
        out[name] = [row[k] for row in rows]
    for k, name in enumerate(("date", "date_after", "date_by")):
        days = np.array([row[5 + k] for row in rows], np.int64)
        stamps = np.where(days == NONE_DAY, np.datetime64("NaT", "D"), days.astype("datetime64[D]"))
        out[name] = stamps.astype("datetime64[ms]")
    return out


def _of(shape, layers, transform, min_share):
    """(observed, share, changed, probability, magnitude, date, date_after, date_by in days) of one footprint."""
    none = (0.0, np.nan, False, np.nan, np.nan, NONE_DAY, NONE_DAY, NONE_DAY)
    window, cover = _cover(shape, transform, layers["status"].shape)
    if window is None or not cover.sum() > 0:
        return none
    inside, whole = {name: values[window] for name, values in layers.items()}, cover.sum()
    seen = cover * (inside["status"] != NOT_OBSERVABLE)
    hit = cover * np.isin(inside["status"], (CONFIRMED, ENDED))
    if not seen.sum() > 0:
        return none
    share = float(hit.sum() / seen.sum())
    known = seen * np.isfinite(inside["probability"])
    probability = float((known * np.nan_to_num(inside["probability"])).sum() / known.sum()) if known.sum() else np.nan
    if not hit.any():
        return (float(seen.sum() / whole), share, False, probability, np.nan, NONE_DAY, NONE_DAY, NONE_DAY)
    at = hit > 0
    days = {name: days_since_1970(inside[name][at], NONE_DAY) for name in ("date", "date_after", "date_by")}
    dated, after, by = (values[values != NONE_DAY] for values in days.values())
    middle = int(np.sort(dated)[(dated.size - 1) // 2]) if dated.size else NONE_DAY
    return (
        float(seen.sum() / whole),
        share,
        bool(share >= min_share and share > 0),
        probability,
        float((hit * np.nan_to_num(inside["magnitude"])).sum() / hit.sum()),
        middle,
        int(after.min()) if after.size else NONE_DAY,
        int(by.max()) if by.size else NONE_DAY,
    )


def _cover(shape, transform, size):
    """Slices (rows, cols) that a polygon touches and the part of each pixel that it covers; None outside the grid."""
    import shapely
    from affine import Affine
    from rasterio.features import rasterize

    if shape is None or shape.is_empty:
        return None, np.zeros((0, 0))
    inverse = ~transform
    shape = shapely.transform(shape, lambda xy: np.column_stack(inverse * xy.T))  # in pixels: x col, y row
    left, top, right, low = shape.bounds
    c0, c1 = max(int(np.floor(left)), 0), min(int(np.ceil(right)), size[1])
    r0, r1 = max(int(np.floor(top)), 0), min(int(np.ceil(low)), size[0])
    if c0 >= c1 or r0 >= r1:
        return None, np.zeros((0, 0))
    fine = rasterize(
        [shape],
        ((r1 - r0) * FINE, (c1 - c0) * FINE),
        transform=Affine(1 / FINE, 0, c0, 0, 1 / FINE, r0),
        dtype="uint8",
        all_touched=shape.area < 2 / FINE,  # a hut smaller than the samples are apart still has its place
    )
    cover = fine.reshape(r1 - r0, FINE, c1 - c0, FINE).mean(axis=(1, 3))
    return (slice(r0, r1), slice(c0, c1)), cover


def _step(metric):
    """Length of the shortest side among outlines: a pixel's, where they follow pixels."""
    import shapely

    coordinates = shapely.get_coordinates(metric.values)
    if len(coordinates) < 2:
        return 0.0
    sides = np.hypot(*np.diff(coordinates, axis=0).T)
    sides = sides[sides > 0]
    return float(min(sides.min(), 100.0)) if sides.size else 0.0
