"""Shipping routes: where ships keep to a line, how wide and busy it is, and since when."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd

from geoalign.chunked import BLOCK, derived, neighbourhood, whole_image
from geoalign.detectors.route_cells import (
    TOLD,
    UNITS,
    Cells,
    block_told,
    cell_changes,
    layers_of,
    lines_frame,
    painted,
    scene_told,
    sea_of,
    told_of,
)
from geoalign.detectors.route_search import Sea
from geoalign.detectors.sar_input import check_share
from geoalign.detectors.series import moment, part
from geoalign.detectors.ships import TOLERANCE_M, Ships, bands_of
from geoalign.errors import ConfigError, StackError
from geoalign.types.changes import new_changes
from geoalign.types.stack import check_stack, geobox_of, pixel_size_m, transform_of


@dataclass(frozen=True)
class ShippingRoutes:
    """Shipping routes that formed during a SAR series at sea, each cell of the sea with the date.

    Ships are detected scene by scene (`Ships`, azimuth ghosts and fixed objects left out), put on cells of `cell_m`
    with the passes that saw each cell as open sea, and searched for lines that ships keep to; `find` does the same for
    points from elsewhere. Cells on a route that formed are 3 (4 where it is gone again); one that was always there is
    no change.

    Parameters
    ----------
    alpha : float
        Chance of a false route in the whole stack, and the false discovery rate among those found.
    prior : float
        Share of cells in which a route formed that `probability` assumes.
    since, until : date, optional
        Routes that formed before `since` are no change (all scenes are used); scenes after `until` are left out.
    cell_m : float
        Side of a cell, rounded to whole pixels.
    width_m : float
        Of the strip that is looked along: about the width of routes.
    min_length_m : float
        Shorter routes are left out.
    enl : float, optional
        Looks. None takes each band's `attrs["enl"]`, and estimates them from each scene where there is none.

    Notes
    -----
    `date` is the pass at which the route formed, the likeliest by its ships; it formed in (`date_after`,
    `date_by`] in 95 % of cases. `magnitude` is the traffic:
    ships a pass and 100 km2 of the route, over what is around it; old routes have one too. Further layers: `date_end`,
    first pass after a route ended; `route`, its number, -1 none. `polygons(changes)` gives the areas of routes that
    formed; `ShippingRoutes(...).lines(stack)` the middle line of every route, row by row as `route` counts them, with
    width, traffic, first and last use and p-values. Each reads the scenes once.

    What is weak. The date rests on counts, and on quiet routes it is often months off, as the interval says
    (`benchmarks/RESULTS.md`). On a route `probability` is 1
    less the larger of its p-values (that it is there, that it formed) and knows nothing of `prior`; elsewhere it comes
    from the ships of each cell and stays below one half. A route stands out from the strips 2 to 5 km on either side
    over 10 km: lanes side by side, as before a harbour, may merge or be drawn km off; short ones are missed.
    Land is told by cells, half of which has to be open sea; land pixels in such a cell are 0 unless the stack has the
    coordinate `land`. A shift of pixels is nothing to cells; `sigma_px` widens the tolerance of fixed objects.

    References
    ----------
    As of `find`.

    Examples
    --------
    >>> import numpy as np
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> from geoalign import new_stack
    >>> rng = np.random.default_rng(0)
    >>> power = 0.01 * rng.gamma(4.4, 1 / 4.4, (16, 50, 60))
    >>> for scene in power[8:]:
    ...     scene[rng.integers(24, 27, 8), rng.integers(0, 60, 8)] = 10.0
    >>> box = GeoBox((50, 60), Affine(250, 0, 5e5, 0, -250, 4e6), "EPSG:32633")
    >>> time = np.datetime64("2024-01-01") + 12 * np.arange(16)
    >>> found = ShippingRoutes(enl=4.4).detect(new_stack({"vv": power}, time, geobox=box))
    >>> int(found.status[25, 30]), int(found.status[5, 30]), str(found.date.values[25, 30])[:10]
    (3, 0, '2024-04-06')
    """

    alpha: float = 0.01
    prior: float = 0.05
    since: str | None = None
    until: str | None = None
    cell_m: float = 500.0
    width_m: float = 1500.0
    min_length_m: float = 10_000.0
    enl: float | None = None

    kind: ClassVar[str] = "shipping_routes"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        _check_options(self.alpha, self.prior, self.cell_m, self.width_m, self.min_length_m)
        Ships(enl=self.enl)

    def detect(self, stack):
        """Changes (y, x): where a route formed, and when; lazy where the stack is."""
        stack, cells = self._asked(stack)
        bands = [stack[name].reset_coords(drop=True) for name in bands_of(stack)]
        land = [stack.land.reset_coords(drop=True).astype(bool)] if "land" in stack.coords else []
        n_cell = cells.shape[0] * cells.shape[1]
        told = derived(
            partial(told_of, cells=cells, detector=self), *self._scenes(stack, cells), size=len(TOLD) * n_cell
        )
        pixels = neighbourhood(
            painted,
            *bands,
            *land,
            depth=0,
            placed=True,
            outputs={
                **dict.fromkeys(("status", "why", "n_obs"), "uint16"),
                **dict.fromkeys(("first", "before", "by", "end", "route"), "int32"),
                **dict.fromkeys(("magnitude", "probability"), "float32"),
            },
            told=told,
            cells=cells,
            masked=bool(land),
        )
        return new_changes(
            layers_of(pixels, stack.time.values),
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            magnitude_units=UNITS,
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )

    def lines(self, stack):
        """GeoDataFrame of the routes in a stack, old ones too: the `lines` of `find`. Lazy ones are read by scene."""
        stack, cells = self._asked(stack)
        sea = sea_of([np.asarray(told) for told in self._scenes(stack, cells)], cells)
        rows = sea.routes(self.alpha, self.width_m, self.min_length_m)
        size = cells.size
        to_map = transform_of(stack) * transform_of(stack).scale(1 / size, -1 / size)
        return lines_frame(rows, sea, geobox_of(stack).crs, to_map)

    def _asked(self, stack):
        """The scenes that are asked about, and the cells over them."""
        check_stack(stack)
        bands_of(stack)
        size, box = pixel_size_m(stack), geobox_of(stack)
        if size is None or abs(abs(box.resolution.x / box.resolution.y) - 1) > 0.01:
            raise StackError(
                "shipping_routes needs square pixels of a size in metres; open the stack with a projected CRS, as the "
                "local UTM zone."
            )
        stack, _ = part(stack, None, self.until, None)
        shape = stack.sizes["y"], stack.sizes["x"]
        first = 0 if self.since is None else int((stack.time.values < moment(self.since)).sum())
        near = TOLERANCE_M / size
        if "sigma_px" in stack.coords and stack.sigma_px.dims == ("time",):
            near += 2 * float(np.nan_to_num(np.asarray(stack.sigma_px.values, float)).max())
        side = max(1, round(self.cell_m / size))
        return stack, Cells(side, size, shape, near, tuple(stack.time.values.astype("int64").tolist()), first)

    def _scenes(self, stack, cells):
        """What each scene says, as `scene_told` gives it: a list of 1-D DataArrays, lazy where the stack is."""
        bands = bands_of(stack)
        out = []
        for t, shown in enumerate(Ships(enl=self.enl).one_by_one(stack)):
            peak = stack[bands[0]].isel(time=t).reset_coords(drop=True)
            for name in bands[1:]:
                peak = np.fmax(peak, stack[name].isel(time=t).reset_coords(drop=True))
            out.append(
                whole_image(
                    block_told,
                    partial(scene_told, cells=cells),
                    shown.ship,
                    shown.contrast,
                    peak,
                    shown.code,
                    size=np.nan,
                    block=max(1, BLOCK // cells.side) * cells.side,
                    side=cells.side,
                )
            )
        return out


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
    of its ships, pass by pass, says from when to when it was used, the posterior of a rise of their rate when it
    formed.

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
    (the pass at which it likeliest formed; the series' first where it was always there), `first_after` and `first_by`
    (it formed after the one and by the other in 95 % of cases; NaT where no pass is before), `last_seen`, `ended`,
    `p_value`, `p_formed`. `changes`: 3 in cells of routes that formed, 4 where
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
    _check_options(alpha, prior, cell_m, width_m, min_length_m)
    _check(ships, passes)
    sea = Sea.of_tables(ships, passes, float(cell_m))
    rows = sea.routes(alpha, float(width_m), min_length_m)
    return Routes(lines_frame(rows, sea, passes.crs), cell_changes(rows, sea, prior, alpha, passes.crs))


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


def _check_options(alpha, prior, cell_m, width_m, min_length_m):
    check_share("alpha", alpha)
    check_share("prior", prior)
    for name, value in (("cell_m", cell_m), ("width_m", width_m), ("min_length_m", min_length_m)):
        if not value > 0:
            raise ConfigError(f"{name} is {value!r}; it is a length in m above 0.")


def _check(ships, passes):
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
