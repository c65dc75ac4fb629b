"""Targets as rows of a table: outlines to places and sizes, ghosts dropped, fixed objects told by their series."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from geoalign.chunked import row_blocks
from geoalign.errors import ConfigError
from geoalign.kernels import zones
from geoalign.kernels.ships import presence, shape_of
from geoalign.types.stack import geobox_of, pixel_size_m, transform_of

GHOST_DB = 20.0
"""A ghost is so much weaker than what casts it."""
ASIDE, ASIDE_M = np.tan(np.deg2rad(16.0)), 300.0
"""Ghosts lie along the track, which is up to 16 degrees off the columns, give or take some 300 m."""


def scene_targets(layers) -> pd.DataFrame:
    """Targets of one scene, in px; layers : Dataset (y, x) of ship (bool), contrast (dB) and peak, lazy or not."""
    cells = []
    for row0, block in row_blocks(layers):
        ship = block.ship.values
        rows, cols = np.nonzero(ship)
        cells.append((rows + row0, cols, block.contrast.values[ship], block.peak.values[ship]))
    return targets_of(*(np.concatenate(part) for part in zip(*cells)))


def targets_of(rows, cols, contrast, peak) -> pd.DataFrame:
    """Targets that the cells of one scene are, in px. rows, cols, contrast (dB), peak : (n_cell,), row-major."""
    names = ("row", "col", "length", "width", "angle", "n_cells", "peak", "snr_db", "top", "left", "bottom", "right")
    if rows.size == 0:
        return pd.DataFrame({name: np.empty(0) for name in names})
    begin = np.flatnonzero(np.append(True, (np.diff(rows) != 0) | (np.diff(cols) != 1)))
    end = np.append(begin[1:], rows.size)
    start = rows[begin].astype(np.int32), cols[begin].astype(np.int32), (cols[end - 1] + 1).astype(np.int32)
    label = zones.label_runs(*start, np.ones(begin.size, np.uint8), 1)
    of_cell = np.repeat(label, end - begin)
    order = np.argsort(of_cell, kind="stable")
    pieces = np.split(order, np.cumsum(np.bincount(of_cell))[:-1])
    out = []
    for piece in pieces:
        r, c = rows[piece], cols[piece]
        shape = shape_of(r.astype(float), c.astype(float), 10 ** (np.nan_to_num(contrast[piece], nan=0.0) / 10))
        values = (piece.size, np.nanmax(peak[piece]), np.nanmax(contrast[piece]))
        out.append((*shape, *values, r.min() - 0.5, c.min() - 0.5, r.max() + 0.5, c.max() + 0.5))
    return pd.DataFrame(out, columns=names)


def frame_of(tables, stack, band, near_px, ambiguity_m, fixed):
    """The GeoDataFrame that `ships.find` promises, from the scenes' tables."""
    import geopandas as gpd

    size, box = pixel_size_m(stack), geobox_of(stack)
    if ambiguity_m is not None and size is not None:
        tables = [without_ghosts(table, size, ambiguity_m) for table in tables]
    number = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    table = pd.concat(tables, ignore_index=True)
    lasting, first = _fixed(table, number, stack, band, near_px, fixed)
    to_map = transform_of(stack)
    x, y = to_map * (table.col.to_numpy() + 0.5, table.row.to_numpy() + 0.5)
    sides = table[["top", "left", "bottom", "right"]].to_numpy(float).T + 0.5
    corners = [to_map * (sides[c], sides[r]) for c in (1, 3) for r in (0, 2)]
    xs, ys = (np.array(values) for values in zip(*corners))
    scale = np.nan if size is None else size
    time = stack.time.values
    columns = {
        "scene": (stack.scene.values if "scene" in stack.coords else time.astype(str))[number],
        "time": time[number],
        "peak": table.peak.to_numpy(float),
        "snr_db": table.snr_db.to_numpy(float),
        "n_cells": table.n_cells.to_numpy(np.int64),
        "area_m2": table.n_cells.to_numpy(float) * scale**2,
        "length_m": table.length.to_numpy(float) * scale,
        "width_m": table.width.to_numpy(float) * scale,
        "heading_deg": (180.0 - table.angle.to_numpy(float)) % 180.0,
        "fixed": lasting,
        "first_date": np.where(lasting, time[np.maximum(first, 0)], np.datetime64("NaT", "ns")),
        "xmin": xs.min(axis=0),
        "ymin": ys.min(axis=0),
        "xmax": xs.max(axis=0),
        "ymax": ys.max(axis=0),
    }
    return gpd.GeoDataFrame(columns, geometry=gpd.points_from_xy(x, y), crs=None if box is None else str(box.crs))


def without_ghosts(table, size, ambiguity_m):
    """The targets of one scene less azimuth ghosts; see `ships.find`."""
    least, most = ambiguity_m
    if not 0 < least < most:
        raise ConfigError(f"ambiguity_m is {ambiguity_m!r}; it is (least, most) in m, as (4300, 6000), or None.")
    if len(table) < 2:
        return table
    row, col, peak = (table[name].to_numpy(float) for name in ("row", "col", "peak"))
    keep = np.ones(len(table), bool)
    for k in np.flatnonzero(peak > peak.min() * 10 ** (GHOST_DB / 10)):
        along, aside = np.abs(row - row[k]) * size, np.abs(col - col[k]) * size
        here = (along >= least) & (along <= most) & (aside <= ASIDE * along + ASIDE_M)
        keep &= ~(here & (peak < peak[k] * 10 ** (-GHOST_DB / 10)))
    return table[keep].reset_index(drop=True)


def _fixed(table, number, stack, band, near_px, fixed):
    """Which targets are of a fixed object, and the number of its first scene: the places' series, as the map's."""
    n = len(table)
    if n == 0:
        return np.zeros(0, bool), np.zeros(0, np.int64)
    places = table[["row", "col"]].to_numpy(float)
    rows, cols = np.rint(places).astype(int).T
    rows, cols = np.clip(rows, 0, stack.sizes["y"] - 1), np.clip(cols, 0, stack.sizes["x"] - 1)
    values = stack[band].transpose("time", "y", "x").data
    values = values.vindex[:, rows, cols].compute().T if hasattr(values, "vindex") else values[:, rows, cols]
    return stays(places, number, np.isfinite(values).T, days_of(stack.time.values), near_px, fixed)


def days_of(time):
    """Days since the first time."""
    return (time - time[0]) / np.timedelta64(1, "D")


def stays(places, number, seen, days, near_px, fixed):
    """Which targets are of a fixed object (n,) bool, and the number of its first scene (n,).

    places : (n, 2), row and col; number : (n,), of the scene; seen : (n, scene) bool, whether its place was observed
    days : (scene,); near_px : tolerance; fixed : least days and least scenes of a fixed object
    """
    near = np.zeros(seen.shape, bool)
    for k, others in enumerate(cKDTree(places).query_ball_point(places, near_px)):
        near[k, number[others]] = True
    nothing = np.full(seen.shape, np.nan, np.float32)
    _, _, first, _, end, lasting, _ = presence(near, seen | near, near, days, nothing, 0.0, *fixed)
    inside = (number >= first) & ((end < 0) | (number < end))
    return lasting & inside, first
