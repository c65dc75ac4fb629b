"""Two speckled dates compared: how much to smooth, how likely a pair of values is under change, and under none."""

import math

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter
from scipy.special import polygamma

from geoalign.kernels.log_ratio import LOW, N_BIN, STEP
from geoalign.kernels.markov import mean_field
from geoalign.kernels.speckle import boxcar, relative_gradient
from geoalign.kernels.threshold import GATE, two_sided

SCALES = (1.0, 1.5, 2.25, 3.4)
"""Widths of the Gaussian means in which change is looked for first, times the least one that speckle allows."""
LARGEST_SIGMA = 6.0
DEPTH = 19
"""Reach of the widest mean, three sigma, and one px more for gradients."""
RESIDUAL = 0.12
"""Noise of the log-ratio that the least mean leaves, nepers (0.5 dB)."""
LIGHT = 0.5
"""Sigma of the mean from which pixels are judged, px: hardly more than the pixel, against single bright points."""
LEVELS = 64
"""Bins an axis of the joint histogram of both dates."""
BLUR_BINS = 1.5
"""Sigma of its smoothing, bins."""
MOST_EVIDENCE = 8.0
"""A ratio of joint densities counts for at most so many nats."""
LEVEL_LOW, LEVEL_STEP, LEVEL_BINS = -20.0, 0.01, 3200
LAGS = (1, 2, 3, 4, 6)
"""Lags (px) at which the correlation of speckle is looked at; the last one counts as uncorrelated."""
GUARD = 0.35
"""Share of a class's contrast that the mean around a pixel must show, lest a class spread over other ground."""
SCATTER_PX = 2.5
"""Widest mean (sigma, px) that change must survive to some part, where it is no wider: single bright points do not."""
CLUMPED_GATE = 0.005
"""Gain (nats a pixel) that is enough for a class which stays under wider means; see `first_cut`."""
FEW = 10
"""Pixels below which a class is none."""


@njit(nogil=True, cache=True)
def mean_log(images):
    """Mean over bands of the logarithm; (band, row, col) > 0 or NaN -> (row, col) float64, NaN where a band is."""
    n_band, n_row, n_col = images.shape
    out = np.zeros((n_row, n_col))
    for b in range(n_band):
        for r in range(n_row):
            for c in range(n_col):
                out[r, c] += math.log(images[b, r, c]) / n_band if images[b, r, c] > 0 else np.nan
    return out


@njit(nogil=True, cache=True)
def noise_histogram(before, after):
    """Histograms of each date's log-intensity: |difference between neighbours| (2, N_BIN), level (LEVEL_BINS,).

    before, after : (band, row, col), NaN = not observed. Returned as one array (2 N_BIN + LEVEL_BINS,). Neighbours in a
    row that agree to the bit are clipped or constant and are left out.
    """
    out = np.zeros(2 * N_BIN + LEVEL_BINS)
    for k in range(2):
        logs = mean_log(before if k == 0 else after)
        n_row, n_col = logs.shape
        for r in range(n_row):
            for c in range(n_col):
                if math.isnan(logs[r, c]):
                    continue
                out[2 * N_BIN + min(max(int((logs[r, c] - LEVEL_LOW) / LEVEL_STEP), 0), LEVEL_BINS - 1)] += 1
                if c > 0:
                    d = abs(logs[r, c] - logs[r, c - 1])
                    if d > 0.0:
                        out[k * N_BIN + min(int(d / STEP), N_BIN - 1)] += 1
    return out


def noise(parts):
    """From `noise_histogram`: noise of either date's log (nepers), sigma of the least mean (px), range of levels."""
    counts = np.sum(parts, axis=0)
    sds = [_median(counts[k * N_BIN : (k + 1) * N_BIN], STEP) * 1.4826 / math.sqrt(2) for k in range(2)]
    sigma = min(max(math.hypot(*sds) / (2 * math.sqrt(math.pi) * RESIDUAL), 0.7), 3.0)
    levels = np.cumsum(counts[2 * N_BIN :])
    if levels[-1] == 0:
        return np.array([*sds, sigma, 0.0, 1.0])
    low = LEVEL_LOW + LEVEL_STEP * np.searchsorted(levels, 0.001 * levels[-1])
    high = LEVEL_LOW + LEVEL_STEP * (np.searchsorted(levels, levels[-1]) + 1)
    return np.array([*sds, sigma, low, max(high, low + LEVELS * LEVEL_STEP)])


