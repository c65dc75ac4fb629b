"""The questions that a changed pixel asks in the search for its steps, and what follows from the answers.

Lanes (`gamma_lanes`) of pixels that changed, from wherever they come: each has one segment looked at in a round.
"""

import math

import numpy as np
from numba import njit

from geoalign.kernels.gamma_lanes import (
    COMMON,
    LANE,
    LOGS,
    MASS,
    SUMS,
    WEIGHTS,
    Z,
    chances,
    fill_odds,
    fill_uniform,
    interval,
    largest,
    padded,
    part_peaks,
    ratios,
    scatter_of,
)

COVER = 0.95
"""Posterior chance of the dates between which a change is said to lie."""
TINY = 1e-200
MARGIN = 0.9999
"""Share of a limit from which on the answer of `part_peaks`, which is rounded otherwise, is not taken for the last."""
SEARCH, AGAIN, TELL, FREE = range(4)
"""What a lane waits for: parts still to be searched; each date again between its neighbours; its evidence; a pixel."""
PIXEL, N, PHASE, COUNT, AT, WHICH = range(6)
"""Rows of `state`: the pixel, its dates, what it waits for, changes found, which of them or of the parts is next, and
which is least needed so far."""
LEAST, SINGLE, SEVERAL, TOP = range(4)
"""Rows of `seen`: how much the least needed stands out, evidence of one step and of several, largest z told so far."""


@njit(nogil=True, cache=True)
def chance_of(ln_odds):
    return 1 / (1 + math.exp(-ln_odds)) if ln_odds > -700 else 0.0


@njit(nogil=True, cache=True)
def tell(sums, k, dates, low, at, high, first, last, chance, i, strongest, p, whole, sizes, direction):
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
def ask(
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
            tell(
                sums, k, dates, low[k], found[place, k], low[k] + n[k], first, last, chance_of(ln_factor[k] + ln_prior),
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
            sizes[1, p] = chance_of(both + ln_prior)
        _next(state, seen, found, k)
        busy += state[PHASE, k] != FREE
    return busy


@njit(nogil=True, cache=True)
def enter(
    sums, k, n, dates, plain, looks, weighted, uneven, p, at, single, held, held_dates, held_looks, held_weighted,
    held_plain, state, seen, found, spot,
):  # fmt: skip
    """Puts lane k of `sums`, pixel p of n dates that changed at `at`, into a free lane; returns whether it has to ask.

    plain : whether the dates of k and their weights are those of a full series, held_plain : and those of the lanes,
    which are not copied then; single : evidence of one step; spot : (1,) where to begin looking for a free lane
    """
    free = spot[0]
    while state[PHASE, free] != FREE:
        free = (free + 1) % LANE
    spot[0] = free
    known = plain and held_plain[free]
    for row in range(4):
        if row == SUMS or (uneven and row == LOGS) or (not known and (uneven or row < LOGS)):
            held[row, :, : n + 1, free] = sums[row, :, : n + 1, k]
    if not known:
        held_dates[:, free] = dates[:, k]
    held_plain[free] = plain
    held_looks[:, free] = looks[:, k]
    held_weighted[free] = weighted
    found[0, free] = at
    state[PIXEL, free], state[N, free], state[PHASE, free] = p, n, SEARCH
    state[COUNT, free], state[AT, free] = 1, 0
    seen[SINGLE, free] = single
    seen[SEVERAL, free] = 0.0
    seen[TOP, free] = -1.0
    _next(state, seen, found, free)
    return state[PHASE, free] != FREE


@njit(nogil=True, cache=True)
def gather_changed(sums, lanes, first, count, kept, start, uneven):
    """Copies the lanes lanes[first : first + count] to those from `start` on: a date of them after the other."""
    for row in (SUMS, LOGS):
        if row == LOGS and not uneven:
            continue
        for b in range(sums.shape[1]):
            for t in range(1, sums.shape[2]):
                for i in range(count):
                    kept[row, b, t, start + i] = sums[row, b, t, lanes[first + i]]


@njit(nogil=True, cache=True)
def may_have_more(kept, at, count, looks, limits, d0, least_wider, tables, work, out, best):
    """Whether either part of each of `count` lanes may hold a further change, (LANE,) bool; exact but for MARGIN.

    kept : running sums of full series that change at `at`, as `part_peaks` takes them; least_wider : (time + 1,) the
    least by which correlation of dates widens a step of a segment of so many dates; best : (4, LANE) float32. Where
    looks are uneven z grows as -ln(1 - z / (d0 + scatter)), which the largest bounds.
    """
    n_band, n = kept.shape[1], kept.shape[2] - 1
    part_peaks(kept, at, n, looks, tables, work, out, best)
    more = np.zeros(LANE, np.bool_)
    for k in range(count):
        for part in range(2):
            low, size = (0, at[k]) if part == 0 else (at[k], n - at[k])
            if size < 2:
                continue
            scale = 1 / least_wider[size]
            if not math.isinf(d0) and best[2 * part, k] > 0:
                whole = d0 + scatter_of(kept, low, size, k, looks)
                share = min(best[2 * part, k] / whole, 0.999999)
                grown = -(d0 + n_band * (size - 1) - 0.5 * n_band - 1) * math.log1p(-share)
                scale *= grown / best[2 * part, k]
            for row in range(2):
                more[k] |= scale * best[2 * part + row, k] > MARGIN * limits[row, size]
    return more


@njit(nogil=True, cache=True)
def settle(
    kept, kept_dates, at, pixel, single, looks, count, limits, d0, least_wider, tables, work, out, best, spot, busy,
    held_plain, rounds,
):  # fmt: skip
    """Lets those of `count` lanes that may change again take their turn; rounds : what `ask` takes. Returns `busy`."""
    more = may_have_more(kept, at, count, looks, limits, d0, least_wider, tables, work, out, best)
    held, held_dates, held_looks, held_weighted, state, seen, found = rounds[:7]
    for k in range(count):
        if more[k]:
            while busy == LANE:
                busy = ask(*rounds)
            busy += enter(
                kept, k, kept.shape[2] - 1, kept_dates, True, looks, False, not math.isinf(d0), pixel[k], at[k],
                single[k], held, held_dates, held_looks, held_weighted, held_plain, state, seen, found, spot,
            )  # fmt: skip
    return busy
