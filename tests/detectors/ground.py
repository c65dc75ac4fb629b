"""Optical stacks of a few surfaces with seasons, for the themes' tests: land cover by columns, change in a square."""

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import new_stack

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
LEAF = np.array([0.03, 0.06, 0.034, 0.40, 0.19, 0.09])
CANOPY = np.array([0.02, 0.04, 0.024, 0.30, 0.125, 0.055])
SOIL = np.array([0.07, 0.10, 0.135, 0.22, 0.30, 0.25])
FELLED = np.array([0.06, 0.08, 0.105, 0.20, 0.25, 0.19])
ROOF = np.array([0.17, 0.19, 0.20, 0.23, 0.25, 0.23])
MUD = np.array([0.07, 0.10, 0.09, 0.045, 0.018, 0.012])
WATER = np.array([0.04, 0.045, 0.03, 0.016, 0.008, 0.005])

SHAPE, N = (36, 48), 60
PLACES = {"forest": slice(0, 14), "crop": slice(14, 28), "grass": slice(28, 42), "water": slice(42, 48)}
ROWS = slice(10, 22)


def times(n=N, step=13):
    return np.datetime64("2022-01-04") + np.arange(n) * np.timedelta64(step, "D")


def surface(name, year):
    """Reflectance of a surface at fractional years, (time, band)."""
    summer = 0.5 - 0.5 * np.cos(2 * np.pi * year)
    if name == "forest":
        return CANOPY * (1 + 0.1 * (summer - 0.5))[:, None]
    if name == "water":
        return np.broadcast_to(WATER, (year.size, 6))
    green = {"crop": 0.05 + 0.85 * summer**2, "grass": 0.45 + 0.35 * summer}[name][:, None]
    return green * LEAF + (1 - green) * SOIL


def ground(change=None, place=None, first=38, last=N, *, seed=0, gaps=0.3, clouds=0.0, noise=0.006, crs=True):
    """A stack; `change` is the spectrum that the square of `place` takes from scene `first` to `last`.

    Returns the stack and the square (y, x) bool.
    """
    rng = np.random.default_rng(seed)
    year = (times() - np.datetime64("2022-01-01")) / np.timedelta64(1, "D") / 365.25
    cube = np.empty((6, N, *SHAPE))
    for name, cols in PLACES.items():
        cube[..., cols] = surface(name, year).T[:, :, None, None]
    mask = np.zeros(SHAPE, bool)
    if place is not None:
        cols = PLACES[place]
        mask[ROWS, cols.start + 2 : cols.stop - 2] = True
        cube[:, first:last, mask] = change[:, None, None]
    cube *= 1 + 0.05 * rng.standard_normal((1, 1, *SHAPE))
    cube += noise * rng.standard_normal(cube.shape)
    hit = rng.random((N, *SHAPE)) < clouds
    cube[:, hit] = np.array([0.5, 0.52, 0.53, 0.56, 0.45, 0.36])[:, None]
    cube[:, rng.random((N, *SHAPE)) < gaps] = np.nan
    box = GeoBox(SHAPE, Affine(10, 0, 500000, 0, -10, 5400000), "EPSG:32633") if crs else None
    return new_stack(dict(zip(BANDS, cube)), times(), geobox=box), mask
