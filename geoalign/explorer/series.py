"""The explorer's series: the panels of one pixel, with what was masked, what was expected, and the breaks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, HoverTool, Range1d, Span
from bokeh.plotting import figure

from geoalign.plot import BLUE, GREY, ORANGE, RED

PANELS = 3


class Series:
    """Up to three panels over one axis of time, filled anew for every pixel."""

    def __init__(self, frame=500):
        self.figures, self.sources, self.spans = [], [], []
        self.range = Range1d(0, 1)
        for _ in range(PANELS):
            plot = figure(
                frame_width=frame, frame_height=130, x_axis_type="datetime", tools="xpan,xwheel_zoom,reset",
                toolbar_location=None, x_range=self.range, y_range=Range1d(0, 1),
            )  # fmt: skip
            data = {name: ColumnDataSource(empty()) for name in ("used", "masked", "lost", "model", "rest", "breaks")}
            plot.vstrip(x0="date_after", x1="date_by", source=data["breaks"], fill_color=ORANGE, fill_alpha=0.3,
                        line_alpha=0)  # fmt: skip
            plot.vspan(x="date", source=data["breaks"], line_color=RED, line_width=2)
            plot.line("time", "value", source=data["model"], line_color=GREY, line_width=1.8)
            plot.line("time", "value", source=data["rest"], line_color=GREY, line_width=1.8, line_dash="dashed")
            plot.line("time", "value", source=data["used"], line_color=BLUE, line_width=0.8, line_alpha=0.6)
            used = plot.scatter("time", "value", source=data["used"], size=6, color=BLUE)
            masked = plot.scatter("time", "value", source=data["masked"], size=7, marker="x", line_color="#555555")
            plot.scatter("time", "value", source=data["lost"], size=7, marker="dash", angle=np.pi / 2,
                         line_color="#999999")  # fmt: skip
            tips = [("scene", "@scene"), ("date", "@time{%F}"), ("value", "@value{0.000}")]
            plot.add_tools(HoverTool(renderers=[used, masked], tooltips=tips, formatters={"@time": "datetime"}))
            span = Span(location=0, dimension="height", line_color="black", line_width=1, line_dash="dotted")
            plot.add_layout(span)
            plot.grid.grid_line_alpha = 0.4
            plot.xaxis.ticker.desired_num_ticks = max(3, frame // 90)
            plot.min_border_left = 56
            plot.visible = False
            self.figures.append(plot)
            self.sources.append(data)
            self.spans.append(span)

    def show(self, panels, breaks):
        """The panels of a `story.PixelStory`."""
        for k, (plot, data) in enumerate(zip(self.figures, self.sources)):
            plot.visible = k < len(panels)
            if k >= len(panels):
                continue
            name, frame = list(panels.items())[k]
            plot.yaxis.axis_label = f"{name} (dB)" if name in ("vv", "vh", "hh", "hv") else name
            fill(data, frame, breaks)
            wide = (frame["time"].max() - frame["time"].min()) / 40 + pd.Timedelta(days=2)
            self.range.update(start=frame["time"].min() - wide, end=frame["time"].max() + wide)
            low, high = (f(frame[["value", "masked", "model", "expected"]].to_numpy(float)) for f in (_low, _high))
            plot.y_range.update(start=low - 0.08 * (high - low), end=high + 0.08 * (high - low))

    def now(self, stamp):
        """Where the time slider stands."""
        for span in self.spans:
            span.location = pd.Timestamp(stamp)


def _low(values):
    return float(np.nanmin(values)) if np.isfinite(values).any() else 0.0


def _high(values):
    return float(np.nanmax(values)) if np.isfinite(values).any() else 1.0


def empty():
    return {name: [] for name in ("time", "value", "scene", "date", "date_after", "date_by")}


def fill(data, frame, breaks):
    """One panel: used, masked and missing observations, the model of each stretch, the first carried on, breaks."""
    used = frame[frame["used"]]
    masked = frame[frame["masked"].notna()].assign(value=lambda f: f["masked"])
    lost = frame[~frame["used"] & frame["masked"].isna()]
    seen = pd.concat([used["value"], masked["value"]])
    floor = float(seen.min()) if len(seen) else 0.0
    model = frame[["time", "model", "scene"]].rename(columns={"model": "value"})
    # a stretch ends at its break: no line from one model to the next
    cuts = np.searchsorted(model["time"], breaks["date"])
    gaps = model.iloc[cuts[(cuts > 0) & (cuts < len(model))]].assign(value=np.nan)
    model = pd.concat([gaps, model]).sort_values("time", kind="stable")
    rest = frame[["time", "expected", "scene"]].rename(columns={"expected": "value"}).dropna(subset=["value"])
    last = frame[["time", "model", "scene"]].rename(columns={"model": "value"})
    last = last[last["time"] < rest["time"].min()].dropna(subset=["value"]).iloc[-1:] if len(rest) else last.iloc[:0]
    for name, part in (("used", used), ("masked", masked), ("lost", lost.assign(value=floor)), ("model", model),
                       ("rest", pd.concat([last, rest]))):  # fmt: skip
        data[name].data = (
            empty()
            | {key: part[key].to_numpy() for key in ("time", "value", "scene")}
            | {key: np.full(len(part), np.nan) for key in ("date", "date_after", "date_by")}
        )
    # a break whose interval is not known is a line only
    known = breaks["date_after"].notna() & breaks["date_by"].notna()
    data["breaks"].data = {
        "date": breaks["date"].to_numpy(), "date_after": breaks["date_after"].where(known, breaks["date"]).to_numpy(),
        "date_by": breaks["date_by"].where(known, breaks["date"]).to_numpy(),
        **{name: np.full(len(breaks), np.nan) for name in ("time", "value", "scene")},
    }  # fmt: skip
