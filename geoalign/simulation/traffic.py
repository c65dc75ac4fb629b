"""Ships on known routes, seen by passes of uneven coverage: points whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

KNOT_M_S = 1852 / 3600


@dataclass(frozen=True)
class Route:
    """A route that ships follow.

    line : ((x, y), ...) m; ships_a_day : that enter it; width_m : within which three quarters of the ships keep
    (2.355 standard deviations); since, until : days since the start, when it is used; speed_kn
    """

    line: tuple[tuple[float, float], ...]
    ships_a_day: float = 12.0
    width_m: float = 1500.0
    since: float = -np.inf
    until: float = np.inf
    speed_kn: float = 12.0


@dataclass(frozen=True)
class Sea:
    """What a simulation of traffic assumes.

    size_m : (width, height); routes; years; start
    tracks : (first, last, repeat_days, since, until) of each orbit track: it sees x from first to last, shares of the
        width, every repeat_days from day `since` to day `until`, with a random start
    missed : share of passes that are not acquired; found : share of ships that are found
    background_100km2 : ships off any route, and false alarms, in 100 km2 of a pass
    grounds : (x, y, radius_m, ships) of fishing grounds: so many more ships a pass, normally spread about a point
    """

    size_m: tuple[float, float] = (60_000.0, 60_000.0)
    routes: tuple[Route, ...] = ()
    years: float = 5.0
    start: str = "2019-01-01"
    tracks: tuple[tuple[float, float, float, float, float], ...] = (
        (0.0, 0.7, 12.0, 0.0, 4000.0),
        (0.45, 1.0, 12.0, 0.0, 4000.0),
        (0.0, 1.0, 12.0, 900.0, 4000.0),
    )
    missed: float = 0.15
    found: float = 0.85
    background_100km2: float = 0.15
    grounds: tuple[tuple[float, float, float, float], ...] = field(default=())


def simulate_traffic(sea: Sea, *, crs="EPSG:32633", seed=0):
    """Detections and passes as `shipping_routes` takes them.

    Returns two GeoDataFrames: ships (`time`, points) and passes (`time`, footprints). Ships on a route are Poisson in
    number, even along it and normal across it; each pass is one moment.

    Examples
    --------
    >>> lane = Route(line=((0, 2e4), (6e4, 4e4)), since=900)
    >>> ships, passes = simulate_traffic(Sea(routes=(lane,)), seed=1)
    >>> len(passes) > 300, len(ships) > len(passes)
    (True, True)
    """
    import geopandas as gpd
    from shapely.geometry import box

    rng = np.random.default_rng(seed)
    width, height = sea.size_m
    days, first, last = [], [], []
    for a, b, repeat, since, until in sea.tracks:
        own = np.arange(max(since, 0) + rng.uniform(0, repeat), min(until, 365.25 * sea.years), repeat)
        own = own[rng.random(own.size) >= sea.missed]
        days.append(own)
        first.append(np.full(own.size, a))
        last.append(np.full(own.size, b))
    days, first, last = (np.concatenate(part) for part in (days, first, last))
    order = np.argsort(days)
    days, first, last = days[order], first[order] * width, last[order] * width
    when, xs, ys = [], [], []
    for k, day in enumerate(days):
        parts = [_on_route(route, day, rng) for route in sea.routes if route.since <= day < route.until]
        n = rng.poisson(sea.background_100km2 * width * height / 1e8)
        parts.append(np.column_stack([rng.uniform(0, width, n), rng.uniform(0, height, n)]))
        for x, y, radius, ships in sea.grounds:
            parts.append(rng.normal((x, y), radius, (rng.poisson(ships), 2)))
        x, y = np.concatenate(parts).T
        keep = (x >= first[k]) & (x < last[k]) & (y >= 0) & (y < height) & (rng.random(x.size) < sea.found)
        when.append(np.full(keep.sum(), k))
        xs.append(x[keep])
        ys.append(y[keep])
    when, xs, ys = (np.concatenate(part) for part in (when, xs, ys))
    moments = pd.Timestamp(sea.start).to_datetime64().astype("datetime64[s]") + (days * 86400).astype("timedelta64[s]")
    moments = moments.astype("datetime64[ns]")
    ships = gpd.GeoDataFrame({"time": moments[when]}, geometry=gpd.points_from_xy(xs, ys), crs=crs)
    footprints = [box(a, 0, b, height) for a, b in zip(first, last)]
    return ships, gpd.GeoDataFrame({"time": moments}, geometry=footprints, crs=crs)


def _on_route(route, day, rng):
    line = np.asarray(route.line, float)
    step = np.diff(line, axis=0)
    length = np.hypot(*step.T)
    along = np.append(0, np.cumsum(length))
    n = rng.poisson(route.ships_a_day / 86400 * along[-1] / (route.speed_kn * KNOT_M_S))
    at = rng.uniform(0, along[-1], n)
    leg = np.clip(np.searchsorted(along, at, side="right") - 1, 0, length.size - 1)
    unit = step[leg] / length[leg, None]
    across = rng.normal(0, route.width_m / 2.355, n)
    return line[leg] + unit * (at - along[leg])[:, None] + across[:, None] * np.column_stack([-unit[:, 1], unit[:, 0]])
