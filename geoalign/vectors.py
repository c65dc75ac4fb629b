"""Changes -> polygons: one GeoDataFrame row for each connected patch of change, with its dates, size and certainty.

Everything is taken from row runs (`kernels.zones`), read in one pass over blocks of rows: the result is the same,
to the bit, however the layers are chunked, and no label image is ever made.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from geoalign.chunked import row_blocks
from geoalign.errors import ConfigError
from geoalign.kernels import zones
from geoalign.types.changes import CONFIRMED, ENDED, FIRST, PROVISIONAL, STATUS, check_changes, days_since_1970
from geoalign.types.stack import geobox_of, transform_of

if TYPE_CHECKING:
    import geopandas as gpd

FIELDS = {
    "id": "str",
    "change_type": "str",
    "status": "str",
    "start_date": "datetime64[ms]",
    "end_date": "datetime64[ms]",
    "first_date": "datetime64[ms]",
    "last_date": "datetime64[ms]",
    "date_after": "datetime64[ms]",
    "date_by": "datetime64[ms]",
    "detected_at": "datetime64[ms, UTC]",
    "probability": "float64",
    "magnitude": "float64",
    "direction": "int16",
    "area_ha": "float64",
    "n_pixels": "int64",
    "sensor": "str",
    "run_id": "str",
}
"""Fields of the frame that `polygons` gives, in order, and their types. Dates are whole days, UTC."""

AREA_TOLERANCE = 0.005
"""`min_area_m2` is kept to within this share: a UTM grid's pixels cover up to 0.2 % more or less ground than their
nominal size, and ten pixels of 100 m2 should pass 1000 m2 everywhere in the zone."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/geoalign/changes")


