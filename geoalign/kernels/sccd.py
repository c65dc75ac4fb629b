"""Continuous change detection by a Kalman filter, one observation after the other, in a state of constant size.

Level, slope and two cycles a year of every band are one structural model. Its noise is measured in units of the
band's own, so that all bands of a pixel share the filter's covariance and gain, and only the states differ. Six
observations always wait in a queue: they are held against the forecast from the state, and the oldest one is taken in,
thrown out, or begins a break.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.ccdc import (
    CONSECUTIVE,
    MAX_GAP_YEARS,
    MIN_MODEL,
    MIN_YEARS,
    TMASK_COLD,
    is_break,
    is_snow_colour,
    ln_likelihood_ratio,
    ln_ratio_of_break,
)
from geoalign.kernels.lasso import N_COEF, add_to_sums, clear_sums, fit_sums, predicted
from geoalign.kernels.tmask import N_TERM, mark_clouds, median_of

N_STATE = 6
"""Level (now), slope a year, cosine and sine of one and of two cycles a year."""
N_BUFFER = 36
"""Observations that wait for a stable start; where they are more within a year, every second is given up."""
US_A_YEAR = 365.25 * 86400e6

PRIOR_VARIANCE = np.array([1e4, 25.0, 900.0, 900.0, 25.0, 25.0])
"""What is known before the first observation, in noise variances (slope: a year)."""
DRIFT = np.array([0.01, 0.0005, 0.003, 0.003, 0.002, 0.002])
"""What the states may move in a year, in noise variances."""

FLOOR_WEIGHT = 12.0
"""Forecast errors that the noise seen at the start is worth."""
SUSPECT = 0.4
"""Share of the threshold that the oldest waiting observation must reach for the others to be looked at."""

TRAINED, N_QUEUE, NOW, N_IN, N_OBS, N_SNOW, N_BREAK, LN_SUM, N_PLACE, LAST_US, EVER, FIRST_US = range(12)
HEAD = 12
BREAK_FIELDS = 5
"""Of a break: first changed observation, last before (us since 1970), length, tone, ln likelihood ratio."""


def state_size(n_band, max_breaks):
    """Slots of a pixel's numbers: head, noise floor, squared errors, states, covariance, breaks."""
    return HEAD + 2 * n_band + n_band * N_STATE + N_STATE * N_STATE + max_breaks * BREAK_FIELDS


@njit(nogil=True, cache=True)
def harmonics(us, row):
    """Fill row (N_COEF,) as `lasso.design` does, for a time in us since 1970."""
    years = us / US_A_YEAR
    turn = 2 * np.pi * (years - np.floor(years))
    row[0] = 1.0
    row[1] = years
    c, s = np.cos(turn), np.sin(turn)
    row[2], row[3] = c, s
    row[4], row[5] = c * c - s * s, 2 * c * s
    row[6], row[7] = row[4] * c - row[5] * s, row[4] * s + row[5] * c


