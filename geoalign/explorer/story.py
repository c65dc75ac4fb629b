"""Stories of pixels and polygons: the series, what was masked, what was expected, what changed, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geoalign.errors import StackError
from geoalign.explorer.picture import Window, bands_shown, decibel, window_for
from geoalign.explorer.site import LayerView, Site, options_of
from geoalign.types.changes import STATUS, WHY_TEXT, why_names


@dataclass(frozen=True)
class PixelStory:
    """What is known of one pixel.

    panels : name of a band or index -> DataFrame (a row a scene: time, scene, value, masked, used, model, expected),
        SAR in dB. `masked` is what a mask took out, where that is known; `model` the fit between the breaks that the
        detector found, `expected` that of before the first one carried on
    breaks : DataFrame: date, date_after, date_by, magnitude, probability
    facts : the layers at the pixel; words : the evidence in sentences
    """

    row: int
    col: int
    x: float
    y: float
    panels: dict[str, pd.DataFrame]
    breaks: pd.DataFrame
    facts: dict[str, Any]
    words: list[str]


def pixel_story(site: Site, layer: LayerView | None, row: int, col: int, *, stack: str | None = None) -> PixelStory:
    """The series of one pixel, what was masked, what was expected, what changed and how sure that is.

    Raises
    ------
    StackError
        The pixel lies outside.
    """
    view = site.stacks[stack] if stack else site.stack_of(layer)
    if not (0 <= row < view.shape[0] and 0 <= col < view.shape[1]):
        raise StackError(f"row {row}, col {col} lies outside the grid of {view.shape[0]} x {view.shape[1]} px.")
    facts = {} if layer is None else layer.pixel(row, col)
    breaks = _breaks(facts)
    follows = _follows(layer, view)
    bands = _needed(follows, view)
    used, every = view.series(bands, row, col)
    panels = {}
    for name in follows:
        values, unmasked = (_series(name, dict(zip(bands, part)), view) for part in (used, every))
        taken = np.isnan(values) & np.isfinite(unmasked)
        frame = pd.DataFrame({"time": view.time, "scene": view.scenes, "value": values,
                              "masked": np.where(taken, unmasked, np.nan), "used": np.isfinite(values)})  # fmt: skip
        frame["model"], frame["expected"] = _model(layer, name, frame, breaks, _ends(facts))
        panels[name] = frame
    x, y = view.transform * (col + 0.5, row + 0.5)
    words = pixel_words(layer, facts, breaks, next(iter(panels.items())) if panels else None)
    return PixelStory(row, col, float(x), float(y), panels, breaks, facts, words)


def _ends(facts):
    """When a change at a pixel was over."""
    return [facts["date_end"]] if "date_end" in facts and not np.isnat(facts["date_end"]) else []


_INDEX_OF = {
    "deforestation": ("nbr", "ndmi", "ndvi"), "burn": ("nbr", "ndvi"), "flood": ("mndwi", "ndwi", "nir"),
    "urbanization": ("ndvi", "ndbi", "bsi"), "change": ("ndvi",),
}  # fmt: skip


def _follows(layer, view) -> list[str]:
    """The bands and indices to show: what the detector follows first."""
    from geoalign.indices import INDICES

    if view.sar:
        order = {"deforestation": ("vh", "hv"), "change": ("vh", "hv")}.get(layer.kind if layer else "", ())
        return sorted(view.bands, key=lambda band: band not in order)[:2]
    index = options_of(layer.detector).get("index") if layer else None
    wanted = [index] if index else [*_INDEX_OF.get(layer.kind if layer else "", ()), "ndvi"]
    possible = [n for n in wanted if n in view.bands or (n in INDICES and set(INDICES[n].bands) <= set(view.bands))]
    rest = [n for n in ("nir", "swir1", "red") if n in view.bands]
    return list(dict.fromkeys([*possible[:2], *(rest[:1] if possible else []), *([] if possible else view.bands)]))[:3]


def _needed(follows, view):
    from geoalign.indices import INDICES

    out = []
    for name in follows:
        out += [name] if name in view.bands else INDICES[name].bands
    return list(dict.fromkeys(out))


def _series(name, values, view):
    from geoalign.indices import INDICES

    if name in values:
        return decibel(values[name]) if view.sar else values[name]
    return np.asarray(INDICES[name].function(*(values[band] for band in INDICES[name].bands)), np.float32)


def _breaks(facts) -> pd.DataFrame:
    """Every break at a pixel: the strongest change's, and the others where the detector tells them."""
    rows = []
    if facts and 1 <= int(facts["status"]) <= 4 and not np.isnat(facts["date"]):
        rows.append({name: facts[name] for name in ("date", "date_after", "date_by", "magnitude", "probability")})
    dates = np.atleast_1d(facts.get("break_date", ()))
    nothing, never = np.full(dates.size, np.nan), np.full(dates.size, np.datetime64("NaT", "ns"))
    others = (facts.get("break_after", never), facts.get("break_by", never), facts.get("break_magnitude", nothing),
              facts.get("break_probability", nothing))  # fmt: skip
    for date, after, by, size, p in zip(dates, *others):
        if not np.isnat(date) and not any(r["date"] == date for r in rows):
            rows.append({"date": date, "date_after": after, "date_by": by, "magnitude": size, "probability": p})
    columns = ["date", "date_after", "date_by", "magnitude", "probability"]
    frame = pd.DataFrame(rows, columns=columns).sort_values("date", ignore_index=True)
    for name in columns[:3]:
        frame[name] = pd.to_datetime(frame[name])
    return frame


