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
from geoalign.kernels.gamma_rounds import COVER, FREE, ask, chance_of, enter, gather_changed, settle, tell

BLOCK = 8
"""Lanes' fill of pixels that are read at once: a date of them after the other, as they lie in memory."""


@njit(nogil=True, cache=True)
def _gather(series, p0, b, block):
    """Pixels of a band (time, pixel) from p0 on, into block (BLOCK, band, time, LANE)."""
    n_time, n_px = series.shape
    for t in range(n_time):
        for g in range(BLOCK):
            start = p0 + g * LANE
            width = max(min(LANE, n_px - start), 0)
            # as slices, which are copied as fast as memory allows
            block[g, b, t, :width] = series[t, start : start + width]


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
    # the lanes of those that changed and ask for more; of full series, until it is known whether they do
    held, held_dates = np.zeros(sums.shape), np.zeros(dates.shape, np.int64)
    held_looks, held_weighted = np.ones(own.shape, np.float32), np.zeros(LANE, np.bool_)
    state, seen, found = np.full((6, LANE), FREE), np.zeros((4, LANE)), np.zeros((n_time, LANE), np.int64)
    spot = np.zeros(1, np.int64)
    rounds = (
        held, held_dates, held_looks, held_weighted, state, seen, found, limits, d0, wider, ln_prior, spread,
        part_tables, work, part_out, part_odds, part_best, n_changes, whole, sizes, direction,
    )  # fmt: skip
    kept, kept_dates = np.zeros(sums.shape), np.zeros(dates.shape, np.int64)
    for t in range(n_time):
        kept[:, :, t + 1] = t + 1
        kept_dates[t] = t
    kept_at, kept_pixel, kept_single = np.full(LANE, n_time), np.zeros(LANE, np.int64), np.zeros(LANE)
    kept_looks, peaks = np.ones(own.shape, np.float32), np.zeros((4, LANE), np.float32)
    lanes, places = np.zeros(LANE, np.int64), np.zeros(LANE, np.int64)
    least_wider = np.ones(n_time + 1)
    for size in range(2, n_time + 1 if lag > 0 else 0):
        least_wider[size] = wider[size, : size - 1].min()
    busy = waiting = 0
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
        changed = 0
        for k in range(width):
            if n[k] == 0:
                continue
            p = p0 + k
            sizes[1, p] = chance_of(ln_factor[k] + ln_prior)
            over, over_alike = best[0, k] - limits[0, n[k]], best[1, k] - limits[1, n[k]]
            if not max(over, over_alike) > 0:
                continue
            n_changes[p] = 1
            most, first, last = interval(out[MASS], n[k] - 1, k, COVER)
            tell(
                sums, k, dates, 0, most + 1, n[k], first, last, sizes[1, p], 0, True, p, whole, sizes,
                direction,
            )  # fmt: skip
            lanes[changed] = k
            places[changed] = 1 + largest(out[Z] if over >= over_alike else out[COMMON], n[k] - 1, k)
            changed += 1
        done = 0
        while plain and done < changed:
            count = min(changed - done, LANE - waiting)
            gather_changed(sums, lanes, done, count, kept, waiting, uneven)
            for i in range(done, done + count):
                kept_at[waiting], kept_pixel[waiting] = places[i], p0 + lanes[i]
                kept_single[waiting] = ln_factor[lanes[i]]
                kept_looks[:, waiting] = own[:, lanes[i]]
                waiting += 1
            done += count
            if waiting == LANE:
                busy = settle(
                    kept, kept_dates, kept_at, kept_pixel, kept_single, kept_looks, waiting, limits, d0, least_wider,
                    part_tables, work, part_out, peaks, spot, busy, held_plain, rounds,
                )  # fmt: skip
                waiting = 0
        for i in range(done, changed):
            k = lanes[i]
            while busy == LANE:
                busy = ask(*rounds)
            busy += enter(
                sums, k, n[k], dates, plain, own, weighted[k], uneven, p0 + k, places[i], ln_factor[k], held,
                held_dates, held_looks, held_weighted, held_plain, state, seen, found, spot,
            )  # fmt: skip
            weighted[k] = False  # those left are asked again without the shift
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
    if waiting > 0:
        busy = settle(
            kept, kept_dates, kept_at, kept_pixel, kept_single, kept_looks, waiting, limits, d0, least_wider,
            part_tables, work, part_out, peaks, spot, busy, held_plain, rounds,
        )  # fmt: skip
    while busy > 0:
        busy = ask(*rounds)
    whole, sizes = whole.reshape(-1, n_row, n_col), sizes.reshape(-1, n_row, n_col)
    end = 3 + max_breaks
    return (
        n_obs.reshape(n_row, n_col), n_changes.reshape(n_row, n_col), flag.reshape(n_row, n_col), whole[0], whole[1],
        whole[2], sizes[0], direction.reshape(n_row, n_col), sizes[1], whole[3:end],
        whole[end : end + max_breaks], whole[end + max_breaks :], sizes[2 : 2 + max_breaks],
        sizes[2 + max_breaks :],
    )  # fmt: skip
