"""Likelihood ratios of two means against one, for many pixels at once: the arithmetic of `gamma_breaks`.

A pixel is a lane: element k of every row of LANE. All that is done for a date is done for all of them, in loops
that call nothing but `_excess`, over arrays laid out date after date; so a compiler makes vectors of them, and what
comes out of a lane does not depend on the others. Running sums are float64, ratios float32: they are taken of
differences from 1 (x - 1 - ln x rather than ln x), which keeps their relative error at 1e-6.
"""

import math

import numpy as np
from numba import njit

LANE = 64
"""Pixels that are worked on together: enough that a loop over them is worth its start, few enough for the cache."""
ROUND = 4
"""Loops over dates run to a multiple of this: what is left after four vectors at a time goes one by one."""
ALIKE = 0.7
"""Correlation of a change's size (nepers) between bands that `probability` assumes."""
VECTOR = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nnan", "nsz"}}
"""How loops are compiled: nothing in them is NaN, and sums may be taken in any order (always the same)."""
SUMS, WEIGHTS, LOGS, INVERSE = range(4)
"""Running sums over dates: of weight x value, weight, weight x ln value, 1 / weight."""
BEFORE, AFTER, MUCH_BEFORE, MUCH_AFTER, BARTLETT, WIDER = range(6)
"""What a ratio needs besides the intensities, see `fill_uniform`."""
Z, COMMON, MASS = range(3)
"""Rows of `out`: z of each step, what of it all bands do alike, posterior of its date."""
NOISE, WIDE, THIN = range(3)
"""Rows of `odds`: ln of the share of a step's variance that is noise; what is not, alike in all bands and apart."""

ZERO, ONE, TWO, HALF, TENTH = (np.float32(v) for v in (0, 1, 2, 0.5, 0.1))
TINY, NEVER = np.float32(1e-9), np.float32(-1e30)
SQRT_HALF_BITS, MANTISSA = np.int32(0x3F3504F3), np.int32(23)
LN2 = np.float32(math.log(2))
C3, C5, C7, C9 = (np.float32(2 / k) for k in (3, 5, 7, 9))
INV_LN2, LOWEST = np.float32(1 / math.log(2)), np.float32(-80)
E2, E3, E4, E5, E6 = (np.float32(1 / math.factorial(k)) for k in (2, 3, 4, 5, 6))


@njit(nogil=True, cache=True, **VECTOR)
def _excess(d):
    """d - ln(1 + d) of a float32 > -1, relative error below 1e-6.

    1 + d = 2^e m with m in [sqrt(1/2), sqrt(2)), and ln m = 2 artanh s with s = (m - 1) / (m + 1).
    """
    whole = max(ONE + d, TINY)
    bits = np.float32(whole).view(np.int32)
    e = np.int32(np.int32(bits - SQRT_HALF_BITS) >> MANTISSA)
    m = np.int32(bits - np.int32(e << MANTISSA)).view(np.float32)
    rest = d if e == 0 else m - ONE
    s = rest / (TWO + rest)
    q = s * s
    series = C3 + q * (C5 + q * (C7 + q * C9))
    return s * (rest - q * series) + (d - rest) - np.float32(e) * LN2


@njit(nogil=True, cache=True, **VECTOR)
def logarithm(x):
    """ln of a float32 > 0, relative error below 1e-6 but near 1, absolute there."""
    bits = np.float32(x).view(np.int32)
    e = np.int32(np.int32(bits - SQRT_HALF_BITS) >> MANTISSA)
    rest = np.int32(bits - np.int32(e << MANTISSA)).view(np.float32) - ONE
    return np.float32(e) * LN2 + (rest - _excess(rest))


@njit(nogil=True, cache=True, **VECTOR)
def _exp(x):
    """exp of a float32 up to 80, 0 below -80; relative error below 1e-6."""
    k = np.floor(max(x, LOWEST) * INV_LN2 + HALF)
    r = max(x, LOWEST) - k * LN2
    tail = E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))
    power = np.int32(np.int32(np.int32(k) + np.int32(127)) << MANTISSA).view(np.float32)
    return (ONE + r * (ONE + r * tail)) * power if x > LOWEST else ZERO