def _model(layer, name, frame, breaks, ends=()):
    """The model between the breaks that the detector found, and what was to be expected had nothing changed.

    ends : times at which a change was over, further breaks
    Returns two arrays along time: the fit of each stretch, and that of the first stretch carried on past its break
    (NaN before). NaN where the detector tells nothing, or too little was seen.
    """
    time, y = frame["time"].to_numpy(), frame["value"].to_numpy(float)
    model, expected = np.full(time.size, np.nan), np.full(time.size, np.nan)
    if layer is None:
        return model, expected
    cuts = np.unique(np.array([*breaks["date"].to_numpy(), *ends], "datetime64[ns]"))
    stretch = np.searchsorted(cuts[~np.isnat(cuts)], time, side="right")
    order = options_of(layer.detector).get("order")
    if order is None:
        order = None if name in ("vv", "vh", "hh", "hv") else 2
    for k in range(stretch.max() + 1):
        inside = stretch == k
        use = inside & np.isfinite(y)
        if use.sum() < (3 if k == 0 else 1):
            continue
        line = _fit(time, y, use, order)
        model[inside] = line[inside]
        if k == 0:
            expected[~inside] = line[~inside]
    return model, expected


def _fit(time, y, use, order):
    """A season and trend through the values that are used, at all times.

    The robust regression of the harmonic detectors, with their choice of order; the median where less than 0.8 of a
    year was seen, which no season can be told from, and for backscatter unless its detector was given an order.
    """
    from geoalign.kernels.harmonic import choose_order, predict, regressors, robust_fit

    n = int(use.sum())
    years = (time - np.datetime64("2000-01-01", "ns")) / np.timedelta64(1, "D") / 365.25
    p = 0 if order is None or n < 3 or np.ptp(years[use]) < 0.8 else choose_order(n, int(order))
    if p:
        x = regressors(years - np.floor(years[0]), int(order))
        keep, inverse, beta = np.empty(n), np.zeros((p, p)), np.zeros(p)
        if robust_fit(np.ascontiguousarray(x[use]), y[use], n, p, 1e-3, keep, inverse, beta) >= 0:
            return np.array([predict(row, beta, p) for row in x])
    return np.full(time.size, np.median(y[use]))


def pixel_words(layer, facts, breaks, panel=None) -> list[str]:
    """The evidence at a pixel in plain sentences."""
    if layer is None:
        return ["No layer of changes is shown: this is the series as it was observed."]
    if int(facts["status"]) == 255:
        reasons = ", ".join(WHY_TEXT[n] for n in why_names(facts["why"])) or "no reason given"
        return [f"Not observable: {reasons}.", "That is not the same as no change: nothing can be said here."]
    words, n = [], int(facts["n_obs"])
    p, prior = float(facts["probability"]), layer.prior
    weigh = (
        f"The probability that it changed is {p:.2f}" if p >= 0.005 else "The probability that it changed is below 1 %"
    )
    weigh += f", where {100 * prior:g} % of all pixels are expected to." if np.isfinite(prior) else "."
    if breaks.empty:
        words.append(f"No {layer.kind} was found here, in {n} usable observations.")
    else:
        strongest = breaks.loc[breaks["magnitude"].abs().fillna(0).idxmax()] if len(breaks) else None
        status = STATUS[int(facts["status"])].replace("_", " ")
        words.append(f"{layer.kind.capitalize()}, {status}: first seen on {_day(facts['date'])}.")
        after, by = facts["date_after"], facts["date_by"]
        if not np.isnat(after) and not np.isnat(by):
            gap = (by - after) / np.timedelta64(1, "D")
            words.append(f"It came after {_day(after)} and by {_day(by)}, {gap:.0f} days apart.")
        if panel is not None:
            words += _before_after(panel, strongest["date"])
        if "date_end" in facts and not np.isnat(facts["date_end"]):
            words.append(f"It had ended by {_day(facts['date_end'])}.")
        if len(breaks) > 1:
            words += _every_break(breaks)
        words.append(f"{n} observations could be used.")
    words.append(weigh)
    doubts = [WHY_TEXT[name] for name in why_names(facts["why"])]
    if doubts:
        words.append(f"Doubtful because: {', '.join(doubts)}.")
    return words


