"""Change points of gamma intensities, found by likelihood over a small neighbourhood and drawn pixel by pixel.

A hypothesis is a run of dates [a, b) on which the mean intensity is another one; b = n is a step that stays. `pool`
gathers a neighbourhood into one series, `scan` finds its best hypothesis, `draw` decides for each pixel by its own
likelihood under the best hypothesis around and by its neighbours.
"""

import math

import numpy as np
from numba import njit

from geoalign.kernels.special import looks_of_variance, trigamma

AT_ONCE = 3
"""Dates either side of a change over which it must come about; a season takes longer."""
RUN, STEP = 0, 1
"""What is looked for: a run of dates that ends (or is young at the end), or a step that stays."""


@njit(nogil=True, cache=True)
def pool(series, radius):
    """Mean over a window of each pixel's series relative to its own mean in time.

    series : (band, time, row, col); NaN or <= 0 = not observed. Returns the same shape, float32, NaN where the pixel
    itself is not observed. Texture and edges of the ground cancel; a change by one ratio in all pixels stays that.
    """
    n_band, n_time, n_row, n_col = series.shape
    out = np.full(series.shape, np.nan, np.float32)
    mean = np.full((n_row, n_col), np.nan)
    for b in range(n_band):
        for r in range(n_row):
            for c in range(n_col):
                total = 0.0
                count = 0
                for t in range(n_time):
                    value = series[b, t, r, c]
                    if value > 0 and not math.isinf(value):
                        total += value
                        count += 1
                mean[r, c] = total / count if count else np.nan
        for t in range(n_time):
            for r in range(n_row):
                for c in range(n_col):
                    value = series[b, t, r, c]
                    if not value > 0 or math.isinf(value):
                        continue
                    total = 0.0
                    count = 0
                    for i in range(max(0, r - radius), min(n_row, r + radius + 1)):
                        for j in range(max(0, c - radius), min(n_col, c + radius + 1)):
                            near = series[b, t, i, j]
                            if near > 0 and not math.isinf(near):
                                total += near / mean[i, j]
                                count += 1
                    out[b, t, r, c] = total / count
    return out


@njit(nogil=True, cache=True)
def usable(series, p, n_time, dates):
    """Numbers of the dates on which every band of pixel p of (n_pixel, band, n_time) is above 0; returns how many."""
    n = 0
    for t in range(n_time):
        good = True
        for b in range(series.shape[1]):
            if not series[p, b, t] > 0 or math.isinf(series[p, b, t]):
                good = False
        if good:
            dates[n] = t
            n += 1
    return n


@njit(nogil=True, cache=True)
def date_looks(own, slope, sigma, n_band):
    """Looks at a date once the residual shift adds (slope sigma)^2 to the variance of the log-intensity.

    A shift is the same in all n_band bands: as noise of bands taken as independent it counts n_band times.
    """
    extra = n_band * (slope * sigma) ** 2
    if not extra > 0:
        return own
    return looks_of_variance(trigamma(own) + extra)


@njit(nogil=True, cache=True)
def run_ratio(total, weight, inside, weight_inside):
    """2 ln likelihood ratio of two means against one, and ln(mean inside / outside), of sums of looks * value.

    total, inside : sums of looks * value; weight, weight_inside : sums of looks
    """
    outside = total - inside
    weight_outside = weight - weight_inside
    m_in = inside / weight_inside
    m_out = outside / weight_outside
    z = weight * math.log(total / weight) - weight_inside * math.log(m_in) - weight_outside * math.log(m_out)
    return 2 * max(z, 0.0), math.log(m_in / m_out)


@njit(nogil=True, cache=True)
def _both_sides(sums, weights, a, e, n, sign):
    """Whether dates a:e differ from those before and from those after, each by half as much as from both or more."""
    whole = 0.0
    before = 0.0
    after = 0.0
    for b in range(sums.shape[0]):
        inside = (sums[b, e] - sums[b, a]) / (weights[b, e] - weights[b, a])
        rest = (sums[b, n] - sums[b, e] + sums[b, a]) / (weights[b, n] - weights[b, e] + weights[b, a])
        whole += sign * (inside / rest - 1)
        before += sign * (inside * weights[b, a] / sums[b, a] - 1)
        after += sign * (inside * (weights[b, n] - weights[b, e]) / (sums[b, n] - sums[b, e]) - 1)
    return before >= 0.5 * whole and after >= 0.5 * whole


