"""Continuous change detection: season and trend of several bands, and six observations in a row that do not fit them.

One pixel after the other: screen, find a stable start, look back, then follow the series until six observations in a
row are off, start again there. Works on positions of the pixel's kept observations (`alive`, numbers into `y`), since
outliers are taken out on the way.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from geoalign.kernels.lasso import N_COEF, add_to_sums, clear_sums, coefficients, fit_sums, predicted
from geoalign.kernels.tmask import N_TERM, mark_clouds, median_of

CONSECUTIVE = 6
MIN_MODEL = 12
"""Observations of the first model: three a coefficient of the simplest one."""
MIN_YEARS = 365.0 / 365.25
N_NEAR = 24
"""Observations of the nearest days of the year that say how noisy the series is then."""
GROWTH_COLD, GROWTH_CCDC = 0.03, 0.01
"""A model is fitted anew whenever its observations are so much more: CCDC at every one up to a hundred."""
MAX_GAP_YEARS = 1.0
MEDIAN_VARIANCE = 0.215
"""Variance of the median of CONSECUTIVE standard normal numbers."""
ANGLE = 45.0
"""Largest mean angle between successive difference vectors of a change, degrees (COLD)."""
TMASK_CCDC, TMASK_COLD = 4.89, 4.42
"""Distance from the robust season, in typical differences of observations, beyond which Tmask calls it cloud."""
TMASK_REFLECTANCE = 0.04
"""The same for CCDC on reflectance (Zhu and Woodcock 2014)."""
SUSPECT = 0.4
"""Share of the threshold that the first observation must reach for the five that follow to be looked at (CCDC)."""
SNOW_SHARE = 0.75
"""Share of snow among the clear observations above which no change is looked for."""

NO_DATA, TOO_FEW, SNOW, UNSTABLE = -1, -2, -3, -4
"""Outcomes below 0: never observed; too few observations; snow nearly always; no stable start was ever found."""


Work = namedtuple(
    "Work",
    "gram cross square beta coef rmse corr sd fitted error stamp raw z far noise near flagged tx a b c d values one",
)
"""Scratch of one call, so that nothing is allocated for a pixel."""


@njit(nogil=True, cache=True)
def scan(cube, slope, spread, years, x, phase_order, lowest, highest, snow, cloud, tone, cold, haze, threshold,
         outlier, penalty, min_obs, effect, first, max_breaks):  # fmt: skip
    """Segments of every pixel.

    cube : (n_pixel, n_band, n_time) float32, NaN = not observed
    slope : (n_pixel, n_band) squared gradient of the image, units^2 / px^2; spread : (n_time,) squared sigma_px
    years : (n_time,) fractional years; x : (n_time, N_COEF) `lasso.design`
    phase_order : (n_time,) scenes sorted by their time of the year
    lowest, highest : (n_band,) valid values, exclusive; snow : (3,) numbers of green, nir,
        swir1, -1 where absent
    cloud : (<= 2,) numbers of the bands that Tmask looks at; tone : (n_band,) weights of bands in the direction
    cold : True for COLD, False for CCDC; haze : limit of Tmask, 0 to take it from the series
    threshold, outlier : of the sum of squared standardised differences
    penalty : of the LASSO; min_obs : clear observations for a pixel to be looked at
    effect : typical size of a change in noise sd, for the evidence
    first : number of the first scene whose changes count; max_breaks : that are kept

    Returns outcome (n_pixel,) int32, changes or one of the codes below 0; n_obs (n_pixel,) int32 clear observations;
    at (n_pixel, max_breaks, 2) int32, number of the first changed scene and of the one before, -1 for none;
    size (n_pixel, max_breaks, 3) float32, length of the median difference vector, its sum weighted by `tone`, ln
    evidence for the change, its likelihood ratio over the number of places where one may be; evidence (n_pixel,)
    float64, ln of the mean likelihood ratio over all places of a change; strongest (n_pixel,) int32, break of the
    longest difference vector.
    """
    n_pixel, n_band, n_time = cube.shape
    outcome = np.zeros(n_pixel, np.int32)
    n_obs = np.zeros(n_pixel, np.int32)
    at = np.full((n_pixel, max_breaks, 2), -1, np.int32)
    size = np.full((n_pixel, max_breaks, 3), np.nan, np.float32)
    evidence = np.zeros(n_pixel)
    strongest = np.full(n_pixel, -1, np.int32)

    y = np.empty((n_time, n_band))
    scene = np.empty(n_time, np.int32)
    when = np.empty(n_time)
    phase = np.empty(n_time)
    rows = np.empty((n_time, N_COEF))
    widen = np.empty(n_time)
    rank = np.empty(n_time, np.int32)
    place = np.empty(n_time, np.int32)
    number = np.empty(n_time, np.int32)
    alive = np.empty(n_time, np.int32)
    floor = np.empty(n_band)
    work = _work(n_time, n_band)
    for p in range(n_pixel):
        seen, clear, frozen = 0, 0, 0
        for t in range(n_time):
            number[t] = -1
            good, there = True, True
            for k in range(n_band):
                v = cube[p, k, t]
                there = there and not np.isnan(v)
                good = good and v > lowest[k] and v < highest[k]
            seen += there
            if not good:
                continue
            if is_snow_colour(cube, p, t, snow):
                frozen += 1
                continue
            for k in range(n_band):
                y[clear, k] = cube[p, k, t]
            scene[clear] = t
            when[clear] = years[t]
            phase[clear] = years[t] - np.floor(years[t])
            widen[clear] = spread[t]
            for a in range(N_COEF):
                rows[clear, a] = x[t, a]
            number[t] = clear
            clear += 1
        n_obs[p] = clear
        if frozen > SNOW_SHARE * (clear + frozen) and frozen >= MIN_MODEL:
            n_obs[p] = frozen
            outcome[p] = SNOW
            continue
        if clear < min_obs or when[clear - 1] - when[0] < MIN_YEARS:
            outcome[p] = NO_DATA if seen == 0 else TOO_FEW
            continue
        m = 0
        for t in phase_order:
            if number[t] >= 0:
                rank[m] = number[t]
                place[number[t]] = m
                m += 1
        _variogram(y, when, clear, floor, work.a)
        for i in range(clear):
            alive[i] = i
        outcome[p], evidence[p], strongest[p] = _segments(
            y, scene, when, phase, rows, widen, slope[p], rank, place, alive, clear, floor, work, cloud, tone, cold,
            haze, threshold, outlier, penalty, effect, first, at[p], size[p],
        )  # fmt: skip
    return outcome, n_obs, at, size, evidence, strongest


@njit(nogil=True, cache=True)
def _work(n, n_band):
    """Scratch for series of n scenes."""
    return Work(
        np.zeros((N_COEF, N_COEF)), np.zeros((n_band, N_COEF)), np.zeros(n_band), np.zeros((n_band, N_COEF)),
        np.zeros((n_band, N_COEF)), np.zeros(n_band), np.zeros((N_COEF, N_COEF)), np.zeros(N_COEF),
        np.zeros(n, np.bool_), np.zeros((n, n_band)), np.zeros(n, np.int64), np.zeros((CONSECUTIVE, n_band)),
        np.zeros((CONSECUTIVE, n_band)), np.zeros(CONSECUTIVE), np.zeros(n_band), np.zeros(n_band),
        np.zeros(n, np.bool_), np.zeros((n, N_TERM)), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n),
        np.zeros(n_band),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def is_snow_colour(cube, p, t, snow):
    """Snow by its colour (as in Fmask): bright in green and near infrared, dark in the shortwave infrared."""
    if snow[0] < 0 or snow[1] < 0 or snow[2] < 0:
        return False
    green, nir, swir = cube[p, snow[0], t], cube[p, snow[1], t], cube[p, snow[2], t]
    return green > 0.1 and nir > 0.11 and green - swir > 0.4 * (green + swir)


@njit(nogil=True, cache=True)
def _variogram(y, when, n, floor, gaps):
    """Least noise that is believed, a band: median difference of observations that are over 30 days apart.

    The pairs are those of the smallest lag whose median distance is over 30 days.
    """
    lag = 1
    while lag < n - 1:
        for i in range(n - lag):
            gaps[i] = when[i + lag] - when[i]
        if median_of(gaps, n - lag) > 30.0 / 365.25:
            break
        lag += 1
    for k in range(y.shape[1]):
        for i in range(n - lag):
            gaps[i] = abs(y[i + lag, k] - y[i, k])
        floor[k] = max(median_of(gaps, n - lag), 1e-6)


@njit(nogil=True, cache=True)
def _segments(y, scene, when, phase, rows, widen, slope, rank, place, alive, m, floor, w, cloud, tone, cold, haze,
              threshold, outlier, penalty, effect, first, at, size):  # fmt: skip
    """One pixel: writes its breaks into at and size; returns the number of them, the ln evidence, the strongest."""
    n_band = y.shape[1]
    n_total = m
    n_break, n_place, ln_sum, ln_breaks = 0, 0, -np.inf, -np.inf
    ever, later = False, False
    start, stop, before = 0, MIN_MODEL, 0
    trained, fresh = False, True
    n_fit, p, fit_id, added = 0, 4, 0, 0
    w.stamp[:] = -1
    while stop + CONSECUTIVE <= m:
        if not trained:
            span = when[alive[stop - 1]] - when[alive[start]]
            if stop - start < MIN_MODEL or span < MIN_YEARS:
                stop += 1
                continue
            if _largest_gap(when, alive, start, stop) > MAX_GAP_YEARS:
                start += 1
                stop += 1
                continue
            left, long_enough = _screen(y, when, alive, start, stop, floor, w, cloud, cold, haze)
            if left < MIN_MODEL or not long_enough:
                stop += 1
                continue
            gone = stop - start - left
            if gone > 0:
                m = _drop_flagged(alive, start, stop, m, w.flagged)
                stop -= gone
                if stop + CONSECUTIVE > m:
                    break
            clear_sums(w.gram, w.cross, w.square)
            w.beta[:] = 0.0
            for i in range(start, stop):
                add_to_sums(rows[alive[i]], y[alive[i]], w.gram, w.cross, w.square)
            fit_sums(w.gram, w.cross, w.square, 4, penalty, w.beta, w.coef, w.rmse, w.corr, w.sd)
            if _unsteady(y, when, rows, alive, start, stop, floor, w, cold) > threshold:
                start += 1
                stop += 1
                continue
            trained, ever, fresh = True, True, True
            w.fitted[:] = False
            for k in range(n_band):
                w.noise[k] = max(floor[k], w.rmse[k])
            if start > before:
                old = start
                start, gone = _look_back(y, rows, widen, slope, alive, before, start, m, w, cold, threshold, outlier)
                m -= gone
                stop -= gone
                for i in range(start, old - gone):
                    add_to_sums(rows[alive[i]], y[alive[i]], w.gram, w.cross, w.square)
                if start - before >= CONSECUTIVE and not (cold and later) and scene[alive[start]] >= first:
                    # what lies between the last break and the stable start is something else again
                    for j in range(CONSECUTIVE):
                        _standardise(y, rows, widen, slope, alive[start - 1 - j], 4, w.coef, w.noise, j, w.z, w.far)
                    common = 6.0 / (stop - start)
                    ln_ratio = ln_ratio_of_break(w.z, effect, common, w.a)
                    ln_breaks = np.logaddexp(ln_breaks, ln_ratio)
                    if n_break < at.shape[0]:
                        _keep(y, rows, alive, start - 1, -1, 4, w, tone, scene, at[n_break], size[n_break])
                        size[n_break, 2] = ln_ratio
                    n_break += 1
            added = stop
            continue

        # follow: the model holds [start, stop), the next six are held against it
        for i in range(added, stop):
            add_to_sums(rows[alive[i]], y[alive[i]], w.gram, w.cross, w.square)
        added = stop
        n = stop - start
        young = n <= N_NEAR
        refit = fresh or young or n - n_fit > int((GROWTH_COLD if cold else GROWTH_CCDC) * n_fit)
        if refit:
            p = coefficients(n)
            fit_sums(w.gram, w.cross, w.square, p, penalty, w.beta, w.coef, w.rmse, w.corr, w.sd)
            n_fit = n
            fit_id += 1
            for i in range(start, stop):
                w.fitted[alive[i]] = True
        if young:
            for k in range(n_band):
                w.noise[k] = max(floor[k], w.rmse[k])
        else:
            _noise_near(y, phase, rows, rank, place[alive[stop + CONSECUTIVE - 1]], n_total, p, fit_id, floor, w.coef,
                        w.fitted, w.stamp, w.error, w.near, w.noise)  # fmt: skip
        anew = fresh or young or not cold
        for j in range(CONSECUTIVE):
            if not anew and j < CONSECUTIVE - 1:
                w.far[j] = w.far[j + 1]
                for k in range(n_band):
                    w.z[j, k] = w.z[j + 1, k]
                continue
            _standardise(y, rows, widen, slope, alive[stop + j], p, w.coef, w.noise, j, w.z, w.far)
            if not cold and w.far[0] <= SUSPECT * threshold:
                break
        # where the first of the six fits, no change begins here; COLD keeps all of them for the next step
        calm = not cold and w.far[0] <= SUSPECT * threshold
        fresh = False
        counts = scene[alive[stop]] >= first
        if counts:
            if not calm:
                # p / n is a fit's mean error; the trend carried on beyond its end has about two more
                common = (p + 2.0) / n_fit
                ln_ratio = ln_likelihood_ratio(w.z, w.far, CONSECUTIVE, threshold, effect, common, w.one)
                ln_sum = np.logaddexp(ln_sum, ln_ratio)
            n_place += 1
        if not calm and is_break(w.z, w.far, CONSECUTIVE, threshold, cold):
            if counts:
                ln_ratio = ln_ratio_of_break(w.z, effect, common, w.a)
                ln_breaks = np.logaddexp(ln_breaks, ln_ratio)
                if n_break < at.shape[0]:
                    _keep(y, rows, alive, stop, 1, p, w, tone, scene, at[n_break], size[n_break])
                    size[n_break, 2] = ln_ratio
                n_break += 1
            later = True
            before = stop
            start = stop
            stop = start + MIN_MODEL
            trained = False
        elif w.far[0] > outlier:
            for i in range(stop, m - 1):
                alive[i] = alive[i + 1]
            m -= 1
        else:
            stop += 1
    if not ever:
        return UNSTABLE, 0.0, -1
    ln_place = np.log(max(n_place, 1))
    strongest = 0 if n_break > 0 else -1
    for i in range(min(n_break, at.shape[0])):
        size[i, 2] -= ln_place
        if size[i, 0] > size[strongest, 0]:
            strongest = i
    # where there are breaks it is they that are more or less sure, not what else was odd
    return n_break, (ln_breaks if n_break > 0 else ln_sum) - ln_place, strongest


@njit(nogil=True, cache=True)
def _largest_gap(when, alive, start, stop):
    """Longest time between successive observations, years."""
    gap = 0.0
    for i in range(start, stop - 1):
        gap = max(gap, when[alive[i + 1]] - when[alive[i]])
    return gap


@njit(nogil=True, cache=True)
def _screen(y, when, alive, start, stop, floor, w, cloud, cold, haze):
    """Tmask over the window; fills w.flagged (from 0 = start). Returns observations left, and whether over a year."""
    # COLD lets the six observations that follow take part in the robust fit
    n = stop - start + (CONSECUTIVE if cold else 0)
    for i in range(n):
        w.flagged[i] = False
        w.b[i] = when[alive[start + i]]
    for k in cloud:
        for i in range(n):
            w.a[i] = y[alive[start + i], k]
        limit = haze if haze > 0.0 else floor[k] * (TMASK_COLD if cold else TMASK_CCDC)
        mark_clouds(w.a, n, w.b, limit, w.flagged, w.tx, w.c, w.d, w.values)
    left, first, last = 0, -1, -1
    for i in range(stop - start):
        if not w.flagged[i]:
            left += 1
            last = i
            first = i if first < 0 else first
    return left, left > 0 and w.b[last] - w.b[first] >= MIN_YEARS


@njit(nogil=True, cache=True)
def _drop_flagged(alive, start, stop, m, flagged):
    """Take the flagged observations of the window out of alive[:m]; returns the new m."""
    kept = start
    for i in range(start, m):
        if i < stop and flagged[i - start]:
            continue
        alive[kept] = alive[i]
        kept += 1
    return kept


@njit(nogil=True, cache=True)
def _unsteady(y, when, rows, alive, start, stop, floor, w, cold):
    """How far the first model is from steady: slope over the window, first and last residual, in noise, squared."""
    first, last = alive[start], alive[stop - 1]
    total = 0.0
    for k in range(y.shape[1]):
        noise = max(floor[k], w.rmse[k])
        slope = abs(w.coef[k, 1] * (when[last] - when[first]))
        head = abs(y[first, k] - predicted(w.coef[k], rows[first], 4))
        tail = abs(y[last, k] - predicted(w.coef[k], rows[last], 4))
        ends = max(head, tail) if cold else head + tail
        total += ((slope + ends) / noise) ** 2
    return total


@njit(nogil=True, cache=True)
def _look_back(y, rows, widen, slope, alive, before, start, m, w, cold, threshold, outlier):
    """Take observations before the first model in while they fit. Returns the new start, and how many were dropped."""
    gone = 0
    k = start - 1
    while k >= before:
        count = min(CONSECUTIVE, k - before + 1)
        for j in range(count):
            _standardise(y, rows, widen, slope, alive[k - j], 4, w.coef, w.noise, j, w.z, w.far)
        if is_break(w.z, w.far, count, threshold, cold):
            break
        if w.far[0] > outlier:
            for i in range(k, m - gone - 1):
                alive[i] = alive[i + 1]
            gone += 1
            start -= 1
        else:
            start = k
        k -= 1
    return start, gone


@njit(nogil=True, cache=True)
def _noise_near(y, phase, rows, rank, centre, n, p, fit_id, floor, coef, fitted, stamp, error, near, noise):
    """Noise of every band at one time of the year: the fitted observations of the N_NEAR nearest days of the year.

    rank (n,) : observations by their time of the year, phase (n,) that time, by observation; centre : place in rank.
    Residuals of a fit are computed once (stamp says by which fit). Fills noise (n_band,); near is scratch.
    """
    n_band = y.shape[1]
    for k in range(n_band):
        near[k] = 0.0
    here = phase[rank[centre]]
    low, high, taken = centre, centre, 0
    d_low, d_high = -1.0, -1.0
    steps = 0
    while taken < N_NEAR:
        while d_low < 0.0 and steps < n:
            low = low - 1 if low > 0 else n - 1
            steps += 1
            if fitted[rank[low]]:
                d_low = abs(phase[rank[low]] - here)
                d_low = min(d_low, 1.0 - d_low)
        while d_high < 0.0 and steps < n:
            high = high + 1 if high < n - 1 else 0
            steps += 1
            if fitted[rank[high]]:
                d_high = abs(phase[rank[high]] - here)
                d_high = min(d_high, 1.0 - d_high)
        if d_low < 0.0 and d_high < 0.0:
            break
        if d_high < 0.0 or 0.0 <= d_low <= d_high:
            obs, d_low = rank[low], -1.0
        else:
            obs, d_high = rank[high], -1.0
        if stamp[obs] != fit_id:
            stamp[obs] = fit_id
            for k in range(n_band):
                gap = y[obs, k] - coef[k, 0]
                for a in range(1, p):
                    gap -= coef[k, a] * rows[obs, a]
                error[obs, k] = gap * gap
        for k in range(n_band):
            near[k] += error[obs, k]
        taken += 1
    for k in range(n_band):
        noise[k] = max(floor[k], np.sqrt(near[k] / max(taken - p, 1)))


@njit(nogil=True, cache=True)
def _standardise(y, rows, widen, slope, obs, p, coef, noise, j, z, far):
    """Difference of one observation from the model, in noise: z[j], its squared length far[j]."""
    total = 0.0
    for k in range(y.shape[1]):
        gap = y[obs, k] - coef[k, 0]
        for a in range(1, p):
            gap -= coef[k, a] * rows[obs, a]
        variance = noise[k] * noise[k] + slope[k] * widen[obs]
        z[j, k] = gap / np.sqrt(variance)
        total += gap * gap / variance
    far[j] = total


@njit(nogil=True, cache=True)
def is_break(z, far, count, threshold, cold):
    """All of the count difference vectors are long and, for COLD, point the same way."""
    for j in range(count):
        if far[j] <= threshold:
            return False
    if not cold or count < 2:
        return True
    total = 0.0
    for j in range(count - 1):
        dot = 0.0
        for k in range(z.shape[1]):
            dot += z[j, k] * z[j + 1, k]
        total += np.arccos(min(1.0, max(-1.0, dot / np.sqrt(far[j] * far[j + 1]))))
    return np.degrees(total / (count - 1)) < ANGLE


@njit(nogil=True, cache=True)
def ln_likelihood_ratio(z, far, count, threshold, effect, common, total):
    """ln likelihood ratio of a shift N(0, effect^2) of every band against none; vectors are cut at the threshold.

    Cut, so that one or two undetected clouds are no evidence. common : variance of the model's own error, in noise
    variances, which the count observations share.
    """
    n_band = z.shape[1]
    none = 1.0 / count + common
    shifted = none + effect * effect
    squares = 0.0
    for k in range(n_band):
        total[k] = 0.0
    for j in range(count):
        cut = min(1.0, np.sqrt(threshold / far[j])) if far[j] > 0.0 else 1.0
        for k in range(n_band):
            total[k] += z[j, k] * cut / count
    for k in range(n_band):
        squares += total[k] ** 2
    return 0.5 * (squares * (1.0 / none - 1.0 / shifted) + n_band * np.log(none / shifted))


@njit(nogil=True, cache=True)
def ln_ratio_of_break(z, effect, common, total):
    """The same of CONSECUTIVE vectors that are a break: of their median by bands, uncut.

    All of them are far off, so that it is not one or two clouds; and of vectors cut at the threshold no break, however
    large, would be sure beside a young model.
    """
    n_band = z.shape[1]
    none = MEDIAN_VARIANCE + common
    shifted = none + effect * effect
    squares = 0.0
    for k in range(n_band):
        for j in range(CONSECUTIVE):
            total[j] = z[j, k]
        squares += median_of(total, CONSECUTIVE) ** 2
    return 0.5 * (squares * (1.0 / none - 1.0 / shifted) + n_band * np.log(none / shifted))


@njit(nogil=True, cache=True)
def _keep(y, rows, alive, first, step, p, w, tone, scene, at, size):
    """Write one break: its scenes into at (2,), length and tone of the median difference vector into size (3,).

    first, step : position of the first of the six observations that are off, and +1, or -1 where they come before
    """
    length, sign = 0.0, 0.0
    for k in range(y.shape[1]):
        for j in range(CONSECUTIVE):
            obs = alive[first + step * j]
            w.a[j] = step * (y[obs, k] - predicted(w.coef[k], rows[obs], p))
        middle = median_of(w.a, CONSECUTIVE)
        length += middle * middle
        sign += tone[k] * middle
    size[0] = np.sqrt(length)
    size[1] = sign
    at[0] = scene[alive[first if step > 0 else first + 1]]
    at[1] = scene[alive[first - 1 if step > 0 else first]]
