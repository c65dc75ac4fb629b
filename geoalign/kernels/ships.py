"""From single bright cells to ships: their outline, what is too small or too large, what stays for months."""

import math

import numpy as np
from numba import njit
from scipy.ndimage import binary_closing, label

from geoalign.kernels.cfar import box_sums, whole_numbers

LEVEL_PX = 20
"""Half side, at most, of the window whose passing cells say how bright a target is."""
OUTLINE_RATIO = 0.3
"""A target's cells have at least that share of it: a good half of the amplitude."""
SLIMMEST = 12
"""Squared side of the box around a target, in its cells, beyond which it is a streak: a side lobe, interference."""
AROUND_PX = 15
GAP_PX = 3
"""What lies between these distances around a target says how much of a target it must be."""
CROWDED = 0.15
"""Share of bright ground around, above which a target must be larger than the minimum."""
CROWD_START, CROWD_CELLS = 12, 300
"""Cells that it needs then, and how many more for each unit of that share."""
LN_STAY, LN_AWAY = math.log(0.8 / 0.05), math.log(0.2 / 0.95)
"""ln likelihood ratios of a fixed object: seen in 80 % of the passes, where ships are in 5 %."""


def targets(ratio, hit, weak, bright, *, n_min, max_px, level_px=LEVEL_PX):
    """Which cells belong to ships, (row, col) bool.

    ratio : cells in means of their background; hit, weak : from `cfar.cells_of`; bright : from `cfar.ground`
    n_min : cells; max_px : longest side of the box around a ship; level_px : reach of a bright ship's side lobes

    A target is what hangs together (corners count, gaps of two cells are closed) of weak cells that are not much
    darker than the passing ones around, and holds a passing one. In the side lobes and ghosts of a bright
    ship, that leaves the ship. Among other bright things, as in harbours and towns, only large targets count.
    """
    cells = np.maximum(whole_numbers(ratio, 1.0, 1.0), 0)
    level = box_sums(np.where(hit, cells, 0), level_px) / np.maximum(box_sums(hit.astype(np.int64), level_px), 1)
    core = weak & (cells >= OUTLINE_RATIO * level)
    closed = binary_closing(np.pad(core, 2), np.ones((3, 3)))[2:-2, 2:-2]
    number, n = label(closed, np.ones((3, 3)))
    if n == 0:
        return np.zeros(ratio.shape, bool)
    box, count, passed = _boxes(number, n, hit)
    good = _accepted(number, box, count, passed, bright, n_min, max_px)
    return good[number]


@njit(nogil=True, cache=True)
def _boxes(number, n, hit):
    box = np.empty((n + 1, 4), np.int64)
    box[:, :2] = 2**31
    box[:, 2:] = -1
    count = np.zeros(n + 1, np.int64)
    passed = np.zeros(n + 1, np.int64)
    for r in range(number.shape[0]):
        for c in range(number.shape[1]):
            k = number[r, c]
            if k > 0:
                box[k, 0] = min(box[k, 0], r)
                box[k, 1] = min(box[k, 1], c)
                box[k, 2] = max(box[k, 2], r + 1)
                box[k, 3] = max(box[k, 3], c + 1)
                count[k] += 1
                passed[k] += hit[r, c]
    return box, count, passed


@njit(nogil=True, cache=True)
def _accepted(number, box, count, passed, bright, n_min, max_px):
    good = np.zeros(count.size, np.bool_)
    for k in range(1, count.size):
        high, wide = box[k, 2] - box[k, 0], box[k, 3] - box[k, 1]
        side = max(high, wide)
        if passed[k] == 0 or count[k] < n_min or side > max_px or side * side > SLIMMEST * count[k]:
            continue
        share = _surrounded(number, k, box[k], bright)
        good[k] = share <= CROWDED or count[k] >= CROWD_START + CROWD_CELLS * (share - CROWDED)
    return good


@njit(nogil=True, cache=True)
def _surrounded(number, k, box, bright):
    """Share of bright ground from GAP_PX to AROUND_PX around target k, in steps along rows and columns."""
    a, b = max(0, box[0] - AROUND_PX), max(0, box[1] - AROUND_PX)
    c, d = min(number.shape[0], box[2] + AROUND_PX), min(number.shape[1], box[3] + AROUND_PX)
    steps = np.full((c - a, d - b), np.int32(2**30), np.int32)
    for r in range(c - a):
        for q in range(d - b):
            if number[a + r, b + q] == k:
                steps[r, q] = 0
            if r > 0:
                steps[r, q] = min(steps[r, q], steps[r - 1, q] + 1)
            if q > 0:
                steps[r, q] = min(steps[r, q], steps[r, q - 1] + 1)
    n = n_bright = 0
    for r in range(c - a - 1, -1, -1):
        for q in range(d - b - 1, -1, -1):
            if r + 1 < c - a:
                steps[r, q] = min(steps[r, q], steps[r + 1, q] + 1)
            if q + 1 < d - b:
                steps[r, q] = min(steps[r, q], steps[r, q + 1] + 1)
            if GAP_PX < steps[r, q] <= AROUND_PX:
                n += 1
                n_bright += bright[a + r, b + q]
    return n_bright / max(n, 1)


