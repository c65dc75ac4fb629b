"""Open water in one SAR image: classes learnt where both water and land are, evidence smoothed, water near water."""

import math

import numpy as np
from numba import njit

DB_LOW, DB_STEP, DB_BINS = -45.0, 0.25, 240
"""Fixed histogram of smoothed dB."""
CENTRES = DB_LOW + DB_STEP * (np.arange(DB_BINS) + 0.5)
SMOOTH_PX, SPREAD_PX = 1.0, 1.5
"""Standard deviations of the smoothing of dB before classes are told, and of the evidence after."""
EVIDENCE = 3.0
"""Largest |ln likelihood ratio| that one band of one neighbourhood may add."""
AROUND_PX, GATHER, NEUTRAL = 15, 1.5, 0.27
"""Reach (standard deviation) of the surroundings whose share of water is the local prior, its weight, and the share
that speaks neither way."""
ROUNDS = 2
HUMP_BINS, HUMP_DB, HUMP_LEAST, HUMP_VALLEY = 5, 2.0, 60, 0.5
"""Bins over which a histogram is smoothed before its humps are looked for, their reach (dB), the least number of pixels
in one, and how much of its height the valley beside it may have."""
RARE = 0.05
"""Share of water below which the classes are fitted to the tiles that hold it, and not to the whole scene."""


@njit(nogil=True, cache=True)
def gauss(image, sigma):
    """Gaussian mean of what is observed, cut at 2.5 sd; separable, summed directly. NaN stays NaN."""
    n_row, n_col = image.shape
    radius = int(math.ceil(2.5 * sigma))
    weight = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    value = np.zeros(image.shape)
    mass = np.zeros(image.shape)
    for r in range(n_row):
        for k in range(max(-radius, -r), min(radius, n_row - 1 - r) + 1):
            w = weight[k + radius]
            for c in range(n_col):
                near = image[r + k, c]
                if not math.isnan(near):
                    value[r, c] += w * near
                    mass[r, c] += w
    out = np.full(image.shape, np.nan)
    for r in range(n_row):
        for c in range(n_col):
            if math.isnan(image[r, c]):
                continue
            total = 0.0
            norm = 0.0
            for k in range(max(-radius, -c), min(radius, n_col - 1 - c) + 1):
                total += weight[k + radius] * value[r, c + k]
                norm += weight[k + radius] * mass[r, c + k]
            out[r, c] = total / norm
    return out


@njit(nogil=True, cache=True)
def decibel(image):
    """10 log10 of what is above 0, NaN elsewhere; (row, col) float64."""
    out = np.full(image.shape, np.nan)
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            if image[r, c] > 0 and not math.isinf(image[r, c]):
                out[r, c] = 10 * math.log10(image[r, c])
    return out


@njit(nogil=True, cache=True)
def level_histogram(series):
    """Counts of smoothed dB, (band, time, DB_BINS); series (band, time, row, col) power."""
    n_band, n_time, n_row, n_col = series.shape
    out = np.zeros((n_band, n_time, DB_BINS))
    for b in range(n_band):
        for t in range(n_time):
            level = gauss(decibel(series[b, t]), SMOOTH_PX)
            for r in range(n_row):
                for c in range(n_col):
                    if not math.isnan(level[r, c]):
                        place = int((level[r, c] - DB_LOW) / DB_STEP)
                        out[b, t, min(max(place, 0), DB_BINS - 1)] += 1
    return out