@njit(nogil=True, cache=True)
def padded(m):
    """m, up to the next multiple of ROUND."""
    return (m + ROUND - 1) // ROUND * ROUND


@njit(nogil=True, cache=True)
def correlated(n_time, lag):
    """(n_time + 1, n_time) float32: by what the variance of a step's size grows where successive dates correlate.

    Of a segment of n dates, before date i + 1: [n, i] is the variance of the difference of the means over the dates
    before and from it, as it is for AR(1) of correlation `lag` over what it would be without.
    """
    total = np.zeros(n_time + 1)  # variance of the sum of k values
    faded = np.zeros(n_time + 1)  # 1 - lag^k
    power = 1.0
    for k in range(1, n_time + 1):
        # the k-th value with itself and twice with those before it
        total[k] = total[k - 1] + 1.0 + 2.0 * lag * faded[k - 1] / (1.0 - lag)
        power *= lag
        faded[k] = 1.0 - power
    out = np.ones((n_time + 1, n_time), np.float32)
    for n in range(2, n_time + 1):
        cross = 2 * lag / ((1 - lag) * (1 - lag) * n)
        for k in range(1, n):
            wider = total[k] * (n - k) / (k * n) + total[n - k] * k / ((n - k) * n)
            out[n, k - 1] = wider - cross * faded[k] * faded[n - k]
    return out


@njit(nogil=True, cache=True, **VECTOR)
def fill_uniform(n, m, wider, tables):
    """Tables of segments whose dates all weigh 1; date after date, m of them, lane by lane.

    n : (LANE,) float32 dates of the segment; wider : `correlated`, or of size 0; tables : (6, padded * LANE) float32
    [BEFORE], [AFTER] : all dates over those before a step and from it; [MUCH_BEFORE], [MUCH_AFTER] : twice as many as
    there are (0 where a lane has no such date); [BARTLETT] : what Bartlett's correction takes from a weight;
    [WIDER] : see `correlated`, 1 without.
    """
    for i in range(m):
        j = np.float32(i + 1)
        share = ONE / j
        for k in range(LANE):
            tables[BEFORE, i * LANE + k] = n[k] * share
    for i in range(m):
        j = np.float32(i + 1)
        for k in range(LANE):
            tables[AFTER, i * LANE + k] = n[k] / max(n[k] - j, ONE)
    for i in range(m):
        j = np.float32(i + 1)
        for k in range(LANE):
            tables[MUCH_BEFORE, i * LANE + k] = TWO * j if j < n[k] else ZERO
    for i in range(m):
        j = np.float32(i + 1)
        for k in range(LANE):
            tables[MUCH_AFTER, i * LANE + k] = TWO * max(n[k] - j, ZERO)
    for i in range(m):
        share = ONE / np.float32(i + 1)
        for k in range(LANE):
            inverse = ONE / max(n[k], ONE)
            tables[BARTLETT, i * LANE + k] = (share + tables[AFTER, i * LANE + k] * inverse - inverse) / np.float32(6)
    if wider.size > 0:
        for k in range(LANE):
            own = np.int64(n[k])
            for i in range(m):
                tables[WIDER, i * LANE + k] = wider[own, i] if i < own - 1 else ONE
    else:
        for i in range(m * LANE):
            tables[WIDER, i] = ONE


@njit(nogil=True, cache=True)
def fill_weighted(sums, b, low, n, k, tables):
    """The same for lane k, whose dates weigh what `sums` says, in band b; all but [WIDER]."""
    w = sums[WEIGHTS, b]
    whole = w[low + n, k] - w[low, k]
    for i in range(n - 1):
        before = w[low + 1 + i, k] - w[low, k]
        after = whole - before
        at = i * LANE + k
        tables[BEFORE, at] = whole / before
        tables[AFTER, at] = whole / after
        tables[MUCH_BEFORE, at] = 2 * before
        tables[MUCH_AFTER, at] = 2 * after
        tables[BARTLETT, at] = (1 / before + 1 / after - 1 / whole) / 6


