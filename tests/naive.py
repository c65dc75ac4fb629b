"""Slow, obvious twins of the kernels: what the fast ones are compared with on small input."""

import math

import numpy as np
from scipy import stats


def bspline_value(coefficients, u, v):
    """Cubic B-spline at one (u, v) from the definition, with mirrored coefficients and clamped coordinates."""
    n_row, n_col = coefficients.shape
    u, v = min(max(u, 0), n_row - 1), min(max(v, 0), n_col - 1)

    def basis(t):
        t = abs(t)
        if t < 1:
            return 2 / 3 - t * t + t**3 / 2
        return (2 - t) ** 3 / 6 if t < 2 else 0.0

    def mirror(i, n):
        while i < 0 or i >= n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i

    total = 0.0
    for i in range(math.floor(u) - 2, math.floor(u) + 4):
        for j in range(math.floor(v) - 2, math.floor(v) + 4):
            total += basis(u - i) * basis(v - j) * coefficients[mirror(i, n_row), mirror(j, n_col)]
    return total


def keys_cubic(image, r, c):
    """Keys' cubic convolution (a = -1/2) at one interior point."""

    def weight(t, a=-0.5):
        t = abs(t)
        if t < 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    total = 0.0
    for i in range(math.floor(r) - 1, math.floor(r) + 3):
        for j in range(math.floor(c) - 1, math.floor(c) + 3):
            total += weight(r - i) * weight(c - j) * image[i, j]
    return total


def zones(codes, connectivity):
    """Connected pixels of one code by flood filling: list of sets of (row, col), in the order of their first pixel."""
    near = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    near += [(-1, -1), (-1, 1), (1, -1), (1, 1)] if connectivity == 8 else []
    left = {(r, c) for r in range(codes.shape[0]) for c in range(codes.shape[1]) if codes[r, c]}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        zone, waiting = {start}, [start]
        while waiting:
            r, c = waiting.pop()
            for dr, dc in near:
                at = (r + dr, c + dc)
                if at in left and codes[at] == codes[start]:
                    left.discard(at)
                    zone.add(at)
                    waiting.append(at)
        found.append(zone)
    return found


def outline(pixels):
    """Union of the squares (x = col, y = row) of pixels."""
    import shapely

    return shapely.union_all([shapely.box(c, r, c + 1, r + 1) for r, c in pixels])


def harmonic_terms(year, order):
    """Regressors of one date (fractional year): 1, cos, sin, trend, higher harmonics."""
    terms = [1.0]
    for m in range(1, order + 1):
        terms += [math.cos(2 * math.pi * m * year), math.sin(2 * math.pi * m * year)]
        if m == 1:
            terms.append(year)
    return [*terms, year] if order == 0 else terms


def standardised_sum(x, y, begin, end):
    """Student-t value of the prediction errors' sum over [begin, end) after least squares on everything before.

    The noise is pooled from around the fit before and around the errors' own mean. Returns (t, degrees of freedom).
    """
    import numpy as np

    beta, *_ = np.linalg.lstsq(x[:begin], y[:begin], rcond=None)
    before = y[:begin] - x[:begin] @ beta
    errors = y[begin:end] - x[begin:end] @ beta
    m, df = end - begin, begin - x.shape[1]
    total = x[begin:end].sum(0)
    spread = m + total @ np.linalg.inv(x[:begin].T @ x[:begin]) @ total
    noise = ((before**2).sum() + ((errors - errors.mean()) ** 2).sum()) / (df + m - 1)
    return errors.sum() / math.sqrt(noise * spread), df + m - 1


