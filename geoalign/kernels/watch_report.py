"""What the state of a watch says about every pixel: status, dates, size and probability."""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.watch_charts import MOST

PROVISIONAL_NATS = 4.5
"""Evidence above the cost of a start from which two observations or more make a provisional change."""

SUSPECT_NATS, LIKELY_NATS = np.float32(2.9), np.float32(4.4)
"""Evidence above the cost of a start below which a pixel is not `first`, and not `provisional`: a little less than
`verdict` asks for, which counts in other digits."""

NEIGHBOURS = 1.5
"""Starts that explain a step about as well as the best one."""


@njit(nogil=True, cache=True)
def verdict(evidence, size, n_since, since, after, by, outcome, confirmed, over, freedom, n_obs, n_watched, last, cost,
            first, prior):  # fmt: skip
    """Answer for every pixel, from the state of `watch.fold`.

    cost : (n_known,) float32, log weight of a start at each scene (history: as the first); first : the first watched
    prior : chance that a pixel changes

    Returns status (n_pixel,) uint8 as in Changes (255: not observable), date, after, by, confirmed, over (n_pixel,)
    int32 scene numbers, -1 for none; magnitude, probability float32; direction int8.
    """
    n = outcome.size
    status = np.zeros(n, np.uint8)
    dates = np.full((5, n), -1, np.int32)
    magnitude = np.full(n, np.nan, np.float32)
    probability = np.full(n, np.nan, np.float32)
    direction = np.zeros(n, np.int8)
    now = cost[cost.size - 1]
    for i in range(n):
        if freedom[i] == 0 or n_watched[i] == 0:
            status[i] = 255
            continue
        total = 0.0
        for d in range(2):
            if outcome[i] == 0 or (outcome[i] - 1) % 2 == d:
                total += np.exp(min(float(evidence[d, i]) - cost[since[d, i]], 60.0))
        odds = NEIGHBOURS * 0.5 * total / n_watched[i] * prior / (1.0 - prior)
        probability[i] = odds / (1.0 + odds)
        if outcome[i] > 0:
            d = (outcome[i] - 1) % 2
            status[i] = 3 if outcome[i] <= 2 else 4
            dates[3, i] = confirmed[i]
            dates[4, i] = over[i] if outcome[i] > 2 else -1
        else:
            d = 0 if evidence[0, i] > evidence[1, i] else 1
            above = evidence[d, i] - now
            if n_since[d, i] >= 2 and above >= PROVISIONAL_NATS:
                status[i] = 2
            elif n_since[d, i] == 1 and since[d, i] == last[i] and above >= 0.99 * MOST:
                status[i] = 1
            else:
                continue
        dates[0, i] = since[d, i]
        dates[1, i] = after[d, i]
        dates[2, i] = by[d, i] if by[d, i] < cost.size else confirmed[i] if outcome[i] > 0 else last[i]
        magnitude[i] = size[d, i]
        direction[i] = 2 * d - 1
    return status, dates[0], dates[1], dates[2], dates[3], dates[4], magnitude, probability, direction


@njit(nogil=True, cache=True, error_model="numpy")
def suspects(evidence, n_since, outcome, cost):
    """Pixels of which `verdict` may say status 1 to 4, and few others, in one pass.

    evidence, n_since, outcome : as in `watch.fold`; cost : float32, of a start at the last scene
    Returns (n_pixel,) bool.
    """
    n = outcome.size
    out = np.empty(n, np.bool_)
    drop, rise = evidence[0], evidence[1]
    drops, rises = n_since[0], n_since[1]
    for i in range(n):
        above = (drop[i] if drop[i] > rise[i] else rise[i]) - cost
        once = (drops[i] == 1) | (rises[i] == 1)
        out[i] = (above >= LIKELY_NATS) | ((above >= SUSPECT_NATS) & once) | (outcome[i] > 0)
    return out
