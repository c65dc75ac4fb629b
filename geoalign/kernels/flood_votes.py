"""Whether a run of dark dates is a flood: what the pixel's own past, the scene's classes and its other dates say."""

import math

import numpy as np
from numba import njit

from geoalign.kernels.harmonic import choose_order, predict, robust_fit
from geoalign.kernels.inundation import OWN_SD, SWING_DB, WATER_SD, water_odds

WATER_DB = {"vv": (-0.394181, -4.142015, 2.754041), "hh": (-0.394181, -4.142015, 2.754041),
            "vh": (-0.1, -20.2, 4.0), "hv": (-0.1, -20.2, 4.0)}  # fmt: skip
"""Open water by band: slope (dB a degree of incidence), level at 0 degrees, spread (dB). Co-polarised: fitted to
Sentinel-1 (Bauer-Marschallinger et al. 2022); cross-polarised: broad, as it lies near the noise floor."""
USUAL_ANGLE = 38.0
"""Incidence (degrees) where none is given: the middle of the IW swath."""
PLAIN = 0.1
"""ln likelihood ratio, beyond what the prior asks, from which the ground's own past votes for a flood."""
SWING_DATES = 2.0
"""Dates that the assumption of full swings is worth, see `_swing`."""
TOLD_DATES = 15
"""Other dates that tell how deep moisture goes; fewer may have missed it."""
LONG = 32
"""Observations outside the run from which its season is fitted, with up to three harmonics; a mean below."""
USUAL = 0.25
"""Share of the other dates with water from which water is usual there, all year or (half) at the same season."""
SEASON_DAYS = 45.0
DOUBT = -1.0
"""ln odds from which the history of a short series does not rule water out."""
DROP_DB = 2.0
"""Least drop (mean of the bands) below the history that counts as change, dB."""


