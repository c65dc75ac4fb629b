"""Constant false alarm rate on gamma and K clutter: thresholds, background means over rings, the looks of a sea."""

from functools import lru_cache

import numpy as np
from numba import njit
from scipy.ndimage import binary_dilation, distance_transform_edt, minimum_filter
from scipy.special import gammainc, gammaincc, gammaln
from scipy.stats import f
from scipy.stats import gamma as gamma_law

RING_PX, GUARD_PX = 40, 10
"""Half sides of the background window and of the hole in it."""
DARK_PX, DARK_REACH_PX = 15, 80
"""Half side of the windows whose darkest within reach is what the sea looks like here."""
LAND_PX, LAND_GROW_PX = 17, 20
"""Radius of the disc that must fit into land, and how far land follows its bright ground from there."""
LAND_RATIO = 3.5
"""Brightness, in darkest windows, above which ground is more than sea (means of 5 x 5)."""
GLARE_RATIO = 30.0
"""Darkest windows that one cell counts for at most in them: one or two bright cells, a ship at coarse resolution, don't
make the ground around them bright."""
START_RATIO = 6.0
"""Brightness, in darkest windows, above which a cell takes no part in the first background."""
CENSOR_PFA = 1e-4
"""Cells that clutter reaches so seldom take no part in the second."""
UNEVEN = 0.8
"""Looks of a ring's own cells, in those of the scene, below which the ring is believed: its clutter has texture."""
FEWEST = 0.3
"""Share of the ring that must be water and observed."""
RANGE_DB = 36.0
"""Clutter so far below the brightest thousandth of a scene drowns in side lobes, ghosts and rounding."""
LEVELS = 64
"""Steps of the whole numbers in which sums are taken, in the floor that RANGE_DB gives."""
TOP = 2**24
"""Largest whole number: 54 dB above the floor."""
FEWEST_LOOKS, MOST_LOOKS = 0.2, 200.0
RATIO_LOW, RATIO_STEP, RATIO_BINS = -12.0, 0.005, 4000
"""Fixed histogram of ln (cell / background)."""
VALUE_LOW, VALUE_STEP, VALUE_BINS = -60.0, 0.02, 6000
"""Fixed histogram of ln (cell)."""
FAINTEST_DB, STRONGEST_DB = 3.0, 40.0
"""Contrast of ships that `ln_ship_ratio` assumes: log-uniform in between."""

FIVE_BIN = int((np.log(5.0) - VALUE_LOW) / VALUE_STEP)
"""An 8-bit look has values above five; counts of looks or classes have not."""
_LOOKS = np.exp(np.linspace(np.log(FEWEST_LOOKS), np.log(MOST_LOOKS), 281))
_CELLS = np.array([16.0, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 4096, 1e9])


def factor(pfa, looks, n):
    """Threshold in background means: exceeded by clutter of `looks` looks with chance `pfa`.

    pfa : share; looks : shape of the gamma law; n : independent cells in the background mean
    The ratio of a cell to the mean of n others is F-distributed with 2 looks and 2 n looks degrees of freedom. One look
    gives the classical n (pfa^(-1/n) - 1).
    """
    return f.isf(pfa, 2 * np.asarray(looks, float), 2 * np.asarray(looks, float) * n)


@lru_cache(maxsize=32)
def factor_table(pfa):
    """ln `factor` over (looks, cells) for interpolation, float64: its error is below .1 % of the threshold."""
    return np.log(factor(pfa, _LOOKS[:, None], _CELLS[None, :]))


def k_factor(pfa, looks, order):
    """Threshold in background means on K clutter: gamma speckle of `looks` looks over gamma texture of shape `order`.

    order : (n,) float64; large ones are even clutter. Solves P(I > T) = pfa, the mean over textures of the upper
    incomplete gamma function, by bisection in ln T.
    """
    order = np.atleast_1d(np.asarray(order, float))
    share = (np.arange(400) + 0.5) / 400
    # nodes even in ln texture, from where nothing lies below to where nothing lies above
    low = np.log(np.maximum(gamma_law.ppf(1e-9, order), 1e-12) / order)
    high = np.log(gamma_law.isf(1e-12, order) / order)
    ln_texture = low[:, None] + (high - low)[:, None] * share
    ln_weight = order[:, None] * (ln_texture + np.log(order)[:, None] - np.exp(ln_texture)) - gammaln(order)[:, None]
    weight = np.exp(ln_weight) * ((high - low) / 400)[:, None]
    weight /= weight.sum(axis=1, keepdims=True)
    under, over = np.zeros(order.size), np.full(order.size, np.log(1e6))
    for _ in range(50):
        middle = 0.5 * (under + over)
        tail = (weight * gammaincc(looks, looks * np.exp(middle[:, None] - ln_texture))).sum(axis=1)
        under, over = np.where(tail > pfa, middle, under), np.where(tail > pfa, over, middle)
    return np.exp(0.5 * (under + over))


