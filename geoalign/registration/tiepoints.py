"""Where tie points are measured: images read by tiles, windows in fixed places, and the two ways to measure them.

Nothing here depends on how an image is chunked: windows follow from the shape of the reference alone, tiles are cut
around them, and all sums are float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import dask
import numpy as np
import xarray as xr

from geoalign.chunked import whole_image
from geoalign.kernels.phase import masked_correlation
from geoalign.kernels.refine import band_pass, sample, spline, window_step

WHOLE_PX = 2048
"""Images up to this side are held whole; of larger ones only tiles around the windows are read."""
COARSE_PX = 512
"""Longest side of the decimated image in which the first search runs."""
FEATURE_PX = 1200
"""Longest side of the image in which features are matched."""
MARGIN = 40
"""Pixels a tile reaches beyond its window: room for the filter and for what the first search left over."""
MAX_SIDE = 13
"""Windows along an axis at most: 169 in all bound the work on an image of any size."""


class Image:
    """One band of one scene, read as little as possible.

    data : NumPy or dask array (row, col), float32, NaN = not observed
    keep : remember the tiles read, so that a second look costs nothing
    """

    def __init__(self, data, *, keep: bool = True):
        self.data = data
        self.shape = tuple(data.shape)
        self.keep = keep
        self._coarse: dict[int, np.ndarray] = {}
        self._whole: np.ndarray | None = None
        self.prepared: dict = {}

    @property
    def factor(self) -> int:
        """Decimation of the first search."""
        return -(-max(self.shape) // COARSE_PX)

    @property
    def feature_factor(self) -> int:
        """Decimation for features: they need finer texture than a correlation does."""
        return -(-max(self.shape) // FEATURE_PX)

    @property
    def by_tiles(self) -> bool:
        return max(self.shape) > WHOLE_PX

    def coarse(self, factor: int) -> np.ndarray:
        """Mean of the observed pixels of blocks of `factor` x `factor` (NaN where half or more are missing)."""
        if factor not in self._coarse:
            self._coarse[factor] = self._block_means(factor)
        return self._coarse[factor]

    def _block_means(self, factor):
        if not self.by_tiles:
            return block_mean(self.tiles([None])[0], factor)
        block = factor * max(1, 1024 // factor)
        shape = tuple(n // factor for n in self.shape)
        counts = [[min(block, n - start) // factor for start in range(0, n, block)] for n in self.shape]

        def assemble(parts):
            whole, at, k = np.empty(shape), 0, 0
            for height in counts[0]:
                left = 0
                for width in counts[1]:
                    whole[at : at + height, left : left + width] = parts[k]
                    left, k = left + width, k + 1
                at += height
            return whole.ravel()

        image = xr.DataArray(self.data, dims=("y", "x"))
        means = whole_image(block_mean, assemble, image, size=shape[0] * shape[1], block=block, factor=factor)
        return np.asarray(means.values).reshape(shape).astype(np.float32)

    def tiles(self, boxes) -> list[np.ndarray]:
        """The pixels of boxes (row, col, row_end, col_end); None stands for the whole image."""
        if all(box is None for box in boxes):
            if self._whole is None:
                (whole,) = dask.compute(self.data)
                whole = np.asarray(whole, np.float32)
                if not self.keep:
                    return [whole for _ in boxes]
                self._whole = whole
            return [self._whole for _ in boxes]
        cuts = [self.data[a:c, b:d] for a, b, c, d in boxes]
        return [np.asarray(tile, np.float32) for tile in dask.compute(*cuts)]


def block_mean(image, factor):
    """Mean over blocks of factor x factor of the observed pixels; NaN where fewer than half were observed."""
    if factor == 1:
        return np.asarray(image, np.float32)
    n_row, n_col = (n // factor for n in image.shape)
    blocks = np.asarray(image[: n_row * factor, : n_col * factor], np.float64).reshape(n_row, factor, n_col, factor)
    seen = np.isfinite(blocks)
    count = seen.sum(axis=(1, 3))
    total = np.where(seen, blocks, 0.0).sum(axis=(1, 3))
    mean = np.divide(total, count, out=np.full(count.shape, np.nan), where=count >= 0.5 * factor * factor)
    return mean.astype(np.float32)


@dataclass(frozen=True)
class Windows:
    """Windows in fixed places: (n, 2) first pixels `start`, one `size` px for all."""

    start: np.ndarray
    size: int

    @property
    def centre(self):
        return self.start + (self.size - 1) / 2

    def grid(self, widen: int = 0):
        """Reference rows and cols of the pixels of all windows, (n, size, size), widened by some px each side."""
        line = np.arange(-widen, self.size + widen, dtype=np.float64)
        rows = self.start[:, 0, None, None] + line[None, :, None]
        cols = self.start[:, 1, None, None] + line[None, None, :]
        return np.broadcast_arrays(rows, cols)


def windows_for(shape, finer: bool = False) -> Windows:
    """Equal cells over the image, a window in the middle of each: about an eighth of the image, 24 to 96 px.

    finer : half the size and twice as many along an axis (as far as they fit), for displacements that vary
    """
    size = int(np.clip(8 * round(min(shape) / 64), 24, 96))
    size = min(size // 2 if finer else size, *shape)
    starts = []
    for n in shape:
        count = int(np.clip(n // size, 1, MAX_SIDE + 3 if finer else MAX_SIDE))
        pitch = n / count
        starts.append([round((k + 0.5) * pitch - size / 2) for k in range(count)])
    return Windows(np.array([(r, c) for r in starts[0] for c in starts[1]]), size)


@dataclass
class Level:
    """A reference and a moving image at one resolution, cut into tiles around the windows.

    ref, mov : tiles (the same array many times where the image is held whole); ref_at, mov_at : (n, 2) their first px
    shared : what has been prepared of the reference, kept with it where it is held whole
    """

    windows: Windows
    ref: list
    ref_at: np.ndarray
    mov: list
    mov_at: np.ndarray
    shared: dict | None = None
    _cache: dict = field(default_factory=dict)

    def prepared(self, which: str, k: int, fine: float):
        """Band-passed tile of window k, its validity, and for the moving image spline coefficients; computed once."""
        tile = self.ref[k] if which == "ref" else self.mov[k]
        # the same reference serves many scenes: what is prepared of it is remembered with it
        cache = self.shared if which == "ref" and self.shared is not None else self._cache
        key = (which, id(tile), fine)
        if key not in cache:
            values, valid = band_pass(tile, fine, 4 * fine)
            cache[key] = (values if which == "ref" else spline(values), valid)
        return cache[key]

    def with_windows(self, windows: Windows) -> Level:
        """The same images with other windows; those of large images stay where their tiles are."""
        whole = len({id(tile) for tile in self.ref}) == 1
        if not whole:
            return self
        n = len(windows.start)
        at = [np.repeat(a[:1], n, axis=0) for a in (self.ref_at, self.mov_at)]
        return Level(windows, self.ref[:1] * n, at[0], self.mov[:1] * n, at[1], self.shared, self._cache)

    def search(self, warp, reach: int, fine: float):
        """Correlation of every window over +-reach px around where the warp expects it.

        Returns (surfaces, shared): (n, 2 reach + 1, 2 reach + 1), and the part of each window that was compared.
        """
        n, size = len(self.windows.start), self.windows.size
        wide = size + 2 * reach
        rows, cols = (v.reshape(n, -1) for v in warp.pull(*self.windows.grid(reach)))
        template, template_ok = np.zeros((n, size, size)), np.zeros((n, size, size), bool)
        moving, moving_ok = np.zeros((n, wide, wide)), np.zeros((n, wide, wide), bool)
        for k in range(n):
            values, valid = self.prepared("ref", k, fine)
            r, c = self.windows.start[k] - self.ref_at[k]
            template[k], template_ok[k] = values[r : r + size, c : c + size], valid[r : r + size, c : c + size]
            coef, ok = self.prepared("mov", k, fine)
            found, seen = sample(coef, ok, rows[k] - self.mov_at[k, 0], cols[k] - self.mov_at[k, 1])
            moving[k], moving_ok[k] = found.reshape(wide, wide), seen.reshape(wide, wide)
        search = (0, 0, 2 * reach + 1, 2 * reach + 1)
        surfaces, shared = masked_correlation(template, template_ok, moving, moving_ok, search, 0.5)
        return surfaces, shared.max(axis=(1, 2)) / size**2

    def step(self, warp, fine: float):
        """One least-squares step of every window: (n, 12) as `window_step` gives them."""
        size = self.windows.size
        rows, cols = warp.pull(*self.windows.grid())
        out = np.empty((len(rows), 12))
        for k in range(len(rows)):
            values, valid = self.prepared("ref", k, fine)
            coef, ok = self.prepared("mov", k, fine)
            r, c = self.windows.start[k] - self.ref_at[k]
            at = self.mov_at[k]
            out[k] = window_step(values, valid, r, c, size, size, coef, ok, rows[k] - at[0], cols[k] - at[1])
        return out


def coarse_level(reference: Image, moving: Image, factor: int) -> Level:
    """Both images whole, decimated by `factor`."""
    ref, mov = reference.coarse(factor), moving.coarse(factor)
    windows = windows_for(ref.shape)
    n = len(windows.start)
    zero = np.zeros((n, 2), int)
    return Level(windows, [ref] * n, zero, [mov] * n, zero, reference.prepared)


def full_level(reference: Image, moving: Image, warp) -> Level:
    """Both images at full resolution, whole or by tiles; the moving tiles lie where `warp` expects the windows."""
    windows = windows_for(reference.shape)
    ref, ref_at = cut(reference, windows.start, windows.start + windows.size)
    rows, cols = warp.pull(*windows.grid())
    low = np.floor(np.stack([rows.min(axis=(1, 2)), cols.min(axis=(1, 2))], axis=1)).astype(int)
    high = np.ceil(np.stack([rows.max(axis=(1, 2)), cols.max(axis=(1, 2))], axis=1)).astype(int) + 1
    mov, mov_at = cut(moving, low, high)
    kept = reference.keep and not reference.by_tiles
    return Level(windows, ref, ref_at, mov, mov_at, reference.prepared if kept else None)


def cut(image, low, high):
    """Tiles around boxes low..high (n, 2), with a margin, and their first pixels; one whole image where it is small."""
    if not image.by_tiles:
        return image.tiles([None] * len(low)), np.zeros((len(low), 2), int)
    shape = np.array(image.shape)
    a = np.clip(low - MARGIN, 0, shape - 1)
    b = np.clip(high + MARGIN, a + 1, shape)
    return image.tiles([(*p, *q) for p, q in zip(a.tolist(), b.tolist())]), a
