"""GridMap: the warp from the pixels of one GeoBox to the pixels of another, across resolutions and CRS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoalign.errors import StackError
from geoalign.kernels.resample import lattice_eval
from geoalign.types.warp import Affine, _pair

_LATTICE_PX = 32
"""Spacing of the exactly transformed nodes. Cubic in between: below 1e-4 px for UTM to UTM or to degrees at 10 m."""


@dataclass(frozen=True)
class GridMap:
    """Where a pixel of `target` lies in the pixels of `source`: a Warp, so that it chains with an alignment.

    Across CRS the transformation is exact at nodes every 32 target pixels, anchored to the target grid (not to the
    block asked for, so that every chunking gives the same bits), and cubic in between.
    """

    target: GeoBox
    source: GeoBox

    def __post_init__(self):
        if (self.target.crs is None) != (self.source.crs is None):
            raise StackError("one of two grids has no CRS; they can't be mapped onto each other.")

    @cached_property
    def _affine(self) -> Affine | None:
        if self.target.crs != self.source.crs:
            return None
        # pixel centres at integers: shift by half a pixel before and after the corner-based GDAL transforms
        inner = (~self.source.affine) * self.target.affine
        a, b, c, d, e, f = inner[:6]
        return Affine(((e, d, f + 0.5 * (d + e) - 0.5), (b, a, c + 0.5 * (a + b) - 0.5)))

    def _exact(self, rows, cols):
        t, s = self.target.affine, ~self.source.affine
        x, y = t.a * (cols + 0.5) + t.b * (rows + 0.5) + t.c, t.d * (cols + 0.5) + t.e * (rows + 0.5) + t.f
        x, y = _transformer(str(self.target.crs), str(self.source.crs)).transform(x, y)
        return s.d * x + s.e * y + s.f - 0.5, s.a * x + s.b * y + s.c - 0.5

    def pull(self, rows, cols):
        if self._affine is not None:
            return self._affine.pull(rows, cols)
        rows, cols = _pair(rows, cols)
        if rows.size == 0:
            return rows.copy(), cols.copy()
        i0, j0 = (int(np.floor(v.min() / _LATTICE_PX)) - 1 for v in (rows, cols))
        i1, j1 = (int(np.floor(v.max() / _LATTICE_PX)) + 3 for v in (rows, cols))
        nodes = np.mgrid[i0:i1, j0:j1].astype(np.float64) * _LATTICE_PX
        r, c = self._exact(*nodes)
        # contiguous and writable: numba warns of views such as broadcasts
        return lattice_eval(r, c, np.array(rows), np.array(cols), float(_LATTICE_PX), i0, j0)

    def inverse(self) -> GridMap:
        return GridMap(self.source, self.target)

    def jacobian(self, rows, cols):
        rows, cols = _pair(rows, cols)
        if self._affine is not None:
            return self._affine.jacobian(rows, cols)
        out = np.empty((*rows.shape, 2, 2))
        for j, (dr, dc) in enumerate(((0.5, 0.0), (0.0, 0.5))):
            hi, lo = self.pull(rows + dr, cols + dc), self.pull(rows - dr, cols - dc)
            for i in range(2):
                out[..., i, j] = hi[i] - lo[i]
        return out

    def __dask_tokenize__(self):
        return ("geoalign.GridMap", *(_box_key(box) for box in (self.target, self.source)))


def _box_key(box):
    return (tuple(box.shape), tuple(box.affine[:6]), str(box.crs))


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)
