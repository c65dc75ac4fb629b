"""Lines through points: places along and across them, and lines drawn to the middle of what lies around."""

import numpy as np

REACH_M = 5_000.0
"""Points farther off a line are not its."""
FIT_M = 2_500.0
"""Ships so near draw the line."""
CORNER_M, SHORTEST_M = 1_000.0, 4_000.0
"""A rough line's departures that make a corner, and the shortest leg that a corner may cut off."""
STRETCH, MOST_CORNERS = 1.15, 12
"""How much longer than the rough line it may get by turning after ships, and how often corners change."""
MOST_TURN = np.deg2rad(100.0)
"""No route turns more at a corner."""
STIFF_M = 3_000.0
"""How far a corner wanders by itself, 1 sigma."""


def resampled(line, step):
    """The line (n, 2) with even steps of about `step`, both ends kept."""
    place = np.append(0, np.cumsum(np.hypot(*np.diff(line, axis=0).T)))
    keep = np.append(True, np.diff(place) > 0)
    line, place = line[keep], place[keep]
    even = np.linspace(0, place[-1], max(2, round(place[-1] / step) + 1))
    return np.column_stack([np.interp(even, place, line[:, k]) for k in (0, 1)])


def extended(line, by):
    """The line carried on straight at both ends, in the direction of its outer 3 km."""
    place = np.append(0, np.cumsum(np.hypot(*np.diff(line, axis=0).T)))
    inner = line[min(np.searchsorted(place, 3_000.0), len(line) - 1)]
    outer = line[max(np.searchsorted(place, place[-1] - 3_000.0) - 1, 0)]
    first, last = line[0] - inner, line[-1] - outer
    ends = [end + by * step / max(np.hypot(*step), 1e-9) for end, step in ((line[0], first), (line[-1], last))]
    return np.vstack([ends[0], line, ends[1]])


def along_and_across(line, points):
    """(along, across) of points (n, 2), m: place on the line, distance to its left; NaN beyond its ends or reach."""
    along, across = np.full(len(points), np.nan), np.full(len(points), np.nan)
    low, high = line.min(axis=0) - REACH_M, line.max(axis=0) + REACH_M
    near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    step = np.diff(line, axis=0)
    length = np.hypot(*step.T)
    start = np.append(0, np.cumsum(length))[:-1]
    unit = step / length[:, None]
    for k in range(0, near.size, 4096):
        part = near[k : k + 4096]
        offset = points[part, None] - line[None, :-1]
        u = (offset * unit).sum(axis=2)
        v = unit[:, 0] * offset[..., 1] - unit[:, 1] * offset[..., 0]
        beyond = np.maximum(np.maximum(-u, u - length), 0)
        best = np.argmin(np.hypot(v, beyond), axis=1)
        i = np.arange(part.size)
        u, v, beyond = u[i, best], v[i, best], beyond[i, best]
        outside = (
            ((best == 0) & (u < 0)) | ((best == length.size - 1) & (u > length[-1])) | (np.hypot(v, beyond) > REACH_M)
        )
        along[part] = np.where(outside, np.nan, start[best] + np.clip(u, 0, length[best]))
        across[part] = np.where(outside, np.nan, np.where(v >= 0, 1, -1) * np.hypot(v, beyond))
    return along, across


def fitted(line, ships):
    """The line through the middle of the ships around it, straight between few corners, (n, 2).

    Ships are a mixture of a normal law across the line and an even background; corners move by weighted least squares
    as the weights are estimated anew (EM), and there are as many as the likelihood pays for (2 ln n each).
    """
    corners = _sound(_moved(_sound(simplified(line, CORNER_M)), ships))
    value = _ln_likelihood(corners, ships)
    price = 2 * np.log(max(len(ships), 3))
    longest = STRETCH * np.hypot(*np.diff(corners, axis=0).T).sum()
    for _ in range(MOST_CORNERS):
        trials = [_moved(np.delete(corners, k, axis=0), ships) for k in range(1, len(corners) - 1)]
        lengths = np.hypot(*np.diff(corners, axis=0).T)
        middles = [(k, 0.5 * (corners[k] + corners[k + 1])) for k in np.flatnonzero(lengths > 2 * SHORTEST_M)]
        trials += [_moved(np.insert(corners, k + 1, middle, axis=0), ships) for k, middle in middles]
        trials = [_sound(trial) for trial in trials]
        trials = [trial for trial in trials if np.hypot(*np.diff(trial, axis=0).T).sum() <= longest]
        gains = [_ln_likelihood(t, ships) - value - price * (len(t) - len(corners)) for t in trials]
        if not gains or max(gains) <= 0:
            return corners
        corners = trials[int(np.argmax(gains))]
        value = _ln_likelihood(corners, ships)
    return corners


def _sound(corners):
    """The corners without those that turn the line back or cut off a stub."""
    corners = list(corners)
    k = 1
    while k < len(corners) - 1:
        out, into = corners[k] - corners[k - 1], corners[k + 1] - corners[k]
        if _angle(out, into) > MOST_TURN or min(np.hypot(*out), np.hypot(*into)) < SHORTEST_M / 2:
            del corners[k]
            k = max(1, k - 1)
        else:
            k += 1
    return np.array(corners)


def simplified(line, tolerance):
    """Corners of the line from which it departs by no more than the tolerance (Douglas and Peucker)."""
    keep = {0, len(line) - 1}
    waiting = [(0, len(line) - 1)]
    while waiting:
        a, b = waiting.pop()
        if b - a < 2:
            continue
        unit = (line[b] - line[a]) / max(np.hypot(*(line[b] - line[a])), 1e-9)
        offset = line[a + 1 : b] - line[a]
        off = np.abs(unit[0] * offset[:, 1] - unit[1] * offset[:, 0])
        k = int(np.argmax(off))
        if off[k] > tolerance:
            keep.add(a + 1 + k)
            waiting += [(a, a + 1 + k), (a + 1 + k, b)]
    return line[sorted(keep)]


