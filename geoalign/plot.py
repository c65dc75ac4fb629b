"""Figures people look at: when it changed, one pixel's series, how the scenes lie.

Each function returns a `matplotlib.figure.Figure` that shows itself in a notebook and is saved with `.savefig(path)`;
no display is needed. Colours are safe for the colour-blind (viridis; Okabe and Ito 2008).
"""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib import dates as mdates
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from geoalign.errors import StackError
from geoalign.types.changes import NOT_OBSERVABLE, changed
from geoalign.types.stack import SAR_BANDS, pixel_size_m

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#888888"
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
    figure.suptitle(f"y {y:g}, x {x:g}", fontsize=10)
    return figure


def tie_points(alignment, *, scene: str | None = None, exaggerate: float | None = None) -> Figure:
    """Tie points of one scene: where they are, whether fitted, held out or rejected, and their residuals as arrows.

    Parameters
    ----------
    alignment : Alignment
    scene : scene id; by default the scene whose residual is largest
    exaggerate : length of an arrow in px for a residual of one px; by default so that the largest can be seen

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
    if exaggerate is None:
        largest = float(length.max()) if len(kept) and np.isfinite(length).any() else 0.0
        exaggerate = max(alignment.shape) / 15 / largest if largest > 0 else 1.0
    figure = _Figure(figsize=_map_size(alignment.shape), layout="constrained")
    axes = figure.add_subplot()
    for use, colour, marker in (("rejected", GREY, "x"), ("fit", BLUE, "o"), ("check", ORANGE, "^")):
        part = points[points["use"] == use]
        if len(part):
            axes.scatter(
                part["col"], part["row"], s=14, c=colour, marker=marker, label=f"{use} ({len(part)})", zorder=3
            )
    axes.quiver(
        kept["col"], kept["row"], kept["dx_residual"] * exaggerate, kept["dy_residual"] * exaggerate,
        angles="xy", scale_units="xy", scale=1, width=0.0025, color=RED, zorder=2,
    )  # fmt: skip
    axes.set(
        xlim=(0, alignment.shape[1]), ylim=(alignment.shape[0], 0), aspect="equal",
        xlabel="column (px)", ylabel="row (px)", title=f"{scene}: residuals x {exaggerate:.3g}",
    )  # fmt: skip
    axes.legend(fontsize=8, loc="upper right")
    return figure


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
    power = 10.0 ** np.floor(np.log10(max(target, 1e-9)))
    length = max(m * power for m in (1, 2, 5) if m * power <= target * 1.0001)
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