@njit(nogil=True, cache=True, **VECTOR)
def _shares(sums, b, low, n, k, weighted, part):
    """Into `part`, of lane k: share of the intensity that comes before each step, less that of the dates."""
    first = sums[SUMS, b, low, k]
    share = 1 / (sums[SUMS, b, low + n, k] - first)
    if weighted:
        start = sums[WEIGHTS, b, low, k]
        each = 1 / (sums[WEIGHTS, b, low + n, k] - start)
        for i in range(n - 1):
            expected = (sums[WEIGHTS, b, low + 1 + i, k] - start) * each
            part[i * LANE + k] = (sums[SUMS, b, low + 1 + i, k] - first) * share - expected
    else:
        each = 1 / np.float64(n)
        for i in range(n - 1):
            part[i * LANE + k] = (sums[SUMS, b, low + 1 + i, k] - first) * share - (i + 1.0) * each


@njit(nogil=True, cache=True, **VECTOR)
def _whole_shares(sums, b, m, part):
    """The same of all lanes at once, where their segments are the first m + 1 dates and none is weighted."""
    each = 1 / np.float64(m + 1)
    share = np.empty(LANE)
    for k in range(LANE):
        share[k] = 1 / sums[SUMS, b, m + 1, k]
    for i in range(m):
        expected = (i + 1.0) * each
        for k in range(LANE):
            part[i * LANE + k] = sums[SUMS, b, i + 1, k] * share[k] - expected


@njit(nogil=True, cache=True, **VECTOR)
def _ratio(part, tables, looks, m, one):
    """Into `one`: z of each step in one band."""
    for i in range(m * LANE):
        before = tables[MUCH_BEFORE, i] * _excess(part[i] * tables[BEFORE, i])
        one[i] = before + tables[MUCH_AFTER, i] * _excess(-part[i] * tables[AFTER, i])
    for i in range(m):
        for k in range(LANE):
            weight = max(looks[k] - tables[BARTLETT, i * LANE + k], TENTH * looks[k])
            one[i * LANE + k] = max(one[i * LANE + k] * weight, ZERO)


@njit(nogil=True, cache=True, **VECTOR)
def _add(part, one, m, first, out):
    if first:
        for i in range(m * LANE):
            out[Z, i] = one[i]
        for i in range(m * LANE):
            out[COMMON, i] = math.copysign(math.sqrt(one[i]), part[i])
    else:
        for i in range(m * LANE):
            out[Z, i] += one[i]
        for i in range(m * LANE):
            out[COMMON, i] += math.copysign(math.sqrt(one[i]), part[i])


@njit(nogil=True, cache=True, **VECTOR)
def _uneven(z, scatter, degrees, d0, n_band, m, one):
    """z where looks vary between pixels: the likelihood ratio with the pixel's own unknown (`omnibus.uneven`)."""
    base = np.float32(d0)
    less = np.float32(0.5 * n_band + 1)
    for i in range(m):
        for k in range(LANE):
            one[i * LANE + k] = z[i * LANE + k] / (base + max(scatter[k] - z[i * LANE + k], ZERO))
    for i in range(m * LANE):
        one[i] = max(one[i] - _excess(one[i]), ZERO)
    for i in range(m):
        for k in range(LANE):
            one[i * LANE + k] *= base + degrees[k] - less


