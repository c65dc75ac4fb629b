"""Two images without a common radiometry: which pixels break the relation that most pixels keep."""

import math

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from geoalign.kernels.markov import mean_field
from geoalign.kernels.sar_change import gaussian_mean

COARSE = 2.5
"""Sigma of the means in which structure is compared, px."""
FINE, FINE_SAR = 1.0, 2.0
"""Sigma of the means by which pixels are told apart; speckle needs more."""
DEPTH = 9
REACH = 5.0
"""Features are held within so many spreads of their median."""
NEIGHBOURS = 300
"""Like samples whose counterparts say what to expect; at most an eighth of all."""
ROUNDS = 6
FLOOR = 0.1
"""Least variance of what to expect, in spreads squared."""
EDGE = 0.25
"""Squared step, in spreads, that halves a pixel's evidence where a residual shift may have made it."""
MOST_EVIDENCE = 4.0
ACROSS = 6
"""Pixels to either side at which the grounds lie that a pixel may be a mixture of: beyond the reach of the means."""
SAMPLES_A_KIND = 25
TURNS = 30
MOST_KINDS = 200
LEAST_SCORE = 5.0
"""Sum of both directions' surprises, in medians each, that is none yet: where nothing changed, the half that surprises
more reaches it in a few pixels of a hundred."""
FEW = 60
"""Samples below which nothing is compared."""


@njit(nogil=True, cache=True)
def features(planes, logarithmic, offset):
    """Coarse and fine local means of every plane, (2, plane, row, col) float32, NaN where not observed.

    planes : (plane, row, col), NaN = not observed; logarithmic : (plane,) of 0 and 1, whether it is backscatter
    offset : (plane,) added before the logarithm; what is then not above 0 is missing
    """
    n_plane, n_row, n_col = planes.shape
    out = np.empty((2, n_plane, n_row, n_col), np.float32)
    for k in range(n_plane):
        image = planes[k].astype(np.float64)
        if logarithmic[k] > 0:
            for r in range(n_row):
                for c in range(n_col):
                    value = image[r, c] + offset[k]
                    image[r, c] = math.log(value) if value > 0 else np.nan
        out[0, k] = gaussian_mean(image, COARSE)
        out[1, k] = gaussian_mean(image, FINE_SAR if logarithmic[k] > 0 else FINE)
    return out


