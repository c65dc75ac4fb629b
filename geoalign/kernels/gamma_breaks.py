"""Steps in the mean of gamma intensities: every change point of every pixel by generalised likelihood ratio.

A segment of dates low:high is held against two means, before and from a date; binary segmentation then goes into the
two parts. The ratios of many pixels are taken together (`gamma_lanes`): of neighbours for the whole series, and of
those that changed, from wherever they come, for the parts. Each pixel that changed waits in a lane of its own for the
next round, has one segment looked at in it, and leaves when it has no more to ask.
"""

import math

import numpy as np
from numba import njit

from geoalign.kernels.gamma_glr import date_looks
from geoalign.kernels.gamma_lanes import (
    COMMON,
    INVERSE,
    LANE,
    LOGS,
    MASS,
    SUMS,
    VECTOR,
    WEIGHTS,
    Z,
    chances,
    correlated,
    fill_odds,
    fill_uniform,
    interval,
    largest,
    logarithm,
    padded,
    ratios,
)

COVER = 0.95
"""Posterior chance of the dates between which a change is said to lie."""
TINY = 1e-200
BLOCK = 8
"""Lanes' fill of pixels that are read at once: a date of them after the other, as they lie in memory."""
SEARCH, AGAIN, TELL, FREE = range(4)
"""What a lane waits for: parts still to be searched; each date again between its neighbours; its evidence; a pixel."""
PIXEL, N, PHASE, COUNT, AT, WHICH = range(6)
"""Rows of `state`: the pixel, its dates, what it waits for, changes found, which of them or of the parts is next, and
which is least needed so far."""
LEAST, SINGLE, SEVERAL, TOP = range(4)
"""Rows of `seen`: how much the least needed stands out, evidence of one step and of several, largest z told so far."""


@njit(nogil=True, cache=True)
def _gather(series, p0, b, block):
    """Pixels of a band (time, pixel) from p0 on, into block (BLOCK, band, time, LANE)."""
    n_time, n_px = series.shape
    for t in range(n_time):
        for g in range(BLOCK):
            start = p0 + g * LANE
            for k in range(min(LANE, n_px - start)):
                block[g, b, t, k] = series[t, start + k]


@njit(nogil=True, cache=True, **VECTOR)
def _fill_sums(values, sums):
    """Running sums (time + 1, LANE) of values (time, LANE) float32."""
    for i in range(values.shape[0]):
        for k in range(LANE):
            sums[i + 1, k] = sums[i, k] + values[i, k]


@njit(nogil=True, cache=True)
def _fill_lane(values, logs, dates, n, k, weight, sums):
    """Running sums of lane k, whose n dates are `dates` (time, LANE); weight : (band, time), by date."""
    for b in range(values.shape[0]):
        for i in range(n):
            t = dates[i, k]
            own = weight[b, t]
            sums[SUMS, b, i + 1, k] = sums[SUMS, b, i, k] + own * values[b, t, k]
            sums[WEIGHTS, b, i + 1, k] = sums[WEIGHTS, b, i, k] + own
            sums[LOGS, b, i + 1, k] = sums[LOGS, b, i, k] + own * logs[b, t, k]
            sums[INVERSE, b, i + 1, k] = sums[INVERSE, b, i, k] + 1 / own


@njit(nogil=True, cache=True)
def _observed(values, width, dates, n):
    """Dates on which every band of a lane is there, into dates (time, LANE), and how many, into n (LANE,).

    values : (band, time, LANE), NaN, inf or <= 0 where not observed; lanes from `width` on are empty. Returns whether
    all have all dates; `dates` is left alone then.
    """
    n_band, n_time, _ = values.shape
    flat = values.ravel()
    there = 0
    for i in range(flat.size):
        there += (flat[i] > 0) & (flat[i] < np.inf)
    full = width == LANE and there == flat.size
    for k in range(LANE):
        n[k] = 0
        if full:
            n[k] = n_time
        elif k < width:
            for t in range(n_time):
                good = True
                for b in range(n_band):
                    good &= values[b, t, k] > 0 and values[b, t, k] < np.inf
                dates[n[k], k] = t
                n[k] += good
    return full


