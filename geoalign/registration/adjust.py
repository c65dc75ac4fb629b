"""A stack as a network: the warps of all scenes that best explain the matches of all pairs, and how far these close."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import combinations

import numpy as np
import pandas as pd

from geoalign.errors import MatchError
from geoalign.kernels import adjust as network
from geoalign.kernels.fit import PARAMETERS, fit_model
from geoalign.registration import quality
from geoalign.registration.select import model_name
from geoalign.registration.tiepoints import windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Chain, Field, Projective, Shift

log = logging.getLogger("geoalign")

FEW_POINTS = 25
"""Tie points with the reference below which a scene is called weak, and tied through its neighbours besides."""
ENOUGH_POINTS = 10
"""Tie points a scene of a stack needs at the least: fewer are easily all wrong in the same way."""
USED = 0.1
"""Weight below which a pair counts as refused by the others."""
LOOPS = 4
"""Loops from which the errors of pairs are judged by how they close."""
MEDIAN_RATIO = 0.8
"""Median over mean of the ratio of seen to predicted closure, which has few degrees of freedom."""
CLOSES = 0.5
"""Part of the error of pairs that is taken to move all matches of a scene alike, at the least."""
TIGHT = 0.5
"""A match whose own error is below this part of what its points would give was not made from its points alone."""


@dataclass(frozen=True)
class Frame:
    """The image as the adjustment sees it: coordinates in half images from its centre."""

    shape: tuple[int, int]

    @property
    def size(self) -> float:
        return max(self.shape) / 2

    def uv(self, points):
        return (np.asarray(points, float) - (np.array(self.shape) - 1) / 2) / self.size

    def lattice(self, n=7):
        rows, cols = np.meshgrid(*(np.linspace(0, v - 1, n) for v in self.shape), indexing="ij")
        return np.column_stack([rows.ravel(), cols.ravel()])

    def params(self, warp):
        """The affine nearest to a warp over the image, as the six parameters of `kernels.adjust`."""
        at = self.lattice()
        design = network.design_of(self.uv(at)).reshape(-1, 6)
        away = np.stack(warp.pull(*at.T), axis=1) - at
        return np.linalg.lstsq(design, away.ravel(), rcond=None)[0]

    def warp(self, params, model="affine"):
        if model == "shift":
            return Shift(float(params[2]), float(params[5]))
        return Affine(self._matrix(params))

    def _matrix(self, params):
        p = np.reshape(params, (2, 3))
        linear = p[:, :2] / self.size
        offset = p[:, 2] - linear @ ((np.array(self.shape) - 1) / 2)
        return np.column_stack([np.eye(2) + linear, offset])

    def covariance(self, covariance, model="affine"):
        """Of the warp's own parameters, as `Match` wants it."""
        zero = self._matrix(np.zeros(6)).ravel()
        change = np.stack([self._matrix(p).ravel() - zero for p in np.eye(6)], axis=1)
        full = change @ covariance @ change.T
        return full[np.ix_([2, 5], [2, 5])] if model == "shift" else full


@dataclass(frozen=True)
class Edge:
    """The match of a pair of scenes as a measurement: six parameters and their information, at the points used.

    at, found : (n, 2) points used, in the first scene and in the second
    """

    first: int
    second: int
    match: Match
    value: np.ndarray
    information: np.ndarray
    at: np.ndarray
    found: np.ndarray

    @property
    def straight(self) -> bool:
        """False where the match bends: a field, or a projective warp."""
        return isinstance(self.match.warp, Shift | Affine)

    def variance(self, uv):
        """Of its warp at points in half images from the centre, an axis, px^2."""
        design = network.design_of(uv)
        spread = np.linalg.pinv(self.information, rcond=1e-9, hermitian=True)
        return np.einsum("nik,kl,nil->n", design, spread, design) / 2


