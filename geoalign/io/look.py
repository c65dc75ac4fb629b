"""Windows of scenes and layers at any step, read at once and alone: what a viewer asks for.

`open_stack` plans the whole; a viewer wants one window of one scene, or one pixel of all of them. Steps are powers of
two and are read from a file's overviews where it has them, so that a look at 10980 x 10980 pixels reads a few hundred
rows. Nothing is kept.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from geoalign.errors import StateError
from geoalign.io.encoding import Layer, layer_from_tags
from geoalign.io.geotiff import read_window
from geoalign.io.open import chosen_scenes
from geoalign.io.scenes import FileBand, Scene
from geoalign.kernels.resample import HALO, resample
from geoalign.types.alignment import Alignment
from geoalign.types.grid import GridMap
from geoalign.types.warp import Chain

THREADS = 4
"""Files read at the same time: they wait for the disk more than for the processor."""


@dataclass(frozen=True)
class SceneLook:
    """Scenes of one sensor on one grid, sorted by time. Made by `look_at`.

    names : the bands; target : the grid; alignment : how the scenes lie, None where they are taken as they lie
    """

    scenes: tuple[Scene, ...]
    names: tuple[str, ...]
    target: GeoBox
    alignment: Alignment | None
    resampling: str = "cubic"

    @property
    def shape(self):
        return tuple(int(n) for n in self.target.shape)

    @property
    def time(self):
        return np.array([np.datetime64(s.facts.time, "ns") for s in self.scenes])

    @property
    def scene(self):
        return [str(s.facts.scene) for s in self.scenes]

    def window(self, k: int, names, rows, cols, step: int = 1, *, masked=True, aligned=True, read=None):
        """Bands of scene k in rows and cols (start, stop) of the grid, every `step`-th pixel: (band, row, col) float32.

        masked : False also gives what the scene's mask takes out; aligned : False shows the scene as it was delivered;
        read : a `_Reader` of this scene, to share what it read with another look
        """
        scene = self.scenes[k]
        read = read or _Reader(scene, names)
        view = view_of(self.target, rows, cols, step)
        warps = ()
        if self.alignment is not None and aligned and scene.facts.scene in self.alignment.warps:
            warps = (self.alignment.warps[scene.facts.scene],)
        out = np.full((len(names), *view.shape), np.nan, np.float32)
        places = {}  # bands of one grid lie at the same places
        for b, name in enumerate(names):
            for source in scene.bands.get(name, ()):
                source = _coarse(source, view)
                if source.geobox not in places:
                    chain = Chain((GridMap(view, self.target), *warps, GridMap(self.target, source.geobox)))
                    places[source.geobox] = chain.pull(*_grid(view.shape))
                values = _pulled(
                    source, *places[source.geobox], self.resampling if step == 1 else "bilinear", masked, read
                )
                out[b] = np.where(np.isnan(out[b]), values, out[b])
        return out

    def series(self, names, row: int, col: int):
        """All scenes' values at one pixel, masked and as they were before: two arrays (band, time) float32."""
        place = (row, row + 1), (col, col + 1)

        def one(k):
            read = _Reader(self.scenes[k], names)
            return [self.window(k, names, *place, masked=masked, read=read)[:, 0, 0] for masked in (True, False)]

        with ThreadPoolExecutor(THREADS) as pool:
            both = np.array(list(pool.map(one, range(len(self.scenes)))), np.float32)
        return tuple(both.transpose(1, 2, 0))


def look_at(source, *, alignment=None, resampling="cubic", **options) -> SceneLook:
    """Look at scenes without opening them as a Stack.

    source, alignment, resampling and options (product, bands, time, orbit, like) : as in `open_stack`
    """
    scenes, names, target, _ = chosen_scenes(source, alignment=alignment, **options)
    scenes = sorted(scenes, key=lambda s: s.facts.time)
    return SceneLook(tuple(scenes), tuple(names), target, alignment, resampling)


class _Reader:
    """Reads windows of one scene, of each file all bands that are wanted at once, and keeps what it read."""

    def __init__(self, scene, names):
        self.bands: dict[str, set] = {}
        self.known: dict[tuple, dict] = {}
        for name in names:
            for source in scene.bands.get(name, ()):
                for part in (source, *getattr(source, "masks", ())):
                    if hasattr(part, "path"):
                        self.bands.setdefault(part.path, set()).add(part.band)

    def __call__(self, path, band, rows, cols, *, stamp=None, step=1):
        key = (path, rows, cols, step)
        if key not in self.known:
            wanted = sorted(self.bands[path])
            self.known[key] = dict(zip(wanted, read_window(path, wanted, rows, cols, stamp=stamp, step=step)))
        return self.known[key][band]


