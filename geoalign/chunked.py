"""Where xarray meets dask: the one file that knows whether data are lazy.

`per_pixel` runs a kernel over the series of every pixel, `neighbourhood` one over windows with a halo, `pull` warps an
image, `whole_image` takes statistics over fixed blocks, `derived` works with them. Each gives the same bits for NumPy
and for any chunking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import getitem

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.optimization import cull

from geoalign.errors import StackError
from geoalign.kernels.resample import KINDS
from geoalign.kernels.tiling import (
    covering,
    even_sizes,
    pull_tile,
    put_together,
    source_window,
    spread_tiles,
    starts_of,
    tiles_of,
)
from geoalign.types.warp import bend_px

BLOCK = 1024
"""Side of the fixed blocks (px) over which whole-image statistics are taken, and the default output chunk."""

_STATISTIC = "whole-image"
"""How the names of whole-image statistics begin, so that `row_blocks` knows them in a graph."""


def is_lazy(*data) -> bool:
    """True where any of the arrays, DataArrays or Datasets is backed by dask."""
    return any(dask.is_dask_collection(item) for item in data)


def per_pixel(kernel: Callable, *arrays, outputs: dict, **scalars) -> xr.Dataset:
    """Run a kernel over pixels.

    Parameters
    ----------
    kernel : callable(*blocks, **scalars) -> array or tuple of arrays
        Takes (n_pixel, n_time) for arrays with time and (n_pixel,) for those without, all C-contiguous; gives one
        (n_pixel,) or (n_pixel, size) array for each output, in order.
    arrays : DataArrays with dims (time, y, x) or (y, x), or other extra dims before y, x instead of time.
    outputs : dict name -> dtype, or (dtype, dim, size) for outputs with one more dimension
        The extra dimension comes first in the result: (dim, y, x).
    scalars : numbers, 1-D NumPy arrays (the same for all pixels), or 0-d/1-D DataArrays that may be lazy
        (from `whole_image`).

    Returns
    -------
    Dataset (y, x) of the outputs, lazy where any input is.
    """
    lead = [[d for d in a.dims if d not in ("y", "x")] for a in arrays]
    fixed = {k: v for k, v in scalars.items() if not isinstance(v, xr.DataArray)}
    late = {k: v for k, v in scalars.items() if isinstance(v, xr.DataArray)}
    specs = {k: (v if isinstance(v, tuple) else (v, None, 0)) for k, v in outputs.items()}
    bare = [a.reset_coords(drop=True).drop_vars([d for d in a.dims if d in a.coords]) for a in arrays]
    if is_lazy(*bare, *late.values()):
        like = next((a for a in bare if is_lazy(a)), None)
        space = {"y": like.chunksizes["y"], "x": like.chunksizes["x"]} if like is not None else {"y": -1, "x": -1}
        bare = [a.chunk({**dict.fromkeys(dims, -1), **space}) for a, dims in zip(bare, lead)]

    def run(*blocks):
        blocks, values = blocks[: len(bare)], blocks[len(bare) :]
        shape = np.broadcast_shapes(*(b.shape[: b.ndim - len(d)] for b, d in zip(blocks, lead)))
        flat = [
            np.ascontiguousarray(
                np.broadcast_to(b, shape + b.shape[b.ndim - len(d) :]).reshape(-1, *b.shape[b.ndim - len(d) :])
            )
            for b, d in zip(blocks, lead)
        ]
        given = {k: (v.item() if v.ndim == 0 else np.ascontiguousarray(v)) for k, v in zip(late, values)}
        results = kernel(*flat, **fixed, **given)
        results = results if isinstance(results, tuple) else (results,)
        shaped = tuple(
            np.asarray(r).astype(spec[0], copy=False).reshape(shape + ((spec[2],) if spec[1] else ()))
            for r, spec in zip(results, specs.values(), strict=True)
        )
        return shaped if len(shaped) > 1 else shaped[0]

    results = xr.apply_ufunc(
        run,
        *bare,
        *(v.reset_coords(drop=True).drop_vars(list(v.dims), errors="ignore") for v in late.values()),
        input_core_dims=[*lead, *([list(v.dims) for v in late.values()])],
        output_core_dims=[[spec[1]] if spec[1] else [] for spec in specs.values()],
        dask="parallelized",
        output_dtypes=[np.dtype(spec[0]) for spec in specs.values()],
        dask_gufunc_kwargs={"output_sizes": {spec[1]: spec[2] for spec in specs.values() if spec[1]}},
    )
    results = results if isinstance(results, tuple) else (results,)
    named = {name: r.transpose(..., "y", "x") for name, r in zip(specs, results)}
    return xr.Dataset(named).assign_coords(_space_coords(arrays[0]))


def neighbourhood(kernel: Callable, *arrays, depth: int, outputs: dict, placed: bool = False, **scalars) -> xr.Dataset:
    """Run a kernel that looks `depth` pixels around each pixel.

    The window of every output chunk is sliced from the sources, cut at the image's edge, and trimmed afterwards. The
    kernel must give a pixel the same bits in any window that reaches `depth` around it: sum directly, no running sums
    or integral images (or in exact integer arithmetic).

    Parameters
    ----------
    kernel : callable(*windows, **scalars) -> array or tuple of arrays
        Windows are (..., row, col) arrays, one for each DataArray; each output (row, col) or (size, row, col).
    arrays : DataArrays (after the first, bare Variables will do) with dims (..., y, x) on one grid
    depth : px
    outputs : as in `per_pixel`
    placed : whether the kernel takes row0, col0, the place of the window's first pixel in the image
    scalars : numbers or arrays, the same for every window; 0-d DataArrays may be lazy

    Returns
    -------
    Dataset of the outputs, lazy where any input is.
    """
    specs = {k: (v if isinstance(v, tuple) else (v, None, 0)) for k, v in outputs.items()}
    data = [getattr(a, "variable", a).transpose(..., "y", "x").data for a in arrays]
    n_y, n_x = arrays[0].sizes["y"], arrays[0].sizes["x"]
    late = {k: v.data for k, v in scalars.items() if isinstance(v, xr.DataArray)}
    fixed = {k: v for k, v in scalars.items() if k not in late}

    def run(windows, given, trim, shape, origin):
        values = {k: (v.item() if np.ndim(v) == 0 else v) for k, v in zip(late, given)}
        values |= dict(zip(("row0", "col0"), origin)) if placed else {}
        results = kernel(*(np.ascontiguousarray(w) for w in windows), **fixed, **values)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(
            np.ascontiguousarray(np.asarray(r)[..., trim[0] : trim[0] + shape[0], trim[1] : trim[1] + shape[1]]).astype(
                spec[0], copy=False
            )
            for r, spec in zip(results, specs.values(), strict=True)
        )

    if not is_lazy(*data, *late.values()):
        results = run(data, list(late.values()), (0, 0), (n_y, n_x), (0, 0))
    else:
        sizes = next((d.chunks[-2:] for d in data if is_lazy(d)), ((n_y,), (n_x,)))
        sources = [_one_chunk_but_space(d, sizes) for d in data]
        given = [_one_chunk(v) for v in late.values()]
        # written by hand: delayed calls on slices carried a copy of all that lies behind them into every tile
        name = f"neighbourhood-{tokenize(run, depth, [d.name for d in sources], [v.name for v in given])}"
        graph = {}
        for i, (r0, height) in enumerate(zip(starts_of(sizes[0]), sizes[0])):
            for j, (c0, width) in enumerate(zip(starts_of(sizes[1]), sizes[1])):
                a, b = max(0, r0 - depth), max(0, c0 - depth)
                window = (a, min(n_y, r0 + height + depth), b, min(n_x, c0 + width + depth))
                cut = [_cut(d, window) for d in sources]
                tile = _KernelTile(run, tuple(c[0] for c in cut), (r0 - a, c0 - b), (height, width), (a, b))
                graph[name, i, j] = (tile, [c[1] for c in cut], [(v.name, *([0] * v.ndim)) for v in given])
        base = HighLevelGraph.from_collections(name, graph, dependencies=[*sources, *given])
        results = tuple(_output(base, name, k, sizes, spec) for k, spec in enumerate(specs.values()))
    dims = [((spec[1],) if spec[1] else ()) + ("y", "x") for spec in specs.values()]
    named = {name: (d, r) for name, d, r in zip(specs, dims, results)}
    return xr.Dataset(named, coords=_space_coords(arrays[0]))


def pull(image, warp, shape, *, resampling: str = "cubic", chunks: tuple[int, int] = (BLOCK, BLOCK)):
    """The image as seen from the reference grid: value at (row, col) is `image` at `warp.pull(row, col)`.

    Parameters
    ----------
    image : NumPy or dask array (row, col), NaN = not observed
    warp : Warp
    shape : (row, col) of the reference grid
    resampling : "nearest", "bilinear", "cubic", "bspline" or "lanczos"
    chunks : output chunk (px) where the image is lazy

    Returns
    -------
    float32 array of `shape`; dask where `image` is, with only the source window each chunk needs behind it.
    """
    if resampling not in KINDS:
        raise StackError(f"resampling {resampling!r} is unknown; choose one of {', '.join(KINDS)}.")
    j = warp.jacobian(np.array([(shape[0] - 1) / 2]), np.array([(shape[1] - 1) / 2]))[0]
    scale = tuple(float(s) for s in np.hypot(j[:, 0], j[:, 1]))
    sizes = [even_sizes(n, c) for n, c in zip(shape, chunks)] if is_lazy(image) else None

    if sizes is None:
        # blocks bound the memory that the coordinates take; the bits do not depend on them
        out = np.empty(shape, np.float32)
        for r0, height, c0, width in tiles_of([even_sizes(n, BLOCK) for n in shape]):
            tile = pull_tile(image, (0, 0), image.shape, warp, (r0, c0), (height, width), resampling, scale)
            out[r0 : r0 + height, c0 : c0 + width] = tile
        return out

    # the graph is written by hand: a delayed call with a slice of the image for each tile took 3 ms, this takes a tenth
    every = int(min(bend_px(warp), 16))
    name = f"pull-{tokenize(image.name, warp, shape, resampling, chunks)}"
    graph = {}
    for i, (r0, height) in enumerate(zip(starts_of(sizes[0]), sizes[0])):
        for j, (c0, width) in enumerate(zip(starts_of(sizes[1]), sizes[1])):
            plan, keys = _cut(
                image, source_window(warp, every, (r0, c0), (height, width), image.shape, resampling, scale)
            )
            tile = _PullTile(plan, image.shape, warp, (r0, c0), (height, width), resampling, scale)
            graph[name, i, j] = (tile, keys)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[image])
    return da.Array(layers, name, sizes, np.float32)


def windows(image, boxes) -> list:
    """The pixels of boxes (row, col, row_end, col_end) of an image (row, col), each an array, lazy where that is.

    Computed together, each chunk is computed once; lazy ones are copies then, lest a window keep its chunk in memory.
    """
    if not is_lazy(image):
        return [image[a:c, b:d] for a, b, c, d in boxes]
    # by hand: slices of the image, one graph each, took longer to put together than to compute
    name = f"windows-{tokenize(image.name, boxes)}"
    graph = {}
    for k, (a, b, c, d) in enumerate(boxes):
        plan, keys = _cut(image, (a, c, b, d))
        graph[f"{name}-{k}", 0, 0] = (_Window(plan), keys)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[image])
    sizes = [((c - a,), (d - b,)) for a, b, c, d in boxes]
    return [da.Array(layers, f"{name}-{k}", size, image.dtype) for k, size in enumerate(sizes)]


def whole_image(
    kernel: Callable,
    combine: Callable,
    *arrays,
    size: int | None = None,
    block: int = BLOCK,
    most: int | None = None,
    **scalars,
):
    """A statistic of the whole image, taken over fixed blocks so that chunking cannot change it.

    Parameters
    ----------
    kernel : callable(*blocks, **scalars) -> anything small (a histogram, moments; use float64)
        Blocks are NumPy (..., row, col) of at most `block` px a side, in fixed places.
    combine : callable(list of the kernel's results, in row-major order) -> float, or 1-D float64 array of `size`
    arrays : DataArrays with dims (..., y, x)
    size : None for one number
    most : blocks to look at, at most, where a sample is enough: spread evenly over a larger image, the same ones for
        any chunking. None takes all.

    Returns
    -------
    DataArray, 0-d or 1-D ("stat"), lazy where any input is: give it to `per_pixel` or `neighbourhood` as a scalar.
    """
    data = [a.transpose(..., "y", "x").data for a in arrays]
    tiles = spread_tiles([even_sizes(n, block) for n in data[0].shape[-2:]], most)

    def run(*blocks):
        return kernel(*blocks, **scalars)

    def finish(results):
        return np.asarray(combine(results), np.float64)

    if not is_lazy(*data):
        parts = [run(*(d[..., r : r + h, c : c + w] for d in data)) for r, h, c, w in tiles]
        result = finish(parts)
    else:
        sources = [_one_chunk_but_space(d, _lazy_chunks(data)) for d in data]
        token = tokenize(run, combine, size, tiles, [d.name for d in sources])
        part, name = f"blocks-{token}", f"{_STATISTIC}-{token}"
        graph = {}
        for k, (r, h, c, w) in enumerate(tiles):
            cut = [_cut(d, (r, r + h, c, c + w)) for d in sources]
            graph[part, k] = (_BlockTile(run, tuple(v[0] for v in cut)), [v[1] for v in cut])
        # a name that `row_blocks` knows, so that the statistic is computed once and not for every block of rows
        graph[(name,) if size is None else (name, 0)] = (finish, [(part, k) for k in range(len(tiles))])
        layers = HighLevelGraph.from_collections(name, graph, dependencies=sources)
        result = da.Array(layers, name, () if size is None else ((size,),), np.float64)
    return xr.DataArray(result, dims=() if size is None else ("stat",))


def derived(function: Callable, *statistics, size: int):
    """A 1-D float64 array of `size` worked out from statistics of the whole image, lazy where one of them is.

    function : callable(*arrays) -> (size,)
    statistics : DataArrays from `whole_image` or from here
    """
    if not is_lazy(*statistics):
        return xr.DataArray(np.asarray(function(*(s.values for s in statistics)), np.float64), dims="stat")
    sources = [_one_chunk(s.data) for s in statistics]
    name = f"{_STATISTIC}-{tokenize(function, size, [s.name for s in sources])}"
    graph = {(name, 0): (function, *((s.name, *([0] * s.ndim)) for s in sources))}
    layers = HighLevelGraph.from_collections(name, graph, dependencies=sources)
    return xr.DataArray(da.Array(layers, name, ((size,),), np.float64), dims="stat")


def fixed_blocks(n: int, block: int = BLOCK) -> tuple[int, ...]:
    """Sizes of the fixed blocks of `whole_image` along an axis of n px."""
    return tuple(even_sizes(n, block))


def row_blocks(data: xr.Dataset, *, rows: int = BLOCK, encode: dict | None = None) -> Iterator[tuple[int, xr.Dataset]]:
    """The Dataset in memory, one block of rows after the other, in one pass and with bounded memory.

    Statistics of the whole image (`whole_image`) behind lazy layers are computed first, once. Blocks end where the
    chunks of every lazy layer end, so that no chunk is computed twice; they have `rows` rows or a little more.

    Parameters
    ----------
    data : Dataset (..., y, x), NumPy or dask
    rows : px
    encode : dict name -> function of an array, giving one of the same shape, optional
        Applied to the values of a layer as early as possible: chunk by chunk where it is lazy.

    Yields
    ------
    row0, Dataset (..., y, x) of NumPy arrays: all the layers, from row `row0`. Delete it before asking for the next:
    a loop's variable would hold one block while the next is made.
    """
    n_y = data.sizes["y"]
    lazy = [name for name, layer in data.variables.items() if is_lazy(layer.data) and "y" in layer.dims]
    early = {name: function for name, function in (encode or {}).items() if name in lazy}
    late = {name: function for name, function in (encode or {}).items() if name not in lazy}
    data = _encoded(_settled(data, lazy), early)
    shared = set(range(n_y + 1))
    for name in lazy:
        shared &= {0, *np.cumsum(data[name].chunksizes["y"]).tolist()}
    start = 0
    for end in sorted(shared):
        if end == n_y or end - start >= rows:
            if end > start:
                yield start, _encoded(_in_memory(data.isel(y=slice(start, end)), lazy), late)
            start = end


def _encoded(data, encode):
    for name, function in encode.items():
        values = data[name].data
        if is_lazy(values):
            empty = function(np.empty((0,) * values.ndim, values.dtype))
            values = values.map_blocks(function, dtype=empty.dtype, meta=empty)
        else:
            values = function(values)
        data = data.assign({name: data[name].copy(data=values)})
    return data


def _in_memory(data, lazy):
    """`data.compute()`, but putting together one layer at a time, so that the chunks are held once and not twice."""
    # not optimized: fusing would give each layer its own copy of the kernel's task that they share
    tasks = {name: data[name].data.to_delayed(optimize_graph=False) for name in lazy}
    flat = list(dask.compute(*(task for name in lazy for task in tasks[name].ravel())))
    for name in lazy:
        blocks = np.empty(tasks[name].size, object)
        blocks[:] = flat[: blocks.size]
        del flat[: blocks.size]
        data = data.assign({name: data[name].copy(data=np.block(blocks.reshape(tasks[name].shape).tolist()))})
        del blocks
    return data


def _settled(data, lazy):
    """The Dataset with every whole-image statistic in the graphs of its lazy layers replaced by its value.

    Computed together with the layers, a statistic would hold all it was taken from in memory until they are done.
    """
    graph: dict = {}
    for name in lazy:
        graph.update(data[name].data.__dask_graph__())
    keys = [key for key in graph if isinstance(key, tuple) and str(key[0]).startswith(f"{_STATISTIC}-")]
    if not keys:
        return data
    # one after the other, each with the values of those it builds on: computed together, the blocks of the image would
    # wait in memory for the statistic that a later one needs
    needs = {key: set(cull(graph, [key])[0]).intersection(keys) - {key} for key in keys}
    for key in sorted(keys, key=lambda k: len(needs[k])):
        statistic = da.Array(graph, key[0], ((np.nan,),) * (len(key) - 1), np.float64)
        graph[key] = dask.compute(statistic)[0]
    arrays = {name: data[name].data for name in lazy}
    settled = {name: da.Array(graph, array.name, array.chunks, meta=array._meta) for name, array in arrays.items()}
    return data.assign({name: data[name].copy(data=array) for name, array in settled.items()})


def _lazy_chunks(data):
    return next(d.chunks[-2:] for d in data if is_lazy(d))


def _one_chunk(values):
    """The array as dask in one chunk: a kernel is given it whole."""
    if not is_lazy(values):
        return da.from_array(values, chunks=-1)
    # a table's length may be unknown, and dask rechunks no such array, one chunk though it is
    return values.rechunk(-1) if values.npartitions > 1 else values


def _one_chunk_but_space(array, sizes):
    """The array as dask, whole along everything but row and col; NumPy arrays are cut like the lazy ones."""
    lead = (-1,) * (array.ndim - 2)
    if not is_lazy(array):
        return da.from_array(array, chunks=(*lead, *sizes))
    return array.rechunk(dict(enumerate(lead))) if lead else array


def _cut(array, window):
    """How to put a window a:b, c:d together from blocks of a dask array, and the keys of those blocks."""
    starts = [starts_of(c) for c in array.chunks[-2:]]
    rows, cols = (covering(s, n, e) for s, n, e in zip(starts, array.chunks[-2:], (window[:2], window[2:])))
    lead = (0,) * (array.ndim - 2)
    keys = [[(array.name, *lead, k, m) for m in cols] for k in rows]
    return (tuple(starts[0][k] for k in rows), tuple(starts[1][k] for k in cols), window), keys


@dataclass(frozen=True)
class _KernelTile:
    """One output tile of `neighbourhood`: every output of the kernel, trimmed."""

    run: Callable
    plans: tuple
    trim: tuple[int, int]
    shape: tuple[int, int]
    origin: tuple[int, int]

    def __call__(self, sources, given):
        windows = [put_together(plan, blocks) for plan, blocks in zip(self.plans, sources)]
        return self.run(windows, given, self.trim, self.shape, self.origin)


@dataclass(frozen=True)
class _Window:
    """One box of `windows`."""

    plan: tuple

    def __call__(self, blocks):
        return np.array(put_together(self.plan, blocks))


@dataclass(frozen=True)
class _BlockTile:
    """The kernel's result on one block of `whole_image`."""

    run: Callable
    plans: tuple

    def __call__(self, sources):
        return self.run(*(put_together(plan, blocks) for plan, blocks in zip(self.plans, sources)))


def _output(base, name, k, sizes, spec):
    """The k-th output of the tiles `name` as an array."""
    lead = (0,) if spec[1] else ()
    out = f"{name}-{k}"
    places = [(i, j) for i in range(len(sizes[0])) for j in range(len(sizes[1]))]
    graph = {(out, *lead, i, j): (getitem, (name, i, j), k) for i, j in places}
    layers = HighLevelGraph({**base.layers, out: graph}, {**base.dependencies, out: {name}})
    return da.Array(layers, out, (((spec[2],),) if spec[1] else ()) + tuple(sizes), spec[0])


@dataclass(frozen=True)
class _PullTile:
    """One output tile of `pull`, from the blocks of the source that its window touches."""

    plan: tuple
    whole: tuple[int, int]
    warp: object
    start: tuple[int, int]
    shape: tuple[int, int]
    resampling: str
    scale: tuple[float, float]

    def __call__(self, blocks):
        a, b, c, d = self.plan[2]
        if a >= b or c >= d:
            return np.full(self.shape, np.nan, np.float32)
        source = put_together(self.plan, blocks)
        return pull_tile(source, (a, c), self.whole, self.warp, self.start, self.shape, self.resampling, self.scale)


def _space_coords(array):
    return {k: v for k, v in array.coords.items() if set(v.dims) <= {"y", "x"}}
