"""How many looks a series has, from its own scatter in time: the ENL that makes stable pixels look stable."""

import math

import numpy as np
from numba import njit
from scipy.special import chdtr, chdtri, fdtr, fdtri

from geoalign.kernels.fastlog import ln
from geoalign.kernels.gamma_lanes import VECTOR, logarithm
from geoalign.kernels.glr_null import TWO_SIDED, max_tail
from geoalign.kernels.special import normal_upper

DIFF_LOW, DIFF_STEP, DIFF_BINS = -12.0, 0.02, 700
"""Fixed histogram of ln |difference of log-intensity between dates|."""
SCATTER_LOW, SCATTER_STEP, SCATTER_BINS = -20.0, 0.02, 1300
"""Fixed histogram of ln(scatter) of a pixel's series, a row for each number of observations."""
MIN_PIXELS = 400
"""Pixels below which the looks come from the median alone: shares and shapes need more."""
FEW = 20
"""Pixels below which even the median is not worth having."""
MIN_DEGREES = 4
"""Degrees of freedom of a pixel's scatter below which the same holds: its shape tells nothing."""
STEP_ALPHA = 0.1
"""Chance of leaving out a stable pixel because one step explains too much of its scatter; again for a second step."""
CUT = 0.9
"""Share of the remaining pixels, from the least scatter on, that the looks and their evenness are fitted to."""
CHANGED = 0.005
"""Mean share of changed pixels among those left, before the data speak: most changes are gone with the steps."""
WORTH = 5000
"""Pixels that a scene's scatter counts for at most."""
MOST_LOOKS = 75.0
"""Looks that an estimate gives at most: stable ground varies by half a dB from date to date."""
WINDOW_PX, CELL_PX = 3, 3
"""Radius of the window whose noise is compared with the scene's, and side of the cells that share one."""
MOST_DATES = 24
"""Differences in time that are looked at for it, spread evenly over a longer series: a thousand values a window."""
LARGE_BITS = 6
LARGE = 1 << LARGE_BITS
"""What a difference larger than the scene's counts beside 1: more than the 49 of a window."""
HALF_NORMAL = 0.6744897501960817
"""Median of |a normal deviate|."""
FAINT = np.float32(1e-30)
"""Least share of a mean whose logarithm is taken in float32."""
SMALLEST, LARGEST = 1e-300, 1e300
"""What `fastlog.ln` takes."""


@njit(nogil=True, cache=True)
def _used(n_time, i):
    """Date of the i-th difference that is looked at, min(n_time - 1, MOST_DATES) in all."""
    return 1 + i if n_time - 1 <= MOST_DATES else 1 + i * (n_time - 1) // MOST_DATES


@njit(nogil=True, cache=True)
def _row_codes(series, t, r, work, bits, out):
    """Bins of ln |ln x_t - ln (the observation before)| of row r into out (n_col,), -1 where there is none.

    work : (3, n_col) scratch of `fastlog`, bits : the same as int64
    """
    n_col = series.shape[2]
    for c in range(n_col):
        ratio = 1.0
        value = series[t, r, c]
        if value > 0 and not math.isinf(value):
            k = t - 1
            while k >= 0 and not (series[k, r, c] > 0 and not math.isinf(series[k, r, c])):
                k -= 1
            if k >= 0:
                ratio = min(max(float(value) / float(series[k, r, c]), SMALLEST), LARGEST)
        work[0, c] = ratio
    ln(work, bits, 1, n_col)
    for c in range(n_col):
        size = abs(work[0, c])
        out[c] = 0 if size > 0 else -1
        work[0, c] = max(size, SMALLEST)
    ln(work, bits, 1, n_col)
    for c in range(n_col):
        if out[c] == 0:
            place = int((work[0, c] - DIFF_LOW) / DIFF_STEP)
            out[c] = min(max(place, 0), DIFF_BINS - 1)


@njit(nogil=True, cache=True)
def difference_histogram(series):
    """Counts of ln |ln x_t - ln (the observation before)|, (differences looked at, DIFF_BINS).

    series : (time, row, col)
    """
    n_time, n_row, n_col = series.shape
    n_used = max(min(n_time - 1, MOST_DATES), 1)
    out = np.zeros((n_used, DIFF_BINS))
    work = np.ones((3, n_col))
    bits = work.view(np.int64)
    codes = np.empty(n_col, np.int16)
    for i in range(min(n_time - 1, n_used)):
        for r in range(n_row):
            _row_codes(series, _used(n_time, i), r, work, bits, codes)
            for c in range(n_col):
                if codes[c] >= 0:
                    out[i, codes[c]] += 1
    return out