@njit(nogil=True, cache=True)
def _chance(ln_odds):
    return 1 / (1 + math.exp(-ln_odds)) if ln_odds > -700 else 0.0


@njit(nogil=True, cache=True)
def _tell(sums, k, dates, low, at, high, first, last, chance, i, strongest, p, whole, sizes, direction):
    """Writes down the i-th change of a pixel: at `at` in low:high, between the dates low + first and low + 1 + last."""
    size = 0.0
    up = 0
    n_band = sums.shape[1]
    for b in range(n_band):
        s, w = sums[SUMS, b], sums[WEIGHTS, b]
        old = (s[at, k] - s[low, k]) / (w[at, k] - w[low, k])
        new = (s[high, k] - s[at, k]) / (w[high, k] - w[at, k])
        size += 10 * math.log10(max(new, TINY) / max(old, TINY)) / n_band
        up += 1 if new > old else -1
    kept = (whole.shape[0] - 3) // 3
    if i < kept:
        whole[3 + i, p] = dates[at, k]
        whole[3 + kept + i, p] = dates[low + first, k]
        whole[3 + 2 * kept + i, p] = dates[low + 1 + last, k]
        sizes[2 + i, p] = size
        sizes[2 + kept + i, p] = chance
    if strongest:
        whole[0, p] = dates[at, k]
        whole[1, p] = dates[low + first, k]
        whole[2, p] = dates[low + 1 + last, k]
        sizes[0, p] = size
        direction[p] = 1 if up == n_band else (-1 if up == -n_band else 0)


@njit(nogil=True, cache=True)
def _ends(state, found, k):
    """(low, high) of the segment that lane k waits for."""
    at, count = state[AT, k], state[COUNT, k]
    # parts lie between changes, a change between its neighbours
    after = at if state[PHASE, k] == SEARCH else at + 1
    return (found[at - 1, k] if at > 0 else 0), (found[after, k] if after < count else state[N, k])


@njit(nogil=True, cache=True)
def _next(state, seen, found, k):
    """What lane k asks after the answer to its last question; phase FREE where it has no more."""
    while state[PHASE, k] == SEARCH:
        if state[AT, k] > state[COUNT, k]:
            state[PHASE, k] = AGAIN if state[COUNT, k] > 1 else FREE
            state[AT, k] = 0
            seen[LEAST, k] = np.inf
            return
        low, high = _ends(state, found, k)
        if high - low > 1:
            return
        state[AT, k] += 1
    if state[PHASE, k] == AGAIN and state[AT, k] == state[COUNT, k]:
        state[AT, k] = 0
        if seen[LEAST, k] > 0:
            state[PHASE, k] = TELL
            return
        seen[LEAST, k] = np.inf
        state[COUNT, k] -= 1
        for i in range(state[WHICH, k], state[COUNT, k]):
            found[i, k] = found[i + 1, k]
        if state[COUNT, k] == 1:
            state[PHASE, k] = FREE
    elif state[PHASE, k] == TELL and state[AT, k] == state[COUNT, k]:
        state[PHASE, k] = FREE


