"""Years of a simulated site in minutes: its files arrive as they would have, a visit after each batch; then the score.

The truth is looked at only when all is over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from geoalign.accuracy.alarms import MONTH_DAYS
from geoalign.errors import StateError
from geoalign.monitor.alerts import CONFIRMED, ENDED, Alert
from geoalign.monitor.ledger import Ledger
from geoalign.simulation import MonitoredSite

NEAR_PX = 2
"""A pixel so close to planted change is neither a hit nor a false alarm: mixed pixels, and what alignment leaves."""
SHARE = 0.1
"""An event is found when confirmed alerts cover at least this share of it."""


@dataclass(frozen=True)
class Score:
    """What a replay came to.

    events : a row for each planted event: kind, n_pixels, date, first and confirmed (when it was published), date_error
    (days), found (share of its pixels in confirmed alerts), seen (whether any scene showed it while it lasted);
    false : confirmed alerts that touch no planted change; months, km2 : what was watched; other fields count alerts
    """

    events: list[dict[str, Any]]
    false: int
    false_pixels: int
    months: float
    km2: float
    alerts: dict[str, int] = field(default_factory=dict)
    retracted: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """False confirmed alarms per 1000 km2 and month."""
        return self.false / (self.km2 / 1000 * self.months)

    @property
    def high(self) -> float:
        """Upper end of the exact 95 % interval of `rate`."""
        from scipy.stats import chi2

        return float(chi2.ppf(0.975, 2 * self.false + 2) / 2 / (self.km2 / 1000 * self.months))

    def delays(self, what: str = "confirmed") -> np.ndarray:
        """Days from each event to its `first` or `confirmed` notice, inf where there was none."""
        stamps = [(e[what], e["date"]) for e in self.events]
        return np.array([np.inf if s is None else (s - d) / pd.Timedelta(days=1) for s, d in stamps])


def replay(
    monitor,
    made: MonitoredSite | None = None,
    *,
    days: int = 1,
    hours: float = 1.0,
    idle_days: int | None = None,
) -> Iterator:
    """Deliver the files of a simulated site as they arrive, with a visit after each batch; yields the visits.

    Parameters
    ----------
    monitor : Monitor of the site
    made : the simulated site; by default the folder of the site file
    days : batches are at least so many days apart
    hours : from the last arrival of a batch to its visit
    idle_days : where nothing arrives, a visit every so many days all the same, as a timer would; None: none
    """
    made = MonitoredSite.load(monitor.config.folder) if made is None else made
    last = None
    for when, batch in made.batches(days=days):
        while last is not None and idle_days is not None and when - last > pd.Timedelta(days=idle_days):
            last += pd.Timedelta(days=idle_days)
            yield monitor.visit(now=last.timestamp())
        made.deliver(batch)
        last = when + pd.Timedelta(hours=hours)
        yield monitor.visit(now=last.timestamp())


def judge(monitor, made: MonitoredSite | None = None) -> Score:
    """What a replay found, held against what was planted: delays, false alarms, retractions.

    Raises
    ------
    StateError : nothing was published yet
    """
    made = MonitoredSite.load(monitor.config.folder) if made is None else made
    truth = made.truth
    with Ledger(monitor.folder / "ledger.sqlite", readonly=True) as ledger:
        rows = ledger.rows("SELECT record, at, status FROM revisions ORDER BY visit, alert, revision")
        visits = ledger.rows("SELECT started FROM visits WHERE status = 'done' ORDER BY id")
        scenes = ledger.rows("SELECT time FROM evidence WHERE status = 'valid' AND history = 0 ORDER BY time")
    if not visits:
        raise StateError(f"{monitor.folder} has published nothing yet; replay the site first.")
    labels, events = _planted(truth, monitor.config)
    near = _widened(labels > 0)
    told = [(Alert.of(json.loads(r["record"])), _moment(r["at"]), r["status"]) for r in rows]
    latest = {alert.id: alert for alert, _, _ in told}
    ever = {alert.id for alert, _, status in told if status in (CONFIRMED, ENDED)}
    table = []
    for number, event in enumerate(events, start=1):
        place = labels == number
        table.append(_of_event(event, place, told, latest, scenes))
    false = [latest[k] for k in sorted(ever) if not _pixels(latest[k], near.shape)[near].any()]
    gone = [alert for alert in latest.values() if alert.status == "retracted"]
    since = pd.Timestamp(monitor.config.monitor.since)
    res = abs(truth.geobox.resolution.x)
    counts = pd.Series([a.status for a in latest.values()], dtype=object).value_counts()
    return Score(
        table, len(false), sum(a.n_pixels for a in false),
        float((_moment(visits[-1]["started"]) - since) / pd.Timedelta(days=1)) / MONTH_DAYS,
        truth.geobox.shape[0] * truth.geobox.shape[1] * res * res / 1e6,
        {str(k): int(v) for k, v in counts.items()},
        {"after_confirmed": sum(a.id in ever for a in gone), "before": sum(a.id not in ever for a in gone)},
    )  # fmt: skip


def _planted(truth, config):
    """Number of the event at each pixel, in the frame of the reference scene; and the events."""
    register = config.register_of(next(iter(config.sources)))
    reference = "" if register is None else register.reference
    frame = reference if reference in truth.warps else next(iter(truth.references.values()))
    dates = truth.on(frame)
    labels = np.zeros(truth.geobox.shape, int)
    events = list(truth.events.itertuples())
    for number, event in enumerate(events, start=1):
        from rasterio.features import rasterize

        moved = rasterize([event.geometry], labels.shape, transform=truth.geobox.affine)
        shows = dates[event.kind].values == np.datetime64(event.date, "ns")
        labels[shows & (moved > 0)] = number
    return labels, events


def _of_event(event, place, told, latest, scenes):
    first = confirmed = None
    for alert, when, status in told:
        if not _pixels(alert, place.shape)[place].any():
            continue
        if np.datetime64(alert.date_by or alert.date) < np.datetime64(event.date, "D"):
            continue  # an alarm that was there before
        first = when if first is None else first
        if confirmed is None and status in (CONFIRMED, ENDED):
            confirmed = when
    found, error = np.zeros(place.shape, bool), None
    for alert in latest.values():
        if alert.status in (CONFIRMED, ENDED):
            own = _pixels(alert, place.shape)
            if own[place].any() and np.datetime64(alert.date) >= np.datetime64(event.date, "D") - 40:
                days = int((np.datetime64(alert.date) - np.datetime64(event.date, "D")).astype(int))
                error = days if error is None or abs(days) < abs(error) else error
                found |= own
    share = float(found[place].mean()) if place.any() else 0.0
    until = event.end if not pd.isna(event.end) else pd.Timestamp.max
    return {
        "kind": event.kind, "n_pixels": int(place.sum()), "date": event.date, "first": first,
        "confirmed": confirmed if share >= SHARE else None, "found": share, "date_error": error,
        "seen": sum(event.date <= pd.Timestamp(s["time"]) < until for s in scenes),
    }  # fmt: skip


def _pixels(alert, shape):
    out = np.zeros(shape, bool)
    for row, start, stop in alert.runs:
        out[row, start:stop] = True
    return out


def _widened(mask):
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask, iterations=NEAR_PX)


def _moment(text):
    return pd.Timestamp(text).tz_convert("UTC").tz_localize(None)