@njit(nogil=True, cache=True)
def fold(cube, numbers, times, values, slope, us, spread, lowest, highest, snow, cloud, tone, threshold, outlier,
         penalty, effect, since_us, max_breaks):  # fmt: skip
    """Fold scenes into the state of every pixel.

    cube : (n_pixel, n_band, n_time) float32, NaN = not observed; us : (n_time,) float64, us since 1970
    numbers : (n_pixel, state_size) float64; times : (n_pixel, N_BUFFER) float64; values : (n_pixel, N_BUFFER * n_band)
    float32, observations that wait
    slope, spread, lowest, highest, snow, cloud, tone, threshold, outlier, penalty, effect : as in `ccdc.scan`
    since_us : changes before are not counted

    Returns the new numbers, times, values. Folding scenes in two goes gives the same bits as in one.
    """
    n_pixel, n_band, n_time = cube.shape
    numbers, times, values = numbers.copy(), times.copy(), values.copy()
    row = np.empty((CONSECUTIVE, N_COEF))
    one = np.empty(N_COEF)
    z = np.empty((CONSECUTIVE, n_band))
    far = np.empty(CONSECUTIVE)
    gain = np.empty(N_STATE)
    total = np.empty(n_band)
    gap = np.empty((CONSECUTIVE, n_band))
    init = _init_scratch(n_band)
    for p in range(n_pixel):
        head = numbers[p]
        floor, square, state, cov, breaks = _parts(head, n_band, max_breaks)
        queue = values[p].reshape(N_BUFFER, n_band)
        for t in range(n_time):
            good = True
            for k in range(n_band):
                v = cube[p, k, t]
                good = good and v > lowest[k] and v < highest[k]
            if not good:
                continue
            if is_snow_colour(cube, p, t, snow):
                head[N_SNOW] += 1.0
                continue
            if head[N_OBS] == 0.0:
                head[FIRST_US] = us[t]
            head[N_OBS] += 1.0
            n = int(head[N_QUEUE])
            if n == N_BUFFER:
                n = _thin(times[p], queue, n)
            times[p, n] = us[t]
            for k in range(n_band):
                queue[n, k] = cube[p, k, t]
            n += 1
            head[N_QUEUE] = n
            if head[TRAINED] == 0.0:
                if n >= MIN_MODEL:
                    _try_start(head, floor, square, state, cov, times[p], queue, cloud, threshold, penalty, init, one,
                               gain)  # fmt: skip
                continue
            if n < CONSECUTIVE:
                continue
            common = _forecast(head, floor, square, state, cov, times[p, 0], queue[0], slope[p], spread[t], row[0],
                               z[0], gap[0])  # fmt: skip
            far[0] = _length(z[0])
            counts = times[p, 0] >= since_us
            # where the oldest one fits, no change begins here
            suspect = far[0] > SUSPECT * threshold
            ln_ratio = -np.inf
            if suspect:
                for j in range(1, CONSECUTIVE):
                    _forecast(head, floor, square, state, cov, times[p, j], queue[j], slope[p], spread[t], row[j], z[j],
                              gap[j])  # fmt: skip
                    far[j] = _length(z[j])
                ln_ratio = ln_likelihood_ratio(z, far, CONSECUTIVE, threshold, effect, common, total)
                if counts:
                    head[LN_SUM] = np.logaddexp(head[LN_SUM], ln_ratio)
            if counts:
                head[N_PLACE] += 1.0
            if suspect and is_break(z, far, CONSECUTIVE, threshold, True):
                if counts:
                    ln_ratio = ln_ratio_of_break(z, effect, common, one)
                    head[LN_SUM] = np.logaddexp(head[LN_SUM], ln_ratio)
                    m = int(head[N_BREAK])
                    if m < max_breaks:
                        _write_break(breaks[m], times[p, 0], head[LAST_US], gap, tone, ln_ratio)
                    head[N_BREAK] += 1.0
                head[TRAINED] = 0.0
                head[N_IN] = 0.0
            else:
                if far[0] <= outlier:
                    _take_in(head, square, state, cov, times[p, 0], row[0], queue[0], gain)
                    head[LAST_US] = times[p, 0]
                _shift(times[p], queue, 1, n)
                head[N_QUEUE] = n - 1
    return numbers, times, values


@njit(nogil=True, cache=True)
def _parts(head, n_band, max_breaks):
    """Views of a pixel's numbers: noise floor, squared errors, states (n_band, N_STATE), covariance, breaks."""
    a = HEAD
    floor = head[a : a + n_band]
    square = head[a + n_band : a + 2 * n_band]
    a += 2 * n_band
    state = head[a : a + n_band * N_STATE].reshape(n_band, N_STATE)
    a += n_band * N_STATE
    cov = head[a : a + N_STATE * N_STATE].reshape(N_STATE, N_STATE)
    a += N_STATE * N_STATE
    return floor, square, state, cov, head[a : a + max_breaks * BREAK_FIELDS].reshape(max_breaks, BREAK_FIELDS)