@njit(nogil=True, cache=True)
def _round(
    sums, dates, looks, weighted, state, seen, found, limits, d0, wider, ln_prior, spread, tables, work, out, odds,
    best, n_changes, whole, sizes, direction,
):  # fmt: skip
    """One question of every lane, and what follows from the answer. Returns how many lanes are left with another."""
    low = np.zeros(LANE, np.int64)
    n = np.zeros(LANE, np.int64)
    length = np.zeros(LANE, np.float32)
    ln_factor = np.zeros(LANE)
    longest = 0
    telling = False
    for k in range(LANE):
        if state[PHASE, k] != FREE:
            low[k], high = _ends(state, found, k)
            n[k] = high - low[k]
            length[k] = n[k]
            longest = max(longest, n[k])
            telling |= state[PHASE, k] == TELL
    m = padded(max(longest - 1, 0))
    fill_uniform(length, m, wider, tables)
    ratios(sums, low, n, looks, weighted, d0, tables, work, out, best)
    if telling:
        fill_odds(sums, low, n, m, looks, weighted, spread, tables, odds)
        chances(out, odds, n, m, ln_factor)
    busy = 0
    for k in range(LANE):
        if state[PHASE, k] == FREE:
            continue
        over, over_alike = best[0, k] - limits[0, n[k]], best[1, k] - limits[1, n[k]]
        excess = max(over, over_alike)
        at = low[k] + 1 + largest(out[Z] if over >= over_alike else out[COMMON], n[k] - 1, k)
        place = state[AT, k]
        if state[PHASE, k] == SEARCH:
            if excess > 0:
                for i in range(state[COUNT, k], place, -1):
                    found[i, k] = found[i - 1, k]
                found[place, k] = at
                state[COUNT, k] += 1
            else:
                state[AT, k] += 1
        elif state[PHASE, k] == AGAIN:
            found[place, k] = at
            state[AT, k] += 1
            if excess < seen[LEAST, k]:
                seen[LEAST, k] = excess
                state[WHICH, k] = place
        else:
            most, first, last = interval(out[MASS], n[k] - 1, k, COVER)
            found[place, k] = low[k] + 1 + most
            z = out[Z, most * LANE + k]
            p = state[PIXEL, k]
            _tell(
                sums, k, dates, low[k], found[place, k], low[k] + n[k], first, last, _chance(ln_factor[k] + ln_prior),
                place, z > seen[TOP, k], p, whole, sizes, direction,
            )  # fmt: skip
            seen[TOP, k] = max(seen[TOP, k], z)
            seen[SEVERAL, k] += ln_factor[k]
            state[AT, k] += 1
            n_changes[p] = state[COUNT, k]
            # one step or these: half the prior each
            one, several = seen[SINGLE, k], seen[SEVERAL, k]
            peak = max(one, several)
            both = peak + math.log(0.5 * math.exp(one - peak) + 0.5 * math.exp(several - peak))
            sizes[1, p] = _chance(both + ln_prior)
        _next(state, seen, found, k)
        busy += state[PHASE, k] != FREE
    return busy


@njit(nogil=True, cache=True, **VECTOR)
def _fill_logs(values, logs):
    for i in range(values.size):
        logs[i] = logarithm(values[i])


@njit(nogil=True, cache=True)
def _date_weights(looks, slope, sigma, p, weight):
    """Looks of a pixel at each date, in each band, once the residual shift has widened the noise."""
    for b in range(looks.shape[0]):
        last = 0.0
        here = float(looks[b, p])
        for t in range(weight.shape[1]):
            s = sigma[min(t, sigma.shape[0] - 1), p]
            if s != last:
                here = date_looks(float(looks[b, p]), slope[b, p], s, looks.shape[0])
                last = s
            weight[b, t] = here


