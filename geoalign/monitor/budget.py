"""False alarms against their budget: thresholds from stable ground before, a control chart of what comes after."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from geoalign.accuracy.alarms import MONTH_DAYS
from geoalign.errors import ConfigError, StackError

RISE = 2.0
"""The chart is built to notice a rate of so many times the accepted one soonest."""
FEWEST = 3
"""Alarms it takes at the least before the chart says anything."""
GAP = 2.5
"""What lies further back than so many usual intervals was not watched."""
ALPHAS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
CERTAIN = 1e-9
"""Alpha at which what is still found on stable ground is taken for a real change."""


# ------------------------------------------------------------------------------------------- before: which threshold


def threshold(history, detector, budget, *, min_area_m2: float = 0.0, n_strata: int = 3, side: int = 256) -> dict:
    """The alpha of a detector that keeps a budget of false alarms, found on the ground's own history.

    The last two fifths of the history are watched as if they were new, at several alphas. Patches that are still there
    at `CERTAIN` are real changes and left out; the others are false alarms. For each stratum of noise the largest
    alpha is taken whose rate, at the upper end of its 95 % interval, keeps the budget; below what so short a history
    can show, the chance goes with alpha (which is how `watch` is built). The strata together give one alpha.

    Parameters
    ----------
    history : Stack (time, y, x), aligned; nothing much should have happened in it
    detector : one that watches, with a field `alpha`, as `Watch`
    budget : `config.Budget`
    min_area_m2 : smaller patches are no alarms
    n_strata : strata, of equal area, by the noise of the ground
    side : px; of larger grids up to nine blocks of this side are looked at

    Returns
    -------
    dict: alpha; exposure (1000 km2 months looked at); proven (False where it rests on the proportion alone); strata, a
    row each with noise (upper end), share, alpha, alarms and exposure

    Raises
    ------
    StackError : a history too short, or a grid without metres
    """
    from geoalign.types.stack import pixel_size_m

    if not hasattr(detector, "alpha"):
        raise ConfigError(f"{detector!r} has no alpha, so no budget can choose it; set its threshold yourself.")
    times = history.time.values
    first = max(16, int(np.ceil(times.size * 0.6)))
    if times.size - first < 5:
        raise StackError(
            f"a history of {times.size} scenes is too short to derive alpha from: 21 or more are needed. Give alpha."
        )
    pixel_m = pixel_size_m(history)
    if pixel_m is None:
        raise StackError("the grid has no metres, so there is no budget by area. Give alpha.")
    since = str(times[first] - np.timedelta64(1, "s"))
    months = float((times[-1] - times[first - 1]) / np.timedelta64(1, "D")) / MONTH_DAYS
    least = max(1, int(np.ceil(min_area_m2 / pixel_m**2)))
    noise, counts = [], []
    for block in _blocks(history, side):
        found, level = _trial(block, detector, since, least)
        noise.append(level)
        counts.append(found)
    everything = np.concatenate(noise)
    edges = np.nanquantile(everything, np.linspace(0, 1, n_strata + 1)[1:-1]) if everything.size else []
    alarms = np.zeros((n_strata, len(ALPHAS)))
    for found in counts:
        for k, levels in enumerate(found):
            np.add.at(alarms[:, k], np.searchsorted(edges, levels, side="right"), 1)
    pixels = np.bincount(np.searchsorted(edges, everything, side="right"), minlength=n_strata)
    exposure = pixels * pixel_m**2 / 1e9 * months
    rows = [_stratum(alarms[s], exposure[s], budget) for s in range(n_strata)]
    upper = [*map(float, edges), None]
    share = pixels / max(pixels.sum(), 1)
    usable = [(w, row["alpha"]) for w, row in zip(share, rows) if w > 0]
    alpha = 1.0 / sum(w / a for w, a in usable) if usable else ALPHAS[-1]
    strata = [{"noise": u, "share": float(w)} | row for u, w, row in zip(upper, share, rows)]
    return {
        "alpha": float(min(alpha, ALPHAS[0])),
        "exposure": float(exposure.sum()),
        "proven": all(row["proven"] for row in rows),
        "strata": strata,
    }


def _stratum(alarms, exposure, budget) -> dict[str, Any]:
    from scipy.stats import chi2

    upper = chi2.ppf(0.95, 2 * alarms + 2) / 2 / max(exposure, 1e-12)
    kept = np.array(ALPHAS) * np.minimum(1.0, budget.alarms_per_1000km2_month / upper)
    best = int(np.argmax(kept))
    return {
        "alpha": float(kept[best]), "alarms": int(alarms[best]), "exposure": float(exposure),
        "proven": bool(upper[best] <= budget.alarms_per_1000km2_month),
    }  # fmt: skip


def _trial(block, detector, since, least):
    """Noise of the patches flagged falsely at each alpha (list of arrays), and noise of all observable ground."""
    from scipy import ndimage

    from geoalign.types.changes import NOT_OBSERVABLE, changed

    around = np.ones((3, 3))
    sure = replace(detector, alpha=CERTAIN, since=since, until=None, history=None).detect(block).compute()
    real, seen = changed(sure).values, sure.status.values != NOT_OBSERVABLE
    level = sure["noise"].values if "noise" in sure else block.to_array().std(("time", "variable")).values
    found = []
    for alpha in ALPHAS:
        hit = changed(replace(detector, alpha=alpha, since=since, until=None, history=None).detect(block)).values
        patches, n = ndimage.label(hit, around)
        numbers = np.arange(1, n + 1)
        if n:
            sizes = ndimage.sum_labels(hit, patches, numbers)
            touched = ndimage.maximum(real, patches, numbers)
            numbers = numbers[(sizes >= least) & (np.asarray(touched) == 0)]
        found.append(np.array([np.nanmedian(level[patches == k]) for k in numbers], float))
    return found, level[seen & ~real]


def _blocks(stack, side):
    height, width = stack.sizes["y"], stack.sizes["x"]
    if height * width <= 4 * side * side:
        yield stack.load()
        return
    for row in np.unique(np.linspace(0, max(height - side, 0), 3).astype(int)):
        for col in np.unique(np.linspace(0, max(width - side, 0), 3).astype(int)):
            yield stack.isel(y=slice(row, row + side), x=slice(col, col + side)).load()


def thresholds(config, stack: str, frame, history, root, detector_of) -> tuple[dict[str, Any], dict[str, str]]:
    """`threshold` for the themes of a stack that leave alpha to the budget, from the frozen baseline alone.

    Parameters
    ----------
    frame, history : the stack's `Frame`, and its baseline as `evidence.Scene`
    root : folder of the monitoring
    detector_of : callable(config, theme) -> detector

    Returns
    -------
    theme -> what `threshold` found; theme -> why none could be found
    """
    from geoalign.monitor.evidence import lazy_values, stack_of
    from geoalign.types.stack import grid_coords

    found: dict[str, Any] = {}
    left: dict[str, str] = {}
    for name, item in config.layers.items() if config.monitor.budget is not None else ():
        if config.stack_of(item) != stack or "alpha" in item.options:
            continue
        detector = detector_of(config, name)
        if not hasattr(detector, "alpha"):
            continue
        order = sorted(history, key=lambda s: s.time)
        coords = grid_coords(frame.geobox, frame.shape)
        series = stack_of([lazy_values(root, s, frame) for s in order], order, frame, coords=coords)
        least = float(getattr(detector, "min_area_m2", 0.0) or config.vectors.min_area_m2)
        try:
            found[name] = threshold(series, detector, config.monitor.budget, min_area_m2=least)
        except StackError as err:
            left[name] = str(err)
    return found, left


# ---------------------------------------------------------------------------------------------- after: what has come


def assess(alerts, site, watched) -> dict[str, Any]:
    """The realised rate of confirmed alarms against the budget, theme by theme, on a Poisson CUSUM chart.

    Parameters
    ----------
    alerts : list of Alert, those that stand and those withdrawn
    site : `visit.Site`
    watched : dict theme -> list of (time, share of the grid observed), a row a scene

    Returns
    -------
    dict: status "ok", "alarm" or "off" (no budget in the site file); reason; themes, each with alarms, exposure
    (1000 km2 months), rate with its exact 95 % interval `low` and `high`, budget, limit and the chart

    Notes
    -----
    S grows by the confirmed alarms of each scene less k times its exposure, never below 0 nor above twice the limit;
    k = (r1 - r0) / ln(r1 / r0) with r0 the accepted rate (budget and what is usual) and r1 twice that (Lucas 1985,
    doi:10.1080/00401706.1985.10488030). The limit makes a site that keeps its budget wait `false_per_years` on average
    for a wrong alarm of the chart (Brook and Evans 1972, doi:10.1093/biomet/59.3.539), and is at least `FEWEST`
    alarms. It holds for alarms that come alone: a flood of many patches is an alarm of the chart too, and its
    reason says so.
    """
    budget = site.config.monitor.budget
    if budget is None:
        return {"status": "off", "reason": "the site file has no [monitor.budget]", "themes": {}}
    area = _area_km2(site.geobox)
    if area is None:
        return {"status": "off", "reason": "the grid has no metres, so there is no rate by area", "themes": {}}
    themes = {name: _chart(name, alerts, rows, area, budget) for name, rows in watched.items()}
    over = [name for name, chart in themes.items() if chart["status"] == "alarm"]
    reason = ""
    if over:
        worst = max(over, key=lambda n: themes[n]["rate"] or 0.0)
        chart = themes[worst]
        reason = (
            f"{worst}: {chart['recent_alarms']} alarms confirmed since {chart['since'][:10]}, where "
            f"{chart['recent_expected']:.1f} are accepted: either much has really happened, or the thresholds no "
            "longer hold here (misregistration, a cloud mask, a changed product)"
        )
    return {"status": "alarm" if over else "ok", "reason": reason, "themes": themes}


def _chart(theme, alerts, rows, area, budget) -> dict[str, Any]:
    from scipy.stats import chi2

    rows = sorted((pd.Timestamp(t), float(share)) for t, share in rows)
    accepted = budget.alarms_per_1000km2_month + budget.expected_per_1000km2_month
    times = np.array([t for t, _ in rows], "datetime64[s]")
    steps = np.diff(times) / np.timedelta64(1, "D")
    usual = float(np.median(steps)) if steps.size else 0.0
    days = np.minimum(np.concatenate([[usual], steps]), GAP * usual)[: len(rows)]
    exposure = area / 1000 * np.array([share for _, share in rows]) * days / MONTH_DAYS
    counts = np.zeros(len(rows), int)
    for alert in alerts:
        if alert.theme == theme and alert.date_confirmed and len(rows):
            at = np.searchsorted(times.astype("datetime64[D]"), np.datetime64(alert.date_confirmed, "D"))
            counts[min(int(at), len(rows) - 1)] += 1
    total, n = float(exposure.sum()), int(counts.sum())
    pace = (RISE - 1) * accepted / np.log(RISE)
    monthly = total / max(float(days.sum()) / MONTH_DAYS, 1e-9) if len(rows) else 0.0
    height = limit(accepted * monthly, budget.false_per_years * 12) if monthly > 0 else float(FEWEST)
    level, start, chart = 0.0, 0, []
    for k in range(len(rows)):
        raised = level + counts[k] - pace * exposure[k]
        if level <= 0:
            start = k
        level = min(max(raised, 0.0), 2 * height)
        chart.append((f"{rows[k][0]:%Y-%m-%dT%H:%M:%S}", round(level, 4), int(counts[k])))
    return {
        "status": "alarm" if level >= height else "ok",
        "since": f"{rows[start][0]:%Y-%m-%dT%H:%M:%S}" if rows else "",
        "recent_alarms": int(counts[start:].sum()),
        "recent_expected": float(accepted * exposure[start:].sum()),
        "alarms": n,
        "exposure": total,
        "rate": n / total if total > 0 else None,
        "low": float(chi2.ppf(0.025, 2 * n) / 2 / total) if n and total > 0 else 0.0,
        "high": float(chi2.ppf(0.975, 2 * n + 2) / 2 / total) if total > 0 else None,
        "accepted": accepted,
        "limit": height,
        "chart": [{"time": t, "level": v, "alarms": c} for t, v, c in chart[-200:]],
    }


@lru_cache(maxsize=256)
def limit(mean: float, months: float) -> float:
    """Height of the chart that a site within its budget passes every so many months on average.

    mean : accepted alarms a month; months : mean time between wrong alarms of the chart

    Examples
    --------
    >>> limit(1.0, 120.0) < limit(1.0, 1200.0)
    True
    """
    low, high = float(FEWEST) - 0.5, float(FEWEST) - 0.5
    while run_length(mean, high) < months:
        low, high = high, high * 1.5 + 1
    for _ in range(24):
        if high - low < 0.02:
            break
        middle = (low + high) / 2
        low, high = (middle, high) if run_length(mean, middle) < months else (low, middle)
    return high


def run_length(mean: float, height: float, rise: float = RISE) -> float:
    """Mean number of months until a Poisson CUSUM with this mean a month passes `height`, from 0 (Brook and Evans)."""
    from scipy.stats import poisson

    pace = (rise - 1) * mean / np.log(rise)
    n = int(np.clip(40 * height, 120, 600))
    width = height / n
    middles = np.concatenate([[0.0], (np.arange(n) + 0.5) * width])
    # the chance to lie at or below the upper edge of each state after a month
    edges = np.concatenate([[0.0], (np.arange(n) + 1.0) * width])
    reached = poisson.cdf(np.floor(edges[None, :] - middles[:, None] + pace + 1e-9), mean)
    moves = np.diff(reached, axis=1, prepend=0.0)
    moves = np.clip(moves, 0.0, None)
    return float(np.linalg.solve(np.eye(n + 1) - moves, np.ones(n + 1))[0])


def _area_km2(geobox) -> float | None:
    if geobox.crs is None or not geobox.crs.projected:
        return None
    res = geobox.resolution
    return abs(res.x * res.y) * geobox.shape[0] * geobox.shape[1] / 1e6