@njit(nogil=True, cache=True, **VECTOR)
def ratios(sums, low, n, looks, weighted, d0, tables, work, out, best):
    """z of every step of a segment of each lane: -2 rho ln(likelihood ratio) of two means against one.

    Parameters
    ----------
    sums : (4, band, time + 1, LANE) running sums, of which LOGS and INVERSE are read where d0 is finite
    low, n : (LANE,) int64, the segment's first date and its dates: 2 or more, or 0 where a lane is idle
    looks : (band, LANE) float32; 1 where `weighted`, (LANE,) bool: the weights are the looks then
    d0 : degrees of freedom with which looks vary between pixels (inf: not at all)
    tables : from `fill_uniform`, [WIDER] included; a weighted lane's are written here
    work : (2, padded * LANE) float32
    out : (3, padded * LANE) float32, of which Z and COMMON are filled; [i, k] stands for date low + 1 + i of lane k
    best : (2, LANE) float32: the largest of either row

    Returns
    -------
    number of dates that are filled, a multiple of ROUND: 0 in all of what is not there
    """
    n_band = sums.shape[1]
    longest = 0
    shortest = n[0]
    start = 0
    some_weighted = False
    for k in range(LANE):
        longest = max(longest, n[k])
        shortest = min(shortest, n[k])
        start = max(start, low[k])
        some_weighted |= weighted[k]
    m = padded(max(longest - 1, 0))
    part, one = work[0], work[1]
    whole = start == 0 and shortest == longest and longest > 1 and not some_weighted
    for i in range((longest - 1 if whole else 0) * LANE, m * LANE):
        part[i] = ZERO
    for b in range(n_band):
        if whole:
            _whole_shares(sums, b, longest - 1, part)
        else:
            for k in range(LANE):
                if n[k] > 1:
                    _shares(sums, b, low[k], n[k], k, weighted[k], part)
                    if weighted[k]:
                        fill_weighted(sums, b, low[k], n[k], k, tables)
        _ratio(part, tables, looks[b], m, one)
        _add(part, one, m, b == 0, out)
    if not math.isinf(d0):
        scatter = np.zeros(LANE, np.float32)
        degrees = np.zeros(LANE, np.float32)
        for k in range(LANE):
            if n[k] > 1:
                scatter[k] = scatter_of(sums, low[k], n[k], k, looks)
                degrees[k] = n_band * (n[k] - 1)
        _uneven(out[Z], scatter, degrees, d0, n_band, m, one)
        for i in range(m * LANE):
            out[COMMON, i] *= math.sqrt(one[i] / max(out[Z, i], TINY))
        for i in range(m * LANE):
            out[Z, i] = one[i]
    share = ONE / np.float32(n_band)
    for i in range(m * LANE):
        out[COMMON, i] *= out[COMMON, i] * share
    for i in range(m * LANE):
        out[COMMON, i] /= tables[WIDER, i]
    for i in range(m * LANE):
        out[Z, i] /= tables[WIDER, i]
    for row in range(2):
        for k in range(LANE):
            best[row, k] = ZERO
        for i in range(m):
            for k in range(LANE):
                best[row, k] = max(best[row, k], out[row, i * LANE + k])
    return m


@njit(nogil=True, cache=True, **VECTOR)
def part_peaks(sums, at, n, looks, tables, work, out, best):
    """Largest z before and from a date, and largest part of it that all bands do alike: both parts in one sweep.

    sums : running sums of lanes that all have the same n dates, none weighted; at : (LANE,) int64, where a lane's
    series is cut, 1 to n - 1, or n where it is not; looks : (band, LANE); tables, work, out : scratch, as of `ratios`;
    best : (4, LANE) float32, filled: z of the first part, what is alike in it, both of the second. As `ratios` gives
    them where looks are even and dates don't correlate.
    """
    n_band = sums.shape[1]
    m = padded(n - 1)
    _fill_parts(at, n, m, tables)
    for b in range(n_band):
        _part_shares(sums, b, at, n, m, tables[WIDER], work)
        _ratio(work[0], tables, looks[b], m, work[1])
        _add(work[0], work[1], m, b == 0, out)
    share = ONE / np.float32(n_band)
    for i in range(m * LANE):
        out[COMMON, i] *= out[COMMON, i] * share
    for row in range(2):
        for i in range(m * LANE):
            work[0, i] = out[row, i] * tables[WIDER, i]
        for i in range(m * LANE):
            out[row, i] -= work[0, i]
        _largest_of(work[0], m, best[row])
        _largest_of(out[row], m, best[2 + row])


@njit(nogil=True, cache=True, **VECTOR)
def _largest_of(values, m, most):
    """The largest of the first m dates of each lane, or 0."""
    for k in range(LANE):
        most[k] = ZERO
    for i in range(m):
        for k in range(LANE):
            most[k] = max(most[k], values[i * LANE + k])


