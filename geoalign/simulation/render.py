"""Scenes from the ground, tile by tile; and which project pixels the planted events hold."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from geoalign.kernels import scene as maths
from geoalign.kernels import scene_values as covers
from geoalign.kernels.resample import lattice_eval
from geoalign.kernels.scene_events import ALLOWED
from geoalign.kernels.scene_look import optical_look, sar_look
from geoalign.types.grid import GridMap
from geoalign.types.warp import Field

TILE = 512
"""Side (px) of the fixed tiles in which scenes are rendered; noise is seeded for each of them."""

_PSF_PX = 0.5
_REACH_PX = 4
_LATTICE_FROM = 1024
_LATTICE_PX = 16


def tiles(shape):
    """((row, row), (col, col)) of the fixed tiles of a grid."""
    for r0 in range(0, shape[0], TILE):
        for c0 in range(0, shape[1], TILE):
            yield (r0, min(r0 + TILE, shape[0])), (c0, min(c0 + TILE, shape[1]))


def render_tile(recipe, scenes, tile, *, native):
    """The tile of every scene, in order: (number in `scenes`, bands (band, row, col) float32, classes or None).

    native : on each scene's own grid, or on the project grid. Scenes whose grid ends before the tile are left out. The
    static ground is made once for all scenes; they are rendered by threads, each from its own seed.
    """
    views = []
    for k, scene in enumerate(scenes):
        grid = scene.geobox if native else recipe.geobox
        spans = [(a, min(b, n)) for (a, b), n in zip(tile, grid.shape)]
        if all(a < b for a, b in spans):
            views.append((k, scene, grid, spans))
    if not views:
        return
    reach, low, high = 0.0, np.full(2, np.inf), np.full(2, -np.inf)
    for _, scene, grid, spans in views:
        few = np.meshgrid(*(np.unique(np.append(np.arange(a, b, 16), b - 1)) for a, b in spans), indexing="ij")
        _, place = _places(recipe, scene, grid, few)
        reach = max(reach, _REACH_PX * _scale(recipe, grid))
        low = np.minimum(low, [v.min() for v in place])
        high = np.maximum(high, [v.max() for v in place])
    # a warp bends by less than a pixel between the points looked at
    low, high = np.floor(low - reach - 1).astype(int), np.ceil(high + reach + 1).astype(int)
    fine, labels = _fine_ground(recipe, low, high)

    def one(view):
        k, scene, grid, spans = view
        shown, place = _places(recipe, scene, grid, np.mgrid[spans[0][0] : spans[0][1], spans[1][0] : spans[1][1]])
        values = _values(recipe, scene, fine, labels)
        sigma = _PSF_PX * _scale(recipe, grid)
        n = recipe.oversample
        bands = maths.render(values, *place, low[0] * n, low[1] * n, n, sigma, sigma)
        key = (3 + native, scene.salt, tile[0][0] // TILE, tile[1][0] // TILE)
        rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=key))
        if scene.sensor == "sar":
            return k, sar_look(bands, rng, looks=recipe.looks, gain=scene.gain), None
        air = {"salt": scene.salt, "shadow": scene.shadow, "level": scene.cloud_level}
        return k, *optical_look(bands, shown, rng, **air, gain=scene.gain, offset=scene.offset, noise=recipe.noise)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(one, views)


def _scale(recipe, grid):
    """Size of the grid's pixels in project pixels."""
    return abs(grid.affine.a / recipe.geobox.affine.a)


def _places(recipe, scene, grid, points):
    """Where pixels of the grid are shown, nominally, and where on the ground they look: (rows, cols) each, px."""
    points = [np.asarray(v, np.float64) for v in points]
    shown = points if grid == recipe.geobox else GridMap(grid, recipe.geobox).pull(*points)
    shown = tuple(np.ascontiguousarray(v) for v in shown)
    back = scene.warp.inverse()
    if isinstance(scene.warp, Field) and recipe.size >= _LATTICE_FROM:
        return shown, _on_lattice(back, *shown)
    return shown, tuple(np.ascontiguousarray(v) for v in back.pull(*shown))


def _on_lattice(warp, rows, cols):
    """The warp solved on a lattice, anchored to the grid, with cubics between; within 1e-5 px of solving everywhere."""
    i0, j0 = (int(np.floor(v.min() / _LATTICE_PX)) - 1 for v in (rows, cols))
    i1, j1 = (int(np.floor(v.max() / _LATTICE_PX)) + 3 for v in (rows, cols))
    nodes = np.mgrid[i0:i1, j0:j1].astype(np.float64) * _LATTICE_PX
    return lattice_eval(*warp.pull(*nodes), rows, cols, float(_LATTICE_PX), i0, j0)


def _values(recipe, scene, fine, labels):
    """What the fine ground reflects or scatters at the scene's time, (band, row, col)."""
    kinds = np.array([0, *(maths.KINDS.index(e.kind) for e in recipe.events)], np.uint8)
    day = (scene.time - recipe.start) / pd.Timedelta(days=1)
    shows = [e.start <= day and (e.end is None or day < e.end) for e in recipe.events]
    active = np.array([False, *shows], np.bool_)
    common = (*fine, labels, kinds, active, scene.time.dayofyear, scene.time.year, recipe.salt + 500)
    if scene.sensor == "optical":
        return covers.optical_values(*common, covers.SPECTRA)
    return covers.sar_values(*common, covers.BACKSCATTER_DB, covers.EVENT_DB, recipe.season_db)


def _fine_ground(recipe, low, high):
    """Static layers and event numbers of the ground between two project pixels, in fine cells."""
    n = recipe.oversample
    row0, col0 = low[0] * n, low[1] * n
    fine = maths.ground(row0, col0, (high[0] - low[0]) * n, (high[1] - low[1]) * n, n, recipe.macro, recipe.salt)
    labels = np.zeros(fine[0].shape, np.int32)
    cover = np.where(fine[1] == 3, maths.URBAN, fine[0]).astype(np.uint8)  # gardens belong to the town
    for number, event in enumerate(recipe.events, start=1):
        if (event.outline.max(0) >= np.array(low) - 1).all() and (event.outline.min(0) <= np.array(high) + 1).all():
            allowed = np.isin(np.arange(len(maths.CLASSES)), ALLOWED[event.kind])
            maths.paint(labels, row0, col0, n, cover, allowed, event.outline, number)
    return fine, labels


def event_pixels(recipe):
    """Number of the event that each project pixel belongs to, (y, x) int16; only the places of events are looked at."""
    size, n = recipe.size, recipe.oversample
    out = np.zeros((size, size), np.int16)
    for number, event in enumerate(recipe.events, start=1):
        low = np.clip(np.floor(event.outline.min(0)).astype(int) - 1, 0, size)
        high = np.clip(np.ceil(event.outline.max(0)).astype(int) + 2, 0, size)
        pixels = maths.majority(_fine_ground(recipe, low, high)[1], n, len(recipe.events))
        view = out[low[0] : high[0], low[1] : high[1]]
        view[pixels == number] = number
    return out
