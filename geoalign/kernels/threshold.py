"""Thresholds for change images: Kittler-Illingworth with generalised Gaussians each side of the mode, and a gate."""

import math

import numpy as np
from numba import njit

GATE = 0.015
"""Gain (nats a pixel) by which two classes must beat one, entropy of the assignment included, to be believed.

Speckle without change, of 1 to 20 looks, on textured or flat ground, scores -0.006 to 0.004; see the tests.
"""

LEAST_SHAPE = 1.0
"""Least shape of the unchanged class beside a changed one (Laplace): heavier tails would swallow the changed pixels."""


@njit(nogil=True, cache=True)
def shape_of_ratio(ratio, low=0.5):
    """beta of a generalised Gaussian from variance / (mean absolute deviation)^2, kept in low..6, by bisection."""
    high = 6.0
    for _ in range(50):
        mid = 0.5 * (low + high)
        value = math.exp(math.lgamma(1 / mid) + math.lgamma(3 / mid) - 2 * math.lgamma(2 / mid))
        if value > ratio:
            low = mid
        else:
            high = mid
    return 0.5 * (low + high)


@njit(nogil=True, cache=True)
def _class(weights, x, start, stop, half, least_shape=0.5):
    """(share, mean, 1/scale, beta, ln norm) of bins start:stop; `half`: one side of a class centred at zero."""
    share = 0.0
    first = 0.0
    for i in range(start, stop):
        share += weights[i]
        first += weights[i] * x[i]
    if share <= 0.0:
        return 0.0, 0.0, 1.0, 2.0, 0.0
    mean = 0.0 if half else first / share
    spread = 0.0
    square = 0.0
    for i in range(start, stop):
        d = abs(x[i] - mean)
        spread += weights[i] * d
        square += weights[i] * d * d
    step = x[1] - x[0]
    square = square / share + step * step / 12  # Sheppard: a class within one bin has the width of a bin
    spread = max(spread / share, 0.25 * step)
    beta = shape_of_ratio(square / (spread * spread), least_shape)
    ln_b = 0.5 * (math.lgamma(3 / beta) - math.lgamma(1 / beta) - math.log(square))
    norm = math.log(beta) + ln_b - math.lgamma(1 / beta) - (0.0 if half else math.log(2.0))
    return share, mean, math.exp(ln_b), beta, norm


@njit(nogil=True, cache=True)
def _cost(weights, x, start, stop, kind):
    total = 0.0
    for i in range(start, stop):
        if weights[i] > 0.0:
            total += weights[i] * (kind[2] * abs(x[i] - kind[1])) ** kind[3]
    return total


@njit(nogil=True, cache=True)
def half_threshold(weights, x, min_share):
    """Where a class that starts at zero ends and a second one begins.

    Parameters
    ----------
    weights : (n_bin,) histogram of distances from the mode, one side of it, that sums to 1
    x : (n_bin,) bin centres, evenly spaced, from near 0
    min_share : smallest share of either class

    Returns
    -------
    threshold, gain, and (share, mean, 1/scale, beta, ln norm) of the unchanged class (half a generalised Gaussian
    centred at zero) and of the changed one (a whole one). `gain` is the fall of the criterion J (nats a pixel) against
    a single class: J counts the entropy of the assignment, so that one class cut in two does not gain.

    Bazi, Bruzzone and Melgani (2005), doi:10.1109/TGRS.2004.842441, shapes by moments; we hold the unchanged class at
    the mode. The gain is the integrated completed likelihood of Biernacki et al. (2000), doi:10.1109/34.865189.
    """
    n = weights.size
    zero = (0.0, 0.0, 1.0, 2.0, 0.0)
    best = np.inf
    threshold, class0, class1 = np.nan, zero, zero
    for cut in range(4, n - 4):
        k0 = _class(weights, x, 0, cut, True, LEAST_SHAPE)
        k1 = _class(weights, x, cut, n, False)
        if k0[0] < min_share or k1[0] < min_share:
            continue
        cost = 2 * _cost(weights, x, 0, cut, k0) + 2 * _cost(weights, x, cut, n, k1)
        cost -= 2 * k0[0] * (k0[4] + math.log(k0[0])) + 2 * k1[0] * (k1[4] + math.log(k1[0]))
        if cost < best:
            best, threshold, class0, class1 = cost, 0.5 * (x[cut - 1] + x[cut]), k0, k1
    single = _class(weights, x, 0, n, True)
    gain = 2 * _cost(weights, x, 0, n, single) - 2 * single[4] - best
    return threshold, gain, class0, class1