def samples(view, step):
    """Every step-th pixel of a block, (2 plane, n) float64; view (2, plane, row, col)."""
    picked = view[:, :, step // 2 :: step, step // 2 :: step]
    return picked.reshape(view.shape[0] * view.shape[1], -1).astype(np.float64)


def otsu(values):
    """Otsu's threshold of values, whose highest half percent counts as the lowest of it."""
    counts, edges = np.histogram(np.minimum(values, np.quantile(values, 0.995)), 256)
    middle = 0.5 * (edges[1:] + edges[:-1])
    weight, first = np.cumsum(counts), np.cumsum(counts * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (first[-1] * weight / weight[-1] - first) ** 2 / (weight * (weight[-1] - weight))
    return middle[np.nanargmax(np.where(np.isfinite(between), between, -1.0))]


def broken(before, after):
    """How far the samples break the relation of two modalities: (score, threshold); before, after (n, plane) scaled.

    For each sample the counterparts of those like it in one image say what to expect in the other, and how surely; the
    score is the surprise in both directions, each over its median. Samples that surprise lose their say, in turns, so
    that the relation is that of the ground which did not change.
    """
    n = before.shape[0]
    k = max(min(NEIGHBOURS, n // 8), 2)
    like = [cKDTree(x).query(x, k=k)[1] for x in (before, after)]
    say = np.ones(n)
    for _ in range(ROUNDS):
        score = np.zeros(n)
        for near, other in ((like[0], after), (like[1], before)):
            weight = say[near] + 1e-4
            total = weight.sum(axis=1)[:, None]
            expected = np.stack([(weight * x[near]).sum(axis=1) for x in other.T], axis=1) / total
            square = np.stack([(weight * x[near] ** 2).sum(axis=1) for x in other.T], axis=1) / total
            variance = np.maximum(square - expected**2, 0.0)
            surprise = np.sqrt(((other - expected) ** 2 / (variance + FLOOR)).mean(axis=1))
            score += surprise / max(np.median(surprise), 1e-6)
        threshold = otsu(score)
        say = 1 / (1 + np.exp(np.clip((score - threshold) / (0.1 * threshold), -50, 50)))
    return score, max(threshold, LEAST_SCORE)


def learn(parts, n_before, n_kind, seed):
    """Kinds of pixels, pairs of values before and after, and how far each kind breaks the relation.

    parts : from `samples`; n_before : planes that belong to the first date; n_kind : how many kinds; seed of k-means
    Returns one array: median and spread of the fine features (plane,) each, spread 0 for a plane without values;
    centres (n_kind, plane) in spreads, unused ones at infinity; share of broken samples of each kind; their mean score.
    """
    values = np.concatenate(parts, axis=1)
    n_plane = values.shape[0] // 2
    coarse, fine = values[:n_plane], values[n_plane:]
    used = np.isfinite(fine).any(axis=1)
    middle, spread = np.zeros(n_plane), np.zeros(n_plane)
    centres = np.full((n_kind, n_plane), np.inf)
    share, mean_score = np.zeros(n_kind), np.zeros(n_kind)
    good = np.isfinite(fine[used]).all(axis=0) & np.isfinite(coarse[used]).all(axis=0)
    both = used[:n_before].any() and used[n_before:].any()
    if both and good.sum() >= FEW:
        middle[used] = np.median(fine[used][:, good], axis=1)
        low, high = np.quantile(fine[used][:, good], (0.16, 0.84), axis=1)
        spread[used] = 0.5 * (high - low)
        used &= spread > 0
        if used[:n_before].any() and used[n_before:].any():
            first = np.arange(n_plane) < n_before
            scaled = [_scaled(x[:, good], middle, spread, used) for x in (coarse, fine)]
            score, threshold = broken(scaled[0][first[used]].T, scaled[0][~first[used]].T)
            joint = scaled[1] * _weights(first, used)[used][:, None]
            n_kind_here = int(min(n_kind, max(good.sum() // SAMPLES_A_KIND, 2)))
            found, kind = k_means(np.ascontiguousarray(joint.T), n_kind_here, seed)
            size = np.bincount(kind, minlength=n_kind_here)
            some = np.flatnonzero(size)
            centres[some[:, None], np.flatnonzero(used)] = found[some] / _weights(first, used)[used]
            centres[some[:, None], np.flatnonzero(~used)] = 0.0
            share[some] = np.bincount(kind, score > threshold, n_kind_here)[some] / size[some]
            mean_score[some] = np.bincount(kind, score, n_kind_here)[some] / size[some]
    spread[~used] = 0.0
    return np.concatenate([middle, spread, centres.ravel(), share, mean_score])


def k_means(points, n, seed):
    """Centres (n, plane) and the number of the nearest to each point, by k-means++ and `TURNS` turns of Lloyd's.

    points : (n_point, plane). A centre that loses all its points stays where it is. Distances are summed plane by
    plane: a product of matrices, as libraries take it, may round otherwise with another number of threads.
    """
    rng = np.random.RandomState(seed)
    centres = np.empty((n, points.shape[1]))
    centres[0] = points[rng.randint(points.shape[0])]
    nearest = np.full(points.shape[0], np.inf)
    for k in range(1, n):
        _nearer(points, centres[k - 1], nearest)
        total = np.cumsum(nearest / nearest.sum()) if nearest.sum() > 0 else np.linspace(0, 1, nearest.size)
        centres[k] = points[min(np.searchsorted(total, rng.uniform()), nearest.size - 1)]
    kind = np.zeros(points.shape[0], np.int64)
    for _ in range(TURNS):
        _assign(points, centres, kind)
    return centres, kind


@njit(nogil=True, cache=True)
def _nearer(points, centre, nearest):
    for p in range(points.shape[0]):
        d = 0.0
        for k in range(points.shape[1]):
            d += (points[p, k] - centre[k]) ** 2
        nearest[p] = min(nearest[p], d)


@njit(nogil=True, cache=True)
def _assign(points, centres, kind):
    """Writes the nearest centre of each point into `kind`, and the means of their points into `centres`."""
    n_point, n_plane = points.shape
    total = np.zeros(centres.shape)
    count = np.zeros(centres.shape[0])
    for p in range(n_point):
        best = np.inf
        for m in range(centres.shape[0]):
            d = 0.0
            for k in range(n_plane):
                d += (points[p, k] - centres[m, k]) ** 2
            if d < best:
                best = d
                kind[p] = m
        count[kind[p]] += 1
        for k in range(n_plane):
            total[kind[p], k] += points[p, k]
    for m in range(centres.shape[0]):
        if count[m] > 0:
            for k in range(n_plane):
                centres[m, k] = total[m, k] / count[m]


def _scaled(values, middle, spread, used):
    return np.clip((values[used] - middle[used, None]) / spread[used, None], -REACH, REACH)


def _weights(first, used):
    """Weight of each plane, so that both dates count alike whatever their bands."""
    return np.where(first, 1 / math.sqrt(max((first & used).sum(), 1)), 1 / math.sqrt(max((~first & used).sum(), 1)))


@njit(nogil=True, cache=True)
def kinds(view, sigma, learnt, n_before, n_kind):
    """The kind of each pixel, and how much a residual shift leaves of its evidence.

    view : (2, plane, row, col) from `features`; sigma : (2, row, col) alignment error of either date, px
    Returns kind (row, col) int16, -1 not observed, -2 nothing could be learnt; shrink (row, col) float32; mixed
    (row, col) uint8, bits of the directions (`WAYS`) in which every plane's value lies between those on both sides.
    """
    _, n_plane, n_row, n_col = view.shape
    fine = view[1]
    middle, spread = learnt[:n_plane], learnt[n_plane : 2 * n_plane]
    centres = learnt[2 * n_plane : (2 + n_kind) * n_plane].reshape(n_kind, n_plane)
    weight = np.zeros(n_plane)
    for k in range(n_plane):
        a, b = (0, n_before) if k < n_before else (n_before, n_plane)
        if spread[k] > 0:
            weight[k] = 1.0 / (spread[a:b] > 0).sum()
    kind = np.full((n_row, n_col), np.int16(-1), np.int16)
    shrink = np.ones((n_row, n_col), np.float32)
    mixed = np.zeros((n_row, n_col), np.uint8)
    value = np.zeros(n_plane)
    for r in range(n_row):
        for c in range(n_col):
            seen = np.zeros(2, np.bool_)
            whole = True
            for k in range(n_plane):
                there = not math.isnan(fine[k, r, c])
                seen[0 if k < n_before else 1] |= there
                if spread[k] > 0:
                    whole &= there
                    value[k] = min(max((fine[k, r, c] - middle[k]) / spread[k], -REACH), REACH)
            if not (whole and seen[0] and seen[1]):
                continue
            kind[r, c] = -2
            best = np.inf
            for m in range(n_kind):
                if math.isinf(centres[m, 0]):
                    continue
                d = 0.0
                for k in range(n_plane):
                    if weight[k] > 0:
                        d += weight[k] * (value[k] - centres[m, k]) ** 2
                if d < best:
                    best = d
                    kind[r, c] = m
            blur = 0.0
            for k in range(n_plane):
                error = sigma[0 if k < n_before else 1, r, c]
                if weight[k] > 0 and error > 0 and 0 < r < n_row - 1 and 0 < c < n_col - 1:
                    # the larger one-sided step along either axis, as a sharp edge has it
                    dy = max(abs(fine[k, r + 1, c] - fine[k, r, c]), abs(fine[k, r, c] - fine[k, r - 1, c]))
                    dx = max(abs(fine[k, r, c + 1] - fine[k, r, c]), abs(fine[k, r, c] - fine[k, r, c - 1]))
                    square = (dy * dy + dx * dx) * (error / spread[k]) ** 2
                    if not math.isnan(square):
                        blur += weight[k] * square
            shrink[r, c] = EDGE / (EDGE + blur)
            mixed[r, c] = _mixed(fine, weight, r, c)
    return kind, shrink, mixed


WAYS = ((0, ACROSS), (ACROSS, 0), (ACROSS - 2, ACROSS - 2), (ACROSS - 2, 2 - ACROSS))
"""Rows and columns to one side; the other is opposite."""


@njit(nogil=True, cache=True)
def _mixed(fine, weight, r, c):
    n_plane, n_row, n_col = fine.shape
    bits = 0
    for way in range(4):
        i, j = WAYS[way]
        if r - i < 0 or r + i >= n_row or min(c - j, c + j) < 0 or max(c - j, c + j) >= n_col:
            continue
        between = True
        for k in range(n_plane):
            if weight[k] > 0:
                a, b = fine[k, r + i, c + j], fine[k, r - i, c - j]
                # a comparison with NaN is false: what is not observed explains nothing
                between = between and min(a, b) <= fine[k, r, c] <= max(a, b)
        if between:
            bits |= 1 << way
    return bits


@njit(nogil=True, cache=True)
def kind_counts(kind, labels, n_kind):
    """Changed pixels and all pixels of each kind, (2, n_kind)."""
    out = np.zeros((2, n_kind))
    for r in range(kind.shape[0]):
        for c in range(kind.shape[1]):
            if kind[r, c] >= 0:
                out[1, kind[r, c]] += 1
                out[0, kind[r, c]] += labels[r, c] == 1
    return out


def kind_shares(parts):
    """Share of changed pixels of each kind, then of all, (n_kind + 1,)."""
    changed, all_ = np.sum(parts, axis=0)
    return np.append(changed / np.maximum(all_, 1), changed.sum() / max(all_.sum(), 1))


@njit(nogil=True, cache=True)
def judged(kind, shrink, mixed, first, labels, shares, beta, n_round):
    """Each pixel by the share of its kind, and its neighbours by a Potts field; labels (row, col) int8 of 0 and 1.

    first : labels by the kinds alone; labels : those of the turn before
    A pixel that may be a mixture of what lies on both sides, neither of them changed, is an edge and no change: its
    pair of values is rare, for rare it is to lie on an edge.
    Returns labels int8 (-2 not observed), odds float32 of change, excused bool: changed by itself, but for the shift.
    """
    n_row, n_col = kind.shape
    high = np.zeros((n_row, n_col))
    start = np.zeros((n_row, n_col), np.int8)
    alone = np.zeros((n_row, n_col), np.bool_)
    for r in range(n_row):
        for c in range(n_col):
            if kind[r, c] < 0:
                start[r, c] = -2 if kind[r, c] == -1 else 0
                high[r, c] = -50.0
                continue
            share = shares[kind[r, c]]
            value = min(max(math.log((share + 0.01) / (1.01 - share)), -MOST_EVIDENCE), MOST_EVIDENCE)
            alone[r, c] = value > 0 and shrink[r, c] < 0.5
            left = 0.0 if value > 0 and _edge(mixed[r, c], first, r, c) else shrink[r, c]
            # what a shift or an edge may explain is left to the neighbours, and no change is the simpler answer
            high[r, c] = value * left - (1.0 - left) if value > 0 else value
            start[r, c] = labels[r, c]
    out, odds = mean_field(start, np.full((n_row, n_col), -50.0), high, beta, n_round)
    for r in range(n_row):
        for c in range(n_col):
            alone[r, c] = alone[r, c] and out[r, c] == 0
    return out, odds, alone


@njit(nogil=True, cache=True)
def _edge(bits, labels, r, c):
    for way in range(4):
        if bits >> way & 1:
            i, j = WAYS[way]
            if labels[r + i, c + j] == 0 and labels[r - i, c - j] == 0:
                return True
    return False
