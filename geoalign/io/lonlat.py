"""Shapes in longitude and latitude as GeoJSON wants them: cut at the antimeridian, closed over a pole (RFC 7946)."""

from __future__ import annotations

import json

import numpy as np
import shapely
from pyproj import Transformer


def to_lonlat(shape, crs, *, decimals: int = 7):
    """A polygon or multipolygon of any CRS in degrees; where it crosses the antimeridian it is cut in two.

    Parameters
    ----------
    shape : shapely Polygon or MultiPolygon
    crs : anything pyproj takes
    decimals : of the coordinates

    Returns
    -------
    Polygon or MultiPolygon, outer rings counter-clockwise

    Examples
    --------
    >>> to_lonlat(shapely.box(800000, 0, 900000, 100000), "EPSG:32660").geom_type
    'MultiPolygon'
    """
    change = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    parts = []
    for part in shapely.get_parts(shape):
        parts += _cut(shapely.transform(part, lambda p: _unwrapped(*change.transform(p[:, 0], p[:, 1]))))
    whole = shapely.union_all(parts) if len(parts) > 1 else parts[0] if parts else shapely.Polygon()
    rounded = shapely.transform(whole, lambda p: np.round(p, decimals))
    whole = rounded if shapely.is_valid(rounded) else shapely.make_valid(rounded)
    return shapely.orient_polygons(whole)


def _unwrapped(lon, lat):
    """Longitudes without a jump: those on the far side of the antimeridian go on beyond 180."""
    if np.ptp(lon) > 180:
        lon = np.where(lon < 0, lon + 360, lon)
    return np.column_stack([lon, lat])


def _cut(part):
    if part.bounds[2] <= 180:
        return [part]
    west, east = (part.intersection(shapely.box(a, -90, a + 360, 90)) for a in (180, -180))
    west = shapely.transform(west, lambda p: p - (360, 0))
    return [p for p in (*shapely.get_parts(east), *shapely.get_parts(west)) if p.area > 0]


def footprint(geobox) -> tuple[dict, list[float]]:
    """Outline of a grid as a GeoJSON geometry, and its box (west, south, east, north; west > east across 180)."""
    height, width = geobox.shape
    # points along the sides, since they bend in longitude and latitude
    at = np.linspace(0, 1, 17)[:-1]
    cols = np.concatenate([0 * at, at, 0 * at + 1, 1 - at]) * width
    rows = np.concatenate([at, 0 * at + 1, 1 - at, 0 * at]) * height
    a = geobox.affine
    x, y = a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f
    pole = _pole_inside(geobox)
    if pole:
        lon, lat = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
        order = np.argsort(lon)
        lon, lat = np.round(lon[order], 7), np.round(lat[order], 7)
        ring = [(-180.0, pole), (-180.0, lat[0]), *zip(lon, lat), (180.0, lat[-1]), (180.0, pole)]
        shape = shapely.orient_polygons(shapely.Polygon(ring))
        low, high = (float(np.min(lat)), 90.0) if pole > 0 else (-90.0, float(np.max(lat)))
        return json.loads(shapely.to_geojson(shape)), [-180.0, low, 180.0, high]
    shape = to_lonlat(shapely.Polygon(np.column_stack([x, y])), str(geobox.crs))
    west, south, east, north = map(float, shape.bounds)
    if shape.geom_type == "MultiPolygon" and east - west > 180:
        edges = [p.bounds for p in shape.geoms]
        west = min(b[0] for b in edges if b[0] > 0)
        east = max(b[2] for b in edges if b[2] < 0)
    return json.loads(shapely.to_geojson(shape)), [west, south, east, north]


def _pole_inside(geobox) -> float:
    """90 or -90 where that pole lies in the grid, else 0."""
    change = Transformer.from_crs("EPSG:4326", str(geobox.crs), always_xy=True)
    for pole in (90.0, -90.0):
        x, y = change.transform(0.0, pole)
        if not np.isfinite([x, y]).all() or geobox.crs.geographic:
            continue
        col, row = ~geobox.affine * (x, y)
        back = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
        inside = 0 < col < geobox.shape[1] and 0 < row < geobox.shape[0]
        if inside and abs(back[1] - pole) < 1e-6:
            return pole
    return 0.0
