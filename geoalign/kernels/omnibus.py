"""Sequential omnibus test of gamma intensities: has a series changed, when first, when last, which way.

Likelihood ratios of gamma intensities whose looks may differ from date to date (Bartlett's form; Conradsen, Nielsen and
Skriver 2016, doi:10.1109/TGRS.2015.2510160, for equal looks), all in sums of logarithms, each pixel with its own dates.

Values are intensities, (band, n) with looks (band, n); or, where there are four rows of them and one of looks, the
covariance matrices of two channels, rows c11, c22, Re c12, Im c12.
"""

import math

import numpy as np
from numba import njit

from geoalign.kernels.gamma_glr import date_looks
from geoalign.kernels.glr_null import TWO_SIDED, max_tail
from geoalign.kernels.special import chi2_sf

LEAST_DET = 1e-9
"""1 - coherence^2 below which a matrix is not one."""
Q_SHARE = 0.1
"""Share of alpha spent on the omnibus Q (any pattern in time); the rest goes to the largest step."""


@njit(nogil=True, cache=True)
def ln_det(c11, c22, re, im):
    """ln of the determinant of [[c11, re + i im], [., c22]]; a coherence of 1 up to rounding counts as just below."""
    return math.log(c11) + math.log(c22) + math.log(max(1 - (re / c11 * re + im / c11 * im) / c22, LEAST_DET))


@njit(nogil=True, cache=True)
def equal_covariances(values, looks, start, stop, n_part):
    """As `equal_means`, for complex Wishart matrices of 2 x 2: values (4, n), looks (1, n)."""
    # of one group of dates, closed where the next begins
    group = np.zeros(5)
    whole = np.zeros(5)
    ln_ratio = 0.0
    inverse = 0.0
    squares = 0.0
    k = 0
    for t in range(start, stop):
        weight = looks[0, t]
        for i in range(4):
            group[i] += weight * values[i, t]
        group[4] += weight
        if n_part == 0 or t == n_part - 1 or t == stop - 1:
            n = group[4]
            ln_ratio += n * ln_det(group[0] / n, group[1] / n, group[2] / n, group[3] / n)
            inverse += 1 / n
            squares += 1 / (n * n)
            k += 1
            for i in range(5):
                whole[i] += group[i]
                group[i] = 0.0
    n = whole[4]
    ln_ratio -= n * ln_det(whole[0] / n, whole[1] / n, whole[2] / n, whole[3] / n)
    f = 4.0 * (k - 1)
    rho = max(1 - 7 / (12 * (k - 1.0)) * (inverse - 1 / n), 0.1)
    omega = 0.5 / rho**2 * (squares - 1 / (n * n)) - 0.25 * f * (1 - 1 / rho) ** 2
    return max(-2 * rho * ln_ratio, 0.0), f, omega


@njit(nogil=True, cache=True)
def equal_means(values, looks, start, stop, n_part):
    """-2 rho ln(likelihood ratio) of one mean in start:stop against many.

    values, looks : (band, n) float64, or matrices. n_part is not used where it is 0: every date its own mean (the
    omnibus Q). Otherwise two means, before and from `n_part`. Returns z, degrees of freedom, omega2.
    """
    if looks.shape[0] < values.shape[0]:
        return equal_covariances(values, looks, start, stop, n_part)
    z = 0.0
    omega = 0.0
    f = 0.0
    for b in range(values.shape[0]):
        total = 0.0
        weight = 0.0
        first = 0.0
        first_weight = 0.0
        inverse = 0.0
        logs = 0.0
        for t in range(start, stop):
            total += looks[b, t] * values[b, t]
            weight += looks[b, t]
            if n_part == 0:
                inverse += 1 / looks[b, t]
                logs += looks[b, t] * math.log(values[b, t])
            elif t < n_part:
                first += looks[b, t] * values[b, t]
                first_weight += looks[b, t]
        if n_part == 0:
            degrees = stop - start - 1.0
            ln_ratio = logs - weight * math.log(total / weight)
        else:
            degrees = 1.0
            rest = weight - first_weight
            inverse = 1 / first_weight + 1 / rest
            ln_ratio = first_weight * math.log(first / first_weight) + rest * math.log((total - first) / rest)
            ln_ratio -= weight * math.log(total / weight)
        rho = 1 - (inverse - 1 / weight) / (6 * degrees)
        rho = max(rho, 0.1)
        z += -2 * rho * ln_ratio
        omega += -0.25 * degrees * (1 - 1 / rho) ** 2
        f += degrees
    return max(z, 0.0), f, omega


