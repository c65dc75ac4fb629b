"""A real browser: Chromium, what it asked for and complained of, and where on the screen the explorer's maps are."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

PLACE = """([which, x, y]) => {
  const all = [...Bokeh.documents].flatMap((d) => [...d._all_models.values()])
  const maps = all.filter((m) => (m.css_classes || []).includes("geoalign-map") && m.visible)
  for (const root of Bokeh.index.roots) {
    const open = [root]
    while (open.length) {
      const view = open.pop()
      if (view.model === maps[which]) {
        const box = view.canvas_view.el.getBoundingClientRect()
        return [box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y)]
      }
      open.push(...view.children())
    }
  }
}"""
"""Where on the screen a place of the map is."""

SHOWN = """() => {
  const all = [...Bokeh.documents].flatMap((d) => [...d._all_models.values()])
  const map = all.find((m) => (m.css_classes || []).includes("geoalign-map") && m.visible)
  const shown = map.renderers[0].data_source.data.image[0]
  const pair = all.map((m) => m.data).find((d) => d && d.before && d.before[0].length == shown.length)
  const share = (one) => one.reduce((n, v, i) => n + (v === shown[i]), 0) / one.length
  return [share(Array.from(pair.before[0])), share(Array.from(pair.after[0]))]
}"""
"""Which share of what is shown is from before, and which from after."""


@contextmanager
def browser(driver, profile: Path, *, width=1400, height=1000):
    """A Chromium page and what it asked for and complained of."""
    context = driver.chromium.launch_persistent_context(
        str(profile), executable_path=CHROMIUM, args=QUIET.split(), viewport={"width": width, "height": height}
    )
    page = context.pages[0]
    page.set_default_timeout(60_000)
    try:
        yield page, Seen(page)
    finally:
        context.close()


class Seen:
    """What a page asked for and complained of."""

    def __init__(self, page):
        self.requests, self.errors = [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def strangers(self):
        """What was asked of others than this machine."""
        asked = [(url, urlsplit(url)) for url in self.requests]
        return {url for url, at in asked if at.scheme not in ("data", "blob") and at.hostname != "127.0.0.1"}


def keep(page, name):
    """The page as it looks, in the folder that GEOALIGN_SCREENSHOTS names."""
    if "GEOALIGN_SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["GEOALIGN_SCREENSHOTS"]) / f"{name}.png")


def click_at(page, x, y, which=0):
    """Click a map at a place in its own coordinates."""
    page.mouse.click(*page.evaluate(PLACE, [which, x, y]))