def split(counts):
    """Kittler-Illingworth threshold of a histogram: (share, mean, sd) of the dark side and of the bright one.

    Six numbers, or None where it has no interior minimum.
    """
    h = counts / max(counts.sum(), 1.0)
    p, m, q = np.cumsum(h), np.cumsum(h * CENTRES), np.cumsum(h * CENTRES**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        m1, m2 = m / p, (m[-1] - m) / (1 - p)
        v1, v2 = q / p - m1**2, (q[-1] - q) / (1 - p) - m2**2
        cost = p * np.log(v1) + (1 - p) * np.log(v2) - 2 * p * np.log(p) - 2 * (1 - p) * np.log(1 - p)
    inside = (p > 0.02) & (p < 0.98) & (v1 > 0.05) & (v2 > 0.05) & np.isfinite(cost)
    if not inside.any():
        return None
    places = np.flatnonzero(inside)
    at = places[np.argmin(cost[places])]
    if at in (places[0], places[-1]):
        return None
    return p[at], m1[at], np.sqrt(v1[at]), 1 - p[at], m2[at], np.sqrt(v2[at])


def two_sided_enough(parts):
    """Whether a split is that of two surfaces: Ashman's D, the share of variance between, and the smaller share."""
    share1, m1, s1, share2, m2, s2 = parts
    between = share1 * share2 * (m2 - m1) ** 2
    variance = between + share1 * s1**2 + share2 * s2**2
    apart = math.sqrt(2) * (m2 - m1) / math.hypot(s1, s2)
    return apart > 2 and between > 0.6 * variance and min(share1, share2) > 0.1


def settled(counts, bounds, kind):
    """`classes` made ready to be held against each other date by date; (5,) as there.

    Where no tile taught water, a hump of its own in the histogram of a date does: a lake that fills no tile. Land is
    the middle and the spread of all that is brighter than where the two part: a third of a scene may have been drawn
    into its class that is not the usual ground, as windy water and wet fields; the median and the median deviation
    don't follow that, nor towns.
    """
    if kind[4] == 0:
        found = [hump for hump in (_hump(row, bounds[1], kind[2]) for row in counts.sum(axis=0)) if hump is not None]
        if found:
            kind = np.array([*min(found), kind[2], kind[3], 1.0])
    edge = _crossing(*kind[:4])
    total = counts.sum(axis=(0, 1)) * (edge < CENTRES)
    if not total.any():
        return kind
    middle = _median(CENTRES, total)
    spread = 1.4826 * _median(np.abs(CENTRES - middle), total)
    return np.array([kind[0], kind[1], max(middle, kind[0] + 3.0), max(spread, 0.7), kind[4]])


def _hump(counts, highest, land):
    """Mean and sd (dB) of the darkest hump of the histogram, below `highest` and 4 dB below land; None without one."""
    h = np.convolve(counts, np.ones(HUMP_BINS), "same") / HUMP_BINS
    top = 0
    end = min(highest, land - 4.0)
    for at in np.flatnonzero(end > CENTRES):
        if h[at] > h[top]:
            top = at
        elif h[at] < HUMP_VALLEY * h[top]:
            near = np.abs(CENTRES - CENTRES[top]) <= HUMP_DB
            mass = counts[near].sum()
            if mass >= HUMP_LEAST:
                mean = (counts * CENTRES)[near].sum() / mass
                return mean, max(math.sqrt((counts * (CENTRES - mean) ** 2)[near].sum() / mass), 0.7)
    return None


def _median(values, weight):
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    return values[order][np.searchsorted(total, 0.5 * total[-1])]


def classes(counts, bounds, fallback, reach=0.0):
    """Water and land in one band from the histograms of tiles: mean and sd of both, and whether that was learnt.

    counts : (tile, time, DB_BINS) histograms of tiles
    bounds : (low, high) dB between which water and land may part
    fallback : (mean, sd) of water that is taken where no tile holds both
    reach : standard deviations of water within which the mean of land may not lie: water is even, and a dark class
        that reaches so far is land's own tail, as wet fields

    Only tiles whose histogram has two sides (`two_sided_enough`) speak. Three normal classes, the third for what is
    brighter than usual ground (towns, double bounce), are fitted to all of them together by EM, from the medians of
    the tiles' splits. Returns (5,): water mean, sd, land mean, sd, 1 learnt or 0.
    """
    total = counts.sum(axis=(0, 1))
    parts = [(k, t, split(row)) for k, tile in enumerate(counts) for t, row in enumerate(tile) if row.any()]
    good = [(k, t, s) for k, t, s in parts if s is not None and two_sided_enough(s) and s[1] < bounds[1]]
    if good:
        # wind roughens water: of several dates those count on which it is darkest
        dates = sorted({t for _, t, _ in good})
        dark = {t: np.median([s[1] for _, u, s in good if u == t]) for t in dates}
        calm = [t for t in dates if dark[t] <= np.median(list(dark.values()))]
        good = [(k, t, s) for k, t, s in good if t in calm]
        median = np.median([s for _, _, s in good], axis=0)
        h = counts[:, calm].sum(axis=(0, 1))
        if h[0.5 * (median[1] + median[4]) > CENTRES].sum() < RARE * h.sum():
            h = np.sum([counts[k, t] for k, t, _ in good], axis=0)
        mean = np.array([median[1], median[4], median[4] + 5])
        found = _mixture(h / h.sum(), mean, np.array([median[2], 2.0, 3.0]))
        edge = _crossing(*found)
        apart = found[2] - found[0] > max(3.0, reach * found[1])
        if apart and bounds[0] <= edge <= bounds[1]:
            return np.array([*found, 1.0])
    # no water to learn from: the usual ground as it lies around its mode, water as known
    smooth = np.convolve(total, np.ones(5), "same")
    mode = CENTRES[int(np.argmax(smooth))] if total.any() else bounds[1] + 4
    mode = max(mode, fallback[0] + 4)
    return np.array([*fallback, mode, 2.5, 0.0])


def _mixture(h, mean, sd, n_round=60):
    """Means and sds of the first two of three classes, by EM on a histogram that sums to 1."""
    share = np.full(3, 1 / 3)
    for _ in range(n_round):
        density = share[:, None] * np.exp(-0.5 * ((CENTRES - mean[:, None]) / sd[:, None]) ** 2) / sd[:, None]
        part = density / (density.sum(axis=0) + 1e-300) * h
        share = np.maximum(part.sum(axis=1), 1e-9)
        mean = (part * CENTRES).sum(axis=1) / share
        sd = np.sqrt(np.maximum((part * (CENTRES - mean[:, None]) ** 2).sum(axis=1) / share, 0.5))
    order = np.argsort(mean[:2])
    return mean[order[0]], sd[order[0]], mean[order[1]], sd[order[1]]


def _crossing(water, water_sd, land, land_sd):
    """dB between the two means where they are equally likely."""
    at = np.linspace(water, land, 400)
    gain = 0.5 * ((at - land) / land_sd) ** 2 - 0.5 * ((at - water) / water_sd) ** 2 + np.log(land_sd / water_sd)
    return float(at[int(np.argmin(np.abs(gain)))])


@njit(nogil=True, cache=True)
def evidence(level, kind):
    """ln likelihood ratio of water against land at a level (dB), cut at EVIDENCE; kind (5,) as from `classes`.

    Beyond the means a level counts as at the mean: darker than water is water, brighter than land is land. NaN is 0.
    """
    if math.isnan(level):
        return 0.0
    at = min(max(level, kind[0]), kind[2])
    gain = 0.5 * ((at - kind[2]) / kind[3]) ** 2 - 0.5 * ((at - kind[0]) / kind[1]) ** 2
    return min(max(gain + math.log(kind[3] / kind[1]), -EVIDENCE), EVIDENCE)


@njit(nogil=True, cache=True)
def water_field(power, kinds):
    """Where one image shows water, as ln odds (row, col) float32, NaN not observed.

    power : (band, row, col); kinds : (band, 5) classes of each band
    The bands' evidence from smoothed dB is added up and averaged over the neighbourhood; then regions grow: the share
    of water in the surroundings is each pixel's prior, found by turns.
    Depth of the window: 3 + 4 + ROUNDS * 38 px.
    """
    n_band, n_row, n_col = power.shape
    total = np.zeros((n_row, n_col))
    for b in range(n_band):
        level = gauss(decibel(power[b]), SMOOTH_PX)
        for r in range(n_row):
            for c in range(n_col):
                total[r, c] += evidence(level[r, c], kinds[b]) if not math.isnan(level[r, c]) else np.nan
    own = gauss(total, SPREAD_PX)
    odds = own.copy()
    share = np.empty(own.shape)
    neutral = math.log((NEUTRAL + 0.02) / (1.02 - NEUTRAL))
    for _ in range(ROUNDS):
        for r in range(n_row):
            for c in range(n_col):
                share[r, c] = 1 / (1 + math.exp(-2 * odds[r, c])) if not math.isnan(odds[r, c]) else np.nan
        around = gauss(share, AROUND_PX)
        for r in range(n_row):
            for c in range(n_col):
                prior = math.log((around[r, c] + 0.02) / (1.02 - around[r, c]))
                odds[r, c] = own[r, c] + GATHER * (prior - neutral)
    return odds.astype(np.float32)


DEPTH_PX = 3 + 4 + ROUNDS * 38