@njit(nogil=True, cache=True)
def tail(z, f, omega):
    """P(Z > z): chi-square with Box's second-order term."""
    p = chi2_sf(z, f)
    if omega != 0.0:
        p += omega * (p - chi2_sf(z, f + 4))
    return min(max(p, 0.0), 1.0)


@njit(nogil=True, cache=True)
def uneven(z, f, rest, d0):
    """z as it would be had all pixels the same looks.

    Where looks vary between pixels with d0 degrees of freedom, z is (d0 + ...) F rather than chi-square; this is the
    likelihood ratio with the pixel's own looks unknown, in Bartlett's scaling, again close to chi-square with f.
    rest : scatter that the pixel shows apart from z, with its own degrees of freedom: (sum, degrees).
    """
    if math.isinf(d0):
        return z
    nu = d0 + rest[1]
    return (nu + 0.5 * f - 1) * math.log1p(z / (d0 + rest[0]))


@njit(nogil=True, cache=True)
def wider(before, after, lag):
    """Variance of the difference of two successive means of AR(1) dates, over what it is without correlation."""
    n = before + after
    ratio = 0.0
    for k, rest in ((before, after), (after, before)):
        total = k * (1 + lag) / (1 - lag) - 2 * lag * (1 - lag**k) / (1 - lag) ** 2
        ratio += total * rest / (k * n)
    return ratio - 2 * lag * (1 - lag**before) * (1 - lag**after) / ((1 - lag) ** 2 * n)


@njit(nogil=True, cache=True)
def best_step(values, looks, start, stop, d0, lag=0.0):
    """(date, z, p) of the largest step in start:stop: z of two means, p of the largest over all dates.

    lag : correlation of successive dates
    """
    everything, degrees, _ = equal_means(values, looks, start, stop, 0)
    n_band = values.shape[0]
    best = -1.0
    where = start + 1
    for j in range(start + 1, stop):
        z, f, _ = equal_means(values, looks, start, stop, j)
        z = uneven(z, f, (max(everything - z, 0.0), degrees - f), d0)
        if lag > 0:
            z /= wider(j - start, stop - j, lag)
        if z > best:
            best = z
            where = j
    return where, best, max_tail(best, stop - start, n_band, TWO_SIDED)


@njit(nogil=True, cache=True)
def gate(values, looks, start, stop, d0, lag=0.0):
    """p of "nothing changed in start:stop", and of its two parts: Q and the largest step."""
    z, f, omega = equal_means(values, looks, start, stop, 0)
    # squares of correlated values: fewer degrees of freedom (Satterthwaite)
    fewer = (1 - lag * lag) / (1 + lag * lag)
    p_q = tail(uneven(z, f, (0.0, 0.0), d0) * fewer, f * fewer, omega * fewer)
    where, _, p_step = best_step(values, looks, start, stop, d0, lag)
    return min(1.0, p_q / Q_SHARE, p_step / (1 - Q_SHARE)), where


@njit(nogil=True, cache=True)
def breaks_of(values, looks, alpha, d0, found, lag=0.0):
    """Dates of change, in order. Writes indices into `found`, returns how many, p of the gate, and whether located."""
    n = values.shape[1]
    p_first, where = gate(values, looks, 0, n, d0, lag)
    count = 0
    located = True
    start = 0
    p = p_first
    while p < alpha:
        hit = -1
        for j in range(start + 2, n + 1):
            # does date j - 1 equal the mean of those before it, all of them equal
            z, f, omega = equal_means(values, looks, start, j, j - 1)
            if tail(uneven(z, f, (0.0, 0.0), d0), f, omega) < alpha:
                hit = j - 1
                break
        if hit < 0:
            located = located and count > 0
            hit = where
        found[count] = hit
        count += 1
        start = hit
        if n - start < 2:
            break
        p, where = gate(values, looks, start, n, d0, lag)
    # each date again by maximum likelihood between its neighbours (the sequential test sees weak changes late), and
    # away with the one that its neighbours make least needed, until all are
    while count > 0:
        worst = -1.0
        which = 0
        for i in range(count):
            low = 0 if i == 0 else found[i - 1]
            high = n if i == count - 1 else found[i + 1]
            found[i], _, p = best_step(values, looks, low, high, d0, lag)
            if p > worst:
                worst, which = p, i
        if count == 1 or worst < alpha:
            break
        for i in range(which, count - 1):
            found[i] = found[i + 1]
        count -= 1
    return count, p_first, located


