"""Changes out and in: a folder of COGs, one a layer, with QGIS styles and a STAC item beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from geoalign.chunked import BLOCK, row_blocks
from geoalign.errors import StateError
from geoalign.io.atomic import move_into
from geoalign.io.encoding import Layer, layer_from_tags, layer_of
from geoalign.types.changes import STATUS, VARIABLES, check_changes, new_changes
from geoalign.types.stack import geobox_of, grid_coords, transform_of

COG_BLOCK = 512
"""Side of a COG's tiles, px."""
COG_THREADS = 4
"""Layers that are packed at once at most; each by one thread."""

_SPAN = ("date", "date_after", "date_by")
_ATTRS = ("kind", "detector", "prior", "geoalign_version", "inputs")


def write_changes(changes, folder, *, polygons=None, date_encoding: str = "days", run=None) -> dict[str, Path]:
    """Write Changes to a folder: a COG for each layer, styles, a QGIS layer definition and a STAC item.

    Lazy layers are computed together, block of rows after block of rows, once. Everything is made in a hidden folder
    and moved into place, file by file, when all of it is whole.

    Files
    -----
    - `status.tif date.tif date_after.tif ...`: one COG a layer (detectors' further layers too), tiles of 512 px,
      DEFLATE, band description and unit tags. Dates are int32, 0 = none; floats have NaN, counts and flags their
      largest value as nodata; `status` has 255, *not observable*. Overviews: nearest for codes, flags and dates,
      averages for magnitude, probability and counts. `direction` is stored as int16, which every GDAL can read.
    - `*.qml`: QGIS styles for each of them, `changes.gpkg` and `changes.qml` where `polygons` are given.
    - `changes.qlr`: drag it into QGIS (3.22 or later): all layers, styled, the polygons with their dates as time.
    - `item.json`, `collection.json`: STAC 1.1, relative links. `README.md`: what every file and field means.

    Parameters
    ----------
    changes : Changes (y, x), lazy or not
    folder : made where it is missing; files of the same names are replaced
    polygons : GeoDataFrame from `polygons`, or a function that makes it from Changes, optional
        A function is called with the layers as written, so that nothing is computed twice:
        `polygons=lambda layers: geoalign.polygons(layers, min_area_m2=1000)`.
    date_encoding : "days", "yyyymmdd" or "year"
        Days since 1970-01-01 by default. `year` loses the day.
    run : mapping, optional
        What is known about the run, for the STAC item: see `stac_out.RUN_KEYS`.

    Returns
    -------
    dict name -> Path: every layer by its name, and `polygons`, `project` (the .qlr), `item`, `collection`, `readme`.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> from geoalign import new_changes, read_changes
    >>> flag = xr.DataArray(np.eye(4, dtype=np.uint8), dims=("y", "x"))
    >>> day = xr.where(flag > 0, np.datetime64("2024-05-01", "ns"), np.datetime64("NaT", "ns"))
    >>> layers = dict(status=3 * flag, date=day, date_after=day - np.timedelta64(6, "D"), date_by=day, direction=-flag)
    >>> layers |= dict(magnitude=4.0 * flag, probability=0.9 * flag, n_obs=9 + flag, why=0 * flag)
    >>> files = write_changes(new_changes(layers, kind="flood", detector="by hand"), tempfile.mkdtemp())
    >>> int((read_changes(files["status"].parent).status == 3).sum())
    4
    """
    from geoalign.io import stac_out, style
    from geoalign.io.readme import write_readme
    from geoalign.io.vector import write_polygons

    check_changes(changes)
    folder = Path(folder)
    layers = [layer_of(str(name), variable, date_encoding) for name, variable in changes.data_vars.items()]
    _check_names(layers)
    stac_out.check_run(run)
    with _staging(folder) as part:
        counts, span = _write_cogs(changes, layers, part)
        files = {layer.name: part / layer.file for layer in layers}
        frame = polygons(read_changes(part)) if callable(polygons) else polygons
        if frame is not None:
            files["polygons"] = write_polygons(frame, part / "changes.gpkg")
        files["project"] = style.write_styles(part, layers, files, frame, title=changes.attrs["kind"])
        files["item"] = stac_out.write_item(part, changes, layers, files, counts=counts, span=span, run=run)
        files["collection"] = stac_out.write_collection(part / "collection.json", [files["item"]])
        files["readme"] = write_readme(part, changes, layers, frame)
        move_into(part, folder)
    return {name: folder / path.name for name, path in files.items()}


