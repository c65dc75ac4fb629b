"""The search for shipping routes: ships and what was seen on a grid of cells, lines followed, fitted and tested."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoalign.kernels.route_lines import (
    along_and_across,
    extended,
    fitted,
    joint,
    remainder,
    resampled,
    simplified,
    spread,
)
from geoalign.kernels.routes import (
    BESIDE_M,
    N_TURN,
    accepted,
    began,
    exact_tail,
    fewer_before,
    oriented_tests,
    paths,
    ridges,
    rising_run,
    splits,
)

PARTS = (1, 2, 4, 8)
"""The series is looked through whole, in halves, quarters and eighths: a young route drowns in old calm."""
STEP_M = 500.0
"""Vertices of a line."""
OVERHANG_M = 6_000.0
"""A line is carried on so far at either end, and cut where its ships end."""
SAME_M, SAME_SHARE, OVERLAP_M = 1_500.0, 0.3, 8_000.0
"""A line of which so large a share lies so near to a stronger one is that one;
a stretch that stays so near for OVERLAP_M is the stronger one's."""
NARROWEST_M, WIDEST_M = 600.0, 4_000.0
"""Of the strip whose ships are counted."""
IN_HALF = 0.8904
"""Share of a normal law within HALF standard deviations."""
OFFSETS = 5
"""Points across a strip at which is asked whether it was seen."""
PLACE_M, PLACE_SHARE = 100.0, 0.3
"""Ships seen so near each other in such a share of the passes are a fixed object."""
GAP_M, TURN = 8_000.0, np.deg2rad(75.0)
"""Lines whose ends are so near, and turn by no more, may be one."""
PIECE_P = 1e-3
"""p of a line alone, uncorrected, from which on it may be a piece of another."""
CANDIDATE = 5.0
"""-ln p from which on a crest is followed; whether it is a route is for the whole line to say."""
RISE_ALPHA = 0.01
HIGH_RATIO = 3.0
"""Traffic of a route, in that around it, at the least."""
HALF, FWHM = 1.6, 2.355
"""Half width of the strip whose ships are counted, and full width at half maximum, in standard deviations."""


