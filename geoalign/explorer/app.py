"""The explorer put together: controls, maps, series, polygons and marks, as one Panel view. See `explorer`."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import panel as pn
from bokeh.events import RangesUpdate, Tap
from bokeh.layouts import column, row
from bokeh.models import Slider

from geoalign.errors import GeoalignError
from geoalign.explorer import picture, story
from geoalign.explorer.cell import Cell
from geoalign.explorer.map import STYLE, Map, dates_figure, fill_dates, key_html, link, text
from geoalign.explorer.series import Series
from geoalign.explorer.site import Site

LIGHT = """
:host { background: white; color: #1b1f24; color-scheme: light; --design-background-color: white;
--design-background-text-color: #1b1f24; --design-surface-color: #f3f3f3; --design-surface-text-color: #1b1f24 }
"""
"""Also in a notebook that is dark: the plots are light, and so is what stands around them."""
WIDTH = 1250
"""Width of the page, px, unless another is asked for."""


class Explorer(pn.viewable.Viewer):
    """A site to look at. Shows itself in a notebook; `.show()` opens it in a browser of its own."""

    def __init__(self, site: Site, *, marks: Path, width: int = WIDTH, **params):
        super().__init__(**params)
        pn.extension(inline=True)
        self.site, self.marks_file = site, Path(marks)
        self.half = max(300, round((width - 130) / 2))  # of the map, and of what is told beside it
        self.marks = self._read_marks()
        self.layer = next(iter(site.layers.values()), None)
        self.polygon: int | None = None
        self.pixel: tuple[int, int] | None = None
        self._window = None
        self._view = site.stack_of(self.layer)
        self.cell = Cell()
        self._controls()
        self._build()
        self._root = self.cell.root = self._page()
        self._new_stack()

    def __panel__(self):
        return self._root

    # -------------------------------------------------------------------------------------------------- the widgets

    def _controls(self):
        names = list(self.site.layers)
        width = 165
        self.choose = pn.widgets.Select(name="Changes", options=names or ["none"], width=width)
        self.stack = pn.widgets.Select(name="Scenes", options=list(self.site.stacks), value=self._view.name, width=100)
        self.what = pn.widgets.Select(name="Layer", options={v: k for k, v in picture.OVERLAYS.items()}, width=width)
        self.opacity = pn.widgets.FloatSlider(name="Opacity", start=0, end=1, step=0.05, value=0.85, width=110)
        self.outlines = pn.widgets.Checkbox(name="Polygons", value=True, width=80)
        self.other = pn.widgets.Select(name="Beside it", options=["nothing", *names], width=width)
        for widget, handler in (
            (self.choose, self._new_layer), (self.stack, self._new_stack), (self.what, self._cover),
            (self.opacity, self._opacity), (self.outlines, self._outline), (self.other, self._beside),
        ):  # fmt: skip
            widget.param.watch(self.cell.shows(lambda event, handler=handler: handler()), "value")
        self.right = pn.widgets.Button(name="Right", button_type="success", width=110)
        self.wrong = pn.widgets.Button(name="Wrong", button_type="danger", width=110)
        self.right.on_click(self.cell.shows(lambda event: self._mark("right")))
        self.wrong.on_click(self.cell.shows(lambda event: self._mark("wrong")))

    def _build(self):
        view = self._view
        self.map = Map(view.shape, view.transform, frame=self.half)
        self.twin = Map(view.shape, view.transform, frame=self.half, ranges=self.map.ranges)
        self.twin.figure.visible = False
        wide = self.map.figure.frame_width + 40
        n = len(view.scenes)
        self.time = Slider(start=0, end=max(n - 1, 1), value=n - 1, step=1, title="after", show_value=False, width=wide)
        self.before = Slider(start=0, end=max(n - 1, 1), value=0, step=1, title="before", show_value=False, width=wide)
        self.swipe = Slider(start=0, end=100, value=50, step=1, title="swipe: before | after (%)", width=wide)
        for slider in (self.time, self.before):
            slider.on_change("value_throttled", self.cell.shows(lambda attr, old, new: self._scenes()))
        for one in (self.map, self.twin):
            link(one, self.time, self.swipe)
            one.figure.on_event(Tap, self.cell.shows(lambda event: self._tap(event)))
        self.map.figure.on_event(RangesUpdate, self.cell.shows(lambda event: self._moved()))
        self.key, self.titles = text(width=wide), text(width=wide)
        self.dates, self.dates_source, self.dates_now = dates_figure(self.half)
        self.series = Series(self.half - 60)
        self.words = pn.pane.HTML("", stylesheets=[STYLE], width=self.half)
        self.patch = pn.pane.HTML("", stylesheets=[STYLE], width=self.half)
        self.marked = pn.pane.HTML("", stylesheets=[STYLE], width=self.half)
        self.crops = pn.pane.HTML("", stylesheets=[STYLE], width=self.half)

    def _page(self):
        heading = (
            f"<h2>{escape(self.site.title)}</h2><p class=soft>Click a pixel or a polygon. Arrow keys: time; [ and ]: "
            "swipe; wheel: zoom. × masked, | not observed, grey: model between breaks, dashed: had nothing changed.</p>"
        )
        outlines = pn.Column(pn.Spacer(height=18), self.outlines)
        bar = pn.FlexBox(self.choose, self.stack, self.what, self.opacity, outlines, self.other)
        maps = pn.pane.Bokeh(
            column(self.titles, row(self.map.figure, self.twin.figure), self.key, self.time, self.before, self.swipe,
                   self.dates)
        )  # fmt: skip
        self.verdict = pn.Column(pn.Row(self.right, self.wrong), self.marked, visible=False)
        side = pn.Column(self.words, pn.pane.Bokeh(column(*self.series.figures)), self.patch, self.crops, self.verdict)
        change = pn.Column(bar, pn.FlexBox(maps, side))
        tabs = [("Change", change)]
        if any(view.alignment is not None for view in self.site.stacks.values()):
            self._place = pn.Column(min_height=400)  # filled when it is first looked at
            tabs.append(("Registration", self._place))
        pages = pn.Tabs(*tabs, dynamic=True)
        pages.param.watch(self.cell.shows(self._open), "active")
        return pn.Column(
            pn.pane.HTML(heading, stylesheets=[STYLE]),
            pages,
            css_classes=["geoalign-explorer"],
            stylesheets=[LIGHT],
        )

    def _open(self, event):
        from geoalign.explorer.registration import Registration

        if event.new == 1 and not len(self._place):
            self._place.append(Registration(self.site, self.cell, self.half).view)

    # --------------------------------------------------------------------------------------------- what is looked at

    def _new_stack(self):
        """Another stack's scenes: its sliders, its first picture."""
        self._view = self.site.stacks[self.stack.value]
        first, last = self.site.once(("ends", self._view.name), self._view.ends)
        for slider, k in ((self.before, first), (self.time, last)):
            slider.update(end=max(len(self._view.scenes) - 1, 1), value=k)
        self._window = self.map.window()
        self._new_layer(keep_stack=True)
        self._scenes()

    def _new_layer(self, *, keep_stack=False):
        self.layer = self.site.layers.get(self.choose.value)
        self.polygon = None
        if not keep_stack and self.layer is not None and self.stack.value != self.site.stack_of(self.layer).name:
            self.stack.value = self.site.stack_of(self.layer).name  # comes back here with the stack's scenes
            return
        self._cover()
        self._outline()
        self._histogram()
        self._story()
        self._polygon()

    def _stretch(self, view):
        return picture.stretch_for(self.site, view)

    def _scenes(self):
        """Both scenes under the swipe."""
        view, window = self._view, self._window
        pictures = [picture.picture(view, int(slider.value), window, self._stretch(view))
                    for slider in (self.before, self.time)]  # fmt: skip
        for one in (self.map, self.twin):
            if one.figure.visible:
                one.show(*pictures, window, self.swipe.value)
        names = [f"{str(view.time[int(s.value)])[:10]} · {escape(view.scenes[int(s.value)])}"
                 + (" · not aligned" if view.scenes[int(s.value)] in view.rejected else "")
                 for s in (self.before, self.time)]  # fmt: skip
        self.before.title, self.time.title = f"before: {names[0]}", f"after: {names[1]}"
        self.titles.text = f"<b>before</b> {names[0]} &nbsp;|&nbsp; <b>after</b> {names[1]}"
        stamp = pd.Timestamp(view.time[int(self.time.value)])
        self.dates_now.location = stamp
        self.series.now(stamp)
        if self.what.value == "sigma":
            self._cover()

    def _cover(self):
        for one, layer in ((self.map, self.layer), (self.twin, self.site.layers.get(self.other.value))):
            if not one.figure.visible or self._window is None:
                continue
            over = picture.overlay(layer, self.what.value, self._window, self._view, int(self.time.value),
                                 dates=self._span())  # fmt: skip
            one.cover(over.pixels, self._window)
            if one is self.map:
                label = next(k for k, v in self.what.options.items() if v == self.what.value)
                self.key.text = key_html(over, label)
        self._opacity()

    def _span(self):
        """First and last day of all layers that are shown: one ramp of dates for maps side by side."""
        names = [self.choose.value, *([self.other.value] if self.other.value in self.site.layers else [])]
        days = [day for name in names if name in self.site.layers for day in self._counts(self.site.layers[name])]
        if not days:
            return None
        low, high = (int(np.datetime64(day, "D").astype(np.int64)) for day in (min(days), max(days)))
        return low, max(high, low + 1)

    def _counts(self, layer):
        return self.site.once(("dates", layer.name), lambda: picture.histogram(layer, self._view))

    def _histogram(self):
        counts = self._counts(self.layer) if self.layer is not None else {}
        fill_dates(
            self.dates, self.dates_source, counts, (pd.Timestamp(self._view.time[0]), pd.Timestamp(self._view.time[-1]))
        )

    def _outline(self):
        frame = self.layer.polygons if self.layer is not None and self.outlines.value else None
        self.map.outline(frame, self.polygon)
        other = self.site.layers.get(self.other.value)
        self.twin.outline(other.polygons if other is not None and self.outlines.value else None)

    def _opacity(self):
        for one in (self.map, self.twin):
            one.overlay.glyph.global_alpha = self.opacity.value

    def _beside(self):
        self.twin.figure.visible = self.other.value in self.site.layers
        self._scenes()
        self._cover()
        self._outline()

    def _moved(self):
        """Read again where the screen left what is loaded, or could show more of it."""
        seen = self.map.window()
        have = self._window
        inside = all(a[0] >= b[0] and a[1] <= b[1] for a, b in ((seen.rows, have.rows), (seen.cols, have.cols)))
        if inside and seen.step >= have.step and have.step * 4 > seen.step:
            return
        self._window = self.map.window(margin=0.25)
        self._scenes()
        self._cover()

    # ------------------------------------------------------------------------------------------------------- stories

    def _tap(self, event):
        if event.x is None:
            return
        col, line = (int(np.floor(v)) for v in ~self._view.transform * (event.x, event.y))
        if not (0 <= line < self._view.shape[0] and 0 <= col < self._view.shape[1]):
            return
        self.pixel = (line, col)
        self.polygon = story.polygon_at(self.layer, event.x, event.y)
        self._story()
        self._outline()
        self._polygon()

    def _story(self):
        if self.pixel is None:
            self.words.object = "<h3>Pixel</h3><p class=soft>None chosen yet.</p>"
            return
        told = story.pixel_story(self.site, self.layer, *self.pixel, stack=self._view.name)
        self.series.show(told.panels, told.breaks)
        for one in (self.map, self.twin):
            one.place.data = {"x": [told.x], "y": [told.y]}
        head = f"<h3>Pixel</h3><p class=soft>row {told.row}, column {told.col} · x {told.x:,.1f}, y {told.y:,.1f}</p>"
        self.words.object = head + "".join(f"<p>{escape(line)}</p>" for line in told.words)

    def _polygon(self):
        none = self.polygon is None
        self.verdict.visible = not none
        if none:
            self.patch.object, self.crops.object, self.marked.object = "", "", ""
            return
        told = story.polygon_story(self.site, self.layer, self.polygon)
        self.patch.object = "<h3>Polygon</h3>" + "".join(f"<p>{escape(line)}</p>" for line in told.words)
        view = self.site.stack_of(self.layer)
        stretch = self._stretch(view)
        parts = []
        for label, k in (("before", told.before), ("after", told.after)):
            if k is not None:
                image = _png(picture.picture(view, k, told.window, stretch))
                note = f"{label}: {str(view.time[k])[:10]}, {escape(view.scenes[k])}"
                style = f"width:{self.half // 2 - 70}px;image-rendering:pixelated"
                img = f'<img alt="{label}" src="{image}" style="{style}">'
                parts.append(f"<figure style='margin:0'>{img}<figcaption class=soft>{note}</figcaption></figure>")
        self.crops.object = f'<div style="display:flex;gap:14px">{"".join(parts)}</div>'
        self._show_mark()

    # --------------------------------------------------------------------------------------------------------- marks

    def _read_marks(self):
        import geopandas as gpd

        if not self.marks_file.is_file():
            return None
        frame = gpd.read_file(self.marks_file, use_arrow=True)
        for name in ("start_date", "date_after", "date_by"):
            frame[name] = pd.to_datetime(frame[name]).astype("datetime64[ms]")
        frame["marked_at"] = pd.to_datetime(frame["marked_at"], utc=True)
        return frame

    def _mark(self, verdict):
        from geoalign.accuracy.marks import mark
        from geoalign.io import write_polygons

        if self.polygon is None:
            return
        chosen = self.layer.polygons.iloc[[self.polygon]]
        self.marks = mark(self._read_marks(), chosen, verdict, layer=self.layer.name)
        write_polygons(self.marks, self.marks_file)
        self._show_mark()

    def _show_mark(self):
        if self.marks is None:
            self.marked.object = "<p class=soft>Is it a change? Marks are saved as reference for accuracy.</p>"
            return
        row = self.layer.polygons.iloc[self.polygon]
        mine = self.marks[(self.marks["id"] == row["id"]) & (self.marks["layer"] == self.layer.name)]
        said = f"<b>Marked {mine['verdict'].iloc[0]}.</b> " if len(mine) else ""
        self.marked.object = f"<p>{said}<span class=soft>{len(self.marks)} marked in {self.marks_file.name}</span></p>"

    def __repr__(self):
        layers = ", ".join(self.site.layers) or "no changes"
        return f"<Explorer of {self.site.title}: {', '.join(self.site.stacks)}; {layers}>"


def _png(pixels) -> str:
    import base64
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def start(make, *, port, address, browser, ready):
    """Serve until interrupted; see `explorer.serve`."""
    import socket

    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            port = probe.getsockname()[1]
    except OSError as err:
        raise GeoalignError(f"{address}:{port} can't be listened on ({err.strerror}). Choose another --port.") from err
    if ready is not None:
        ready(f"http://{address}:{port}/")
    # a page served to others may be asked for by any of this machine's names
    names = [f"{address}:{port}", f"localhost:{port}"] if address in ("127.0.0.1", "localhost") else ["*"]
    pn.serve(
        {"/": make}, port=port, address=address, show=browser, title="geoalign explore", autoreload=False,
        websocket_origin=names, verbose=False,
    )  # fmt: skip