def read_changes(folder, *, chunks: int | None = BLOCK) -> xr.Dataset:
    """The Changes that `write_changes` wrote; the same values, dates to the day.

    Parameters
    ----------
    folder : path
    chunks : px a side of the lazy chunks; None reads everything now

    Returns
    -------
    Changes (y, x), lazy by default.

    Raises
    ------
    StateError
        Where files are missing, can't be read, or do not lie on one grid.
    """
    import rasterio

    folder = Path(folder)
    paths = sorted(path for path in folder.glob("*.tif") if not path.name.startswith("."))
    found: dict[str, tuple[Layer, Path]] = {}
    grids, tags = {}, {}
    for path in paths:
        try:
            with rasterio.open(path, driver="GTiff") as file:
                layer = layer_from_tags(file.tags(), file.count, file.dtypes[0], file.nodata, path.name)
                if layer is None:
                    continue
                grids[path.name] = (file.shape, file.transform, file.crs)
                tags = file.tags() if layer.name == "status" else tags
        except rasterio.RasterioIOError as err:
            raise StateError(f"{path} can't be read: {err}. Write the layers again.") from err
        found[layer.name] = (layer, path)
    absent = [name for name in VARIABLES if name not in found]
    if absent:
        raise StateError(
            f"{folder} does not hold Changes: {', '.join(absent)} missing among {len(paths)} .tif files. "
            "Give a folder that write_changes wrote."
        )
    if len(set(grids.values())) != 1:
        raise StateError(f"the layers in {folder} do not lie on one grid; write them again, into an empty folder.")
    coords = _coords(*next(iter(grids.values())))
    shape = next(iter(grids.values()))[0]
    order = [*VARIABLES, *(name for name in found if name not in VARIABLES)]
    arrays = {name: _open_layer(*found[name], shape, chunks) for name in order}
    attrs = {key: tags.get(f"GEOALIGN_{key.upper()}", "") for key in _ATTRS}
    out = new_changes(
        {name: array.assign_coords(coords) for name, array in arrays.items()},
        kind=attrs["kind"],
        detector=attrs["detector"],
        prior=float(attrs["prior"] or "nan"),
        inputs=attrs["inputs"].split(),
    )
    for name in order:
        out[name].attrs |= {k: v for k, v in found[name][0].attrs.items() if k not in out[name].attrs or k == "units"}
    out.attrs["geoalign_version"] = attrs["geoalign_version"]
    return out


def _write_cogs(changes, layers, folder):
    """Stream all layers into striped files, then turn each into a COG.

    Returns pixels by status name, and the first and last date (None where nothing changed).
    """
    import rasterio

    height, width = changes.sizes["y"], changes.sizes["x"]
    box = geobox_of(changes)
    crs = None if box is None else box.crs.to_wkt()
    counts, known = np.zeros(256, np.int64), []
    with ExitStack() as stack:
        files = {}
        for layer in layers:
            # one row a strip: blocks of rows of any height are written without reading anything back; and as they are,
            # since packing them for the moment until they are read again costs more than the COG itself
            files[layer.name] = stack.enter_context(
                rasterio.open(
                    folder / f"{layer.file}.strips", "w", driver="GTiff", height=height, width=width,
                    count=layer.size, dtype=layer.stored, nodata=layer.nodata, blockysize=1,
                    interleave="band", BIGTIFF="IF_SAFER", SPARSE_OK=True, crs=crs, transform=transform_of(changes),
                )
            )  # fmt: skip
            _describe(files[layer.name], layer, changes)
        encode = {layer.name: layer.encode for layer in layers}
        for row0, block in row_blocks(changes, rows=COG_BLOCK, encode=encode):
            counts += np.bincount(block.status.values.ravel(), minlength=256)
            known += [date for layer in layers if layer.name in _SPAN for date in _extremes(layer, block)]
            for layer in layers:
                values = block[layer.name].values.reshape(layer.size, -1, width)
                window = rasterio.windows.Window(0, row0, width, values.shape[1])
                files[layer.name].write(values, window=window)
            del block, values
    # the widest first, so that the last to end is a small one
    order = sorted(layers, key=lambda layer: -np.dtype(layer.stored).itemsize * layer.size)
    with ThreadPoolExecutor(min(COG_THREADS, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda layer: _cog(folder, layer), order))
    span = (min(known), max(known)) if known else None
    return {STATUS[code]: int(counts[code]) for code in STATUS}, span