def side_levels(series, date, over, share):
    """Low, median, high of one series before and after a scene number, and the number after; None for no date."""
    seen = [(t, v) for t, v in enumerate(series) if not math.isnan(v)]
    before = sorted(v for t, v in seen if date < 0 or t < date)
    after = sorted(v for t, v in seen if date >= 0 and t >= date and (over < 0 or t < over))
    out = []
    for side in (before, after):
        cut = int(share * len(side))
        out += [side[cut], side[len(side) // 2], side[-1 - cut]] if side else [math.nan] * 3
    return [*out, len(after)]


def squared_gradient(image, r, c):
    """Sum of squared central differences at one pixel, one-sided beside gaps and edges."""

    def at(i, j):
        inside = 0 <= i < image.shape[0] and 0 <= j < image.shape[1]
        return image[i, j] if inside else math.nan

    total = 0.0
    for dr, dc in ((1, 0), (0, 1)):
        back, here, ahead = at(r - dr, c - dc), image[r, c], at(r + dr, c + dc)
        if math.isnan(here):
            continue
        if not math.isnan(back) and not math.isnan(ahead):
            total += ((ahead - back) / 2) ** 2
        elif not math.isnan(ahead):
            total += (ahead - here) ** 2
        elif not math.isnan(back):
            total += (here - back) ** 2
    return total


def window_mean(image, radius):
    """Mean of the observed pixels of a square window around every observed pixel."""
    out = np.full(image.shape, np.nan)
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            if not np.isnan(image[r, c]):
                rows, cols = slice(max(0, r - radius), r + radius + 1), slice(max(0, c - radius), c + radius + 1)
                out[r, c] = np.nanmean(image[rows, cols])
    return out


def omnibus_z(values, looks):
    """Conradsen's omnibus of k dates and q channels of equal looks, as written: (z, f, omega2)."""
    q, k = values.shape
    ln_q = looks * (q * k * math.log(k) + np.log(values).sum() - k * sum(math.log(channel.sum()) for channel in values))
    f = q * (k - 1)
    rho = 1 - (k + 1) / (6 * looks * k)
    return -2 * rho * ln_q, f, -f / 4 * (1 - 1 / rho) ** 2


def gamma_run_ratio(values, looks, start, stop):
    """2 ln likelihood ratio of dates start:stop having another mean than the rest, from gamma densities."""

    def ln_likelihood(part):
        return float(stats.gamma.logpdf(part, looks, scale=part.mean() / looks).sum())

    inside = np.zeros(values.size, bool)
    inside[start:stop] = True
    two = ln_likelihood(values[inside]) + ln_likelihood(values[~inside])
    return 2 * (two - ln_likelihood(values))


def masked_correlation(reference, reference_valid, moving, moving_valid, dy, dx):
    """Correlation without means at one whole-pixel lag, over pixels valid in both, by loops; (value, shared)."""
    product = power_r = power_m = shared = 0
    for r in range(reference.shape[0]):
        for c in range(reference.shape[1]):
            p, q = r + dy, c + dx
            inside = 0 <= p < moving.shape[0] and 0 <= q < moving.shape[1]
            if not inside or not reference_valid[r, c] or not moving_valid[p, q]:
                continue
            product += reference[r, c] * moving[p, q]
            power_r += reference[r, c] ** 2
            power_m += moving[p, q] ** 2
            shared += 1
    return product / math.sqrt(power_r * power_m), shared


def class_information(a, b, dy, dx):
    """Mutual information (nats) times the number of pixels observed in both images of classes, b taken at (dy, dx)."""
    joint = {}
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            if 0 <= i + dy < b.shape[0] and 0 <= j + dx < b.shape[1]:
                pair = (int(a[i, j]), int(b[i + dy, j + dx]))
                if min(pair) >= 0:
                    joint[pair] = joint.get(pair, 0) + 1
    n = sum(joint.values())
    total = 0.0
    for (p, q), count in joint.items():
        of_p = sum(c for (x, _), c in joint.items() if x == p)
        of_q = sum(c for (_, y), c in joint.items() if y == q)
        total += count * np.log(count * n / (of_p * of_q))
    return total


def gamma_steps(values, looks):
    """2 ln(likelihood ratio) of two means against one at every date 1 ... n - 1, Bartlett's factor included.

    values, looks : (band, n). Returns z and its part that all bands do alike, (n - 1,) each.
    """
    n_band, n = values.shape
    z, alike = [], []
    for j in range(1, n):
        total, signed = 0.0, 0.0
        for b in range(n_band):
            parts = [(values[b, s], looks[b, s]) for s in (slice(0, n), slice(0, j), slice(j, n))]
            (all_w, all_m), (w0, m0), (w1, m1) = [(w.sum(), (w * x).sum() / w.sum()) for x, w in parts]
            ratio = all_w * math.log(all_m) - w0 * math.log(m0) - w1 * math.log(m1)
            part = 2 * ratio * (1 - (1 / w0 + 1 / w1 - 1 / all_w) / 6)
            total += part
            signed += math.copysign(math.sqrt(part), m1 - m0)
        z.append(total)
        alike.append(signed**2 / n_band)
    return np.array(z), np.array(alike)


def box_sums(values, radius):
    """Sum over the square around each cell, cut at the edges."""
    out = np.empty_like(values)
    for r in range(values.shape[0]):
        for c in range(values.shape[1]):
            out[r, c] = values[max(0, r - radius) : r + radius + 1, max(0, c - radius) : c + radius + 1].sum()
    return out
