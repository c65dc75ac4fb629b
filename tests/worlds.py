"""Small stacks made by hand with a change planted in one square: the ground truth of the contract tests.

Deliberately not `geoalign.simulate`: a few lines of statistics, so that a detector is not graded by the code it was
written against.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import new_stack

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
SPECTRA = {  # reflectance of BANDS
    "forest": (0.03, 0.05, 0.03, 0.32, 0.15, 0.07),
    "grass": (0.04, 0.08, 0.06, 0.30, 0.20, 0.12),
    "soil": (0.09, 0.13, 0.17, 0.24, 0.30, 0.24),
    "water": (0.05, 0.05, 0.03, 0.02, 0.01, 0.01),
    "built": (0.16, 0.18, 0.20, 0.22, 0.25, 0.24),
}
BACKSCATTER_DB = {"vv": -9.0, "vh": -15.0}
STEP_DB = {  # vv, vh
    "flood": (-7.0, -6.0),
    "deforestation": (-2.5, -6.0),
    "urbanization": (7.0, 6.0),
    "change": (-5.0, -5.0),
    "damage": (-5.0, -5.0),
    "ships": (16.0, 16.0),
}
AFTER = {"flood": "water", "deforestation": "soil", "urbanization": "built", "change": "soil", "damage": "soil"}
BEFORE = {"flood": "grass", "deforestation": "forest", "urbanization": "grass", "change": "forest", "damage": "built"}
SPECTRA["ash"] = (0.05, 0.06, 0.07, 0.11, 0.17, 0.20)
AFTER["trend"], BEFORE["trend"], STEP_DB["trend"] = "soil", "forest", (-6.0, -6.0)
AFTER["burn"], BEFORE["burn"], STEP_DB["burn"] = "ash", "forest", (-2.0, -2.0)
AFTER["ships"], BEFORE["ships"] = "built", "water"
AFTER["shipping_routes"], BEFORE["shipping_routes"] = "built", "water"


@dataclass(frozen=True)
class World:
    """A stack, where something was planted, and when: `first` and `last` (exclusive) changed scene."""

    stack: xr.Dataset
    changed: np.ndarray
    first: int
    last: int


def geobox(shape):
    return GeoBox(shape, Affine(10.0, 0, 500000.0, 0, -10.0, 4650000.0), "EPSG:32633")


def square(shape, side):
    mask = np.zeros(shape, bool)
    r, c = shape[0] // 3, shape[1] // 3
    mask[r : r + side, c : c + side] = True
    return mask


def sar(kind=None, *, shape=(40, 44), n=None, looks=4.4, side=14, seed=0, gaps=0.0, enl=True):
    """Dual-pol gamma speckle; `kind` plants a step of `STEP_DB` at the middle (a flood lasts five scenes)."""
    if kind == "shipping_routes":
        return traffic(looks=looks, seed=seed)
    rng = np.random.default_rng(seed)
    n = n or {"ships": 8, "trend": 300}.get(kind, 24)  # ships are looked for scene by scene
    first, last = n // 2, n // 2 + 5 if kind == "flood" else n
    mask = square(shape, side) if kind else np.zeros(shape, bool)
    bands = {}
    for k, (name, level) in enumerate(BACKSCATTER_DB.items()):
        mean = np.full((n, *shape), 10 ** (level / 10))
        if kind == "trend":
            mean[:, mask] *= 10 ** (STEP_DB[kind][k] / 10 * np.linspace(0, 1, n)[:, None])
        elif kind:
            mean[first:last, mask] *= 10 ** (STEP_DB[kind][k] / 10)
        values = rng.gamma(looks, mean / looks)
        values[rng.random(values.shape) < gaps] = np.nan
        bands[name] = values
    time = np.datetime64("2022-01-05T05:10:00") + np.arange(n) * np.timedelta64(12, "D")
    stack = new_stack(bands, time, geobox=geobox(shape), sensor="sentinel-1", orbit=44)
    if enl:
        for band in stack.data_vars:
            stack[band].attrs["enl"] = looks
    return World(stack, mask, first, last)


def traffic(*, shape=(30, 36), n=14, looks=4.4, seed=0):
    """Sea in 16 x 19 km, pixels of 520 m; from the middle of the series ships keep to a line three pixels wide."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    mask[shape[0] // 2 - 1 : shape[0] // 2 + 2] = True
    first = n // 2
    ships = np.zeros((n, *shape), bool)
    for scene in ships[first:]:  # apart from each other, lest two be one target
        cols = np.arange(rng.integers(5), shape[1], 5)
        scene[rng.choice(np.flatnonzero(mask[:, 0]), cols.size), cols] = True
    mean = {name: np.where(ships, 3.0, 10 ** (level / 10)) for name, level in BACKSCATTER_DB.items()}
    time = np.datetime64("2022-01-05T05:10:00") + np.arange(n) * np.timedelta64(12, "D")
    box = GeoBox(shape, Affine(520.0, 0, 500000.0, 0, -520.0, 4650000.0), "EPSG:32633")
    bands = {name: rng.gamma(looks, level / looks) for name, level in mean.items()}
    stack = new_stack(bands, time, geobox=box, sensor="sentinel-1", orbit=44)
    for band in stack.data_vars:
        stack[band].attrs["enl"] = looks
    return World(stack, mask, first, n)


def optical(kind=None, *, shape=(40, 44), n=60, side=14, seed=0, gaps=0.3, noise=0.008, step_days=16):
    """Six bands with a season over 2.6 years (60 scenes, 16 days apart).

    `kind` plants another surface in the last third (flood: five scenes).
    """
    rng = np.random.default_rng(seed)
    days = np.arange(n) * step_days + rng.integers(-3, 4, n)
    green_up = 1 + 0.12 * np.sin(2 * np.pi * (days / 365.25 - 0.3))
    first, last = 2 * n // 3, 2 * n // 3 + 5 if kind == "flood" else n
    mask = square(shape, side) if kind else np.zeros(shape, bool)
    cloud = rng.random((n, *shape)) < gaps
    bands = {}
    before = SPECTRA[BEFORE[kind or "change"]]
    for k, name in enumerate(BANDS):
        season = green_up if name == "nir" else 1 / green_up
        mean = np.broadcast_to((before[k] * season)[:, None, None], (n, *shape)).copy()
        if kind == "trend":
            ramp = np.linspace(0, 1, n)[:, None]
            mean[:, mask] = (1 - ramp) * mean[:, mask] + ramp * SPECTRA[AFTER[kind]][k]
        elif kind:
            mean[first:last, mask] = SPECTRA[AFTER[kind]][k]
        values = mean + rng.normal(0, noise, mean.shape)
        values[cloud] = np.nan
        bands[name] = values
    time = np.datetime64("2021-03-01T10:00:00") + days * np.timedelta64(1, "D")
    return World(new_stack(bands, time, geobox=geobox(shape), sensor="sentinel-2"), mask, first, last)


def annual(kind=None, **options):
    """`optical` over twelve years, five scenes a year: for detectors that follow one value a year."""
    return optical(kind, step_days=73, **options)


WORLDS = {"sar": sar, "optical": optical}