@lru_cache(maxsize=256)
def k_table(pfa, looks):
    """(ln order grid, ln `k_factor` there)."""
    ln_order = np.linspace(np.log(0.1), np.log(200.0), 61)
    return ln_order, np.log(k_factor(pfa, looks, np.exp(ln_order)))


def scene_histogram(image):
    """Counts of ln (cell), those of zeros first, and whether all are whole numbers up to 255: (VALUE_BINS + 2,)."""
    cells = image[np.isfinite(image)].astype(np.float64)
    up = cells[cells > 0]
    place = np.clip((np.log(up) - VALUE_LOW) / VALUE_STEP, 0, VALUE_BINS - 1).astype(np.int64)
    whole = bool(((cells >= 0) & (cells <= 255) & (cells == np.rint(cells))).all())
    return np.concatenate([[cells.size - up.size], np.bincount(place, minlength=VALUE_BINS), [whole]]).astype(float)


def floor_and_power(parts):
    """(floor of the clutter, power to which values are raised) of a scene, from `scene_histogram` of its blocks.

    Whole numbers from 0 to 255 all over, more than two of them, are an 8-bit look of the amplitude: the power is 2.
    The floor is NaN where nothing above zero was observed.
    """
    total = np.sum(parts, axis=0)
    counts = total[1:-1]
    if counts.sum() == 0:
        return np.array([np.nan, 1.0])
    look = total[-1] == len(parts) and (counts > 0).sum() > 1 and np.flatnonzero(counts).max() > FIVE_BIN
    at = np.searchsorted(np.cumsum(counts) + total[0], 0.999 * (counts.sum() + total[0]))
    top = np.exp(VALUE_LOW + VALUE_STEP * (min(at, VALUE_BINS - 1) + 1))
    power = 2.0 if look else 1.0
    return np.array([top**power * 10 ** (-RANGE_DB / 10), power])


def whole_numbers(image, floor, power):
    """Cells in whole numbers of floor / LEVELS, int64, -1 where there is none; at most TOP."""
    with np.errstate(invalid="ignore", over="ignore"):
        value = np.minimum(np.asarray(image, np.float64) ** power * (LEVELS / floor), TOP)
    return np.where(np.isfinite(image) & (image >= 0) & np.isfinite(value), np.rint(value), -1).astype(np.int64)


@njit(nogil=True, cache=True)
def box_sums(values, radius):
    """Sums over squares of 2 radius + 1 px, cut at the edges; int64 (row, col), exact whatever the sums outside."""
    n_row, n_col = values.shape
    total = np.zeros((n_row + 1, n_col + 1), np.int64)
    for r in range(n_row):
        run = 0
        for c in range(n_col):
            run += values[r, c]
            total[r + 1, c + 1] = total[r, c + 1] + run
    out = np.empty((n_row, n_col), np.int64)
    for r in range(n_row):
        a, b = max(0, r - radius), min(n_row, r + radius + 1)
        for c in range(n_col):
            d, e = max(0, c - radius), min(n_col, c + radius + 1)
            out[r, c] = total[b, e] - total[a, e] - total[b, d] + total[a, d]
    return out


def ring_sums(values):
    """Sums over the background ring around each cell, int64."""
    return box_sums(values, RING_PX) - box_sums(values, GUARD_PX)


def _ring_cells(shape):
    return ring_sums(np.ones(shape, np.int64))


