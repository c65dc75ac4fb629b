"""What an alignment carries besides images: digitised vectors, label rasters, and quantities that are summed.

What contour propagation, atlas labelling and dose accumulation are in medical registration. `Alignment.propagate`,
`.transfer` and `.accumulate` call these.
"""

from __future__ import annotations

from difflib import get_close_matches

import numpy as np
import xarray as xr

from geoalign import chunked
from geoalign.errors import ConfigError, StackError
from geoalign.types.stack import geobox_of, grid_coords
from geoalign.types.warp import Affine, Shift

CHORD_PX = 0.001
"""An edge is divided so finely that the warp's bend departs from its pieces by no more than this."""
MOST_CLASSES = 256
"""Classes of a label raster that `transfer` weighs; more are identities of objects, for which "nearest" is meant."""
EXACT = 24
"""Bits of an integer that float32, in which images are resampled, holds exactly."""


def propagate(alignment, frame, *, scene, inverse=False):
    """Vectors drawn on the reference as they lie in a scene, or the other way round.

    Parameters
    ----------
    alignment : Alignment
    frame : GeoDataFrame
        Points, lines or polygons in any CRS. Of an alignment without a grid: x = column, y = row, pixel centres at
        integers, no CRS.
    scene : str
        A scene that has a warp.
    inverse : bool
        False: from the reference to the scene. True: from the scene to the reference.

    Returns
    -------
    GeoDataFrame with the same rows, index, attributes and CRS. Edges, taken as straight on the alignment's grid, get as
    many vertices as it takes to follow the warp to 0.001 px; a shift or affine warp adds none. Empty and missing
    geometries stay.

    Raises
    ------
    StackError where the scene is unknown or has no warp, a CRS is missing, or a geometry leaves the reference's grid,
    outside of which nothing is known about the warp.

    Examples
    --------
    >>> import geopandas as gpd, pandas as pd, shapely
    >>> from geoalign import Alignment, Shift
    >>> alignment = Alignment("a", {"b": Shift(1.5, -2)}, pd.DataFrame(), shape=(40, 40))
    >>> field = gpd.GeoDataFrame({"crop": ["rye"]}, geometry=[shapely.box(10, 10, 20, 20)])
    >>> propagate(alignment, field, scene="b").total_bounds.tolist()
    [8.0, 11.5, 18.0, 21.5]
    """
    import geopandas as gpd
    import shapely

    if not isinstance(frame, gpd.GeoDataFrame | gpd.GeoSeries):
        raise StackError(f"propagate carries a GeoDataFrame or GeoSeries, not a {type(frame).__name__}.")
    warp = warp_of(alignment, scene)
    box = alignment.geobox
    if box is not None and frame.crs is None:
        raise StackError(
            f"the frame has no CRS, the alignment's grid has {box.crs}; say which it is: frame.set_crs(...)."
        )
    if box is None and frame.crs is not None:
        raise StackError(
            f"the alignment has no grid, so that a frame in {frame.crs} has no place in it; give x = column, y = row."
        )
    old = frame.geometry
    on_grid = old if box is None else old.to_crs(str(box.crs))
    shapes = _to_pixels(on_grid.array, box)
    spacing = spacing_px(warp, alignment.shape)
    if np.isfinite(spacing):
        shapes = shapely.segmentize(shapes, spacing)
    moved = _pulled(shapes, warp.inverse() if inverse else warp)
    _check_inside(moved if inverse else shapes, frame.index, alignment.shape)
    # new geometry only: a frame may have other geometry columns, which stay as they are
    carried = gpd.GeoSeries(_to_map(moved, box), index=frame.index, crs=on_grid.crs, name=old.name)
    carried = carried if box is None else carried.to_crs(frame.crs)
    return carried if isinstance(frame, gpd.GeoSeries) else frame.set_geometry(carried)