@njit(nogil=True, cache=True, **VECTOR)
def _fill_parts(at, n, m, tables):
    """`fill_uniform` of the two parts of a series of n dates, one behind the other; [WIDER]: 1 in the first, else 0."""
    cut = np.empty(LANE, np.float32)
    for k in range(LANE):
        cut[k] = at[k]
    end = np.float32(n)
    for i in range(m):
        date = np.float32(i + 1)
        for k in range(LANE):
            tables[WIDER, i * LANE + k] = ONE if date < cut[k] else ZERO
    for i in range(m):
        date = np.float32(i + 1)
        for k in range(LANE):
            tables[MUCH_BEFORE, i * LANE + k] = TWO * (date - (cut[k] if date >= cut[k] else ZERO))
    for i in range(m):
        date = np.float32(i + 1)
        for k in range(LANE):
            tables[MUCH_AFTER, i * LANE + k] = TWO * max((end if date >= cut[k] else cut[k]) - date, ZERO)
    for i in range(m * LANE):
        tables[BEFORE, i] = (tables[MUCH_BEFORE, i] + tables[MUCH_AFTER, i]) / max(tables[MUCH_BEFORE, i], TWO)
    for i in range(m * LANE):
        tables[AFTER, i] = (tables[MUCH_BEFORE, i] + tables[MUCH_AFTER, i]) / max(tables[MUCH_AFTER, i], TWO)
    for i in range(m * LANE):
        both = tables[MUCH_BEFORE, i] + tables[MUCH_AFTER, i]
        tables[BARTLETT, i] = (tables[BEFORE, i] + tables[AFTER, i] - ONE) / (both * np.float32(3))


@njit(nogil=True, cache=True, **VECTOR)
def _part_shares(sums, b, at, n, m, first, work):
    """`_shares` of both parts of every lane into work[0]; first : 1 in the first part, else 0."""
    scale, each, off = np.empty(LANE), np.empty(LANE), np.empty(LANE)
    for k in range(LANE):
        scale[k] = 1 / sums[SUMS, b, at[k], k]
        each[k] = 1 / np.float64(at[k])
    for i in range(n - 1):
        date = np.float64(i + 1)
        for k in range(LANE):
            work[0, i * LANE + k] = sums[SUMS, b, i + 1, k] * scale[k] - date * each[k]
    for k in range(LANE):
        start = sums[SUMS, b, at[k], k]
        scale[k] = 1 / (sums[SUMS, b, n, k] - start) if at[k] < n else 0.0
        each[k] = 1 / np.float64(n - at[k]) if at[k] < n else 0.0
        off[k] = start * scale[k] - at[k] * each[k]
    for i in range(n - 1):
        date = np.float64(i + 1)
        for k in range(LANE):
            work[1, i * LANE + k] = sums[SUMS, b, i + 1, k] * scale[k] - date * each[k] - off[k]
    for i in range((n - 1) * LANE):
        work[0, i] = work[0, i] * first[i] + work[1, i] * (ONE - first[i])
    for i in range((n - 1) * LANE, m * LANE):
        work[0, i] = ZERO


@njit(nogil=True, cache=True)
def scatter_of(sums, low, n, k, looks):
    """-2 rho ln Q of a lane's segment: every date its own mean against one."""
    total = 0.0
    for b in range(sums.shape[1]):
        own = float(looks[b, k])
        s = sums[SUMS, b, low + n, k] - sums[SUMS, b, low, k]
        w = sums[WEIGHTS, b, low + n, k] - sums[WEIGHTS, b, low, k]
        logs = sums[LOGS, b, low + n, k] - sums[LOGS, b, low, k]
        inverse = (sums[INVERSE, b, low + n, k] - sums[INVERSE, b, low, k] - 1 / w) / own
        rho = max(1 - inverse / (6 * (n - 1.0)), 0.1)
        total += 2 * rho * own * (w * math.log(s / w) - logs)
    return max(total, 0.0)


