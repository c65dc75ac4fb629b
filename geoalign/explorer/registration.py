"""How the scenes lie: flicker and checkerboard against the reference, tie points, drift, and what was rejected."""

from __future__ import annotations

from html import escape

import numpy as np
import panel as pn
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, CustomJS, HoverTool, Slider, Toggle, Whisker
from bokeh.plotting import figure

from geoalign.explorer import picture
from geoalign.explorer.cell import Cell
from geoalign.explorer.map import STYLE, Map
from geoalign.explorer.site import Site
from geoalign.plot import BLUE, GREEN, GREY, ORANGE, RED

TILES = 8
"""Squares of the checkerboard along the shorter side."""

FLICKER = """
clearInterval(window.geoalign_flicker)
glyph.glyph.global_alpha = {value: 1}
if (cb_obj.active) {
  let on = true
  window.geoalign_flicker = setInterval(() => { on = !on; glyph.glyph.global_alpha = {value: on ? 1 : 0} }, 600)
}
"""


class Registration:
    """The tab of one site; `view` is what Panel shows."""

    def __init__(self, site: Site, cell: Cell, half: int):
        self.site = site
        names = [name for name, view in site.stacks.items() if view.alignment is not None]
        self.stack = pn.widgets.Select(name="Scenes", options=names, width=120)
        self.way = pn.widgets.RadioButtonGroup(options=["aligned", "as delivered"], value="aligned", width=200)
        self.look = pn.widgets.RadioButtonGroup(options=["scene", "reference", "checkerboard"], value="checkerboard",
                                                width=300)  # fmt: skip
        view = site.stacks[names[0]]
        self.map = Map(view.shape, view.transform, frame=half)
        self.map.line.visible = False
        self.scene = Slider(start=0, end=1, value=0, step=1, title="scene", show_value=False, width=half)
        self.flicker = Toggle(label="Flicker against the reference", width=220)
        self.flicker.js_on_change("active", CustomJS(args={"glyph": self.map.overlay}, code=FLICKER))
        self._points()
        self.drift, self.drift_data = _drift_figures(half - 60)
        self.words, self.table = (pn.pane.HTML("", width=half, stylesheets=[STYLE]) for _ in range(2))
        self.stack.param.watch(cell.shows(lambda event: self._new_stack()), "value")
        for widget in (self.way, self.look):
            widget.param.watch(cell.shows(lambda event: self._scene()), "value")
        self.scene.on_change("value_throttled", cell.shows(lambda attr, old, new: self._scene()))
        self._new_stack()
        self.view = pn.Column(
            pn.Row(self.stack, pn.Column(pn.Spacer(height=14), pn.Row(self.look, self.way))),
            pn.FlexBox(
                pn.pane.Bokeh(column(self.map.figure, self.scene, self.flicker)),
                pn.Column(self.words, pn.pane.Bokeh(column(*self.drift)), self.table),
            ),
        )

    def _points(self):
        self.points = {}
        plot = self.map.figure
        self.arrows = ColumnDataSource({"x0": [], "y0": [], "x1": [], "y1": []})
        plot.segment("x0", "y0", "x1", "y1", source=self.arrows, line_color="white", line_width=4)
        plot.segment("x0", "y0", "x1", "y1", source=self.arrows, line_color=RED, line_width=2)
        looks = {"fit": (BLUE, "circle", "used"), "check": (ORANGE, "triangle", "held out"),
                 "rejected": (GREY, "x", "rejected")}  # fmt: skip
        drawn = []
        for use, (colour, marker, label) in looks.items():
            source = ColumnDataSource({name: [] for name in ("x", "y", "residual", "reason")})
            edge = "white" if marker != "x" else "#333333"
            options = {"marker": marker, "fill_color": colour, "line_color": edge, "legend_label": label}
            drawn.append(plot.scatter("x", "y", source=source, size=8, **options))
            self.points[use] = source
        plot.add_tools(HoverTool(renderers=drawn, tooltips=[("residual (px)", "@residual{0.00}"), ("", "@reason")]))
        plot.legend.click_policy = "hide"
        plot.legend.label_text_font_size = "11px"
        plot.legend.background_fill_alpha = 0.8

    def _new_stack(self):
        self.view_of = self.site.stacks[self.stack.value]
        self.stretch = picture.stretch_for(self.site, self.view_of)
        report = self.view_of.alignment.report
        self.given = self.view_of.as_delivered()
        times = dict(zip(self.given.scenes, self.given.time)) | dict(zip(self.view_of.scenes, self.view_of.time))
        self.times = {name: times[name] for name in sorted(times, key=times.get)}
        known = [s for s in self.times if s in set(report["scene"].astype(str))]
        self.known = known
        worst = report.set_index(report["scene"].astype(str))["cv_px"].astype(float)
        start = worst.reindex(known).fillna(-1).argmax() if known else 0
        self.scene.update(end=max(len(known) - 1, 1), value=int(start))
        _fill_drift(self.drift_data, report, self.times)
        self.table.object = _left_out(report, self.site.skipped, self.stack.value)
        self._scene()

    def _reference(self):
        names = self.view_of.scenes
        wanted = str(self.view_of.alignment.reference)
        return names.index(wanted) if wanted in names else 0

    def _scene(self):
        view, name = self.view_of, self.known[int(self.scene.value)]
        window = picture.window_for(view.shape)
        aligned = self.way.value == "aligned"
        r = self._reference()
        # one that was left out is not among the aligned: it is shown as it was delivered
        of = view if name in view.scenes else self.given
        k = of.scenes.index(name)
        moving = picture.picture(of, k, window, self.stretch, aligned=aligned, masked=False)
        still = picture.picture(view, r, window, self.stretch, masked=False)
        over = {"scene": moving, "reference": still, "checkerboard": checkerboard(still, moving)}[self.look.value]
        self.map.show(still, still, window, 0)
        self.map.cover(over, window)
        self.map.overlay.glyph.global_alpha = 1.0
        self.flicker.active = False
        self._tie_points(name)
        row = view.alignment.report
        row = row[row["scene"].astype(str) == name].iloc[0]
        self.scene.title = f"scene: {name} of {str(self.times[name])[:10]}"
        self.words.object = scene_words(row, view.scenes[r])

    def _tie_points(self, name):
        points = self.view_of.alignment.points
        points = points[points["scene"].astype(str) == name]
        x, y = self.view_of.transform * (points["col"].to_numpy(float) + 0.5, points["row"].to_numpy(float) + 0.5)
        length = np.hypot(points["dy_residual"], points["dx_residual"]).to_numpy(float)
        for use, source in self.points.items():
            at = (points["use"] == use).to_numpy()
            source.data = {"x": x[at], "y": y[at], "residual": length[at], "reason": points["reason"][at].tolist()}
        kept = (points["use"] != "rejected").to_numpy() & np.isfinite(length)
        # the longest arrow is a fifteenth of the map
        scale = max(self.view_of.shape) / 15 / max(float(length[kept].max()), 1e-9) if kept.any() else 1.0
        x1, y1 = self.view_of.transform * (
            points["col"].to_numpy(float)[kept] + 0.5 + scale * points["dx_residual"].to_numpy(float)[kept],
            points["row"].to_numpy(float)[kept] + 0.5 + scale * points["dy_residual"].to_numpy(float)[kept],
        )
        self.arrows.data = {"x0": x[kept], "y0": y[kept], "x1": x1, "y1": y1}


