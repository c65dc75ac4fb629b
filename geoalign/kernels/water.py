"""Open water in an optical series: where it stands now and did not use to, from when until when."""

from __future__ import annotations

import numpy as np
from numba import njit

WATER_INDEX = 0.124
"""MNDWI of pixels that are mostly open water (DSWE test 1)."""
BRIGHT_NIR = 0.20
"""Water, foam and mud included, is darker than this in the near infrared; clouds are not."""
PURE_INDEX, NIR_OVER_GREEN = 0.5, 0.9
"""Above the first the pixel is all water, whose NIR lies below the second times its green; sunless snow's does not."""
RISE = 0.2
"""Least rise of the water index over its usual dry value. Cast shadow alone raises MNDWI by 0.1 to 0.15."""
MIXED_INDEX = -0.25
"""Least water index of a pixel that is half water, half land."""
WATER_DARK = 0.06
"""NIR + SWIR1 of muddy open water: the end member in the unmixing of partly flooded pixels."""
WATER_MEAN, WATER_SD = 0.40, 0.30
"""Water index over flooded ground, for the probability."""
OUTLIERS = 0.01
"""Share of observations that are undetected cloud or shadow."""

FIELDS = 9


@njit(nogil=True, cache=True)
def snowy(index, nir, green):
    """Whether what the water index takes for pure water is too bright in the near infrared to be that."""
    return index > PURE_INDEX and nir > NIR_OVER_GREEN * green


@njit(nogil=True, cache=True)
def evidence(index, dark, nir, green, usual, usual_dark):
    """How wet one observation is: 0 dry, 1 partly water or doubtful, 2 open water for certain.

    index, usual : water index now and where dry; dark, usual_dark : sum of NIR and SWIR1 (or twice NIR); nir, green
    """
    if index < usual + RISE or nir > BRIGHT_NIR or index < MIXED_INDEX:
        return 0
    if snowy(index, nir, green):
        return 0
    share = (usual_dark - dark) / max(usual_dark - WATER_DARK, 0.02)
    if share < 0.5:
        return 0
    return 2 if index > WATER_INDEX and share > 0.6 else 1


@njit(nogil=True, cache=True)
def stood(index, nir, green):
    """Whether water stood there, from one observation alone."""
    return index > 0.0 and nir < BRIGHT_NIR and not snowy(index, nir, green)


