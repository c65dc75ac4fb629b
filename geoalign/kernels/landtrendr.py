"""Straight pieces through one value a year (LandTrendr): vertices, fits with ever fewer of them, the best by p of F.

With m pieces, 2 m of the n years' degrees of freedom are spent, so the tail of F has an even number on one side and is
a finite sum: no special function is needed.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.tmask import median_of

MIN_YEARS = 6
"""Observed years below which nothing is fitted."""
SPIKE = 0.9
"""A year is pulled to its neighbours where these differ by less than the rest of 1 of its distance from the nearer."""
OVERSHOOT = 3
"""Vertices looked for beyond those kept, before the flattest are left out."""
FALL_WEIGHT = 2.0
"""How much more a vertex before a fall counts, a fall over the whole range."""
PROPORTION = 0.75
"""More pieces are taken where their p is at most 2 - PROPORTION times the least."""
NO_DATA, TOO_FEW = -1, -2


@njit(nogil=True, cache=True)
def scan(series, slope, spread, year, sign, max_segments, p_value, recovery, max_years, first):
    """Pieces of every pixel's yearly values, and the falls among them.

    series : (n_pixel, n_time) float32, NaN = not observed
    slope : (n_pixel,) squared gradient, units^2 / px^2; spread : (n_time,) squared sigma_px
    year : (n_time,) int32, not falling; below 0 for scenes outside the season
    sign : 1 where a disturbance lowers the values, -1 where it raises them
    max_segments : pieces at most; p_value : of F, above which a pixel is flat
    recovery : share of the range that a year of recovery may bring; max_years : years a disturbance may take
    first : number of the first scene whose changes count

    Returns outcome (n_pixel,) int32, disturbances or a code below 0; n_obs (n_pixel,) int32, observations in season;
    at (n_pixel, max_segments, 3) int32, scenes of the first observation of the disturbance's first year, of the last
    one surely before, of the one by which it had begun; size (n_pixel, max_segments, 2) float64, change of the fit, ln
    evidence; evidence (n_pixel,) ln evidence of any disturbance; vertex (n_pixel, max_segments + 1) int32 years, -1 =
    none; fitted (n_pixel, max_segments + 1) float32 values there
    """
    n_pixel, n_time = series.shape
    most = max_segments + 1
    outcome = np.zeros(n_pixel, np.int32)
    n_obs = np.zeros(n_pixel, np.int32)
    at = np.full((n_pixel, max_segments, 3), -1, np.int32)
    size = np.full((n_pixel, max_segments, 2), np.nan)
    evidence = np.full(n_pixel, -np.inf)
    vertex = np.full((n_pixel, most), -1, np.int32)
    fitted = np.full((n_pixel, most), np.nan, np.float32)
    x, y, held = np.empty(n_time), np.empty(n_time), np.empty(n_time)
    scene = np.empty((n_time, 3), np.int32)
    place = np.zeros((most + 1, most + OVERSHOOT + 2), np.int64)
    value = np.zeros((most + 1, most + OVERSHOOT + 2))
    rss, p = np.empty(most + 1), np.empty(most + 1)
    work = np.empty((3, most + OVERSHOOT + 2))
    fewer, ends = np.zeros(most + 1, np.int64), np.zeros(most + 1)
    for q in range(n_pixel):
        n, n_obs[q], shaken = _composites(series[q], slope[q], spread, year, sign, x, y, scene, held)
        if n < MIN_YEARS:
            outcome[q] = NO_DATA if n_obs[q] == 0 else TOO_FEW
            continue
        _despike(y, n)
        low, high, mean = y[0], y[0], 0.0
        for i in range(n):
            low, high = min(low, y[i]), max(high, y[i])
            mean += y[i] / n
        around = 0.0
        for i in range(n):
            around += (y[i] - mean) ** 2
        span = high - low
        if not span > 1e-6 * max(abs(low), abs(high)):
            vertex[q, 0], vertex[q, 1] = int(x[0]), int(x[n - 1])
            fitted[q, 0] = fitted[q, 1] = sign * mean
            continue
        last = _vertices(x, y, n, span, max_segments, place[max_segments])
        best = 0
        for way in range(2):
            for m in range(last, 0, -1):
                if way == 0:
                    if m < last:
                        _without_weakest(x, y, place[m + 1], m + 1, value[m + 1], span, recovery, place[m])
                    elif last != max_segments:
                        place[last, : last + 1] = place[max_segments, : last + 1]
                    rss[m] = _anchored(x, y, place[m], m, value[m])
                else:
                    # where no anchored fit says anything, the vertices' values come from least squares
                    rss[m] = _joint(x, y, place[m], m, value[m], work)
                p[m] = _p_of_f(rss[m] + shaken, around + shaken, n, m)
                if _too_fast(x, place[m], value[m], m, span, recovery):
                    p[m] = 1.0
            best = 1
            for m in range(2, last + 1):
                best = m if p[m] < p[best] else best
            if p[best] <= p_value:
                break
        least = p[best]
        for m in range(best + 1, last + 1):
            best = m if p[m] <= (2.0 - PROPORTION) * least else best
        tiny = 1e-12 * around + 1e-300
        alone = max(_joint(x, y, place[1], 1, ends, work), tiny) + shaken
        for m in range(2, last + 1):
            if n - 2 * m - 1 > 0 and not _too_fast(x, place[m], value[m], m, span, recovery):
                for k in range(m):
                    if _falls(x, place[m], value[m], k, max_years):
                        ln = 0.5 * n * np.log(alone / (max(rss[m], tiny) + shaken)) - (m - 1) * np.log(n)
                        evidence[q] = np.logaddexp(evidence[q], ln)
                        break
        if least > p_value:
            vertex[q, 0], vertex[q, 1] = int(x[0]), int(x[n - 1])
            fitted[q, 0] = fitted[q, 1] = sign * mean
            continue
        for k in range(best + 1):
            vertex[q, k] = int(x[place[best, k]])
            fitted[q, k] = sign * value[best, k]
        whole = max(_joint(x, y, place[best], best, ends, work), tiny) + shaken
        found = 0
        end = 0
        while end < best:
            k = start = end
            end += 1
            if not _falls(x, place[best], value[best], start, max_years):
                continue
            # pieces that fall one after the other are one disturbance, that of the steepest of them
            while end < best and _falls(x, place[best], value[best], end, max_years):
                k = end if _steeper(x, place[best], value[best], end, k) else k
                end += 1
            before = place[best, k]
            if scene[before + 1, 0] < first:
                continue
            at[q, found, 0] = scene[before + 1, 0]
            at[q, found, 1] = scene[before, 1]
            at[q, found, 2] = scene[before + 1, 2]
            size[q, found, 0] = sign * (value[best, end] - value[best, start])
            # the same pieces without the vertex where it begins (or ends, where it begins with the series)
            gone = k if k > 0 else 1
            without = around
            if best > 1:
                m = 0
                for j in range(best + 1):
                    if j != gone:
                        fewer[m] = place[best, j]
                        m += 1
                without = _joint(x, y, fewer, best - 1, ends, work)
            size[q, found, 1] = 0.5 * n * np.log((max(without, tiny) + shaken) / whole) - np.log(n)
            found += 1
        outcome[q] = found
    return outcome, n_obs, at, size, evidence, vertex, fitted


@njit(nogil=True, cache=True)
def _composites(series, slope, spread, year, sign, x, y, scene, held):
    """Fill the years x with observations, their medians y (disturbance downwards), and the scenes of each.

    scene[i] : first observation of year i, the one up to which half lie, the last
    Returns how many years and observations, and what a residual shift adds to the sum of squares of all years.
    """
    n, total, shaken = 0, 0, 0.0
    t, n_time = 0, series.size
    while t < n_time:
        now = year[t]
        m, middle = 0, 0.0
        begin = t
        while t < n_time and year[t] == now:
            if now >= 0 and not np.isnan(series[t]):
                held[m] = series[t]
                middle += spread[t]
                m += 1
            t += 1
        if m == 0:
            continue
        seen = 0
        for s in range(begin, t):
            if not np.isnan(series[s]):
                seen += 1
                if seen == 1:
                    scene[n, 0] = s
                if seen == (m + 1) // 2:
                    scene[n, 1] = s
                scene[n, 2] = s
        # the variance of a median is pi / 2 times that of a mean
        shaken += 1.5708 * slope * middle / (m * m)
        x[n], y[n] = now, sign * median_of(held, m)
        total += m
        n += 1
    return n, total, shaken


@njit(nogil=True, cache=True)
def _despike(y, n):
    """Pull lone years to the mean of their neighbours, the worst first, in place."""
    for _ in range(n):
        worst, where = SPIKE, -1
        for i in range(1, n - 1):
            left, right = y[i] - y[i - 1], y[i] - y[i + 1]
            if left * right <= 0.0:
                continue
            share = 1.0 - abs(y[i + 1] - y[i - 1]) / max(abs(left), abs(right))
            if share > worst:
                worst, where = share, i
        if where < 0:
            return
        y[where] += worst * (0.5 * (y[where - 1] + y[where + 1]) - y[where])


@njit(nogil=True, cache=True)
def _vertices(x, y, n, span, max_segments, place):
    """Fill place with vertices, first and last year among them; returns the number of pieces.

    The piece with the largest mean square around its own line is cut where it is furthest off, until there are
    OVERSHOOT too many; then the flattest vertices go.
    """
    place[0], place[1] = 0, n - 1
    m = 1
    while m < max_segments + OVERSHOOT:
        worst, piece, where = -1.0, -1, 0
        for k in range(m):
            a, b = place[k], place[k + 1]
            if b - a < 2:
                continue
            mean, rise = _line(x, y, a, b)
            square, off, furthest = 0.0, -1.0, a
            for i in range(a, b + 1):
                d = abs(y[i] - mean - rise * x[i])
                square += d * d
                if a < i < b and d > off:
                    off, furthest = d, i
            square /= b - a + 1
            if square > worst:
                worst, piece, where = square, k, furthest
        if piece < 0:
            break
        for k in range(m, piece, -1):
            place[k + 1] = place[k]
        place[piece + 1] = where
        m += 1
    # a year counts as much across as the range counts up: with more, any lone year would turn by nearly a right angle
    while m > max_segments:
        flattest, where = np.inf, 1
        for k in range(1, m):
            a, b, c = place[k - 1], place[k], place[k + 1]
            before = np.arctan((y[b] - y[a]) / span / (x[b] - x[a]))
            after = np.arctan((y[c] - y[b]) / span / (x[c] - x[b]))
            turn = abs(after - before) * (1.0 + FALL_WEIGHT * max(y[b] - y[c], 0.0) / span)
            if turn < flattest:
                flattest, where = turn, k
        for k in range(where, m):
            place[k] = place[k + 1]
        m -= 1
    return m


@njit(nogil=True, cache=True)
def _line(x, y, a, b):
    """Value at 0 and slope of the least-squares line through points a .. b."""
    n = b - a + 1
    mx, my = 0.0, 0.0
    for i in range(a, b + 1):
        mx += x[i]
        my += y[i]
    mx /= n
    my /= n
    xx, xy = 0.0, 0.0
    for i in range(a, b + 1):
        xx += (x[i] - mx) ** 2
        xy += (x[i] - mx) * (y[i] - my)
    return my - xy / xx * mx, xy / xx


@njit(nogil=True, cache=True)
def _anchored(x, y, place, m, value):
    """Fill the values of m pieces at their vertices, from left to right; returns the sum of squares.

    Every piece begins where the one before ends, and goes on by regression or straight to its last point, whichever is
    nearer to the points.
    """
    b = place[1]
    level, rise = _line(x, y, 0, b)
    chord = (y[b] - y[0]) / (x[b] - x[0])
    by_line, by_chord = 0.0, 0.0
    for i in range(b + 1):
        by_line += (y[i] - level - rise * x[i]) ** 2
        by_chord += (y[i] - y[0] - chord * (x[i] - x[0])) ** 2
    if by_line <= by_chord:
        value[0], value[1], total = level + rise * x[0], level + rise * x[b], by_line
    else:
        value[0], value[1], total = y[0], y[b], by_chord
    for k in range(1, m):
        a, b = place[k], place[k + 1]
        start = value[k]
        xx, xy = 0.0, 0.0
        for i in range(a + 1, b + 1):
            xx += (x[i] - x[a]) ** 2
            xy += (x[i] - x[a]) * (y[i] - start)
        rise, chord = xy / xx, (y[b] - start) / (x[b] - x[a])
        by_line, by_chord = 0.0, 0.0
        for i in range(a + 1, b + 1):
            by_line += (y[i] - start - rise * (x[i] - x[a])) ** 2
            by_chord += (y[i] - start - chord * (x[i] - x[a])) ** 2
        chosen = rise if by_line <= by_chord else chord
        value[k + 1] = start + chosen * (x[b] - x[a])
        total += min(by_line, by_chord)
    return total


@njit(nogil=True, cache=True)
def _joint(x, y, place, m, value, work):
    """Fill the least-squares values of m joined pieces at their vertices; returns the sum of squares."""
    main, side, right = work
    for k in range(m + 1):
        main[k] = side[k] = right[k] = 0.0
    for k in range(m):
        a, b = place[k], place[k + 1]
        for i in range(a, b if k < m - 1 else b + 1):
            w = (x[i] - x[a]) / (x[b] - x[a])
            main[k] += (1.0 - w) * (1.0 - w)
            side[k] += (1.0 - w) * w
            main[k + 1] += w * w
            right[k] += (1.0 - w) * y[i]
            right[k + 1] += w * y[i]
    # every vertex is an observed year, so that the tridiagonal system always has one solution
    for k in range(1, m + 1):
        share = side[k - 1] / main[k - 1]
        main[k] -= share * side[k - 1]
        right[k] -= share * right[k - 1]
    value[m] = right[m] / main[m]
    for k in range(m - 1, -1, -1):
        value[k] = (right[k] - side[k] * value[k + 1]) / main[k]
    total = 0.0
    for k in range(m):
        a, b = place[k], place[k + 1]
        for i in range(a, b if k < m - 1 else b + 1):
            w = (x[i] - x[a]) / (x[b] - x[a])
            total += (y[i] - (1.0 - w) * value[k] - w * value[k + 1]) ** 2
    return total


@njit(nogil=True, cache=True)
def _without_weakest(x, y, place, m, value, span, recovery, out):
    """Fill out with the vertices of m pieces less one: where recovery is too fast, else that which is missed least."""
    where, least = 0, np.inf
    fastest = recovery
    for k in range(m):
        rate = (value[k + 1] - value[k]) / (x[place[k + 1]] - x[place[k]]) / span
        if rate > fastest:
            fastest = rate
            where = k + 1 if k + 1 < m else k
    if where == 0:
        for k in range(1, m):
            a, b, c = place[k - 1], place[k], place[k + 1]
            rise = _chords(x, y, a, c, c) - _chords(x, y, a, b, c)
            if rise < least:
                least, where = rise, k
    j = 0
    for k in range(m + 1):
        if k != where:
            out[j] = place[k]
            j += 1


@njit(nogil=True, cache=True)
def _chords(x, y, a, b, c):
    """Sum of squares of the points a .. c around the lines from a to b and from b to c."""
    total = 0.0
    for i in range(a + 1, c):
        low, high = (a, b) if i < b else (b, c)
        if i != b:
            total += (y[i] - y[low] - (y[high] - y[low]) * (x[i] - x[low]) / (x[high] - x[low])) ** 2
    return total


@njit(nogil=True, cache=True)
def _too_fast(x, place, value, m, span, recovery):
    """A piece recovers more in a year than is possible."""
    fastest = 0.0
    for k in range(m):
        fastest = max(fastest, (value[k + 1] - value[k]) / (x[place[k + 1]] - x[place[k]]))
    return fastest > recovery * span


@njit(nogil=True, cache=True)
def _falls(x, place, value, k, max_years):
    """Piece k is a disturbance: it falls, and takes no longer than one may."""
    return value[k + 1] < value[k] and x[place[k + 1]] - x[place[k]] <= max_years


@njit(nogil=True, cache=True)
def _steeper(x, place, value, k, other):
    """Piece k falls more in a year than another one."""
    fall = (value[k] - value[k + 1]) * (x[place[other + 1]] - x[place[other]])
    return fall > (value[other] - value[other + 1]) * (x[place[k + 1]] - x[place[k]])


@njit(nogil=True, cache=True)
def _p_of_f(rss, around, n, m):
    """Chance of an F as large as that of m pieces, of 2 m coefficients besides the mean; 1 where years are too few."""
    free = n - 2 * m - 1
    if free < 1:
        return 1.0
    left = min(rss / around, 1.0)
    term, total = 1.0, 1.0
    for j in range(1, m):
        term *= (0.5 * free + j - 1.0) / j * (1.0 - left)
        total += term
    return min(left ** (0.5 * free) * total, 1.0)