def checkerboard(one, other) -> np.ndarray:
    """Squares of one picture (row, col, 4) and another in turn.

    Examples
    --------
    >>> a, b = np.zeros((16, 16, 4), np.uint8), np.full((16, 16, 4), 9, np.uint8)
    >>> checkerboard(a, b)[0, :6, 0].tolist()
    [0, 0, 9, 9, 0, 0]
    """
    side = max(1, min(one.shape[:2]) // TILES)
    rows, cols = np.ogrid[0 : one.shape[0], 0 : one.shape[1]]
    odd = (rows // side + cols // side) % 2 == 1
    return np.where(odd[..., None], other, one)


def scene_words(row, reference) -> str:
    """How one scene lies, in words: a row of `Alignment.report`."""
    if row["status"] == "reference":
        return f"<h3>{escape(str(row['scene']))}</h3><p>The reference: all others were aligned to it.</p>"
    if row["status"] != "aligned":
        return f"<h3>{escape(str(row['scene']))}: {row['status']}</h3><p>{escape(str(row['reason']))}</p>"
    cells = [
        ("displacement", f"dy {row['dy']:+.2f} px, dx {row['dx']:+.2f} px (mean over the image)"),
        ("residual of points used", _px(row["rmse_px"], row["rmse_m"])),
        ("of points held out", _px(row["cv_px"], row["cv_m"])),
        ("nine tenths within", _px(row["ce90_px"], row["ce90_m"])),
        ("predicted error (1 σ)", _px(row["sigma_px"])),
        ("tie points, model", f"{int(row['n_points'])}, {row['model']} by {row['method']}"),
    ]
    lines = "".join(f"<tr><th>{label}</th><td>{escape(value)}</td></tr>" for label, value in cells)
    return f"<h3>{escape(str(row['scene']))} on {escape(str(reference))}</h3><table>{lines}</table>"


def _px(px, metres=float("nan")):
    if not np.isfinite(px):
        return "not known"
    return f"{px:.2f} px" + (f" ({metres:.1f} m)" if np.isfinite(metres) else "")


def _left_out(report, skipped, stack):
    bad = report[report["status"].isin(["failed", "rejected"])]
    rows = [(str(r.scene), str(r.status), str(r.reason)) for r in bad.itertuples()]
    named = {r[0] for r in rows}
    rows += [(s["scene"], s["kind"], s["reason"]) for s in skipped if s["stack"] == stack and s["scene"] not in named]
    if not rows:
        return "<h3>Left out</h3><p>No scene: all could be aligned.</p>"
    cells = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in r) + "</tr>" for r in rows)
    return f"<h3>Left out</h3><table><tr><th>scene</th><th>what</th><th>why</th></tr>{cells}</table>"