def polygons(
    changes,
    *,
    min_area_m2: float = 0.0,
    connectivity: int = 8,
    status: tuple[str, ...] = ("confirmed", "ended"),
    site: str = "",
    sensor: str = "",
    run_id: str = "",
    detected_at=None,
) -> gpd.GeoDataFrame:
    """Polygons around the changed pixels, with class, dates, magnitude, probability and area.

    Parameters
    ----------
    changes : Changes (y, x)
        Lazy or not; read once, in blocks of rows. The optional layer `date_end` says when a change ended.
    min_area_m2 : float
        Smaller patches are left out; 0 keeps all. Needs a grid with a projected CRS. Kept to within 0.5 %.
    connectivity : 8 or 4
        8 (default) joins pixels that touch at a corner, so that a narrow, slanting strip stays one patch. Such a patch
        is a MultiPolygon of parts that touch in points, which the simple feature rules allow.
    status : names of status codes
        Which pixels make patches: "confirmed" and "ended", which is what *changed* means. Add "provisional" and
        "first" when watching.
    site, sensor, run_id : str
        Written to the fields; `site` also enters the id.
    detected_at : datetime, optional
        When the run found them, UTC. Null by default.

    Returns
    -------
    GeoDataFrame, columns `FIELDS` and `geometry` (MultiPolygon, holes kept), in the CRS of the grid, in the order of
    the patches' first pixel, row by row. Empty with the same columns, types and CRS where nothing changed.

    - Pixels of unlike `direction` are never joined; pixels of unlike date are: two events that touch are one patch,
      and `first_date`, `last_date` show it.
    - `start_date` is the lower median of the pixels' dates: a date that was observed, and one that a few early
      pixels can't move. `first_date` and `last_date` are the extremes; the change of every pixel lies in
      (`date_after`, `date_by`].
    - `status` is the highest of the pixels', but "ended" only once every pixel has; `end_date`, the last end, is null
      until then.
    - `magnitude` and `probability` are means over the pixels, NaN left out.
    - `area_ha` is ground area: in Lambert's azimuthal equal-area projection about the grid's centre, or in a
      cylindrical equal-area one for grids in degrees. NaN without a CRS.
    - `id` is a UUIDv5 of site, kind, direction, the first date and the place of the first pixel (row by row) that has
      it: the same map gives the same ids, and a patch that grows later keeps its id.

    Raises
    ------
    ConfigError
        For `min_area_m2` on a grid in degrees or without CRS, and for an unknown `connectivity` or `status`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from geoalign import new_changes
    >>> flag = xr.DataArray(np.array([[1, 0], [0, 1]]), dims=("y", "x"), coords={"y": [0.0, 1.0], "x": [0.0, 1.0]})
    >>> day = xr.where(flag > 0, np.datetime64("2024-05-01", "ns"), np.datetime64("NaT", "ns"))
    >>> layers = dict(status=3 * flag, date=day, date_after=day - np.timedelta64(6, "D"), date_by=day, direction=-flag)
    >>> layers |= dict(magnitude=4.0 * flag, probability=0.9 * flag, n_obs=9 + flag, why=0 * flag)
    >>> frame = polygons(new_changes(layers, kind="flood", detector="by hand"))
    >>> int(frame.n_pixels[0]), str(frame.start_date[0].date())
    (2, '2024-05-01')
    """
    check_changes(changes)
    codes = _status_codes(status)
    if connectivity not in (4, 8):
        raise ConfigError(f"connectivity is {connectivity!r}; it can be 8 (corners join) or 4 (they don't).")
    box, transform = geobox_of(changes), transform_of(changes)
    if min_area_m2 > 0 and (box is None or not box.crs.projected):
        grid = "has no CRS" if box is None else f"is in degrees (EPSG:{box.crs.epsg})"
        raise ConfigError(
            f"min_area_m2 is {min_area_m2:g}, but the grid {grid}, so that its pixels have no size in metres. "
            "Work on a projected grid (for example the local UTM zone), or set min_area_m2=0."
        )
    runs = _read_runs(changes, codes)
    labels = zones.label_runs(runs["row"], runs["start"], runs["stop"], runs["code"], 1 if connectivity == 8 else 0)
    table, order, pointer = _zone_table(runs, labels)
    if min_area_m2 > 0:
        # a first, generous sieve: no need to walk around what is far too small
        keep = table["n_pixels"] * _largest_pixel_m2(box) >= min_area_m2 * (1 - AREA_TOLERANCE)
        table, order, pointer = _keep(table, order, pointer, keep)
    geometry = _geometry(runs, order, pointer, transform)
    table["area_ha"] = _area_m2(geometry, box) / 1e4
    if min_area_m2 > 0:
        keep = table["area_ha"] * 1e4 >= min_area_m2 * (1 - AREA_TOLERANCE)
        table, geometry = {name: values[keep] for name, values in table.items()}, geometry[keep]
    texts = {"change_type": str(changes.attrs["kind"]), "sensor": sensor, "run_id": run_id}
    table["id"] = _ids(table, transform, box, site, texts["change_type"])
    return _frame(table, geometry, box, texts, detected_at)


def _status_codes(names):
    known = {STATUS[code]: code for code in (FIRST, PROVISIONAL, CONFIRMED, ENDED)}
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(f"status {unknown or names} can't make polygons; choose from {', '.join(known)}.")
    return [known[name] for name in names]


def _read_runs(changes, codes):
    """Row runs of the chosen pixels, their sums and extremes, and the day of every pixel."""
    names = ["status", "direction", "date", "date_after", "date_by", "magnitude", "probability"]
    names += ["date_end"] if "date_end" in changes and changes.date_end.dims == ("y", "x") else []
    wanted = np.zeros(256, np.uint8)
    wanted[codes] = 1
    parts: dict[str, list] = {}
    dated = [name for name in names if name.startswith("date")]
    for row0, block in row_blocks(changes[names], encode=dict.fromkeys(dated, _days)):
        # code of a pixel: 0 not wanted, else direction + 2; unlike directions are unlike zones
        code = wanted[block.status.values] * (block.direction.values + 2).astype(np.uint8)
        row, start, stop, value = zones.row_runs(code, row0)
        at = code > 0
        length = stop - start
        part = {"row": row, "start": start, "stop": stop, "code": value, "days": block.date.values[at]}
        part["first"], part["last"], part["offset_of_first"] = zones.run_extremes(length, part["days"])
        part["after"] = zones.run_extremes(length, block.date_after.values[at])[0]
        part["by"] = zones.run_extremes(length, block.date_by.values[at])[1]
        for name in ("magnitude", "probability"):
            part[f"{name}_sum"], part[f"{name}_n"] = zones.run_sums(length, block[name].values[at])
        state = block.status.values[at]
        part["ended"] = zones.run_sums(length, (state == ENDED).astype(np.float32))[0]
        alive = np.where(state == ENDED, CONFIRMED, state).astype(np.int32)
        part["status"] = zones.run_extremes(length, alive)[1]
        if "date_end" in block:
            part["end"] = zones.run_extremes(length, block.date_end.values[at])[1]
        else:
            part["end"] = np.full(row.size, zones.NO_DAY, np.int32)
        for name, values in part.items():
            parts.setdefault(name, []).append(values)
        del block, code, at
    return {name: np.concatenate(values) for name, values in parts.items()}