def _mixture(corners, ships):
    """(along, across, share of each ship that is the line's, sigma, ln likelihood) of the ships within FIT_M."""
    along, across = along_and_across(corners, ships)
    near = np.isfinite(along) & (np.abs(across) <= FIT_M)
    along, across = along[near], across[near]
    if along.size < 5:
        return along, across, np.ones(along.size), 500.0, -np.inf, near
    sigma, part = 600.0, 0.5
    for _ in range(20):
        density = np.exp(-0.5 * (across / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        share = part * density / (part * density + (1 - part) / (2 * FIT_M))
        part = np.clip(share.mean(), 0.02, 0.98)
        sigma = np.clip(np.sqrt((share * across**2).sum() / max(share.sum(), 1e-9)), 100.0, 1500.0)
    density = np.exp(-0.5 * (across / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    ln_likelihood = np.log(part * density + (1 - part) / (2 * FIT_M)).sum() + along.size * np.log(2 * FIT_M)
    return along, across, share, sigma, ln_likelihood, near


def _ln_likelihood(corners, ships):
    return _mixture(corners, ships)[4]


def _moved(corners, ships):
    """The corners where the mixture's ships want them; they keep their place where nothing pulls."""
    corners = corners.copy()
    n = len(corners)
    for _ in range(8):
        along, across, share, sigma, _, _ = _mixture(corners, ships)
        step = np.diff(corners, axis=0)
        length = np.maximum(np.hypot(*step.T), 1.0)
        normal = np.column_stack([-step[:, 1], step[:, 0]]) / length[:, None]
        start = np.append(0, np.cumsum(length))[:-1]
        leg = np.clip(np.searchsorted(start, along, side="right") - 1, 0, n - 2)
        u = np.clip((along - start[leg]) / length[leg], 0, 1)
        matrix, target = np.eye(2 * n) * (sigma / STIFF_M) ** 2, np.zeros(2 * n)
        for d in range(2):
            for e in range(2):
                both = share * normal[leg, d] * normal[leg, e]
                np.add.at(matrix, (2 * leg + d, 2 * leg + e), both * (1 - u) ** 2)
                np.add.at(matrix, (2 * leg + d, 2 * leg + 2 + e), both * (1 - u) * u)
                np.add.at(matrix, (2 * leg + 2 + d, 2 * leg + e), both * (1 - u) * u)
                np.add.at(matrix, (2 * leg + 2 + d, 2 * leg + 2 + e), both * u**2)
            np.add.at(target, 2 * leg + d, share * across * normal[leg, d] * (1 - u))
            np.add.at(target, 2 * leg + 2 + d, share * across * normal[leg, d] * u)
        move = np.clip(np.linalg.solve(matrix, target).reshape(n, 2), -1000, 1000)
        corners += move
        if np.abs(move).max() < 5:
            break
    return corners


def joint(one, other, gap, turn):
    """Two lines as one, end to end, or None where their ends are farther apart than `gap` or turn by more than `turn`.

    The ends that meet best are joined; where both overlap, the corners that lie beyond each other's ends are dropped.
    """
    best = None
    for a in (one, one[::-1]):
        for b in (other, other[::-1]):
            step = b[0] - a[-1]
            distance = np.hypot(*step)
            out, into = a[-1] - a[-2], b[1] - b[0]
            angle = _angle(out, into)
            if distance > gap or angle > turn:
                continue
            if distance > 2000 and max(_angle(out, step), _angle(step, into)) > turn:
                continue
            if best is None or distance + 4000 * angle < best[0]:
                best = (distance + 4000 * angle, a, b)
    if best is None:
        return None
    _, a, b = best
    if len(a) > 2 and np.hypot(*(a[-1] - b[0])) < 2000:
        return np.vstack([a[:-1], 0.5 * (a[-1] + b[0]), b[1:]])
    return np.vstack([a, b])


def _angle(a, b):
    return float(np.arccos(np.clip(a @ b / max(np.hypot(*a) * np.hypot(*b), 1e-9), -1, 1)))


def remainder(line, other, near, step, least):
    """The longest stretch of a line that is not on another one; (n, 2), None where there is none of 2 km.

    On it is what lies nearer than `near` for `least` m or more: a crossing is no overlap.
    """
    fine = resampled(line, step)
    own = resampled(other, step)
    free = np.hypot(*(fine[:, None] - own[None]).transpose(2, 0, 1)).min(axis=1) > near
    for a, b in _stretches(~free):
        if (b - a) * step < least:
            free[a:b] = True
    if free.all():
        return line
    a, b = max(_stretches(free), key=lambda part: part[1] - part[0], default=(0, 0))
    return simplified(fine[a:b], 100.0) if (b - a) * step >= 2_000 else None


def _stretches(mask):
    """(start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def spread(across, beside):
    """Standard deviation of ships across a line, m; across : of all ships in reach; beside : from where on they are not
    the line's. What is around is taken off; 500 m where there is too little to tell.
    """
    across = across[np.isfinite(across)]
    inner = np.abs(across) <= beside
    level = (~inner).sum() / (2 * (REACH_M - beside))
    n = inner.sum() - level * 2 * beside
    if n < 5:
        return 500.0
    square = (across[inner] ** 2).sum() - level * 2 * beside**3 / 3
    return float(np.sqrt(max(square / n, 1e4)))
