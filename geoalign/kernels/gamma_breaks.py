"""Steps in the mean of gamma intensities: every change point of every pixel by generalised likelihood ratio.

A segment of dates low:high is held against two means, before and from a date. All its n - 1 ratios are taken at once
from running sums, in loops over dates that call nothing; binary segmentation then goes into the two parts. Arrays are
handed down whole and indexed, never sliced: counting the references of a view takes longer than the work on it.
"""

import math

import numpy as np
from numba import njit

from geoalign.kernels.fastlog import exp, ln
from geoalign.kernels.gamma_glr import date_looks

LANE = 16
"""Pixels of a row that are gathered together: a cache line of float32."""
ROUND = 32
"""Loops over dates run to a multiple of this: what is left after four vectors at a time goes one by one."""
COVER = 0.95
"""Posterior chance of the dates between which a change is said to lie."""
ALIKE = 0.7
"""Correlation of a change's size (nepers) between bands that `probability` assumes."""
TINY = 1e-200
VECTOR = {"error_model": "numpy", "fastmath": {"contract", "reassoc", "nnan", "nsz"}}
"""How loops over dates are compiled: nothing in them is NaN, and sums may be taken in any order (always the same)."""
Z, COMMON, MASS = 0, 1, 2
"""Rows of `out`: z of each step, what of it all bands do alike, posterior of its date."""


@njit(nogil=True, cache=True)
def lag_tables(n, lag):
    """Of an AR(1) series of variance 1 and correlation `lag`: variance of the sum of k values, 1 - lag^k; k <= n."""
    out = np.zeros((2, n + 1))
    power = 1.0
    for k in range(1, n + 1):
        # the k-th value with itself and twice with those before it
        out[0, k] = out[0, k - 1] + 1.0 + 2.0 * lag * out[1, k - 1] / (1.0 - lag)
        power *= lag
        out[1, k] = 1.0 - power
    return out


@njit(nogil=True, cache=True)
def fill_sums(x, looks, n, sums, weights):
    """Running sums of looks * value and of looks, from 0; x, looks : (band, n)."""
    for b in range(x.shape[0]):
        s = 0.0
        w = 0.0
        for i in range(n):
            s += looks[b, i] * x[b, i]
            w += looks[b, i]
            sums[b, i + 1] = s
            weights[b, i + 1] = w


@njit(nogil=True, cache=True)
def scatter(x, looks, low, high, work, bits):
    """-2 rho ln Q of low:high (every date its own mean against one), and its degrees of freedom."""
    total = 0.0
    n = high - low
    for b in range(x.shape[0]):
        for i in range(n):
            work[0, i] = x[b, low + i]
        ln(work, bits, 1, n)
        s = 0.0
        w = 0.0
        inverse = 0.0
        logs = 0.0
        for i in range(n):
            own = looks[b, low + i]
            s += own * x[b, low + i]
            w += own
            inverse += 1 / own
            logs += own * work[0, i]
        rho = max(1 - (inverse - 1 / w) / (6 * (n - 1.0)), 0.1)
        total += 2 * rho * (w * math.log(s / w) - logs)
    return max(total, 0.0), x.shape[0] * (n - 1.0)


@njit(nogil=True, cache=True)
def padded(m):
    """m, up to the next multiple of ROUND."""
    return (m + ROUND - 1) // ROUND * ROUND


@njit(nogil=True, cache=True, **VECTOR)
def layout(weights, low, high, lag, lags, sides, terms):
    """What the ratios of low:high depend on besides the intensities; i = 0 ... m - 1 stands for date low + 1 + i.

    Parameters
    ----------
    weights : (band, n + 1) from `fill_sums`; lag, lags : correlation of successive dates, and its `lag_tables`
    sides : (4, band, padded n) filled with 1 / looks before and after, and the factors (-2 rho looks) of ln before and
        after
    terms : (4, padded n), of which [0] is filled with 1 / widening by correlation (where there is some) and [3] with
        the variance of a step (nepers, mean over bands)
    """
    n_band = weights.shape[0]
    n = high - low
    m = n - 1
    size = padded(m)
    for i in range(size):
        terms[3, i] = 0.0
    for b in range(n_band):
        w_all = weights[b, high] - weights[b, low]
        inverse = 1 / w_all
        for i in range(m):
            sides[2, b, i] = weights[b, low + 1 + i] - weights[b, low]
        for i in range(m, size):
            sides[2, b, i] = 0.5 * w_all
        # loops that write to one or two rows each: with more of them a compiler can't tell that they lie apart
        for i in range(size):
            sides[0, b, i] = 1 / sides[2, b, i]
            sides[1, b, i] = 1 / (w_all - sides[2, b, i])
        for i in range(size):
            terms[3, i] += (sides[0, b, i] + sides[1, b, i]) / n_band
        for i in range(size):
            rho = max(1 - (sides[0, b, i] + sides[1, b, i] - inverse) / 6, 0.1)
            sides[3, b, i] = -2 * rho * (w_all - sides[2, b, i])
            sides[2, b, i] *= -2 * rho
    if lag > 0:
        cross = 2 * lag / ((1 - lag) * (1 - lag) * n)
        for i in range(m):
            # variance of the difference of two successive means, as it is over what it would be without correlation
            k = i + 1.0
            wider = lags[0, i + 1] * (n - k) / (k * n) + lags[0, m - i] * k / ((n - k) * n)
            wider -= cross * lags[1, i + 1] * lags[1, m - i]
            terms[0, i] = 1 / wider
            terms[3, i] *= wider