@njit(nogil=True, cache=True)
def ln_evidence(values, looks, d0, found, count, spread, lag=0.0):
    """ln Bayes factor of change against none: steps of a prior size N(0, spread^2) nepers, at any date.

    Laplace's form: each likelihood ratio shrinks by the share of the step's variance that noise makes. The mean over
    all single steps, or over them and the changes found where there are several.
    """
    n = values.shape[1]
    everything, degrees, _ = equal_means(values, looks, 0, n, 0)
    total = 0.0
    best = -np.inf
    for j in range(1, n):
        ln = _ln_step(values, looks, 0, n, j, d0, everything, degrees, spread, lag)
        if ln > best:
            total = total * math.exp(best - ln) + 1.0 if best > -np.inf else 1.0
            best = ln
        else:
            total += math.exp(ln - best)
    single = best + math.log(total) - math.log(n - 1.0)
    if count < 2:
        return single
    several = 0.0
    for i in range(count):
        low = 0 if i == 0 else found[i - 1]
        high = n if i == count - 1 else found[i + 1]
        several += _ln_step(values, looks, low, high, found[i], d0, everything, degrees, spread, lag)
        several -= math.log((n - 1.0 - i) / (i + 1.0))
    top = max(single, several)
    return top + math.log(0.5 * math.exp(single - top) + 0.5 * math.exp(several - top))


@njit(nogil=True, cache=True)
def _ln_step(values, looks, low, high, j, d0, everything, degrees, spread, lag):
    z, f, _ = equal_means(values, looks, low, high, j)
    z = uneven(z, f, (max(everything - z, 0.0), degrees - f), d0)
    more = wider(j - low, high - j, lag) if lag > 0 else 1.0
    z /= more
    ln = 0.0
    for b in range(values.shape[0]):
        before = 0.0
        after = 0.0
        row = min(b, looks.shape[0] - 1)
        for t in range(low, j):
            before += looks[row, t]
        for t in range(j, high):
            after += looks[row, t]
        noise = more * (1 / before + 1 / after)
        keep = spread * spread / (spread * spread + noise)
        ln += 0.5 * math.log(1 - keep) + 0.5 * keep * z / values.shape[0]
    return ln