def edge(first, second, match: Match, frame: Frame) -> Edge:
    """A match as a measurement.

    What is taken is the affine through the points used, whatever simpler model the match was answered with: that a
    shift sufficed for one pair says how small the rest is, and how surely, but not that it is nothing.
    """
    table = match.tie_points
    table = table[(table["use"] == "fit") & (table["sigma_px"] > 0)] if table is not None else pd.DataFrame()
    if len(table) >= 3:
        at, found = table[["row", "col"]].to_numpy(), table[["row_moving", "col_moving"]].to_numpy()
        sigma = np.maximum(table["sigma_px"].to_numpy(), 1e-3)
    else:
        # a match of whole images counts as a lattice of points that is as sure as the match is
        at = frame.lattice()
        found = np.stack(match.warp.pull(*at.T), axis=1)
        sigma = match.sigma_px(*at.T) * np.sqrt(len(at))
        sigma = np.maximum(sigma, 1e-3)
    uv = frame.uv(at)
    weight, factor = np.ones(len(at)), 1.0
    if len(at) >= 8:
        fitted = fit_model("affine", at, found, np.eye(2) * sigma[:, None, None] ** 2)
        if fitted is not None:
            weight, factor = fitted["weight"], max(fitted["factor"], 1.0)
    design = network.design_of(uv)
    scaled = (weight / (factor * sigma**2))[:, None, None] * design
    information = np.einsum("nik,nil->kl", scaled, design)
    right = np.einsum("nik,ni->k", scaled, found - at)
    ridge = 1e-9 * np.trace(information) / 6 * np.eye(6)
    value = np.linalg.solve(information + ridge, right)
    out = Edge(first, second, match, value, information, at, found)
    if out.straight:
        own, by_points = (match.sigma_px(*at.T) ** 2).mean(), out.variance(uv).mean()
        if own < TIGHT**2 * by_points * PARAMETERS.get(model_name(match.warp), 6) / 6:
            out = replace(out, value=frame.params(match.warp), information=information * by_points / own)
    return out


def seen_from_reference(match: Match, warp, sigma_px: float, frame: Frame, *, turned=False) -> Match:
    """A pair in which one scene's warp is known, as a match of the other scene with the reference.

    warp, sigma_px : of the known scene; turned : it is the moving one of the pair
    """
    table = match.tie_points.copy()
    ends = [table[["row", "col"]].to_numpy(), table[["row_moving", "col_moving"]].to_numpy()]
    known, other = ends[::-1] if turned else ends
    at = np.stack(warp.inverse().pull(*known.T), axis=1)
    pulled = compose(warp, match.warp.inverse() if turned else match.warp)
    pulled = frame.warp(frame.params(pulled))
    table[["row", "col"]], table[["row_moving", "col_moving"]] = at, other
    table["sigma_px"] = np.hypot(table["sigma_px"], sigma_px)
    unknown = np.full((6, 6), np.nan)  # its points carry the error
    return replace(match, warp=pulled, tie_points=table, covariance=unknown)


@dataclass(frozen=True)
class Loop:
    """Three pairs of three scenes, or two pairs of the same two: how far going round ends from the start.

    edges : places in the list of edges; residual : (n, 2) px at the points of the weakest of them; predicted : the sum
        of the variances of its pairs there, an axis, px^2
    """

    edges: tuple[int, ...]
    scenes: tuple[int, ...]
    residual: np.ndarray
    predicted: float

    @property
    def mean_square(self) -> float:
        """An axis, px^2."""
        return float((self.residual**2).mean())


def loops(edges: list[Edge], frame: Frame) -> list[Loop]:
    """All loops of two or three pairs."""
    places = defaultdict(list)
    for k, e in enumerate(edges):
        places[e.first, e.second].append(k)
    near = defaultdict(set)
    for i, j in places:
        near[i].add(j)
        near[j].add(i)
    rings = [pair for parallel in places.values() for pair in combinations(parallel, 2)]
    for i, j in sorted(places):
        for m in sorted(near[i] & near[j]):
            if m > max(i, j):
                sides = [places.get(p) or places[p[::-1]] for p in ((i, j), (j, m), (m, i))]
                rings += [(a, b, c) for a in sides[0] for b in sides[1] for c in sides[2]]
    return [_loop(ring, edges, frame) for ring in rings]