@njit(nogil=True, cache=True)
def _sudden(sums, weights, a, e, ln_ratio, lead):
    """Jump between the AT_ONCE dates before a and those from a on, as a share of the whole change."""
    low = max(0, a - AT_ONCE)
    high = min(e, a + AT_ONCE)
    jump = 0.0
    whole = 0.0
    for b in range(sums.shape[0]):
        if lead < 0 or b == lead:
            before = (sums[b, a] - sums[b, low]) / (weights[b, a] - weights[b, low])
            after = (sums[b, high] - sums[b, a]) / (weights[b, high] - weights[b, a])
            jump += math.log(after / before)
            whole += ln_ratio[b]
    return jump / whole if whole != 0 else 0.0


@njit(nogil=True, cache=True)
def scan(series, looks, slope, sigma, days, kind, sign, lead, first, min_before, min_run, most_days, min_obs, least):
    """Best hypothesis of every pixel of a pooled series.

    Parameters
    ----------
    series : (n_pixel, band, n_time) pooled ratios
    looks, slope : (n_pixel, band); sigma : (n_pixel, n_time) or (n_pixel, 1), px
    days : (n_time,) time in days
    kind : RUN or STEP; sign : -1 for a drop, 1 for a rise, the same in all bands
    lead : band that must change at least as much as half the mean (-1: any)
    first : earliest date of a change
    min_before, min_run : observations before the change, and in it
    most_days : longest run that ends; half of it for one that has not ended
    min_obs : fewer observations give n_obs only
    least : a step with a smaller z is not compared with runs (other = 0): z then is too small to matter

    Returns
    -------
    n_obs (n_pixel,) uint16; float32 each: z of the hypothesis, z of the best of the other kind, up or down, and the
    share of the change that comes at once; int32 each: start and stop, first date changed and first date back (-1: not
    back); ln_ratio (n_pixel, band) float32
    """
    n_pixel, n_band, n_time = series.shape
    n_obs = np.zeros(n_pixel, np.uint16)
    best_z = np.zeros(n_pixel, np.float32)
    other = np.zeros(n_pixel, np.float32)
    start = np.full(n_pixel, -1, np.int32)
    stop = np.full(n_pixel, -1, np.int32)
    sudden = np.zeros(n_pixel, np.float32)
    ln_ratio = np.zeros((n_pixel, n_band), np.float32)
    at = 0
    until = 0
    dates = np.empty(n_time, np.int64)
    sums = np.zeros((n_band, n_time + 1))
    weights = np.zeros((n_band, n_time + 1))
    found = np.zeros(n_band)
    for p in range(n_pixel):
        n = usable(series, p, n_time, dates)
        n_obs[p] = n
        if n < min_obs:
            continue
        for b in range(n_band):
            for i in range(n):
                w = date_looks(looks[p, b], slope[p, b], sigma[p, min(dates[i], sigma.shape[1] - 1)], n_band)
                sums[b, i + 1] = sums[b, i] + w * series[p, b, dates[i]]
                weights[b, i + 1] = weights[b, i] + w
        top = 0.0
        rival = 0.0
        # last dates first: a step is rarely worth the search through all runs
        for turn in range(2):
            if turn == 1 and kind == STEP and top < least:
                break
            for a in range(1, n):
                for e in range(n, n + 1) if turn == 0 else range(a + 1, n):
                    ends = e < n
                    length = days[dates[e - 1]] - days[dates[a]]
                    if kind == RUN and ends and length > most_days:
                        break
                    mine = 0.0
                    any_way = 0.0
                    mean = 0.0
                    for b in range(n_band):
                        zb, d = run_ratio(
                            sums[b, n], weights[b, n], sums[b, e] - sums[b, a], weights[b, e] - weights[b, a]
                        )
                        found[b] = d
                        mean += sign * d / n_band
                        any_way += zb
                        if sign * d > 0:
                            mine += zb
                    fits = mean > 0 and (lead < 0 or sign * found[lead] >= 0.5 * mean)
                    if kind == STEP:
                        fits = fits and not ends
                    else:
                        fits = fits and length <= (most_days if ends else 0.5 * most_days)
                        fits = fits and (not ends or _both_sides(sums, weights, a, e, n, sign))
                    if not fits:
                        if ends != (kind == RUN):
                            rival = max(rival, any_way)
                        continue
                    if e - a < min_run or a < min_before or dates[a] < first:
                        continue
                    if mine > top:
                        top = mine
                        at = a
                        until = e
                        for b in range(n_band):
                            ln_ratio[p, b] = found[b]
        if top > 0:
            start[p] = dates[at]
            stop[p] = dates[until] if until < n else -1
            sudden[p] = _sudden(sums, weights, at, until, ln_ratio[p], lead)
        best_z[p] = top
        other[p] = rival
    return n_obs, best_z, other, sudden, start, stop, ln_ratio


