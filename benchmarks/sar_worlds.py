"""SAR series with known change and the traps around it: moisture that swings, orbits, seasons; floods beside permanent
water, wind, radar shadow and wet fields. Made by a few lines of statistics, not by the package's own simulation."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from geoalign import new_stack

LOOKS = 4.4
STEP_DB = {"deforestation": (-1.5, -3.0), "urbanization": (3.0, 3.0), "damage": (3.0, 3.0)}
"""vv, vh of what changes; damage goes up or down, patch by patch."""
FIELD, WATER, TOWN, WOOD, SHADOW = range(5)
COVER_DB = {"vv": (-10.0, -20.5, -5.0, -8.5, -19.0), "vh": (-16.5, -27.5, -12.0, -14.0, -26.0)}
FLOOD_DB = {"vv": -19.0, "vh": -26.5}


@dataclass(frozen=True)
class World:
    """A stack, what changed (y, x), the first changed scene of every pixel, its cover, and the first dry scene again."""

    stack: xr.Dataset
    changed: np.ndarray
    first: np.ndarray
    cover: np.ndarray
    last: int = 0


def times(n, step=12):
    return np.datetime64("2021-01-03") + step * np.arange(n) * np.timedelta64(1, "D")


def speckled(rng, db, looks=LOOKS):
    return rng.gamma(looks, 10 ** (db / 10) / looks).astype(np.float32)


def smooth(rng, shape, px):
    """Normal noise smoothed over px, as ranks 0..1."""
    noise = gaussian_filter(rng.normal(size=shape), px)
    return np.argsort(np.argsort(noise.ravel())).reshape(shape) / noise.size


def patches(rng, shape, share, sides=(4, 5, 6, 8, 10, 14, 20, 26)):
    """(y, x) numbers of rectangles and ellipses, 0 between them."""
    label = np.zeros(shape, int)
    for _ in range(3000):
        if (label > 0).mean() >= share:
            break
        h = int(rng.choice(sides))
        w = int(max(3, h * rng.uniform(0.6, 1.4)))
        if h + 4 >= shape[0] or w + 4 >= shape[1]:
            continue
        r, c = rng.integers(2, shape[0] - h - 2), rng.integers(2, shape[1] - w - 2)
        if label[max(0, r - 3) : r + h + 3, max(0, c - 3) : c + w + 3].any():
            continue
        rows, cols = np.mgrid[:h, :w]
        round_ = ((rows - h / 2 + 0.5) / (h / 2)) ** 2 + ((cols - w / 2 + 0.5) / (w / 2)) ** 2 <= 1
        label[r : r + h, c : c + w][round_ if rng.random() < 0.4 else np.ones((h, w), bool)] = label.max() + 1
    return label


def moisture(rng, n, kind, size=2.0):
    """dB of the whole land on each date: "some" dates up or down, "spell" of 8 scenes, "late" for good."""
    swing = np.zeros(n)
    if kind == "some":
        wet = rng.random(n) < 0.25
        swing[wet] = size * rng.choice([-1, 1], wet.sum())
    elif kind == "spell":
        swing[n // 2 : n // 2 + 8] = size
    elif kind == "late":
        swing[2 * n // 3 :] = size * rng.choice([-1, 1])
    return swing


def theme(kind, *, seed=0, n=60, shape=(96, 96), share=0.08, swing="some", orbits=1, event=None, season_db=0.0):
    """World of one theme; `event` is the scene of all changes, None draws one for each patch. kind None: no change."""
    rng = np.random.default_rng(seed)
    rank = smooth(rng, shape, 8)
    cover = np.full(shape, FIELD)
    cover[rank < 0.1] = WATER
    cover[rank > 0.9] = TOWN
    cover[(rank > 0.2) & (rank < 0.55)] = WOOD
    label = patches(rng, shape, share) if kind else np.zeros(shape, int)
    label[cover == WATER] = 0
    start = np.full(label.max() + 1, n)
    start[1:] = rng.integers(n // 4, 3 * n // 4, start.size - 1) if event is None else event
    sign = rng.choice([-1, 1], start.size) if kind == "damage" else np.ones(start.size)
    orbit = np.arange(n) % orbits
    look = 6 * gaussian_filter(rng.normal(size=(orbits, 2, *shape)), (0, 0, 2, 2)) * (orbits > 1)
    t = np.arange(n)[:, None, None]
    wet = moisture(rng, n, swing)[:, None, None] + season_db * np.cos(2 * np.pi * 12 * t / 365.25)
    texture = rng.normal(0, 0.8, shape)
    bands = {}
    for b, name in enumerate(("vv", "vh")):
        db = np.take(COVER_DB[name], cover) + texture + wet * (cover != WATER) + look[orbit, b]
        if kind:
            db = db + np.where(t >= start[label], STEP_DB[kind][b] * sign[label], 0) * (label > 0)
        bands[name] = speckled(rng, db)
    return World(new_stack(bands, times(n), orbit=orbit), label > 0, start[label], cover)


def flood(*, seed=0, n=40, shape=(128, 128), length=3, at=None, wind=0.3, flooded=True, orbits=1):
    """A river and a lake that overflow for `length` scenes, wind on the water on a share of the dates, a dark slope
    in radar shadow, and fields that turn 2 to 3 dB brighter or darker with soil moisture, also during the flood."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(float)
    river = np.abs(cols - shape[1] * 0.35 - 12 * np.sin(rows / 17 + rng.uniform(0, 6)))
    lake = np.hypot(rows - shape[0] * rng.uniform(0.6, 0.8), cols - shape[1] * rng.uniform(0.7, 0.85))
    height = np.minimum(river / 1.0, np.maximum(lake - 9, 0)) + 14 * (smooth(rng, shape, 5) - 0.5)
    cover = np.full(shape, FIELD)
    rank = smooth(rng, shape, 7)
    cover[rank > 0.75] = WOOD
    cover[rank < 0.06] = TOWN
    water = (river < 2.5) | (lake < 9)
    shadow = (np.abs(rows - shape[0] * 0.15) < 5) & (cols > shape[1] * 0.6) & (cols < shape[1] * 0.9)
    cover[shadow], cover[water] = SHADOW, WATER
    over = (height < 11) & (cover == FIELD) if flooded else np.zeros(shape, bool)
    first = n // 2 if at is None else at
    parcel = (rows // 13).astype(int) * 100 + (cols // 17).astype(int)
    gusty = rng.random(n) < wind
    bands = {}
    ground = rng.normal(0, 0.7, shape) + np.take(rng.normal(0, 1.0, 3000), parcel)
    wet_days = rng.random(n) < 0.3
    wet_days[first : first + length] = True
    wetness = [np.take(rng.choice([-3.0, 0.0, 0.0, 2.5], 3000), parcel) for _ in range(n)]
    for name in ("vv", "vh"):
        db = np.broadcast_to(np.take(COVER_DB[name], cover) + ground * (cover != WATER), (n, *shape)).copy()
        for k in range(n):
            if wet_days[k]:
                db[k] += wetness[k] * (cover == FIELD)
            if gusty[k]:
                db[k][cover == WATER] += rng.uniform(4, 9) * (1.0 if name == "vv" else 0.5)
        under = np.zeros(n, bool)
        under[first : first + length] = True
        db[np.ix_(under, np.arange(shape[0]), np.arange(shape[1]))] = np.where(
            over, FLOOD_DB[name] + 0.5 * ground, db[under]
        )
        bands[name] = speckled(rng, db)
    stack = new_stack(bands, times(n), orbit=np.arange(n) % orbits)
    return World(stack, over, np.where(over, first, n), cover, first + length)


def scores(world, found):
    """F1, recall, share of unchanged pixels flagged, median and mean date error in scenes."""
    hit = np.isin(found.status.values, (3, 4))
    both = hit & world.changed
    at = np.searchsorted(world.stack.time.values, found.date.values[both])
    error = np.abs(at - world.first[both])
    return {
        "f1": 2 * both.sum() / max(hit.sum() + world.changed.sum(), 1),
        "recall": both.sum() / max(world.changed.sum(), 1),
        "false": (hit & ~world.changed).sum() / (~world.changed).sum(),
        "median": float(np.median(error)) if error.size else np.nan,
        "mean": float(error.mean()) if error.size else np.nan,
    }
