"""Shipping routes: where ships keep to a line, how wide and busy it is, and since when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from geoalign.detectors.sar_input import check_share
from geoalign.errors import ConfigError, StackError
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
    exact_tail,
    fewer_before,
    oriented_tests,
    paths,
    ridges,
    rising_run,
)
from geoalign.types.changes import CONFIRMED, ENDED, NO_CHANGE, NOT_OBSERVABLE, WHY, new_changes

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


@dataclass(frozen=True)
class Routes:
    """What `find` gives.

    lines : GeoDataFrame, a row a route; changes : Changes (y, x) over the cells
    """

    lines: object
    changes: object


def find(ships, passes, *, alpha=0.01, prior=0.05, cell_m=500.0, width_m=1500.0, min_length_m=10_000.0) -> Routes:
    """Routes in detections of ships, corrected for where and how often there was anything to see.

    Ships in a strip of 10 km along any of 16 directions are held against those in the strips on either side, both,
    by the exact conditional binomial test: the whole series, its halves, quarters and eighths. What passes at a false
    discovery rate of `alpha` (Benjamini and Hochberg over cells, all directions and parts counted), is followed along
    its crest. Each line is drawn to the middle of its ships, cut where they end, and tested again as a whole; a CUSUM
    of its ships, pass by pass, says from when to when it was used.

    Parameters
    ----------
    ships : GeoDataFrame of points
        `time`, one of those of `passes`; as `ships.find` gives them. Rows with `fixed` are left out; without that
        column, places with something within 100 m in 30 % of the passes are.
    passes : GeoDataFrame of polygons
        `time` and footprint of every acquisition, also of those without ships, in the same CRS in metres.
    alpha : float
        False discovery rate of cells, and the chance of a false route (each line's `p_value` is corrected for all
        cells, directions and parts).
    prior : float
        Share of cells in which a route formed that `changes.probability` assumes.
    cell_m : float
    width_m : float
        Of the strip that is looked along: about the width of routes.
    min_length_m : float
        Shorter lines are left out.

    Returns
    -------
    Routes. `lines`: LineStrings with `length_m`, `width_m` (full width at half maximum), `traffic` (ships found a pass
    and 100 km2 of it, over what is around), `n_ships`, `formed` (whether it is younger than the series), `first_seen`
    (first pass of its use; the series' first where it was always there), `first_after` (the pass before it, NaT where
    there is none), `last_seen`, `ended`, `p_value`, `p_formed`. `changes`: 3 in cells of routes that formed, 4 where
    they are gone again, `magnitude` in ships a pass and 100 km2; layer `route`, the row in `lines`, -1 none.

    Raises
    ------
    ConfigError
        No CRS in metres, different ones, options out of range.
    StackError
        No passes, or ships at a time of which there is no pass.

    References
    ----------
    Przyborowski and Wilenski (1940), the conditional test of two Poisson rates; Benjamini and Hochberg (1995); Lucas
    (1985), Poisson CUSUM.

    Examples
    --------
    >>> from geoalign.simulation.traffic import Route, Sea, simulate_traffic
    >>> lane = Route(line=((0, 1e4), (3e4, 2e4)), since=900)
    >>> sea = Sea(size_m=(3e4, 3e4), routes=(lane,), years=4)
    >>> found = find(*simulate_traffic(sea, seed=1)).lines
    >>> len(found), bool(found.formed[0])
    (1, True)
    """
    _check(ships, passes, alpha, prior, cell_m, width_m, min_length_m)
    sea = _Sea(ships, passes, float(cell_m))
    score, n_part = sea.scores(float(width_m))
    n_test = N_TURN * n_part
    n_all = n_test * int(sea.exposure.any(axis=0).sum())
    rows = []
    for path in paths(ridges(score, CANDIDATE), score, 0.5 * min_length_m / cell_m):
        row = sea.judged(sea.xy(path), n_all)
        if row is not None and row["p_value"] <= PIECE_P * n_all:
            rows.append(row)
    rows = [r for r in sea.linked(rows, n_all) if r["length_m"] >= min_length_m and r["p_value"] <= alpha]
    limit = accepted([r["p_value"] for r in rows], alpha)
    rows = [r for r in rows if r["p_value"] <= limit]
    return Routes(_frame(rows, sea), _changes(rows, sea, prior, alpha))


def passes_of(stack):
    """Passes of a Stack as `find` takes them: the outline of what each scene observed (lazy ones are read)."""
    import geopandas as gpd
    from shapely.geometry import MultiPolygon, box

    from geoalign.types.stack import geobox_of, transform_of

    grid = geobox_of(stack)
    if grid is None or not grid.crs.projected:
        raise ConfigError("routes need a grid in metres; open the stack with a projected CRS, as the local UTM zone.")
    to_map = transform_of(stack)
    name = next(iter(stack.data_vars))
    side = 32
    shapes = []
    for t in range(stack.sizes["time"]):
        seen = np.isfinite(np.asarray(stack[name].isel(time=t).transpose("y", "x").data))
        tiles = []
        for r in range(0, seen.shape[0], side):
            for c in range(0, seen.shape[1], side):
                part = seen[r : r + side, c : c + side]
                if part.mean() >= 0.5:
                    (a, b), (d, e) = to_map * (c, r), to_map * (c + part.shape[1], r + part.shape[0])
                    tiles.append(box(min(a, d), min(b, e), max(a, d), max(b, e)))
        shapes.append(MultiPolygon(tiles).buffer(0))
    return gpd.GeoDataFrame({"time": stack.time.values}, geometry=shapes, crs=str(grid.crs))


def _check(ships, passes, alpha, prior, cell_m, width_m, min_length_m):
    check_share("alpha", alpha)
    check_share("prior", prior)
    for name, value in (("cell_m", cell_m), ("width_m", width_m), ("min_length_m", min_length_m)):
        if not value > 0:
            raise ConfigError(f"{name} is {value!r}; it is a length in m above 0.")
    if len(passes) == 0:
        raise StackError("there is no pass; give the time and footprint of every acquisition.")
    if passes.crs is None or not passes.crs.is_projected or (len(ships) and ships.crs != passes.crs):
        raise ConfigError(
            f"ships have the CRS {ships.crs}, passes {passes.crs}; both need the same one in metres: "
            "frame.to_crs(frame.estimate_utm_crs())."
        )
    missing = ~np.isin(pd.to_datetime(ships.time).to_numpy(), pd.to_datetime(passes.time).to_numpy())
    if missing.any():
        raise StackError(
            f"{int(missing.sum())} ships have a time of which there is no pass, the first "
            f"{ships.time.iloc[np.argmax(missing)]}; passes need every acquisition with its exact time."
        )


class _Sea:
    """Ships and what was seen, on a grid of cells."""

    def __init__(self, ships, passes, cell_m):
        passes = passes.sort_values("time", ignore_index=True)
        self.time = pd.to_datetime(passes.time).to_numpy().astype("datetime64[ns]")
        self.crs, self.cell_m = passes.crs, cell_m
        self.left, bottom, right, self.top = passes.total_bounds
        self.shape = (
            max(1, int(np.ceil((self.top - bottom) / cell_m))),
            max(1, int(np.ceil((right - self.left) / cell_m))),
        )
        self.exposure = self._exposure(passes)
        if "fixed" in ships:
            ships = ships[~ships.fixed.astype(bool)]
        x, y = ships.geometry.x.to_numpy(), ships.geometry.y.to_numpy()
        when = np.searchsorted(self.time, pd.to_datetime(ships.time).to_numpy().astype("datetime64[ns]"))
        row, col = self._cell(x, y)
        inside = (row >= 0) & (row < self.shape[0]) & (col >= 0) & (col < self.shape[1])
        inside[inside] = self.exposure[when[inside], row[inside], col[inside]]
        if "fixed" not in ships:
            inside[inside] = ~self._stays(x[inside], y[inside], when[inside], row[inside], col[inside])
        self.xy_ships, self.when = np.column_stack([x, y])[inside], when[inside]
        self.count = np.zeros(self.exposure.shape, np.int32)
        np.add.at(self.count, (self.when, row[inside], col[inside]), 1)

    def _exposure(self, passes):
        import shapely

        rows, cols = np.mgrid[: self.shape[0], : self.shape[1]]
        x, y = self.left + (cols + 0.5) * self.cell_m, self.top - (rows + 0.5) * self.cell_m
        known, out = {}, np.empty((len(passes), *self.shape), bool)
        for k, shape in enumerate(passes.geometry):
            key = shape.wkb
            if key not in known:
                shapely.prepare(shape)
                known[key] = shapely.contains_xy(shape, x, y)
            out[k] = known[key]
        return out

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
        before, after = np.arange(n.size) < start, np.arange(n.size) > stop
        p_formed = min(1.0, n.size * fewer_before(n[before].sum(), e[before].sum(), n[active].sum(), e[active].sum()))
        p_ended = min(1.0, n.size * fewer_before(n[after].sum(), e[after].sum(), n[active].sum(), e[active].sum()))
        formed, ended = p_formed <= RISE_ALPHA, p_ended <= RISE_ALPHA
        seen = np.flatnonzero(e > 0)
        first = start if formed else seen[0]
        earlier = seen[seen < first]
        return {
            "line": line, "half": half, "length_m": length, "p_value": p, "p_formed": p_formed,
            "formed": formed, "ended": ended, "n_ships": int(n[active].sum()),
            "first": first, "before": earlier[-1] if earlier.size else -1, "last": stop if ended else seen[-1],
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


def _bounds(half):
    """Distances to the left of a line, m, of the strip on it and those on either side."""
    return (-half, half), BESIDE_M, (-BESIDE_M[1], -BESIDE_M[0])


def _frame(rows, sea):
    import geopandas as gpd
    from shapely.geometry import LineString

    none = np.datetime64("NaT", "ns")

    def stamps(name):
        return np.array([sea.time[r[name]] if r[name] >= 0 else none for r in rows], "datetime64[ns]")

    columns = {
        name: np.array([r[name] for r in rows], float) for name in ("length_m", "traffic", "p_value", "p_formed")
    }
    columns["width_m"] = np.array([r["half"] * FWHM / HALF for r in rows], float)
    columns["n_ships"] = np.array([r["n_ships"] for r in rows], np.int64)
    columns |= {name: np.array([r[name] for r in rows], bool) for name in ("formed", "ended")}
    columns |= {"first_seen": stamps("first"), "first_after": stamps("before"), "last_seen": stamps("last")}
    names = ("length_m", "width_m", "traffic", "n_ships", "formed", "first_seen", "first_after", "ended", "last_seen",
             "p_value", "p_formed")  # fmt: skip
    lines = [LineString(r["line"]) for r in rows]
    return gpd.GeoDataFrame({name: columns[name] for name in names}, geometry=lines, crs=sea.crs)


def _changes(rows, sea, prior, alpha):
    """Changes over the cells: where a route formed, when, and how sure."""
    import xarray as xr
    from affine import Affine
    from odc.geo.geobox import GeoBox

    from geoalign.types.stack import grid_coords

    grid = GeoBox(sea.shape, Affine(sea.cell_m, 0, sea.left, 0, -sea.cell_m, sea.top), str(sea.crs))
    n_obs = np.minimum(sea.exposure.sum(axis=0), 65535)
    seen = n_obs > 0
    none = np.datetime64("NaT", "ns")
    layer = {name: np.full(sea.shape, none, "datetime64[ns]") for name in ("date", "date_after", "date_end")}
    status = np.where(seen, NO_CHANGE, NOT_OBSERVABLE)
    magnitude, route = np.full(sea.shape, np.nan, np.float32), np.full(sea.shape, -1, np.int16)
    probability = np.where(seen, _cell_probability(sea, prior), np.nan)
    rows_at, cols_at = np.mgrid[: sea.shape[0], : sea.shape[1]]
    centres = sea.xy(np.column_stack([rows_at.ravel(), cols_at.ravel()]).astype(float))
    for k, row in reversed(list(enumerate(rows))):  # the strongest last, on top
        across = along_and_across(row["line"], centres)[1].reshape(sea.shape)
        here = (np.abs(across) <= row["half"]) & seen
        route[here] = k
        magnitude[here] = row["traffic"]
        if row["formed"]:
            status[here] = ENDED if row["ended"] else CONFIRMED
            layer["date"][here] = sea.time[row["first"]]
            layer["date_after"][here] = sea.time[row["before"]] if row["before"] >= 0 else none
            later = np.flatnonzero(np.arange(sea.time.size) > row["last"])
            layer["date_end"][here] = sea.time[later[0]] if row["ended"] and later.size else none
            probability[here] = 1 - max(row["p_value"], row["p_formed"])
        else:
            status[here] = NO_CHANGE
            probability[here] = 0.0
            for values in layer.values():
                values[here] = none
    hit = status != NO_CHANGE
    layers = {
        "status": status, "date": layer["date"], "date_after": layer["date_after"], "date_by": layer["date"],
        "magnitude": magnitude, "direction": np.where(hit & seen, 1, 0), "probability": probability.astype(np.float32),
        "n_obs": n_obs, "why": np.where(seen, 0, WHY["no_data"]), "date_end": layer["date_end"], "route": route,
    }  # fmt: skip
    coords = grid_coords(grid, sea.shape)
    arrays = {name: xr.DataArray(values, dims=("y", "x"), coords=coords) for name, values in layers.items()}
    return new_changes(
        arrays, kind="shipping_routes", detector=f"shipping_routes(alpha={alpha}, prior={prior}, cell_m={sea.cell_m})",
        prior=prior, magnitude_units="ships/pass/100 km2", inputs=[str(t)[:19] for t in sea.time],
    )  # fmt: skip


def _cell_probability(sea, prior):
    """That a route formed in each cell, from its own ships: HIGH_RATIO times the earlier half's traffic in the later.

    Neighbours in 3 x 3 speak with it; below one half, since a route that was not found as a line is none yet.
    """
    from scipy.ndimage import uniform_filter

    half = sea.time.size // 2
    sums = []
    for piece in (slice(0, half), slice(half, None)):
        for values in (sea.count[piece], sea.exposure[piece]):
            sums.append(uniform_filter(values.sum(axis=0).astype(float), 3, mode="constant") * 9)
    n_0, e_0, n_1, e_1 = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        even = (n_0 + n_1 + 0.5) / (e_0 + e_1 + 1)
        low = (n_0 + 0.5) / (e_0 + 1)
        high = HIGH_RATIO * low
        gain = n_0 * np.log(low / even) - e_0 * (low - even) + n_1 * np.log(high / even) - e_1 * (high - even)
    odds = prior / (1 - prior) * np.exp(np.clip(gain, -60, 60))
    return np.minimum(odds / (1 + odds), 0.5)
