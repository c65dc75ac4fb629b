"""Tiles of an image: where they lie, how one is put together from blocks, and what a warp needs for one."""

import numpy as np

from geoalign.errors import StackError
from geoalign.kernels.resample import HALO, resample


def even_sizes(n, size):
    """Sizes of the tiles along an axis of n px: `size` each, the last one what is left."""
    whole, rest = divmod(n, size)
    return (size,) * whole + ((rest,) if rest else ())


def starts_of(sizes):
    """First pixel of each tile along an axis."""
    return [int(v) for v in np.cumsum((0, *sizes[:-1]))]


def tiles_of(sizes):
    """(row, height, col, width) of every tile, in row-major order; sizes : those along rows, those along columns."""
    for r0, height in zip(starts_of(sizes[0]), sizes[0]):
        for c0, width in zip(starts_of(sizes[1]), sizes[1]):
            yield r0, height, c0, width


def spread_tiles(sizes, most):
    """Tiles (row, height, col, width): all, or about `most`, the middle ones of an even grid of cells."""
    n_row, n_col = map(len, sizes)
    if most is None or n_row * n_col <= most:
        return list(tiles_of(sizes))
    down = max(1, min(n_row, most, round((most * n_row / n_col) ** 0.5)))
    across = min(n_col, most // down)
    starts = [starts_of(s) for s in sizes]
    rows, cols = ([(2 * k + 1) * n // (2 * m) for k in range(m)] for n, m in ((n_row, down), (n_col, across)))
    return [(starts[0][r], sizes[0][r], starts[1][c], sizes[1][c]) for r in rows for c in cols]


def covering(starts, sizes, window):
    """Numbers of the chunks that a window start:stop touches."""
    return [k for k, (s, n) in enumerate(zip(starts, sizes)) if s < window[1] and s + n > window[0]]


def put_together(plan, blocks):
    """A window (..., row, col) out of the blocks (nested lists) that it touches.

    plan : first row of each row of blocks, first column of each column of them, and the window a:b, c:d
    """
    row_starts, col_starts, (a, b, c, d) = plan
    first = blocks[0][0]
    if len(row_starts) == len(col_starts) == 1:
        return first[..., a - row_starts[0] : b - row_starts[0], c - col_starts[0] : d - col_starts[0]]
    out = np.empty((*first.shape[:-2], b - a, d - c), first.dtype)
    for r, row in zip(row_starts, blocks):
        for k, block in zip(col_starts, row):
            part = block[..., max(a - r, 0) : b - r, max(c - k, 0) : d - k]
            i, j = max(r - a, 0), max(k - c, 0)
            out[..., i : i + part.shape[-2], j : j + part.shape[-1]] = part
    return out


def source_window(warp, every, start, shape, source, resampling, scale):
    """Rows a:b and columns c:d of the source that a tile can touch, from the warp at points `every` px."""
    points = [np.unique(np.append(np.arange(s, s + n, every), s + n - 1)).astype(float) for s, n in zip(start, shape)]
    rows, cols = warp.pull(*np.meshgrid(*points, indexing="ij"))
    out = []
    for values, size, factor in ((rows, source[0], scale[0]), (cols, source[1], scale[1])):
        halo = int(np.ceil(HALO[resampling] * max(1.0, factor))) + 2
        finite = values[np.isfinite(values)]
        if finite.size == 0:
            return 0, 0, 0, 0
        # the warp may bend between the sampled points by no more than a few px; `pull_tile` checks it
        out += [
            int(np.clip(np.floor(finite.min()) - halo, 0, size)),
            int(np.clip(np.ceil(finite.max()) + halo + 1, 0, size)),
        ]
    return tuple(out)


def pull_tile(window, origin, whole, warp, start, shape, resampling, scale):
    """One tile of the image as seen from the reference grid, float32.

    window : the part of the moving image (`whole` px in size) whose first pixel is `origin`; start, shape : the tile
    """
    rows = np.arange(start[0], start[0] + shape[0], dtype=np.float64)[:, None]
    cols = np.arange(start[1], start[1] + shape[1], dtype=np.float64)[None, :]
    rows, cols = warp.pull(*np.broadcast_arrays(rows, cols))
    if window.shape != tuple(whole):
        inside = (rows > -0.5) & (rows < whole[0] - 0.5) & (cols > -0.5) & (cols < whole[1] - 0.5)
        for place, first, n in ((rows[inside], origin[0], window.shape[0]), (cols[inside], origin[1], window.shape[1])):
            if place.size and not (place.min() >= first - 0.5 and place.max() <= first + n - 0.5):
                raise StackError(
                    f"a warp ({type(warp).__name__}) reaches {place.min():.1f} to {place.max():.1f} where {first} to "
                    f"{first + n - 1} was expected: it bends too sharply to be applied tile by tile. Smooth it, "
                    "or give the image in memory."
                )
    return resample(window, rows, cols, resampling, row0=origin[0], col0=origin[1], scale=scale)