def _drift_figures(frame):
    figures, sources = [], {}
    for name in ("dy", "dx"):
        plot = figure(frame_width=frame, frame_height=120, x_axis_type="datetime", tools="", toolbar_location=None,
                      y_axis_label=f"{name} (px)")  # fmt: skip
        columns = ("time", "value", "low", "high", "scene", "colour")
        aligned, bad = (ColumnDataSource({c: [] for c in columns}) for _ in range(2))
        plot.line("time", "value", source=aligned, line_color=GREY, line_width=0.8)
        dots = plot.scatter("time", "value", source=aligned, size=7, color="colour")
        plot.add_layout(Whisker(base="time", lower="low", upper="high", source=aligned, line_color=BLUE))
        crosses = plot.scatter("time", "value", source=bad, size=9, marker="x", color="colour", line_width=2)
        plot.add_tools(HoverTool(renderers=[dots, crosses], tooltips=[("scene", "@scene"), (name, "@value{+0.00} px")]))
        plot.grid.grid_line_alpha = 0.4
        plot.min_border_left = 56
        figures.append(plot)
        sources[name] = (aligned, bad)
    return figures, sources


def _fill_drift(sources, report, times):
    """Mean displacement of every scene over time, bars 1 sigma; scenes that were left out as crosses at zero."""
    for name, (aligned, bad) in sources.items():
        frame = report[["scene", "status", name, "sigma_px"]].rename(columns={name: "value", "sigma_px": "sigma"})
        frame = frame.astype({"scene": str, "value": float, "sigma": float}).fillna({"sigma": 0.0})
        frame["time"] = frame["scene"].map(times)
        frame = frame.dropna(subset=["time"]).sort_values("time")
        frame["colour"] = frame["status"].map({"reference": GREEN, "rejected": RED, "failed": "#000000"}).fillna(BLUE)
        good = frame["status"].isin(["aligned", "reference"])
        out = frame[~good].assign(value=0.0, sigma=0.0)
        for source, part in ((aligned, frame[good]), (bad, out)):
            source.data = {
                "time": part["time"].to_numpy("datetime64[ns]"), "value": part["value"].to_numpy(),
                "low": (part["value"] - part["sigma"]).to_numpy(), "high": (part["value"] + part["sigma"]).to_numpy(),
                "scene": part["scene"].tolist(), "colour": part["colour"].tolist(),
            }  # fmt: skip