@njit(nogil=True, cache=True)
def presence(ship, seen, near, days, ln_ratio, ln_prior, least_days, least_seen):
    """What a pixel's series of detections says.

    ship, seen, near : (n_pixel, n_time) bool: a ship here, an observation here, a ship within the tolerance
    days : (n_time,); ln_ratio : (n_pixel, n_time) float32, ln of how much likelier a ship is than sea, NaN = not seen
    ln_prior : ln odds that a ship is here at some date; least_days, least_seen : of a fixed object

    Returns n_obs, n_seen, first (date of the first detection, or of the fixed object, -1 none), before (the last
    observation before it, -1 none), end (first observation after the last detection, -1 none), fixed, probability.
    A fixed object is the run of passes, of at least half with a detection near, that scores most (Kadane's maximal
    sum) with LN_STAY for a pass with one and LN_AWAY for one without.
    """
    n_pixel, n_time = ship.shape
    n_obs = np.zeros(n_pixel, np.int32)
    n_seen = np.zeros(n_pixel, np.int32)
    first = np.full(n_pixel, -1, np.int32)
    before = np.full(n_pixel, -1, np.int32)
    end = np.full(n_pixel, -1, np.int32)
    fixed = np.zeros(n_pixel, np.bool_)
    probability = np.full(n_pixel, np.nan, np.float32)
    for p in range(n_pixel):
        odds = 0.0
        run = best = 0.0
        start = begin = stop = -1
        last = -1
        for t in range(n_time):
            if not seen[p, t]:
                continue
            n_obs[p] += 1
            if not math.isnan(ln_ratio[p, t]):
                odds += math.exp(min(ln_ratio[p, t], 60.0))
            if ship[p, t]:
                n_seen[p] += 1
                last = t
                if first[p] < 0:
                    first[p] = t
            run += LN_STAY if near[p, t] else LN_AWAY
            if run <= 0:
                run = 0.0
                start = -1
            elif start < 0:
                start = t
            if run > best:
                best = run
                begin, stop = start, t
        if n_obs[p] == 0:
            continue
        if n_seen[p] > 0 and begin >= 0 and days[stop] - days[begin] >= least_days:
            inside = passes = own = 0
            for t in range(begin, stop + 1):
                if seen[p, t]:
                    passes += 1
                    inside += near[p, t]
                    own += ship[p, t]
            if inside >= least_seen and 2 * inside >= passes and own > 0:
                fixed[p] = True
                first[p] = begin
                last = stop
        if first[p] >= 0:
            for t in range(first[p]):
                if seen[p, t]:
                    before[p] = t
            for t in range(n_time - 1, last, -1):
                if seen[p, t]:
                    end[p] = t
        ln_odds = ln_prior + math.log(max(odds / n_obs[p], 1e-300))
        probability[p] = 1 / (1 + math.exp(-ln_odds))
    return n_obs, n_seen, first, before, end, fixed, probability


def shape_of(rows, cols, weight):
    """(row, col, length, width, angle) of a target: centre of its cells, sides of the least rectangle around them, px.

    weight : brightness, for the centre; angle : of the long side, degrees from the row axis towards the columns, 0 to
    180. The rectangle is the one of least area at whole degrees that encloses the cells' corners.
    """
    total = weight.sum()
    row, col = (rows * weight).sum() / total, (cols * weight).sum() / total
    turn = np.deg2rad(np.arange(90.0))
    along = np.cos(turn)[:, None] * rows + np.sin(turn)[:, None] * cols
    across = -np.sin(turn)[:, None] * rows + np.cos(turn)[:, None] * cols
    cell = np.cos(turn) + np.sin(turn)
    one = np.ptp(along, axis=1) + cell
    other = np.ptp(across, axis=1) + cell
    k = int(np.argmin(one * other))
    angle = k if one[k] >= other[k] else k + 90
    return row, col, max(one[k], other[k]), min(one[k], other[k]), float(angle)