def _loop(ring, edges, frame):
    # the weakest pair says where in the image the three can be compared at all
    ring = sorted(ring, key=lambda k: (len(edges[k].at), k))
    start = edges[ring[0]]
    here, scene, rest = start.at, start.second, list(ring[1:])
    found = _pulled(start, frame, here, start.first)
    while rest:
        k = next(k for k in rest if scene in (edges[k].first, edges[k].second))
        rest.remove(k)
        found = _pulled(edges[k], frame, found, scene)
        scene = edges[k].first if scene == edges[k].second else edges[k].second
    uv = frame.uv(here)
    predicted = float(sum(edges[k].variance(uv).mean() for k in ring))
    scenes = sorted({scene for k in ring for scene in (edges[k].first, edges[k].second)})
    return Loop(tuple(ring), tuple(scenes), found - here, predicted)


def _pulled(e, frame, points, scene):
    """Points of one scene of a pair, in the other."""
    warp = frame.warp(e.value) if e.straight else e.match.warp
    return np.stack((warp if scene == e.first else warp.inverse()).pull(*points.T), axis=1)


def judged_by_loops(found: list[Loop]) -> tuple[float, float, float]:
    """What the loops say of the errors of pairs: (variance to add to each pair in px^2, part open, part that closes).

    Where loops close worse than predicted, pairs have errors of their own besides those of their points (shadows,
    seasons). Where they close better, a part of each pair's error belongs to a scene and not to the pair: its noise
    moves all its matches alike, and no loop shows that. At least half of it is always taken to be of that kind.
    """
    if len(found) < LOOPS:
        return 0.0, 1.0, CLOSES
    ratio = float(np.median([v.mean_square / max(v.predicted, 1e-12) for v in found])) / MEDIAN_RATIO
    if ratio <= 1.0:
        return 0.0, max(ratio, 0.05), max(1.0 - ratio, CLOSES)
    more = np.median([(v.mean_square / MEDIAN_RATIO - v.predicted) / len(v.edges) for v in found])
    return max(float(more), 0.0), 1.0, CLOSES


@dataclass(frozen=True)
class Solution:
    """What the network says of each scene: its match or error, the closure of its loops (px, rms), how it was tied."""

    matches: dict
    closure_px: dict
    notes: dict


def solve(edges: list[Edge], first_pass: dict, root: int, model, frame: Frame) -> Solution:
    """Warps of all scenes from all pairs.

    edges : measured pairs; first_pass : scene -> its Match with the reference, or the error; root : the reference
    model : of the warps, or "auto": for each scene the simplest that its pairs do not reject

    A scene whose match with the reference bends keeps it, and ties others as it lies; its loops are reported too.
    """
    bent = {k for k, m in first_pass.items() if isinstance(m, Match) and not isinstance(m.warp, Shift | Affine)}
    rings = loops(edges, frame)
    more, opens, closes = judged_by_loops([v for v in rings if all(edges[k].straight for k in v.edges)])
    straight, origin = [], []
    for place, e in enumerate(edges):
        known = {e.first, e.second} & bent
        if not known and e.straight:
            straight.append(e)
        elif len(known) == 1 and root not in (e.first, e.second):
            (b,) = known
            other = e.first if e.second == b else e.second
            sigma = rms_sigma_px(first_pass[b], frame.shape)
            seen = seen_from_reference(e.match, first_pass[b].warp, sigma, frame, turned=e.second == b)
            straight.append(edge(root, other, seen, frame))
        else:
            continue
        origin.append(place)
    info = [e.information @ np.linalg.inv(np.eye(6) + more * e.information) for e in straight]
    start = _tree(straight, info, root, frame)
    scenes = sorted(start)
    number = {scene: k for k, scene in enumerate(scenes)}
    inside = [k for k, e in enumerate(straight) if e.first in number and e.second in number]
    straight, info, origin = ([v[k] for k in inside] for v in (straight, info, origin))
    places = [np.array([number[getattr(e, end)] for e in straight], int) for end in ("first", "second")]
    if not straight:
        return Solution(dict(first_pass), _closures(rings, edges, [1.0] * len(edges)), {})
    values = np.stack([e.value for e in straight])
    info = np.stack([(v + v.T) / 2 for v in info])
    at_start = np.stack([start[k][0] for k in scenes])
    fixed = "affine" if model in ("auto", "field", "projective", "polynomial2") else model
    models = [None if k == root else fixed for k in scenes]
    found = network.adjust(*places, values, info, at_start, models, frame.size)
    own = closes * _path_errors(scenes, info, straight, found["weight"], root, frame)
    if model == "auto":
        models = [
            m and network.simplest(p, c * opens + s)
            for m, p, c, s in zip(models, found["params"], found["covariance"], own)
        ]
        found = network.adjust(*places, values, info, found["params"], models, frame.size)

    weights = [1.0] * len(edges)
    for place, w in zip(origin, found["weight"]):
        weights[place] = float(w)
    out, notes = dict(first_pass), {}
    reached = _reached(straight, found["weight"], root)
    warps = {k: frame.warp(found["params"][number[k]], models[number[k]] or "affine") for k in scenes}
    for k in scenes:
        if k == root or k in bent:
            continue
        mine = [(e, w) for e, w in zip(straight, found["weight"]) if k in (e.first, e.second)]
        out[k], notes[k] = _match(k, mine, warps, found, own, number, models, opens, root, frame, k in reached)
    return Solution(out, _closures(rings, edges, weights), notes)