@njit(nogil=True, cache=True)
def own_likelihood(series, looks, slope, sigma, start, stop, ln_ratio):
    """ln likelihood ratio of a run with known ratios against none, from one pixel's own series.

    series : (band, time); looks, slope, ln_ratio : (band,); sigma : (time,) or (1,); start, stop : dates, stop < 0 open
    The pixel's mean is the most likely one under either hypothesis.
    """
    n_band, n_time = series.shape
    total = 0.0
    for b in range(n_band):
        w_all = 0.0
        s_all = 0.0
        w_in = 0.0
        s_in = 0.0
        for t in range(n_time):
            good = True
            for k in range(n_band):
                if not series[k, t] > 0 or math.isinf(series[k, t]):
                    good = False
            if not good:
                continue
            w = date_looks(looks[b], slope[b], sigma[min(t, sigma.size - 1)], n_band)
            w_all += w
            s_all += w * series[b, t]
            if t >= start and (stop < 0 or t < stop):
                w_in += w
                s_in += w * series[b, t]
        if w_in > 0 and w_all > w_in:
            raised = s_all - s_in + s_in * math.exp(-ln_ratio[b])
            total += w_all * math.log(s_all / raised) - w_in * ln_ratio[b]
    return total


@njit(nogil=True, cache=True)
def _own_dates(series, start, stop):
    """A neighbour's run in a pixel's own observations: first in it, first after it, last before it; -1 none."""
    n_band, n_time = series.shape
    begin, end, before = -1, -1, -1
    for t in range(n_time):
        good = True
        for b in range(n_band):
            if not series[b, t] > 0 or math.isinf(series[b, t]):
                good = False
        if not good:
            continue
        if t < start:
            before = t
        elif stop < 0 or t < stop:
            if begin < 0:
                begin = t
        elif end < 0:
            end = t
    return begin, end, before


@njit(nogil=True, cache=True)
def draw(series, looks, slope, sigma, z, start, stop, ln_ratio, gate, eligible, reach, n_round, coupling, ln_prior):
    """Which pixels take part in the change around them.

    Parameters
    ----------
    series : (band, time, row, col) intensities; looks, slope : (band, row, col); sigma : (time or 1, row, col)
    z, start, stop : (row, col) and ln_ratio (band, row, col) from `scan`
    gate, eligible : (row, col) bool, where the pooled series passes; whose hypothesis may be taken over
    reach : px from which a pixel may take a neighbour's hypothesis
    n_round : rounds of mean field; coupling : ln odds that an agreeing neighbour adds
    ln_prior : ln odds before anything is seen, among all hypotheses

    Returns
    -------
    probability float32; start, stop, before int32 and ln_ratio (band, row, col) float32 of the hypothesis taken

    Mean field of a Potts model, updated everywhere at once, so that a pixel depends on n_round neighbours' steps only.
    """
    n_band, n_row, n_col = series.shape[0], series.shape[2], series.shape[3]
    odds = np.full((n_row, n_col), -np.inf)
    t0 = np.full((n_row, n_col), -1, np.int32)
    t1 = np.full((n_row, n_col), -1, np.int32)
    tb = np.full((n_row, n_col), -1, np.int32)
    size = np.zeros((n_band, n_row, n_col), np.float32)
    for r in range(n_row):
        for c in range(n_col):
            if not gate[r, c]:
                continue
            best = 0.0
            for i in range(max(0, r - reach), min(n_row, r + reach + 1)):
                for j in range(max(0, c - reach), min(n_col, c + reach + 1)):
                    if eligible[i, j] and z[i, j] > best:
                        best = z[i, j]
                        t0[r, c] = start[i, j]
                        t1[r, c] = stop[i, j]
                        size[:, r, c] = ln_ratio[:, i, j]
            if t0[r, c] < 0:
                continue
            t0[r, c], t1[r, c], tb[r, c] = _own_dates(series[:, :, r, c], t0[r, c], t1[r, c])
            if t0[r, c] < 0:
                continue
            odds[r, c] = min(0.0, ln_prior + 0.5 * best) + own_likelihood(
                series[:, :, r, c], looks[:, r, c], slope[:, r, c], sigma[:, r, c], t0[r, c], t1[r, c], size[:, r, c]
            )
    share = np.zeros((n_row, n_col))
    for k in range(n_round + 1):
        new = np.zeros((n_row, n_col))
        for r in range(n_row):
            for c in range(n_col):
                if odds[r, c] == -np.inf:
                    continue
                field = odds[r, c]
                if k > 0:
                    for i in range(max(0, r - 1), min(n_row, r + 2)):
                        for j in range(max(0, c - 1), min(n_col, c + 2)):
                            if i != r or j != c:
                                field += coupling * (2 * share[i, j] - 1)
                new[r, c] = 1 / (1 + math.exp(-min(max(field, -60.0), 60.0)))
        share = new
    return share.astype(np.float32), t0, t1, tb, size
