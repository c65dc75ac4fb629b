"""Pictures for the explorer: scenes stretched to colours, layers over them with their keys, dates counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.errors import ConfigError
from geoalign.explorer.site import LayerView, SceneView, Site
from geoalign.types.changes import STATUS, WHY, WHY_TEXT

SIDE = 720
"""Longest side of a picture, px."""

STATUS_COLOURS = {1: "#F0E442", 2: "#E69F00", 3: "#D55E00", 4: "#0072B2", 255: "#8a8a8a"}
"""Okabe and Ito's colours, which the colour-blind tell apart; no change is left clear."""
WHY_COLOURS = dict(zip(WHY, ("#000000", "#999999", "#56B4E9", "#0072B2", "#CC79A7", "#E69F00", "#D55E00", "#F0E442",
                             "#009E73")))  # fmt: skip
OVERLAYS = {
    "date": "date of change", "probability": "probability", "status": "status",
    "observability": "observability (why not)", "sigma": "alignment error (σ)", "none": "nothing",
}  # fmt: skip


@dataclass(frozen=True)
class Window:
    """Rows and cols (start, stop) of the grid, every `step`-th pixel."""

    rows: tuple[int, int]
    cols: tuple[int, int]
    step: int = 1

    @property
    def args(self):
        return self.rows, self.cols, self.step


def window_for(shape, rows=None, cols=None, *, margin: float = 0.0, side: int = SIDE) -> Window:
    """The window that shows rows and cols (low, high; floats, all by default), at a step that keeps it within `side`.

    margin : share of its size added on every side, so that a small pan needs no other

    Examples
    --------
    >>> window_for((10980, 10980))
    Window(rows=(0, 10980), cols=(0, 10980), step=16)
    """
    spans = []
    for span, most in zip((rows, cols), shape):
        low, high = (0.0, float(most)) if span is None else (min(span), max(span))
        wide = margin * (high - low)
        spans.append((low - wide, high + wide))
    step = 1
    while max(high - low for low, high in spans) / step > side * (1 + 2 * margin):
        step *= 2
    out = []
    for (low, high), most in zip(spans, shape):
        first = int(np.clip(np.floor(low), 0, most - 1)) // step * step
        out.append((first, int(np.clip(np.ceil(high), first + 1, most))))
    return Window(out[0], out[1], step)


def bands_shown(view: SceneView) -> list[str]:
    """The bands that make a picture: true colour, both polarisations, or the first."""
    for wanted in (("red", "green", "blue"), ("swir1", "nir", "red"), ("vv", "vh"), ("hh", "hv")):
        if all(band in view.bands for band in wanted):
            return list(wanted)
    return view.bands[:1]


