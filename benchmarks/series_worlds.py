"""Optical series whose changes are known, and the scores of dated breaks: shared by the tests and `series.py`.

NumPy only, so that any interpreter can make the same arrays from the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
VEGETATION = np.array([0.03, 0.06, 0.04, 0.32, 0.15, 0.07])
SOIL = np.array([0.09, 0.13, 0.17, 0.24, 0.30, 0.24])
NOISE = np.array([0.005, 0.006, 0.007, 0.015, 0.012, 0.010])
CLOUD = 0.45
LOSSES = (0.15, 0.25, 0.40, 0.60, 0.85)
START = np.datetime64("2003-01-01")
DAYS_A_YEAR = 365.25
TOLERANCE_DAYS = 365


@dataclass(frozen=True)
class Series:
    """Pixels with known change.

    time : (n_time,) datetime64[D]; ndvi : (n_pixel, n_time) float32, NaN = cloud
    bands : (6, n_pixel, n_time) float32, or None (null stacks are one band)
    change : (n_pixel,) datetime64[D] day of the change, NaT = stable; loss : (n_pixel,) share of cover lost, 0 = stable
    """

    time: np.ndarray
    ndvi: np.ndarray
    bands: np.ndarray | None
    change: np.ndarray
    loss: np.ndarray

    @property
    def changed(self):
        return self.loss > 0

    def stack(self, bands=("ndvi",), columns=64):
        """As a geoalign Stack of `columns` columns, the last row filled up with NaN: pixel k is at divmod(k, columns)."""
        from geoalign import new_stack

        return new_stack({b: grid(self.of(b), columns) for b in bands}, self.time)

    def of(self, band):
        return self.ndvi if band == "ndvi" else self.bands[BANDS.index(band)]


def dates(years=20, step_days=16, jitter_days=3, seed=0):
    """Acquisition days from 2003 on: every `step_days`, off by up to `jitter_days`; 456 in 20 years."""
    n = int(years * DAYS_A_YEAR / step_days)
    off = np.random.default_rng([seed, 1]).integers(-jitter_days, jitter_days + 1, n)
    return START + jitter_days + np.arange(n) * step_days + off


def optical(n_pixel, *, years=20, seed=0, changed=0.3, cloudy=0.3, missed=0.01, ar=0.0, since="2012-01-01",
            until="2020-12-31", losses=LOSSES, step_days=16):  # fmt: skip
    """Vegetation over soil with a season; a share `changed` of the pixels loses cover at one day and stays there.

    cloudy : share of observations that are NaN; missed : share that undetected cloud brightens (20 to 90 % mixed in)
    ar : autocorrelation of the band noise from one date to the next
    """
    rng = np.random.default_rng([seed, 2])
    time = dates(years, step_days, seed=seed)
    t = (time - START).astype(float) / DAYS_A_YEAR
    shape = (n_pixel, time.size)
    column = (n_pixel, 1)
    turn = 2 * np.pi * (t - rng.normal(0.55, 0.04, column))
    amplitude = rng.uniform(0.08, 0.18, column)
    cover = rng.uniform(0.62, 0.80, column) + amplitude * (np.cos(turn) + 0.25 * np.cos(2 * turn))
    cover += rng.normal(0, 0.002, column) * (t - t.mean())
    loss = np.where(rng.random(n_pixel) < changed, rng.choice(losses, n_pixel), 0.0)
    begin, end = np.datetime64(since), np.datetime64(until)
    day = begin + rng.integers(0, (end - begin).astype(int) + 1, n_pixel)
    change = np.where(loss > 0, day, np.datetime64("NaT"))
    after = (loss[:, None] > 0) & (time >= day[:, None])
    cover = np.clip(np.where(after, cover * (1 - loss[:, None]), cover), 0, 1)
    gone = rng.random(shape) < cloudy
    mixed = np.where(rng.random(shape) < missed, rng.uniform(0.2, 0.9, shape), 0.0)
    bands = np.empty((len(BANDS), *shape), np.float32)
    for k in range(len(BANDS)):
        value = cover * VEGETATION[k] + (1 - cover) * SOIL[k] + noise(rng, shape, NOISE[k], ar)
        value = np.maximum((1 - mixed) * value + mixed * CLOUD, 0.001)
        bands[k] = np.where(gone, np.nan, value)
    red, nir = bands[2].astype(float), bands[3].astype(float)
    return Series(time, ((nir - red) / (nir + red)).astype(np.float32), bands, change, loss)


def wandering(n_pixel, *, years=12, step_days=5, seed=0, days=15.0, amplitude=0.15, loss=0.0):
    """Vegetation whose season comes early or late, high or low, from year to year: sd `days`, share `amplitude`.

    loss : share of cover that every pixel loses at a day in the middle half; 0 = stable
    """
    rng = np.random.default_rng([seed, 4])
    time = START + 2 + np.arange(0, int(years * DAYS_A_YEAR), step_days)
    t = (time - START).astype(float) / DAYS_A_YEAR
    year = t.astype(int)
    shape, column, each = (n_pixel, time.size), (n_pixel, 1), (n_pixel, years + 1)
    turn = 2 * np.pi * (t - rng.normal(0.55, 0.04, column) - rng.normal(0, days / DAYS_A_YEAR, each)[:, year])
    height = rng.uniform(0.08, 0.18, column) * (1 + amplitude * rng.normal(size=each)[:, year])
    cover = rng.uniform(0.62, 0.80, column) + height * (np.cos(turn) + 0.25 * np.cos(2 * turn))
    day = START + np.round(rng.uniform(0.25, 0.75, n_pixel) * years * DAYS_A_YEAR).astype(int)
    cover = np.clip(np.where(time >= day[:, None], cover * (1 - loss), cover), 0, 1)
    bands = np.empty((len(BANDS), *shape), np.float32)
    gone = rng.random(shape) < 0.3
    for k in range(len(BANDS)):
        value = cover * VEGETATION[k] + (1 - cover) * SOIL[k] + rng.normal(0, NOISE[k], shape)
        bands[k] = np.where(gone, np.nan, np.maximum(value, 0.001))
    ndvi = (bands[3] - bands[2]) / (bands[3] + bands[2])
    change = np.where(loss > 0, day, np.datetime64("NaT"))
    return Series(time, ndvi, bands, change, np.full(n_pixel, float(loss)))


def null(n_pixel, *, years=20, seed=0, cloudy=0.3, missed=0.0, ar=0.0, sd=0.03):
    """Stable NDVI: level, trend, two harmonics and noise (white, or AR(1) with `ar` from date to date)."""
    rng = np.random.default_rng([seed, 3])
    time = dates(years, seed=seed)
    t = (time - START).astype(float) / DAYS_A_YEAR
    shape, column = (n_pixel, time.size), (n_pixel, 1)
    turn = 2 * np.pi * (t - rng.normal(0.55, 0.04, column))
    amplitude = rng.uniform(0.05, 0.15, column)
    value = rng.uniform(0.5, 0.8, column) + rng.normal(0, 0.002, column) * (t - t.mean())
    value = value + amplitude * np.cos(turn) + rng.uniform(0, 0.3, column) * amplitude * np.cos(2 * turn)
    value = value + noise(rng, shape, sd, ar)
    value = np.where(rng.random(shape) < missed, value - rng.uniform(0.15, 0.6, shape), value)
    value[rng.random(shape) < cloudy] = np.nan
    return Series(time, value.astype(np.float32), None, np.full(n_pixel, np.datetime64("NaT", "D")), np.zeros(n_pixel))


def noise(rng, shape, sd, ar):
    """Normal noise, stationary AR(1) along the last axis where `ar` is not 0."""
    e = rng.normal(0, sd, shape)
    if ar:
        e[..., 1:] *= np.sqrt(1 - ar * ar)
        for i in range(1, shape[-1]):
            e[..., i] += ar * e[..., i - 1]
    return e


def grid(series, columns=64):
    """(n_pixel, n_time) -> (n_time, rows, columns), the last row filled up with NaN."""
    n, n_time = series.shape
    rows = -(-n // columns)
    out = np.full((rows * columns, n_time), np.nan, np.float32)
    out[:n] = series
    return np.ascontiguousarray(out.T.reshape(n_time, rows, columns))


def first_clear(series):
    """First observation on or after the change, (n_pixel,) datetime64[D], NaT where there is none."""
    seen = np.isfinite(series.ndvi) & (series.time[None, :] >= series.change[:, None])
    at = seen.argmax(axis=1)
    return np.where(seen.any(axis=1), series.time[at], np.datetime64("NaT"))


def score(series, date, after=None, by=None, every=None):
    """Scores of one dated break a pixel (or of all, with `every`) against the truth.

    date : (n_pixel,) datetime64, NaT = not flagged: the strongest (or, for a monitor, the first) break
    after, by : (n_pixel,) datetime64, the interval (after, by]
    every : (n_break, n_pixel) datetime64, all breaks, NaT = none; None takes `date` alone

    A break counts within 365 days of the change, once; any other is a false one. A monitor that stops at an early false
    alarm so counts one false and one missed. Returns a dict: precision, recall, f1, false (share of stable pixels
    flagged), recall_15 ... (by loss in %), median_days (|date - change| of those found), exact (share of those found
    dated at the first clear observation), inside (share of those found, change in (after, by]), width_days (median).
    """
    date = np.asarray(date, "datetime64[D]")
    every = date[None] if every is None else np.asarray(every, "datetime64[D]")
    flagged = ~np.isnat(every)
    off = np.where(flagged & series.changed, np.abs((every - series.change).astype(float)), np.inf)
    hits = (off <= TOLERANCE_DAYS).any(axis=0)
    n_flagged, n_true = int(flagged.sum()), int(hits.sum())
    precision = n_true / n_flagged if n_flagged else float("nan")
    recall = n_true / max(int(series.changed.sum()), 1)
    stable = ~series.changed
    out = {
        "precision": precision,
        "recall": recall,
        "f1": 2 * n_true / max(n_flagged + int(series.changed.sum()), 1),
        "false": float(flagged.any(axis=0)[stable].mean()) if stable.any() else float("nan"),
    }
    for share in np.unique(series.loss[series.changed]):
        out[f"recall_{round(100 * share)}"] = float(hits[series.loss == share].mean())
    dated = series.changed & ~np.isnat(date)
    dated[dated] = np.abs((date - series.change)[dated].astype(float)) <= TOLERANCE_DAYS
    if dated.any():
        out["median_days"] = float(np.median(np.abs((date - series.change)[dated].astype(float))))
        out["exact"] = float((date == first_clear(series))[dated].mean())
        if after is not None:
            after, by = np.asarray(after, "datetime64[D]"), np.asarray(by, "datetime64[D]")
            known = dated & ~np.isnat(after) & ~np.isnat(by)
            out["inside"] = float(((after < series.change) & (series.change <= by))[known].mean())
            out["width_days"] = float(np.median((by - after)[known].astype(float)))
    return out


def score_changes(series, changes):
    """`score` of geoalign's Changes of `series.stack()`."""
    n = series.loss.size

    def flat(name):
        return changes[name].values.reshape(-1)[:n]

    hit = np.isin(flat("status"), (3, 4))
    date = np.where(hit, flat("date"), np.datetime64("NaT"))
    every = None
    if "break_date" in changes:
        every = changes.break_date.values.reshape(changes.sizes["break"], -1)[:, :n]
    return score(series, date, flat("date_after"), flat("date_by"), every)


def reliability(changed, probability, prior, bins=10):
    """Mean gap between probability and share of change over equally wide bins, weighted by their pixels.

    The pixels are reweighted so that a share `prior` of them changed, which is what the probability assumes.
    """
    changed = np.asarray(changed, bool)
    seen = np.isfinite(probability)
    changed, p = changed[seen], np.asarray(probability, float)[seen]
    weight = np.where(changed, prior / max(changed.mean(), 1e-9), (1 - prior) / max(1 - changed.mean(), 1e-9))
    place = np.minimum((p * bins).astype(int), bins - 1)
    total = np.bincount(place, weight, bins)
    gap = np.abs(np.bincount(place, weight * p, bins) - np.bincount(place, weight * changed, bins))
    return float(gap.sum() / total.sum())
