"""Optical series with known change and the traps around it: irregular dates, clouds in heaps, some of them and their
shadows undetected, mixed edges. Made by a few lines of statistics, not by the package's own simulation."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.ndimage import gaussian_filter

from geoalign import new_stack

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
SPECTRA = {
    "leaf": (0.030, 0.060, 0.034, 0.400, 0.190, 0.090),
    "canopy": (0.020, 0.040, 0.024, 0.300, 0.125, 0.055),
    "soil": (0.075, 0.105, 0.140, 0.225, 0.310, 0.250),
    "dark soil": (0.040, 0.055, 0.070, 0.110, 0.160, 0.140),
    "felled": (0.060, 0.085, 0.105, 0.200, 0.250, 0.190),
    "roof": (0.170, 0.190, 0.200, 0.230, 0.250, 0.230),
    "asphalt": (0.085, 0.095, 0.105, 0.125, 0.145, 0.135),
    "ash": (0.045, 0.050, 0.060, 0.100, 0.160, 0.190),
    "lake": (0.042, 0.046, 0.030, 0.016, 0.008, 0.005),
    "brown water": (0.070, 0.100, 0.090, 0.045, 0.018, 0.012),
    "mud water": (0.100, 0.135, 0.155, 0.110, 0.040, 0.025),
    "cloud": (0.520, 0.540, 0.550, 0.580, 0.460, 0.360),
}
SPECTRA = {name: np.array(values) for name, values in SPECTRA.items()}
SHADE = np.array([0.62, 0.56, 0.50, 0.40, 0.38, 0.38])
"""What cast shadow leaves of the light, by band: the sky's blue is spared."""
FLOODS = {
    "brown water": {},
    "clear water": {"water": "lake"},
    "thick mud": {"water": "mud water"},
    "among stalks, a third above water": {"above": 0.33},
    "seen about once": {"length": 1.5},
    "lasting": {"length": 12},
}


@dataclass(frozen=True)
class World:
    """A stack, the day of the change (y, x; NaT none), whether it was ever seen changed, and further days by name."""

    stack: xr.Dataset
    date: np.ndarray
    seen: np.ndarray
    more: dict


def blobs(rng, shape, share, px=6):
    """(y, x) bool: a share of the image, in heaps."""
    if share <= 0:
        return np.zeros(shape, bool)
    field = gaussian_filter(rng.normal(size=shape), px, mode="wrap")
    return field > np.quantile(field, 1 - min(share, 1.0))


def land(rng, year, shape):
    """Reflectance (band, time, y, x) of fields, grass, woods, a town and a lake; their numbers (y, x)."""
    rank = np.argsort(np.argsort(gaussian_filter(rng.normal(size=shape), 7).ravel())).reshape(shape) / np.prod(shape)
    cover = np.digitize(rank, (0.30, 0.55, 0.82, 0.90))  # crop grass forest town lake
    own = gaussian_filter(rng.normal(size=shape), 1)
    own /= own.std()
    peak = 0.45 + 0.04 * own
    course = 0.5 - 0.5 * np.cos(2 * np.pi * (year[:, None, None] - peak + 0.5))
    green = np.select(
        [cover == 0, cover == 1], [0.05 + 0.85 * course**2, 0.45 + 0.35 * course + 0.04 * own], 0.0
    )[None]  # fmt: skip
    leaf, soil = (SPECTRA[k][:, None, None, None] for k in ("leaf", "soil"))
    cube = green * leaf + (1 - green) * soil
    for number, name in ((2, "canopy"), (3, "roof"), (4, "lake")):
        cube[..., cover == number] = SPECTRA[name][:, None, None]
    cube[..., cover == 2] *= 1 + 0.1 * (course[:, cover == 2] - 0.5)
    cube[..., cover != 4] *= 1 + 0.06 * own[cover != 4]
    return cube, cover


def times(rng, days, step):
    """Irregular days: steps of 0.5 to 1.5 times `step`."""
    gaps = rng.uniform(0.5, 1.5, int(2 * days / step)) * step
    day = np.cumsum(gaps)
    return day[day < days]