def transfer(
    alignment,
    labels,
    *,
    scene,
    inverse=False,
    method="nearest",
    nodata=None,
    return_probability=False,
):
    """A label raster of the reference as it lies in a scene, or the other way round.

    Parameters
    ----------
    alignment : Alignment
    labels : array or DataArray (row, col) on the alignment's grid; NumPy or dask
        Integers, booleans, or floats that hold whole numbers below 16,777,216 and NaN.
    scene : str
    inverse : bool
        False: from the reference to the scene. True: from the scene to the reference.
    method : "nearest" or "probability"
        "probability" resamples each class's membership linearly and takes the largest (of equals the nearest pixel's);
        it reads the labels once for their classes, and is meant for at most 256.
    nodata : number
        The label that means not observed. None takes attrs["nodata"] or ["_FillValue"]; NaN always does.
    return_probability : bool
        Also the share of the label that won, 0..1 float32, NaN = not observed; for "probability" only.

    Returns
    -------
    Labels of the same kind and type, lazy where the input is, or (labels, probability). A pixel whose nearest source
    pixel was not observed or lies outside gets `nodata`; where there is none, NaN in floats, 0 or False otherwise.

    Raises
    ------
    StackError where the scene is unknown, has no warp, or the labels lie on another grid; ConfigError for options.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from geoalign import Alignment, Shift
    >>> alignment = Alignment("a", {"b": Shift(0, 1)}, pd.DataFrame(), shape=(2, 4))
    >>> transfer(alignment, np.array([[1, 1, 2, 2], [3, 3, 3, 3]]), scene="b").tolist()
    [[0, 1, 1, 2], [0, 3, 3, 3]]
    """
    if method not in ("nearest", "probability"):
        raise ConfigError(f"method {method!r} is unknown; choose nearest or probability.")
    if return_probability and method != "probability":
        raise ConfigError("the nearest label has no probability; use method='probability'.")
    warp = warp_of(alignment, scene)
    given = isinstance(labels, xr.DataArray)
    image = _image(alignment, labels, "labels")
    if nodata is None and given:
        nodata = labels.attrs.get("nodata", labels.attrs.get("_FillValue"))
    if image.dtype.kind not in "biuf":
        raise StackError(f"labels are of type {image.dtype}; integers, booleans or floats are needed.")
    if image.dtype.kind != "f" and nodata is not None and nodata != np.array(nodata).astype(image.dtype):
        raise ConfigError(f"nodata {nodata!r} can't be held by labels of type {image.dtype}.")
    # the label at a pixel of the target lies where that pixel is found in the source
    source = warp if inverse else warp.inverse()
    empty = nodata if nodata is not None else (np.nan if image.dtype.kind == "f" else 0)
    seen = image == image if nodata is None else (image == image) & (image != nodata)
    near, known = _nearest(image, seen, source, alignment.shape)
    probability = None
    if method == "probability":
        near, probability = _weighed(image, seen, near, source, alignment.shape)
        probability = xr.where(known, probability, np.float32(np.nan))
    out = xr.where(known, near, np.array(empty, image.dtype)).astype(image.dtype)
    if not given:
        return (out.data, probability.data) if return_probability else out.data
    out = labels.transpose("y", "x").copy(data=out.data)
    if not return_probability:
        return out
    return out, out.copy(data=probability.data).rename("probability").assign_attrs(units="1")


def accumulate(alignment, layers, *, per_pixel):
    """Sum, in the reference frame, of quantities that were mapped in scenes' own frames.

    Parameters
    ----------
    alignment : Alignment
    layers : dict scene -> array or DataArray (row, col), or DataArray (time, y, x) with the coordinate `scene`
        On the alignment's grid, NaN = not observed; NumPy or dask.
    per_pixel : bool
        True for what a pixel holds (counts, hectares, tonnes): a pixel that becomes larger or smaller on the way takes
        its share, by the determinant of the warp's Jacobian, and totals are conserved. False for what holds at a
        place whatever the pixel's size (densities, millimetres of rain, a probability).

    Returns
    -------
    Dataset (y, x), lazy where any layer is: `total`, float64, of the scenes that saw the pixel, NaN where none did;
    `n_obs`, uint16, how many did. Divide one by the other for a mean.

    Raises
    ------
    StackError where a scene is unknown or has no warp, or a layer lies on another grid.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from geoalign import Affine, Alignment
    >>> half = Affine(((0.5, 0, 0), (0, 0.5, 0)))  # the scene shows the ground at half the size
    >>> alignment = Alignment("a", {"b": half}, pd.DataFrame(), shape=(8, 8))
    >>> float(accumulate(alignment, {"b": np.ones((8, 8))}, per_pixel=True).total[4, 4])
    0.25
    """
    scenes = _by_scene(layers)
    if not scenes:
        raise StackError("there is nothing to accumulate: give at least one scene's layer.")
    parts = []
    for name, layer in scenes.items():
        warp = warp_of(alignment, name)
        image = _image(alignment, layer, f"the layer of scene {name!r}").astype(np.float32)
        # linear: never below zero, and every source pixel's weights add up to its share
        values = _pull(image, warp, alignment.shape, "bilinear")
        parts.append(_by_area(values, warp) if per_pixel else values)
    cube = xr.concat(parts, "scene")
    outputs = {"total": "float64", "n_obs": "uint16"}
    return chunked.per_pixel(_sum, cube, outputs=outputs).assign_coords(grid_coords(alignment.geobox, alignment.shape))


