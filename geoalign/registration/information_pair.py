"""Two images prepared for mutual information: the information at a warp, its maximum near by, the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels import mutual_information as kernel
from geoalign.registration import quality
from geoalign.registration.affine_models import TANGENTS, centred, frame, matrix_of, plain, to_model
from geoalign.registration.tiepoints import Image, cut, windows_for
from geoalign.types.warp import Affine

RING = (4.0, 7.0)
"""Wrong positions a match is compared with lie so far from it, px."""
SMOOTHING = (0.4, 0.8, 1.4)
"""Smoothing of the interpolated image (px, Gaussian) to choose among: the least quiets aliasing, more is for noise."""
CELLS = 4
"""Cells along an axis of a block: what the scatter of scores is taken over."""
ALIKE_PX = 0.7
"""Smoothing of both images, px, where neither is much noisier than the other."""


def _drawn(image, rows, cols, alike, rng):
    """Lattice samples at some pixels: (rows, cols, values).

    Images that are alike share their aliasing, and what interpolation does to either depends on where between the
    pixels it falls: both would draw the answer towards or from whole pixels. A mild smoothing of both takes most of it
    away, and samples at random places between the pixels the rest.
    """
    if not alike:
        return rows.astype(float), cols.astype(float), image[rows, cols]
    smooth = kernel.smoothed(image, ALIKE_PX)
    values = smooth[rows, cols]
    coef, ok = kernel.spline_image(smooth, *(np.quantile(values, (0.001, 0.999)) if values.size else (0, 0)), ALIKE_PX)
    # a lattice of irrational steps fills the pixel evenly wherever one looks; chance would leave clumps
    u, v = (rows[:, None] * [0.8191725134, 0.5497004779] + cols[:, None] * [0.6710436067, 0.7548776662]).T
    rows, cols = (at + (w + rng.uniform()) % 1.0 - 0.5 for at, w in ((rows, u), (cols, v)))
    out = np.empty((rows.size, 3))
    kernel.interpolate(coef, ok, 0, 0, rows, cols, np.eye(2, 3), out)
    good = np.isfinite(out[:, 0])
    return rows[good], cols[good], out[good, 0]


@dataclass
class Pair:
    """A lattice image and an interpolated one at one resolution, prepared: what can be asked is `at` a warp.

    level : (n,) bins of the lattice's samples at rows, cols (n,); cell : (n,) which of n_cell cells each lies in
    grid : (row, col) cells, CELLS x CELLS of which are a block; None where cells lie apart and are blocks themselves
    tiles : of the interpolated image, (coefficients, ok, top, left, first sample, end), one for all or one a block
    """

    level: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    cell: np.ndarray
    n_cell: int
    grid: tuple | None
    shape: tuple
    raw: list
    bins: int
    smooth: float = 0.0
    tiles: list = field(default_factory=list)
    low: float = 0.0
    width: float = 1.0

    @classmethod
    def whole(cls, lattice, interpolated, samples, seed, smooth=0.0, alike=False):
        rows, cols = np.nonzero(np.isfinite(lattice))
        rng = np.random.default_rng(seed)
        every = int(np.ceil(np.sqrt(rows.size / samples)))
        if every > 1:
            # one pixel anywhere in each cell
            rows, cols = (v.ravel() for v in np.mgrid[0 : lattice.shape[0] : every, 0 : lattice.shape[1] : every])
            rows, cols = rows + rng.integers(0, every, rows.size), cols + rng.integers(0, every, cols.size)
            inside = (rows < lattice.shape[0]) & (cols < lattice.shape[1])
            rows, cols = rows[inside], cols[inside]
            inside = np.isfinite(lattice[rows, cols])
            rows, cols = rows[inside], cols[inside]
        rows, cols, values = _drawn(lattice, rows, cols, alike, rng)
        grid = tuple(CELLS * int(np.clip(n // (48 if n >= 384 else 20), 1, 16)) for n in lattice.shape)
        i, j = (np.clip((v * m / n).astype(int), 0, m - 1) for v, m, n in zip((rows, cols), grid, lattice.shape))
        raw = [(interpolated, 0, 0, 0, rows.size)]
        places = rows, cols, i * grid[1] + j, grid[0] * grid[1], grid
        return cls._made(values, *places, lattice.shape, raw, smooth, alike)

    @classmethod
    def tiled(cls, lattice: Image, interpolated: Image, warp, seed, alike):
        """Samples in windows of a lattice image too large to be held, and the other's tiles where `warp` leads them."""
        windows = windows_for(lattice.shape)
        tiles, tiles_at = cut(lattice, windows.start, windows.start + windows.size)
        rows, cols = warp.pull(*windows.grid())
        low = np.floor(np.stack([rows.min(axis=(1, 2)), cols.min(axis=(1, 2))], axis=1)).astype(int)
        high = np.ceil(np.stack([rows.max(axis=(1, 2)), cols.max(axis=(1, 2))], axis=1)).astype(int) + 1
        others, others_at = cut(interpolated, low, high)
        rng = np.random.default_rng(seed)
        parts, raw, n = [], [], 0
        for k, (first, at) in enumerate(zip(windows.start - tiles_at, tiles_at)):
            box = tuple(slice(v, v + windows.size) for v in first)
            i, j = np.nonzero(np.isfinite(tiles[k][box]))
            i, j, values = _drawn(tiles[k], i + first[0], j + first[1], alike, rng)
            parts.append((values, i + at[0], j + at[1], np.full(i.size, k)))
            raw.append((others[k], *others_at[k], n, n + i.size))
            n += i.size
        values, *places = (np.concatenate(part) for part in zip(*parts))
        return cls._made(values, *places, len(tiles), None, lattice.shape, raw, SMOOTHING[0], alike)

    @classmethod
    def _made(cls, values, rows, cols, cell, n_cell, grid, shape, raw, smooth, alike):
        if values.size < 256:
            raise MatchError("fewer than 256 pixels are left to compare.")
        bins = int(np.clip(round(values.size ** (1 / 3)), 16, 64))
        kinds = ((rows, np.float64), (cols, np.float64), (cell, np.int32))
        rows, cols, cell = (np.ascontiguousarray(v, kind) for v, kind in kinds)
        pair = cls(kernel.ranks(values, bins), rows, cols, cell, n_cell, grid, shape, raw, bins)
        return pair.smoothed(max(smooth, ALIKE_PX) if alike else smooth)

    def smoothed(self, sigma):
        """The same with the interpolated image smoothed by a Gaussian of `sigma` px."""
        images = [kernel.smoothed(tile, sigma) for tile, *_ in self.raw]
        seen = np.concatenate([image[np.isfinite(image)][:: max(1, len(images) // 16)] for image in images])
        if seen.size < 256:
            raise MatchError("fewer than 256 pixels are left to compare.")
        low, width = kernel.bin_range(seen, self.bins)
        if not width > 0:
            raise MatchError("one of the images is flat but for a few pixels: nothing to match.")
        ends = low + 2 * width, low + (self.bins - 3) * width
        tiles = [(*kernel.spline_image(image, *ends, sigma), *rest) for image, (_, *rest) in zip(images, self.raw)]
        return replace(self, smooth=sigma, tiles=tiles, low=low, width=width)

    def thinned(self, every):
        """Every so-many-th sample, for a rough look."""
        keep = np.zeros(self.level.size, bool)
        keep[::every] = True
        ends = np.concatenate([[0], np.cumsum(keep)])
        return replace(
            self,
            **{name: getattr(self, name)[keep] for name in ("level", "rows", "cols", "cell")},
            raw=[(*rest, int(ends[a]), int(ends[b])) for *rest, a, b in self.raw],
            tiles=[(*rest, int(ends[a]), int(ends[b])) for *rest, a, b in self.tiles],
        )

    def values(self, matrix):
        """(n, 3) value and gradient of the interpolated image at the samples."""
        out = np.empty((self.level.size, 3))
        for coef, ok, top, left, a, b in self.tiles:
            kernel.interpolate(coef, ok, top, left, self.rows[a:b], self.cols[a:b], matrix, out[a:b])
        return out

    def at(self, matrix):
        """(information in nats, samples used, the values and the joint histogram it came from, tables)."""
        values = self.values(matrix)
        joint, count = kernel.joint_histogram(self.level, values, self.low, self.width, self.bins, self.bins)
        if count < 256 or count < 0.1 * self.level.size:
            raise MatchError(f"only {count} of {self.level.size} pixels are seen in both images.")
        information, *rest = kernel.tables(joint)
        return information, count, values, joint, rest

    def scores(self, values, rest):
        centre, size = frame(self.shape)
        places = self.rows, self.cols, self.cell, self.n_cell
        return kernel.scores(self.level, values, *places, *rest, self.low, self.width, centre, size)

    def climb(self, warp, model, *, close, steps=12, most=2.0):
        """The warp of a model at the nearest maximum of information, to `close` px.

        Steps solve with the curvature expected of the histogram; a step that gains nothing is halved.
        """
        centre, size = frame(self.shape)
        b = to_model(centred(matrix_of(warp), centre, size), model, size)
        here = self.at(plain(b, centre, size))
        pull, step, response = None, None, 1.0
        for _ in range(steps):
            gradient, curvature, _ = self.scores(here[2], here[4])
            tangent = TANGENTS[model](b)
            normal = tangent.T @ curvature @ tangent
            now_pull = tangent.T @ gradient.sum(axis=0)
            if pull is not None:
                # how much of what the last step should have changed did change
                response = float(np.clip((pull - now_pull) @ step / (step @ normal @ step), 0.3, 2.0))
            pull = now_pull
            step = _solved(normal, pull) / response
            length = float(np.abs(step).max())
            step *= min(1.0, most / max(length, 1e-12))
            for _ in range(4):
                there = to_model(b + (tangent @ step).reshape(2, 3), model, size)
                now = self.at(plain(there, centre, size))
                # for the last bit the gradient knows better: samples that enter and leave at the edges shake the sum
                if now[0] >= here[0] or np.abs(step).max() < 0.1:
                    break
                step = step / 2
            else:
                break
            b, here = there, now
            if np.abs(step).max() < close:
                break
        return Affine(plain(b, centre, size))

    def evidence(self, warp):
        """How far the information at a warp stands above that at wrong positions around it, in standard deviations.

        How much the information of a block varies among wrong positions is its error; blocks are independent.
        """
        matrix = matrix_of(warp)
        total, count = self._by_block(matrix)
        mean = []
        for k, radius in enumerate(RING):
            for turn in (np.arange(8) + 0.5 * k) * np.pi / 4:
                aside = matrix.copy()
                aside[:, 2] += radius * np.array([np.sin(turn), np.cos(turn)])
                here, used = self._by_block(aside)
                mean.append(np.where(used > 32, here / np.maximum(used, 1), np.nan))
        mean = np.array(mean)
        good = (count > 32) & np.isfinite(mean).all(axis=0)
        if good.sum() < 6:
            return 0.0
        mean, total, count = mean[:, good], total[good], count[good]
        spread = np.sqrt((mean.var(axis=0, ddof=1) * count**2).sum() * (1 + 1 / len(mean)))
        # along the crests of waves and furrows other positions tell as much: nothing is known about that direction
        if total.sum() - (mean @ count).max() <= quality.RIDGE * spread:
            return 0.0
        return float((total.sum() - (mean @ count).mean()) / spread)

    def _by_block(self, matrix):
        _, _, values, joint, _ = self.at(matrix)
        parts = kernel.by_block(self.level, values, self.cell, self.n_cell, joint, self.low, self.width)
        return tuple(self.blocks(part) for part in parts)

    def blocks(self, sums):
        """Sums over blocks of sums over cells."""
        if self.grid is None:
            return sums
        parts = sums.reshape(self.grid[0] // CELLS, CELLS, self.grid[1] // CELLS, CELLS, -1).sum(axis=(1, 3))
        return parts.reshape(-1, *sums.shape[1:])


def _solved(normal, right):
    d = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    scaled = normal / d[:, None] / d[None, :]
    if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] < 1e-9:
        raise MatchError(
            "what the images share does not span the model: too little structure, or in one direction only."
        )
    return np.linalg.solve(scaled, right / d) / d