def _zone_table(runs, labels):
    """Attributes of every zone, and the runs sorted by zone."""
    n = int(labels.max()) + 1 if labels.size else 0
    length = runs["stop"] - runs["start"]
    order = np.argsort(labels, kind="stable")
    pointer = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=n))]).astype(np.int64)
    offsets = np.cumsum(length, dtype=np.int64) - length
    first, last, seed = zones.zone_extremes(labels, n, runs["first"], runs["last"])
    after, by, _ = zones.zone_extremes(labels, n, runs["after"], runs["by"])
    _, end, _ = zones.zone_extremes(labels, n, runs["end"], runs["end"])
    _, alive, _ = zones.zone_extremes(labels, n, runs["status"], runs["status"])
    n_pixels = zones.zone_sums(labels, n, length.astype(np.float64)).astype(np.int64)
    all_ended = zones.zone_sums(labels, n, runs["ended"]) == n_pixels
    table = {
        "status": np.where(all_ended, ENDED, alive),
        "start_date": zones.zone_medians(order, pointer, offsets, length, runs["days"]),
        "end_date": np.where(all_ended, end, zones.NO_DAY),
        "first_date": first,
        "last_date": last,
        "date_after": after,
        "date_by": by,
        "direction": runs["code"][seed].astype(np.int16) - 2,
        "n_pixels": n_pixels,
        "row": runs["row"][seed],
        "col": runs["start"][seed] + runs["offset_of_first"][seed],
    }
    for name in ("magnitude", "probability"):
        total = zones.zone_sums(labels, n, runs[f"{name}_sum"])
        count = zones.zone_sums(labels, n, runs[f"{name}_n"].astype(np.float64))
        table[name] = np.divide(total, count, out=np.full(n, np.nan), where=count > 0)
    return table, order, pointer


def _keep(table, order, pointer, keep):
    sizes = np.diff(pointer)
    order = order[np.repeat(keep, sizes)]
    pointer = np.concatenate([[0], np.cumsum(sizes[keep])]).astype(np.int64)
    return {name: values[keep] for name, values in table.items()}, order, pointer


def _geometry(runs, order, pointer, transform):
    """A MultiPolygon for each zone, as an object array."""
    import shapely

    if pointer.size == 1:
        return np.empty(0, object)
    kept = np.sort(order)
    rows, starts, stops = (runs[name][kept] for name in ("row", "start", "stop"))
    parts = zones.label_runs(rows, starts, stops, runs["code"][kept], 0)
    vertices, ends, ring_zone, ring_part = zones.outlines(
        np.searchsorted(kept, order), pointer, rows, starts, stops, parts
    )
    # rings by zone, then by part; the outer ring of a part was walked first and stays first
    by = np.lexsort((np.arange(ends.size), ring_part, ring_zone))
    size = np.diff(ends, prepend=0)
    begin = ends - size
    ring_offsets = np.concatenate([[0], np.cumsum(size[by])])
    within = np.arange(ring_offsets[-1]) - np.repeat(ring_offsets[:-1], size[by])
    if transform.determinant > 0:  # y counts downwards: walk the other way, so that outer rings stay counter-clockwise
        within = np.repeat(size[by], size[by]) - 1 - within
    vertices = vertices[np.repeat(begin[by], size[by]) + within].astype(np.float64)
    xy = np.empty_like(vertices)
    xy[:, 0] = transform.a * vertices[:, 1] + transform.b * vertices[:, 0] + transform.c
    xy[:, 1] = transform.d * vertices[:, 1] + transform.e * vertices[:, 0] + transform.f
    part, zone = ring_part[by], ring_zone[by]
    new_part = np.concatenate([[True], (part[1:] != part[:-1]) | (zone[1:] != zone[:-1])])
    part_offsets = np.append(np.flatnonzero(new_part), by.size)
    zone_of_part = zone[new_part]
    zone_offsets = np.searchsorted(zone_of_part, np.arange(pointer.size))
    kind = shapely.GeometryType.MULTIPOLYGON
    return np.asarray(shapely.from_ragged_array(kind, xy, (ring_offsets, part_offsets, zone_offsets)), object)


