"""Scenes from the ground, tile by tile; and which project pixels the planted events hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoalign.kernels import scene as maths
from geoalign.kernels import scene_values as covers
from geoalign.kernels.scene_events import ALLOWED
from geoalign.kernels.scene_look import optical_look, sar_look
from geoalign.types.grid import GridMap

TILE = 512
"""Side (px) of the fixed tiles in which scenes are rendered; noise is seeded for each of them."""

_PSF_PX = 0.5
_REACH_PX = 4


def tiles(shape):
    """((row, row), (col, col)) of the fixed tiles of a grid."""
    for r0 in range(0, shape[0], TILE):
        for c0 in range(0, shape[1], TILE):
            yield (r0, min(r0 + TILE, shape[0])), (c0, min(c0 + TILE, shape[1]))


def render_tile(recipe, scenes, tile, *, native):
    """The tile of every scene, one by one: (number in `scenes`, bands (band, row, col) float32, classes or None)."""
    views = []
    for k, scene in enumerate(scenes):
        grid = scene.geobox if native else recipe.geobox
        (r0, r1), (c0, c1) = tile
        r1, c1 = min(r1, grid.shape[0]), min(c1, grid.shape[1])
        if r0 >= r1 or c0 >= c1:
            continue
        shown = np.mgrid[r0:r1, c0:c1].astype(float)
        shown = GridMap(grid, recipe.geobox).pull(*shown) if native else shown
        shown = tuple(np.ascontiguousarray(v) for v in shown)
        place = tuple(np.ascontiguousarray(v) for v in scene.warp.inverse().pull(*shown))
        scale = abs(grid.affine.a / recipe.geobox.affine.a) if native else 1.0
        views.append((k, scene, shown, place, scale))
    if not views:
        return
    reach = _REACH_PX * max(v[4] for v in views)
    low = [int(np.floor(min(v[3][axis].min() for v in views) - reach)) for axis in (0, 1)]
    high = [int(np.ceil(max(v[3][axis].max() for v in views) + reach)) for axis in (0, 1)]
    fine, labels = _fine_ground(recipe, low, high)
    n = recipe.oversample
    for k, scene, shown, place, scale in views:
        active = _active(recipe, scene.time)
        day, year = scene.time.dayofyear, scene.time.year
        common = (*fine, labels, _kinds(recipe), active, day, year, recipe.salt + 500)
        if scene.sensor == "optical":
            values = covers.optical_values(*common, covers.SPECTRA)
        else:
            values = covers.sar_values(*common, covers.BACKSCATTER_DB, covers.EVENT_DB, recipe.season_db)
        sigma = _PSF_PX * scale
        bands = maths.render(values, *place, low[0] * n, low[1] * n, n, sigma, sigma)
        key = (3 + native, scene.salt, tile[0][0] // TILE, tile[1][0] // TILE)
        rng = np.random.default_rng(np.random.SeedSequence(recipe.seed, spawn_key=key))
        if scene.sensor == "optical":
            yield (
                k,
                *optical_look(
                    bands,
                    shown,
                    rng,
                    salt=scene.salt,
                    shadow=scene.shadow,
                    level=scene.cloud_level,
                    gain=scene.gain,
                    offset=scene.offset,
                    noise=recipe.noise,
                ),
            )
        else:
            yield k, sar_look(bands, rng, looks=recipe.looks, gain=scene.gain), None


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


def _kinds(recipe):
    return np.array([0, *(maths.KINDS.index(e.kind) for e in recipe.events)], np.uint8)


def _active(recipe, time):
    day = (time - recipe.start) / pd.Timedelta(days=1)
    shows = [e.start <= day and (e.end is None or day < e.end) for e in recipe.events]
    return np.array([False, *shows], np.bool_)


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