@njit(nogil=True, cache=True, **VECTOR)
def fill_odds(sums, low, n, m, looks, weighted, spread, tables, odds):
    """What `chances` needs besides z.

    spread : prior size of a step, nepers; tables : from `fill_uniform`; odds : (3, padded * LANE) float32
    """
    n_band = sums.shape[1]
    inverse = np.zeros(LANE, np.float32)
    for b in range(n_band):
        for k in range(LANE):
            inverse[k] += ONE / (looks[b, k] * np.float32(n_band))
    wide = np.float32((1 + (n_band - 1) * ALIKE) * spread * spread)
    thin = np.float32((1 - ALIKE) * spread * spread)
    each = np.float32(n_band - 1)
    # variance of a step, nepers, mean over bands; in the row that is overwritten last
    for i in range(m):
        for k in range(LANE):
            both = np.float32(6) * tables[BARTLETT, i * LANE + k] + ONE / max(np.float32(n[k]), ONE)
            odds[NOISE, i * LANE + k] = both * inverse[k]
    for k in range(LANE):
        if weighted[k]:
            for i in range(n[k] - 1):
                total = 0.0
                for b in range(n_band):
                    w = sums[WEIGHTS, b]
                    before, after = w[low[k] + 1 + i, k] - w[low[k], k], w[low[k] + n[k], k] - w[low[k] + 1 + i, k]
                    total += (1 / before + 1 / after) / n_band
                odds[NOISE, i * LANE + k] = total
    for i in range(m * LANE):
        odds[NOISE, i] *= tables[WIDER, i]
    for i in range(m * LANE):
        odds[WIDE, i] = wide / (wide + odds[NOISE, i])
    for i in range(m * LANE):
        odds[THIN, i] = thin / (thin + odds[NOISE, i])
    for i in range(m * LANE):
        # ln(1 - share); of -share it is what `_excess` leaves
        odds[NOISE, i] = -odds[WIDE, i] - _excess(-odds[WIDE, i]) - each * (odds[THIN, i] + _excess(-odds[THIN, i]))
    for i in range(m):
        for k in range(LANE):
            odds[NOISE, i * LANE + k] = odds[NOISE, i * LANE + k] if i < n[k] - 1 else NEVER


@njit(nogil=True, cache=True, **VECTOR)
def chances(out, odds, n, m, ln_factor):
    """ln of the mean Bayes factor of a step at any date of a lane's segment against none; fills the row MASS.

    A step is N(0, spread^2) in each band, with correlation ALIKE between bands: what the bands do alike has the
    variance (1 + (band - 1) ALIKE) spread^2, what they do apart (1 - ALIKE) spread^2 (Laplace's form of the
    likelihood). n : (LANE,) int64; ln_factor : (LANE,) float64, filled
    """
    mass = out[MASS]
    for i in range(m * LANE):
        apart = max(out[Z, i] - out[COMMON, i], ZERO)
        mass[i] = HALF * (odds[NOISE, i] + odds[WIDE, i] * out[COMMON, i] + odds[THIN, i] * apart)
    top = np.full(LANE, NEVER, np.float32)
    total = np.zeros(LANE, np.float32)
    for i in range(m):
        for k in range(LANE):
            top[k] = max(top[k], mass[i * LANE + k])
    for i in range(m):
        for k in range(LANE):
            mass[i * LANE + k] -= top[k]
    for i in range(m * LANE):
        mass[i] = _exp(mass[i])
    for i in range(m):
        for k in range(LANE):
            total[k] += mass[i * LANE + k]
    for k in range(LANE):
        if n[k] > 1:
            ln_factor[k] = top[k] + math.log(total[k] / (n[k] - 1))
            total[k] = ONE / total[k]
    for i in range(m):
        for k in range(LANE):
            mass[i * LANE + k] *= total[k]


@njit(nogil=True, cache=True)
def largest(row, m, k):
    """Where the largest of the first m of lane k is."""
    at = 0
    for i in range(1, m):
        if row[i * LANE + k] > row[at * LANE + k]:
            at = i
    return at


@njit(nogil=True, cache=True)
def interval(mass, m, k, cover):
    """(date, first, last) of m dates of lane k: the most likely, and those between which a change lies with the chance
    `cover`."""
    at = largest(mass, m, k)
    first = at
    last = at
    seen = mass[at * LANE + k]
    while seen < cover:
        down = mass[(first - 1) * LANE + k] if first > 0 else -1.0
        up = mass[(last + 1) * LANE + k] if last < m - 1 else -1.0
        if down < 0 and up < 0:
            break
        if down >= up:
            first -= 1
            seen += down
        else:
            last += 1
            seen += up
    return at, first, last