def ground(image, given, floor, power, *, buffer_px):
    """What lies around: land, bright ground, and a first background.

    image : (row, col) power, NaN = not observed; given : land mask (row, col), or None to derive it
    floor, power : from `floor_and_power`; buffer_px : land reaches so much further
    Returns land (bool), bright (bool), mean (float32, NaN where fewer than 30 % of the ring are water), ratio (float32,
    water cells in that mean, NaN where it is below the floor).

    Land is ground 3.5 times as bright as the darkest window near it, that holds a disc of 17 px: wider than ships.
    """
    cells = whole_numbers(image, floor, power)
    seen = cells >= 0
    n = box_sums(seen.astype(np.int64), DARK_PX)
    total = box_sums(np.where(seen, cells, 0), DARK_PX)
    whole = box_sums(np.ones(cells.shape, np.int64), DARK_PX)
    with np.errstate(invalid="ignore", divide="ignore"):
        dark = np.where(n >= FEWEST * whole, total / n, np.inf)
    dark = minimum_filter(dark, 2 * DARK_REACH_PX + 1, mode="nearest")
    dark = np.maximum(dark, LEVELS)
    capped = np.where(seen, np.minimum(cells, np.floor(np.minimum(GLARE_RATIO * dark, TOP))), 0).astype(np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        bright = box_sums(capped, 2) / box_sums(seen.astype(np.int64), 2) > LAND_RATIO * dark
    land = _derived(bright) if given is None else given
    if buffer_px > 0 and land.any():
        land = distance_transform_edt(~land) <= buffer_px
    water = seen & ~land & (cells <= START_RATIO * dark)
    mean = _ring_mean(np.where(water, cells, 0), water)
    with np.errstate(invalid="ignore"):
        ratio = np.where(seen & ~land & (mean > LEVELS), cells / mean, np.nan)
    return land, bright, (mean * (floor / LEVELS)).astype(np.float32), ratio.astype(np.float32)


def _derived(bright):
    pad = LAND_PX + 1
    wide = np.pad(bright, pad, mode="edge")
    if wide.all():
        return bright.copy()
    middle = distance_transform_edt(wide) > LAND_PX
    if not middle.any():
        return np.zeros_like(bright)
    core = (distance_transform_edt(~middle) <= LAND_PX)[pad:-pad, pad:-pad]
    return core | binary_dilation(core & bright, np.ones((3, 3)), mask=bright, iterations=LAND_GROW_PX)


def _ring_mean(values, used):
    n = ring_sums(used.astype(np.int64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n >= FEWEST * _ring_cells(n.shape), ring_sums(values) / n, np.nan)


def ratio_histogram(ratio):
    """Counts of ln (cell / background) of a block, zeros first: (RATIO_BINS + 1,)."""
    ratio = ratio[np.isfinite(ratio)].astype(np.float64)
    up = ratio[ratio > 0]
    place = np.clip((np.log(up) - RATIO_LOW) / RATIO_STEP, 0, RATIO_BINS - 1).astype(np.int64)
    return np.append([ratio.size - up.size], np.bincount(place, minlength=RATIO_BINS)).astype(float)


_BELOW = gamma_law.cdf(START_RATIO * _LOOKS, _LOOKS)
_SPREAD = gamma_law.ppf(0.9 * _BELOW, _LOOKS) / gamma_law.ppf(0.5 * _BELOW, _LOOKS)


def looks_of(parts):
    """Looks of a sea from `ratio_histogram`: those with which the 90 % quantile lies so far above the median.

    Both are taken below START_RATIO means, where few ships are; the few per cent left hardly touch them. The fewest
    there are where the median is zero, as in 8-bit looks that cut the sea off.
    """
    counts = np.sum(parts, axis=0)[: 1 + round((np.log(START_RATIO) - RATIO_LOW) / RATIO_STEP)]
    cumulative = np.cumsum(counts)
    if cumulative[-1] == 0:
        return FEWEST_LOOKS
    place = np.interp([0.5 * cumulative[-1], 0.9 * cumulative[-1]], cumulative, np.arange(counts.size))
    if counts[0] >= 0.5 * cumulative[-1]:
        return FEWEST_LOOKS
    return float(np.interp(-np.exp((place[1] - place[0]) * RATIO_STEP), -_SPREAD, _LOOKS))


def cells_of(image, land, mean, floor, power, looks, *, pfa, low_pfa, texture):
    """Cells that clutter does not explain.

    image, land, mean : as in and out of `ground`; looks : of the scene; texture : K clutter (else looks of the ring)
    Returns hit (bool, at `pfa`), weak (bool, at `low_pfa`), ratio (float32, cell in background means, NaN where it
    can't be judged) and evidence (float32, `ln_ship_ratio` of it).
    """
    cells = whole_numbers(image, floor, power)
    scale = LEVELS / floor
    looks = float(looks)
    censor = float(factor(CENSOR_PFA, looks, 4096))
    n, average, own = _background(cells, land, censor * mean * scale)
    # what the censored tail would have added
    lacking = gammainc(looks, looks * censor) / gammainc(looks + 1, looks * censor)
    average = average * lacking
    if texture:
        # once more: the tail of K clutter is part of it
        n, average, own = _background(cells, land, _k_factor_at(own, looks, CENSOR_PFA) * average)
    floored = np.maximum(average, LEVELS)
    believed = np.where(own < UNEVEN * looks, own, looks)
    out = []
    for chance in (pfa, low_pfa):
        even = np.full(n.shape, looks) if texture else believed
        threshold = interpolated(even, n, chance)
        if texture:
            threshold *= _k_factor_at(own, looks, chance) / float(factor(chance, looks, 1e9))
        with np.errstate(invalid="ignore"):
            out.append((cells >= 0) & ~land & (cells > threshold * floored))
    with np.errstate(invalid="ignore"):
        ratio = np.where((cells >= 0) & ~land, cells / floored, np.nan)
        evidence = np.interp(np.log(np.maximum(ratio, 1e-6)), *_evidence_table(looks))
    return *out, ratio.astype(np.float32), np.where(np.isnan(ratio), np.nan, evidence).astype(np.float32)


def _background(cells, land, most):
    """(cells used, their mean, NaN where too few, their looks) of the rings; cells above `most` take no part."""
    with np.errstate(invalid="ignore"):
        used = (cells >= 0) & ~land & (cells <= most)
    n = ring_sums(used.astype(np.int64))
    kept = np.where(used, cells, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        average = np.where(n >= FEWEST * _ring_cells(n.shape), ring_sums(kept) / n, np.nan)
        variance = ring_sums(kept * kept) / n - average**2
        own = np.clip(average**2 / np.maximum(variance, 1e-9), FEWEST_LOOKS, MOST_LOOKS)
    return n, average, own


def _k_factor_at(own, looks, pfa):
    """`k_factor` where a ring's own cells have so many looks: 1 + 1 / own = (1 + 1 / looks) (1 + 1 / order)."""
    order = (1 + 1 / looks) / np.maximum(1 / own - 1 / looks, 1e-9)
    ln_order, ln_factor = k_table(pfa, looks)
    ln_even = np.log(float(factor(pfa, looks, 1e9)))
    return np.exp(np.where(own < UNEVEN * looks, np.interp(np.log(order), ln_order, ln_factor), ln_even))


def interpolated(looks, n, pfa):
    """`factor` at arrays of looks and cells, from its table."""
    return _interpolate(factor_table(pfa), np.ascontiguousarray(looks), np.ascontiguousarray(n))


@njit(nogil=True, cache=True)
def _interpolate(table, looks, n):
    out = np.empty(looks.shape)
    step = (np.log(_LOOKS[-1]) - np.log(_LOOKS[0])) / (_LOOKS.size - 1)
    for i in range(looks.shape[0]):
        for j in range(looks.shape[1]):
            u = (np.log(looks[i, j]) - np.log(_LOOKS[0])) / step
            u = min(max(u, 0.0), _LOOKS.size - 1.000001)
            a = int(u)
            b = 0
            while b < _CELLS.size - 2 and n[i, j] >= _CELLS[b + 1]:
                b += 1
            # even in 1 / cells
            v = (1 / _CELLS[b] - 1 / max(n[i, j], 16)) / (1 / _CELLS[b] - 1 / _CELLS[b + 1])
            u -= a
            low = table[a, b] * (1 - v) + table[a, b + 1] * v
            high = table[a + 1, b] * (1 - v) + table[a + 1, b + 1] * v
            out[i, j] = np.exp(low * (1 - u) + high * u)
    return out


@lru_cache(maxsize=256)
def _evidence_table(looks):
    ln_ratio = np.linspace(np.log(1e-6), np.log(1e7), 3000)
    return ln_ratio, ln_ship_ratio(np.exp(ln_ratio), looks, 4096)


def ln_ship_ratio(ratio, looks, n):
    """ln of how much likelier a cell is on a ship than on the sea; ratio : cell in background means.

    A ship's mean is log-uniform between FAINTEST_DB and STRONGEST_DB over the sea, so that the density of a ratio r is
    (P(L, L r / a) - P(L, L r / b)) / (r ln(b / a)), P the lower incomplete gamma function; the sea's is F-distributed.
    """
    a, b = 10 ** (FAINTEST_DB / 10), 10 ** (STRONGEST_DB / 10)
    r = np.maximum(ratio, 1e-6)
    ship = np.maximum(gammainc(looks, looks * r / a) - gammainc(looks, looks * r / b), 1e-300)
    m = looks * n
    ln_sea = looks * np.log(looks / m) + (looks - 1) * np.log(r) - (looks + m) * np.log1p(looks * r / m)
    ln_sea -= gammaln(looks) + gammaln(m) - gammaln(looks + m)
    return np.log(ship) - np.log(r * np.log(b / a)) - ln_sea
