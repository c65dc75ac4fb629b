"""Where ships keep to lines, and since when: oriented counts, exact tests, ridges, a Poisson CUSUM."""

import math

import numpy as np
from numba import njit
from scipy.ndimage import map_coordinates
from scipy.signal import fftconvolve
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.special import bdtrc, betainc, gammaln

LOW_SHIPS, HIGH_SHIPS = 3.0, 2.0
"""Ships that what is expected of the rates before and after a route formed counts for."""
N_TURN = 16
"""Directions that are looked along."""
LONG_M, BESIDE_M = 10_000.0, (2_000.0, 5_000.0)
"""Length of the window along a route, and where the strips on either side of it lie."""


def exact_tail(n_in, e_in, n_out, e_out):
    """P(at least n_in of n_in + n_out | no difference), the exact conditional test of two Poisson rates.

    n : counts; e : exposures. The share of n_in is binomial with e_in / (e_in + e_out). One where n_in is 0.
    """
    share = e_in / np.maximum(e_in + e_out, 1e-300)
    return np.where(n_in > 0, betainc(np.maximum(n_in, 1), n_out + 1.0, share), 1.0)


def accepted(p, alpha):
    """Largest p that Benjamini and Hochberg's procedure accepts at the false discovery rate alpha; 0 where none is."""
    p = np.sort(np.asarray(p).ravel())
    good = np.flatnonzero(p <= alpha * np.arange(1, p.size + 1) / p.size)
    return float(p[good[-1]]) if good.size else 0.0


def strips(cell_m, width_m, turn):
    """(inner, left, right) windows along direction `turn` (radians from the columns to the rows), float arrays.

    Weights are the share of each cell that lies in the strip, from 5 x 5 points a cell.
    """
    reach = int(np.ceil((LONG_M / 2 + BESIDE_M[1]) / cell_m))
    fine = (np.arange(5) - 2) / 5
    place = (np.arange(-reach, reach + 1)[:, None] + fine).ravel() * cell_m
    row, col = place[:, None], place[None, :]
    along = np.cos(turn) * col + np.sin(turn) * row
    across = -np.sin(turn) * col + np.cos(turn) * row
    inside = np.abs(along) <= LONG_M / 2
    masks = (
        np.abs(across) <= width_m / 2,
        (across >= BESIDE_M[0]) & (across <= BESIDE_M[1]),
        (-across >= BESIDE_M[0]) & (-across <= BESIDE_M[1]),
    )
    side = 2 * reach + 1
    return tuple((inside & mask).reshape(side, 5, side, 5).mean(axis=(1, 3)) for mask in masks)


def oriented_tests(count, exposure, cell_m, width_m):
    """ln p of more ships in a strip than on either side of it, (turn, row, col); 0 where it can't be said.

    count, exposure : (row, col). The larger p of the two sides: neither the edge of a fishing ground nor a gradient is
    a route. A side that was hardly seen does not count.
    """
    out = np.zeros((N_TURN, *count.shape))
    for k in range(N_TURN):
        sums = []
        for window in strips(cell_m, width_m, k * np.pi / N_TURN):
            n = np.maximum(fftconvolve(count, window, mode="same"), 0)
            e = np.maximum(fftconvolve(exposure, window, mode="same"), 0)
            sums.append((np.round(n, 6), np.where(e > 1e-6 * exposure.max(initial=0) + 1e-9, e, 0)))
        (n, e), *beside = sums
        rate = n / np.maximum(e, 1e-9)
        ask = (n >= 4) & (e > 0)
        worst = np.full(count.shape, -np.inf)
        known = np.zeros(count.shape, bool)
        for n_side, e_side in beside:
            use = ask & (e_side > 0.2 * e)
            p = np.zeros(count.shape)
            more = use & (rate * e_side > n_side)
            p[more] = np.log(np.maximum(exact_tail(np.floor(n[more]), e[more], n_side[more], e_side[more]), 1e-300))
            worst = np.where(use, np.maximum(worst, p), worst)
            known |= use
        out[k] = np.where(known, worst, 0.0)
    return out


def ridges(score, limit):
    """Cells (turn, row, col) bool where -score passes `limit` and is largest across its direction."""
    strength = -score
    keep = strength > limit
    rows, cols = np.mgrid[: score.shape[1], : score.shape[2]].astype(float)
    out = np.zeros_like(keep)
    for k in range(score.shape[0]):
        turn = k * np.pi / score.shape[0]
        best = keep[k].copy()
        for step in (1.0, 2.0):
            for sign in (1, -1):
                r, c = rows + sign * step * np.cos(turn), cols - sign * step * np.sin(turn)
                other = map_coordinates(strength[k], [r, c], order=1, mode="nearest")
                best &= strength[k] >= other - (1e-9 if sign > 0 else 0)
        neighbours = np.maximum(strength[k - 1], strength[(k + 1) % score.shape[0]])
        out[k] = best & (strength[k] >= 0.7 * neighbours)
    return out