def warp_of(alignment, scene):
    """The warp of a scene, or StackError saying why it has none."""
    if scene in alignment.warps:
        return alignment.warps[scene]
    report = alignment.report
    if "scene" in report and (report["scene"] == scene).any():
        row = report[report["scene"] == scene].iloc[0]
        raise StackError(f"scene {scene!r} was {row['status']} and has no warp: {row['reason']}")
    near = get_close_matches(str(scene), list(alignment.warps), 1, 0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = ", ".join(alignment.warps) or "none"
    raise StackError(f"scene {scene!r} is not in this alignment (with a warp: {known}).{hint}")


# ------------------------------------------------------------------------------------------------------------ vectors


def spacing_px(warp, shape) -> float:
    """Length of an edge (px) whose image under the warp is straight to CHORD_PX; inf for shift and affine.

    A chord of length h departs by h^2 / 8 times the second derivative, here the largest found over the image.
    """
    if isinstance(warp, Shift | Affine):
        return float("inf")
    step = max(min(shape) / 96, 1.0)
    rows, cols = np.meshgrid(*(np.arange(0, n + step, step) for n in shape), indexing="ij")
    here = warp.jacobian(rows, cols)
    bend = max(np.abs(np.diff(here, axis=axis)).max() for axis in (0, 1)) / step
    # along a diagonal both axes bend it, and between the samples it may bend more
    return float(np.sqrt(8 * CHORD_PX / (4 * bend))) if bend > 1e-12 else float("inf")


def _to_pixels(geometries, box):
    """Geometries in map units as (x = column, y = row), pixel centres at integers."""
    if box is None:
        return np.asarray(geometries)
    inverse = ~box.affine

    def pixels(x, y):
        return inverse.a * x + inverse.b * y + inverse.c - 0.5, inverse.d * x + inverse.e * y + inverse.f - 0.5

    return _mapped(geometries, pixels)


def _to_map(geometries, box):
    if box is None:
        return geometries
    a = box.affine

    def place(x, y):
        return a.a * (x + 0.5) + a.b * (y + 0.5) + a.c, a.d * (x + 0.5) + a.e * (y + 0.5) + a.f

    return _mapped(geometries, place)


def _pulled(geometries, warp):
    def pull(x, y):
        rows, cols = warp.pull(y, x)
        return cols, rows

    return _mapped(geometries, pull)


def _mapped(geometries, function):
    """Every vertex (x, y) through a function; heights stay."""
    import shapely

    out = np.array(geometries, dtype=object)
    for deep in (False, True):
        some = shapely.has_z(out) == deep

        def apply(points):
            x, y = function(points[:, 0].copy(), points[:, 1].copy())
            return np.column_stack([x, y, *points.T[2:]])

        if some.any():
            out[some] = shapely.transform(out[some], apply, include_z=deep)
    return out


def _check_inside(geometries, index, shape):
    import shapely

    # a thousandth: a polygon drawn along the very edge comes back to it with rounding
    room = 0.501
    bounds = shapely.bounds(geometries)
    with np.errstate(invalid="ignore"):
        out = (bounds[:, :2] < -room).any(axis=1) | (bounds[:, 2:] > np.array(shape[::-1]) - 1 + room).any(axis=1)
    if out.any():
        named = ", ".join(repr(k) for k in index[out][:5])
        more = f" and {out.sum() - 5} more" if out.sum() > 5 else ""
        raise StackError(
            f"{out.sum()} of {len(out)} geometries leave the grid of {tuple(shape)} px (index {named}{more}), outside "
            "of which the warp is not known; clip them to alignment.geobox.extent first."
        )


# ------------------------------------------------------------------------------------------------------------ rasters


def _image(alignment, layer, name):
    """A layer as a bare DataArray (y, x), checked to lie on the alignment's grid."""
    if isinstance(layer, xr.DataArray):
        if set(layer.dims) != {"y", "x"}:
            raise StackError(f"{name}: dimensions {tuple(layer.dims)}; (y, x) are needed.")
        here = geobox_of(layer)
        if alignment.geobox is not None and here is not None and here != alignment.geobox:
            raise StackError(f"{name}: the grid ({here.crs}, {tuple(here.affine[:6])}) is not the alignment's.")
        layer = layer.transpose("y", "x").data
    elif not hasattr(layer, "dtype"):
        layer = np.asarray(layer)
    if tuple(layer.shape) != tuple(alignment.shape):
        raise StackError(f"{name}: shape {tuple(layer.shape)}; the alignment's grid has {tuple(alignment.shape)} px.")
    return xr.DataArray(layer, dims=("y", "x"))


def _pull(image, warp, shape, resampling):
    return xr.DataArray(chunked.pull(image.data, warp, shape, resampling=resampling), dims=("y", "x"))


def _nearest(image, seen, warp, shape):
    """The nearest pixel's label, whatever it is, and whether that pixel was observed."""
    known = _pull(seen.astype(np.float32), warp, shape, "nearest") > 0
    kind = image.dtype.kind
    if kind == "f" or 8 * image.dtype.itemsize <= EXACT:
        return _pull(image.astype(np.float32), warp, shape, "nearest").fillna(0).astype(image.dtype), known
    # images are resampled in float32: integers that it does not hold go in parts
    bits, total = image.astype(np.uint64), None
    for low in range(0, 8 * image.dtype.itemsize, EXACT):
        part = ((bits >> np.uint64(low)) & np.uint64(2**EXACT - 1)).astype(np.float32)
        part = _pull(part, warp, shape, "nearest").fillna(0).astype(np.uint64) << np.uint64(low)
        total = part if total is None else total | part
    return total.astype(image.dtype), known


def _weighed(image, seen, near, warp, shape):
    """The label of the largest linearly resampled membership, and that membership."""
    classes = _classes(image, seen)
    if len(classes) > MOST_CLASSES:
        raise StackError(
            f"the labels hold {len(classes)} classes; at most {MOST_CLASSES} are weighed. Identities of objects are "
            "carried by method='nearest'."
        )
    best = xr.zeros_like(near, dtype=np.float32)
    label = near
    nothing = np.float32(np.nan)
    for value in classes:
        share = _pull(xr.where(seen, (image == value).astype(np.float32), nothing), warp, shape, "bilinear").fillna(0)
        # of equals the nearest pixel's wins
        better = (share > best) | ((share == best) & (near == value))
        label = xr.where(better, value, label).astype(image.dtype)
        best = xr.where(better, share, best)
    return label, best


def _classes(image, seen):
    """Every label that was observed, sorted."""
    values = xr.where(seen, image, image.dtype.type(0)).data
    found = np.unique(values)
    found = found.compute() if hasattr(found, "compute") else found
    return found


def _by_scene(layers):
    if not isinstance(layers, xr.DataArray):
        return dict(layers)
    if "scene" not in layers.coords or layers["scene"].ndim != 1:
        raise StackError("the layers have no coordinate `scene` that says whose they are; give a dict scene -> layer.")
    along = layers["scene"].dims[0]
    names = [str(v) for v in layers["scene"].values]
    return {name: layers.isel({along: k}).drop_vars([along, "scene"], errors="ignore") for k, name in enumerate(names)}


def _by_area(values, warp):
    """Values times how many source pixels fall on one of the reference."""
    if isinstance(warp, Shift):
        return values
    rows, cols = (xr.zeros_like(values, dtype=np.float64) + xr.DataArray(np.arange(values.sizes[d]), dims=d)
                  for d in ("y", "x"))  # fmt: skip

    def scaled(flat, r, c):
        return flat * np.abs(np.linalg.det(warp.jacobian(r, c)))

    return chunked.per_pixel(scaled, values, rows, cols, outputs={"value": "float64"})["value"]


def _sum(cube):
    """Sum and number of the observed values of each pixel, (n_pixel, n_scene)."""
    n = np.isfinite(cube).sum(axis=1)
    return np.where(n > 0, np.nansum(cube, axis=1, dtype=np.float64), np.nan), n
