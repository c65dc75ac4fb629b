"""Correlation of successive dates where nothing changes, from how much more two dates differ than one."""

import math

import numpy as np
from numba import njit

from geoalign.kernels.fastlog import ln

LOW, STEP, BINS = -12.0, 0.02, 700
"""Fixed histogram of ln |difference of log-intensity|."""
SMALLEST, NONE = 1e-300, -600.0
"""What `fastlog.ln` takes at least; ln of a difference below which there is none."""
FEW = 2000
"""Differences below which nothing is said."""
MOST = 0.8
"""Correlation that an estimate gives at most."""


@njit(nogil=True, cache=True)
def lag_histogram(series):
    """Counts of ln |ln x_t - ln x_{t-k}| for k = 1 and 2 observations, (2, BINS); series (band, time, row, col)."""
    n_band, n_time, n_row, n_col = series.shape
    out = np.zeros((2, BINS))
    logs = np.empty(n_time)
    work = np.ones((6, n_time))
    bits = work.view(np.int64)
    for b in range(n_band):
        for r in range(n_row):
            for c in range(n_col):
                n = 0
                for t in range(n_time):
                    value = series[b, t, r, c]
                    if value > 0 and not math.isinf(value):
                        work[0, n] = max(float(value), SMALLEST)
                        n += 1
                ln(work, bits, 1, n)
                for i in range(n):
                    logs[i] = work[0, i]
                # the same observations at either distance
                for i in range(2, n):
                    work[0, i - 2] = max(abs(logs[i] - logs[i - 1]), SMALLEST)
                    work[1, i - 2] = max(abs(logs[i] - logs[i - 2]), SMALLEST)
                ln(work, bits, 2, max(n - 2, 0))
                for k in range(2):
                    for i in range(n - 2):
                        if work[k, i] > NONE:
                            place = int((work[k, i] - LOW) / STEP)
                            out[k, min(max(place, 0), BINS - 1)] += 1
    return out


def lag_correlation(parts):
    """Correlation of successive observations of an AR(1) series, 0 to MOST; parts : from `lag_histogram`.

    Observations k apart differ with the variance 2 v (1 - r^k), so that the squared medians of |difference| are as
    1 + r for k = 2 and 1. A change touches one or two differences of a pixel, and medians leave those aside. One
    standard error is taken off: noise is not taken for correlation.
    """
    counts = np.sum(parts, axis=0)
    n = counts[0].sum()
    if n < FEW:
        return 0.0
    medians = []
    for row in counts:
        cumulative = np.cumsum(row)
        at = int(np.searchsorted(cumulative, 0.5 * cumulative[-1]))
        medians.append(LOW + STEP * (at + 1 - (cumulative[at] - 0.5 * cumulative[-1]) / row[at]))
    # ln of the squared median of n half-normal values has the standard error 2.33 / sqrt(n)
    error = 2.33 * math.sqrt(2 / n)
    return float(np.clip(np.exp(2 * (medians[1] - medians[0])) - 1 - error, 0.0, MOST))
