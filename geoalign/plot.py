"""Figures people look at: when it changed, one pixel's series, how the scenes lie.

Each function returns a `matplotlib.figure.Figure` that shows itself in a notebook and is saved with `.savefig(path)`;
no display is needed. Colours are safe for the colour-blind (viridis; Okabe and Ito 2008).
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import dates as mdates
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from geoalign.errors import StackError
from geoalign.types.changes import NOT_OBSERVABLE, changed
from geoalign.types.stack import SAR_BANDS, pixel_size_m

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#888888"
CROSSES = ("x", "+", "1", "2")
"""Marks of the commonest reasons for which tie points were rejected."""
LONGEST = 1000
"""Longest side of a drawn map, px; larger layers are reduced so that no changed pixel is lost."""


class _Figure(Figure):
    """A Figure that a notebook shows without pyplot."""

    def _repr_png_(self):
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=110, bbox_inches="tight")
        return stream.getvalue()


def change_dates(changes, *, background=None, title: str | None = None) -> Figure:
    """Map of the dates of change, with a date colour bar, legend and scale bar.

    Parameters
    ----------
    changes : Changes (y, x)
        May be lazy.
    background : array (row, col) or (row, col, 3) of 0..1 or uint8, optional
        A picture of the same area to draw under the dates, of any size.
    title : str, optional
        By default what kind of change it is and over how many dates.

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = change_dates(geoalign.read_changes("out/latest/layers/flood"))  # doctest: +SKIP
    """
    days, unseen = _reduced(changes)
    figure = _Figure(figsize=_map_size(days.shape), layout="constrained")
    axes = figure.add_subplot()
    extent = (-0.5, days.shape[1] - 0.5, days.shape[0] - 0.5, -0.5)
    if background is not None:
        axes.imshow(_soft_grey(background), extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.set_facecolor("#f4f4f4")
    if unseen.any():
        shade = np.where(unseen, 1.0, np.nan)
        axes.imshow(shade, extent=extent, cmap=ListedColormap(["#b9a9c9"]), alpha=0.8, interpolation="nearest")
    found = np.isfinite(days)
    if found.any():
        low, high = float(np.nanmin(days)), float(np.nanmax(days))
        norm = Normalize(low - 0.5, high + 0.5) if low == high else Normalize(low, high)
        image = axes.imshow(days, extent=extent, cmap="viridis", norm=norm, interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02)
        _date_ticks(bar, np.unique(days[found]))
        bar.set_label("first changed observation (UTC)")
    else:
        axes.text(0.5, 0.5, "no change found", transform=axes.transAxes, ha="center", va="center", fontsize=13)
    step = changes.sizes["x"] / days.shape[1]
    _scale_bar(axes, pixel_size_m(changes), step, days.shape)
    if unseen.any():
        axes.plot([], [], "s", color="#b9a9c9", label="not observable")
        axes.legend(loc="upper right", fontsize=8, framealpha=0.9)
    axes.set(
        xticks=[],
        yticks=[],
        title=title if title is not None else f"{changes.attrs.get('kind', 'change')}: dates of change",
    )
    return figure


def series(stack, y: float, x: float, *, bands=None, changes=None) -> Figure:
    """Series of one pixel: a panel a band, SAR in dB; with `changes`, its date and interval.

    Parameters
    ----------
    stack : Stack (time, y, x)
    y, x : coordinates in the stack's CRS (pixel numbers where it has none); the nearest pixel is taken
    bands : names, all by default
    changes : Changes (y, x) on the same grid, optional

    Returns
    -------
    Figure

    Raises
    ------
    StackError
        The point lies outside the stack.
    """
    for name, value in (("y", y), ("x", x)):
        axis = stack[name].values
        half = abs(axis[1] - axis[0]) / 2 if axis.size > 1 else 0.5
        if not axis.min() - half <= value <= axis.max() + half:
            raise StackError(f"{name} = {value} lies outside the stack ({axis.min()} to {axis.max()}).")
    names = list(bands or map(str, stack.data_vars))
    pixel = stack[names].sel(y=y, x=x, method="nearest").compute()
    figure = _Figure(figsize=(8, 0.6 + 1.7 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names):
        values = pixel[name].values
        if name in SAR_BANDS:
            values = 10 * np.log10(np.where(values > 0, values, np.nan))
        axes.plot(pixel.time.values, values, "o-", ms=3.5, lw=0.8, color=BLUE)
        axes.set_ylabel(f"{name} (dB)" if name in SAR_BANDS else name)
        axes.grid(alpha=0.25)
    if changes is not None:
        point = changes[["status", "date", "date_after", "date_by"]].sel(y=y, x=x, method="nearest").compute()
        if not np.isnat(point.date.values):
            for axes in panels:
                if not np.isnat(point.date_after.values) and not np.isnat(point.date_by.values):
                    axes.axvspan(point.date_after.values, point.date_by.values, color=ORANGE, alpha=0.25, lw=0)
                axes.axvline(point.date.values, color=RED, lw=1.4)
            panels[0].set_title(
                f"change: {str(point.date.values)[:10]} (after {str(point.date_after.values)[:10]})", fontsize=10
            )
    panels[-1].xaxis.set_major_formatter(mdates.ConciseDateFormatter(panels[-1].xaxis.get_major_locator()))
    figure.suptitle(f"y {y:.10g}, x {x:.10g}", fontsize=10)
    return figure


def residuals(alignment, scene: str | None = None, *, exaggerate: float | None = None) -> Figure:
    """Tie points of one scene: used, held out or rejected and why, and what the warp leaves of each as an arrow.

    Parameters
    ----------
    alignment : Alignment
    scene : scene id; by default the scene whose residual is largest
    exaggerate : length of an arrow in px for a residual of one px; by default so that the largest can be seen. A key
        says what an arrow stands for.

    Returns
    -------
    Figure

    Raises
    ------
    StackError
        The scene has no tie points.
    """
    points = alignment.points
    if scene is None:
        ranked = alignment.report[alignment.report.scene.isin(set(points["scene"]))].sort_values(
            "rmse_px", ascending=False
        )
        scene = ranked.scene.iloc[0] if len(ranked) else ""
    points = points[points["scene"] == scene]
    if points.empty:
        known = ", ".join(map(str, pd.unique(alignment.points["scene"]))) or "none"
        raise StackError(f"scene {scene!r} has no tie points; scenes with some: {known}.")
    kept = points[points["use"] != "rejected"]
    length = np.hypot(kept["dy_residual"], kept["dx_residual"])
    largest = float(length.max()) if len(kept) and np.isfinite(length).any() else 0.0
    if exaggerate is None:
        exaggerate = max(alignment.shape) / 15 / largest if largest > 0 else 1.0
    width, height = _map_size(alignment.shape)
    figure = _Figure(figsize=(width + 1.8, height), layout="constrained")
    axes = figure.add_subplot()
    out = points["use"] == "rejected"
    why = points["reason"].where(points["reason"].astype(bool), "rejected")
    # the commonest reasons by name: a scene has few of them, and a legend has little room
    named = why[out].value_counts().index[: len(CROSSES)].tolist()
    groups = [("used", points["use"] == "fit", BLUE, "o"), ("held out", points["use"] == "check", ORANGE, "^")]
    groups += [(_short(reason), out & (why == reason), GREY, marker) for reason, marker in zip(named, CROSSES)]
    groups.append(("other reasons", out & ~why.isin(named), GREY, "."))
    for label, rows, colour, marker in groups:
        part = points[rows]
        if len(part):
            axes.scatter(
                part["col"], part["row"], s=18, c=colour, marker=marker, lw=0.9 if marker in CROSSES else 0,
                label=f"{label} ({len(part)})", zorder=3,
            )  # fmt: skip
    arrows = axes.quiver(
        kept["col"], kept["row"], kept["dx_residual"] * exaggerate, kept["dy_residual"] * exaggerate,
        angles="xy", scale_units="xy", scale=1, width=0.0025, color=RED, zorder=2,
    )  # fmt: skip
    if largest > 0:
        key = _round_below(largest)
        axes.quiverkey(arrows, 1.06, 0.04, key * exaggerate, f"{key:g} px", labelpos="E", coordinates="axes")
    row = alignment.report[alignment.report["scene"] == scene]
    figures = [f"{name} {row[column].iloc[0]:.3f} px" for name, column in
               (("rmse", "rmse_px"), ("held out", "cv_px"), ("CE90", "ce90_px"))
               if column in row and len(row) and np.isfinite(row[column].iloc[0])]  # fmt: skip
    axes.set(
        xlim=(0, alignment.shape[1]), ylim=(alignment.shape[0], 0), aspect="equal",
        xlabel="column (px)", ylabel="row (px)",
    )  # fmt: skip
    axes.set_title("\n".join(filter(None, (f"{scene}: residuals", ", ".join(figures)))), fontsize=10)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, frameon=False)
    return figure


def drift(alignment, times=None, *, title: str | None = None) -> Figure:
    """Where each scene lay on the reference, over time: mean displacement with its predicted error, by status.

    Parameters
    ----------
    alignment : Alignment, or its report (a DataFrame)
    times : Stack, dict scene -> time, or times in the order of the report
        None numbers the scenes.
    title : str, optional

    Returns
    -------
    Figure with dy above and dx below, px. Bars are 1 sigma (an axis); scenes without an answer are marked on the axis.

    Raises
    ------
    StackError
        The times are not those of the scenes.
    """
    report = alignment if isinstance(alignment, pd.DataFrame) else alignment.report
    at, dated = _times_of(report, times)
    status = report["status"].to_numpy(str)
    sigma = report["sigma_px"].to_numpy(float)
    figure = _Figure(figsize=(8, 4.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, name in zip(panels, ("dy", "dx")):
        values = report[name].to_numpy(float)
        axes.axhline(0, color=GREY, lw=0.7, zorder=1)
        found = np.isin(status, ("aligned", "reference")) & np.isfinite(values)
        order = np.argsort(at[found], kind="stable")
        axes.plot(at[found][order], values[found][order], lw=0.6, color=GREY, zorder=1)
        for kind, colour, marker in (("aligned", BLUE, "o"), ("reference", GREEN, "D")):
            rows = found & (status == kind)
            if rows.any():
                axes.errorbar(
                    at[rows], values[rows], yerr=np.nan_to_num(sigma[rows]), fmt=marker, ms=4.5, color=colour,
                    elinewidth=1, capsize=2.5, label=f"{kind} ({rows.sum()})", zorder=3,
                )  # fmt: skip
        for kind, colour in (("rejected", RED), ("failed", "black")):
            rows = status == kind
            if rows.any():
                axes.plot(
                    at[rows], np.zeros(rows.sum()), "x", ms=6, mew=1.6, color=colour, label=f"{kind} ({rows.sum()})",
                    transform=axes.get_xaxis_transform(), clip_on=False, zorder=4,
                )  # fmt: skip
        axes.set_ylabel(f"{name} (px)")
        axes.grid(alpha=0.25)
    panels[0].legend(fontsize=8, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 0.98))
    if dated:
        locator = mdates.AutoDateLocator()
        panels[1].xaxis.set_major_locator(locator)
        panels[1].xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    else:
        panels[1].set_xlabel("scene")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def sigma(match, shape=None, *, title: str | None = None) -> Figure:
    """Map of the predicted 1-sigma error of an alignment, an axis, in px.

    Parameters
    ----------
    match : Match, or DataArray (y, x) as `aligned.sigma_px.isel(time=0)` where that varies over the image
        Of a Match the tie points that were used are drawn too: the error grows away from them.
    shape : (row, col) of the reference image, px; for a Match
    title : str, optional

    Returns
    -------
    Figure

    Raises
    ------
    StackError
        Neither a map nor a Match with a shape was given.
    """
    points = None
    if hasattr(match, "warp"):
        if shape is None:
            raise StackError("a Match does not know the size of its image; give shape=(rows, cols).")
        step = max(1, -(-max(shape) // 256))
        rows, cols = np.mgrid[0 : shape[0] : step, 0 : shape[1] : step].astype(float)
        values = match.sigma_px(rows, cols)
        if "use" in match.tie_points:
            points = match.tie_points[match.tie_points["use"] == "fit"]
    else:
        values = np.asarray(match, float)
        if values.ndim != 2:
            raise StackError(f"sigma has the shape {values.shape}; a map (y, x) is needed: choose one scene.")
        shape = values.shape
    figure = _Figure(figsize=_map_size(shape), layout="constrained")
    axes = figure.add_subplot()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # one value everywhere (a shift) is one colour, not the rounding of the arithmetic
    norm = Normalize(low, high) if high - low > 1e-3 * high else Normalize(0, 2 * high or 1)
    image = axes.imshow(
        values, cmap="viridis", norm=norm, extent=(-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5), interpolation="nearest"
    )
    if points is not None and len(points):
        axes.scatter(points["col"], points["row"], s=6, c="white", lw=0, alpha=0.8, label=f"used ({len(points)})")
        axes.legend(fontsize=8, loc="upper right", facecolor="#444444", labelcolor="white")
    figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02).set_label("predicted error, 1 sigma an axis (px)")
    axes.set(xlabel="column (px)", ylabel="row (px)", title=title or f"median {np.nanmedian(values):.3f} px")
    return figure


def flicker(reference, *scenes, labels=None, seconds: float = 0.7) -> Flicker:
    """Scenes that flicker against a reference, side by side: what lies still is aligned.

    Parameters
    ----------
    reference : array or DataArray (row, col)
    scenes : the same, one or more: as delivered and aligned, say
    labels : a word for each scene, written over it
    seconds : how long each picture stays

    Returns
    -------
    Flicker : an animation that a notebook shows; `.save("flicker.gif")` writes it.

    Raises
    ------
    StackError
        No scene was given, or one has another shape than the reference.

    Examples
    --------
    >>> import numpy as np
    >>> ground = np.random.default_rng(0).random((64, 64))
    >>> flicker(ground, np.roll(ground, 2, 0), ground, labels=("as delivered", "aligned")).frames
    2
    """
    images = [np.asarray(image, float) for image in (reference, *scenes)]
    labels = list(labels or [""] * len(scenes))
    if not scenes or any(image.shape != images[0].shape or image.ndim != 2 for image in images):
        shapes = ", ".join(str(image.shape) for image in images)
        raise StackError(f"flicker needs a reference and at least one scene of its shape (row, col); got {shapes}.")
    if len(labels) != len(scenes):
        raise StackError(f"{len(labels)} labels were given for {len(scenes)} scenes.")
    return Flicker(_flicker_gif(images, labels, seconds), 2)


@dataclass(frozen=True)
class Flicker:
    """An animated GIF that shows itself in a notebook. content : its bytes; frames : how many pictures alternate"""

    content: bytes = field(repr=False)
    frames: int

    def _repr_html_(self):
        return f'<img alt="flicker" src="data:image/gif;base64,{base64.b64encode(self.content).decode()}">'

    def save(self, path) -> Path:
        """Write the GIF."""
        Path(path).write_bytes(self.content)
        return Path(path)


def registration(alignment, *, title: str | None = None) -> Figure:
    """How each scene lay, and how well it lies now: displacement above, residuals of fitted and held-out points below.

    Parameters
    ----------
    alignment : Alignment, or its report (a DataFrame)
    title : str, optional

    Returns
    -------
    Figure
    """
    report = alignment if isinstance(alignment, pd.DataFrame) else alignment.report
    n = len(report)
    at = np.arange(n)
    figure = _Figure(figsize=(min(14, max(6.5, 2.5 + 0.28 * n)), 4.6), layout="constrained")
    top, low = figure.subplots(2, 1, sharex=True)
    used = report.status.isin(["aligned", "reference"]).to_numpy()
    for name, colour, marker in (("dy", BLUE, "o"), ("dx", ORANGE, "s")):
        values = report[name].to_numpy(float)
        top.plot(at[used], values[used], marker, ms=4.5, color=colour, label=f"{name} (px)")
    top.axhline(0, color=GREY, lw=0.7)
    top.set_ylabel("displacement (px)")
    low.bar(
        at - 0.2,
        np.where(used, report.rmse_px.to_numpy(float), np.nan),
        0.38,
        color=BLUE,
        label="RMSE of fitted points",
    )
    low.bar(
        at + 0.2,
        np.where(used, report.cv_px.to_numpy(float), np.nan),
        0.38,
        color=ORANGE,
        label="RMSE of points held out",
    )
    low.set_ylabel("residual (px)")
    for axes in (top, low):
        for i in at[~used]:
            axes.axvspan(i - 0.5, i + 0.5, color=RED, alpha=0.15, lw=0)
        axes.grid(axis="y", alpha=0.25)
    if (~used).any():
        low.bar([0], [0], color=RED, alpha=0.15, label="not aligned")
    for axes in (top, low):
        axes.legend(
            fontsize=8, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 0.97), borderaxespad=0.2
        )
    every = max(1, -(-n // 36))
    low.set_xticks(at[::every], [str(s)[-22:] for s in report.scene][::every], rotation=60, ha="right", fontsize=7)
    low.set_xlim(-0.6, max(n, 1) - 0.4)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def date_histogram(counts: dict[str, int], *, pixel_ha: float | None = None) -> Figure:
    """Bars of the changed area (or pixels) by date of change.

    counts : day as text -> pixels (as in a run's manifest); pixel_ha : area of a pixel, None for pixel counts
    """
    figure = _Figure(figsize=(6.5, 2.6), layout="constrained")
    axes = figure.add_subplot()
    days = pd.to_datetime(list(counts))
    heights = np.array(list(counts.values()), float) * (pixel_ha or 1.0)
    if len(days):
        span = max((days.max() - days.min()).days, 30)
        axes.bar(days, heights, width=span / 60, color=BLUE)
        axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
        axes.set_xlim(days.min() - pd.Timedelta(days=span * 0.06 + 2), days.max() + pd.Timedelta(days=span * 0.06 + 2))
    axes.set_ylabel("changed area (ha)" if pixel_ha else "changed pixels")
    axes.grid(axis="y", alpha=0.25)
    return figure


def _reduced(changes):
    """Days of change (float, NaN none) and where nothing could be seen, at a size fit for drawing."""
    step = max(1, -(-max(changes.sizes["y"], changes.sizes["x"]) // LONGEST))
    where = changed(changes)
    nanoseconds = changes.date.astype("datetime64[ns]").astype("int64")
    days = (nanoseconds // 86_400_000_000_000).where(where & changes.date.notnull()).astype("float64")
    unseen = changes.status == NOT_OBSERVABLE
    if step > 1:
        days = days.coarsen(y=step, x=step, boundary="pad").max()
        unseen = unseen.astype("float32").coarsen(y=step, x=step, boundary="pad").mean() > 0.5
    return np.asarray(days.values), np.asarray(unseen.values, bool)


def _times_of(report, times):
    """Where scenes lie on the axis of time, and whether these are dates."""
    names = report["scene"].astype(str).tolist()
    if times is None:
        return np.arange(1, len(names) + 1), False
    if hasattr(times, "coords") and "scene" in times.coords:
        times = dict(zip(times["scene"].values.astype(str).tolist(), times["time"].values))
    if isinstance(times, dict):
        missing = [name for name in names if name not in times]
        if missing:
            raise StackError(f"no time is known of {', '.join(missing[:5])}; give the stack that was aligned.")
        times = [times[name] for name in names]
    if len(times) != len(names):
        raise StackError(f"{len(times)} times were given for {len(names)} scenes.")
    return np.asarray(pd.to_datetime(list(times)).values, "datetime64[ns]"), True


def _flicker_gif(images, labels, seconds):
    from PIL import Image, ImageDraw, ImageFont

    # one stretch for each image: sensors and seasons differ in level, and what matters is where things lie
    grey = []
    for image in images:
        seen = image[np.isfinite(image)]
        low, high = np.percentile(seen, (2, 98)) if seen.size else (0.0, 1.0)
        stretched = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
        grey.append(np.nan_to_num(255 * stretched).astype(np.uint8))
    scale = max(1, round(320 / max(images[0].shape)))
    every = max(1, -(-max(images[0].shape) // LONGEST))
    gap = np.full((grey[0][::every].shape[0] * scale, 6), 255, np.uint8)
    font = ImageFont.load_default(14)
    frames = []
    for panels in ([grey[0]] * len(labels), grey[1:]):
        drawn = []
        for panel in panels:
            drawn += [gap, np.kron(panel[::every, ::every], np.ones((scale, scale), np.uint8))]
        frame = Image.fromarray(np.hstack(drawn[1:]))
        pen = ImageDraw.Draw(frame)
        for k, label in enumerate(labels):
            x = k * (drawn[1].shape[1] + 6)
            if label:
                pen.rectangle((x + 4, 4, x + 14 + pen.textlength(label, font), 24), fill=0)
                pen.text((x + 9, 6), label, 255, font)
        frames.append(frame)
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=int(1000 * seconds), loop=0)
    return stream.getvalue()


def _round_below(value):
    """The largest of 1, 2, 5 times a power of ten that is not above the value."""
    power = 10.0 ** np.floor(np.log10(value))
    return max(m * power for m in (1, 2, 5) if m * power <= value * 1.0001)


def _short(reason):
    return reason if len(reason) <= 40 else reason[:38] + "…"


def _map_size(shape):
    height, width = shape
    return (6.4, float(np.clip(6.4 * 0.84 * height / width, 2.4, 9)))


def _soft_grey(picture):
    """A picture as pale grey, so that colours on it stay legible."""
    values = np.asarray(picture, float)
    if values.max(initial=0) > 1.5:
        values = values / 255
    if values.ndim == 3:
        values = values[..., :3].mean(axis=-1)
    return 0.35 + 0.6 * values


def _date_ticks(bar, days):
    chosen = days if days.size <= 8 else days[np.unique(np.linspace(0, days.size - 1, 8).round().astype(int))]
    bar.set_ticks(chosen, labels=[str(np.datetime64(int(d), "D")) for d in chosen])


def _scale_bar(axes, pixel_m, step, shape):
    """A bar of a round length, about a fifth of the width; in px where the grid has no metres."""
    target = 0.2 * shape[1] * step * (pixel_m or 1.0)
    length = _round_below(max(target, 1e-9))
    width = length / (step * (pixel_m or 1.0))
    label = f"{length:g} px" if pixel_m is None else (f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m")
    x0, y0 = 0.04 * shape[1], 0.955 * shape[0]
    thick = 0.012 * shape[0]
    axes.add_patch(_box(x0 - 0.015 * shape[1], y0 - 5.2 * thick, width + 0.03 * shape[1], 7.4 * thick, "white", 0.8))
    axes.add_patch(_box(x0, y0, width, thick, "black", 1.0))
    axes.text(x0 + width / 2, y0 - 0.6 * thick, label, ha="center", va="bottom", fontsize=8, color="black", zorder=6)


def _box(x, y, width, height, colour, alpha):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=colour, alpha=alpha, lw=0, zorder=5)
