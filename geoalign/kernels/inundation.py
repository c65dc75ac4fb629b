"""Water or the ground it covers, told from several bands and dates of SAR at once."""

import math

import numpy as np
from numba import njit

from geoalign.kernels.open_water import SMOOTH_PX, decibel, gauss

SWING_DB = 2.0
"""Standard deviation of what moisture and growth do to all bands of a place together, dB. Wet fields get darker or
brighter alike in all bands; water does not keep the bands' ratio."""
OWN_SD = 1.0
"""Standard deviation of the rest of what ground does by itself, dB a band."""
WATER_SD = 1.0
"""What new water adds to the spread of the scene's usual water, dB: mud, stalks, currents."""
WINDY, WIND_DB, CROSS_SHARE = 0.25, 10.0, 0.5
"""Share of water that wind roughens, how much brighter it may make it in co-polarisation, and the most that
cross-polarisation follows."""
WIND_SD = 1.0
LARGEST = 6.0
"""Largest |ln likelihood ratio| of one pixel on one date."""
NEIGHBOURS = 6.0
"""ln odds that a pixel gains where all eight neighbours agree."""
DATES = 0.5
"""ln odds that it gains from each of the dates beside."""
DIAGONAL = 0.7
WEIGHT = 4.0 * (1.0 + DIAGONAL)
ROUNDS = 12
DEPTH_PX = 3 + ROUNDS
ROUGH_STEP, ROUGH_BINS = 0.05, 400
MEDIAN_TO_SD = 1.4826 * 1.1
"""From the median of |level - its smoothed level| to the standard deviation of what smoothing takes away."""
CLEAR_DB, ABOVE_DB = 2.0, 8.0
"""The ground's own level lies at least the first above water's, at most the second above the usual ground's."""


@njit(nogil=True, cache=True)
def water_odds(level, ground, ground_sd, swing, water, water_sd, co, cross):
    """ln likelihood ratio of water against ground for the levels of one pixel on one date.

    level : (band,) dB, NaN = not observed
    ground, ground_sd : (band,) dB, what is there without water; swing : variance of what all bands do together besides
    water, water_sd : (band,) dB of calm water
    co, cross : numbers of a co- and a cross-polarised band, which know wind; -1 none

    Darker than water counts as water, brighter than the ground as ground. Cut at `LARGEST`; 0 without an observation.
    """
    calm, land, trace, weight, pull = 0.0, 0.0, 0.0, 0.0, 0.0
    windy = 0.0
    n = 0
    for b in range(level.size):
        if math.isnan(level[b]) or math.isnan(ground[b]):
            continue
        n += 1
        x = min(max(level[b], water[b]), max(ground[b], water[b]))
        one = -0.5 * ((x - water[b]) / water_sd[b]) ** 2 - math.log(water_sd[b])
        calm += one
        y = x - ground[b]
        p = 1.0 / (ground_sd[b] * ground_sd[b])
        trace += p * y * y
        weight += p
        pull += p * y
        land -= math.log(ground_sd[b])
        if b != co and b != cross:
            windy += one
    if n == 0:
        return 0.0
    # normal with a common part: inverse and determinant by rank one
    land -= 0.5 * (trace - pull * pull / (1.0 / swing + weight))
    land -= 0.5 * math.log(1.0 + swing * weight)
    wet = calm
    if co >= 0 and cross >= 0 and not math.isnan(level[co]) and not math.isnan(level[cross]):
        gain = max(min(level[co], max(ground[co], water[co])) - water[co], 0.0)
        sd = math.hypot(water_sd[cross], WIND_SD)
        over = max(min(level[cross], max(ground[cross], water[cross])) - water[cross] - CROSS_SHARE * gain, 0.0)
        # uniform in co-polarisation; a normal density there has its sqrt(2 pi) left out, as everywhere here
        windy += math.log(math.sqrt(2 * math.pi) / WIND_DB) - 0.5 * (over / sd) ** 2 - math.log(sd)
        a, b = calm + math.log(1.0 - WINDY), windy + math.log(WINDY)
        top = max(a, b)
        wet = top + math.log(math.exp(a - top) + math.exp(b - top))
    return min(max(wet - land, -LARGEST), LARGEST)


@njit(nogil=True, cache=True)
def usual_ground(total, count, water, land, land_sd, ground):
    """Writes a pixel's usual level (band,) into `ground`, dB, and returns its variance, which the bands share.

    total, count : (band,) sum and number of its smoothed levels; water, land, land_sd : (band,) of the scene
    A few dates may have been wet or dry themselves: the level is drawn to the scene's ground as far as their swings
    are larger than what ground differs by, and by no more than one swing.
    """
    spread = 0.0
    for b in range(total.size):
        ground[b] = land[b]
        if count[b] > 0:
            usual = total[b] / count[b]
            share = 1.0 / (1.0 + count[b] * (land_sd[b] / SWING_DB) ** 2)
            usual += min(max(share * (land[b] - usual), -SWING_DB), SWING_DB)
            ground[b] = min(max(usual, water[b] + CLEAR_DB), land[b] + ABOVE_DB)
            spread = max(spread, share * land_sd[b] ** 2)
    return spread