def _tree(edges, info, root, frame):
    """The surest path from the reference to each scene: (parameters, summed error in px, summed covariance)."""
    near = defaultdict(list)
    design = network.design_of(frame.uv(frame.lattice())).reshape(-1, 6)
    for e, v in zip(edges, info):
        # parameters that a pair says nothing about count as unsure by 3 px
        spread = np.linalg.inv(v + np.eye(6) / 9.0)
        cost = float(np.sqrt(np.einsum("nk,kl,nl->n", design, spread, design).mean()))
        near[e.first].append((e.second, cost, e, spread))
        near[e.second].append((e.first, cost, e, spread))
    out, heap, count = {}, [(0.0, 0, root, np.zeros(6), np.zeros((6, 6)))], 0
    while heap:
        far, _, scene, params, total = heappop(heap)
        if scene in out:
            continue
        out[scene] = params, far, total
        for other, cost, e, spread in near[scene]:
            if other not in out:
                step = network.matrix_of(e.value, frame.size)
                step = step if scene == e.first else np.linalg.inv(step)
                count += 1  # equal costs fall in the order in which they were found
                through = network.params_of(step @ network.matrix_of(params, frame.size), frame.size)
                heappush(heap, (far + cost, count, other, through, total + spread))
    return out


def _path_errors(scenes, info, straight, weight, root, frame):
    """Covariance (n, 6, 6) of each scene as the surest single path of pairs in use gives it, px^2.

    Errors along a path are taken to add up without cancelling: what changes slowly over the seasons moves one match
    after the other the same way, and averaging over paths does not take it out.
    """
    kept = [(e, v) for e, v, w in zip(straight, info, weight) if w > USED]
    paths = _tree([e for e, _ in kept], [v for _, v in kept], root, frame)
    design = network.design_of(frame.uv(frame.lattice())).reshape(-1, 6)
    out = np.zeros((len(scenes), 6, 6))
    for k, scene in enumerate(scenes):
        far, spread = paths[scene][1:] if scene in paths else (0.0, np.eye(6))
        alone = float(np.einsum("nk,kl,nl->n", design, spread, design).mean())
        out[k] = spread * (far**2 / max(alone, 1e-12)) if scene in paths else spread
    return out


def _reached(edges, weight, root):
    """Scenes that pairs in use tie to the reference."""
    out, grew = {root}, True
    while grew:
        grew = False
        for e, w in zip(edges, weight):
            if w > USED and (e.first in out) != (e.second in out):
                out |= {e.first, e.second}
                grew = True
    return out