def _every_break(breaks):
    """One sentence of all breaks: when each came, between which days, how large and how sure."""
    told = []
    for row in breaks.itertuples():
        between = "" if pd.isna(row.date_after) or pd.isna(row.date_by) else (
            f" (after {_day(row.date_after)}, by {_day(row.date_by)})")  # fmt: skip
        size = "" if pd.isna(row.magnitude) else f", {row.magnitude:+.2f}"
        sure = "" if pd.isna(row.probability) else f", p {row.probability:.2f}"
        told.append(f"{_day(row.date)}{between}{size}{sure}")
    return [f"{len(breaks)} breaks in the series: {'; '.join(told)}. The surest is told of above."]


def _before_after(panel, date):
    name, frame = panel
    old, new = (frame.loc[frame["used"] & when, "value"] for when in (frame["time"] < date, frame["time"] >= date))
    if not len(old) or not len(new):
        return []
    unit = " dB" if name in ("vv", "vh", "hh", "hv") else ""
    a, b = float(old.median()), float(new.iloc[:3].median())
    return [f"{name.upper()} went from {a:.2f}{unit} (median of {len(old)} observations before) to {b:.2f}{unit}."]


def _day(stamp) -> str:
    return str(np.datetime64(stamp, "D"))


@dataclass(frozen=True)
class PolygonStory:
    """What is known of one patch: its row, the scenes that show it before and after, and the words."""

    row: dict[str, Any]
    before: int | None
    after: int | None
    window: Window
    words: list[str]


def polygon_story(site: Site, layer: LayerView, index: int) -> PolygonStory:
    """Dates, area and probability of a polygon, and its clearest scenes before and after. index : row of the frame"""
    frame = layer.polygons
    record = frame.drop(columns=frame.geometry.name).iloc[index].to_dict()
    view = site.stack_of(layer)
    window = _around(frame.geometry.iloc[index].bounds, view)
    before, after = _clearest(view, window, record)
    words = [f"{str(record['change_type']).capitalize()}, {str(record['status']).replace('_', ' ')}, of "
             f"{record['area_ha']:.2f} ha ({int(record['n_pixels'])} pixels)."]  # fmt: skip
    if np.isnan(record["area_ha"]):
        words = [f"{str(record['change_type']).capitalize()} of {int(record['n_pixels'])} pixels."]
    first, start, last = (_text(record[name]) for name in ("first_date", "start_date", "last_date"))
    words.append(f"First seen on {start} (median of its pixels; {first} to {last})." if first != last
                 else f"First seen on {start}, in all its pixels.")  # fmt: skip
    words.append(f"It came after {_text(record['date_after'])} and by {_text(record['date_by'])}.")
    if not pd.isna(record["end_date"]):
        words.append(f"It had ended by {_text(record['end_date'])}.")
    words.append(f"Mean probability {record['probability']:.2f}, mean magnitude {record['magnitude']:+.2f}.")
    return PolygonStory(record, before, after, window, words)


def polygon_at(layer: LayerView, x: float, y: float) -> int | None:
    """Position of the polygon that holds a point, None where none does."""
    import shapely

    if layer is None or layer.polygons is None or not len(layer.polygons):
        return None
    hits = layer.polygons.sindex.query(shapely.Point(x, y), predicate="intersects")
    return int(hits[0]) if len(hits) else None


def _around(bounds, view):
    inverse = ~view.transform
    corners = [inverse * (x, y) for x in (bounds[0], bounds[2]) for y in (bounds[1], bounds[3])]
    cols, rows = zip(*corners)
    pad = 0.35 * max(max(rows) - min(rows), max(cols) - min(cols)) + 6
    return window_for(view.shape, (min(rows) - pad, max(rows) + pad), (min(cols) - pad, max(cols) + pad), side=240)


def _clearest(view, window, record):
    """The clearest of the few scenes next to the change on either side, seen in the patch's own window."""
    names = bands_shown(view)[:1]
    after, start = record.get("date_after"), record["start_date"]
    time = pd.DatetimeIndex(view.time)
    day = time.normalize()
    usable = np.array([scene not in view.rejected for scene in view.scenes])
    limit = pd.Timestamp(after) if not pd.isna(after) else pd.Timestamp(start) - pd.Timedelta(days=1)
    # a date_after of the whole patch is the earliest of its pixels'
    old = np.flatnonzero(usable & (day <= limit))[::-1][:4]
    new = np.flatnonzero(usable & (day >= pd.Timestamp(record.get("last_date") or start)))[:4]
    out = []
    for numbers in (old, new):
        seen = [np.isfinite(view.window(int(k), names, *window.args)).mean() for k in numbers]
        best = next((i for i, share in enumerate(seen) if share > 0.95), int(np.argmax(seen)) if seen else None)
        out.append(None if best is None else int(numbers[best]))
    return out


def _text(stamp):
    return "unknown" if pd.isna(stamp) else str(pd.Timestamp(stamp).date())