def _median(counts, step):
    if counts.sum() == 0:
        return 0.0
    return step * (np.searchsorted(np.cumsum(counts), 0.5 * counts.sum()) + 0.5)


@njit(nogil=True, cache=True)
def gaussian_mean(image, sigma):
    """Mean of the observed values with Gaussian weights up to three sigma, (row, col) float64; NaN does not spread.

    Summed directly, along rows and then along columns, so that a window gives the bits of the whole image.
    """
    n_row, n_col = image.shape
    reach = int(math.ceil(3.0 * sigma))
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    sums = np.zeros((n_row, n_col))
    norms = np.zeros((n_row, n_col))
    for r in range(n_row):
        for c in range(n_col):
            total, norm = 0.0, 0.0
            for j in range(max(0, c - reach), min(n_col, c + reach + 1)):
                if not math.isnan(image[r, j]):
                    weight = weights[abs(j - c)]
                    total += weight * image[r, j]
                    norm += weight
            sums[r, c] = total
            norms[r, c] = norm
    out = np.full((n_row, n_col), np.nan)
    total = np.empty(n_col)
    norm = np.empty(n_col)
    for r in range(n_row):
        total[:] = 0.0
        norm[:] = 0.0
        for i in range(max(0, r - reach), min(n_row, r + reach + 1)):
            weight = weights[abs(i - r)]
            for c in range(n_col):
                total[c] += weight * sums[i, c]
                norm[c] += weight * norms[i, c]
        for c in range(n_col):
            if not math.isnan(image[r, c]):
                out[r, c] = total[c] / norm[c]
    return out


@njit(nogil=True, cache=True)
def smoothed(before, after, shift_variance, spread):
    """Both dates at several scales.

    Parameters
    ----------
    before, after : (band, row, col) intensities, NaN = not observed
    shift_variance : (row, col) sum of the squared sigma_px of the two dates, px^2
    spread : (5,) from `noise`

    Returns
    -------
    ratio : (scale, row, col) float32, log-ratio after / before of Gaussian means, mean of the bands, nepers
    light : (row, col) float32, log-ratio of the lightest means
    place : (row, col) int16, where the pair of lightest means lies in the joint histogram
    shrink : (row, col) float32, noise over noise and residual shift, as a ratio of variances: 1 without a shift
    flat : (row, col) bool, 3 x 3 windows without any variation in both dates (clipped in a quick-look)
    """
    n_band, n_row, n_col = before.shape
    n_scale = len(SCALES)
    ratio = np.zeros((n_scale, n_row, n_col))
    light = np.zeros((2, n_row, n_col))
    blur = np.zeros((n_row, n_col))
    flat = np.ones((n_row, n_col), np.bool_)
    moved = shift_variance.max() > 0
    variance = spread[0] ** 2 + spread[1] ** 2
    for b in range(n_band):
        both = np.full((2, n_row, n_col), np.nan)
        for r in range(n_row):
            for c in range(n_col):
                if not (math.isnan(before[b, r, c]) or math.isnan(after[b, r, c])):
                    both[0, r, c] = before[b, r, c]
                    both[1, r, c] = after[b, r, c]
        for k in range(n_scale):
            sigma = min(spread[2] * SCALES[k], LARGEST_SIGMA)
            ratio[k] += np.log(gaussian_mean(both[1], sigma) / gaussian_mean(both[0], sigma)) / n_band
        for k in range(2):
            light[k] += np.log(gaussian_mean(both[k], LIGHT)) / n_band
        if moved:
            slope = relative_gradient(boxcar(0.5 * (both[0] + both[1]), 1), np.zeros((n_row, n_col)))
            blur += slope * np.sqrt(shift_variance) / n_band
        for r in range(n_row):
            for c in range(n_col):
                for i in range(max(0, r - 1), min(n_row, r + 2)):
                    for j in range(max(0, c - 1), min(n_col, c + 2)):
                        if both[0, i, j] != both[0, r, c] or both[1, i, j] != both[1, r, c]:
                            flat[r, c] = False
    # the least mean's noise is what the residual shift has to be seen against
    floor = max(variance / (4 * math.pi * spread[2] ** 2), 1e-6)
    shrink = np.ones((n_row, n_col), np.float32)
    if moved:
        for r in range(n_row):
            for c in range(n_col):
                shrink[r, c] = floor / (floor + blur[r, c] ** 2)
    place = np.zeros((n_row, n_col), np.int16)
    for r in range(n_row):
        for c in range(n_col):
            if not math.isnan(light[0, r, c] + light[1, r, c]):
                place[r, c] = _level(light[0, r, c], spread) * LEVELS + _level(light[1, r, c], spread)
    return ratio.astype(np.float32), (light[1] - light[0]).astype(np.float32), place, shrink, flat