def _equal_area(box):
    """Transformer from the grid's CRS to an equal-area one in which the sides of pixels stay straight lines."""
    from pyproj import Transformer

    if not box.crs.projected:
        return Transformer.from_crs(str(box.crs), "EPSG:6933", always_xy=True)
    x, y = box.affine * (box.shape[1] / 2, box.shape[0] / 2)
    lon, lat = Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True).transform(x, y)
    laea = f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f} +datum=WGS84 +units=m"
    return Transformer.from_crs(str(box.crs), laea, always_xy=True)


def _area_m2(geometry, box):
    import shapely

    if box is None or not geometry.size:
        return np.full(geometry.size, np.nan)
    to_equal_area = _equal_area(box)
    out = np.empty(geometry.size)
    for k in range(0, geometry.size, 100_000):  # blocks bound the memory that the copies take
        flat = shapely.transform(geometry[k : k + 100_000], lambda xy: np.column_stack(to_equal_area.transform(*xy.T)))
        out[k : k + 100_000] = shapely.area(flat)
    return out


def _largest_pixel_m2(box):
    """Ground area of the largest of the pixels at the grid's corners, sides and centre, with a margin of 1 %."""
    import shapely

    height, width = box.shape
    corners = [(c, r) for r in {0, height // 2, height - 1} for c in {0, width // 2, width - 1}]
    cells = [
        shapely.Polygon([box.affine * (c + i, r + j) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]) for c, r in corners
    ]
    return 1.01 * float(_area_m2(np.array(cells, object), box).max())


def _ids(table, transform, box, site, kind):
    crs = "" if box is None else str(box.crs)
    # a hundredth of a pixel is far below any grid's offset, and far above the noise of the arithmetic
    quantum = 0.01 * np.sqrt(abs(transform.determinant))
    col, row = table["col"] + 0.5, table["row"] + 0.5
    x = np.rint((transform.a * col + transform.b * row + transform.c) / quantum).astype(np.int64)
    y = np.rint((transform.d * col + transform.e * row + transform.f) / quantum).astype(np.int64)
    return np.array(
        [
            str(uuid.uuid5(_NAMESPACE, f"{site}|{kind}|{crs}|{direction}|{day}|{i}|{j}"))
            for direction, day, i, j in zip(table["direction"], table["first_date"], x, y)
        ],
        object,
    )


def _days(stamps):
    return days_since_1970(stamps, zones.NO_DAY)


def _frame(table, geometry, box, texts, detected_at):
    import geopandas as gpd

    n = len(geometry)
    columns = {}
    for name, dtype in FIELDS.items():
        if name == "detected_at":
            stamp = pd.Timestamp("NaT") if detected_at is None else pd.to_datetime(detected_at, utc=True)
            columns[name] = pd.Series([stamp] * n, dtype=dtype)
        elif name == "status":
            columns[name] = pd.Series([STATUS[code] for code in table[name].tolist()], dtype=dtype)
        elif name in texts:
            columns[name] = pd.Series([texts[name]] * n, dtype=dtype)
        elif dtype == "datetime64[ms]":
            days = table[name].astype(np.int64)
            stamps = np.where(days == zones.NO_DAY, np.datetime64("NaT", "D"), days.astype("datetime64[D]"))
            columns[name] = pd.Series(stamps.astype("datetime64[ms]"))
        else:
            columns[name] = pd.Series(table[name], dtype=dtype)
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=None if box is None else str(box.crs))