@njit(nogil=True, cache=True, **VECTOR)
def shares(n_band, m, spread, terms, work, bits):
    """The rest of `terms`, for `evidence`: shares of a step's variance that are no noise, and ln of those that are.

    spread : prior size of a step, nepers; terms : from `layout`; work, bits : scratch of `fastlog`
    """
    size = padded(m)
    wide = (1 + (n_band - 1) * ALIKE) * spread * spread
    thin = (1 - ALIKE) * spread * spread
    for i in range(size):
        terms[1, i] = wide / (wide + terms[3, i])
        work[0, i] = 1 - terms[1, i]
    for i in range(size):
        terms[2, i] = thin / (thin + terms[3, i])
        work[1, i] = 1 - terms[2, i]
    ln(work, bits, 2, size)
    for i in range(size):
        terms[3, i] = work[0, i] + (n_band - 1) * work[1, i]


@njit(nogil=True, cache=True, **VECTOR)
def scan(sums, weights, low, high, lag, sides, terms, d0, everything, degrees, out, work, bits):
    """z of every step in low:high: -2 rho ln(likelihood ratio) of two means, before and from a date, against one.

    Parameters
    ----------
    sums, weights : (band, n + 1) from `fill_sums`; lag, sides, terms : as in `layout`, from it
    d0, everything, degrees : looks vary between pixels with d0 degrees of freedom (inf: not); `scatter` of low:high
    out : (3, padded n), of which the rows Z and COMMON are filled
    work, bits : (6 * band, padded n) scratch of `fastlog`

    Returns
    -------
    the largest z, and the largest of what the bands do alike
    """
    n_band = sums.shape[0]
    m = high - low - 1
    size = padded(m)
    spare = work.shape[0] // 3
    for b in range(n_band):
        level = (weights[b, high] - weights[b, low]) / (sums[b, high] - sums[b, low])
        whole = (sums[b, high] - sums[b, low]) * level
        for i in range(m):
            work[2 * b, i] = (sums[b, low + 1 + i] - sums[b, low]) * level
        for i in range(m, size):
            work[2 * b, i] = 0.5 * whole
        for i in range(size):
            work[2 * b + 1, i] = max((whole - work[2 * b, i]) * sides[1, b, i], TINY)
        for i in range(size):
            work[2 * b, i] = max(work[2 * b, i] * sides[0, b, i], TINY)
    ln(work, bits, 2 * n_band, size)
    for b in range(n_band):
        for i in range(size):
            zb = sides[2, b, i] * work[2 * b, i] + sides[3, b, i] * work[2 * b + 1, i]
            work[spare, i] = max(zb, 0.0)
        if b == 0:
            for i in range(size):
                out[Z, i] = work[spare, i]
                out[COMMON, i] = math.copysign(math.sqrt(work[spare, i]), work[1, i] - work[0, i])
        else:
            for i in range(size):
                out[Z, i] += work[spare, i]
                out[COMMON, i] += math.copysign(math.sqrt(work[spare, i]), work[2 * b + 1, i] - work[2 * b, i])
    if not math.isinf(d0):
        # where looks vary, the likelihood ratio with the pixel's own unknown (`omnibus.uneven`)
        scale = d0 + degrees - 0.5 * n_band - 1
        for i in range(size):
            work[0, i] = 1 + out[Z, i] / (d0 + max(everything - out[Z, i], 0.0))
        ln(work, bits, 1, size)
        for i in range(size):
            work[0, i] = max(scale * work[0, i], 0.0)
        for i in range(size):
            out[COMMON, i] *= math.sqrt(work[0, i] / max(out[Z, i], TINY))
        for i in range(size):
            out[Z, i] = work[0, i]
    share = 1.0 / n_band
    for i in range(size):
        out[COMMON, i] *= out[COMMON, i] * share
    if lag > 0:
        for i in range(m):
            out[Z, i] *= terms[0, i]
            out[COMMON, i] *= terms[0, i]
    for i in range(m, size):
        out[Z, i] = 0.0
        out[COMMON, i] = 0.0
    best = 0.0
    alike = 0.0
    for i in range(size):
        best = max(best, out[Z, i])
        alike = max(alike, out[COMMON, i])
    return best, alike


