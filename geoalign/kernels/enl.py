"""How many looks a series has, from its own scatter in time: the ENL that makes stable pixels look stable."""

import math

import numpy as np
from numba import njit
from scipy.stats import chi2, f

from geoalign.kernels.fastlog import ln
from geoalign.kernels.glr_null import TWO_SIDED, max_tail

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


@njit(nogil=True, cache=True)
def local_excess(series, scene_median, row0=0, col0=0):
    """How much noisier than the scene the ground around a pixel is, as a ratio of variances >= 1.

    series : (time, row, col); scene_median : from `difference_median`; row0, col0 : place of the first pixel in the
    image. Returns (row, col) float32.

    From the |difference| of successive observations in the 7 x 7 window around the cell of 3 x 3 that the pixel is in:
    its median at each date, then the median of those, which a change of any size and extent touches in one or two dates
    only. Fewer than three dates tell nothing. One standard error of the median is allowed for, so that even ground
    stays near 1.
    """
    n_time, n_row, n_col = series.shape
    out = np.ones((n_row, n_col), np.float32)
    if not scene_median > 0 or n_time < 4:
        return out
    n_used = min(n_time - 1, MOST_DATES)
    codes = np.empty((n_used, n_row, n_col), np.int16)
    work = np.ones((3, n_col))
    bits = work.view(np.int64)
    for i in range(n_used):
        for r in range(n_row):
            _row_codes(series, _used(n_time, i), r, work, bits, codes[i, r])
    medians = np.empty((n_col, n_used))
    n_date = np.empty(n_col, np.int64)
    n_all = np.empty(n_col, np.int64)
    for r in range(n_row):
        first_row, middle = _cell(row0, r, n_row)
        if r != middle:
            continue
        low, high = max(0, r - WINDOW_PX), min(n_row, r + WINDOW_PX + 1)
        n_date[:] = 0
        n_all[:] = 0
        for i in range(n_used):
            _window_medians(codes[i, low:high], col0, medians, n_date, n_all)
        for c in range(n_col):
            if n_date[c] >= 3:
                ratio = math.exp(2 * _median_of(medians[c], n_date[c])) / scene_median**2
                # ln of the squared median of n half-normal values has the standard error 2.33 / sqrt(n); the median
                # over dates, of correlated differences, costs half as much again
                ratio = max(1.0, ratio * math.exp(-1.0 * 2.33 / math.sqrt(n_all[c])))
                first_col = _cell(col0, c, n_col)[0]
                out[first_row : first_row + CELL_PX, first_col : first_col + CELL_PX] = ratio
    return out