@njit(nogil=True, cache=True)
def votes(level, own_level, start, stop, kinds, water, angle, x, season, co, cross):
    """What speaks for a flood in each pixel's run.

    Parameters
    ----------
    level : (n_pixel, band, n_time) dB averaged over the neighbourhood of each date, NaN = not observed: what is there
    own_level : the same size, the pixel's own mean times what its neighbourhood does against its means: what was there
        before, unmixed with a bank's other side
    start, stop : (n_pixel,) first date of the run and first one after it; start < 0 none, stop < 0 open
    kinds : (band, 5) classes of the scene, see `open_water.settled`
    water : (band, 3) of `WATER_DB`; angle : (n_pixel,) incidence, degrees
    x : (n_time, 8) regressors of the season (`harmonic.regressors`, order 3); season : (n_time,) day of the year
    co, cross : numbers of a co- and a cross-polarised band, see `inundation.water_odds`

    Returns
    -------
    past : (n_pixel,) float32, ln likelihood ratio of water against the ground's own model, mean of the run's dates
    calm : the same, of water as broad as it is known anywhere, against ground whose bands swing together by no more
        than they did on its other dates: what is rough with wind or pierced by stalks, on ground that keeps still
    fall, dip : (n_pixel,) float32, dB, mean of the bands against the ground's own model: of the run's dates, and the
        lowest of the others (NaN where they are few)
    usual : (n_pixel,) bool, water stood there on many other dates, or at the same season of other years
    """
    n_pixel, n_band, n_time = level.shape
    past = np.full(n_pixel, np.nan, np.float32)
    calm = np.full(n_pixel, np.nan, np.float32)
    fall = np.full(n_pixel, np.nan, np.float32)
    dip = np.full(n_pixel, np.nan, np.float32)
    usual = np.zeros(n_pixel, np.bool_)
    rest = np.empty((n_band, n_time))
    rows = np.empty((n_time, x.shape[1]))
    y = np.empty(n_time)
    keep = np.empty(n_time)
    inverse = np.zeros((x.shape[1], x.shape[1]))
    beta = np.zeros(x.shape[1])
    ground = np.empty((n_band, n_time))
    spread, middle, water_sd = np.empty(n_band), np.empty(n_band), np.empty(n_band)
    scene, land, land_sd = kinds[:, 0].copy(), kinds[:, 2].copy(), kinds[:, 3].copy()
    scene_sd = np.sqrt(kinds[:, 1] ** 2 + WATER_SD**2)
    broad_sd, still = np.empty(n_band), np.empty(n_band)
    for p in range(n_pixel):
        if start[p] < 0:
            continue
        end = stop[p] if stop[p] >= 0 else n_time
        # other dates: how often water stands there
        n = 0
        wet, same, same_wet = 0, 0, 0
        for t in range(n_time):
            if start[p] <= t < end or math.isnan(own_level[p, 0, t]):
                continue
            dark = water_odds(own_level[p, :, t], land, land_sd, SWING_DB**2, scene, scene_sd, co, cross) > 0
            wet += dark
            apart = abs(season[t] - season[start[p]])
            if min(apart, 365.25 - apart) <= SEASON_DAYS and min(abs(t - start[p]), abs(t - end)) > 3:
                same += 1
                same_wet += dark
            n += 1
        if n < 3:
            continue
        usual[p] = wet > USUAL * n or (same >= 3 and 2 * same_wet >= same)
        for b in range(n_band):
            n = 0
            for t in range(n_time):
                if not start[p] <= t < end and not math.isnan(own_level[p, b, t]):
                    y[n] = own_level[p, b, t]
                    rows[n] = x[t]
                    n += 1
            spread[b] = _model(rows, y, n, x, keep, inverse, beta, ground[b])
            for t in range(n_time):
                # the date before may be flooded as its neighbours tell: the run begins where the pixel itself is seen
                rest[b, t] = np.nan if start[p] - 1 <= t < end else own_level[p, b, t] - ground[b, t]
            # darker than water is water; the scene's own is known better than the usual
            known = kinds[b, 4] > 0
            middle[b] = scene[b] if known else water[b, 0] * angle[p] + water[b, 1]
            water_sd[b] = scene_sd[b] if known else water[b, 2]
            broad_sd[b] = max(water_sd[b], water[b, 2])
        swing = _swing(rest)
        if n >= TOLD_DATES:
            dip[p] = _lowest(rest)
        for b in range(n_band):
            still[b] = math.sqrt(max(spread[b] - swing, OWN_SD**2))
            spread[b] = math.sqrt(max(spread[b] - SWING_DB**2, OWN_SD**2))
        count = 0
        own, own_calm, below = 0.0, 0.0, 0.0
        for t in range(start[p], end):
            if math.isnan(level[p, 0, t]):
                continue
            now, usually = level[p, :, t], ground[:, t]
            own += water_odds(now, usually, spread, SWING_DB**2, middle, water_sd, co, cross)
            below += np.nanmean(now - usually)
            own_calm += water_odds(now, usually, still, swing, middle, broad_sd, co, cross)
            count += 1
        if count > 0:
            past[p] = own / count
            calm[p] = own_calm / count
            fall[p] = below / count
    return past, calm, fall, dip, usual


@njit(nogil=True, cache=True)
def _lowest(rest):
    """The lowest mean over bands of residuals (band, time), dB."""
    lowest = np.inf
    for t in range(rest.shape[1]):
        lowest = min(lowest, np.nanmean(rest[:, t])) if not np.isnan(rest[:, t]).all() else lowest
    return lowest


@njit(nogil=True, cache=True)
def _swing(rest):
    """Variance of what all bands do together, from their residuals (band, time), at most that of `SWING_DB`.

    Of one band it is all that the band does. A few dates say little: `SWING_DATES` of them are taken to swing by all
    of `SWING_DB`.
    """
    n_band, n_time = rest.shape
    total, n = 0.0, 0
    for t in range(n_time):
        common, pairs, seen = 0.0, 0, True
        for a in range(n_band):
            seen = seen and not math.isnan(rest[a, t])
            for b in range(a if n_band == 1 else a + 1, n_band):
                common += rest[a, t] * rest[b, t]
                pairs += 1
        if seen:
            total += common / pairs
            n += 1
    share = (max(total, 0.0) + SWING_DATES * SWING_DB**2) / (n + SWING_DATES)
    return min(share, SWING_DB**2)


