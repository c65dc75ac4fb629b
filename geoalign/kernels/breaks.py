"""Breaks of a pixel's series: one test of a stretch for a step, a passing step or another season (`break_tests`);
stretches are split where it is positive, and each split is then set to its most likely place between its neighbours.

Several bands are whitened by the covariance of neighbouring dates, so that sums of squares add over bands. Observations
that stand out from those before and after alike are left out (`break_noise`); the fits are robust (`break_fit`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geoalign.kernels.break_fit import SHORTEST, fit, space, two_fits
from geoalign.kernels.break_noise import ONE, noise_sd, spikes, whiten
from geoalign.kernels.break_tests import FEW, PASSING, examine
from geoalign.kernels.segments import FAST, PACKED, WIDTH, residuals, running

REACH = 14
"""Observations either side within which a break is set to its most likely place, at a time."""

MOST = 16
"""Breaks of a pixel that are followed up."""

TAIL = 5.0
"""Degrees of freedom of the errors where a break is placed: what burnt is not bare at once, yet no longer woods."""

INSIDE = 0.86
"""Chance of the true date that (date_after, date_by] holds."""


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
    keep, plain = np.empty(n_time, np.bool_), np.empty(n_time, np.bool_)
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
        if kept < n < FEW:
            # one fit of a short series bends to its changes: what stands out must do so without it as well
            spikes(w[:n_band], n, spike, plain)
            kept = np.int64(0)
            for i in range(n):
                keep[i] = keep[i] or plain[i]
                kept += np.int64(keep[i])
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


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FAST)
def segment(w, x, total, years, n, order, free, soft, cuts, limits, common, cp, widening, evidence, s):
    """All breaks of a series: fills cp (first changed observations, sorted), widening and evidence; returns their
    number, and the evidence of the whole series for any change."""
    count = np.int64(0)
    # stretches that are to be split: from, to, kind of change, its first and last place; and how sure it is
    waiting = np.zeros((MOST + 4, 5), np.int64)
    surest, widths = np.empty(MOST + 4), np.empty(MOST + 4)
    fresh = np.zeros((3, 2), np.int64)
    fresh[0, 1] = n
    n_fresh, n_waiting = np.int64(1), np.int64(0)
    overall, widen_all = np.nan, 1.0
    while count < MOST - 1:
        for q in range(n_fresh):
            a, b = fresh[q, 0], fresh[q, 1]
            kind, first, last, widen, sure = examine(
                w, x, total, years, a, b, order, free, cuts, limits, common, n < FEW, s
            )
            if np.isnan(overall):
                overall, widen_all = sure, widen
            if kind == 0:
                continue
            waiting[n_waiting, 0], waiting[n_waiting, 1], waiting[n_waiting, 2] = a, b, kind
            waiting[n_waiting, 3], waiting[n_waiting, 4] = first, last
            surest[n_waiting], widths[n_waiting] = sure, widen
            n_waiting += 1
        if n_waiting == 0:
            break
        # the surest first: a restless end of the series must not use up the breaks that can be followed
        best = np.int64(0)
        for q in range(1, n_waiting):
            if surest[q] > surest[best]:
                best = q
        a, b, kind, first, last = (
            waiting[best, 0],
            waiting[best, 1],
            waiting[best, 2],
            waiting[best, 3],
            waiting[best, 4],
        )
        widen = widths[best]
        n_waiting -= 1
        waiting[best] = waiting[n_waiting]
        surest[best], widths[best] = surest[n_waiting], widths[n_waiting]
        if kind != PASSING:
            first, _, _ = place(w, x, total, years, a, first, b, order, free, soft, widen, cuts, s)
        n_fresh = np.int64(0)
        for begin in (first, last):
            if begin > 0:
                cp[count] = begin
                count += 1
                fresh[n_fresh, 0], fresh[n_fresh, 1] = a, begin
                n_fresh += 1
                a = begin
        fresh[n_fresh, 0], fresh[n_fresh, 1] = a, b
        n_fresh += 1
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
                w, x, total, years, a, b, order, free, cuts, limits, common, n < FEW, s
            )
            if kind == 0 and evidence[j] < least:
                weakest, least = j, evidence[j]
        if weakest < 0:
            return count, overall
        for j in range(weakest, count - 1):
            cp[j] = cp[j + 1]
        count -= 1


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
        tail = 0.5 * (TAIL + n_band)
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
            # loss of "still before" less that of "after already"; whoever is far from both says little
            run += tail * np.log((TAIL + n_band * e0 / v0) / (TAIL + n_band * e1 / v1)) + apart
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
