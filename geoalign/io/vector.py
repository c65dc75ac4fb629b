"""Polygons out: GeoPackage, FlatGeobuf, GeoJSON and GeoParquet, chosen by the file's suffix, each written whole."""

from __future__ import annotations

from pathlib import Path

from geoalign.errors import ConfigError
from geoalign.io.atomic import atomic

LAYER = "changes"
"""Name of the one layer."""

FORMATS = {
    ".gpkg": "GeoPackage",
    ".fgb": "FlatGeobuf",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".parquet": "GeoParquet",
    ".geoparquet": "GeoParquet",
}


def write_polygons(frame, path) -> Path:
    """Write a frame of polygons; the suffix chooses the format. The old file stays until the new one is whole.

    - `.gpkg` GeoPackage 1.2 (QGIS 3.22 warns about newer ones) with one layer, `changes`.
    - `.fgb` FlatGeobuf. It has no type for dates: they become times at midnight.
    - `.geojson`, `.json` GeoJSON as RFC 7946: longitude and latitude (WGS 84), 7 decimals, outer rings
      counter-clockwise, dates as ISO text, the field `id` as the feature's id.
    - `.parquet`, `.geoparquet` GeoParquet.

    Columns of times without a zone are taken for dates and written as DATE where all of them are whole days, as those
    from `polygons` are; also in an empty frame, which gives a valid, empty file with all its fields.

    Parameters
    ----------
    frame : GeoDataFrame, as from `polygons`
    path : str or Path

    Returns
    -------
    Path of the file.

    Raises
    ------
    ConfigError
        For an unknown suffix, and for GeoJSON without a CRS.

    Examples
    --------
    >>> import tempfile, geopandas as gpd, shapely
    >>> square = gpd.GeoDataFrame({"n_pixels": [1]}, geometry=[shapely.box(0, 0, 10, 10)], crs="EPSG:32633")
    >>> write_polygons(square, tempfile.mkdtemp() + "/changes.gpkg").name
    'changes.gpkg'
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"polygons can't be written to {path.name!r}: suffix {path.suffix!r} is unknown. "
            f"Use one of {', '.join(f'{suffix} ({name})' for suffix, name in FORMATS.items())}."
        )
    if kind == "GeoJSON" and frame.crs is None:
        raise ConfigError(
            f"{path.name} needs longitude and latitude, but these polygons have no CRS. Set one, or write .gpkg."
        )
    frame = _with_dates(frame)
    with atomic(path) as partial:
        if kind == "GeoParquet":
            frame.to_parquet(partial, index=False, compression="zstd", write_covering_bbox=True)
        else:
            _write_ogr(frame, partial, kind)
    return path


def _write_ogr(frame, path, kind):
    import pyogrio

    options: dict = {}
    if kind == "GeoPackage":
        options = {"driver": "GPKG", "dataset_options": {"VERSION": "1.2"}}
    elif kind == "FlatGeobuf":
        options = {"driver": "FlatGeobuf"}
    else:
        layer_options = {"RFC7946": "YES", "COORDINATE_PRECISION": "7"}
        if "id" in frame:
            layer_options["ID_FIELD"] = "id"
        options = {"driver": "GeoJSON", "layer_options": layer_options}
    types = set(frame.geom_type.dropna())
    if types <= {"Polygon", "MultiPolygon"}:
        options |= {"geometry_type": "MultiPolygon", "promote_to_multi": True}
    # only the arrow way writes DATE columns; the other makes them text
    pyogrio.write_dataframe(frame, path, layer=LAYER, use_arrow=True, **options)


def _with_dates(frame):
    """Columns of whole days as arrow dates, which every writer keeps as DATE."""
    import pandas as pd
    import pyarrow as pa

    frame = frame.copy()
    for name in frame.columns.drop(frame.geometry.name):
        column = frame[name]
        if column.dtype.kind == "M" and getattr(column.dtype, "tz", None) is None:
            known = column.dropna()
            if (known == known.dt.normalize()).all():
                frame[name] = column.astype(pd.ArrowDtype(pa.date32()))
    return frame
