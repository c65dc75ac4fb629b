"""A notebook's cell in which the explorer lives: what a handler changed is sent there, whole and without a network."""

from __future__ import annotations

from functools import wraps

import panel as pn
from bokeh.models import ImportedStyleSheet, InlineStyleSheet
from bokeh.models.ui import UIElement
from panel.io.resources import CDN_DIST, DIST_DIR


class Cell:
    """The cells that show `root`; none where a page is served, which sends changes by itself."""

    def __init__(self):
        self.root = None
        self._within = False

    def shows(self, handler):
        """`handler`, and then its changes are shown.

        Panel sends what its own widgets change at once, and leaves changes of the Bokeh models in them to be pushed.
        Here both are held until the handler has done.
        """

        @wraps(handler)
        def run(*args):
            if self._within:  # a handler that sets another widget
                return handler(*args)
            self._within = True
            try:
                with pn.io.block_comm():
                    handler(*args)
            finally:
                self._within = False
                self._push()

        return run

    def _push(self):
        refs = [ref for ref in getattr(self.root, "_models", ()) if ref in pn.state._views]
        comms = [pn.state._views[ref] for ref in refs]
        for _, root, _, comm in comms:
            if comm is not None:
                for model in root.select({"type": UIElement}):
                    _inline(model)
        if any(comm is not None for *_, comm in comms):
            pn.io.push_notebook(self.root)


def _inline(model):
    """Panel's style sheets as text: models that are changed later would ask a content network for them."""
    sheets = [_text(sheet) for sheet in model.stylesheets]
    if any(new is not old for new, old in zip(sheets, model.stylesheets)):
        model.stylesheets = sheets


def _text(sheet):
    if isinstance(sheet, ImportedStyleSheet) and sheet.url.startswith(CDN_DIST):
        place = DIST_DIR / sheet.url.removeprefix(CDN_DIST).split("?")[0]
        if place.is_file():
            return InlineStyleSheet(css=place.read_text(encoding="utf-8"))
    return sheet