@njit(nogil=True, cache=True)
def _level(value, spread):
    return min(max(int((value - spread[3]) / (spread[4] - spread[3]) * LEVELS), 0), LEVELS - 1)


@njit(nogil=True, cache=True)
def ratio_histograms(ratio, flat):
    """Counts of the log-ratio at each scale over the fixed bins, (scale, N_BIN); flat and missing pixels left out."""
    n_scale, n_row, n_col = ratio.shape
    out = np.zeros((n_scale, N_BIN))
    for k in range(n_scale):
        for r in range(n_row):
            for c in range(n_col):
                value = ratio[k, r, c]
                if not math.isnan(value) and not flat[r, c]:
                    out[k, min(max(int((value - LOW) / STEP), 0), N_BIN - 1)] += 1
    return out


def total(parts):
    """Sum of histograms, flat."""
    return np.sum(parts, axis=0).ravel()


def first_cut(counts, spread):
    """Where the first labels begin, (8,): centre of each scale, then for the lower and the upper side the finest scale
    at which there is a second class, and the threshold there (inf where there never is).

    counts : `total` of `ratio_histograms`; spread from `noise`. A class is believed where it gains as much as the gate
    of `threshold.two_sided` asks, more where a scale has few independent means (two classes have five parameters more
    than one), unless it is scattered: gone once a narrow mean is a little wider. A small one gains little over the
    whole image; it is believed for a share of that where it stays under wider means, as ground does and speckle does
    not.
    """
    counts = counts.reshape(len(SCALES), N_BIN)
    at = LOW + (np.arange(N_BIN) + 0.5) * STEP
    means = [row.sum() / (4 * math.pi * min(spread[2] * s, LARGEST_SIGMA) ** 2) for s, row in zip(SCALES, counts)]
    strict = [two_sided(row, LOW, STEP, gate=GATE + 2.5 / max(n, 1e-9)) for n, row in zip(means, counts)]
    loose = [two_sided(row, LOW, STEP, gate=CLUMPED_GATE) for row in counts]
    out = [fit[0] for fit in strict]

    def held(fit, k, side):
        """Share of the pixels beyond a threshold that are left at the next scale and the one after, and their number
        in independent means; None at scales that have no such two."""
        beyond = (2 * side - 1) * (at - fit[0]) > fit[1 + 12 * side]
        here, *wider = (row[beyond].sum() for row in counts[k : k + 3])
        if len(wider) < 2 or here == 0:
            return None
        return wider[0] / here, wider[1] / here, means[k] * here / counts[k].sum()

    for side in range(2):
        scale, threshold = 0, np.inf
        for k in range(len(SCALES)):
            sure, maybe = strict[k][1 + 12 * side], loose[k][1 + 12 * side]
            if np.isfinite(sure):
                left = held(strict[k], k, side)
                # of a small patch under much speckle little is left as well: only narrow means tell that
                if left is None or left[1] >= 0.1 or spread[2] * SCALES[k + 2] > SCATTER_PX:
                    scale, threshold = k, sure
                    break
            elif np.isfinite(maybe):
                left = held(loose[k], k, side)
                if left is not None and left[0] > 0.6 and left[1] > 0.3 and left[2] > 6:
                    scale, threshold, out[k] = k, maybe, loose[k][0]
                    break
        out += [scale, threshold]
    return np.array(out)


@njit(nogil=True, cache=True)
def first_labels(ratio, shrink, cut):
    """Labels -1, 0, 1 by the first cut, -2 where not observed, and whether only the residual shift excuses a pixel.

    ratio : (scale, row, col); shrink : (row, col) from `smoothed`; cut : from `first_cut`
    """
    n_row, n_col = shrink.shape
    labels = np.zeros((n_row, n_col), np.int8)
    excused = np.zeros((n_row, n_col), np.bool_)
    for r in range(n_row):
        for c in range(n_col):
            if math.isnan(ratio[0, r, c]):
                labels[r, c] = -2
                continue
            for side in range(2):
                k = int(cut[4 + 2 * side])
                sign = 2 * side - 1
                signed = sign * (ratio[k, r, c] - cut[k])
                if signed * math.sqrt(shrink[r, c]) > cut[5 + 2 * side]:
                    labels[r, c] = sign
                elif signed > cut[5 + 2 * side]:
                    excused[r, c] = True
    return labels, excused


