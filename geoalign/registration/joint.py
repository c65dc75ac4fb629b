"""The second pass: every scene once more, against the mean of the other aligned scenes.

A single SAR scene is a noisy reference: its speckle is in every match. The mean of the others has little of it, and
fewer gaps. A scene is never part of its own reference: it would match its own noise at whole pixels. The network of
pairs (`adjust.py`) halves what this pass gains, it does not replace it: pairs of single scenes stay noisy. Of images
read by tiles the pass is left out unless asked for, because their many windows average the speckle already, and each
scene's tiles would be read and resampled three times more.
"""

from __future__ import annotations

import logging

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.resample import resample
from geoalign.registration.neighbours import KEEP_BYTES
from geoalign.registration.phase import BANDS, best_band, first_limit, measure
from geoalign.registration.tiepoints import MARGIN, Image, Level, cut, windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Chain, Shift

log = logging.getLogger("geoalign")


class Joint:
    """The scenes of a stack that were aligned, as means on the tiles of the reference grid.

    reference : what they were aligned to; at : its index among `scenes`, None where it is not one of them
    """

    MIN_SCENES = 4

    def __init__(self, reference: Image, scenes: list[Image], at, model, seed):
        self.reference, self.scenes, self.at, self.model, self.seed = reference, scenes, at, model, seed
        self.bands = BANDS  # chosen with the first match of the means and kept: the scenes are of one kind
        self.windows = windows_for(reference.shape)
        self.tiles, self.tiles_at = cut(reference, self.windows.start, self.windows.start + self.windows.size)
        self.whole = not reference.by_tiles

    def refined(self, found: dict[int, Match]):
        """Matches against the means. Returns (matches, sigma_px common to all: the error of the mean's own tie).

        The mean is tied to the reference first, so that the frame stays the reference's and not that of the first
        pass's errors, which all contain the reference's noise.
        """
        warps = {k: m.warp for k, m in found.items()}
        try:
            tie = self._match(self._mean(self._sums(warps)), self.reference, Shift(0.0, 0.0))
        except MatchError as err:
            log.info("second pass left out: the mean of the scenes could not be tied to the reference (%s)", err)
            return found, 0.0
        back = tie.warp.inverse()
        warps = {k: Chain((back, w)) for k, w in warps.items()}
        middle = np.array(self.reference.shape) / 2
        extra = float(tie.sigma_px(*middle))
        if self.at is not None:
            warps[self.at] = Shift(0.0, 0.0)
        sums = self._sums(warps)
        out = {}
        for k, first in found.items():
            own = self._aligned(k, warps[k])
            try:
                out[k] = self._match(self._mean(sums, own), self.scenes[k], first.warp)
            except MatchError as err:
                log.info("second pass: scene %d keeps its first match (%s)", k, err)
                out[k] = first
        return out, extra

    def _match(self, tiles, moving: Image, warp) -> Match:
        n = len(self.windows.start)
        rows, cols = warp.pull(*self.windows.grid())
        low = np.floor(np.stack([rows.min(axis=(1, 2)), cols.min(axis=(1, 2))], axis=1)).astype(int)
        high = np.ceil(np.stack([rows.max(axis=(1, 2)), cols.max(axis=(1, 2))], axis=1)).astype(int) + 1
        level = Level(self.windows, tiles * n if self.whole else tiles, self.tiles_at, *cut(moving, low, high))
        shape = self.reference.shape
        fine, warp, response = best_band(level, warp, shape, self.bands)
        self.bands = (fine,)
        limit = first_limit(shape, None) * 2
        images = (Image(tiles[0]), moving) if self.whole else None
        return measure(level, warp, fine, response, self.model, limit, self.seed, "phase", shape, images)

    def _aligned(self, k, warp):
        """Scene k as the tiles of the reference see it, standardised so that no scene outweighs the others."""
        scene = self.scenes[k] if k != self.at else self.reference
        values = scene.coarse(scene.factor)
        values = values[np.isfinite(values)]
        low, middle, high = np.percentile(values, [16, 50, 84])
        spread = max(float(high - low), 1e-12)
        out = []
        for tile, at in self._places():
            rows = at[0] + np.arange(tile.shape[0], dtype=np.float64)[:, None]
            cols = at[1] + np.arange(tile.shape[1], dtype=np.float64)[None, :]
            rows, cols = warp.pull(*np.broadcast_arrays(rows, cols))
            if self.whole:
                source, origin = scene.tiles([None])[0], (0, 0)
            else:
                box_low = np.array([[int(np.floor(rows.min())), int(np.floor(cols.min()))]]) + MARGIN
                box_high = np.array([[int(np.ceil(rows.max())) + 1, int(np.ceil(cols.max())) + 1]]) - MARGIN
                (source,), origins = cut(scene, box_low - 4, box_high + 4)
                origin = origins[0]
            value = resample(source, rows, cols, "cubic", row0=int(origin[0]), col0=int(origin[1]))
            out.append((value - np.float32(middle)) / np.float32(spread))
        if scene.bytes * len(self.scenes) > KEEP_BYTES:
            scene.forget()  # all together would not fit; each is read three times in this pass
        return out

    def _places(self):
        if self.whole:
            return [(self.tiles[0], self.tiles_at[0])]
        return list(zip(self.tiles, self.tiles_at))

    def _sums(self, warps):
        total = [np.zeros(tile.shape) for tile, _ in self._places()]
        count = [np.zeros(tile.shape, np.int32) for tile, _ in self._places()]
        for k in sorted(warps):
            for t, c, value in zip(total, count, self._aligned(k, warps[k])):
                seen = np.isfinite(value)
                t[seen] += value[seen]
                c += seen
        return total, count

    @staticmethod
    def _mean(sums, own=None):
        out = []
        for i, (total, count) in enumerate(zip(*sums)):
            if own is not None:
                seen = np.isfinite(own[i])
                total = total - np.where(seen, own[i], 0.0)
                count = count - seen
            # a mean of very few scenes among means of many would draw edges
            enough = count >= max(2, 0.3 * count.max())
            out.append(np.divide(total, count, out=np.full(total.shape, np.nan), where=enough).astype(np.float32))
        return out
