"""A spatial prior that is local: labels of a Potts field by a fixed number of mean-field rounds."""

import math

import numpy as np
from numba import njit

DIAGONAL = 0.7
"""Weight of a diagonal neighbour beside 1 of an edge neighbour, about one over its distance."""
WEIGHT = 4.0 * (1.0 + DIAGONAL)


@njit(nogil=True, cache=True)
def mean_field(labels, log_low, log_high, beta, n_round):
    """Labels -1, 0, 1 of a Potts field whose neighbours tend to agree.

    Parameters
    ----------
    labels : (row, col) int8, where to start; below -1 is not observed
    log_low, log_high : (row, col) log-likelihood ratios of label -1 and 1 against 0, nats
    beta : strength of the prior: a pixel whose eight neighbours all carry a label gains 2 beta nats for it
    n_round : rounds; a pixel's answer depends on what lies up to so many px away

    Returns
    -------
    labels : (row, col) int8, the most probable; odds : (row, col) float32, ln P(-1 or 1) / P(0)

    Each round sets every pixel's belief from its neighbours' beliefs of the round before (Zhang 1992, The mean field
    theory in EM procedures for Markov random fields, doi:10.1109/78.157297). A missing neighbour says nothing. Unlike a
    cut of the whole graph, the answer does not depend on how an image was divided.
    """
    n_row, n_col = labels.shape
    low = np.zeros((n_row, n_col))
    high = np.zeros((n_row, n_col))
    none = np.zeros((n_row, n_col))
    for r in range(n_row):
        for c in range(n_col):
            low[r, c] = labels[r, c] == -1
            high[r, c] = labels[r, c] == 1
            none[r, c] = labels[r, c] == 0
    new_low = low.copy()
    new_high = high.copy()
    new_none = none.copy()
    odds = np.zeros((n_row, n_col), np.float32)
    gain = 2.0 * beta / WEIGHT
    for turn in range(n_round):
        for r in range(n_row):
            for c in range(n_col):
                if labels[r, c] < -1:
                    continue
                s_low = 0.0
                s_high = 0.0
                s_none = 0.0
                for i in range(max(0, r - 1), min(n_row, r + 2)):
                    for j in range(max(0, c - 1), min(n_col, c + 2)):
                        if i == r and j == c:
                            continue
                        weight = 1.0 if i == r or j == c else DIAGONAL
                        s_low += weight * low[i, j]
                        s_high += weight * high[i, j]
                        s_none += weight * none[i, j]
                a = log_low[r, c] + gain * (s_low - s_none)
                b = log_high[r, c] + gain * (s_high - s_none)
                if turn == n_round - 1:
                    top = max(a, b)
                    odds[r, c] = top + math.log1p(math.exp(-abs(a - b)))
                if a < -40.0 and b < -40.0:
                    new_low[r, c], new_high[r, c], new_none[r, c] = 0.0, 0.0, 1.0
                    continue
                top = max(a, b, 0.0)
                e_low, e_high, e_none = math.exp(a - top), math.exp(b - top), math.exp(-top)
                total = e_low + e_high + e_none
                new_low[r, c], new_high[r, c], new_none[r, c] = e_low / total, e_high / total, e_none / total
        low, new_low = new_low, low
        high, new_high = new_high, high
        none, new_none = new_none, none
    out = labels.copy()
    for r in range(n_row):
        for c in range(n_col):
            if labels[r, c] >= -1:
                out[r, c] = 0
                if odds[r, c] > 0.0:
                    out[r, c] = 1 if high[r, c] > low[r, c] else -1
    return out, odds