def _match(k, mine, warps, found, own, number, models, opens, root, frame, reached):
    """(Match of scene k with the reference, how it was tied), or (MatchError, "")."""
    place = number[k]
    used = [(e, w) for e, w in mine if w > USED]
    if not reached or (len(mine) > 2 and len(used) < 2 and not any(root in (e.first, e.second) for e, _ in used)):
        return MatchError(f"the matches of its {len(mine)} pairs contradict each other."), ""
    direct = [e for e, _ in used if root in (e.first, e.second)]
    few, _ = limits(frame.shape)
    note = ""
    if not direct:
        lost = any(root in (e.first, e.second) for e, _ in mine)
        note = f"tied through {len(used)} neighbours"
        note += "; its match with the reference does not fit them" if lost else ""
    tied = direct if direct and sum(len(e.at) for e in direct) >= few else [e for e, _ in used]
    model = models[place]
    warp = warps[k]
    tables = [_table(e, k, warps, warp) for e in tied]
    table = pd.concat(tables, ignore_index=True)
    use = table["use"].to_numpy()
    residual = table[["dy_residual", "dx_residual"]].to_numpy()
    space = network.space_of(model, found["params"][place], frame.size)
    own_error = space @ np.linalg.pinv(space) @ own[place] @ (space @ np.linalg.pinv(space)).T
    covariance = found["covariance"][place] * opens + own_error
    match = Match(
        warp=warp,
        covariance=frame.covariance(covariance, model),
        score=float(np.median(table["score"].to_numpy()[use == "fit"])),
        rmse_px=quality.rms_length(residual, use == "fit"),
        n_points=int((use == "fit").sum()),
        method=tied[0].match.method,
        tie_points=table,
        cv_px=quality.rms_length(residual, use == "check"),
    )
    match = enough_points(match, frame.shape)
    return match, note if isinstance(match, Match) else ""


def _table(e: Edge, k, warps, warp):
    """Tie points of a pair as those of scene k with the reference, with their residuals to its warp."""
    table = e.match.tie_points.copy()
    other = e.first if e.second == k else e.second
    ends = [table[["row", "col"]].to_numpy(), table[["row_moving", "col_moving"]].to_numpy()]
    theirs, mine = ends if e.second == k else ends[::-1]
    at = np.stack(warps[other].inverse().pull(*theirs.T), axis=1)
    expected = np.stack(warp.pull(*at.T), axis=1)
    table[["row", "col"]], table[["row_moving", "col_moving"]] = at, mine
    table[["dy_residual", "dx_residual"]] = mine - expected
    return table


def rms_sigma_px(match: Match, shape) -> float:
    """Predicted error of a match over the image, an axis, px."""
    rows, cols = np.meshgrid(*(np.linspace(0, n - 1, 15) for n in shape), indexing="ij")
    return float(np.sqrt((match.sigma_px(rows, cols) ** 2).mean()))


def limits(shape) -> tuple[int, int]:
    """(tie points below which a scene is weak, below which it is refused); less for small images of few windows."""
    windows = len(windows_for(shape).start)
    return min(FEW_POINTS, windows // 2), min(ENOUGH_POINTS, max(3, windows // 4))


def enough_points(result, shape):
    """A match of a scene, or the MatchError that says that it rests on too few points; errors as they are."""
    _, enough = limits(shape)
    if isinstance(result, Match) and result.n_points < enough:
        return MatchError(
            f"only {result.n_points} tie points agree on a warp; a scene of this stack needs {enough}, "
            "because fewer can all be wrong in the same way."
        )
    return result


def _closures(rings, edges, weights):
    """Root mean square length of the closures of the loops a scene is in, of pairs in use; scene -> px."""
    squares = defaultdict(list)
    for ring in rings:
        if all(weights[k] > USED for k in ring.edges):
            for scene in ring.scenes:
                squares[scene].append(2 * ring.mean_square)
    return {scene: float(np.sqrt(np.mean(v))) for scene, v in squares.items()}


def compose(one, other):
    """A warp and then another as one warp, of one kind where both are."""
    if isinstance(one, Shift) and isinstance(other, Shift):
        return Shift(one.dy + other.dy, one.dx + other.dx)
    if isinstance(one, Shift | Affine) and isinstance(other, Shift | Affine):
        return Affine((_square(other) @ _square(one))[:2])
    if isinstance(one, Shift) and isinstance(other, Field) and not other.inverted:
        origin = {"row0": other.row0 - one.dy, "col0": other.col0 - one.dx}
        return replace(other, dy=other.dy + one.dy, dx=other.dx + one.dx, **origin)
    if isinstance(one, Shift | Affine | Projective) and isinstance(other, Shift | Affine | Projective):
        return Projective(_square(other) @ _square(one))
    parts = [w.warps if isinstance(w, Chain) else (w,) for w in (one, other)]
    return Chain((*parts[0], *parts[1]))


def _square(warp):
    out = np.eye(3)
    if isinstance(warp, Shift):
        out[:2, 2] = warp.dy, warp.dx
    elif isinstance(warp, Affine):
        out[:2] = warp.matrix
    else:
        out[:] = warp.matrix
    return out