def _cog(folder, layer):
    """The COG of a layer from its strips, which go."""
    import rasterio.shutil

    strips = folder / f"{layer.file}.strips"
    # measured quantities hardly shrink: the quickest level takes half the time for files that are 2 % larger
    level = 1 if np.dtype(layer.stored).kind == "f" else 6
    rasterio.shutil.copy(
        strips, folder / layer.file, driver="COG", COMPRESS="DEFLATE", LEVEL=level, PREDICTOR="YES",
        BLOCKSIZE=COG_BLOCK, OVERVIEW_RESAMPLING=layer.overviews, BIGTIFF="IF_SAFER", NUM_THREADS="1",
    )  # fmt: skip
    strips.unlink()


def _extremes(layer, block):
    """First and last date of a layer as encoded; every encoding keeps the order."""
    values = block[layer.name].values
    values = values[values != layer.nodata]
    return list(layer.decode(np.array([values.min(), values.max()]))) if values.size else []


def _describe(file, layer, changes):
    from geoalign.io.style import STATUS_COLOURS

    for band in range(1, layer.size + 1):
        title = f"{layer.title} ({layer.dim} {band})" if layer.dim else layer.title
        file.set_band_description(band, title)
        if layer.units:
            file.set_band_unit(band, layer.units)
    file.update_tags(TIFFTAG_SOFTWARE=f"geoalign {changes.attrs['geoalign_version']}", **layer.tags)
    file.update_tags(**{f"GEOALIGN_{key.upper()}": str(changes.attrs[key]) for key in _ATTRS})
    if layer.name == "status":
        file.write_colormap(1, STATUS_COLOURS)


def _open_layer(layer, path, shape, chunks):
    import dask.array as da
    from dask.base import tokenize

    dims = ((layer.dim,) if layer.dim else ()) + ("y", "x")
    if chunks is None:
        return xr.DataArray(_read(path, layer, (0, shape[0], 0, shape[1])), dims=dims)
    sizes = tuple((chunks,) * (n // chunks) + ((n % chunks,) if n % chunks else ()) for n in shape)
    lead = ((layer.size,),) if layer.dim else ()
    stat = path.stat()

    def read(block_info=None):
        rows, cols = block_info[None]["array-location"][-2:]
        return _read(path, layer, (*rows, *cols))

    name = f"read-changes-{tokenize(str(path), stat.st_mtime_ns, stat.st_size, chunks)}"
    meta = np.empty((0,) * len(dims), layer.dtype)
    array = da.map_blocks(read, chunks=lead + sizes, dtype=layer.dtype, name=name, meta=meta)
    return xr.DataArray(array, dims=dims)


def _read(path, layer, place):
    import rasterio

    window = rasterio.windows.Window.from_slices(place[:2], place[2:])
    with rasterio.open(path, driver="GTiff") as file:
        values = file.read(window=window)
    return layer.decode(values if layer.dim else values[0])


def _coords(shape, transform, crs):
    from odc.geo.geobox import GeoBox

    if crs is None:
        rows, cols = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
        return {"y": ("y", transform.e * rows + transform.f), "x": ("x", transform.a * cols + transform.c)}
    code = crs.to_epsg()
    return grid_coords(GeoBox(shape, transform, f"EPSG:{code}" if code else crs.to_wkt()), shape)


def _check_names(layers):
    names = [layer.file.lower() for layer in layers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StateError(f"several layers would be written to {', '.join(twice)}; rename one of them.")


@contextmanager
def _staging(folder) -> Iterator[Path]:
    part = folder / f".part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