@njit(nogil=True, cache=True)
def lag_histogram(before, after, ratio, labels, flat):
    """What is needed to know the speckle of the unchanged ground and the contrast of the changed.

    before, after : (band, row, col); ratio : (scale, row, col); labels : (row, col) int8; flat : (row, col) bool
    Returns (12, N_BIN): |difference of the log-ratio| at LAGS along rows, the same along columns, both between
    unchanged pixels; then |log-ratio of the least mean|, once for each side's changed pixels.
    """
    difference = mean_log(after) - mean_log(before)
    n_row, n_col = difference.shape
    n_lag = len(LAGS)
    out = np.zeros((2 * n_lag + 2, N_BIN))
    for r in range(n_row):
        for c in range(n_col):
            if labels[r, c] == -1 or labels[r, c] == 1:
                place = min(max(int((ratio[0, r, c] - LOW) / STEP), 0), N_BIN - 1)
                out[2 * n_lag + (labels[r, c] + 1) // 2, place] += 1
                continue
            if labels[r, c] != 0 or flat[r, c]:
                continue
            for k in range(2 * n_lag):
                lag = LAGS[k % n_lag]
                i, j = (r, c + lag) if k < n_lag else (r + lag, c)
                if i < n_row and j < n_col and labels[i, j] == 0 and not flat[i, j]:
                    d = abs(difference[i, j] - difference[r, c])
                    if d > 0.0:
                        out[k, min(int(d / STEP), N_BIN - 1)] += 1
    return out


def lag_statistics(parts):
    """(16,) from `lag_histogram`: variance of the log-ratio at each lag, median log-ratio of either changed class and
    the number of its pixels."""
    counts = np.sum(parts, axis=0)
    n_lag = 2 * len(LAGS)
    variances = [(_median(row, STEP) * 1.4826) ** 2 / 2 for row in counts[:n_lag]]
    return np.array([*variances, *class_medians(counts[n_lag:])])


def class_medians(sides):
    """Median log-ratio of either changed class, and the number of its pixels; sides (2, N_BIN)."""
    return [*(LOW + _median(row, STEP) for row in sides), *(row.sum() for row in sides)]


def contrasts(medians, centre):
    """Median log-ratio of either class above the unchanged ground's, 0 where it has too few pixels."""
    return [medians[k] - centre if medians[2 + k] >= FEW else 0.0 for k in range(2)]


def speckle_of_pair(lags, spread, cut):
    """Weight of a pixel's evidence, looks of both dates, contrast of either side (nepers), (5,).

    lags from `lag_statistics`, spread from `noise`, cut from `first_cut`. Looks are those of a gamma variable as noisy
    as the date; texture that changed counts as noise of both. The weight is the number of pixels that correlated
    speckle makes one of, to the power -0.35: part of the correlation is ground.
    """
    n_lag = len(LAGS)
    variances = lags[: 2 * n_lag].reshape(2, n_lag)
    far = 0.5 * (variances[0, -1] + variances[1, -1])
    area = 1.0
    for axis in range(2):
        length = 1.0
        for near in variances[axis, :-1]:
            rho = 1 - near / far if far > 0 else 0.0
            if rho < 0.05:
                break
            length += 2 * rho
        area *= length
    own = spread[0] ** 2 + spread[1] ** 2
    excess = max(far, own) / own if own > 0 else 1.0
    looks = [looks_of(max(sd * sd * excess, 1e-4)) for sd in spread[:2]]
    return np.array([area**-0.35, *looks, *contrasts(lags[2 * n_lag :], cut[0])])


def looks_of(log_variance):
    """Looks of a gamma variable whose logarithm has this variance: psi_1(L) = variance, by bisection, 0.2 to 2000."""
    low, high = math.log(0.2), math.log(2000.0)
    for _ in range(50):
        mid = 0.5 * (low + high)
        if polygamma(1, math.exp(mid)) > log_variance:
            low = mid
        else:
            high = mid
    return math.exp(0.5 * (low + high))


@njit(nogil=True, cache=True)
def joint_histogram(place, ratio, labels):
    """Counts of the pairs of values by label, (3, LEVELS^2) for -1, 0, 1, then (2, N_BIN) of the log-ratio of the least
    mean for the two changed classes; as one array."""
    n_row, n_col = labels.shape
    joint = np.zeros((3, LEVELS * LEVELS))
    contrast = np.zeros((2, N_BIN))
    for r in range(n_row):
        for c in range(n_col):
            label = labels[r, c]
            if label < -1:
                continue
            joint[label + 1, place[r, c]] += 1
            if label != 0:
                at = min(max(int((ratio[0, r, c] - LOW) / STEP), 0), N_BIN - 1)
                contrast[(label + 1) // 2, at] += 1
    return np.concatenate((joint.ravel(), contrast.ravel()))


def joint_statistics(parts):
    """From `joint_histogram`: (4,) of `class_medians`, share of change, then for either class the logarithm of its
    smoothed joint density over that of the unchanged one, (LEVELS^2,); as one array."""
    counts = np.sum(parts, axis=0)
    joint = counts[: 3 * LEVELS**2].reshape(3, LEVELS, LEVELS)
    density = []
    for table in joint:
        soft = gaussian_filter(table, BLUR_BINS) + 1e-7 * table.sum() + 1e-12
        density.append(soft / soft.sum())
    total = joint.sum()
    share = (joint[0].sum() + joint[2].sum()) / total if total > 0 else 0.0
    tables = [np.clip(np.log(density[k] / density[1]), -MOST_EVIDENCE, MOST_EVIDENCE).ravel() for k in (0, 2)]
    return np.concatenate([class_medians(counts[3 * LEVELS**2 :].reshape(2, N_BIN)), [share], *tables])


@njit(nogil=True, cache=True)
def evidence(light, place, ratio, shrink, labels, cut, speckle, tables):
    """Log-likelihood ratios of a fall and of a rise against no change, (row, col) each, nats; very low = ruled out.

    The mean of two: that of two gamma variables whose means differ by the class's contrast, or not at all, given their
    ratio (known from the ratio alone, whatever the ground), and that of the pair of values in the joint histograms of
    changed and unchanged pixels, which know the ground.

    light, place, ratio, shrink : from `smoothed`; labels : (row, col) int8, below -1 not observed; cut from
    `first_cut`, speckle from `speckle_of_pair`, tables from `joint_statistics`
    """
    n_row, n_col = labels.shape
    low = np.full((n_row, n_col), -50.0)
    high = np.full((n_row, n_col), -50.0)
    l1, l2 = speckle[1], speckle[2]
    for r in range(n_row):
        for c in range(n_col):
            if labels[r, c] < -1:
                continue
            weight = speckle[0] * shrink[r, c]
            d = light[r, c] - cut[0]
            around = (ratio[0, r, c] - cut[0]) * math.sqrt(shrink[r, c])
            for side in range(2):
                if tables[2 + side] < FEW:
                    continue
                contrast = tables[side] - cut[0]
                if around * (2 * side - 1) < GUARD * abs(speckle[3 + side]):
                    continue
                # ln p(d | contrast) / p(d | 0) of the ratio of two gamma variables
                gamma = -l2 * contrast + (l1 + l2) * (
                    math.log(l1 + l2 * math.exp(d)) - math.log(l1 + l2 * math.exp(d - contrast))
                )
                value = 0.5 * weight * (gamma + tables[5 + side * LEVELS**2 + place[r, c]])
                if side == 0:
                    low[r, c] = value
                else:
                    high[r, c] = value
    return low, high


@njit(nogil=True, cache=True)
def judged(light, place, ratio, shrink, labels, cut, speckle, tables, beta, n_round):
    """One turn: evidence of the classes, spread by the field. Returns labels int8 and odds float32, (row, col)."""
    low, high = evidence(light, place, ratio, shrink, labels, cut, speckle, tables)
    return mean_field(labels, low, high, beta, n_round)


@njit(nogil=True, cache=True)
def posterior(odds, labels, share, prior, temper):
    """Probability of change, (n_pixel,) float32, from the field's ln odds.

    share : of change in the image, which the odds take for granted; prior : the one to assume, NaN for that share
    temper : share of the odds that is believed
    """
    out = np.zeros(odds.size, np.float32)
    moved = 0.0
    if not math.isnan(prior) and 0.0 < share < 1.0:
        moved = math.log(prior / (1 - prior)) - math.log(share / (1 - share))
    for p in range(odds.size):
        if labels[p] < -1 or share <= 0.0:
            continue
        out[p] = 1.0 / (1.0 + math.exp(-(temper * max(min(odds[p], 40.0), -40.0) + moved)))
    return out