def optical(kind, *, seed=0, shape=(96, 96), days=1100, step=9, cloud=0.30, missed=0.01, shadow=0.003, noise=0.008,
            water="brown water", length=4.0, above=0.0, building_days=240.0):  # fmt: skip
    """World of one theme: "flood", "deforestation", "urbanization", "burn", or None without change.

    cloud : mean share of pixels lost; missed, shadow : shares of undetected cloud and shadow, half in heaps
    water, length, above : the flood's water, how many scenes it lasts, and the share of plants above it
    building_days : time between clearing and completion
    """
    rng = np.random.default_rng(seed)
    day = times(rng, days, step)
    cube, cover = land(rng, day / 365.25, shape)
    date = np.full(shape, np.nan)
    end = np.full(shape, np.inf)
    ready = np.full(shape, np.nan)
    ground = {"flood": (0, 1), "deforestation": (2,), "urbanization": (0, 1), "burn": (1, 2)}.get(kind, ())
    share = np.zeros(shape)
    for _ in range(14 if kind else 0):
        patch = blobs(rng, shape, 0.03, 5) & np.isin(cover, ground) & (share == 0)
        # mixed pixels along the edges, as the blur of a sensor leaves them
        part = gaussian_filter(patch.astype(float), 0.5)
        part[(part < 0.02) | (share > 0) | ~np.isin(cover, ground)] = 0
        first = rng.uniform(0.45, 0.80) * days
        date[part > 0] = first
        share += part
        if kind == "flood":
            end[part > 0] = first + length * step * rng.uniform(0.8, 1.3)
        if kind == "urbanization":
            ready[part > 0] = first + building_days * rng.uniform(0.7, 1.3)
    t = day[:, None, None]
    on = (t >= date) & (t < end)
    if kind == "flood":
        after = (1 - above) * SPECTRA[water] + above * SPECTRA["leaf"]
        new = np.broadcast_to(after[:, None, None, None], cube.shape)
    elif kind == "urbanization":
        new = np.where(t >= ready, SPECTRA["roof"][:, None, None, None], SPECTRA["soil"][:, None, None, None])
    elif kind is not None:
        new = np.broadcast_to(
            SPECTRA[{"deforestation": "felled", "burn": "ash"}[kind]][:, None, None, None], cube.shape
        )
    if kind:
        cube = np.where(on, share * new + (1 - share) * cube, cube)
    cube += noise * rng.standard_normal(cube.shape) * (0.5 + 2 * cube)
    lost = rng.beta(0.6, 1.4, day.size) * cloud / 0.3
    for k in range(day.size):
        hidden = blobs(rng, shape, lost[k], 8)
        dark = (rng.random(shape) < shadow / 2) | blobs(rng, shape, rng.choice([0, 0, 0, 2 * shadow]), 2)
        cube[:, k, dark] *= SHADE[:, None]
        bright = (rng.random(shape) < missed / 2) | blobs(rng, shape, rng.choice([0, 0, 0, 2 * missed]), 2)
        veil = rng.uniform(0.3, 1.0, bright.sum())
        cube[:, k, bright] += veil * (SPECTRA["cloud"][:, None] - cube[:, k, bright])
        cube[:, k, hidden] = np.nan
    base = np.datetime64("2021-01-04", "ns")
    stamps = base + (day * 86400e9).astype("timedelta64[ns]")
    box = GeoBox(shape, Affine(20, 0, 500000, 0, -20, 5400000), "EPSG:32633")
    stack = new_stack(dict(zip(BANDS, np.maximum(cube, 1e-4))), stamps, geobox=box)
    true = share >= 0.5
    seen = true & (on & np.isfinite(cube[0])).any(0)

    def dated(values):
        out = np.full(shape, np.datetime64("NaT", "ns"))
        ok = true & np.isfinite(values)
        out[ok] = base + (values[ok] * 86400e9).astype("timedelta64[ns]")
        return out

    more = {"ready": dated(ready), "end": dated(np.where(np.isfinite(end), end, np.nan)), "cover": cover}
    return World(stack, dated(date), seen, more)


def scores(world, found, date="date", true=None):
    """F1 over all pixels; F1, recall and false alarms where the change was seen; date error in clear observations."""
    true = world.date if true is None else true
    hit = np.isin(found.status.values, (3, 4))
    planted = ~np.isnat(world.date)
    both = hit & planted
    clear = np.isfinite(world.stack.nir.values)
    time = world.stack.time.values
    error = []
    for r, c in zip(*np.nonzero(both & ~np.isnat(found[date].values))):
        at = time[clear[:, r, c]]
        error.append(int(np.searchsorted(at, found[date].values[r, c]) - np.searchsorted(at, true[r, c])))
    error = np.abs(error) if error else np.array([np.nan])

    def f1(target, flagged):
        return 2 * (target & flagged).sum() / max(target.sum() + flagged.sum(), 1)

    return {
        "f1_all": f1(planted, hit),
        "f1": f1(world.seen, hit & ~(planted & ~world.seen)),
        "recall": (hit & world.seen).sum() / max(world.seen.sum(), 1),
        "false": (hit & ~planted).sum() / max((~planted).sum(), 1),
        "median": float(np.median(error)),
        "p90": float(np.percentile(error, 90)),
        "unseen": (planted & ~world.seen).sum() / max(planted.sum(), 1),
    }