@njit(nogil=True, cache=True)
def omnibus(series, enl, slope, sigma, d0, alpha, prior, spread, min_obs, max_breaks, lag=0.0):
    """Changes of every pixel.

    Parameters
    ----------
    series : (n_pixel, band, n_time) intensities, NaN or <= 0 in any band = not observed; or matrices (n_pixel, 4,
        n_time), not observed where one is not positive definite
    enl : (n_pixel, band) looks; (n_pixel, 1) for matrices
    slope : (n_pixel, band or 1) |gradient| / intensity, a px
    sigma : (n_pixel, n_time) alignment error, px; (n_pixel, 1) where it is the same at all dates
    d0 : degrees of freedom with which looks vary between pixels (inf: not at all)
    alpha, prior, spread : chance of a false change; share of change and its size (nepers) that the probability assumes
    min_obs, max_breaks : observations needed; changes kept
    lag : correlation of successive dates where nothing changes

    Returns
    -------
    n_obs, n_changes uint16; flag uint8 (1 not located, 2 only the residual shift excuses it); first, last, strongest,
    before (last observation before the strongest), int32 dates, -1 none; magnitude dB; direction int8; probability;
    p (of the gate) float32; break_date int32, break_magnitude, break_probability (n_pixel, max_breaks)
    """
    n_pixel, n_value, n_time = series.shape
    n_band = enl.shape[1]
    matrices = n_band < n_value
    n_power = 2 if matrices else n_band
    n_obs = np.zeros(n_pixel, np.uint16)
    n_changes = np.zeros(n_pixel, np.uint16)
    flag = np.zeros(n_pixel, np.uint8)
    first = np.full(n_pixel, -1, np.int32)
    last = np.full(n_pixel, -1, np.int32)
    strongest = np.full(n_pixel, -1, np.int32)
    previous = np.full(n_pixel, -1, np.int32)
    magnitude = np.full(n_pixel, np.nan, np.float32)
    direction = np.zeros(n_pixel, np.int8)
    probability = np.full(n_pixel, np.nan, np.float32)
    p_gate = np.full(n_pixel, np.nan, np.float32)
    break_date = np.full((n_pixel, max_breaks), -1, np.int32)
    break_magnitude = np.full((n_pixel, max_breaks), np.nan, np.float32)
    break_probability = np.full((n_pixel, max_breaks), np.nan, np.float32)
    values = np.empty((n_value, n_time))
    looks = np.empty((n_band, n_time))
    plain = np.empty((n_band, n_time))
    dates = np.empty(n_time, np.int64)
    found = np.empty(n_time, np.int64)
    spare = np.empty(n_time, np.int64)
    for p in range(n_pixel):
        n = 0
        for t in range(n_time):
            good = True
            for b in range(n_power):
                if not series[p, b, t] > 0 or math.isinf(series[p, b, t]):
                    good = False
            if matrices and good:
                power = float(series[p, 0, t]) * series[p, 1, t]
                cross = float(series[p, 2, t]) ** 2 + float(series[p, 3, t]) ** 2
                good = power - cross > LEAST_DET * power
            if good:
                for b in range(n_value):
                    values[b, n] = series[p, b, t]
                dates[n] = t
                n += 1
        n_obs[p] = n
        if n < min_obs:
            continue
        widened = False
        for b in range(n_band):
            own = float(enl[p, b])
            for i in range(n):
                plain[b, i] = own
                looks[b, i] = date_looks(own, slope[p, b], sigma[p, min(dates[i], sigma.shape[1] - 1)], n_power)
                widened = widened or looks[b, i] < own
        x = values[:, :n]
        w = looks[:, :n]
        count, p_gate[p], located = breaks_of(x, w, alpha, d0, found, lag)
        if widened and count == 0 and gate(x, plain[:, :n], 0, n, d0, lag)[0] < alpha:
            flag[p] |= 2
        ln = ln_evidence(x, w, d0, found, count, spread, lag) + math.log(prior / (1 - prior))
        probability[p] = 1 / (1 + math.exp(-ln)) if ln > -700 else 0.0
        if count == 0:
            continue
        if not located:
            flag[p] |= 1
        n_changes[p] = count
        first[p] = dates[found[0]]
        last[p] = dates[found[count - 1]]
        best = -1.0
        for i in range(count):
            low = 0 if i == 0 else found[i - 1]
            high = n if i == count - 1 else found[i + 1]
            z, _, _ = equal_means(x, w, low, high, found[i])
            spare[0] = found[i] - low
            size = 0.0
            up = 0
            for b in range(n_power):
                step = _step_db(x, w, b, low, found[i], high)
                size += step / n_power
                up += 1 if step > 0 else -1
            if matrices and up != 0 and not _same_sign(x, w, low, found[i], high):
                up = 0
            if i < max_breaks:
                break_date[p, i] = dates[found[i]]
                break_magnitude[p, i] = size
                own = ln_evidence(x[:, low:high], w[:, low:high], d0, spare, 1, spread, lag)
                odds = own + math.log(prior / (1 - prior))
                break_probability[p, i] = 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0
            if z > best:
                best = z
                strongest[p] = dates[found[i]]
                previous[p] = dates[found[i] - 1]
                magnitude[p] = size
                direction[p] = 1 if up == n_power else (-1 if up == -n_power else 0)
    return (
        n_obs, n_changes, flag, first, last, strongest, previous, magnitude, direction, probability, p_gate,
        break_date, break_magnitude, break_probability,
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _step_db(values, looks, band, low, at, high):
    before = 0.0
    after = 0.0
    weight_before = 0.0
    weight_after = 0.0
    row = min(band, looks.shape[0] - 1)
    for t in range(low, high):
        if t < at:
            before += looks[row, t] * values[band, t]
            weight_before += looks[row, t]
        else:
            after += looks[row, t] * values[band, t]
            weight_after += looks[row, t]
    return 10 * math.log10(after / weight_after * weight_before / before)


@njit(nogil=True, cache=True)
def _same_sign(values, looks, low, at, high):
    """Whether the step of a matrix is up, or down, whichever way one looks (Loewner order: its eigenvalues' signs)."""
    step = np.zeros(4)
    for i in range(4):
        before = 0.0
        after = 0.0
        weight_before = 0.0
        weight_after = 0.0
        for t in range(low, high):
            if t < at:
                before += looks[0, t] * values[i, t]
                weight_before += looks[0, t]
            else:
                after += looks[0, t] * values[i, t]
                weight_after += looks[0, t]
        step[i] = after / weight_after - before / weight_before
    return step[0] * step[1] > step[2] ** 2 + step[3] ** 2