@njit(nogil=True, cache=True)
def _init_scratch(n_band):
    """Scratch of `_try_start`: sums, coefficients, robust fit."""
    return (
        np.zeros((N_COEF, N_COEF)), np.zeros((n_band, N_COEF)), np.zeros(n_band), np.zeros((n_band, N_COEF)),
        np.zeros((n_band, N_COEF)), np.zeros(n_band), np.zeros((N_COEF, N_COEF)), np.zeros(N_COEF), np.zeros(n_band),
        np.zeros(N_BUFFER, np.bool_), np.zeros((N_BUFFER, N_TERM)), np.zeros((6, N_BUFFER)),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _shift(times, queue, by, n):
    """Drop the first `by` of n observations."""
    for i in range(by, n):
        times[i - by] = times[i]
        for k in range(queue.shape[1]):
            queue[i - by, k] = queue[i, k]


@njit(nogil=True, cache=True)
def _thin(times, queue, n):
    """Keep every second of n observations, so that a dense year fits in. Returns how many are left."""
    for i in range(0, n, 2):
        times[i // 2] = times[i]
        for k in range(queue.shape[1]):
            queue[i // 2, k] = queue[i, k]
    return (n + 1) // 2


@njit(nogil=True, cache=True)
def _try_start(head, floor, square, state, cov, times, queue, cloud, threshold, penalty, init, one, gain):
    """Begin a model with the waiting observations if they are a stable year; else give up the oldest of them."""
    gram, cross, total, beta, coef, rmse, corr, sd, now, flagged, tx, work = init
    n = int(head[N_QUEUE])
    n_band = floor.size
    if (times[n - 1] - times[0]) / US_A_YEAR < MIN_YEARS:
        return
    for i in range(n - 1):
        if times[i + 1] - times[i] > MAX_GAP_YEARS * US_A_YEAR:
            _shift(times, queue, i + 1, n)
            head[N_QUEUE] = n - i - 1
            return
    for k in range(n_band):
        for i in range(n):
            work[1, i] = queue[i, k]
        floor[k] = _typical_step(times, work[1], n, work[0])
    for i in range(n):
        flagged[i] = False
        work[0, i] = times[i] / US_A_YEAR
    for k in cloud:
        for i in range(n):
            work[1, i] = queue[i, k]
        mark_clouds(work[1], n, work[0], TMASK_COLD * floor[k], flagged, tx, work[2], work[3], work[4])
    left, begin, end = 0, -1, -1
    for i in range(n):
        if not flagged[i]:
            left += 1
            end = i
            begin = i if begin < 0 else begin
    if left < MIN_MODEL or (times[end] - times[begin]) / US_A_YEAR < MIN_YEARS:
        return
    clear_sums(gram, cross, total)
    beta[:] = 0.0
    origin = np.floor(times[0] / US_A_YEAR)
    for i in range(n):
        if flagged[i]:
            continue
        harmonics(times[i], one)
        one[1] -= origin
        for k in range(n_band):
            now[k] = queue[i, k]
        add_to_sums(one, now, gram, cross, total)
    fit_sums(gram, cross, total, 4, penalty, beta, coef, rmse, corr, sd)
    unsteady = 0.0
    for k in range(n_band):
        noise = max(floor[k], rmse[k])
        drift = abs(coef[k, 1]) * (times[end] - times[begin]) / US_A_YEAR
        worst = 0.0
        for i in (begin, end):
            harmonics(times[i], one)
            one[1] -= origin
            worst = max(worst, abs(queue[i, k] - predicted(coef[k], one, 4)))
        unsteady += ((drift + worst) / noise) ** 2
    if unsteady > threshold:
        _shift(times, queue, 1, n)
        head[N_QUEUE] = n - 1
        return
    # season and trend taken out, the differences of observations say how noisy the series is at the least
    lost = np.sqrt(left / (left - 4.0))
    for k in range(n_band):
        m = 0
        for i in range(n):
            if not flagged[i]:
                harmonics(times[i], one)
                one[1] -= origin
                work[1, m] = queue[i, k] - predicted(coef[k], one, 4)
                work[2, m] = times[i]
                m += 1
        floor[k] = lost * _typical_step(work[2], work[1], m, work[0])
    # the filter starts from next to nothing, which makes it recursive least squares over the year
    cov[:] = 0.0
    square[:] = 0.0
    for a in range(N_STATE):
        cov[a, a] = PRIOR_VARIANCE[a]
    for k in range(n_band):
        state[k] = 0.0
        state[k, 0] = queue[begin, k]
    head[NOW] = times[begin]
    head[N_IN] = 0.0
    for i in range(n):
        if not flagged[i]:
            harmonics(times[i], one)
            _take_in(head, square, state, cov, times[i], one, queue[i], gain)
    head[LAST_US] = times[end]
    head[TRAINED] = 1.0
    head[EVER] = 1.0
    head[N_QUEUE] = 0.0


@njit(nogil=True, cache=True)
def _typical_step(times, values, n, gaps):
    """Median difference of values over 30 days apart: those of the smallest lag whose median distance is over 30."""
    lag = 1
    while lag < n - 1:
        for i in range(n - lag):
            gaps[i] = times[i + lag] - times[i]
        if median_of(gaps, n - lag) > 30.0 * 86400e6:
            break
        lag += 1
    for i in range(n - lag):
        gaps[i] = abs(values[i + lag] - values[i])
    return max(median_of(gaps, n - lag), 1e-6)


@njit(nogil=True, cache=True)
def _take_in(head, square, state, cov, us, row, values, gain):
    """One step of the Kalman filter, in place: all bands with one gain."""
    dt = (us - head[NOW]) / US_A_YEAR
    head[NOW] = us
    # the level moves on by the slope
    cov[0, 0] += dt * (2.0 * cov[0, 1] + dt * cov[1, 1])
    for a in range(1, N_STATE):
        cov[0, a] += dt * cov[1, a]
        cov[a, 0] = cov[0, a]
    for a in range(N_STATE):
        cov[a, a] += DRIFT[a] * dt
    spread = 1.0
    for a in range(N_STATE):
        g = cov[a, 0]
        for b in range(2, N_STATE):
            g += cov[a, b] * row[b]
        gain[a] = g
    spread += gain[0]
    for b in range(2, N_STATE):
        spread += gain[b] * row[b]
    for k in range(square.size):
        state[k, 0] += dt * state[k, 1]
        error = values[k] - state[k, 0]
        for b in range(2, N_STATE):
            error -= state[k, b] * row[b]
        square[k] += error * error / spread
        for a in range(N_STATE):
            state[k, a] += gain[a] * error / spread
    for a in range(N_STATE):
        for b in range(N_STATE):
            cov[a, b] -= gain[a] * gain[b] / spread
    head[N_IN] += 1.0


@njit(nogil=True, cache=True)
def _forecast(head, floor, square, state, cov, us, values, slope, spread, row, z, gap):
    """Differences of one waiting observation from its forecast, plain (gap) and in noise (z), (n_band,).

    Returns the forecast's own variance in noise variances. Fills row (N_COEF,) by the way.
    """
    harmonics(us, row)
    dt = (us - head[NOW]) / US_A_YEAR
    own = 0.0
    for a in range(N_STATE):
        left = row[a] if a != 1 else dt
        part = 0.0
        for b in range(N_STATE):
            part += cov[a, b] * (row[b] if b != 1 else dt)
        own += left * part
    free = max(head[N_IN] - N_STATE, 0.0)
    for k in range(floor.size):
        error = values[k] - state[k, 0] - dt * state[k, 1]
        for a in range(2, N_STATE):
            error -= state[k, a] * row[a]
        gap[k] = error
        noise = (FLOOR_WEIGHT * floor[k] * floor[k] + square[k]) / (FLOOR_WEIGHT + free)
        variance = noise * (1.0 + own) + slope[k] * spread
        z[k] = error / np.sqrt(variance)
    return own


@njit(nogil=True, cache=True)
def _length(z):
    """Squared length of a vector."""
    total = 0.0
    for k in range(z.size):
        total += z[k] * z[k]
    return total


@njit(nogil=True, cache=True)
def _write_break(out, first_us, last_us, gap, tone, ln_ratio):
    """One break's fields: when, median difference vector's length and tone, evidence."""
    length, sign = 0.0, 0.0
    six = np.empty(CONSECUTIVE)
    for k in range(gap.shape[1]):
        for j in range(CONSECUTIVE):
            six[j] = gap[j, k]
        middle = median_of(six, CONSECUTIVE)
        length += middle * middle
        sign += tone[k] * middle
    out[0], out[1], out[2], out[3], out[4] = first_us, last_us, np.sqrt(length), sign, ln_ratio