@njit(nogil=True, cache=True)
def _model(rows, y, n, x, keep, inverse, beta, ground):
    """Writes what a band does without the run into `ground` (n_time,), and returns the variance about it."""
    width = choose_order(n, 3) if n >= LONG else 0
    squares = -1.0
    if width > 0:
        # no trend: it would be carried into the run
        squares = robust_fit(rows, y, n, width, 1e6, keep, inverse, beta)
    if squares >= 0:
        variance = squares / max(keep[:n].sum() - width, 1.0)
        for t in range(ground.size):
            ground[t] = predict(x[t], beta, width)
    elif n > 0:
        mean = np.median(y[:n])
        variance = np.mean((y[:n] - mean) ** 2)
        ground[:] = mean
    else:
        variance = 0.0
        ground[:] = np.nan
    return variance


@njit(nogil=True, cache=True)
def wet_runs(odds, level, first):
    """The longest run of dates with new water at every pixel of a short series.

    odds : (n_pixel, n_time) ln odds of water, NaN = not observed; level : (n_pixel, n_time) mean dB of the bands
    first : number of dates that are history; 0 takes any water for new
    Returns start, last date before it, first date after it (int32, -1 none), dB against the history (0 without), the
    largest ln odds in the run or else on any watched date (float32), observations, whether water stood before.
    """
    n_pixel, n_time = odds.shape
    start = np.full(n_pixel, -1, np.int32)
    before = np.full(n_pixel, -1, np.int32)
    stop = np.full(n_pixel, -1, np.int32)
    drop = np.zeros(n_pixel, np.float32)
    best = np.full(n_pixel, np.nan, np.float32)
    n_obs = np.zeros(n_pixel, np.int32)
    stood = np.zeros(n_pixel, np.bool_)
    kept = np.empty(n_time)
    for p in range(n_pixel):
        n = 0
        for t in range(n_time):
            if math.isnan(odds[p, t]):
                continue
            n_obs[p] += 1
            if t < first:
                kept[n] = level[p, t]
                n += 1
                stood[p] = stood[p] or odds[p, t] > DOUBT
        if first > 0 and n == 0:
            n_obs[p] = 0
            continue
        usual = np.median(kept[:n]) if n > 0 else np.nan
        longest = 0
        length = 0
        begin, begin_before, last = -1, -1, -1
        total, peak = 0.0, -np.inf
        for t in range(n_time):
            if math.isnan(odds[p, t]):
                continue
            # both votes of a short series: water now, and a drop
            new = t >= first and odds[p, t] > 0 and not stood[p] and (n == 0 or level[p, t] - usual <= -DROP_DB)
            if t >= first and not best[p] >= odds[p, t] and longest == 0:
                best[p] = odds[p, t]
            if new:
                if length == 0:
                    begin, begin_before, total, peak = t, last, 0.0, -np.inf
                length += 1
                total += level[p, t] - usual if n > 0 else 0.0
                peak = max(peak, odds[p, t])
                if length > longest:
                    longest = length
                    start[p], before[p], stop[p] = begin, begin_before, -1
                    drop[p], best[p] = total / length, peak
            else:
                if length > 0 and start[p] == begin:
                    stop[p] = t
                length = 0
            last = t
        if longest == 0 and n > 0:
            # water, but none that is new
            best[p] = min(best[p], -3.0) if stood[p] or best[p] > 0 else best[p]
    return start, before, stop, drop, best, n_obs, stood


@njit(nogil=True, cache=True)
def area_by_date(start, stop, n_time):
    """Flooded pixels on every date, (n_time,); start, stop (row, col) as in `votes`."""
    out = np.zeros(n_time)
    for r in range(start.shape[0]):
        for c in range(start.shape[1]):
            if start[r, c] >= 0:
                for t in range(start[r, c], stop[r, c] if stop[r, c] >= 0 else n_time):
                    out[t] += 1
    return out


@njit(nogil=True, cache=True)
def peak_of(start, stop, area):
    """Date in each pixel's run on which most of the scene was flooded, (n_pixel,) int32; -1 without a run."""
    out = np.full(start.size, -1, np.int32)
    for p in range(start.size):
        if start[p] >= 0:
            out[p] = start[p]
            for t in range(start[p], stop[p] if stop[p] >= 0 else area.size):
                if area[t] > area[out[p]]:
                    out[p] = t
    return out