def paths(ridge, score, least):
    """Lines through ridge cells: list of (n, 2) arrays of (row, col), the strongest first.

    Ridge cells hang together where they lie within two cells and one direction of each other; so routes that cross stay
    apart. Each line is the cheapest path between the two ends that are farthest apart, strong cells being cheap; what
    lies beside it is spent, and the rest is looked through again. least : length in cells.
    """
    n_turn = ridge.shape[0]
    turn, row, col = np.nonzero(ridge)
    strength = -score[turn, row, col]
    found = []
    alive = np.ones(turn.size, bool)
    while alive.sum() > 1:
        index = np.flatnonzero(alive)
        graph = _graph(turn[index], row[index], col[index], strength[index], n_turn)
        n_part, part = connected_components(graph, directed=False)
        progress = False
        for k in range(n_part):
            own = np.flatnonzero(part == k)
            chain = _longest(graph[own][:, own]) if own.size > 1 else np.array([0])
            cells = index[own[chain]]
            line = np.column_stack([row[cells], col[cells]]).astype(float)
            length = np.hypot(*np.diff(line, axis=0).T).sum() if len(line) > 1 else 0.0
            if length < least:
                alive[index[own]] = False
                continue
            found.append((strength[cells].sum(), line, turn[cells]))
            gap = np.hypot(row[index[own]][:, None] - line[:, 0], col[index[own]][:, None] - line[:, 1])
            apart = np.abs(turn[index[own]][:, None] - turn[cells])
            spent = ((gap <= 6) & (np.minimum(apart, n_turn - apart) <= 2)).any(axis=1)
            alive[index[own[spent]]] = False
            progress = True
        if not progress:
            break
    found.sort(key=lambda item: -item[0])
    return [line for _, line, _ in found]


def _graph(turn, row, col, strength, n_turn):
    order = {}
    for i, (r, c) in enumerate(zip(row.tolist(), col.tolist())):
        order.setdefault((r, c), []).append(i)
    a, b, cost = [], [], []
    reach = [(dr, dc) for dr in range(-2, 3) for dc in range(-2, 3)]
    top = strength.max()
    for i, (r, c) in enumerate(zip(row.tolist(), col.tolist())):
        for dr, dc in reach:
            for j in order.get((r + dr, c + dc), ()):
                apart = abs(int(turn[i]) - int(turn[j]))
                apart = min(apart, n_turn - apart)
                if j > i and apart <= 1:
                    a.append(i)
                    b.append(j)
                    weak = 1 - 0.5 * (strength[i] + strength[j]) / top
                    cost.append((math.hypot(dr, dc) + 0.2 * apart + 1e-3) * (1 + 3 * weak))
    n = turn.size
    return csr_matrix((cost + cost, (a + b, b + a)), shape=(n, n))


def _longest(graph):
    start = 0
    for _ in range(2):
        far = dijkstra(graph, indices=start)
        far[~np.isfinite(far)] = -1
        start = int(np.argmax(far))
    cost, before = dijkstra(graph, indices=start, return_predecessors=True)
    cost[~np.isfinite(cost)] = -1
    chain = [int(np.argmax(cost))]
    while chain[-1] != start:
        chain.append(int(before[chain[-1]]))
    return np.array(chain)


@njit(nogil=True, cache=True)
def rising_run(gain, cost):
    """(start, stop, score) of the passes in which one Poisson rate beats another most; (-1, -1, 0) for none.

    gain : (n_pass,), sum over a pass's ships of ln(high / low); cost : (n_pass,), exposure times (high - low), 0 where
    nothing was seen. The CUSUM S = max(0, S + gain - cost) is followed to its largest value; start is the first pass
    after the last zero before, stop the pass of the largest value.
    """
    run = best = 0.0
    start = begin = stop = -1
    for t in range(gain.size):
        if cost[t] <= 0:
            continue
        run += gain[t] - cost[t]
        if run <= 0:
            run = 0.0
            start = -1
        elif start < 0:
            start = t
        if run > best:
            best = run
            begin, stop = start, t
    return begin, stop, best


def began(count, exposure, low, high):
    """(soonest, likeliest, latest) pass at which a Poisson rate rose: 2.5 %, mode and 97.5 % of the posterior.

    count, exposure : (n_pass,) up to the last pass of the higher rate; low, high : rates that are about expected, with
    the weight of `LOW_SHIPS` and `HIGH_SHIPS` counts. Both rates are integrated over (gamma laws), so that a ship or
    two before the rise are traffic as usual. Every pass that saw something is as likely before the counts speak; the
    answers are among those, (-1, -1, -1) without one.
    """
    seen = np.flatnonzero(exposure > 0)
    if seen.size == 0:
        return -1, -1, -1
    n, e = np.append(0, np.cumsum(count)), np.append(0, np.cumsum(exposure))
    ln_odds = _ln_marginal(LOW_SHIPS, LOW_SHIPS / low, n[seen], e[seen])
    ln_odds += _ln_marginal(HIGH_SHIPS, HIGH_SHIPS / high, n[-1] - n[seen], e[-1] - e[seen])
    below = np.cumsum(np.exp(ln_odds - ln_odds.max()))
    soonest, latest = np.searchsorted(below, np.array([0.025, 0.975]) * below[-1])
    return int(seen[soonest]), int(seen[np.clip(np.argmax(ln_odds), soonest, latest)]), int(seen[latest])


def splits(n):
    """How many tests the one at the pass that `began` chose among n counts for: neighbouring ones are much the same.

    By simulation of constant rates, 320 passes with 0.1 to 1.5 ships each count for 10 to 29 at the level .01.
    """
    return 2.0 * math.sqrt(n)


def _ln_marginal(shape, scale, n, e):
    """ln probability of n counts in the exposure e under a rate of a gamma law, but for what does not depend on it."""
    return shape * np.log(scale) + gammaln(shape + n) - gammaln(shape) - (shape + n) * np.log(scale + e)


def fewer_before(n_before, e_before, n_after, e_after):
    """P(at most n_before of all | no difference): whether a rate rose, the exact conditional test."""
    share = e_before / max(e_before + e_after, 1e-300)
    return float(1 - bdtrc(n_before, n_before + n_after, share))