@njit(nogil=True, cache=True)
def roughness_histogram(series):
    """Counts (band, ROUGH_BINS) of |dB - smoothed dB| in steps of `ROUGH_STEP`; series (band, time, row, col) power."""
    n_band, n_time, n_row, n_col = series.shape
    out = np.zeros((n_band, ROUGH_BINS))
    for b in range(n_band):
        for t in range(n_time):
            level = decibel(series[b, t])
            even = gauss(level, SMOOTH_PX)
            for r in range(n_row):
                for c in range(n_col):
                    if not math.isnan(level[r, c]):
                        place = int(abs(level[r, c] - even[r, c]) / ROUGH_STEP)
                        out[b, min(place, ROUGH_BINS - 1)] += 1
    return out


def roughness(parts):
    """(band,) standard deviation (dB) of what smoothing takes away, from histograms of blocks; 1 dB without any."""
    counts = np.sum(parts, axis=0)
    total = counts.sum(axis=1, keepdims=True)
    at = np.argmax(np.cumsum(counts, axis=1) >= 0.5 * total, axis=1)
    return np.where(total[:, 0] > 0, np.maximum((at + 0.5) * ROUGH_STEP * MEDIAN_TO_SD, 0.1), 1.0)


@njit(nogil=True, cache=True)
def joint_fields(power, kinds, noise, first, co, cross):
    """Where a few dates show water, each seen beside the others: ln odds (time, row, col) float32, NaN not observed.

    power : (band, time, row, col); kinds : (band, 5) classes of water and land, see `open_water.classes`
    noise : (band,) dB, see `roughness`; first : number of dates that are history, at least 1
    co, cross : as in `water_odds`

    Dates of the history are held against the scene's ground, later ones against the pixel's own level in the history.
    Then neighbours and dates agree by mean-field rounds: a shore is where it is on both dates, and the pixels on it
    are not smoothed into one side. Depth of the window: `DEPTH_PX`.
    """
    n_band, n_time, n_row, n_col = power.shape
    raw = np.empty(power.shape)
    own = np.zeros((n_band, n_row, n_col))
    count = np.zeros((n_band, n_row, n_col))
    for b in range(n_band):
        for t in range(n_time):
            raw[b, t] = decibel(power[b, t])
            if t < first:
                even = gauss(raw[b, t], SMOOTH_PX)
                for r in range(n_row):
                    for c in range(n_col):
                        if not math.isnan(even[r, c]):
                            own[b, r, c] += even[r, c]
                            count[b, r, c] += 1
    water, land = kinds[:, 0].copy(), kinds[:, 2].copy()
    water_sd, land_sd, own_sd = np.empty(n_band), np.empty(n_band), np.empty(n_band)
    for b in range(n_band):
        water_sd[b] = math.sqrt(kinds[b, 1] ** 2 + WATER_SD**2 + noise[b] ** 2)
        land_sd[b] = math.sqrt(kinds[b, 3] ** 2 + noise[b] ** 2)
        own_sd[b] = math.sqrt(OWN_SD**2 + noise[b] ** 2)
    data = np.empty((n_time, n_row, n_col))
    level, ground = np.empty(n_band), np.empty(n_band)
    for t in range(n_time):
        for r in range(n_row):
            for c in range(n_col):
                seen = False
                for b in range(n_band):
                    level[b] = raw[b, t, r, c]
                    seen = seen or not math.isnan(level[b])
                    ground[b] = land[b]
                swing = SWING_DB**2
                if t >= first:
                    swing += usual_ground(own[:, r, c], count[:, r, c], water, land, kinds[:, 3], ground)
                spread = land_sd if t < first else own_sd
                data[t, r, c] = water_odds(level, ground, spread, swing, water, water_sd, co, cross) if seen else np.nan
    odds = data.copy()
    belief = np.zeros(data.shape)
    for _ in range(ROUNDS):
        for t in range(n_time):
            for r in range(n_row):
                for c in range(n_col):
                    belief[t, r, c] = 0.0 if math.isnan(data[t, r, c]) else 1.0 - 2.0 / (1.0 + math.exp(odds[t, r, c]))
        for t in range(n_time):
            for r in range(n_row):
                for c in range(n_col):
                    if math.isnan(data[t, r, c]):
                        continue
                    near = 0.0
                    for i in range(max(0, r - 1), min(n_row, r + 2)):
                        for j in range(max(0, c - 1), min(n_col, c + 2)):
                            if i != r or j != c:
                                near += (1.0 if i == r or j == c else DIAGONAL) * belief[t, i, j]
                    beside = belief[t - 1, r, c] if t > 0 else 0.0
                    beside += belief[t + 1, r, c] if t < n_time - 1 else 0.0
                    odds[t, r, c] = data[t, r, c] + NEIGHBOURS / WEIGHT * near + DATES * beside
    return odds.astype(np.float32)