@njit(nogil=True, cache=True)
def half_mixture(weights, x, class0, class1, n_round=40):
    """The two classes with soft borders: EM from where `half_threshold` ended. Same five numbers a class.

    A threshold cuts the tails off both classes, which makes probabilities too sure; shares and shapes are therefore
    found again with each bin split between the classes.
    """
    n = weights.size
    part = np.empty(n)
    for _ in range(n_round):
        for i in range(n):
            part[i] = weights[i] * posterior(x[i], class0, class1, class1[0] / (class0[0] + class1[0]))
        k1 = _class(part, x, 0, n, False)
        k0 = _class(weights - part, x, 0, n, True, LEAST_SHAPE)
        if k1[0] < 1e-6 or k0[0] < 1e-6 or k1[1] <= 0.5 / k0[2]:
            break
        class0, class1 = k0, k1
    return class0, class1


@njit(nogil=True, cache=True)
def posterior(distance, class0, class1, prior):
    """P(changed) at a distance from the mode, for a share `prior` of change on this side.

    Beyond its mean the changed class counts as at its mean: what lies farther out is not less likely changed.
    """
    ln0 = class0[4] - (class0[2] * distance) ** class0[3]
    ln1 = class1[4] - (class1[2] * max(class1[1] - distance, 0.0)) ** class1[3]
    if prior <= 0.0:
        return 0.0
    if prior >= 1.0:
        return 1.0
    odds = math.log(prior / (1 - prior)) + ln1 - ln0
    if odds > 0:
        return 1.0 / (1.0 + math.exp(-odds))
    return math.exp(odds) / (1.0 + math.exp(odds))


@njit(nogil=True, cache=True)
def two_sided(histogram, low, step, n_bin=200, min_share=0.002, gate=GATE, n_round=5):
    """Thresholds on both sides of the mode of a change image.

    Parameters
    ----------
    histogram : (n,) counts over bins of width `step` from `low`
    n_bin : bins a side, once the range is known
    min_share : smallest share of a side that may be a class of its own
    gate : gain that two classes need
    n_round : rounds of: median of what lies between the thresholds -> new thresholds

    Returns
    -------
    (25,) float64: the centre, then 12 numbers for the lower side and 12 for the upper: threshold (distance from the
    centre; inf where the gate refuses), gain, and the two classes of `half_mixture`. Centre NaN for an empty histogram.
    """
    out = np.full(25, np.nan)
    out[1] = out[13] = np.inf
    n = histogram.size
    if not histogram.sum() > 0:
        return out
    bounds = np.array([np.inf, np.inf])
    centre = 0.0
    for turn in range(n_round):
        # the median of what is not changed, from the histogram
        middle = low + (np.arange(n) + 0.5) * step
        kept = histogram.copy()
        if turn > 0:
            kept[(middle < centre - bounds[0]) | (middle > centre + bounds[1])] = 0.0
        cumulative = np.cumsum(kept)
        at = np.searchsorted(cumulative, 0.5 * cumulative[-1])
        before = cumulative[at - 1] if at > 0 else 0.0
        new = low + step * (at + (0.5 * cumulative[-1] - before) / kept[at])
        moved = abs(new - centre)
        centre = new
        if turn > 0 and moved < 0.5 * step:
            break
        for side in range(2):
            sign = 2 * side - 1
            start = 1 + 12 * side
            distance = sign * (middle - centre)
            far = _quantile_distance(histogram, distance, 0.9995)
            width = far / n_bin
            weights = np.zeros(n_bin)
            for i in range(n):
                if histogram[i] > 0 and distance[i] > 0 and distance[i] < far:
                    weights[int(distance[i] / width)] += histogram[i]
            bounds[side] = np.inf
            out[start] = np.inf
            out[start + 1] = 0.0
            if not weights.sum() > 0 or width < 1e-12:
                continue
            weights /= weights.sum()
            x = (np.arange(n_bin) + 0.5) * width
            threshold, gain, class0, class1 = half_threshold(weights, x, min_share)
            out[start + 1] = gain
            if gain > gate:
                bounds[side] = threshold
                out[start] = threshold
                class0, class1 = half_mixture(weights, x, class0, class1)
                for j in range(5):
                    out[start + 2 + j] = class0[j]
                    out[start + 7 + j] = class1[j]
    out[0] = centre
    return out


@njit(nogil=True, cache=True)
def _quantile_distance(histogram, distance, share):
    """Distance below which `share` of the counts at positive distance lie; the histogram is in order of position."""
    total = 0.0
    for i in range(histogram.size):
        if distance[i] > 0:
            total += histogram[i]
    if not total > 0:
        return 0.0
    done = 0.0
    rising = distance[-1] > distance[0]
    for k in range(histogram.size):
        i = k if rising else histogram.size - 1 - k
        if distance[i] > 0:
            done += histogram[i]
            if done >= share * total:
                return distance[i] + abs(distance[1] - distance[0])
    return distance.max()