@dataclass(frozen=True)
class LayerLook:
    """The layers of Changes in a folder, read window by window. Made by `look_at_changes`."""

    folder: Path
    layers: dict[str, Layer]
    shape: tuple[int, int]

    def window(self, name: str, rows, cols, step: int = 1):
        """One layer in rows and cols (start, stop), every `step`-th pixel: (..., row, col)."""
        import rasterio
        from rasterio.windows import Window

        layer = self.layers[name]
        size = _count(rows, step), _count(cols, step)
        place = Window(cols[0], rows[0], min(size[1] * step, self.shape[1] - cols[0]),
                       min(size[0] * step, self.shape[0] - rows[0]))  # fmt: skip
        with rasterio.open(self.folder / layer.file, driver="GTiff") as file:
            values = file.read(window=place, out_shape=(layer.size, *size))
        return layer.decode(values if layer.dim else values[0])


def look_at_changes(folder) -> LayerLook:
    """Look at the layers that `write_changes` wrote; StateError where there are none."""
    import rasterio

    folder, layers, shape = Path(folder), {}, (0, 0)
    for path in sorted(folder.glob("[!.]*.tif")):
        with rasterio.open(path, driver="GTiff") as file:
            layer = layer_from_tags(file.tags(), file.count, file.dtypes[0], file.nodata, path.name)
            if layer is not None:
                layers[layer.name], shape = layer, file.shape
    if "status" not in layers:
        raise StateError(f"{folder} does not hold Changes. Give a folder that write_changes wrote.")
    return LayerLook(folder, layers, shape)


def view_of(target: GeoBox, rows, cols, step: int) -> GeoBox:
    """The grid of a window of another, its pixels `step` times as wide; the last ones may reach beyond the window."""
    from affine import Affine

    transform = target.affine * Affine.translation(cols[0], rows[0]) * Affine.scale(step)
    return GeoBox((_count(rows, step), _count(cols, step)), transform, target.crs)


def _count(span, step):
    return max(1, -(-(span[1] - span[0]) // step))


def _grid(shape):
    return np.meshgrid(np.arange(shape[0], dtype=float), np.arange(shape[1], dtype=float), indexing="ij")


@dataclass(frozen=True)
class _CoarseBand:
    """A file's band at a power of two of its pixels: from its overviews, where it has them."""

    band: FileBand
    step: int

    @property
    def geobox(self):
        return view_of(self.band.geobox, (0, self.shape[0] * self.step), (0, self.shape[1] * self.step), self.step)

    @property
    def shape(self):
        return tuple(max(1, int(n) // self.step) for n in self.band.shape)

    def read(self, rows, cols, masked, read):
        b, s = self.band, self.step
        wide = (rows[0] * s, rows[1] * s), (cols[0] * s, cols[1] * s)
        values = b.calibration.apply(read(b.path, b.band, *wide, stamp=b.stamp, step=s))
        for layer in b.masks if masked else ():
            # the mask's own grid at the same view: every step-th code, which is enough to look at
            values[_mask_at(layer, self.geobox, rows, cols, read)] = np.nan
        return values


def _mask_at(layer, geobox, rows, cols, read):
    size = max(1.0, float(np.sqrt(abs(geobox.affine.determinant / layer.geobox.affine.determinant))))
    step = 2 ** int(np.log2(size))
    if step == 1 or geobox.crs != layer.geobox.crs:
        return layer.bad(geobox, rows, cols, read)
    shape = tuple(max(1, int(n) // step) for n in layer.geobox.shape)
    coarse = view_of(layer.geobox, (0, shape[0] * step), (0, shape[1] * step), step)
    return replace(layer, geobox=coarse, step=step).bad(geobox, rows, cols, read)


def _coarse(source, view):
    """The source at the power of two that comes closest to the view's pixels from below."""
    if not isinstance(source, FileBand):
        return source
    if source.geobox.crs == view.crs:
        ratio = float(np.sqrt(abs(view.affine.determinant / source.geobox.affine.determinant)))
    else:  # across CRS: metres a pixel are told by mapping the view's middle
        at = np.array([view.shape[0] / 2]), np.array([view.shape[1] / 2])
        ratio = float(np.sqrt(abs(np.linalg.det(GridMap(view, source.geobox).jacobian(*at)[0]))))
    return _CoarseBand(source, 2 ** int(np.log2(max(1.0, ratio + 1e-6))))


def _pulled(source, rows, cols, kind, masked, read):
    """Values of a source at places (rows, cols), reading only the window that holds them."""
    height, width = source.shape
    halo = HALO[kind]
    inside = (rows > -1) & (rows < height) & (cols > -1) & (cols < width)
    if not inside.any():
        return np.full(rows.shape, np.nan, np.float32)
    span = []
    for places, most in ((rows[inside], height), (cols[inside], width)):
        span.append((max(0, int(np.floor(places.min())) - halo), min(most, int(np.ceil(places.max())) + halo + 1)))
    if isinstance(source, _CoarseBand):
        values = source.read(*span, masked, read)
    else:
        values = np.asarray(source.lazy()[span[0][0] : span[0][1], span[1][0] : span[1][1]])
    return resample(values, rows, cols, kind, row0=span[0][0], col0=span[1][0])