@njit(nogil=True, cache=True)
def flood_runs(index, dark, nir, green, extra, season, first, spread, n_history, gate):
    """The longest time of new water at every pixel.

    index, dark, nir, green : (n_pixel, n_time) float32, NaN = not observed
    extra : (n_pixel,) squared gradient of the water index; spread : (n_time,) squared sigma_px
    season : (n_time,) day of the year; first : number of the first watched scene; below 0: -first, and pixels with too
        few observations until then take more
    n_history : least number of observations before; gate : normal quantile that the rise has to pass, in noise sd

    Returns (n_pixel, FIELDS): 0 outcome (0 none, 1 under water at the end, 2 it fell dry again, -1 never observed, -2
    too few before, -3 none after, 3 water before as well), 1 first wet scene, 2 last dry scene before it (-1 none), 3
    first dry scene after it (-1 none), 4 rise of the index, 5 log likelihood ratio, 6 observations, 7 wet observations
    in the run, certain ones counted double, 8 number of the confirming scene.
    """
    n_pixel, n_time = index.shape
    out = np.full((n_pixel, FIELDS), np.nan)
    at = np.empty(n_time, np.int64)
    kept = np.empty(n_time)
    for p in range(n_pixel):
        for k in (1, 2, 3, 8):
            out[p, k] = -1
        n = 0
        for t in range(n_time):
            if np.isfinite(index[p, t]) and np.isfinite(dark[p, t]) and np.isfinite(nir[p, t]):
                at[n] = t
                n += 1
        out[p, 6] = n
        if n == 0:
            out[p, 0] = -1
            continue
        start = 0
        while start < n and at[start] < abs(first):
            start += 1
        if first < 0:
            start = max(start, min(n_history, n))
        if start < n_history:
            out[p, 0] = -2
            continue
        if start >= n:
            out[p, 0] = -3
            continue
        for i in range(start):
            kept[i] = index[p, at[i]]
        usual = np.median(kept[:start])
        for i in range(start):
            kept[i] = abs(index[p, at[i]] - usual)
        noise = max(np.median(kept[:start]) / 0.6745, 0.01)
        for i in range(start):
            kept[i] = dark[p, at[i]]
        usual_dark = np.median(kept[:start])
        wet_before = 0
        for i in range(start):
            wet_before += stood(index[p, at[i]], nir[p, at[i]], green[p, at[i]])
        out[p, 0] = 0
        if wet_before > 0.25 * start:
            out[p, 0] = 3
            out[p, 5] = -np.inf
            continue
        best_score = 0
        best_ratio = -np.inf
        i = start
        while i < n:
            t = at[i]
            wet = evidence(index[p, t], dark[p, t], nir[p, t], green[p, t], usual, usual_dark)
            if wet == 0 or index[p, t] - usual < gate * np.sqrt(noise**2 + extra[p] * spread[t]):
                i += 1
                continue
            # a run: wet observations with no two dry ones in a row between them
            begin, last, score, ratio, rise, count = i, i, 0, 0.0, 0.0, 0
            confirmed = -1
            dry = 0
            while i < n and dry < 2:
                t = at[i]
                sd = np.sqrt(noise**2 + extra[p] * spread[t])
                wet = evidence(index[p, t], dark[p, t], nir[p, t], green[p, t], usual, usual_dark)
                if wet > 0 and index[p, t] - usual >= gate * sd:
                    dry = 0
                    last = i
                    score += wet
                    count += 1
                    kept[count - 1] = index[p, t] - usual
                    if confirmed < 0 and score >= 2:
                        confirmed = t
                    ratio += log_ratio(index[p, t], usual, sd)
                else:
                    dry += 1
                i += 1
            rise = np.median(kept[:count])
            same_season = 0
            seasonal = 0
            for k in range(start):
                apart = abs(season[at[k]] - season[at[begin]])
                if min(apart, 365.25 - apart) <= 45.0:
                    same_season += 1
                    t = at[k]
                    seasonal += stood(index[p, t], nir[p, t], green[p, t])
            if 2 * seasonal >= same_season and seasonal > 0:
                continue
            best_ratio = max(best_ratio, ratio)
            if score > best_score:
                best_score = score
                out[p, 0] = 1 if last + 1 >= n else 2
                out[p, 1] = at[begin]
                out[p, 2] = at[begin - 1]
                out[p, 3] = at[last + 1] if last + 1 < n else -1
                out[p, 4] = rise
                out[p, 7] = score
                out[p, 8] = confirmed
        out[p, 5] = best_ratio
    return out


@njit(nogil=True, cache=True)
def log_ratio(value, usual, sd):
    """Log likelihood ratio of water against the usual ground for one value of the water index.

    A share `OUTLIERS` of the dry observations lies anywhere (-1..1): one observation is never proof.
    """
    water = np.exp(-0.5 * ((value - WATER_MEAN) / WATER_SD) ** 2) / WATER_SD
    dry = (1 - OUTLIERS) * np.exp(-0.5 * ((value - usual) / sd) ** 2) / sd + OUTLIERS * 0.5 * np.sqrt(2 * np.pi)
    return np.log(water + 1e-12) - np.log(dry)


@njit(nogil=True, cache=True)
def supported(score, date, reach):
    """Where a flood stands up to its neighbours.

    score, date : (row, col) float32, `flood_runs` fields 7 and 1 (NaN or 0: none)
    reach : scenes that the starts of neighbours may differ by
    Returns (row, col) bool: two wet observations or one of open water, and at least two of the eight neighbours wet
    about the same time; or one doubtful observation and five such neighbours.
    """
    n_row, n_col = score.shape
    out = np.zeros((n_row, n_col), np.bool_)
    for i in range(n_row):
        for j in range(n_col):
            if not score[i, j] > 0:
                continue
            near, sure = 0, 0
            for a in range(max(0, i - 1), min(n_row, i + 2)):
                for b in range(max(0, j - 1), min(n_col, j + 2)):
                    if (a == i and b == j) or not score[a, b] > 0:
                        continue
                    if abs(date[a, b] - date[i, j]) <= reach:
                        near += 1
                        sure += score[a, b] >= 2
            out[i, j] = score[i, j] >= 2 if near >= 2 else score[i, j] >= 4
            if score[i, j] == 1 and sure >= 5:
                out[i, j] = True
    return out
