"""Bayesian updating of backscatter, observation by observation: woods or cleared, orbits modelled apart.

An observation's evidence is ln p(cleared) / p(woods), both normal in dB around the orbit's own mean: woods at 0,
cleared `drop` below. Evidence of the bands of a date is added, then bounded, so that no single date confirms anything.
"""

import math

import numpy as np
from numba import njit

NONE = -1
QUIET, FLAGGED, CONFIRMED = 0, 1, 2
MIN_HISTORY = 6
"""Observations of an orbit without which a pixel is not followed in it."""
LEAST_SD_DB = 0.2
BOUND = math.log(9.0)
"""Evidence of one date at most, either way: a chance of .9."""
EVEN = 1e-4
"""Two dates that speak as strongly either way are even, whatever is lost in rounding."""


@njit(nogil=True, cache=True)
def learn(series, group, n_group, extra):
    """What each orbit usually sees.

    series : (band, time, pixel) dB, NaN = not observed; group : (time,) orbit number
    extra : (band, pixel) variance that a residual shift adds, dB^2
    Returns mean and variance (n_group * band, pixel) float32 (variance of the next observation, the mean's own error
    and that of the variance included; NaN under MIN_HISTORY), and n_obs (pixel,) uint16, dates with any band.
    """
    n_band, n_time, n_pixel = series.shape
    mean = np.full((n_group * n_band, n_pixel), np.nan, np.float32)
    variance = np.full((n_group * n_band, n_pixel), np.nan, np.float32)
    n_obs = np.zeros(n_pixel, np.uint16)
    for p in range(n_pixel):
        for t in range(n_time):
            for b in range(n_band):
                if not math.isnan(series[b, t, p]):
                    n_obs[p] += 1
                    break
        for g in range(n_group):
            for b in range(n_band):
                n = 0
                total = 0.0
                for t in range(n_time):
                    if group[t] == g and not math.isnan(series[b, t, p]):
                        n += 1
                        total += series[b, t, p]
                if n < MIN_HISTORY:
                    continue
                middle = total / n
                squares = 0.0
                for t in range(n_time):
                    if group[t] == g and not math.isnan(series[b, t, p]):
                        squares += (series[b, t, p] - middle) ** 2
                # the law of the next value is Student's; its variance
                own = squares / (n - 3) * (1 + 1 / n)
                mean[g * n_band + b, p] = middle
                variance[g * n_band + b, p] = max(own, LEAST_SD_DB**2) + extra[b, p]
    return mean, variance, n_obs


@njit(nogil=True, cache=True)
def fold(
    series, group, days, first, temper, drop, ln_confirm, patience, mean, variance, n_obs, n_watched, ln_sum, previous,
    last, state, odds, since, after, until, size, n_since,
):  # fmt: skip
    """Takes dates in, in order; arrays (pixel,) of the state, new ones are returned.

    Parameters
    ----------
    series : (band, time, pixel) dB; group : (time,) orbit number, NONE = an orbit without history
    days : (first + time,) days of all dates; first : number of the first of these
    temper : (pixel,) factor of the evidence; drop : (band,) dB; ln_confirm : ln odds that confirm
    patience : days after which what is not confirmed is dropped
    mean, variance : from `learn`
    n_obs, n_watched : observations in all, and since watching began
    ln_sum : ln of the likelihood ratios of a change at each date watched, added up (Shiryaev and Roberts)
    previous : evidence of the observation before; last : its date
    state : QUIET, FLAGGED, CONFIRMED; odds : ln odds since flagged
    since, after, until : date flagged, last observation before it, date confirmed
    size, n_since : sum of departures (dB, mean of bands) and observations since flagged

    Returns
    -------
    the arrays from n_obs on
    """
    n_band, n_time, n_pixel = series.shape
    n_obs, n_watched, ln_sum, previous = n_obs.copy(), n_watched.copy(), ln_sum.copy(), previous.copy()
    last, state, odds, since = last.copy(), state.copy(), odds.copy(), since.copy()
    after, until, size, n_since = after.copy(), until.copy(), size.copy(), n_since.copy()
    for t in range(n_time):
        g = group[t]
        if g < 0:
            continue
        for p in range(n_pixel):
            evidence = 0.0
            departure = 0.0
            seen = 0
            for b in range(n_band):
                value = series[b, t, p]
                v = variance[g * n_band + b, p]
                if math.isnan(value) or math.isnan(v):
                    continue
                d = value - mean[g * n_band + b, p]
                evidence -= drop[b] * (d + 0.5 * drop[b]) / v
                departure += d
                seen += 1
            if seen == 0:
                continue
            evidence = min(max(evidence, -BOUND), BOUND) * temper[p]
            departure /= seen
            here = first + t
            n_obs[p] += 1
            n_watched[p] += 1
            # ln((sum + 1) * ratio)
            top = max(ln_sum[p], 0.0)
            ln_sum[p] = top + math.log(math.exp(ln_sum[p] - top) + math.exp(-top)) + evidence
            if state[p] == CONFIRMED:
                size[p] += departure
                n_since[p] += 1
            else:
                if state[p] == FLAGGED and days[here] - days[since[p]] > patience:
                    state[p] = QUIET
                if state[p] == QUIET and evidence >= 0:
                    state[p] = FLAGGED
                    odds[p] = previous[p] + evidence
                    since[p] = here
                    after[p] = last[p]
                    size[p] = departure
                    n_since[p] = 1
                elif state[p] == FLAGGED:
                    odds[p] += evidence
                    size[p] += departure
                    n_since[p] += 1
                if state[p] == FLAGGED and odds[p] < -EVEN:
                    state[p] = QUIET
                elif state[p] == FLAGGED and odds[p] >= ln_confirm and evidence >= 0:
                    state[p] = CONFIRMED
                    until[p] = here
            previous[p] = evidence
            last[p] = here
    return n_obs, n_watched, ln_sum, previous, last, state, odds, since, after, until, size, n_since