@njit(nogil=True, cache=True, **VECTOR)
def evidence(out, terms, n_band, m, work, bits):
    """ln of the mean Bayes factor of a step at any of m dates against none; fills the row MASS.

    terms : from `layout` and `shares`

    A step is N(0, spread^2) in each band, with correlation ALIKE between bands: what the bands do alike has the
    variance (1 + (band - 1) ALIKE) spread^2, what they do apart (1 - ALIKE) spread^2 (Laplace's form of the
    likelihood).
    """
    size = padded(m)
    for i in range(size):
        apart = max(out[Z, i] - out[COMMON, i], 0.0)
        out[MASS, i] = 0.5 * (terms[3, i] + terms[1, i] * out[COMMON, i] + terms[2, i] * apart)
    for i in range(m, size):
        out[MASS, i] = -1e300
    top = -1e300
    for i in range(size):
        top = max(top, out[MASS, i])
    for i in range(size):
        out[MASS, i] -= top
    exp(out, MASS, work, bits, size)
    total = 0.0
    for i in range(size):
        total += out[MASS, i]
    share = 1 / total
    for i in range(size):
        out[MASS, i] *= share
    return top + math.log(total / m)


@njit(nogil=True, cache=True)
def interval(out, m):
    """(date, first, last) : the most likely of m dates, and those between which a change lies with the chance COVER."""
    at = largest(out, MASS, m)
    first = at
    last = at
    seen = out[MASS, at]
    while seen < COVER:
        down = out[MASS, first - 1] if first > 0 else -1.0
        up = out[MASS, last + 1] if last < m - 1 else -1.0
        if down < 0 and up < 0:
            break
        if down >= up:
            first -= 1
            seen += down
        else:
            last += 1
            seen += up
    return at, first, last


@njit(nogil=True, cache=True)
def largest(out, row, m):
    """Where the largest of out[row, :m] is."""
    at = 0
    for i in range(1, m):
        if out[row, i] > out[row, at]:
            at = i
    return at


@njit(nogil=True, cache=True)
def _chance(ln_odds):
    return 1 / (1 + math.exp(-ln_odds)) if ln_odds > -700 else 0.0


@njit(nogil=True, cache=True)
def _step(x, w, low, high, sums, weights, lag, lags, d0, limits, sides, terms, out, work, bits):
    """(date, by how much it passes the limits) of the step that stands out most in low:high."""
    everything, degrees = scatter(x, w, low, high, work, bits) if not math.isinf(d0) else (0.0, 0.0)
    layout(weights, low, high, lag, lags, sides, terms)
    best, alike = scan(sums, weights, low, high, lag, sides, terms, d0, everything, degrees, out, work, bits)
    over, over_alike = best - limits[0, high - low], alike - limits[1, high - low]
    row = Z if over >= over_alike else COMMON
    return low + 1 + largest(out, row, high - low - 1), max(over, over_alike)


@njit(nogil=True, cache=True)
def segment(x, w, n, sums, weights, lag, lags, d0, limits, sides, terms, out, work, bits, found):
    """Binary segmentation of 0:n into `found`, which holds the first change already; in order. Returns how many.

    Then each date again between its neighbours, and away with the one they make least needed, until all are.
    """
    count = 1
    # ends of segments that are still to be searched: those between found changes, in order, from `done` on
    done = 0
    while done <= count:
        low = 0 if done == 0 else found[done - 1]
        high = n if done == count else found[done]
        excess = 0.0
        at = 0
        if high - low > 1:
            at, excess = _step(x, w, low, high, sums, weights, lag, lags, d0, limits, sides, terms, out, work, bits)
        if excess > 0:
            for i in range(count, done, -1):
                found[i] = found[i - 1]
            found[done] = at
            count += 1
        else:
            done += 1
    while count > 1:
        least = np.inf
        which = 0
        for i in range(count):
            low = 0 if i == 0 else found[i - 1]
            high = n if i == count - 1 else found[i + 1]
            found[i], excess = _step(
                x, w, low, high, sums, weights, lag, lags, d0, limits, sides, terms, out, work, bits
            )
            if excess < least:
                least, which = excess, i
        if least > 0:
            break
        for i in range(which, count - 1):
            found[i] = found[i + 1]
        count -= 1
    return count


