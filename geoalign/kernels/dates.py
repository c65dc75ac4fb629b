"""Dates as numbers: scene numbers to nanoseconds, nanoseconds to days. One pass each."""

from __future__ import annotations

import numpy as np
from numba import njit

NO_TIME = np.int64(-(2**63))
"""Stands for a time that is not known, as NaT does."""

_DAY = 86_400_000_000_000


@njit(nogil=True, cache=True)
def times_of(numbers, stamps):
    """Times of scene numbers.

    numbers : (n,) integer; stamps : (n_scene,) int64 nanoseconds
    Returns (n,) int64, NO_TIME for numbers outside 0 to n_scene - 1.
    """
    out = np.empty(numbers.size, np.int64)
    for i in range(numbers.size):
        k = numbers[i]
        out[i] = stamps[k] if (k >= 0) & (k < stamps.size) else NO_TIME
    return out


@njit(nogil=True, cache=True)
def day_numbers(times, none):
    """Days since 1970-01-01 of times in nanoseconds since then.

    times : (n,) int64, NO_TIME = not known; none : what stands for it
    Returns (n,) int32.
    """
    out = np.empty(times.size, np.int32)
    for i in range(times.size):
        t = times[i]
        out[i] = none if t == NO_TIME else t // _DAY
    return out