def difference_median(parts):
    """Median over dates of the scene's median |difference|, nepers; NaN where there is none."""
    medians = []
    for counts in np.sum(parts, axis=0):
        total = counts.sum()
        if total > 0:
            cumulative = np.cumsum(counts)
            at = int(np.searchsorted(cumulative, 0.5 * total))
            place = at + 1 - (cumulative[at] - 0.5 * total) / counts[at]
            medians.append(np.exp(DIFF_LOW + DIFF_STEP * place))
    return float(np.median(medians)) if medians else np.nan


def looks_of_differences(median):
    """Looks of intensities of which two differ by so much in the median, nepers; NaN without a median.

    The ratio of two gamma intensities of L looks has the law F(2 L, 2 L).
    """
    if not median > 0:
        return np.nan
    low, high = math.log(0.05), math.log(1e5)
    for _ in range(40):
        middle = 0.5 * (low + high)
        degrees = 2 * math.exp(middle)
        low, high = (middle, high) if math.log(fdtri(degrees, degrees, 0.75)) > median else (low, middle)
    return math.exp(0.5 * (low + high))


@njit(nogil=True, cache=True)
def local_excess(series, scene_median, row0=0, col0=0):
    """How much noisier than the scene the ground around a pixel is, as a ratio of variances >= 1.

    series : (time, row, col); scene_median : from `difference_median`; row0, col0 : place of the first pixel in the
    image. Returns (row, col) float32.

    From the differences of successive observations in the 7 x 7 window around the cell of 3 x 3 that the pixel is in:
    what share of them at each date is larger than the scene's median difference, then the median of those shares, which
    a change of any size and extent touches in one or two dates only. The ratio is that of the normal deviates that are
    so often so large. Fewer than three dates tell nothing. One standard error is allowed for, so that even ground stays
    near 1. Counted in whole numbers, so that a window gives the same bits wherever its tile begins.
    """
    n_time, n_row, n_col = series.shape
    out = np.ones((n_row, n_col), np.float32)
    if not scene_median > 0 or n_time < 4:
        return out
    n_used = min(n_time - 1, MOST_DATES)
    codes = np.empty((n_used, n_row, n_col), np.uint8)
    for i in range(n_used):
        _size_codes(series, _used(n_time, i), np.float32(math.exp(scene_median)), codes[i])
    # below this share in the middle of the dates the answer is 1, whatever the number of values
    z = HALF_NORMAL * math.exp(-0.5 * 2.33 / math.sqrt(n_used * (2 * WINDOW_PX + 1) ** 2))
    least = math.erfc(z / math.sqrt(2.0))
    column = np.zeros(n_col + 2 * WINDOW_PX, np.int16)
    counts = np.empty((n_used, n_col), np.int16)
    shares = np.empty(n_used)
    for r in range(n_row):
        first_row, middle = _cell(row0, r, n_row)
        if r != middle:
            continue
        for i in range(n_used):
            _window_counts(codes[i, max(0, r - WINDOW_PX) : min(n_row, r + WINDOW_PX + 1)], column, counts[i])
        start = -(col0 % CELL_PX)
        for start_col in range(start, n_col, CELL_PX):
            first_col, c = max(start_col, 0), min(max(start_col + CELL_PX // 2, 0), n_col - 1)
            n_date = n_all = n_more = 0
            for i in range(n_used):
                n, large = counts[i, c] & (LARGE - 1), counts[i, c] >> LARGE_BITS
                if n >= 9:
                    n_more += large > least * n
                    n_date += 1
                    n_all += n
            if n_date >= 3 and 2 * n_more >= n_date - 1:
                k = 0
                for i in range(n_used):
                    n, large = counts[i, c] & (LARGE - 1), counts[i, c] >> LARGE_BITS
                    if n >= 9:
                        shares[k] = min(large, n - 0.5) / n
                        k += 1
                share = max(_median_of(shares, n_date), 0.5)
                # ln of the squared median of n half-normal values has the standard error 2.33 / sqrt(n); the median
                # over dates, of correlated differences, costs half as much again
                ratio = (HALF_NORMAL / normal_upper(0.5 * share)) ** 2 * math.exp(-2.33 / math.sqrt(n_all))
                out[first_row : first_row + CELL_PX, first_col : start_col + CELL_PX] = max(1.0, ratio)
    return out


@njit(nogil=True, cache=True)
def _size_codes(series, t, factor, out):
    """1 where date t differs from the observation before, LARGE more where by more than `factor`; 0 where none is."""
    n_row, n_col = out.shape
    for r in range(n_row):
        before, now = series[t - 1, r], series[t, r]
        for c in range(n_col):
            high, low = max(now[c], before[c]), min(now[c], before[c])
            there = (low > 0) & (high < np.inf) & (high > low)
            out[r, c] = there + LARGE * (there & (high > factor * low))
        for c in range(n_col if t > 1 else 0):
            if out[r, c] == 0 and now[c] > 0 and now[c] != before[c]:
                k = t - 1
                while k >= 0 and not (series[k, r, c] > 0 and not math.isinf(series[k, r, c])):
                    k -= 1
                if k >= 0:
                    high, low = max(now[c], series[k, r, c]), min(now[c], series[k, r, c])
                    there = (high < np.inf) & (high > low)
                    out[r, c] = there + LARGE * (there & (high > factor * low))


@njit(nogil=True, cache=True)
def _cell(origin, i, n):
    """(first, middle) of the cell of a fixed grid that i of n is in; a cell cut by the image's end has the last."""
    first = i - (origin + i) % CELL_PX
    return max(first, 0), min(max(first + CELL_PX // 2, 0), n - 1)


@njit(nogil=True, cache=True)
def _window_counts(codes, column, out):
    """Sums of codes (up to 7 rows, col) over the windows around each column, into out (col,); column : scratch."""
    n_row, n_col = codes.shape
    # slices instead of shifted indices: those loops are vectorised
    middle = column[WINDOW_PX : WINDOW_PX + n_col]
    middle[:] = 0
    for r in range(n_row):
        row = codes[r]
        for c in range(n_col):
            middle[c] += row[c]
    out[:] = 0
    for k in range(2 * WINDOW_PX + 1):
        shifted = column[k : k + n_col]
        for c in range(n_col):
            out[c] += shifted[c]


@njit(nogil=True, cache=True)
def _median_of(values, n):
    """Median of the first n values, which are sorted in place."""
    for i in range(1, n):
        value = values[i]
        j = i
        while j > 0 and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value
    return values[n // 2] if n % 2 else 0.5 * (values[n // 2 - 1] + values[n // 2])


@njit(nogil=True, cache=True)
def scatter_histogram(series, looks, known):
    """Counts of ln scatter, (2, n_time + 1, SCATTER_BINS): a row for each number of observations.

    series : (band, time, row, col); looks : (band, row, col); known : whether those are looks (else only relative)
    scatter = sum over bands and dates of looks ln(mean / x), which is -ln Q, with Bartlett's factor where they are
    known. Pixels that one or two steps explain too well are counted apart, in [1]: how large a share of the scatter a
    step takes does not depend on the looks, and where nothing changed it says nothing about the scatter itself (Basu's
    theorem, exact in the limit of many looks). So in [0] the law of the stable pixels is as it was, and most that
    changed are gone.
    """
    n_band, n_time, n_row, n_col = series.shape
    out = np.zeros((2, n_time + 1, SCATTER_BINS))
    weights = np.zeros(n_band)
    values = np.empty((n_band, n_time))
    sums = np.zeros((n_band, n_time + 1))
    work, steps = np.ones((3 * n_band, n_time)), np.ones((4, n_time), np.float32)
    bits = work.view(np.int64)
    for r in range(n_row):
        for c in range(n_col):
            n = 0
            for t in range(n_time):
                good = True
                for b in range(n_band):
                    value = series[b, t, r, c]
                    good &= value > 0 and not math.isinf(value)
                    values[b, n] = value
                n += good
            if n < 2:
                continue
            for b in range(n_band):
                for i in range(n):
                    sums[b, i + 1] = sums[b, i] + values[b, i]
                    work[b, i] = max(values[b, i], SMALLEST)
            ln(work, bits, n_band, n)
            scatter = 0.0
            for b in range(n_band):
                logs = 0.0
                for i in range(n):
                    logs += work[b, i]
                weights[b] = looks[b, r, c]
                if known:
                    weights[b] = max(weights[b] - (n + 1) / (6 * n), 0.1 * weights[b])
                scatter += weights[b] * (n * math.log(sums[b, n] / n) - logs)
            if scatter > 0:
                place = int((math.log(scatter) - SCATTER_LOW) / SCATTER_STEP)
                apart = 1 if _stepped(sums, n, weights, scatter, steps) else 0
                out[apart, n, min(max(place, 0), SCATTER_BINS - 1)] += 1
    return out


@njit(nogil=True, cache=True)
def _stepped(sums, n, weights, scatter, work):
    """Whether one step explains more of a pixel's scatter than it does by chance, or a second one more of the rest.

    sums : (band, n + 1 or more) of the intensities before each date; weights : (band,); scatter : > 0; work :
    (4, n or more) float32 scratch. Whatever the looks: with the likelihood ratio for unknown ones.
    """
    n_band = sums.shape[0]
    gain, where = _largest_step(sums, weights, 0, n, work)
    if _is_chance(gain, scatter, n, n_band, n_band * (n - 2)):
        left = _largest_step(sums, weights, 0, where, work)[0]
        right = _largest_step(sums, weights, where, n, work)[0]
        return not _is_chance(max(left, right), scatter - gain, n - 1, n_band, n_band * (n - 3))
    return True


@njit(nogil=True, cache=True, **VECTOR)
def _largest_step(sums, weights, low, high, work):
    """(scatter that the best step in low:high explains, its date)."""
    n_band = sums.shape[0]
    n = high - low
    gain = work[0]
    gain[: n - 1] = np.float32(0)
    for b in range(n_band):
        start = sums[b, low]
        share = n / (sums[b, high] - start)
        for i in range(n - 1):
            work[1, i] = (sums[b, low + 1 + i] - start) * share / (i + 1.0)
        # what is so far below the mean that float32 loses it makes no difference to the best of the rest
        for i in range(n - 1):
            work[2, i] = logarithm(max(work[1, i], FAINT))
        for i in range(n - 1):
            work[1, i] = (sums[b, high] - sums[b, low + 1 + i]) * share / (n - 1.0 - i)
        for i in range(n - 1):
            work[3, i] = logarithm(max(work[1, i], FAINT))
        weight = np.float32(weights[b])
        for i in range(n - 1):
            gain[i] -= weight * (np.float32(i + 1) * work[2, i] + np.float32(n - 1 - i) * work[3, i])
    best = np.float32(0)
    where = low + 1
    for i in range(n - 1):
        if gain[i] > best:
            best = gain[i]
            where = low + 1 + i
    return np.float64(best), where


@njit(nogil=True, cache=True)
def _is_chance(gain, scatter, n, n_band, degrees):
    """Whether the best of n - 1 steps may take so much of the scatter, of which `degrees` are left beside it."""
    if degrees < MIN_DEGREES - 1:
        return True
    if gain >= scatter:
        return False
    # Bartlett's scaling brings this ratio close to chi-square
    z = -(degrees + 0.5 * n_band - 1) * math.log1p(-gain / scatter)
    return max_tail(z, n, n_band, TWO_SIDED) >= STEP_ALPHA


def looks_and_evenness(parts, n_band=1, known=False):
    """(looks, d0): the looks of a typical stable pixel (where `known`, the factor they lack), and how even they are.

    parts : from `scatter_histogram`; only pixels in whose series no step stands out speak, if there are any. Under H0,
    2 rho L scatter is chi-square with f = n_band (k - 1) degrees of freedom for k observations; where looks differ from
    pixel to pixel it is f F(f, d0). L, d0 and the share of pixels that changed all the same are estimated from the
    lower nine tenths: posterior mean over a grid, with priors that doubt change (share exponential, mean CHANGED) and
    unevenness (half its mass on none). inf means even, nan that there is nothing to tell from.

    References
    ----------
    Smyth (2004), doi:10.2202/1544-6115.1027, for variances that vary around a common one with d0 degrees of freedom.
    """
    stable, stepped = np.sum(parts, axis=0)
    counts = stable if stable.sum() >= FEW else stable + stepped
    rows = np.flatnonzero(counts.sum(axis=1))
    if rows.size == 0:
        return np.array([np.nan, np.inf])
    sizes = counts[rows].sum(axis=1)
    main = int(rows[np.argmax(sizes)])
    looks, even, inner = _fit(counts[main], n_band * (main - 1))
    # other numbers of observations: each row's own median, on the scale of the fitted one
    values, weights = [looks + _bartlett(main, known)], [sizes.max()]
    for k, size in zip(rows, sizes):
        if k != main and size >= FEW:
            degrees = n_band * (k - 1)
            middle = degrees * fdtri(degrees, 1 / even, inner) if even > 0 else chdtri(degrees, 1 - inner)
            values.append(middle / 2 / _quantile(counts[k], 0.5) + _bartlett(k, known))
            weights.append(size)
    return np.array([np.average(values, weights=weights), 1 / even if even > 0 else np.inf])


def _bartlett(k, known):
    return 0.0 if known else (k + 1) / (6 * k)


def _quantile(counts, share):
    cumulative = np.cumsum(counts)
    at = int(np.searchsorted(cumulative, share * cumulative[-1]))
    place = at + 1 - (cumulative[at] - share * cumulative[-1]) / counts[at]
    return float(np.exp(SCATTER_LOW + SCATTER_STEP * place))


def _fit(counts, degrees):
    """Looks (without Bartlett's term), 1 / d0, and the quantile among stable pixels where the overall median lies."""
    total = counts.sum()
    if total < MIN_PIXELS or degrees < MIN_DEGREES:
        return chdtri(degrees, 0.5) / 2 / _quantile(counts, 0.5), 0.0, 0.5
    cut = _quantile(counts, CUT)
    ln_cut = np.log(cut)
    ln_low = np.log(_quantile(counts, 0.01))
    edges = np.linspace(ln_low, ln_cut, 31)
    cumulative = np.interp(
        edges, SCATTER_LOW + SCATTER_STEP * np.arange(SCATTER_BINS + 1), np.append(0, np.cumsum(counts))
    )
    seen = np.append(cumulative[0], np.diff(cumulative))
    position = np.exp(edges - ln_cut)
    # neighbours are alike: many pixels are worth fewer independent ones
    tempered = seen * min(1.0, WORTH / total)
    # closer where the prior is
    changed = 0.9 * (1 - CUT) * np.linspace(0.0, 1.0, 25) ** 2
    inverse = np.array([0.0, *1 / np.array([192.0, 128, 96, 64, 48, 40, 32, 24, 20, 16, 12, 10, 8, 6])])
    ln_post = np.empty((inverse.size, changed.size))
    ln_looks = np.empty_like(ln_post)
    for i, value in enumerate(inverse):
        # where the cut lies among the stable pixels, if a share of all is beyond it
        if value == 0:
            at = chdtri(degrees, 1 - CUT / (1 - changed))
            cdf = chdtr(degrees, at[:, None] * position)
        else:
            at = degrees * fdtri(degrees, 1 / value, CUT / (1 - changed))
            cdf = fdtr(degrees, 1 / value, at[:, None] * position / degrees)
        share = np.diff(np.concatenate([np.zeros((changed.size, 1)), cdf], axis=1), axis=1) / cdf[:, -1:]
        ln_post[i] = (tempered * np.log(np.maximum(share, 1e-300))).sum(axis=1) - changed / CHANGED
        ln_post[i] -= np.log(1 if value == 0 else inverse.size - 1)
        ln_looks[i] = np.log(at / 2 / cut)
    weight = np.exp(ln_post - ln_post.max()) * np.gradient(changed)
    weight /= weight.sum()
    even = float((weight.sum(axis=1) * inverse).sum())
    inner = float((weight * (0.5 / (1 - changed))).sum())
    return float(np.exp((weight * ln_looks).sum())), even if even > 1 / 400 else 0.0, inner


@njit(nogil=True, cache=True)
def mean_intensity(series):
    """Geometric mean (the mean in dB) of the values above 0 of each pixel; series (n_pixel, n_time) -> (n_pixel,).

    float32, NaN where there is none. A single bright date hardly moves it.
    """
    out = np.full(series.shape[0], np.nan, np.float32)
    for p in range(series.shape[0]):
        total = 0.0
        count = 0
        for value in series[p]:
            if value > 0 and not math.isinf(value):
                total += math.log(value)
                count += 1
        if count:
            out[p] = math.exp(total / count)
    return out
