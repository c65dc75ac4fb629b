"""What the stable segments of a SAR series look like, and which of them are of one kind."""

import math

import numpy as np
from numba import njit

NONE = 255
"""Class of what is no segment, or can't be described."""
FEW = 4
"""Observations below which a segment has no variability, and takes no part in forming classes."""
SEASON_DAYS = 300.0
"""A shorter segment has no season."""
SAMPLE = 3000
"""Segments that a block lends to forming classes, at most."""
STARTS, ROUNDS = 4, 60


@njit(nogil=True, cache=True)
def describe(series, breaks, years):
    """Features of every segment.

    series : (band, time, row, col) intensities, <= 0 or NaN in any band = not observed
    breaks : (k, row, col) first date of each further segment in order, -1 none; years : (time,) fractional years
    Returns ((k + 1) * (band + 3), row, col) float32, segment by segment: level of each band (dB of the mean), ratio
    (last band less first, dB), variability (sd, dB, mean over bands), season (amplitude, dB, of the bands' mean); NaN
    none.
    """
    n_band, n_time, n_row, n_col = series.shape
    n_break = breaks.shape[0]
    n_feature = n_band + 3
    out = np.full(((n_break + 1) * n_feature, n_row, n_col), np.nan, np.float32)
    db = np.empty((n_band, n_time))
    when = np.empty(n_time)
    for r in range(n_row):
        for c in range(n_col):
            for s in range(n_break + 1):
                if s > 0 and breaks[s - 1, r, c] < 0:
                    break
                start = 0 if s == 0 else breaks[s - 1, r, c]
                stop = n_time if s == n_break or breaks[s, r, c] < 0 else breaks[s, r, c]
                n = 0
                first = s * n_feature
                for t in range(start, stop):
                    good = True
                    for b in range(n_band):
                        good &= series[b, t, r, c] > 0 and series[b, t, r, c] < np.inf
                    if good:
                        for b in range(n_band):
                            db[b, n] = series[b, t, r, c]
                        when[n] = years[t]
                        n += 1
                if n == 0:
                    continue
                scatter = 0.0
                for b in range(n_band):
                    total = 0.0
                    for i in range(n):
                        total += db[b, i]
                    out[first + b, r, c] = 10 * math.log10(total / n)
                    mean = 0.0
                    for i in range(n):
                        db[b, i] = 10 * math.log10(db[b, i])
                        mean += db[b, i] / n
                    squares = 0.0
                    for i in range(n):
                        squares += (db[b, i] - mean) ** 2
                    scatter += math.sqrt(squares / max(n - 1, 1)) / n_band
                out[first + n_band, r, c] = out[first + n_band - 1, r, c] - out[first, r, c]
                if n >= FEW:
                    out[first + n_band + 1, r, c] = scatter
                if n >= 2 * FEW and (when[n - 1] - when[0]) * 365.25 >= SEASON_DAYS:
                    out[first + n_band + 2, r, c] = _amplitude(db, when, n)
    return out


@njit(nogil=True, cache=True)
def _amplitude(db, when, n):
    """Amplitude of the yearly wave of the bands' mean, by least squares of 1, cos, sin."""
    mean_c = mean_s = mean_v = 0.0
    for i in range(n):
        mean_c += math.cos(2 * math.pi * when[i]) / n
        mean_s += math.sin(2 * math.pi * when[i]) / n
        for b in range(db.shape[0]):
            mean_v += db[b, i] / (n * db.shape[0])
    cc = cs = ss = cv = sv = 0.0
    for i in range(n):
        c = math.cos(2 * math.pi * when[i]) - mean_c
        s = math.sin(2 * math.pi * when[i]) - mean_s
        v = -mean_v
        for b in range(db.shape[0]):
            v += db[b, i] / db.shape[0]
        cc += c * c
        cs += c * s
        ss += s * s
        cv += c * v
        sv += s * v
    scale = cc * ss - cs * cs
    if scale < 1e-9 * n * n:
        return np.nan
    return math.hypot((ss * cv - cs * sv) / scale, (cc * sv - cs * cv) / scale)


