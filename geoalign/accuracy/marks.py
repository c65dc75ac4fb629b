"""Polygons that a person marked right or wrong, kept in a file, and what they say about a map: `marked`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from geoalign.errors import ConfigError, StackError

VERDICTS = ("right", "wrong")
COLUMNS = ("id", "layer", "change_type", "start_date", "date_after", "date_by", "verdict", "marked_at")
"""Columns of a frame of marks, before its geometry."""


def mark(marks, row, verdict: str, *, layer: str = "", when=None):
    """A frame of marks with one more polygon, or the same marked anew.

    Parameters
    ----------
    marks : GeoDataFrame with `COLUMNS`, None for none yet
    row : GeoDataFrame of one row, as of `geoalign.polygons`
    verdict : "right" or "wrong"
    layer : name of the layer it is from: the same id in another layer is another polygon
    when : time of marking, UTC; now by default

    Returns
    -------
    GeoDataFrame; neither input is changed.
    """
    import geopandas as gpd

    if verdict not in VERDICTS:
        raise ConfigError(f"verdict is {verdict!r}; a polygon is {' or '.join(VERDICTS)}.")
    one = row.iloc[0]
    when = pd.Timestamp.now("UTC") if when is None else pd.Timestamp(when)
    record = {name: one.get(name) for name in COLUMNS[:-2]} | {"layer": layer, "verdict": verdict, "marked_at": when}
    new = gpd.GeoDataFrame([record], geometry=[one[row.geometry.name]], crs=row.crs)[[*COLUMNS, "geometry"]]
    for name in ("start_date", "date_after", "date_by"):
        new[name] = pd.to_datetime(new[name]).astype("datetime64[ms]")
    if marks is None or not len(marks):
        return new
    old = marks[~((marks["id"] == record["id"]) & (marks["layer"] == layer))].to_crs(new.crs) if new.crs else marks
    return gpd.GeoDataFrame(pd.concat([old, new], ignore_index=True), geometry="geometry", crs=new.crs)


def marked(marks, like) -> xr.Dataset:
    """Marked polygons as a reference on a grid, ready for `assess(changes, ref.date, valid=ref.valid)`.

    Parameters
    ----------
    marks : GeoDataFrame of marks, or the path of a .gpkg or .geojson that the explorer saved
    like : Changes or another Dataset on the grid

    Returns
    -------
    Dataset (y, x): `valid`, where a polygon was marked; `date`, the day of change in those marked right, NaT elsewhere.
    Only mapped polygons can be marked, so they tell precision and dates, and nothing about what was missed.

    Raises
    ------
    StackError
        The grid has no CRS while the marks have one.

    Examples
    --------
    >>> import geopandas as gpd, shapely
    >>> from geoalign import new_stack
    >>> from geoalign.accuracy import marked
    >>> grid = new_stack({"a": np.ones((1, 2, 3))}, ["2024-01-01"])
    >>> rows = {"verdict": ["right"], "start_date": [np.datetime64("2024-05-01")]}
    >>> ref = marked(gpd.GeoDataFrame(rows, geometry=[shapely.box(-0.5, -0.5, 1.5, 0.5)]), grid)
    >>> ref.valid.values.astype(int).tolist(), str(ref.date.values[0, 0])[:10]
    ([[1, 1, 0], [0, 0, 0]], '2024-05-01')
    """
    import geopandas as gpd
    from rasterio.features import rasterize

    from geoalign.types.stack import geobox_of, transform_of

    if isinstance(marks, str | Path):
        marks = gpd.read_file(marks, use_arrow=True)
    absent = [name for name in ("verdict", "start_date") if name not in marks]
    if absent:
        raise StackError(f"the marks have no column {', '.join(absent)} (they have {', '.join(marks.columns)}).")
    box = geobox_of(like)
    if marks.crs is not None and box is None:
        raise StackError("the grid has no CRS, the marks have one; give Changes with a CRS.")
    if marks.crs is not None:
        marks = marks.to_crs(str(box.crs))
    shape = like.sizes["y"], like.sizes["x"]
    days = pd.to_datetime(marks["start_date"]).to_numpy().astype("datetime64[D]")
    right = (marks["verdict"] == "right").to_numpy() & ~np.isnat(days)
    # 1 marked wrong, from 2 on the day of change: numbers of days since the first
    first = days[right].min() if right.any() else np.datetime64("1970-01-01")
    value = np.where(right, (days - first).astype("timedelta64[D]").astype(np.int64) + 2, 1)
    burnt = np.zeros(shape, np.int32)
    if len(marks):
        burnt = rasterize(zip(marks.geometry, value.tolist()), out_shape=shape, transform=transform_of(like), fill=0,
                          dtype="int32")  # fmt: skip
    date = np.where(burnt >= 2, first + (burnt - 2).astype("timedelta64[D]"), np.datetime64("NaT", "D"))
    coords = {k: v for k, v in like.coords.items() if k in ("y", "x", "spatial_ref")}
    layers = {"valid": (("y", "x"), burnt > 0), "date": (("y", "x"), date.astype("datetime64[ns]"))}
    return xr.Dataset(layers, coords=coords)