@njit(nogil=True, cache=True)
def _cell(origin, i, n):
    """(first, middle) of the cell of a fixed grid that i of n is in; a cell cut by the image's end has the last."""
    first = i - (origin + i) % CELL_PX
    return max(first, 0), min(max(first + CELL_PX // 2, 0), n - 1)


@njit(nogil=True, cache=True)
def _window_medians(codes, col0, medians, n_date, n_all):
    """Adds one date: ln of the median around the middle column of each cell, from the histogram that slides along.

    codes : (up to 7 rows, col) int16 bins, -1 where there is none; medians : (col, time), filled from n_date on;
    n_all : values used so far. In whole numbers, so that a window gives the same bits wherever its tile begins.
    """
    n_row, n_col = codes.shape
    counts = np.zeros(DIFF_BINS, np.int16)
    n = below = at = 0  # below: how many lie in bins before `at`
    for c in range(-WINDOW_PX, n_col):
        if c + WINDOW_PX < n_col:
            for i in range(n_row):
                code = codes[i, c + WINDOW_PX]
                if code >= 0:
                    counts[code] += 1
                    n += 1
                    below += code < at
        if c - WINDOW_PX - 1 >= 0:
            for i in range(n_row):
                code = codes[i, c - WINDOW_PX - 1]
                if code >= 0:
                    counts[code] -= 1
                    n -= 1
                    below -= code < at
        if c < 0 or n < 9 or c != _cell(col0, c, n_col)[1]:
            continue
        while 2 * below >= n:
            at -= 1
            below -= counts[at]
        while 2 * (below + counts[at]) < n:
            below += counts[at]
            at += 1
        medians[c, n_date[c]] = DIFF_LOW + DIFF_STEP * (at + (0.5 * n - below) / counts[at])
        n_date[c] += 1
        n_all[c] += n


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
    work = np.ones((6 * n_band, n_time))
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
                apart = 1 if _stepped(sums, n, weights, scatter, work, bits) else 0
                out[apart, n, min(max(place, 0), SCATTER_BINS - 1)] += 1
    return out


@njit(nogil=True, cache=True)
def _stepped(sums, n, weights, scatter, work, bits):
    """Whether one step explains more of a pixel's scatter than it does by chance, or a second one more of the rest.

    sums : (band, n + 1 or more) of the intensities before each date; weights : (band,); scatter : > 0; work, bits :
    (6 * band, n or more) scratch of `fastlog`. Whatever the looks: with the likelihood ratio for unknown ones.
    """
    n_band = sums.shape[0]
    gain, where = _largest_step(sums, weights, 0, n, work, bits)
    if _is_chance(gain, scatter, n, n_band, n_band * (n - 2)):
        left = _largest_step(sums, weights, 0, where, work, bits)[0]
        right = _largest_step(sums, weights, where, n, work, bits)[0]
        return not _is_chance(max(left, right), scatter - gain, n - 1, n_band, n_band * (n - 3))
    return True


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _largest_step(sums, weights, low, high, work, bits):
    """(scatter that the best step in low:high explains, its date)."""
    n_band = sums.shape[0]
    n = high - low
    for b in range(n_band):
        start, end = sums[b, low], sums[b, high]
        share = n / (end - start)
        for i in range(n - 1):
            before = (sums[b, low + 1 + i] - start) * share / (i + 1.0)
            after = (end - sums[b, low + 1 + i]) * share / (n - 1.0 - i)
            # a sum may swallow what is a trillion times weaker
            there = before > SMALLEST and after > SMALLEST
            work[2 * b, i] = before if there else 1.0
            work[2 * b + 1, i] = after if there else 1.0
    ln(work, bits, 2 * n_band, n - 1)
    best = 0.0
    where = low + 1
    for i in range(n - 1):
        gain = 0.0
        for b in range(n_band):
            gain -= weights[b] * ((i + 1.0) * work[2 * b, i] + (n - 1.0 - i) * work[2 * b + 1, i])
        if gain > best:
            best = gain
            where = low + 1 + i
    return best, where


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
            middle = degrees * f.ppf(inner, degrees, 1 / even) if even > 0 else chi2.ppf(inner, degrees)
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
        return chi2.median(degrees) / 2 / _quantile(counts, 0.5), 0.0, 0.5
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
    changed = np.linspace(0.0, 0.9 * (1 - CUT), 41)
    inverse = np.array([0.0, *1 / np.array([192.0, 128, 96, 64, 48, 40, 32, 24, 20, 16, 12, 10, 8, 6])])
    ln_post = np.empty((inverse.size, changed.size))
    ln_looks = np.empty_like(ln_post)
    for i, value in enumerate(inverse):
        law = chi2(degrees) if value == 0 else f(degrees, 1 / value, scale=degrees)
        # where the cut lies among the stable pixels, if a share of all is beyond it
        at = law.ppf(CUT / (1 - changed))
        cdf = law.cdf(at[:, None] * position)
        share = np.diff(np.concatenate([np.zeros((changed.size, 1)), cdf], axis=1), axis=1) / cdf[:, -1:]
        ln_post[i] = (tempered * np.log(np.maximum(share, 1e-300))).sum(axis=1) - changed / CHANGED
        ln_post[i] -= np.log(1 if value == 0 else inverse.size - 1)
        ln_looks[i] = np.log(at / 2 / cut)
    weight = np.exp(ln_post - ln_post.max())
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