class Sea:
    """Ships and what was seen, on a grid of cells.

    time : (pass,); exposure : (pass, row, col) bool, cells that were seen; left, top : m; cell_m
    x, y : m; when : number of the pass of each ship; fixed : which of them are fixed objects, None to tell them here
    """

    def __init__(self, time, exposure, left, top, cell_m, x, y, when, fixed=None):
        self.time, self.exposure = time, exposure
        self.left, self.top, self.cell_m, self.shape = left, top, cell_m, exposure.shape[1:]
        row, col = self._cell(x, y)
        inside = (row >= 0) & (row < self.shape[0]) & (col >= 0) & (col < self.shape[1])
        inside[inside] = exposure[when[inside], row[inside], col[inside]]
        if fixed is None:
            inside[inside] = ~self._stays(x[inside], y[inside], when[inside], row[inside], col[inside])
        else:
            inside &= ~fixed
        self.xy_ships, self.when = np.column_stack([x, y])[inside], when[inside]
        self.count = np.zeros(exposure.shape, np.int32)
        np.add.at(self.count, (self.when, row[inside], col[inside]), 1)

    @classmethod
    def of_tables(cls, ships, passes, cell_m):
        """From the tables that `shipping_routes.find` takes."""
        passes = passes.sort_values("time", ignore_index=True)
        time = pd.to_datetime(passes.time).to_numpy().astype("datetime64[ns]")
        left, bottom, right, top = passes.total_bounds
        shape = max(1, int(np.ceil((top - bottom) / cell_m))), max(1, int(np.ceil((right - left) / cell_m)))
        if "fixed" in ships:
            ships = ships[~ships.fixed.astype(bool)]
        x, y = ships.geometry.x.to_numpy(), ships.geometry.y.to_numpy()
        when = np.searchsorted(time, pd.to_datetime(ships.time).to_numpy().astype("datetime64[ns]"))
        told = np.zeros(len(ships), bool) if "fixed" in ships else None
        return cls(time, _exposure(passes, shape, left, top, cell_m), left, top, cell_m, x, y, when, told)

    def routes(self, alpha, width_m, min_length_m):
        """Rows of the routes that hold, as `judged` gives them, the busiest first."""
        score, n_part = self.scores(width_m)
        n_all = N_TURN * n_part * int(self.exposure.any(axis=0).sum())
        rows = []
        for path in paths(ridges(score, CANDIDATE), score, 0.5 * min_length_m / self.cell_m):
            row = self.judged(self.xy(path), n_all)
            if row is not None and row["p_value"] <= PIECE_P * n_all:
                rows.append(row)
        rows = [r for r in self.linked(rows, n_all) if r["length_m"] >= min_length_m and r["p_value"] <= alpha]
        limit = accepted([r["p_value"] for r in rows], alpha)
        return [r for r in rows if r["p_value"] <= limit]

    def _cell(self, x, y):
        return np.floor((self.top - y) / self.cell_m).astype(int), np.floor((x - self.left) / self.cell_m).astype(int)

    def _stays(self, x, y, when, row, col):
        from scipy.spatial import cKDTree

        if x.size == 0:
            return np.zeros(0, bool)
        places = np.column_stack([x, y])
        seen = self.exposure.sum(axis=0)[row, col]
        near = cKDTree(places).query_ball_point(places, PLACE_M)
        n = np.array([np.unique(when[others]).size for others in near])
        return (n >= 4) & (n >= PLACE_SHARE * seen)

    def scores(self, width_m):
        """(least ln p over parts of the series (turn, row, col), number of parts)."""
        score, n_part = np.zeros((N_TURN, *self.shape)), 0
        for parts in PARTS:
            for piece in np.array_split(np.arange(self.time.size), parts):
                if piece.size < 2 and parts > 1:
                    continue
                n_part += 1
                count, exposure = self.count[piece].sum(axis=0), self.exposure[piece].sum(axis=0)
                score = np.minimum(
                    score, oriented_tests(count.astype(float), exposure.astype(float), self.cell_m, width_m)
                )
        return score, n_part

    def xy(self, path):
        return np.column_stack(
            [self.left + (path[:, 1] + 0.5) * self.cell_m, self.top - (path[:, 0] + 0.5) * self.cell_m]
        )

    def judged(self, xy, n_test):
        """A route's row from its rough line, or None where it does not hold."""
        line = xy
        active = np.ones(self.time.size, bool)
        before = np.inf
        for _ in range(6):
            own = self.xy_ships[active[self.when]]
            line = fitted(line, own)
            across = along_and_across(line, own)[1]
            half = float(np.clip(HALF * spread(across, BESIDE_M[0]), NARROWEST_M / 2, WIDEST_M / 2))
            line = self._cut(extended(line, OVERHANG_M), half, active)
            if line is None:
                return None
            start, stop, low, high = self._used(line, half)
            if start < 0:
                return None
            active = (np.arange(self.time.size) >= start) & (np.arange(self.time.size) <= stop)
            length = np.hypot(*np.diff(line, axis=0).T).sum()
            if abs(length - before) < STEP_M:
                break
            before = length
        n, e = self._counts(line, half)
        (n_in, *n_out), (e_in, *e_out) = n[active].sum(axis=0), e[active].sum(axis=0)
        sides = [(a, b) for a, b in zip(n_out, e_out) if b > 0.2 * e_in]
        p = max((float(exact_tail(n_in, e_in, a, b)) for a, b in sides), default=1.0)
        p *= n_test
        n, e = n[:, 0], e[:, 0]
        soonest, start, latest = began(n[: stop + 1], e[: stop + 1], low, high)
        before, after = np.arange(n.size) < start, np.arange(n.size) > stop
        active = ~before & ~after
        p_formed = min(
            1.0, splits(n.size) * fewer_before(n[before].sum(), e[before].sum(), n[active].sum(), e[active].sum())
        )
        p_ended = min(1.0, n.size * fewer_before(n[after].sum(), e[after].sum(), n[active].sum(), e[active].sum()))
        formed, ended = p_formed <= RISE_ALPHA, p_ended <= RISE_ALPHA
        seen = np.flatnonzero(e > 0)
        first = start if formed else seen[0]
        earlier = seen[seen < (soonest if formed else first)]
        return {
            "line": line, "half": half, "length_m": length, "p_value": p, "p_formed": p_formed,
            "formed": formed, "ended": ended, "n_ships": int(n[active].sum()),
            "first": first, "before": earlier[-1] if earlier.size else -1,
            "by": latest if formed else first, "last": stop if ended else seen[-1],
            "traffic": (high - low) * 1e8, "low": low, "high": high,
        }  # fmt: skip

    def linked(self, rows, n_test):
        """Pieces of one route as one: what lies on a stronger one dropped, ends that meet joined and judged anew."""
        done = []
        waiting = [{**row, "cuts": 0} for row in rows]
        while waiting:
            waiting.sort(key=lambda r: (r["p_value"], -r["n_ships"]))
            row = waiting.pop(0)
            for k, other in enumerate(done):
                whole = self._whole(other, row, n_test)
                if whole is not None:
                    # all anew: what stood apart may lie on the longer line
                    waiting = [{**whole, "cuts": 0}, *done[:k], *done[k + 1 :], *waiting]
                    done = []
                    break
            else:
                if self._free(row, done):
                    done.append(row)
                    continue
                rest, cuts = row["line"], row["cuts"]
                for other in done:
                    rest = None if rest is None else remainder(rest, other["line"], SAME_M, STEP_M, OVERLAP_M)
                row = None if rest is None or cuts == 2 else self.judged(rest, n_test)
                if row is not None:
                    waiting.append({**row, "cuts": cuts + 1})
        return sorted(done, key=lambda r: -r["n_ships"])

    def _whole(self, one, other, n_test):
        """Two routes as one, or None where they are two."""
        if min(one["last"], other["last"]) <= max(one["first"], other["first"]):
            return None
        rest = remainder(other["line"], one["line"], SAME_M, STEP_M, STEP_M)
        both = None if rest is None else joint(one["line"], rest, GAP_M, TURN)
        whole = None if both is None else self.judged(both, n_test)
        if whole is None or whole["p_value"] > min(one["p_value"], other["p_value"]):
            return None
        longer, shorter = sorted((one["length_m"], other["length_m"]), reverse=True)
        return whole if whole["length_m"] > longer + 0.3 * shorter else None

    def _counts(self, line, half):
        """Ships and m2 seen, (pass, 3): on the line, to its left and to its right."""
        along, across = along_and_across(line, self.xy_ships)
        on = np.isfinite(along)
        near, far = BESIDE_M
        masks = (
            on & (np.abs(across) <= half),
            on & (across >= near) & (across <= far),
            on & (across <= -near) & (across >= -far),
        )
        n = np.column_stack([np.bincount(self.when[mask], minlength=self.time.size) for mask in masks]).astype(float)
        length = np.hypot(*np.diff(line, axis=0).T).sum()
        e = np.column_stack(
            [self._seen_beside(line, *bounds, slice(None)).mean(axis=(1, 2)) for bounds in _bounds(half)]
        )
        return n, e * length * np.array([2 * half, far - near, far - near])

    def _seen_beside(self, line, least, most, active):
        """(pass, vertex, offset) bool: what of a strip beside a line (to its left, m) was seen."""
        fine = resampled(line, STEP_M)
        tangent = np.gradient(fine, axis=0)
        tangent /= np.maximum(np.hypot(*tangent.T), 1e-9)[:, None]
        normal = np.column_stack([-tangent[:, 1], tangent[:, 0]])
        offsets = least + (np.arange(OFFSETS) + 0.5) / OFFSETS * (most - least)
        points = fine[:, None] + offsets[:, None] * normal[:, None]
        row, col = self._cell(points[..., 0], points[..., 1])
        inside = (row >= 0) & (row < self.shape[0]) & (col >= 0) & (col < self.shape[1])
        seen = self.exposure[active][:, np.clip(row, 0, self.shape[0] - 1), np.clip(col, 0, self.shape[1] - 1)]
        return seen & inside

    def _used(self, line, half):
        """(first pass, last pass, rate beside, rate on it) of the time in which a line is used."""
        n, e = self._counts(line, half)
        low = (n[:, 1:].sum() + 0.5) / max(e[:, 1:].sum(), 1.0)
        n, e = n[:, 0], e[:, 0]
        high = max(HIGH_RATIO * low, *(
            n[piece].sum() / e[piece].sum() for parts in PARTS for piece in np.array_split(np.arange(n.size), parts)
            if e[piece].sum() > 0
        ))  # fmt: skip
        start = stop = -1
        for _ in range(3):
            start, stop, _ = rising_run(n * np.log(high / low), e * (high - low))
            if start < 0:
                return start, stop, low, high
            high = max(1.5 * low, n[start : stop + 1].sum() / e[start : stop + 1].sum())
        # once more, each ship for itself: those in the middle of the line say more
        sigma = half / HALF
        crest = (high - low) * 2 * half / (sigma * np.sqrt(2 * np.pi)) / IN_HALF
        across = along_and_across(line, self.xy_ships)[1]
        on = np.abs(across) <= BESIDE_M[0]
        gain = np.log1p(crest / low * np.exp(-0.5 * (across[on] / sigma) ** 2))
        gain = np.bincount(self.when[on], gain, minlength=n.size)
        start, stop, _ = rising_run(gain, e * (high - low) / IN_HALF)
        return start, stop, low, high

    def _cut(self, line, half, active):
        """The line between the first and the last place where its ships outnumber what is around."""
        line = resampled(line, STEP_M)
        own = self.xy_ships[active[self.when]]
        along, across = along_and_across(line, own)
        place = np.append(0, np.cumsum(np.hypot(*np.diff(line, axis=0).T)))
        bins = np.append(place - STEP_M / 2, place[-1] + STEP_M / 2)
        here = np.isfinite(along) & (np.abs(across) <= half)
        beside = np.isfinite(along) & (np.abs(across) >= BESIDE_M[0]) & (np.abs(across) <= BESIDE_M[1])
        n = np.histogram(along[here], bins)[0].astype(float)
        strips = [
            self._seen_beside(line, *bounds, active).sum(axis=0).mean(axis=1) * STEP_M for bounds in _bounds(half)
        ]
        e = strips[0] * 2 * half
        low = (beside.sum() + 0.5) / max((strips[1] + strips[2]).sum() * (BESIDE_M[1] - BESIDE_M[0]), 1.0)
        high = max(HIGH_RATIO * low, n.sum() / max(e.sum(), 1.0))
        for _ in range(2):
            start, stop, _ = rising_run(n * np.log(high / low), e * (high - low))
            if start < 0 or stop - start < 4:
                return None
            high = max(1.5 * low, n[start : stop + 1].sum() / e[start : stop + 1].sum())
        return simplified(line[start : stop + 1], 1.0)

    def _free(self, row, others):
        """Whether a line keeps off each of the others for most of its length."""
        line = resampled(row["line"], STEP_M)
        for other in others:
            gap = np.hypot(*(line[:, None] - resampled(other["line"], STEP_M)[None]).transpose(2, 0, 1)).min(axis=1)
            if (gap <= SAME_M).mean() >= SAME_SHARE:
                return False
        return True


def _exposure(passes, shape, left, top, cell_m):
    import shapely

    rows, cols = np.mgrid[: shape[0], : shape[1]]
    x, y = left + (cols + 0.5) * cell_m, top - (rows + 0.5) * cell_m
    known, out = {}, np.empty((len(passes), *shape), bool)
    for k, outline in enumerate(passes.geometry):
        key = outline.wkb
        if key not in known:
            shapely.prepare(outline)
            known[key] = shapely.contains_xy(outline, x, y)
        out[k] = known[key]
    return out


def _bounds(half):
    """Distances to the left of a line, m, of the strip on it and those on either side."""
    return (-half, half), BESIDE_M, (-BESIDE_M[1], -BESIDE_M[0])
