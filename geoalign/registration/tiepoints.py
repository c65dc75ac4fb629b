"""Where tie points are measured: images read by tiles, windows in fixed places, and the two ways to measure them.

Nothing here depends on how an image is chunked: windows follow from the shape of the reference alone, tiles are cut
around them, and all sums are float64.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import dask
import numpy as np
import xarray as xr

from geoalign import chunked
from geoalign.errors import MatchError
from geoalign.kernels.decimate import block_sums, mean_of
from geoalign.kernels.phase import window_correlation
from geoalign.kernels.refine import band_pass, sample, spline, window_step, window_steps

WHOLE_PX = 2048
"""Images up to this side are held whole; of larger ones only tiles around the windows are read."""
COARSE_PX = 512
"""Longest side of the decimated image in which the first search runs."""
FEATURE_PX = 1200
"""Longest side of the image in which features are matched."""
MARGIN = 40
"""Pixels a tile reaches beyond its window: room for the filter and for what the first search left over."""
SLACK = 24
"""Pixels that remembered tiles reach further than one match needs them, because matches expect them displaced."""
MAX_SIDE = 13
"""Windows along an axis at most: 169 in all bound the work on an image of any size."""
BATCH = 64
"""Windows of tiles that are searched at a time."""
THREADED_PX = 2**19
"""Pixels in the windows of an image held whole from which they are shared among threads."""
DENSE_SIDE, DENSE_PX = 32, 64
"""The same for a field of a large image, and the side of its windows, px."""


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
        self._sums: tuple | None = None
        self._held: tuple | None = None
        self.prepared: dict = {}

    @property
    def factor(self) -> int:
        """Decimation of the first search."""
        return self._level(COARSE_PX)

    @property
    def feature_factor(self) -> int:
        """Decimation for features: they need finer texture than a correlation does."""
        return self._level(FEATURE_PX)

    @property
    def by_tiles(self) -> bool:
        return max(self.shape) > WHOLE_PX

    @property
    def base(self) -> int:
        """Decimation to which a large image is brought in the one pass that reads all of it; 1 for those held whole."""
        return -(-max(self.shape) // WHOLE_PX)

    def _level(self, side):
        """The least decimation to `side` px that the one pass over a large image gives as well."""
        return -(-max(self.shape) // (side * self.base)) * self.base

    def coarse(self, factor: int) -> np.ndarray:
        """Mean of the observed pixels of blocks of `factor` x `factor` (NaN where half or more are missing)."""
        if factor not in self._coarse:
            self._coarse[factor] = self._block_means(factor)
        return self._coarse[factor]

    def _block_means(self, factor):
        if not self.by_tiles:
            return block_mean(self.tiles([None])[0], factor)
        # from the base wherever it divides, whatever was asked for before: the bits must not depend on the order
        if factor % self.base:
            return mean_of(*self._read_sums(factor), factor**2)
        if self._sums is None:
            self._sums = self._read_sums(self.base, self.keep and self._held is None)
        total, count = self._sums
        part = factor // self.base
        if part > 1:
            total, count = (block_sums(np.where(count > 0, v, 0.0), part)[0] for v in (total, count))
        return mean_of(total, count, factor**2)

    def _read_sums(self, factor, hold=False):
        """Sums and numbers of the observed pixels of blocks, in one pass over the image.

        hold : remember what lies around the windows as well
        """
        block = factor * max(1, chunked.BLOCK // factor)
        shape = tuple(n // factor for n in self.shape)
        counts = [[min(block, n - start) // factor for start in range(0, n, block)] for n in self.shape]

        def sums(image):
            return np.stack(block_sums(np.asarray(image, np.float32), factor)).astype(np.float32)

        def assemble(parts):
            whole, at, k = np.empty((2, *shape)), 0, 0
            for height in counts[0]:
                left = 0
                for width in counts[1]:
                    whole[:, at : at + height, left : left + width] = parts[k]
                    left, k = left + width, k + 1
                at += height
            return whole.ravel()

        image = xr.DataArray(self.data, dims=("y", "x"))
        total = chunked.whole_image(sums, assemble, image, size=2 * shape[0] * shape[1], block=block)
        boxes = self._around_windows() if hold else []
        total, *tiles = dask.compute(total.data, *chunked.windows(self.data, boxes))
        if hold:
            self._held = boxes, [np.array(tile, np.float32) for tile in tiles]
        return tuple(total.reshape(2, *shape).astype(np.float32))

    def _around_windows(self):
        """Boxes around the windows, with room for a motion of `SLACK` px."""
        windows, shape = windows_for(self.shape), np.array(self.shape)
        low = np.clip(windows.start - MARGIN - SLACK, 0, shape - 1)
        high = np.clip(windows.start + windows.size + MARGIN + SLACK, low + 1, shape)
        return [(*a, *b) for a, b in zip(low.tolist(), high.tolist())]

    def forget(self):
        """Give back what was read at full resolution; decimated images that were asked for stay."""
        self._whole = self._sums = self._held = None
        self.prepared.clear()

    @property
    def bytes(self) -> int:
        """What it holds at the most, bytes."""
        if not self.by_tiles:
            return 4 * self.shape[0] * self.shape[1]
        tiles = sum((c - a) * (d - b) for a, b, c, d in self._around_windows())
        return 4 * tiles + 8 * self.shape[0] * self.shape[1] // self.base**2

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
        if not self.keep or len(boxes) != len(windows_for(self.shape).start):
            return self._read(boxes)
        if self._held is None:
            around = self._around_windows()
            self._held = around, [np.array(tile) for tile in self._read(around)]
        out = []
        for (a, b, c, d), (top, left, bottom, right), tile in zip(boxes, *self._held):
            inside = a >= top and b >= left and c <= bottom and d <= right
            out.append(tile[a - top : c - top, b - left : d - left] if inside else None)
        missing = [k for k, tile in enumerate(out) if tile is None]
        for k, tile in zip(missing, self._read([boxes[k] for k in missing])):
            out[k] = tile
        return out

    def _read(self, boxes):
        return [np.asarray(tile, np.float32) for tile in dask.compute(*chunked.windows(self.data, boxes))]


def images(reference, moving, valid=None) -> tuple[Image, Image]:
    """Both images to be matched, read when they are looked at; what is masked or not finite is NaN.

    reference, moving : NumPy or dask arrays, or DataArrays (row, col); valid : a mask, or (reference's, moving's)
    """
    masks = valid if isinstance(valid, tuple | list) else (valid, valid)
    out = []
    for image, mask in zip((reference, moving), masks):
        image = _data(image)
        if image.ndim != 2:
            raise MatchError(f"two images (row, col) are matched, got shape {tuple(image.shape)}.")
        image = xr.DataArray(image, dims=("y", "x")).astype(np.float32, copy=False)
        good = np.isfinite(image)
        if mask is not None:
            mask = _data(mask)
            if tuple(mask.shape) != image.shape:
                raise MatchError(f"a mask of shape {tuple(mask.shape)} was given for an image of shape {image.shape}.")
            good = good & xr.DataArray(mask, dims=image.dims).astype(bool)
        out.append(Image(image.where(good).data))
    return tuple(out)


def _data(array):
    if isinstance(array, xr.DataArray):
        return array.data
    return array if chunked.is_lazy(array) else np.asarray(array)


def block_mean(image, factor):
    """Mean over blocks of factor x factor of the observed pixels; NaN where fewer than half were observed."""
    if factor == 1:
        return np.asarray(image, np.float32)
    return mean_of(*block_sums(np.asarray(image), factor), factor**2)


@dataclass(frozen=True)
class Windows:
    """Windows in fixed places: (n, 2) first pixels `start`, one `size` px for all."""

    start: np.ndarray
    size: int

    @property
    def centre(self):
        return self.start + (self.size - 1) / 2

    def pixels(self, k: int):
        """Reference rows and cols of the pixels of one window, (size, size)."""
        line = np.arange(self.size, dtype=np.float64)
        return np.broadcast_arrays(self.start[k, 0] + line[:, None], self.start[k, 1] + line[None, :])

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
    return _spread(shape, size, MAX_SIDE + 3 if finer else MAX_SIDE)


def dense_windows(shape) -> Windows:
    """Windows for a field of a large image: `DENSE_SIDE` along an axis, as far as they fit."""
    return _spread(shape, min(DENSE_PX, *shape), DENSE_SIDE)


def _spread(shape, size, most):
    starts = []
    for n in shape:
        count = int(np.clip(n // size, 1, most))
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
    _fine: float | None = None

    def prepared(self, which: str, k: int, fine: float):
        """Band-passed tile of window k, its validity, and for the moving image spline coefficients; computed once."""
        tile = self.ref[k] if which == "ref" else self.mov[k]
        # the same reference serves many scenes: what is prepared of it is remembered with it
        cache = self.shared if which == "ref" and self.shared is not None else self._cache
        key = (which, id(tile), fine)
        if not self.whole and self._fine != fine:
            # filtered tiles are five times the size of what was read: those of one scale are held at a time
            self._cache.clear()
            self._fine = fine
        if key not in cache:
            values, valid = band_pass(tile, fine, 4 * fine)
            cache[key] = (values if which == "ref" else spline(values), valid)
        return cache[key]

    def with_windows(self, windows: Windows) -> Level:
        """The same images with other windows; those of large images stay where their tiles are."""
        if not self.whole:
            return self
        n = len(windows.start)
        at = [np.repeat(a[:1], n, axis=0) for a in (self.ref_at, self.mov_at)]
        return Level(windows, self.ref[:1] * n, at[0], self.mov[:1] * n, at[1], self.shared, self._cache)

    def search(self, warp, reach: int, fine: float):
        """Correlation of every window over +-reach px around where the warp expects it.

        Returns (surfaces, shared): (n, 2 reach + 1, 2 reach + 1), and the part of each window that was compared.
        """
        n = len(self.windows.start)
        if n <= BATCH or self.whole:
            return self._searched(warp, reach, fine)
        # spectra of many windows at once would take more memory than the tiles
        places = [(np.arange(n) // BATCH) == k for k in range(-(-n // BATCH))]
        parts = [self.part(place)._searched(warp, reach, fine) for place in places]
        return tuple(np.concatenate(part) for part in zip(*parts))

    def _searched(self, warp, reach, fine):
        n, size = len(self.windows.start), self.windows.size
        wide = size + 2 * reach
        rows, cols = (v.reshape(n, -1) for v in warp.pull(*self.windows.grid(reach)))
        template, template_ok = np.zeros((n, size, size)), np.zeros((n, size, size), bool)
        moving, moving_ok = np.zeros((n, wide, wide)), np.zeros((n, wide, wide), bool)
        if self.whole:
            coef, ok = self.prepared("mov", 0, fine)
            found, seen = sample(coef, ok, rows.ravel() - self.mov_at[0, 0], cols.ravel() - self.mov_at[0, 1])
            moving, moving_ok = found.reshape(n, wide, wide), seen.reshape(n, wide, wide)
        for k in range(n):
            values, valid = self.prepared("ref", k, fine)
            r, c = self.windows.start[k] - self.ref_at[k]
            template[k], template_ok[k] = values[r : r + size, c : c + size], valid[r : r + size, c : c + size]
            if not self.whole:
                coef, ok = self.prepared("mov", k, fine)
                found, seen = sample(coef, ok, rows[k] - self.mov_at[k, 0], cols[k] - self.mov_at[k, 1])
                moving[k], moving_ok[k] = found.reshape(wide, wide), seen.reshape(wide, wide)
        surfaces, shared = window_correlation(template, template_ok, moving, moving_ok, 0.5)
        return surfaces, shared.max(axis=(1, 2)) / size**2

    def over_windows(self, kernel, values, valid, coef, ok, rows, cols):
        """A kernel for the windows of one tile, where one serves all; rows, cols as `Windows.grid` and a warp give."""
        at = self.mov_at[0]
        starts = self.windows.start - self.ref_at[0]
        return kernel(values, valid, starts, self.windows.size, coef, ok, rows - at[0], cols - at[1])

    def step(self, warp, fine: float):
        """One least-squares step of every window: (n, 12) as `window_step` gives them."""
        size = self.windows.size
        out = np.empty((len(self.windows.start), 12))
        places = warp.pull(*self.windows.grid()) if self.whole else None

        def one(k):
            values, valid = self.prepared("ref", k, fine)
            coef, ok = self.prepared("mov", k, fine)
            rows, cols = warp.pull(*self.windows.pixels(k)) if places is None else (places[0][k], places[1][k])
            r, c = self.windows.start[k] - self.ref_at[k]
            at = self.mov_at[k]
            out[k] = window_step(values, valid, r, c, size, size, coef, ok, rows - at[0], cols - at[1])

        if self.whole:
            tiles = (*self.prepared("ref", 0, fine), *self.prepared("mov", 0, fine))
            if places[0].size < THREADED_PX:
                return self.over_windows(window_steps, *tiles, *places)
        # tiles are prepared independently of each other, and there may be a thousand of them
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, range(len(out))))
        return out

    @cached_property
    def whole(self) -> bool:
        """Whether one tile of each, the whole image, serves all windows."""
        return all(len({id(tile) for tile in tiles}) == 1 for tiles in (self.ref, self.mov))

    def part(self, keep) -> Level:
        """The same with some of the windows, keep (n,) bool."""
        places = np.flatnonzero(keep)
        ref, mov = ([tiles[k] for k in places] for tiles in (self.ref, self.mov))
        windows = Windows(self.windows.start[places], self.windows.size)
        return Level(windows, ref, self.ref_at[places], mov, self.mov_at[places], self.shared)

    def with_parts(self, offsets, size) -> Level:
        """The same with parts of every window instead, one after the other: at offsets (m, 2) from its first pixel."""
        m = len(offsets)
        starts = (self.windows.start[:, None] + np.asarray(offsets)[None]).reshape(-1, 2)
        ref, mov = ([tile for tile in tiles for _ in range(m)] for tiles in (self.ref, self.mov))
        at = [np.repeat(a, m, axis=0) for a in (self.ref_at, self.mov_at)]
        return Level(Windows(starts, size), ref, at[0], mov, at[1], self.shared)


def coarse_level(reference: Image, moving: Image, factor: int) -> Level:
    """Both images whole, decimated by `factor`."""
    ref, mov = reference.coarse(factor), moving.coarse(factor)
    windows = windows_for(ref.shape)
    n = len(windows.start)
    zero = np.zeros((n, 2), int)
    return Level(windows, [ref] * n, zero, [mov] * n, zero, reference.prepared)


def full_level(reference: Image, moving: Image, warp, windows: Windows | None = None, margin: int = MARGIN) -> Level:
    """Both images at full resolution, whole or by tiles; the moving tiles lie where `warp` expects the windows."""
    windows = windows_for(reference.shape) if windows is None else windows
    ref, ref_at = cut(reference, windows.start, windows.start + windows.size, margin)
    low, high = np.zeros((2, len(windows.start), 2), int)
    if moving.by_tiles:
        for k in range(len(low)):
            places = np.stack(warp.pull(*windows.pixels(k)))
            low[k], high[k] = np.floor(places.min(axis=(1, 2))), np.ceil(places.max(axis=(1, 2))) + 1
    mov, mov_at = cut(moving, low, high, margin)
    kept = reference.keep and not reference.by_tiles
    return Level(windows, ref, ref_at, mov, mov_at, reference.prepared if kept else None)


def cut(image, low, high, margin=MARGIN):
    """Tiles around boxes low..high (n, 2), with a margin, and their first pixels; one whole image where it is small."""
    if not image.by_tiles:
        return image.tiles([None] * len(low)), np.zeros((len(low), 2), int)
    shape = np.array(image.shape)
    a = np.clip(low - margin, 0, shape - 1)
    b = np.clip(high + margin, a + 1, shape)
    return image.tiles([(*p, *q) for p, q in zip(a.tolist(), b.tolist())]), a