def stretch_of(view: SceneView, names) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of each channel over a few scenes spread over the series: one stretch for all dates."""
    n = len(view.scenes)
    usable = [k for k in range(n) if view.scenes[k] not in view.rejected] or list(range(n))
    chosen = sorted({usable[int(i)] for i in np.linspace(0, len(usable) - 1, 5)})
    window = window_for(view.shape, side=160)
    seen = [_channels(view, view.window(k, names, *window.args), names).reshape(-1, 3) for k in chosen]
    flat = np.concatenate(seen)
    flat = flat[np.isfinite(flat).all(axis=1)]
    if flat.size == 0:
        return np.zeros(3), np.ones(3)
    low, high = np.percentile(flat, (2, 98), axis=0)
    return low, np.where(high > low, high, low + 1)


def stretch_for(site: Site, view: SceneView) -> tuple[np.ndarray, np.ndarray]:
    """`stretch_of` the bands that are shown, made once."""
    return site.once(("stretch", view.name), lambda: stretch_of(view, bands_shown(view)))


def picture(view: SceneView, k: int, window: Window, stretch, names=None, *, aligned=True, masked=True) -> np.ndarray:
    """Scene k as (row, col, 4) uint8; clear where nothing was observed."""
    names = names or bands_shown(view)
    values = _channels(view, view.window(k, names, *window.args, aligned=aligned, masked=masked), names)
    seen = np.isfinite(values).all(axis=-1)
    low, high = stretch
    scaled = np.clip((np.where(seen[..., None], values, low) - low) / (high - low), 0, 1)
    out = np.zeros((*seen.shape, 4), np.uint8)
    out[..., :3] = np.round(255 * scaled**0.8)
    out[..., 3] = np.where(seen, 255, 0)
    return out


def _channels(view, values, names):
    """(row, col, 3) of bands (band, row, col): SAR in dB, two polarisations as orange against blue with their mean."""
    layers = list(values)
    if view.sar:
        layers = [decibel(v) for v in layers]
        if len(layers) == 2:
            layers.insert(1, (layers[0] + layers[1]) / 2)  # red against green the colour-blind can't tell apart
    return np.stack(layers if len(layers) == 3 else layers[:1] * 3, axis=-1)


def decibel(power):
    seen = power > 0
    return np.where(seen, 10 * np.log10(np.where(seen, power, 1)), np.nan).astype(np.float32)


@dataclass(frozen=True)
class Overlay:
    """A layer as a picture (row, col, 4) uint8, with its key: [(colour, text)], or a ramp of colours with its ends."""

    pixels: np.ndarray
    key: list[tuple[str, str]]
    ramp: bool = False


def overlay(layer: LayerView | None, what: str, window: Window, view: SceneView, k: int, dates=None) -> Overlay:
    """One of `OVERLAYS` of a layer in a window. k: the scene shown, for its sigma; dates: (first, last) of the ramp.

    Raises
    ------
    ConfigError
        `what` is not one of `OVERLAYS`.
    """
    if what not in OVERLAYS:
        raise ConfigError(f"overlay {what!r} is unknown; there are {', '.join(OVERLAYS)}.")
    if what == "sigma":
        return _sigma(view, k, window)
    if layer is None or what == "none":
        return Overlay(np.zeros((1, 1, 4), np.uint8), [])
    status = layer.window("status", *window.args)
    found = (status >= 1) & (status <= 4)
    if what == "status":
        out = np.zeros((*status.shape, 4), np.uint8)
        for code, colour in STATUS_COLOURS.items():
            out[status == code] = (*_rgb(colour), 255)
        return Overlay(out, [(c, STATUS[code].replace("_", " ")) for code, c in STATUS_COLOURS.items()
                             if (status == code).any()])  # fmt: skip
    if what == "observability":
        why = layer.window("why", *window.args)
        out, key = np.zeros((*why.shape, 4), np.uint8), []
        for name, bit in WHY.items():
            at = (why & bit) > 0
            if at.any():
                out[at] = (*_rgb(WHY_COLOURS[name]), 255)
                key.append((WHY_COLOURS[name], WHY_TEXT[name]))
        return Overlay(out, key or [("#ffffff00", "everything here could be seen")])
    if what == "probability":
        values = layer.window("probability", *window.args).astype(float)
        out = _ramp(values, "cividis")
        out[~(values > 0.005), 3] = 0
        return Overlay(out, [*_stops("cividis"), ("", "0"), ("", "1")], ramp=True)
    days = layer.window("date", *window.args).astype("datetime64[D]")
    at = found & ~np.isnat(days)
    number = np.where(at, days.astype(np.int64), np.nan)
    low, high = dates if dates is not None else (np.nanmin(number), np.nanmax(number)) if at.any() else (0, 1)
    out = _ramp((number - low) / max(high - low, 1), "viridis")
    out[~at, 3] = 0
    if not at.any() and dates is None:
        return Overlay(out, [("#ffffff00", "no change found here")])
    return Overlay(out, [*_stops("viridis"), ("", str(np.datetime64(int(low), "D"))),
                         ("", str(np.datetime64(int(high), "D")))], ramp=True)  # fmt: skip


def _sigma(view, k, window):
    sigma = view.sigma(k, *window.args)
    if sigma is None or not np.isfinite(sigma).any():
        return Overlay(np.zeros((1, 1, 4), np.uint8), [("#ffffff00", "the alignment of this scene is not known")])
    high = 1.0 if np.nanmax(sigma) <= 1.0 else float(np.nanmax(sigma))
    out = _ramp(np.atleast_2d(np.asarray(sigma, float)) / high, "cividis")
    text = f"{sigma:.3f} px in this scene" if np.ndim(sigma) == 0 else f"{np.nanmedian(sigma):.3f} px (median)"
    return Overlay(out, [*_stops("cividis"), ("", "0 px"), ("", f"{high:g} px; {text}")], ramp=True)


def _ramp(values, name):
    import matplotlib as mpl

    out = np.asarray(mpl.colormaps[name](np.clip(np.nan_to_num(values), 0, 1), bytes=True)).copy()
    out[~np.isfinite(values), 3] = 0
    return out


def _stops(name):
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return [(to_hex(mpl.colormaps[name](t)), "") for t in np.linspace(0, 1, 7)]


def _rgb(colour):
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def histogram(layer: LayerView, view: SceneView) -> dict[str, int]:
    """Changed pixels by date of change. Of large layers every step-th pixel is counted, and stands for step squared."""
    window = window_for(view.shape, side=2 * SIDE)
    status, date = (layer.window(name, *window.args) for name in ("status", "date"))
    days = date.astype("datetime64[D]")[(status == 3) | (status == 4)]
    names, counts = np.unique(days[~np.isnat(days)], return_counts=True)
    return {str(day): int(n) * window.step**2 for day, n in zip(names, counts)}