@njit(nogil=True, cache=True)
def breaks(series, looks, slope, sigma, limits, d0, lag, prior, spread, min_obs, max_breaks):
    """Changes of every pixel.

    Parameters
    ----------
    series : tuple of bands (time, row, col) float32, intensities; NaN or <= 0 in any band = not observed
    looks : (band, row, col)
    slope : (band, row, col) |gradient| / intensity, a px; sigma : (time or 1, row, col) alignment error, px
    limits : (2, time + 1) what the largest z of a stable segment of so many observations, and the largest part that
        all bands do alike, exceed by chance
    d0 : degrees of freedom with which looks vary between pixels (inf: not at all)
    lag : correlation of successive dates where nothing changes, 0 up to 1
    prior, spread : share of change and its size (nepers) that the probability assumes
    min_obs, max_breaks : observations needed; changes kept

    Returns
    -------
    (row, col) each: n_obs, n_changes uint16; flag uint8 (2: only the residual shift excuses it); strongest, after, by,
    int32 dates, -1 none (the change lies in (after, by]); magnitude dB (mean over bands); direction int8; probability
    float32; then (max_breaks, row, col) break_date, break_after, break_by int32, break_magnitude, break_probability
    """
    n_band = len(series)
    n_time, n_row, n_col = series[0].shape
    n_obs = np.zeros((n_row, n_col), np.uint16)
    n_changes = np.zeros((n_row, n_col), np.uint16)
    flag = np.zeros((n_row, n_col), np.uint8)
    strongest = np.full((n_row, n_col), -1, np.int32)
    after = np.full((n_row, n_col), -1, np.int32)
    by = np.full((n_row, n_col), -1, np.int32)
    magnitude = np.full((n_row, n_col), np.nan, np.float32)
    direction = np.zeros((n_row, n_col), np.int8)
    probability = np.full((n_row, n_col), np.nan, np.float32)
    break_date = np.full((max_breaks, n_row, n_col), -1, np.int32)
    break_after = np.full((max_breaks, n_row, n_col), -1, np.int32)
    break_by = np.full((max_breaks, n_row, n_col), -1, np.int32)
    break_magnitude = np.full((max_breaks, n_row, n_col), np.nan, np.float32)
    break_probability = np.full((max_breaks, n_row, n_col), np.nan, np.float32)

    lags = lag_tables(n_time, lag)
    ln_prior = math.log(prior / (1 - prior))
    lane = np.ones((n_band, n_time, LANE), np.float32)
    least = np.empty(LANE, np.float32)
    total = np.empty(LANE, np.float32)
    dates = np.empty(n_time, np.int64)
    x = np.empty((n_band, n_time))
    w = np.empty((n_band, n_time))
    sums = np.zeros((n_band, n_time + 1))
    weights = np.zeros((n_band, n_time + 1))
    size = padded(n_time)
    out = np.zeros((3, size))
    sides = np.empty((4, n_band, size))
    terms = np.empty((4, size))
    # for parts of the series, so that the layout of the whole outlives the pixel
    part_out = np.zeros((3, size))
    part_sides = np.empty((4, n_band, size))
    part_terms = np.empty((4, size))
    work = np.empty((6 * n_band, size))
    bits = work.view(np.int64)
    found = np.empty(n_time, np.int64)
    laid = np.full(n_band, np.nan)  # looks that the layout holds for, nan where it is a pixel's own
    n_laid = -1

    for r in range(n_row):
        for c0 in range(0, n_col, LANE):
            width = min(LANE, n_col - c0)
            for b in range(n_band):
                band = series[b]
                for t in range(n_time):
                    for k in range(width):
                        lane[b, t, k] = band[t, r, c0 + k]
            least[:] = np.inf
            total[:] = 0
            for b in range(n_band):
                for t in range(n_time):
                    for k in range(LANE):
                        value = lane[b, t, k]
                        least[k] = min(least[k], value)
                        total[k] += value
            for k in range(width):
                c = c0 + k
                n = n_time
                # NaN and inf show in the sum
                if not (least[k] > 0 and total[k] < np.inf):
                    n = 0
                    for t in range(n_time):
                        good = True
                        for b in range(n_band):
                            good &= lane[b, t, k] > 0 and lane[b, t, k] < np.inf
                        dates[n] = t
                        n += good
                else:
                    for t in range(n_time):
                        dates[t] = t
                n_obs[r, c] = n
                if n < min_obs:
                    continue
                widened = False
                same = n == n_laid
                for b in range(n_band):
                    own = float(looks[b, r, c])
                    for i in range(n):
                        x[b, i] = lane[b, dates[i], k]
                    for i in range(n):
                        w[b, i] = own
                    if slope[b, r, c] > 0:
                        last_sigma = 0.0
                        here = own
                        for i in range(n):
                            s = sigma[min(dates[i], sigma.shape[0] - 1), r, c]
                            if s != last_sigma:
                                here = date_looks(own, slope[b, r, c], s, n_band)
                                last_sigma = s
                                widened = widened or here < own
                            w[b, i] = here
                    same = same and own == laid[b]
                fill_sums(x, w, n, sums, weights)
                if widened or not same:
                    layout(weights, 0, n, lag, lags, sides, terms)
                    shares(n_band, n - 1, spread, terms, work, bits)
                    n_laid = -1 if widened else n
                    for b in range(n_band):
                        laid[b] = looks[b, r, c]
                everything, degrees = scatter(x, w, 0, n, work, bits) if not math.isinf(d0) else (0.0, 0.0)
                best, alike = scan(sums, weights, 0, n, lag, sides, terms, d0, everything, degrees, out, work, bits)
                single = evidence(out, terms, n_band, n - 1, work, bits)
                probability[r, c] = _chance(single + ln_prior)
                over, over_alike = best - limits[0, n], alike - limits[1, n]
                if not max(over, over_alike) > 0:
                    if widened:
                        for b in range(n_band):
                            for i in range(n):
                                w[b, i] = looks[b, r, c]
                        fill_sums(x, w, n, sums, weights)
                        _, excess = _step(
                            x, w, 0, n, sums, weights, lag, lags, d0, limits, part_sides, part_terms, part_out,
                            work, bits,
                        )  # fmt: skip
                        if excess > 0:
                            flag[r, c] |= 2
                    continue
                found[0] = 1 + largest(out, Z if over >= over_alike else COMMON, n - 1)
                count = segment(
                    x, w, n, sums, weights, lag, lags, d0, limits, part_sides, part_terms, part_out, work, bits,
                    found,
                )  # fmt: skip
                n_changes[r, c] = count
                top = -1.0
                several = 0.0
                for i in range(count):
                    low = 0 if i == 0 else found[i - 1]
                    high = n if i == count - 1 else found[i + 1]
                    own = single
                    if count == 1:
                        most, first, last = interval(out, n - 1)
                        z = out[Z, most]
                    else:
                        _step(
                            x, w, low, high, sums, weights, lag, lags, d0, limits, part_sides, part_terms,
                            part_out, work, bits,
                        )  # fmt: skip
                        shares(n_band, high - low - 1, spread, part_terms, work, bits)
                        own = evidence(part_out, part_terms, n_band, high - low - 1, work, bits)
                        several += own
                        most, first, last = interval(part_out, high - low - 1)
                        z = part_out[Z, most]
                    at = low + 1 + most
                    found[i] = at
                    size = 0.0
                    up = 0
                    for b in range(n_band):
                        old = (sums[b, at] - sums[b, low]) / (weights[b, at] - weights[b, low])
                        new = (sums[b, high] - sums[b, at]) / (weights[b, high] - weights[b, at])
                        size += 10 * math.log10(max(new, TINY) / max(old, TINY)) / n_band
                        up += 1 if new > old else -1
                    if i < max_breaks:
                        break_date[i, r, c] = dates[at]
                        break_after[i, r, c] = dates[low + first]
                        break_by[i, r, c] = dates[low + 1 + last]
                        break_magnitude[i, r, c] = size
                        break_probability[i, r, c] = _chance(own + ln_prior)
                    if z > top:
                        top = z
                        strongest[r, c] = dates[at]
                        after[r, c] = dates[low + first]
                        by[r, c] = dates[low + 1 + last]
                        magnitude[r, c] = size
                        direction[r, c] = 1 if up == n_band else (-1 if up == -n_band else 0)
                if count > 1:
                    # one step or these: half the prior each
                    peak = max(single, several)
                    both = peak + math.log(0.5 * math.exp(single - peak) + 0.5 * math.exp(several - peak))
                    probability[r, c] = _chance(both + ln_prior)
    return (
        n_obs, n_changes, flag, strongest, after, by, magnitude, direction, probability,
        break_date, break_after, break_by, break_magnitude, break_probability,
    )  # fmt: skip
