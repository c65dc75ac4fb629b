"""The explorer's maps: before and after under a swipe, a layer over them, polygons, the key and the dates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, CustomJS, Div, HoverTool, Range1d, Span
from bokeh.plotting import figure

from geoalign.explorer import picture
from geoalign.plot import BLUE, ORANGE

FRAME = 560
"""Width of a map, px, unless another is asked for."""
MOST_POLYGONS = 4000
"""Polygons drawn at the most, the largest first; all can be clicked."""

STYLE = """
:host, .bk-root { font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
p { margin: 2px 0 } h2 { margin: 0 0 2px; font-size: 19px } h3 { margin: 8px 0 2px; font-size: 15px }
.soft { color: #5b6570; font-size: 12.5px } table { border-collapse: collapse; font-size: 12.5px }
td, th { text-align: left; padding: 2px 10px 2px 0; border-bottom: 1px solid #d9dee3; vertical-align: top }
"""

COMPOSE = """
const d = scenes.data, a = d.before[0], b = d.after[0], [h, w] = a.shape
const cut = Math.round(w * swipe.value / 100), c = new b.constructor(b, b.shape)
// a plain view: Bokeh's own arrays can't be cut by subarray
for (let i = 0; i < h; i++) c.set(new Uint32Array(a.buffer, a.byteOffset + 4 * i * w, cut), i * w)
shown.data.image = [c]
for (const k of ["x", "y", "dw", "dh"]) shown.data[k] = [d[k][0]]
line.location = d.x[0] + d.dw[0] * swipe.value / 100
shown.change.emit()
"""
"""The picture on the screen is put together there, so that the swipe follows the hand."""

KEYS = """
if (window.geoalign_keys) window.removeEventListener("keydown", window.geoalign_keys, true)
window.geoalign_keys = (e) => {
  const path = e.composedPath(), at = path[0]
  if (e.defaultPrevented || e.ctrlKey || e.altKey || e.metaKey) return
  if (at.isContentEditable || /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName)) return
  if (at.getAttribute && at.getAttribute("role") === "slider") return  // which moves by itself
  // beside other things, as in a notebook, the keys are the explorer's only where the pointer or the focus is
  const within = (one) => one.classList && one.classList.contains("geoalign-explorer")
  const over = [...document.querySelectorAll(":hover")].some(within) || path.some(within)
  if (at !== document.body && !over) return
  const step = {ArrowLeft: -1, ArrowRight: 1}[e.key]
  if (step) {
    const v = Math.min(time.end, Math.max(time.start, time.value + step))
    time.value = v; time.value_throttled = v
  }
  const cut = {"[": -10, "]": 10}[e.key]
  if (cut) swipe.value = Math.min(100, Math.max(0, swipe.value + cut))
  if (step || cut) { e.preventDefault(); e.stopPropagation() }
}
window.addEventListener("keydown", window.geoalign_keys, true)
"""


class Map:
    """One map: two scenes under a swipe, a layer over them, polygons, the place that was clicked."""

    def __init__(self, shape, transform, *, frame=FRAME, ranges=None, tools="pan,wheel_zoom,box_zoom,reset,tap"):
        self.shape, self.transform = shape, transform
        self.low, self.high = (0, 0), (shape[1], shape[0])
        x0, y0 = transform * (0, 0)
        x1, y1 = transform * (shape[1], shape[0])
        high = float(np.clip(frame * shape[0] / shape[1], 260, 640))
        wide = min(frame, high * shape[1] / shape[0])
        if ranges is None:
            ranges = Range1d(x0, x1), Range1d(y1, y0) if y0 > y1 else Range1d(y0, y1)
        self.figure = figure(
            frame_width=round(wide), frame_height=round(high), x_range=ranges[0], y_range=ranges[1], tools=tools,
            active_scroll="wheel_zoom", toolbar_location="above", background_fill_color="#cfd3d6",
            css_classes=["geoalign-map"],
        )  # fmt: skip
        self.figure.toolbar.logo = None
        self.figure.grid.visible = False
        for axis in self.figure.axis:
            axis.formatter.use_scientific = False
            axis.ticker.desired_num_ticks = 4
        blank = {"image": [np.zeros((1, 1), np.uint32)], "x": [x0], "y": [y1], "dw": [x1 - x0], "dh": [abs(y0 - y1)]}
        self.shown, self.over = ColumnDataSource(dict(blank)), ColumnDataSource(dict(blank))
        self.scenes = ColumnDataSource({"before": blank["image"], "after": blank["image"],
                                        **{k: blank[k] for k in ("x", "y", "dw", "dh")}})  # fmt: skip
        place = {"x": "x", "y": "y", "dw": "dw", "dh": "dh"}
        self.figure.image_rgba("image", **place, source=self.shown)
        self.overlay = self.figure.image_rgba("image", **place, source=self.over, alpha=0.85)
        self.outlines = ColumnDataSource({"xs": [], "ys": []})
        self.polygons = self.figure.multi_polygons(
            "xs", "ys", source=self.outlines, fill_alpha=0, line_color="white", line_width=1.6
        )
        self.dark = self.figure.multi_polygons(
            "xs", "ys", source=self.outlines, fill_alpha=0, line_color="black", line_width=0.7
        )
        self.chosen = ColumnDataSource({"xs": [], "ys": []})
        self.figure.multi_polygons("xs", "ys", source=self.chosen, fill_alpha=0, line_color=ORANGE, line_width=3)
        self.place = ColumnDataSource({"x": [], "y": []})
        self.figure.scatter("x", "y", source=self.place, marker="cross", size=18, line_color="black", line_width=4)
        self.figure.scatter("x", "y", source=self.place, marker="cross", size=16, line_color="white", line_width=1.8)
        self.line = Span(location=x0, dimension="height", line_color="white", line_width=2, line_dash="dashed")
        self.figure.add_layout(self.line)

    @property
    def ranges(self):
        return self.figure.x_range, self.figure.y_range

    def window(self, *, margin=0.0):
        """The window that is on the screen, at its step."""
        inverse = ~self.transform
        corners = [inverse * (x, y) for x in (self.ranges[0].start, self.ranges[0].end)
                   for y in (self.ranges[1].start, self.ranges[1].end)]  # fmt: skip
        cols, rows = zip(*corners)
        return picture.window_for(self.shape, rows, cols, margin=margin)

    def extent(self, window):
        """x, y, dw, dh of a window of pixels."""
        rows, cols, step = window.args
        size = [-(-(span[1] - span[0]) // step) * step for span in (rows, cols)]
        x0, y0 = self.transform * (cols[0], rows[0])
        x1, y1 = self.transform * (cols[0] + size[1], rows[0] + size[0])
        return {"x": [min(x0, x1)], "y": [min(y0, y1)], "dw": [abs(x1 - x0)], "dh": [abs(y1 - y0)]}

    def show(self, before, after, window, cut: float):
        """Both scenes (row, col, 4) uint8 of a window."""
        place = self.extent(window)
        old, new = self._upright(before), self._upright(after)
        column = round(new.shape[1] * cut / 100)
        joined = new.copy()
        joined[:, :column] = old[:, :column]
        self.shown.data = {"image": [joined], **place}
        self.scenes.data = {"before": [old], "after": [new], **place}
        self.line.location = place["x"][0] + place["dw"][0] * cut / 100

    def cover(self, pixels, window):
        """A layer (row, col, 4) uint8 over the scenes."""
        self.over.data = {"image": [self._upright(pixels)], **self.extent(window)}

    def outline(self, frame, chosen=None):
        """The polygons of a GeoDataFrame, one of them marked."""
        drawn = frame
        if frame is not None and len(frame) > MOST_POLYGONS:
            drawn = frame.nlargest(MOST_POLYGONS, "n_pixels")
        self.outlines.data = _rings([] if drawn is None else drawn.geometry)
        self.chosen.data = _rings([] if chosen is None or frame is None else [frame.geometry.iloc[chosen]])

    def _upright(self, pixels):
        """Bokeh draws the first row at the bottom."""
        flat = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
        return np.ascontiguousarray(flat[::-1] if self.transform.e < 0 else flat)


def _rings(geometries):
    out = {"xs": [], "ys": []}
    for geometry in geometries:
        xs, ys = [], []
        for part in getattr(geometry, "geoms", [geometry]):
            rings = [np.asarray(ring.coords) for ring in (part.exterior, *part.interiors)]
            xs.append([ring[:, 0].tolist() for ring in rings])
            ys.append([ring[:, 1].tolist() for ring in rings])
        out["xs"].append(xs)
        out["ys"].append(ys)
    return out


def link(one: Map, time, swipe):
    """Let a map's swipe and the keys act in the browser."""
    compose = CustomJS(args={"scenes": one.scenes, "shown": one.shown, "line": one.line, "swipe": swipe}, code=COMPOSE)
    swipe.js_on_change("value", compose)
    one.scenes.js_on_change("data", compose)
    keys = CustomJS(args={"time": time, "swipe": swipe}, code=KEYS)
    one.figure.js_on_change("inner_width", keys)
    one.figure.js_on_event("mouseenter", keys)  # of several explorers on a page it is this one's turn


def key_html(overlay, title) -> str:
    """The key of a layer."""
    if not overlay.key:
        return ""
    if overlay.ramp:
        stops = ", ".join(colour for colour, _ in overlay.key if colour)
        low, high = (text for colour, text in overlay.key if not colour)
        bar = f'<span style="display:inline-block;width:170px;height:11px;background:linear-gradient(90deg,{stops})">'
        return f"<b>{title}</b> &nbsp; {low} {bar}</span> {high}"
    cells = "".join(
        f'<span style="white-space:nowrap;margin-right:12px"><span style="display:inline-block;width:11px;height:11px;'
        f'background:{colour};border:1px solid #555"></span> {text}</span>'
        for colour, text in overlay.key
    )
    return f"<b>{title}</b> &nbsp; {cells}"


def dates_figure(frame=FRAME):
    """Histogram of the dates of change: figure and its source."""
    source = ColumnDataSource({"day": [], "n": [], "left": [], "right": []})
    plot = figure(frame_width=frame, frame_height=90, x_axis_type="datetime", tools="", toolbar_location=None,
                  y_axis_label="pixels", x_range=Range1d(0, 1), y_range=Range1d(0, 1))  # fmt: skip
    bars = plot.quad(top="n", bottom=0, left="left", right="right", source=source, color=BLUE)
    plot.add_tools(HoverTool(renderers=[bars], tooltips=[("date", "@day"), ("changed pixels", "@n")]))
    plot.grid.grid_line_alpha = 0.4
    now = Span(location=0, dimension="height", line_color=ORANGE, line_width=2)
    plot.add_layout(now)
    plot.min_border_left = 60
    return plot, source, now


def fill_dates(plot, source, counts, span):
    """Bars a hundredth of the series wide, on the axis of the whole series."""
    days = pd.to_datetime(list(counts))
    half = max((span[1] - span[0]) / 200, pd.Timedelta(days=1))
    plot.x_range.update(start=span[0] - 4 * half, end=span[1] + 4 * half)
    plot.y_range.end = 1.08 * max([1, *counts.values()])
    source.data = {"day": list(counts), "n": list(counts.values()), "left": list(days - half),
                   "right": list(days + half)}  # fmt: skip


def text(html="", **options):
    """A piece of the page."""
    return Div(text=html, **options)
