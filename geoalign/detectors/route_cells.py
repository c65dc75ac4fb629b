"""Between SAR scenes and the search for routes: what scenes say of cells, what cells say of pixels; tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.detectors.route_search import HALF, HIGH_RATIO, Sea
from geoalign.detectors.ship_targets import days_of, stays, targets_of, without_ghosts
from geoalign.detectors.ships import AMBIGUITY_M, FIXED_DAYS, FIXED_SEEN, SEEN
from geoalign.kernels.route_lines import along_and_across, extended
from geoalign.types.changes import CONFIRMED, ENDED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import grid_coords

UNITS = "ships/pass/100 km2"
FWHM = 2.355
"""Full width at half maximum, in standard deviations."""
PAINTED = 2.0
"""Half width of a route's area, in standard deviations: 95 % of its ships."""
LEAST_PASSES = 4
"""Passes below which nothing is said of a pixel."""
LEAST_SEEN = 0.5
"""Share of a cell that a pass must have seen as open sea."""
TOLD = ("status", "first", "before", "by", "end", "magnitude", "probability", "route", "n_obs")
"""What is said of a cell, in the order in which it comes to the pixels."""


@dataclass(frozen=True)
class Cells:
    """Cells over the pixels of a stack.

    side : px of a cell; size : m of a pixel; pixels : (row, col) of the image; near : px, tolerance of fixed objects
    time : of the passes, ns; first : pass from which on a route is new
    """

    side: int
    size: float
    pixels: tuple[int, int]
    near: float
    time: tuple[int, ...]
    first: int

    @property
    def shape(self):
        return tuple(-(-n // self.side) for n in self.pixels)


def block_told(ship, contrast, peak, code, *, side):
    """Cells of targets, and of each cell how many pixels were judged, in one block of a scene."""
    rows, cols = np.nonzero(ship)
    judged = (code == SEEN).astype(np.int32)
    for axis in (0, 1):
        judged = np.add.reduceat(judged, np.arange(0, judged.shape[axis], side), axis=axis)
    return ship.shape, rows, cols, contrast[ship], peak[ship], judged


def scene_told(blocks, *, cells):
    """1-D array of one scene: number of targets, their rows, their columns (px), then which cells were seen."""
    parts, judged = [], np.zeros(cells.shape)
    row0 = col0 = 0
    for shape, rows, cols, contrast, peak, count in blocks:
        parts.append((rows + row0, cols + col0, contrast, peak))
        r, c = row0 // cells.side, col0 // cells.side
        judged[r : r + count.shape[0], c : c + count.shape[1]] = count
        col0 += shape[1]
        if col0 == cells.pixels[1]:
            row0, col0 = row0 + shape[0], 0
    rows, cols, contrast, peak = (np.concatenate(part) for part in zip(*parts))
    order = np.lexsort((cols, rows))
    table = targets_of(rows[order], cols[order], contrast[order], peak[order])
    table = without_ghosts(table, cells.size, AMBIGUITY_M)
    heights, widths = (np.minimum(cells.side, n - np.arange(0, n, cells.side)) for n in cells.pixels)
    seen = judged >= LEAST_SEEN * heights[:, None] * widths
    return np.concatenate([[len(table)], table.row.to_numpy(float), table.col.to_numpy(float), seen.ravel()])


def sea_of(scenes, cells):
    """The Sea of what the scenes say, in m from the image's upper left corner, y upwards."""
    n = [int(told[0]) for told in scenes]
    places = np.concatenate([told[1 : 1 + 2 * k].reshape(2, k).T for told, k in zip(scenes, n)])
    exposure = np.stack([told[1 + 2 * k :].reshape(cells.shape) > 0 for told, k in zip(scenes, n)])
    when = np.repeat(np.arange(len(n)), n)
    time = np.array(cells.time, "datetime64[ns]")
    row, col = np.clip(np.rint(places).astype(int), 0, np.array(cells.pixels) - 1).T // cells.side
    fixed = np.zeros(when.size, bool)
    if when.size:
        seen = exposure[:, row, col].T
        fixed, _ = stays(places, when, seen, days_of(time), cells.near, (FIXED_DAYS, FIXED_SEEN))
    x, y = (places[:, 1] + 0.5) * cells.size, -(places[:, 0] + 0.5) * cells.size
    return Sea(time, exposure, 0.0, 0.0, cells.side * cells.size, x, y, when, fixed)


def told_of(*scenes, cells, detector):
    """Layers `TOLD` of the cells, one after the other."""
    sea = sea_of(scenes, cells)
    rows = sea.routes(detector.alpha, detector.width_m, detector.min_length_m)
    told = cells_told(rows, sea, detector.prior, LEAST_PASSES, cells.first)
    return np.concatenate([told[name].ravel().astype(float) for name in TOLD])


def painted(*arrays, told, cells, masked, row0, col0):
    """What is said of pixels: that of their cells, where they were observed themselves."""
    bands = arrays[: len(arrays) - masked]
    n_obs = np.minimum(sum(np.isfinite(band) for band in bands).astype(bool).sum(axis=0), 65535)
    rows = (row0 + np.arange(n_obs.shape[0])) // cells.side
    cols = (col0 + np.arange(n_obs.shape[1])) // cells.side
    cell = dict(zip(TOLD, told.reshape(len(TOLD), *cells.shape)[:, rows[:, None], cols]))
    land = arrays[-1] if masked else np.zeros(n_obs.shape, bool)
    why = np.where(n_obs == 0, WHY["no_data"], np.where(n_obs < LEAST_PASSES, WHY["too_few"], 0))
    why = np.where((why == 0) & (land | (cell["n_obs"] < LEAST_PASSES)), WHY["excluded"], why)
    none = why > 0
    blank = {"first": -1, "before": -1, "by": -1, "end": -1, "route": -1, "magnitude": np.nan, "probability": np.nan}
    layers = (np.where(none, value, cell[name]) for name, value in blank.items())
    return np.where(none, NOT_OBSERVABLE, cell["status"]), why, n_obs, *layers


def lines_frame(rows, sea, crs, to_map=None):
    """GeoDataFrame of routes, as `shipping_routes.find` promises it; to_map : Affine from the Sea's x, y, in m."""
    import geopandas as gpd
    from shapely.geometry import LineString

    none = np.datetime64("NaT", "ns")

    def stamps(name):
        return np.array([sea.time[r[name]] if r[name] >= 0 else none for r in rows], "datetime64[ns]")

    columns = {
        name: np.array([r[name] for r in rows], float) for name in ("length_m", "traffic", "p_value", "p_formed")
    }
    columns["width_m"] = np.array([r["half"] * FWHM / HALF for r in rows], float)
    columns["n_ships"] = np.array([r["n_ships"] for r in rows], np.int64)
    columns |= {name: np.array([r[name] for r in rows], bool) for name in ("formed", "ended")}
    columns |= {"first_seen": stamps("first"), "first_after": stamps("before"), "first_by": stamps("by"),
                "last_seen": stamps("last")}  # fmt: skip
    names = ("length_m", "width_m", "traffic", "n_ships", "formed", "first_seen", "first_after", "first_by", "ended",
             "last_seen", "p_value", "p_formed")  # fmt: skip
    lines = [LineString(r["line"] if to_map is None else np.column_stack(to_map * tuple(r["line"].T))) for r in rows]
    return gpd.GeoDataFrame({name: columns[name] for name in names}, geometry=lines, crs=crs)


def cell_changes(rows, sea, prior, alpha, crs):
    """Changes over the cells: where a route formed, when, and how sure."""
    import xarray as xr
    from affine import Affine
    from odc.geo.geobox import GeoBox

    grid = GeoBox(sea.shape, Affine(sea.cell_m, 0, sea.left, 0, -sea.cell_m, sea.top), str(crs))
    coords = grid_coords(grid, sea.shape)
    told = {name: xr.DataArray(a, dims=("y", "x"), coords=coords) for name, a in cells_told(rows, sea, prior).items()}
    told |= {"n_obs": told["n_obs"].clip(max=65535), "why": xr.where(told["n_obs"] > 0, 0, WHY["no_data"])}
    return new_changes(
        layers_of(told, sea.time), kind="shipping_routes", prior=prior, magnitude_units=UNITS,
        detector=f"shipping_routes(alpha={alpha}, prior={prior}, cell_m={sea.cell_m})",
        inputs=[str(t)[:19] for t in sea.time],
    )  # fmt: skip


def layers_of(told, time):
    """Layers of Changes from what `cells_told` says of each cell or pixel, with its `n_obs` and `why`."""
    import xarray as xr

    date = dates_at(told["first"], time)
    there = (told["status"] == CONFIRMED) | (told["status"] == ENDED)
    return {
        "status": told["status"], "date": date, "date_after": dates_at(told["before"], time),
        "date_by": dates_at(told["by"], time),
        "magnitude": told["magnitude"], "direction": xr.where(there, 1, 0), "probability": told["probability"],
        "n_obs": told["n_obs"], "why": told["why"], "date_end": dates_at(told["end"], time),
        "route": told["route"].astype(np.int16),
    }  # fmt: skip


def cells_told(rows, sea, prior, least=1, since=0):
    """What is said of each cell, dict of (row, col) arrays; dates as numbers of passes, -1 none.

    least : passes below which a cell is not observable; since : first pass at which a route counts as new
    """
    n_obs = sea.exposure.sum(axis=0)
    seen = n_obs >= least
    first, before, by, end, route = (np.full(sea.shape, -1) for _ in range(5))
    status = np.where(seen, NO_CHANGE, NOT_OBSERVABLE)
    magnitude = np.full(sea.shape, np.nan)
    probability = np.where(seen, _cell_probability(sea, prior), np.nan)
    rows_at, cols_at = np.mgrid[: sea.shape[0], : sea.shape[1]]
    centres = sea.xy(np.column_stack([rows_at.ravel(), cols_at.ravel()]).astype(float))
    for k, row in reversed(list(enumerate(rows))):  # the strongest last, on top
        # a cell further at the ends: the last ships seen lie short of where the route ends
        across = along_and_across(extended(row["line"], sea.cell_m), centres)[1].reshape(sea.shape)
        here = (np.abs(across) <= PAINTED / HALF * row["half"]) & seen
        new = row["formed"] and row["first"] >= since
        later = row["last"] + 1 if row["ended"] and row["last"] + 1 < sea.time.size else -1
        route[here] = k
        magnitude[here] = row["traffic"]
        status[here] = (ENDED if row["ended"] else CONFIRMED) if new else NO_CHANGE
        date = (row["first"], row["before"], row["by"], later) if new else (-1, -1, -1, -1)
        first[here], before[here], by[here], end[here] = date
        probability[here] = 1 - max(row["p_value"], row["p_formed"]) if new else 0.0
    return {
        "status": status, "first": first, "before": before, "by": by, "end": end, "magnitude": magnitude,
        "probability": probability, "route": route, "n_obs": n_obs,
    }  # fmt: skip


def _cell_probability(sea, prior):
    """That a route formed in each cell, from its own ships: HIGH_RATIO times the earlier half's traffic in the later.

    Neighbours in 3 x 3 speak with it; below one half, since a route that was not found as a line is none yet.
    """
    from scipy.ndimage import uniform_filter

    half = sea.time.size // 2
    sums = []
    for piece in (slice(0, half), slice(half, None)):
        for values in (sea.count[piece], sea.exposure[piece]):
            sums.append(uniform_filter(values.sum(axis=0).astype(float), 3, mode="constant") * 9)
    n_0, e_0, n_1, e_1 = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        even = (n_0 + n_1 + 0.5) / (e_0 + e_1 + 1)
        low = (n_0 + 0.5) / (e_0 + 1)
        high = HIGH_RATIO * low
        gain = n_0 * np.log(low / even) - e_0 * (low - even) + n_1 * np.log(high / even) - e_1 * (high - even)
    odds = prior / (1 - prior) * np.exp(np.clip(gain, -60, 60))
    return np.minimum(odds / (1 + odds), 0.5)
