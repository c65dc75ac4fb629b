"""Cumulative sums of prediction errors, with a boundary that holds its level for any length of watching.

For a start j, everything before j is the reference: a harmonic fit beta_{j-1}, s_{j-1} with d degrees of freedom. The
sum of the prediction errors of m observations from j has variance s^2 (m + u' (X'X)^-1 u), u the sum of their
regressors, so that its standardised value is exactly Student-t under "no change", however few the observations and
however far the trend is extrapolated. It is carried to the normal scale, and the largest over all starts and over
lengths m spaced by about sqrt 2 is compared with a boundary simulated once for n watched observations.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.harmonic import TREND_SD, add_observation, choose_order, free_trend, leverage, predict, robust_fit

CAP = 3.0
"""Standardised errors are cut here, so that single undetected clouds carry no alarm: three observations are needed."""

FAR = 4.5
"""Single observations so many sd off are a first sign of change, where they are the last ones."""

COMMON = 0.55
"""Part of `sigma_px` that later scenes may share, all lying off the same way; the rest is each scene's own. A shift of
a whole sigma_px that stays is still no change along sharp borders (`tests/detectors/test_harmonic_cusum.py`)."""

TREND_YEARS = 1.9
"""Years of reference after which the data alone tell the trend."""

KEPT_VARIANCE = 0.9757
"""Variance of standard normal errors that are not beyond `CAP`."""

LENGTHS = np.array([3, 4, 5, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024])
"""Sums are taken over so many observations."""

ALPHAS = np.array([0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0001])
BOUNDARIES = np.array([
    (0.674, 1.280, 1.642, 1.953, 2.314, 2.558, 2.782, 3.054, 3.236, 3.775),
    (1.006, 1.588, 1.936, 2.236, 2.582, 2.816, 3.032, 3.293, 3.471, 4.005),
    (1.212, 1.780, 2.117, 2.407, 2.742, 2.973, 3.185, 3.440, 3.620, 4.144),
    (1.355, 1.917, 2.245, 2.530, 2.859, 3.084, 3.287, 3.540, 3.717, 4.224),
    (1.558, 2.106, 2.425, 2.700, 3.020, 3.236, 3.438, 3.676, 3.850, 4.346),
    (1.764, 2.293, 2.600, 2.863, 3.171, 3.382, 3.576, 3.811, 3.975, 4.474),
    (1.989, 2.494, 2.784, 3.036, 3.330, 3.531, 3.718, 3.944, 4.109, 4.601),
    (2.162, 2.647, 2.926, 3.169, 3.454, 3.648, 3.830, 4.055, 4.214, 4.680),
    (2.354, 2.815, 3.082, 3.314, 3.591, 3.778, 3.954, 4.167, 4.323, 4.810),
    (2.516, 2.955, 3.210, 3.435, 3.700, 3.884, 4.057, 4.266, 4.414, 4.893),
    (2.673, 3.094, 3.340, 3.556, 3.814, 3.993, 4.159, 4.367, 4.511, 4.969),
    (2.815, 3.219, 3.455, 3.663, 3.913, 4.087, 4.252, 4.458, 4.606, 5.045),
    (2.955, 3.340, 3.567, 3.770, 4.012, 4.178, 4.339, 4.534, 4.677, 5.110),
    (3.083, 3.454, 3.673, 3.869, 4.103, 4.267, 4.426, 4.615, 4.755, 5.167),
    (3.208, 3.563, 3.776, 3.967, 4.199, 4.362, 4.510, 4.707, 4.839, 5.313),
    (3.325, 3.669, 3.874, 4.058, 4.279, 4.431, 4.580, 4.768, 4.892, 5.346),
    (3.438, 3.766, 3.966, 4.145, 4.365, 4.514, 4.659, 4.844, 4.970, 5.371),
    (3.544, 3.863, 4.057, 4.231, 4.444, 4.597, 4.738, 4.928, 5.059, 5.529),
    (3.646, 3.958, 4.146, 4.316, 4.524, 4.669, 4.810, 4.981, 5.102, 5.543),
])  # fmt: skip
"""Boundary by watched observations (rows, the numbers of `LENGTHS`) and level (`ALPHAS`): quantiles of the largest
standardised sum of n independent normal errors cut at `CAP`, from 200,000 to 2,000,000 simulated series a row
(`tests/kernels/test_cusum.py` simulates some of them again)."""

FEW_PAIRS, MOST_FOLLOW = 60, 0.8
"""Pairs of neighbouring errors from which their autocorrelation is told, and the largest that is believed."""

FIELDS = 12
"""Numbers that `scan` gives for a pixel, see there."""


def boundaries(alpha: float, n_max: int):
    """Boundary of the standardised sums for 0 .. n_max watched observations; inf where fewer than three were watched.

    Between the table's levels and lengths the squared boundary is linear in log alpha, the boundary in log n; beyond
    them the last slope goes on.
    """
    at = np.log(np.asarray(alpha, float))
    squares = np.array([_line(at, np.log(ALPHAS[::-1]), row[::-1] ** 2) for row in BOUNDARIES])
    n = np.arange(n_max + 1)
    out = np.full(n_max + 1, np.inf)
    watched = n >= LENGTHS[0]
    out[watched] = [_line(v, np.log(LENGTHS), np.sqrt(np.maximum(squares, 0.0))) for v in np.log(n[watched])]
    return out


def _line(at, xs, ys):
    """Linear interpolation that goes on with the last slope outside."""
    k = int(np.clip(np.searchsorted(xs, at) - 1, 0, xs.size - 2))
    return ys[k] + (ys[k + 1] - ys[k]) * (at - xs[k]) / (xs[k + 1] - xs[k])


@njit(nogil=True, cache=True)
def student_to_normal(t, df):
    """A Student-t value with df degrees of freedom on the normal scale (Wallace 1959; within 4 %, df >= 3)."""
    z = (8.0 * df + 1.0) / (8.0 * df + 3.0) * np.sqrt(df * np.log1p(t * t / df))
    return z if t >= 0.0 else -z


@njit(nogil=True, cache=True)
def normal_to_student(z, df):
    """The other way round, z >= 0."""
    u = z * (8.0 * df + 3.0) / (8.0 * df + 1.0)
    return np.sqrt(df * np.expm1(u * u / df))


@njit(nogil=True, cache=True)
def scan(series, x, years, first, widening, spread, order, bound, direction, prior, effect, cap):
    """Watch every pixel's series, and date its strongest change.

    series : (n_pixel, n_time) float32, NaN = not observed
    x : (n_time, p) `harmonic.regressors`; years : (n_time,) fractional years
    first : number of the first watched scene; below 0: the history ends before scene -first, and pixels with too few
        observations until then take more
    widening : (n_pixel,) squared gradient of the image, units^2 / px^2; spread : (n_time,) squared sigma_px
    order : harmonics; bound : (n_time + 1,) boundary by watched observations, from `boundaries`
    direction : -1 only drops, +1 only rises, 0 both
    prior : chance that a pixel changes; effect : typical size of a change in noise sd
    cap : errors are cut at so many sd

    Returns (n_pixel, FIELDS) float64: 0 outcome (0 none, 1 confirmed, 2 confirmed and over, 3 the last two or more
    observations far off, 4 the last one; -1 never observed, -2 too few, -3 too few watched), 1 index of the first
    changed scene, 2 of the last scene surely before, 3 of the scene by which it had changed, 4 of the confirming scene,
    5 magnitude, 6 probability, 7 observations, 8 largest standardised sum over its boundary, 9 index of the scene at
    which it was over, 10 noise sd, 11 number of regressors. Indices are -1 where there is none.
    """
    n_pixel, n_time = series.shape
    out = np.full((n_pixel, FIELDS), np.nan)
    p_max = x.shape[1]
    at = np.empty(n_time, np.int64)
    y = np.empty(n_time)
    xs = np.empty((n_time, p_max))
    extra = np.empty(n_time)
    error = np.empty(n_time)
    crossing = np.empty(n_time, np.int64)
    keep = np.empty(n_time)
    inverse, best_inverse = np.empty((p_max, p_max)), np.empty((p_max, p_max))
    beta, best_beta = np.empty(p_max), np.empty(p_max)
    sums = np.empty(p_max)
    running = np.zeros((n_time + 1, p_max))
    for pixel in range(n_pixel):
        for k in (1, 2, 3, 4, 9):
            out[pixel, k] = -1
        n = 0
        level = 0.0
        for t in range(n_time):
            v = series[pixel, t]
            if np.isfinite(v):
                at[n] = t
                y[n] = v
                extra[n] = widening[pixel] * spread[t]
                level += abs(y[n])
                n += 1
        out[pixel, 7] = n
        if n == 0:
            out[pixel, 0] = -1
            continue
        start = 0
        while start < n and at[start] < abs(first):
            start += 1
        p = choose_order(start, order)
        while p == 0 and first < 0 and start < n:
            start += 1
            p = choose_order(start, order)
        watched = n - start
        if p == 0 or watched < LENGTHS[0]:
            out[pixel, 0] = -2 if p == 0 else -3
            continue
        for i in range(n):
            for a in range(p):
                xs[i, a] = x[at[i], a]
                running[i + 1, a] = running[i, a] + xs[i, a]
        # less than two years can't tell a trend from the season: it is then held near zero, and its doubt widens
        ridge = 1.0 / TREND_SD**2 if years[at[start - 1]] - years[at[0]] < TREND_YEARS else 0.0
        squares = robust_fit(xs, y, start, p, ridge, keep, inverse, beta)
        if squares < 0.0:
            out[pixel, 0] = -2
            continue
        # what is known of the trend counts as one observation of it
        used = 1 if ridge > 0.0 else 0
        squares += ridge * beta[1 if p == 2 else 3] ** 2
        for i in range(start):
            used += int(keep[i])
        # noise below a ten-thousandth of the level is rounding, not noise
        floor = (1e-4 * level / n + 1e-12) ** 2
        # what a shift of its own for every scene makes of the series is in the noise of the history already
        usual = 0.0
        for i in range(start):
            usual += extra[i] / start
        # products of neighbouring errors, and squares, of the reference: how far they follow each other
        above, below, pairs, last = 0.0, 0.0, 0, np.nan
        for i in range(start):
            e = y[i] - predict(xs[i], beta, p) if keep[i] > 0.0 else np.nan
            below += e * e if keep[i] > 0.0 else 0.0
            if not np.isnan(e * last):
                above += e * last
                pairs += 1
            last = e
        taken_off = p * pairs / max(start, 1)
        limit = bound[watched]
        best_start, best_end, top, best_variance = -1, -1, 0.0, 0.0
        persistent, passing, n_passing, largest = 0.0, 0.0, 0, 0.0
        for j in range(start, n):
            crossing[j] = n
            if ridge > 0.0 and years[at[j - 1]] - years[at[0]] >= TREND_YEARS:
                squares -= free_trend(ridge, inverse, beta, p)
                used -= 1
                ridge = 0.0
            df = used - p
            variance = max(squares / df, floor)
            follow = autocorrelation(above, below, pairs, taken_off, floor)
            long_run = (1.0 + follow) / (1.0 - follow)
            cut = normal_to_student(cap, df)
            total, square, added, spare, single = 0.0, 0.0, 0.0, 0.0, 0.0
            scale, first_error, first_size = 0, 0.0, 0.0
            for k in range(j, n):
                m = k - j + 1
                if k == j or m == LENGTHS[scale] + 1:
                    # the spread of a single error grows slowly with its distance: taken anew at each of the lengths
                    single = variance * (1.0 + leverage(xs[k], inverse, p))
                    scale += 1 if k > j and scale < LENGTHS.size - 1 else 0
                size = np.sqrt(single + extra[k]) * cut
                e = y[k] - predict(xs[k], beta, p)
                if k == j:
                    first_error, first_size = e, size
                e = min(max(e, -size), size)
                total += e
                square += e * e
                added += np.sqrt(extra[k])
                spare += max(extra[k] - usual, 0.0)
                on_scale = m == LENGTHS[scale]
                if not on_scale and k < n - 1:
                    continue
                for a in range(p):
                    sums[a] = running[k + 1, a] - running[j, a]
                # the noise from both sides: around the fit before, and around their own mean after
                pooled = max((squares + square - total * total / m) / (df + m - 1), floor)
                # what scenes may lie off all the same way adds up, it does not average out
                own = m * long_run - 2.0 * follow * (1.0 - follow**m) / (1.0 - follow) ** 2
                sd = np.sqrt(pooled * (own + long_run * leverage(sums, inverse, p)) + spare + (COMMON * added) ** 2)
                z = student_to_normal(total / sd, df + m - 1)
                if direction * z < 0.0:
                    z = 0.0
                ratio = bayes_factor(z, pooled * m * m / (sd * sd), effect)
                if k == n - 1:
                    persistent += ratio
                if not on_scale:
                    continue
                passing += ratio
                n_passing += 1
                largest = max(largest, abs(z))
                if abs(z) > limit:
                    crossing[j] = min(crossing[j], k)
                    if abs(z) > abs(top):
                        best_start, best_end, top, best_variance = j, k, z, variance
                        best_beta[:] = beta
                        best_inverse[:] = inverse
            if abs(first_error) <= first_size:
                e = first_error / np.sqrt(1.0 + leverage(xs[j], inverse, p))
                squares += e * e / KEPT_VARIANCE
                used += 1
                below += e * e
                if not np.isnan(last):
                    above += e * last
                    pairs += 1
                last = e
                add_observation(xs[j], first_error, inverse, beta, p)
            else:
                last = np.nan
        odds = 0.8 * persistent / watched + 0.2 * passing / max(n_passing, 1)
        odds *= prior / (1.0 - prior)
        out[pixel, 6] = odds / (1.0 + odds)
        out[pixel, 8] = largest / limit
        out[pixel, 10] = np.sqrt(best_variance if best_start >= 0 else max(squares / (used - p), floor))
        out[pixel, 11] = p
        if best_start < 0:
            # the reference has left the far-off observations out: how many of the last ones are
            variance = max(squares / (used - p), floor)
            cut = normal_to_student(FAR, used - p)
            tail = 0
            while tail < watched:
                i = n - 1 - tail
                e = y[i] - predict(xs[i], beta, p)
                size = np.sqrt(variance * (1.0 + leverage(xs[i], inverse, p)) + extra[i]) * cut
                if abs(e) <= size or direction * e < 0.0 or (tail > 0 and e * error[n - 1] < 0.0):
                    break
                error[i] = e
                tail += 1
            out[pixel, 0] = 0 if tail == 0 else 4 if tail == 1 else 3
            if tail > 0:
                out[pixel, 1] = at[n - tail]
                out[pixel, 2] = at[n - tail - 1]
                out[pixel, 3] = at[n - tail]
                out[pixel, 4] = at[n - 1] if tail > 1 else -1
                out[pixel, 5] = np.median(error[n - tail : n])
            continue
        for i in range(start, n):
            error[i] = y[i] - predict(xs[i], best_beta, p)
            error[i] /= np.sqrt(best_variance * (1.0 + leverage(xs[i], best_inverse, p)) + extra[i])
        found, earliest, latest, over = locate(error, start, n, best_start, best_end, cap)
        confirmed = best_end
        for j in range(max(start, found - 2), min(found + 3, n)):
            if crossing[j] > found:
                confirmed = min(confirmed, crossing[j])
        out[pixel, 0] = 1 if over < 0 else 2
        out[pixel, 1] = at[found]
        out[pixel, 2] = at[earliest - 1]
        out[pixel, 3] = at[latest]
        out[pixel, 4] = at[confirmed]
        out[pixel, 9] = at[over] if over >= 0 else -1
        until = over if over >= 0 else n
        for i in range(found, until):
            error[i] = y[i] - predict(xs[i], best_beta, p)
        out[pixel, 5] = np.median(error[found:until])
    return out


@njit(nogil=True, cache=True)
def autocorrelation(above, below, pairs, taken_off, floor):
    """Autocorrelation of neighbouring errors, from the sum of their products and that of squares, 0 to MOST_FOLLOW.

    taken_off : what a fit takes off it, times pairs. A tenth of a standard error is put on top: too little of it lets
    more through than too much keeps out. Few pairs tell it too badly, as does rounding (floor: its variance): none is
    assumed then.
    """
    if pairs < FEW_PAIRS or below <= floor * pairs:
        return 0.0
    r = above / below + (taken_off + 0.1 * np.sqrt(pairs)) / pairs
    return min(max(r, 0.0), MOST_FOLLOW)


@njit(nogil=True, cache=True)
def bayes_factor(z, information, effect):
    """Evidence for a step against none, from its standardised estimate and its information (in observations).

    The step is taken as normal with standard deviation `effect` noise sd (Wakefield 2009, eq. 2).
    """
    gain = effect * effect * information
    return np.exp(min(0.5 * z * z * gain / (1.0 + gain), 600.0)) / np.sqrt(1.0 + gain)


@njit(nogil=True, cache=True)
def locate(error, start, n, begin, end, cap):
    """Where the step began, by the smallest cut squared error over all places around the largest sum's begin.

    error : standardised prediction errors, [start, n) are used; begin, end : first and last observation of that sum
    Returns the first changed observation, the earliest and latest likely ones (within 2 of the log likelihood, about
    95 %), and the observation at which it was over again (-1 where it lasts).
    """
    reach = max(6, (end - begin + 1) // 2)
    low, last = max(start, begin - reach), min(begin + reach, end - 1)
    step = np.median(error[begin : end + 1])
    found = begin
    loss = np.zeros(last - low + 1)
    for _ in range(3):
        # loss of "unchanged before tau, changed from tau on", from its first value and differences
        total = 0.0
        for i in range(low, end + 1):
            total += 0.5 * min((error[i] - step) ** 2, cap * cap)
        for tau in range(low, last + 1):
            loss[tau - low] = total
            total += 0.5 * (min(error[tau] ** 2, cap * cap) - min((error[tau] - step) ** 2, cap * cap))
        found = low + np.argmin(loss)
        step = np.median(error[found : end + 1])
    earliest, latest = found, found
    for tau in range(low, last + 1):
        if loss[tau - low] <= loss[found - low] + 2.0:
            earliest, latest = min(earliest, tau), max(latest, tau)
    # over: from the end backwards, how much better "back to normal" explains the tail than "still changed"
    gain, best, over = 0.0, 8.0, -1
    for i in range(n - 1, latest, -1):
        gain += 0.5 * (min((error[i] - step) ** 2, cap * cap) - min(error[i] ** 2, cap * cap))
        if gain > best and n - i >= 3:
            best, over = gain, i
    return found, earliest, latest, over