@njit(nogil=True, cache=True)
def breaks(series, looks, slope, sigma, limits, d0, lag, prior, spread, min_obs, max_breaks):
    """Changes of every pixel.

    Parameters
    ----------
    series : tuple of bands (time, row, col) float32, intensities; NaN or <= 0 in any band = not observed
    looks : (band, row, col)
    slope : (band, row, col) |gradient| / intensity, a px; sigma : (time or 1, row, col) alignment error, px
    limits : (2, time + 1) what the largest z of a stable segment of so many observations, and the largest part that
        all bands do alike, exceed by chance
    d0 : degrees of freedom with which looks vary between pixels (inf: not at all)
    lag : correlation of successive dates where nothing changes, 0 up to 1
    prior, spread : share of change and its size (nepers) that the probability assumes
    min_obs, max_breaks : observations needed; changes kept

    Returns
    -------
    (row, col) each: n_obs, n_changes uint16; flag uint8 (2: only the residual shift excuses it); strongest, after, by,
    int32 dates, -1 none (the change lies in (after, by]); magnitude dB (mean over bands); direction int8; probability
    float32; then (max_breaks, row, col) break_date, break_after, break_by int32, break_magnitude, break_probability
    """
    n_band = len(series)
    n_time, n_row, n_col = series[0].shape
    n_px = n_row * n_col
    looks, slope, sigma = looks.reshape(n_band, n_px), slope.reshape(n_band, n_px), sigma.reshape(-1, n_px)
    n_obs, n_changes = np.zeros(n_px, np.uint16), np.zeros(n_px, np.uint16)
    flag, direction = np.zeros(n_px, np.uint8), np.zeros(n_px, np.int8)
    # strongest, after, by, and those of each change; magnitude, probability, and those of each change
    whole = np.full((3 + 3 * max_breaks, n_px), -1, np.int32)
    sizes = np.full((2 + 2 * max_breaks, n_px), np.nan, np.float32)

    uneven = not math.isinf(d0)
    wider = correlated(n_time, lag) if lag > 0 else np.ones((0, 0), np.float32)
    ln_prior = math.log(prior / (1 - prior))
    size = padded(n_time) * LANE
    tables, part_tables = np.zeros((6, size), np.float32), np.zeros((6, size), np.float32)
    odds, part_odds = np.zeros((3, size), np.float32), np.zeros((3, size), np.float32)
    work = np.zeros((2, size), np.float32)
    out, part_out = np.zeros((3, size), np.float32), np.zeros((3, size), np.float32)
    best, part_best = np.zeros((2, LANE), np.float32), np.zeros((2, LANE), np.float32)
    block = np.ones((BLOCK, n_band, n_time, LANE), np.float32)
    logs = np.zeros((n_band, n_time, LANE), np.float32)
    weight = np.ones((n_band, n_time))
    evenly = np.ones((n_band, n_time))
    sums, dates = np.zeros((4, n_band, n_time + 1, LANE)), np.zeros((n_time, LANE), np.int64)
    n, low, length = np.zeros(LANE, np.int64), np.zeros(LANE, np.int64), np.zeros(LANE, np.float32)
    own, before = np.ones((n_band, LANE), np.float32), np.zeros((n_band, LANE), np.float32)
    weighted, none = np.zeros(LANE, np.bool_), np.zeros(LANE, np.bool_)
    ln_factor = np.zeros(LANE)
    # the lanes of those that changed
    held, held_dates = np.zeros(sums.shape), np.zeros(dates.shape, np.int64)
    held_looks, held_weighted = np.ones(own.shape, np.float32), np.zeros(LANE, np.bool_)
    state, seen, found = np.full((6, LANE), FREE), np.zeros((4, LANE)), np.zeros((n_time, LANE), np.int64)
    busy = free = 0
    # whether weights and dates are those of full series; and in the lanes of those that changed
    plain, held_plain = False, np.zeros(LANE, np.bool_)

    for p0 in range(0, n_px, LANE):
        width = min(LANE, n_px - p0)
        if p0 % (BLOCK * LANE) == 0:
            for b in range(n_band):
                _gather(series[b].reshape(n_time, n_px), p0, b, block)
        values = block[p0 // LANE % BLOCK]
        full = _observed(values, width, dates, n)
        if full and not plain:
            for t in range(n_time):
                dates[t] = t
        if uneven:
            _fill_logs(values.ravel(), logs.ravel())
        shifted = False
        for k in range(LANE):
            weighted[k] = False
            if k < width:
                n_obs[p0 + k] = n[k]
            if n[k] < min_obs:
                n[k] = 0
                full = False
            for b in range(n_band):
                own[b, k] = looks[b, p0 + k] if n[k] > 0 else 1.0
                if n[k] > 0 and slope[b, p0 + k] > 0:
                    for t in range(sigma.shape[0]):
                        weighted[k] |= sigma[t, p0 + k] > 0
            shifted |= weighted[k]
        if full and not shifted:
            for b in range(n_band):
                _fill_sums(values[b], sums[SUMS, b])
                if uneven:
                    _fill_sums(logs[b], sums[LOGS, b])
            if not plain:
                for t in range(n_time):
                    sums[WEIGHTS, :, t + 1] = t + 1
                    sums[INVERSE, :, t + 1] = t + 1
                plain = True
        else:
            plain = False
            for k in range(LANE):
                if weighted[k]:
                    _date_weights(looks, slope, sigma, p0 + k, weight)
                    own[:, k] = 1.0
                _fill_lane(values, logs, dates, n[k], k, weight if weighted[k] else evenly, sums)
        same = True
        longest = 0
        for k in range(LANE):
            same &= length[k] == n[k]
            length[k] = n[k]
            longest = max(longest, n[k])
        m = padded(max(longest - 1, 0))
        if not same:
            fill_uniform(length, m, wider, tables)
        for b in range(n_band):
            for k in range(LANE):
                same &= own[b, k] == before[b, k]
                before[b, k] = own[b, k]
        ratios(sums, low, n, own, weighted, d0, tables, work, out, best)
        if shifted or not same:
            fill_odds(sums, low, n, m, own, weighted, spread, tables, odds)
        if shifted:
            length[:] = 0  # the tables of weighted lanes are their own
        chances(out, odds, n, m, ln_factor)
        for k in range(width):
            if n[k] == 0:
                continue
            p = p0 + k
            sizes[1, p] = _chance(ln_factor[k] + ln_prior)
            over, over_alike = best[0, k] - limits[0, n[k]], best[1, k] - limits[1, n[k]]
            if not max(over, over_alike) > 0:
                continue
            weighted_here = weighted[k]
            weighted[k] = False  # those left are asked again without the shift
            n_changes[p] = 1
            most, first, last = interval(out[MASS], n[k] - 1, k, COVER)
            _tell(
                sums, k, dates, 0, most + 1, n[k], first, last, sizes[1, p], 0, True, p, whole, sizes,
                direction,
            )  # fmt: skip
            while busy == LANE:
                busy = _round(
                    held, held_dates, held_looks, held_weighted, state, seen, found, limits, d0, wider, ln_prior,
                    spread, part_tables, work, part_out, part_odds, part_best, n_changes, whole, sizes, direction,
                )  # fmt: skip
            while state[PHASE, free] != FREE:
                free = (free + 1) % LANE
            for row in range(4):
                # what is the same for all full series is there already
                if (
                    (uneven and row == LOGS)
                    or row == SUMS
                    or (not (plain and held_plain[free]) and (uneven or row < LOGS))
                ):
                    held[row, :, : n[k] + 1, free] = sums[row, :, : n[k] + 1, k]
            if not (plain and held_plain[free]):
                held_dates[:, free] = dates[:, k]
            held_plain[free] = plain
            held_looks[:, free] = own[:, k]
            held_weighted[free] = weighted_here
            found[0, free] = 1 + largest(out[Z] if over >= over_alike else out[COMMON], n[k] - 1, k)
            state[PIXEL, free], state[N, free], state[PHASE, free] = p, n[k], SEARCH
            state[COUNT, free], state[AT, free] = 1, 0
            seen[SINGLE, free] = ln_factor[k]
            seen[SEVERAL, free] = 0.0
            seen[TOP, free] = -1.0
            _next(state, seen, found, free)
            busy += state[PHASE, free] != FREE
        if shifted:
            for k in range(LANE):
                if weighted[k]:
                    own[:, k] = looks[:, p0 + k]
                _fill_lane(values, logs, dates, n[k], k, evenly, sums)
                length[k] = n[k]
            before[:] = np.nan
            fill_uniform(length, m, wider, tables)
            ratios(sums, low, n, own, none, d0, tables, work, out, best)
            for k in range(width):
                if weighted[k] and max(best[0, k] - limits[0, n[k]], best[1, k] - limits[1, n[k]]) > 0:
                    flag[p0 + k] |= 2
    while busy > 0:
        busy = _round(
        held, held_dates, held_looks, held_weighted, state, seen, found, limits, d0, wider, ln_prior, spread,
        part_tables, work, part_out, part_odds, part_best, n_changes, whole, sizes, direction,
        )  # fmt: skip
    whole, sizes = whole.reshape(-1, n_row, n_col), sizes.reshape(-1, n_row, n_col)
    kept = 3 + max_breaks
    return (
        n_obs.reshape(n_row, n_col), n_changes.reshape(n_row, n_col), flag.reshape(n_row, n_col), whole[0], whole[1],
        whole[2], sizes[0], direction.reshape(n_row, n_col), sizes[1], whole[3:kept],
        whole[kept : kept + max_breaks], whole[kept + max_breaks :], sizes[2 : 2 + max_breaks],
        sizes[2 + max_breaks :],
    )  # fmt: skip
