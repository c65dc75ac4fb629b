"""The two charts of `watch`: evidence for a step in one direction, and, once it is confirmed, for its return.

Written as loops over few arrays each, which vectorise; all arrays are (n_pixel,) and changed in place.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAR = np.float32(4.0)
"""Errors are cut here (sd)."""

MOST = np.float32(3.0)
"""One observation adds so many nats at most, and takes as many away: a lone outlier confirms nothing."""

FIRST_SIZE = np.float32(2.5)
"""Step that a fresh start expects, in sd; it counts as one observation of it."""

SMALLEST = np.float32(1.0)
"""Steps are never taken for smaller (sd): a drift of the model is no step."""

NORMAL = np.float32(0.5)
"""An observation no further off than this (sd) looked normal."""

PLAIN = np.float32(3.5)
"""Nats above the cost of its start at which a step is plain."""

GONE = np.float32(8.0)
"""Nats by which "back to normal" must be better than "still changed"."""


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def clip(value, low, high):
    """value, at least low and at most high; `min` and `max` of numba see to NaN and keep a loop from vectorising."""
    value = value if value > low else low
    return value if value < high else high


@njit(nogil=True, cache=True, error_model="numpy")
def chart(side, own, cost, number, bound, on, e, sd, v, white, state, evidence, size, n_since, since, after, by, top,
          old, goes, expected, gain):  # fmt: skip
    """One scene for one direction.

    side : -1 drops, +1 rises; own : this direction's outcome; cost : log weight of a start now; number : of the scene
    on : observed; e, sd, v : error, its sd, the whitened standardised error; white : what whitening leaves of a step
    state : outcome so far. evidence ... by : this direction's part of the state, see `watch.fold`
    top : raised to the largest evidence; old, goes, expected, gain : room to work in
    """
    n = e.size
    one, zero = np.float32(1.0), np.float32(0.0)
    none = np.uint16(65535)
    for i in range(n):
        old[i] = side * size[i] / sd[i] * white[i]
    for i in range(n):
        m = np.float32(n_since[i])
        expected[i] = clip((old[i] * m + FIRST_SIZE) / (m + one), SMALLEST, FAR)
    for i in range(n):
        # still going on? what began with one observation too small for the step that the next one shows, begins anew
        m = n_since[i]
        z = side * v[i]
        next_size = (old[i] + (z if z < FAR else FAR) + FIRST_SIZE) / np.float32(3.0)
        late = (m == 1) & (z > old[i]) & (old[i] < np.float32(0.5) * next_size)
        goes[i] = one if ((evidence[i] > cost) & (not late)) | (state[i] == own) else zero
    for i in range(n):
        d = expected[i] if goes[i] > 0 else FIRST_SIZE
        z = clip(side * v[i], -FAR, FAR)
        gain[i] = clip(d * z - np.float32(0.5) * d * d, -MOST, MOST)
    for i in range(n):
        # decided pixels keep the largest evidence: what passed was there all the same
        base = evidence[i] if goes[i] > 0 else cost
        raised = base + gain[i]
        raised = clip(raised, base, np.float32(60.0)) if state[i] == own else raised
        gain[i] = raised if on[i] & ((state[i] == 0) | (state[i] == own)) else evidence[i]
    for i in range(n):
        evidence[i] = gain[i]
    for i in range(n):
        top[i] = evidence[i] if evidence[i] > top[i] else top[i]
    for i in range(n):
        # 2: a fresh start, 1: it goes on, 0: nothing to do
        live = on[i] & ((state[i] == 0) | (state[i] == own))
        goes[i] = (one if goes[i] > 0 else np.float32(2.0)) if live else zero
    for i in range(n):
        m = n_since[i]
        m = m + np.uint16(1) if m < 65000 else m
        n_since[i] = np.uint16(1) if goes[i] == 2 else m if goes[i] == 1 else n_since[i]
    for i in range(n):
        away = e[i] - size[i]
        most = np.float32(3.0) * sd[i]
        away = clip(away, -most, most) if n_since[i] > 3 else away
        m = np.float32(n_since[i] if n_since[i] > 1 else 1)
        size[i] = e[i] if goes[i] == 2 else size[i] + away / m if goes[i] == 1 else size[i]
    for i in range(n):
        after[i] = number if (goes[i] == 2) & (side * v[i] < NORMAL) else after[i]
    for i in range(n):
        since[i] = number if goes[i] == 2 else since[i]
    for i in range(n):
        by[i] = none if goes[i] == 2 else by[i]
    for i in range(n):
        plain = (goes[i] == 1) & (by[i] == none) & (evidence[i] - cost >= PLAIN)
        by[i] = number if plain else by[i]


@njit(nogil=True, cache=True, error_model="numpy")
def returned(side, own, number, on, sd, v, white, state, size, evidence, n_since, since, over, confirmed):
    """One scene of watching for the return of a step that is confirmed in this direction.

    evidence, n_since, since : the other direction's place in the state
    over : number of the first scene back, where it is over
    """
    for i in range(state.size):
        live = on[i] and state[i] == own and confirmed[i] != number
        if live:
            d = clip(side * size[i] / sd[i] * white[i], SMALLEST, FAR)
            z = clip(side * v[i], -FAR, FAR)
            gain = clip(np.float32(0.5) * d * d - d * z, -MOST, MOST)
            fresh = evidence[i] <= 0
            if fresh:
                since[i] = number
                n_since[i] = np.uint16(0)
                evidence[i] = np.float32(0.0)
            evidence[i] = max(evidence[i] + gain, np.float32(0.0))
            n_since[i] += np.uint16(1)
            if evidence[i] > GONE and n_since[i] >= 3:
                state[i] = own + np.uint8(2)
                over[i] = since[i]