def sample(features, *, n_feature):
    """Segments of a block for forming classes, (n, n_feature) float64: all, or an even SAMPLE of them."""
    flat = features.reshape(-1, n_feature, features.shape[-2] * features.shape[-1])
    flat = flat.transpose(2, 0, 1).reshape(-1, n_feature).astype(np.float64)
    good = flat[np.isfinite(flat[:, :-1]).all(axis=1)]
    return good[:: max(1, -(-len(good) // SAMPLE))]


def classes(parts, *, n_class, scale, apart, seed):
    """Centres of the classes, (n_class * n_feature,), from the weakest to the strongest backscatter; NaN unused.

    parts : from `sample`; scale : (n_feature,) what counts as one unit of each feature; apart : classes nearer to each
    other than this are one. K-means from the best of STARTS starts (k-means++); what has no season counts as typical.
    """
    n_feature = len(scale)
    out = np.full((n_class, n_feature), np.nan)
    points = np.concatenate(parts) / scale if parts else np.empty((0, n_feature))
    if len(points) < n_class:
        return out.ravel()
    known = np.isfinite(points[:, -1])
    points[~known, -1] = np.median(points[known, -1]) if known.any() else 0.0
    rng = np.random.default_rng(seed)
    centres, size = min((_means(points, n_class, rng) for _ in range(STARTS)), key=lambda f: f[2])[:2]
    while len(centres) > 1:
        gap = np.linalg.norm(centres[:, None] - centres[None], axis=2) + np.diag(np.full(len(centres), np.inf))
        i, j = sorted(np.unravel_index(np.argmin(gap), gap.shape))
        if gap[i, j] >= apart:
            break
        centres[i] = (size[i] * centres[i] + size[j] * centres[j]) / (size[i] + size[j])
        size[i] += size[j]
        centres, size = np.delete(centres, j, axis=0), np.delete(size, j)
    order = np.argsort(centres[:, : n_feature - 3].sum(axis=1), kind="stable")
    out[: len(centres)] = centres[order] * scale
    return out.ravel()


def _means(points, n_class, rng):
    """(centres, sizes, squared distance) of k-means from one k-means++ start; empty classes are left out."""
    centres = points[rng.integers(len(points))][None]
    while len(centres) < n_class:
        far = np.min(((points[:, None] - centres[None]) ** 2).sum(axis=2), axis=1)
        if far.sum() == 0:
            break
        centres = np.vstack([centres, points[rng.choice(len(points), p=far / far.sum())]])
    for _ in range(ROUNDS):
        squared = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
        of = squared.argmin(axis=1)
        size = np.bincount(of, minlength=len(centres))
        totals = np.stack([np.bincount(of, points[:, k], len(centres)) for k in range(points.shape[1])], axis=1)
        new = totals[size > 0] / size[size > 0, None]
        still = new.shape == centres.shape and np.allclose(new, centres, atol=1e-9)
        centres, size = new, size[size > 0]
        if still:
            break
    return centres, size.astype(float), squared.min(axis=1).sum()


@njit(nogil=True, cache=True)
def assign(features, strongest, breaks, centres, scale):
    """Class of every segment, and those before and after the strongest change.

    features : from `describe`; strongest : (row, col) first date after that change, -1 none; breaks as there
    centres : (n_class * n_feature,); scale : (n_feature,)
    Returns segment_class (k + 1, row, col), class_from, class_to (row, col) uint8: the nearest centre over the features
    that the segment has; NONE where it has no level. Where nothing changed, both are the pixel's one class.
    """
    n_feature = scale.size
    n_segment = features.shape[0] // n_feature
    n_row, n_col = features.shape[1], features.shape[2]
    of = np.full((n_segment, n_row, n_col), NONE, np.uint8)
    before = np.full((n_row, n_col), NONE, np.uint8)
    after = np.full((n_row, n_col), NONE, np.uint8)
    for r in range(n_row):
        for c in range(n_col):
            for s in range(n_segment):
                best = np.inf
                if math.isnan(features[s * n_feature, r, c]):
                    continue
                for k in range(centres.size // n_feature):
                    total = 0.0
                    for f in range(n_feature):
                        value = features[s * n_feature + f, r, c]
                        if not math.isnan(value):
                            total += ((value - centres[k * n_feature + f]) / scale[f]) ** 2
                    if total < best:
                        best = total
                        of[s, r, c] = k
            before[r, c] = after[r, c] = of[0, r, c]
            if strongest[r, c] >= 0:
                for s in range(n_segment - 1):
                    if breaks[s, r, c] == strongest[r, c]:
                        before[r, c] = of[s, r, c]
                        after[r, c] = of[s + 1, r, c]
    return of, before, after
