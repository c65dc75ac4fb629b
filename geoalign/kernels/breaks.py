"""Breaks of a pixel's series: one test of a stretch for a step, a passing step or another season; stretches are split
where it is positive, and each split is then set to its most likely place between its neighbours.

Several bands are whitened by the covariance of neighbouring dates, so that sums of squares add over bands. Observations
that stand out from those before and after alike are left out (undetected cloud); what lies beyond `CLIP` of the fit is
drawn in to it (Huber's pseudo-values), for which the shared sums of products need not be made again.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit
from scipy.stats import chi2

from geoalign.kernels.segments import (
    FAST,
    PACKED,
    WIDTH,
    backward,
    factor,
    forward,
    residuals,
    running,
    trimmed_variance,
)

SHORTEST = 6
"""Observations that a stretch between two breaks needs."""

PULSES = np.array([6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512])
"""Lengths of passing steps that are looked for, in observations."""

GRID = 16
"""Places at which a change of season and trend is looked for; the best is refined afterwards."""

REACH = 14
"""Observations either side within which a break is set to its most likely place, at a time."""

HELD = 1e12
"""Ridge that takes the trend out of a stretch too short to tell it from the season."""

TREND_YEARS = 2.0
SEASON_YEARS = 1.0
"""Years that a stretch must last for a trend, and for a season, of its own."""

TREND_SD = 0.5
"""What is known of the trend of a stretch between breaks: its standard deviation, noise sd a year."""

SLACK = 0.15
"""Autocorrelation of all residuals is believed up to so much beyond that of neighbours: more is breaks yet unknown."""

MOST = 16
"""Breaks of a pixel that are followed up."""

STEP, PASSING, SEASON = 1, 2, 3

INSIDE = 0.92
"""Chance of the true date that (date_after, date_by] holds."""

EFFECT = 3.0
"""Typical size of a step in noise standard deviations, for the probability."""

TRIM_ONE, KEEP_ONE = 6.25, 0.9113
ONE = (TRIM_ONE, KEEP_ONE, 9.0)
"""`cuts` of one band: 2.5 sd are kept, which leaves 91 % of the variance; clipped at 3 sd."""


def change_limits(alpha: float, n_time: int, n_band: int):
    """Limits of the three likelihood ratios by the number of observations, (6, n_time + 1).

    Rows: STEP, PASSING, then SEASON for 2, 4, 6 and 8 regressors. The largest of chi-squared values over all places is
    taken as that of so many independent ones (`PLACES`); alpha is shared among the three.
    """
    n = np.maximum(np.arange(n_time + 1), 12)
    shares = {}
    for name, (base, slope) in PLACES.items():
        shares[name] = alpha / 3 / (base * (n / 100.0) ** slope)
    rows = [chi2.isf(shares["step"], n_band), chi2.isf(shares["passing"], n_band)]
    rows += [chi2.isf(shares["season"], n_band * p) for p in (2, 4, 6, 8)]
    return np.array(rows)


def outlier_limits(n_band: int):
    """`cuts` of `fit` for so many bands together (2.5 sd kept, clipped at 3), and the squared distance of a spike."""
    trim, clip = chi2.isf(chi2.sf([TRIM_ONE, 9.0], 1), n_band)
    keep = chi2.cdf(trim, n_band + 2) / chi2.cdf(trim, n_band)
    # a difference from a median of three has half as much variance again
    return (float(trim / n_band), float(keep), float(clip / n_band)), float(1.1 * chi2.isf(1e-4, n_band))


PLACES = {"step": (42.0, 0.6), "passing": (200.0, 1.3), "season": (8.0, 0.5)}
"""Independent places that the largest of each kind stands for: at 100 observations, and the power of n it goes by."""

Space = namedtuple(
    "Space",
    "e y beta lower side right left z zs rest before after size sums c h g num den cov",
)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def columns_for(m, span, order):
    """Regressors that m observations over `span` years can carry: 2 + 2 k for k up to `order` harmonics."""
    k = order if span >= SEASON_YEARS else 0
    while k > 0 and m < 3 + 1.5 * (2 + 2 * k):
        k -= 1
    return 2 + 2 * k


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def fit(w, x, total, years, a, b, order, free, soft, cuts, s):
    """Robust fit of the stretch a to b; the number of regressors by the Bayesian information criterion.

    w : (n_band, n) whitened series; x : (WIDTH, n); total : `running` sums; order : most harmonics
    free : choose the order by the data (else it is `order` where the stretch can carry it)
    soft : ridge on the trend; cuts : (trim, keep, clip), squared limits in variances of all bands together
    s : Space. Fills s.e (residuals of the pseudo-values), s.y (pseudo-values), s.beta, s.lower.
    Returns p (0: impossible), the sum of squares of s.e, and the robust variance (all bands together).
    """
    n_band = w.shape[0]
    m = b - a
    span = years[b - 1] - years[a]
    ridge = soft if span >= TREND_YEARS else HELD
    p = columns_for(m, span, order)
    p = min(p, factor(total, a, b, p, ridge, s.lower))
    if p < 2:
        return 0, 0.0, 0.0
    p -= p % 2
    whole = 0.0
    for k in range(n_band):
        ww, yy = w[k, a:b], s.y[k, a:b]
        square = 0.0
        for i in range(m):
            yy[i] = ww[i]
            square += ww[i] * ww[i]
        whole += square
        for c in range(p):
            xx = x[c, a:b]
            dot = 0.0
            for i in range(m):
                dot += ww[i] * xx[i]
            s.right[k, c] = dot
    variance = 0.0
    size = s.size[a:b]
    for turn in range(3):
        for k in range(n_band):
            forward(s.lower, s.right[k], p, s.z[k])
        if turn == 2:
            break
        for k in range(n_band):
            backward(s.lower, s.z[k], p, s.beta[k])
            residuals(w[k], x, a, b, p, s.beta[k], s.e[k])
        for i in range(m):
            size[i] = 0.0
        for k in range(n_band):
            ee = s.e[k, a:b]
            for i in range(m):
                size[i] += ee[i] * ee[i]
        variance = trimmed_variance(size, m, cuts[0], cuts[1])
        limit = cuts[2] * variance
        for i in range(m):
            if size[i] > limit:
                shrink = 1.0 - np.sqrt(limit / size[i])
                for k in range(n_band):
                    old = s.y[k, a + i]
                    new = w[k, a + i] - s.e[k, a + i] * shrink
                    s.y[k, a + i] = new
                    whole += new * new - old * old
                    for c in range(p):
                        s.right[k, c] += x[c, a + i] * (new - old)
    if free:
        best, best_p, left = np.inf, p, whole
        penalty = np.log(m) * n_band
        floor = 1e-12 * whole + 1e-300
        c = 0
        for q in range(2, p + 1, 2):
            while c < q:
                for k in range(n_band):
                    left -= s.z[k, c] ** 2
                c += 1
            value = m * n_band * np.log(max(left, floor)) + penalty * q
            if value < best:
                best, best_p = value, q
        p = best_p
    squares = 0.0
    for k in range(n_band):
        backward(s.lower, s.z[k], p, s.beta[k])
        residuals(s.y[k], x, a, b, p, s.beta[k], s.e[k])
        ee = s.e[k, a:b]
        part = 0.0
        for i in range(m):
            part += ee[i] * ee[i]
        squares += part
    return p, squares, variance


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def step_sums(total, a, b, p, n_band, s):
    """Running sums of the residuals (s.sums, n_band) and of the regressors in units of their factor (s.c, p), each
    (m + 1) long; s.h = sum of squares of the latter: what of a step the regressors already explain."""
    m = b - a
    for k in range(n_band):
        ee, out = s.e[k, a:b], s.sums[k]
        run = 0.0
        out[0] = 0.0
        for i in range(m):
            run += ee[i]
            out[i + 1] = run
    base = total[a]
    for i in range(m + 1):
        row = total[a + i]
        for c in range(p):
            s.c[c, i] = row[c] - base[c]
    h = s.h[: m + 1]
    for i in range(m + 1):
        h[i] = 0.0
    for c in range(p):
        cc = s.c[c, : m + 1]
        for d in range(c):
            g = s.lower[c, d]
            dd = s.c[d, : m + 1]
            for i in range(m + 1):
                cc[i] -= g * dd[i]
        g = s.lower[c, c]
        for i in range(m + 1):
            cc[i] *= g
            h[i] += cc[i] * cc[i]


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def best_step(m, n_band, s):
    """Largest share s.g of the sum of squares that a step at 0 .. m takes off (times that sum), and its place."""
    g = s.g[: m + 1]
    h = s.h[: m + 1]
    for i in range(m + 1):
        g[i] = 0.0
    for k in range(n_band):
        ss = s.sums[k, : m + 1]
        for i in range(m + 1):
            g[i] += ss[i] * ss[i]
    for i in range(m + 1):
        information = i - h[i]
        g[i] = g[i] / information if information > 0.3 else 0.0
    top, place = -1.0, SHORTEST
    for i in range(SHORTEST, m - SHORTEST + 1):
        if g[i] > top:
            top, place = g[i], i
    return top, place


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def best_passing(m, p, n_band, s):
    """The same for steps that last PULSES observations: largest value, begin and length."""
    best = s.size[: m + 1]
    for i in range(m + 1):
        best[i] = -1.0
    for q in PULSES:
        count = m - SHORTEST - q - SHORTEST + 1
        if count < 1 or 2 * q > m:
            break
        num, den, most = s.num[:count], s.den[:count], best[SHORTEST : SHORTEST + count]
        for i in range(count):
            num[i] = 0.0
            den[i] = q
        for k in range(n_band):
            low = s.sums[k, SHORTEST : SHORTEST + count]
            high = s.sums[k, SHORTEST + q : SHORTEST + q + count]
            for i in range(count):
                d = high[i] - low[i]
                num[i] += d * d
        for c in range(0, p - 1, 2):
            # p is even: two at a time, so that den is read and written half as often
            low, next_low = s.c[c, SHORTEST : SHORTEST + count], s.c[c + 1, SHORTEST : SHORTEST + count]
            high = s.c[c, SHORTEST + q : SHORTEST + q + count]
            next_high = s.c[c + 1, SHORTEST + q : SHORTEST + q + count]
            for i in range(count):
                d = high[i] - low[i]
                f = next_high[i] - next_low[i]
                den[i] -= d * d + f * f
        # the largest at every place: a single largest number would be looked for one by one
        for i in range(count):
            value = num[i] / (den[i] if den[i] > 0.3 else 0.3)
            most[i] = value if value > most[i] else most[i]
    top, place = -1.0, 0
    for i in range(m + 1):
        if best[i] > top:
            top, place = best[i], i
    length, value = 0, -1.0
    for q in PULSES:
        if place + q > m - SHORTEST or 2 * q > m:
            break
        above, below = 0.0, float(q)
        for k in range(n_band):
            above += (s.sums[k, place + q] - s.sums[k, place]) ** 2
        for c in range(p):
            below -= (s.c[c, place + q] - s.c[c, place]) ** 2
        if above > value * max(below, 0.3):
            value, length = above / max(below, 0.3), q
    return top, place, length


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def best_season(x, total, years, a, b, p, n_band, s):
    """The same for another fit altogether from a place on: largest fall of the sum of squares, and the place.

    Looked for at about GRID places whose two sides carry p regressors and last two years: one year alone may be odd.
    """
    m = b - a
    least = p + 6
    stride = max(1, m // GRID)
    top, place = -1.0, 0
    base = 0.0
    for k in range(n_band):
        for c in range(WIDTH):
            s.left[k, c] = 0.0
        for c in range(p):
            # the whole stretch: s.right was made for all columns that it carries
            base += s.z[k, c] ** 2
    at = 0
    for node in range(least, m - least + 1, stride):
        for k in range(n_band):
            yy = s.y[k, a + at : a + node]
            for c in range(p):
                xx = x[c, a + at : a + node]
                dot = 0.0
                for i in range(node - at):
                    dot += yy[i] * xx[i]
                s.left[k, c] += dot
        at = node
        if years[a + node - 1] - years[a] < TREND_YEARS or years[b - 1] - years[a + node] < TREND_YEARS:
            continue
        if factor(total, a, a + node, p, 0.0, s.side) < p:
            continue
        gain = -base
        for k in range(n_band):
            forward(s.side, s.left[k], p, s.zs)
            for c in range(p):
                gain += s.zs[c] ** 2
        if factor(total, a + node, b, p, 0.0, s.side) < p:
            continue
        for k in range(n_band):
            for c in range(p):
                s.rest[c] = s.right[k, c] - s.left[k, c]
            forward(s.side, s.rest, p, s.zs)
            for c in range(p):
                gain += s.zs[c] ** 2
        if gain > top:
            top, place = gain, node
    return top, place


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def examine(w, x, total, years, a, b, order, free, cuts, limits, common, s):
    """Is there a change anywhere between observations a and b?

    limits : `change_limits`
    common : squared step (noise variances) that a shift shared by later scenes may cause
    Returns kind (0: none), its place and its end (-1 unless PASSING), the factor by which autocorrelation widens
    sums, and the log of the odds of a change against none (equal prior chances).
    """
    n_band = w.shape[0]
    m = b - a
    if m < 2 * SHORTEST:
        return 0, -1, -1, 1.0, 0.0
    p, squares, _ = fit(w, x, total, years, a, b, order, free, 0.0, cuts, s)
    held = years[b - 1] - years[a] < TREND_YEARS
    own = p - 1 if held else p
    freedom = n_band * (m - own)
    if p == 0 or freedom < 3 * n_band:
        return 0, -1, -1, 1.0, 0.0
    squares = max(squares, 1e-3 * m * n_band)
    step_sums(total, a, b, p, n_band, s)
    top, place = best_step(m, n_band, s)
    pass_top, begin, length = best_passing(m, p, n_band, s)
    season_top, other = -1.0, 0
    if m >= 2 * (p + 6):
        season_top, other = best_season(x, total, years, a, b, p, n_band, s)
    scale = freedom - 0.5 * n_band - 1.0
    scale_season = freedom - 0.5 * n_band * own - 1.0
    noise = squares / freedom
    info = max(place - s.h[place], 0.3)
    # what may be off by itself widens the place of a step the more, the better that is known
    loose = info * common / noise
    loose_pass = length * common / noise
    loose_season = min(other, m - other) * common / noise
    step = ratio(top, squares, scale)
    passing = ratio(pass_top, squares, scale)
    season = ratio(season_top, squares, scale_season)
    top_season = limits[1 + p // 2, m]
    over = step > limits[0, m] * (1.0 + loose) or passing > limits[1, m] * (1.0 + loose_pass)
    over = over or season > top_season * (1.0 + loose_season)
    if not over:
        widen = follow(a, b, own, n_band, s)
        return 0, -1, -1, widen, odds(m, n_band, squares, scale, step / (widen + loose), widen, common / noise, s)
    # the widest kind of change that explains it tells how much is left in the residuals
    kind = STEP
    excess = step / (1.0 + loose) - limits[0, m]
    if passing / (1.0 + loose_pass) - limits[1, m] > excess:
        kind, excess = PASSING, passing / (1.0 + loose_pass) - limits[1, m]
    if season / (1.0 + loose_season) - top_season > excess:
        kind = SEASON
    first, last = a + place, -1
    if kind == PASSING:
        first, last = a + begin, a + begin + length
    elif kind == SEASON:
        first = a + other
    widen = dependence(w, x, total, years, a, first, last, b, order, free, cuts, s)
    step /= widen + loose
    step_sure = odds(m, n_band, squares, scale, step, widen, common / noise, s)
    passing /= widen + loose_pass
    season /= widen + loose_season
    rest = -np.inf
    if kind == PASSING:
        rest = 0.5 * passing - np.log(float(m)) - n_band * np.log(1.0 + EFFECT * np.sqrt(float(length)))
    elif kind == SEASON:
        rest = 0.5 * season - np.log(float(GRID)) - 0.5 * n_band * own * np.log(float(m))
    evidence = max(step_sure, rest)
    if step <= limits[0, m] and passing <= limits[1, m] and season <= top_season:
        return 0, -1, -1, widen, evidence
    return kind, first, last, widen, evidence


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def ratio(gain, squares, scale):
    """Likelihood ratio of a gain in the sum of squares, with Bartlett's factor: about chi-squared."""
    share = min(max(gain / squares, 0.0), 1.0 - 1e-12)
    return -max(scale, 0.0) * np.log(1.0 - share)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def odds(m, n_band, squares, scale, top, widen, common, s):
    """Log of the mean, over all places, of the evidence for a step there: a normal one of EFFECT noise sd a band."""
    lift = max(0.5 * top, 0.0)
    g, h = s.g, s.h
    sure, places = 0.0, 0
    # where nothing stands out, every fourth place tells the mean as well
    stride = 4 if lift < 3.0 and m > 100 else 1
    for i in range(SHORTEST, m - SHORTEST + 1, stride):
        places += 1
        info = max(i - h[i], 0.3)
        share = min(g[i] / squares, 1.0 - 1e-12)
        # -log(1 - share), to a per cent where it matters: far below the largest it adds nothing
        if share < 0.05:
            value = scale * share * (1.0 + 0.5 * share)
        else:
            value = -scale * np.log(1.0 - share)
        doubt = widen + info * common
        value = 0.5 * value / doubt
        if value < lift - 12.0:
            continue
        gain = EFFECT * EFFECT * info / doubt
        bulk = 1.0 + gain
        for _ in range(1, n_band):
            bulk *= 1.0 + gain
        sure += np.exp(value * gain / (1.0 + gain) - lift) / np.sqrt(bulk)
    return np.log(max(sure, 1e-300) / max(places, 1)) + lift


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def dependence(w, x, total, years, a, first, last, b, order, free, cuts, s):
    """By how much the variance of sums is larger than that of independent errors: (1 + r) / (1 - r), r the
    autocorrelation of neighbouring observations around fits of the two or three stretches a, first, (last,) b."""
    n_band = w.shape[0]
    above, below, used = 0.0, 0.0, 0
    for part in range(3):
        if part == 0:
            low, high = a, first
        elif part == 1:
            low, high = first, last if last > 0 else b
        elif last > 0:
            low, high = last, b
        else:
            break
        p, _, _ = fit(w, x, total, years, low, high, order, free, 0.0, cuts, s)
        if p == 0:
            continue
        used += p
        for k in range(n_band):
            e = s.e[k, low:high]
            for i in range(high - low - 1):
                above += e[i] * e[i + 1]
                below += e[i] * e[i]
    r = local_dependence(a, b, n_band, cuts, s) + SLACK
    return widening_of(min(above, r * below), below, used / (b - a))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def local_dependence(a, b, n_band, cuts, s):
    """Autocorrelation told by differences of observations next to each other and next but one, of the residuals s.e.

    They vary as 1 - r and 1 - r^2. Breaks that are not known yet touch a few of them only.
    """
    m = b - a - 2
    near, far = s.num[:m], s.den[:m]
    for i in range(m):
        near[i] = 0.0
        far[i] = 0.0
    for k in range(n_band):
        e0, e1, e2 = s.e[k, a : b - 2], s.e[k, a + 1 : b - 1], s.e[k, a + 2 : b]
        for i in range(m):
            near[i] += (e1[i] - e0[i]) ** 2
            far[i] += (e2[i] - e0[i]) ** 2
    one = trimmed_variance(near, m, cuts[0], cuts[1])
    two = trimmed_variance(far, m, cuts[0], cuts[1])
    return two / one - 1.0 if one > 0.0 else 1.0


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def follow(a, b, used, n_band, s):
    """The same from the residuals of one fit of a to b, s.e."""
    above, below = 0.0, 0.0
    for k in range(n_band):
        e = s.e[k, a : b - 1]
        after = s.e[k, a + 1 : b]
        for i in range(b - a - 1):
            above += e[i] * after[i]
            below += e[i] * e[i]
    return widening_of(above, below, used / (b - a))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def widening_of(above, below, lost):
    """(1 + r) / (1 - r) for r = above / below + lost, what fitting takes off it (about p / m)."""
    if below <= 0.0:
        return 1.0
    r = min(max(above / below + lost, 0.0), 0.9)
    return (1.0 + r) / (1.0 - r)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def two_fits(w, x, total, years, a, tau, b, order, free, soft, cuts, s):
    """Fits before and from observation tau on, s.before and s.after (n_band, WIDTH), and their variances (all bands).

    A stretch too short for a season of its own takes that of the other, and has its own level.
    """
    n_band = w.shape[0]
    p0, _, v0 = fit(w, x, total, years, a, tau, order, free, soft, cuts, s)
    for k in range(n_band):
        for c in range(WIDTH):
            s.before[k, c] = s.beta[k, c] if p0 > 0 else 0.0
    p1, _, v1 = fit(w, x, total, years, tau, b, order, free, soft, cuts, s)
    for k in range(n_band):
        for c in range(WIDTH):
            s.after[k, c] = s.beta[k, c] if p1 > 0 else 0.0
    short0 = columns_for(tau - a, years[tau - 1] - years[a], order) < columns_for(
        b - tau, years[b - 1] - years[tau], order
    )
    short1 = columns_for(b - tau, years[b - 1] - years[tau], order) < columns_for(
        tau - a, years[tau - 1] - years[a], order
    )
    if p0 == 0 or (short0 and p1 > 2):
        v0 = borrow(w, x, a, tau, p1, s.after, s.before, cuts, s)
    elif p1 == 0 or (short1 and p0 > 2):
        v1 = borrow(w, x, tau, b, p0, s.before, s.after, cuts, s)
    return v0, v1


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def borrow(w, x, a, b, p, shape, out, cuts, s):
    """out = shape with the level of the stretch a to b; returns the variance around it."""
    n_band = w.shape[0]
    m = b - a
    size = s.size[a:b]
    for i in range(m):
        size[i] = 0.0
    for k in range(n_band):
        for c in range(WIDTH):
            out[k, c] = shape[k, c]
        residuals(w[k], x, a, b, p, shape[k], s.e[k])
        level = np.median(s.e[k, a:b])
        out[k, 0] += level
        for i in range(m):
            size[i] += (s.e[k, a + i] - level) ** 2
    return trimmed_variance(size, m, cuts[0], cuts[1])


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def place(w, x, total, years, a, tau, b, order, free, soft, widen, cuts, s):
    """Most likely place of the break between a and b that is near tau, and the places that hold INSIDE of its chance.

    Returns the first changed observation, the earliest and the latest that it may be.
    """
    n_band = w.shape[0]
    low, high = tau, tau
    for _ in range(5):
        v0, v1 = two_fits(w, x, total, years, a, tau, b, order, free, soft, cuts, s)
        m0, m1 = tau - a, b - tau
        pooled = (v0 * m0 + v1 * m1) / (m0 + m1)
        # few residuals tell their variance badly; the fit's own error adds to it
        v0 = max((v0 * m0 + 20.0 * pooled) / (m0 + 20.0) * (1.0 + 2.0 / m0), 1e-3 * n_band)
        v1 = max((v1 * m1 + 20.0 * pooled) / (m1 + 20.0) * (1.0 + 2.0 / m1), 1e-3 * n_band)
        low, high = max(a + SHORTEST, tau - REACH), min(b - SHORTEST, tau + REACH)
        if high <= low:
            return tau, tau, tau
        run, best, found = 0.0, 0.0, low
        apart = 0.5 * n_band * (np.log(v0) - np.log(v1))
        s.num[0] = 0.0
        for i in range(low, high):
            e0, e1 = 0.0, 0.0
            for k in range(n_band):
                d0, d1 = w[k, i], w[k, i]
                for c in range(WIDTH):
                    d0 -= s.before[k, c] * x[c, i]
                    d1 -= s.after[k, c] * x[c, i]
                e0 += d0 * d0
                e1 += d1 * d1
            # loss of "still before" less that of "after already"; whoever fits neither says nothing
            run += 0.5 * n_band * (min(e0 / v0, cuts[2]) - min(e1 / v1, cuts[2])) + apart
            s.num[i - low + 1] = run
            if run < best:
                best, found = run, i + 1
        if found == tau:
            break
        tau = found
    whole = 0.0
    for i in range(low, high + 1):
        s.den[i - low] = np.exp(max((s.num[tau - low] - s.num[i - low]) / widen, -700.0))
        whole += s.den[i - low]
    early, late = tau, tau
    held = s.den[tau - low]
    while held < INSIDE * whole and (early > low or late < high):
        left = s.den[early - 1 - low] if early > low else -1.0
        right = s.den[late + 1 - low] if late < high else -1.0
        if left >= right:
            early -= 1
            held += left
        else:
            late += 1
            held += right
    return tau, early, late


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def segment(w, x, total, years, n, order, free, soft, cuts, limits, common, cp, widening, evidence, s):
    """All breaks of a series: fills cp (first changed observations, sorted), widening and evidence; returns their
    number, and the evidence of the whole series for any change."""
    count = np.int64(0)
    waiting = np.zeros((2 * MOST + 4, 2), np.int64)
    waiting[0, 1] = n
    n_waiting = np.int64(1)
    overall, widen_all = np.nan, 1.0
    while n_waiting > 0 and count < MOST - 1:
        n_waiting -= 1
        a, b = waiting[n_waiting, 0], waiting[n_waiting, 1]
        kind, first, last, widen, sure = examine(w, x, total, years, a, b, order, free, cuts, limits, common, s)
        if np.isnan(overall):
            overall, widen_all = sure, widen
        if kind == 0:
            continue
        if kind != PASSING:
            first, _, _ = place(w, x, total, years, a, first, b, order, free, soft, widen, cuts, s)
        for begin in (first, last):
            if begin > 0:
                cp[count] = begin
                count += 1
                waiting[n_waiting, 0], waiting[n_waiting, 1] = a, begin
                n_waiting += 1
                a = begin
        waiting[n_waiting, 0], waiting[n_waiting, 1] = a, b
        n_waiting += 1
    if count == 0:
        return count, overall
    cp[:count] = np.sort(cp[:count])
    # each break against its neighbours: those that are none any more go, the weakest first
    while True:
        for _ in range(3 if count > 1 else 1):
            moved = False
            for j in range(count):
                a = cp[j - 1] if j > 0 else 0
                b = cp[j + 1] if j + 1 < count else n
                there, _, _ = place(w, x, total, years, a, cp[j], b, order, free, soft, 1.0, cuts, s)
                moved = moved or there != cp[j]
                cp[j] = there
            if not moved:
                break
        if count == 1:
            widening[0], evidence[0] = widen_all, overall
            return count, overall
        weakest, least = -1, np.inf
        for j in range(count):
            a = cp[j - 1] if j > 0 else 0
            b = cp[j + 1] if j + 1 < count else n
            kind, _, _, widening[j], evidence[j] = examine(
                w, x, total, years, a, b, order, free, cuts, limits, common, s
            )
            if kind == 0 and evidence[j] < least:
                weakest, least = j, evidence[j]
        if weakest < 0:
            return count, overall
        for j in range(weakest, count - 1):
            cp[j] = cp[j + 1]
        count -= 1


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def noise_sd(e, n, s):
    """Noise sd from differences of neighbours, in spite of outliers and breaks."""
    size = s.size[: n - 1]
    for i in range(n - 1):
        size[i] = 0.5 * (e[i + 1] - e[i]) ** 2
    return np.sqrt(trimmed_variance(size, n - 1, TRIM_ONE, KEEP_ONE))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def whiten(w, e, n, cuts, level, s):
    """Scale and turn the rows of w (n_band, n) so that neighbouring dates differ by unit, uncorrelated noise; e (their
    residuals around one fit) likewise.

    level : (n_band,) what counts as rounding of each row; afterwards the noise sd of each
    """
    n_band = w.shape[0]
    for k in range(n_band):
        ee = e[k]
        sd = max(noise_sd(ee, n, s), level[k])
        level[k] = sd
        for i in range(n):
            w[k, i] /= sd
            ee[i] /= sd
    if n_band == 1:
        return
    # the covariance of what is left, single large differences drawn in
    for k in range(n_band):
        for c in range(k + 1):
            total = 0.0
            for i in range(n - 1):
                p = min(max(e[k, i + 1] - e[k, i], -4.0), 4.0)
                q = min(max(e[c, i + 1] - e[c, i], -4.0), 4.0)
                total += p * q
            s.cov[k, c] = 0.5 * total / (n - 1) + (0.02 if k == c else 0.0)
    for k in range(n_band):
        for c in range(k + 1):
            total = s.cov[k, c]
            for d in range(c):
                total -= s.cov[k, d] * s.cov[c, d]
            s.cov[k, c] = total / s.cov[c, c] if c < k else np.sqrt(max(total, 1e-3))
    for k in range(n_band):
        for c in range(k):
            g = s.cov[k, c]
            for i in range(n):
                w[k, i] -= g * w[c, i]
                e[k, i] -= g * e[c, i]
        g = 1.0 / s.cov[k, k]
        for i in range(n):
            w[k, i] *= g
            e[k, i] *= g


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def middle(a, b, c):
    """Median of three."""
    return max(min(a, b), min(max(a, b), c))


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def spikes(e, n, limit, keep):
    """Mark observations that lie off the medians of the three before and of the three after, the same way: keep[i]
    False. e : (n_band, n) whitened residuals; limit : squared distance. Returns how many are kept."""
    n_band = e.shape[0]
    kept = 0
    for i in range(n):
        keep[i] = True
        if 3 <= i < n - 3:
            back, ahead, along = 0.0, 0.0, 0.0
            for k in range(n_band):
                ee = e[k]
                p = ee[i] - middle(ee[i - 1], ee[i - 2], ee[i - 3])
                q = ee[i] - middle(ee[i + 1], ee[i + 2], ee[i + 3])
                back += p * p
                ahead += q * q
                along += p * q
            keep[i] = back < limit or ahead < limit or along < 0.0
        kept += int(keep[i])
    return kept


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def find(cube, steep, x, rows, years, shown, order, free, soft, cuts, limits, spike, drift, shift, prior, most):
    """Breaks of every pixel.

    cube : (n_pixel, n_band, n_time) float32, NaN = not observed (a date counts where all bands are there)
    steep : (n_pixel, n_band) squared gradient of the image, units^2 / px^2
    x : (WIDTH, n_time) `segments.regressors`; rows : their `products`; years : (n_time,)
    shown : the last band takes no part in finding; magnitudes are those of the last band either way
    order, free : most harmonics, and whether the data choose
    soft : ridge on trends; cuts, limits : see `fit`, `examine`; spike : squared distance of a spike
    drift : squared step (noise variances) that is no change
    shift : squared px by which later scenes may lie off together
    prior : chance that a pixel changes; most : breaks kept

    Returns arrays over pixels: outcome (1 changed, 0 not, -1 never observed, -2 too few), n_obs, n_changes,
    probability, noise (sd of the last band); and (n_pixel, most) over breaks in the order of time: date, after, by
    (indices of dates, -1 none), magnitude, chance, sureness (log of the evidence: it ranks those whose chance is 1).
    """
    n_pixel, n_all, n_time = cube.shape
    n_band = n_all - 1 if shown else n_all
    outcome = np.zeros(n_pixel, np.int8)
    n_obs = np.zeros(n_pixel, np.uint16)
    n_changes = np.zeros(n_pixel, np.uint16)
    probability = np.full(n_pixel, np.nan, np.float32)
    noise = np.full(n_pixel, np.nan, np.float32)
    date = np.full((n_pixel, most), -1, np.int32)
    after = np.full((n_pixel, most), -1, np.int32)
    by = np.full((n_pixel, most), -1, np.int32)
    magnitude = np.full((n_pixel, most), np.nan, np.float32)
    chance = np.full((n_pixel, most), np.nan, np.float32)
    sureness = np.full((n_pixel, most), -np.inf, np.float32)

    s = space(n_all, n_time)
    at = np.empty(n_time, np.int64)
    keep = np.empty(n_time, np.bool_)
    level = np.empty(n_all)
    values = np.empty((n_all, n_time))
    w = np.empty((n_all, n_time))
    own = np.empty((1, n_time))
    e = np.empty((n_all, n_time))
    xs = np.zeros((WIDTH, n_time))
    ys = np.empty(n_time)
    total = np.zeros((n_time + 1, PACKED))
    cp = np.empty(MOST, np.int64)
    widening, evidence = np.empty(MOST), np.empty(MOST)
    picked = np.empty(MOST, np.int64)
    start, chosen = np.int64(0), np.bool_(False)
    for pixel in range(n_pixel):
        n = np.int64(0)
        for t in range(n_time):
            seen = True
            for k in range(n_all):
                seen = seen and np.isfinite(cube[pixel, k, t])
            if seen:
                at[n] = t
                n += 1
        n_obs[pixel] = n
        if n < 2 * SHORTEST:
            outcome[pixel] = -1 if n == 0 else -2
            continue
        for k in range(n_all):
            mean, size = 0.0, 0.0
            for i in range(n):
                v = float(cube[pixel, k, at[i]])
                values[k, i] = v
                mean += v
                size += abs(v)
            mean /= n
            # noise below a ten-thousandth of the level is rounding, not noise
            level[k] = 1e-4 * size / n + 1e-12
            for i in range(n):
                values[k, i] -= mean
                w[k, i] = values[k, i]
        for i in range(n):
            ys[i] = years[at[i]]
        for c in range(WIDTH):
            for i in range(n):
                xs[c, i] = x[c, at[i]]
        running(rows, at, 0, n, total)
        for k in range(n_all):
            p, _, _ = fit(w[k : k + 1], xs, total, ys, start, n, order, chosen, 0.0, ONE, s)
            residuals(w[k], xs, start, n, p, s.beta[0], e[k])
        sd = noise_sd(e[n_all - 1], n, s)
        whiten(w[:n_band], e[:n_band], n, cuts, level, s)
        kept = spikes(e[:n_band], n, spike, keep)
        if kept < n and kept >= 2 * SHORTEST:
            same = np.int64(0)
            while keep[same]:
                same += 1
            j = same
            for i in range(same, n):
                if keep[i]:
                    at[j] = at[i]
                    ys[j] = ys[i]
                    for k in range(n_all):
                        values[k, j] = values[k, i]
                        w[k, j] = w[k, i]
                    for c in range(WIDTH):
                        xs[c, j] = xs[c, i]
                    j += 1
            n = kept
            running(rows, at, same, n, total)
        common = drift
        for k in range(n_band):
            common = max(common, drift + shift * steep[pixel, k] / level[k] ** 2)
        count, overall = segment(
            w[:n_band], xs, total, ys, n, order, free, soft, cuts, limits, common, cp, widening, evidence, s
        )
        noise[pixel] = sd
        logit = np.log(prior / (1.0 - prior))
        best = overall
        for j in range(count):
            best = max(best, evidence[j])
        probability[pixel] = 1.0 / (1.0 + np.exp(-min(max(best + logit, -700.0), 700.0)))
        n_changes[pixel] = count
        if count == 0:
            continue
        outcome[pixel] = 1
        # of many, the surest are kept, in the order of time
        n_kept = min(count, most)
        for j in range(count):
            picked[j] = j
        if count > most:
            ranked = np.argsort(-evidence[:count])
            picked[:n_kept] = np.sort(ranked[:n_kept])
        last_band = n_all - 1
        for i in range(n):
            own[0, i] = values[last_band, i]
        for j in range(n_kept):
            q = picked[j]
            a = cp[q - 1] if q > 0 else 0
            b = cp[q + 1] if q + 1 < count else n
            tau, early, late = place(w[:n_band], xs, total, ys, a, cp[q], b, order, free, soft, widening[q], cuts, s)
            date[pixel, j] = at[tau]
            after[pixel, j] = at[early - 1]
            by[pixel, j] = at[late]
            two_fits(own, xs, total, ys, a, tau, b, order, free, soft, ONE, s)
            magnitude[pixel, j] = s.after[0, 0] - s.before[0, 0] + (s.after[0, 1] - s.before[0, 1]) * xs[1, tau]
            chance[pixel, j] = 1.0 / (1.0 + np.exp(-min(max(evidence[q] + logit, -700.0), 700.0)))
            sureness[pixel, j] = evidence[q]
    return outcome, n_obs, n_changes, probability, noise, date, after, by, magnitude, chance, sureness


@njit(nogil=True, cache=True)
def space(n_band, n_time):
    """Room to work in, made once for all pixels."""
    return Space(
        np.empty((n_band, n_time)),
        np.empty((n_band, n_time)),
        np.zeros((n_band, WIDTH)),
        np.zeros((WIDTH, WIDTH)),
        np.zeros((WIDTH, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.zeros(WIDTH),
        np.zeros(WIDTH),
        np.zeros((n_band, WIDTH)),
        np.zeros((n_band, WIDTH)),
        np.empty(n_time + 1),
        np.empty((n_band, n_time + 1)),
        np.empty((WIDTH, n_time + 1)),
        np.empty(n_time + 1),
        np.empty(n_time + 1),
        np.empty(n_time + 1),
        np.empty(n_time + 1),
        np.zeros((n_band, n_band)),
    )
