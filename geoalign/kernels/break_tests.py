"""Is there a change in a stretch: likelihood ratios of a step, a passing step and another season, and their limits.

With them the odds of a change, and how much the autocorrelation of the errors takes off.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.stats import chi2

from geoalign.kernels.break_dependence import dependence, follow, joint_dependence, pair_normal, restlessness
from geoalign.kernels.break_fit import SHORTEST, TREND_YEARS, columns_for, fit
from geoalign.kernels.segments import FAST, WIDTH, factor, forward

PULSES = np.array([6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512])
"""Lengths of passing steps that are looked for, in observations."""

PAIR_GRID = 28
"""Places at which two steps at once are looked for."""

LEFT_OVER = 1.5
"""Two steps are looked for where one change leaves so much of the variance that neighbouring dates tell."""

EXPLAINED = 1.35
"""What leaves no more than so much of that variance explains a stretch: whatever season changes leaves more."""

GRID = 16
"""Places at which a change of season and trend is looked for; the best is refined afterwards."""

STEP, PASSING, SEASON = 1, 2, 3

FEW = 100
"""Observations of a series below which those of a short end may be lost as outliers."""

EFFECT = 3.0
"""Typical size of a step in noise standard deviations, for the probability."""

PLACES = {"step": (42.0, 0.6), "passing": (200.0, 1.3), "season": (8.0, 0.5)}
"""Independent places that the largest of each kind stands for: at 100 observations, and the power of n it goes by."""


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
def pair_gain(i, j, p, n_band, s):
    """How much two steps, at i and j > i, of any sizes take off the sum of squares."""
    one, two, both, rest = pair_normal(i, j, p, s)
    gain = 0.0
    for k in range(n_band):
        a, b = s.sums[k, i], s.sums[k, j]
        gain += (two * a * a - 2.0 * both * a * b + one * b * b) / rest
    return gain


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def best_pair(m, p, n_band, s):
    """Two steps at once, from `step_sums`: the largest fall of the sum of squares, and their places.

    One of two steps alone leaves the other in the residuals, where it looks like noise, and trend and season bend to
    both: a staircase of two can hide from a test for one. Looked for on PAIR_GRID places, then one after the other.
    """
    stride = max(1, (m - 2 * SHORTEST) // PAIR_GRID)
    top, first, last = -1.0, SHORTEST, 2 * SHORTEST
    for i in range(SHORTEST, m - 2 * SHORTEST + 1, stride):
        for j in range(i + SHORTEST, m - SHORTEST + 1, stride):
            gain = pair_gain(i, j, p, n_band, s)
            if gain > top:
                top, first, last = gain, i, j
    for _ in range(3):
        before = top
        for i in range(max(SHORTEST, first - stride), min(last - SHORTEST, first + stride) + 1):
            gain = pair_gain(i, last, p, n_band, s)
            if gain > top:
                top, first = gain, i
        for j in range(max(first + SHORTEST, last - stride), min(m - SHORTEST, last + stride) + 1):
            gain = pair_gain(first, j, p, n_band, s)
            if gain > top:
                top, last = gain, j
        if top == before:
            break
    return top, first, last


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
def examine(w, x, total, years, a, b, order, free, cuts, limits, common, few, s):
    """`tested` of a stretch; where the series is of FEW observations and nothing is found, of its values uncut as well.

    The last six of thirty are as good as outliers to a robust fit of all, however far off they lie.
    """
    kind, first, last, widen, evidence = tested(w, x, total, years, a, b, order, free, cuts, limits, common, s)
    if kind == 0 and few:
        uncut = (cuts[0], cuts[1], 1e12)
        found = tested(w, x, total, years, a, b, order, free, uncut, limits, common, s)
        if found[0] != 0:
            return found
    return kind, first, last, widen, evidence


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def tested(w, x, total, years, a, b, order, free, cuts, limits, common, s):
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
    gained = top if kind == STEP else pass_top if kind == PASSING else season_top
    two, joint, i, j = -1.0, np.inf, place, 0
    if (squares - gained) / freedom > LEFT_OVER and m >= 4 * SHORTEST:
        pair_top, i, j = best_pair(m, p, n_band, s)
        two = ratio(pair_top, squares, scale)
        if two < max(step, passing, season) + limits[0, m] or (squares - pair_top) / freedom > EXPLAINED:
            two, i, j = -1.0, place, 0
    elif kind == PASSING:
        i, j = begin, begin + length
    if two > 0.0 or (kind != SEASON and (squares - gained) / freedom < EXPLAINED):
        # parts that carry the season by themselves tell more: it may differ between them
        ends = (0, i, j, m) if j > 0 else (0, i, m, m)
        for k in range(3):
            low, high = a + ends[k], a + ends[k + 1]
            if high > low and columns_for(high - low, years[high - 1] - years[low], order) < p:
                joint = joint_dependence(a, b, i, j, p, n_band, cuts, s)
                break
    if two > 0.0:
        widen = min(dependence(w, x, total, years, a, a + i, a + j, b, order, free, cuts, s), joint)
        pace = 2.0 * (years[b - 1] - years[a]) / m
        widen *= max(
            restlessness(i, 0, min(i, m - i) * pace, n_band, s), restlessness(j, i, min(j - i, m - j) * pace, n_band, s)
        )
        two /= widen + max(i - s.h[i], j - s.h[j], 0.3) * common / noise
        if two > limits[0, m] + limits[1, m]:
            evidence = 0.5 * two - 2.0 * np.log(float(m)) - 2.0 * n_band * np.log(1.0 + EFFECT * np.sqrt(m / 3.0))
            return PASSING, a + i, a + j, widen, evidence
        joint = np.inf
    widen = min(dependence(w, x, total, years, a, first, last, b, order, free, cuts, s), joint)
    # half years an observation
    pace = 2.0 * (years[b - 1] - years[a]) / m
    restless = restlessness(begin + length, begin, length * pace, n_band, s)
    between = widen
    passing /= restless
    season /= max(restlessness(other, 0, 1.0, n_band, s), restless)
    widen *= restlessness(place, 0, min(place, m - place) * pace, n_band, s)
    step /= widen + loose
    step_sure = odds(m, n_band, squares, scale, step, widen, common / noise, s)
    passing /= between + loose_pass
    season /= between + loose_season
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
