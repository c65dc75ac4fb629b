"""When it changed: the map of dates, one pixel's series, dates counted, what probabilities are worth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import dates as mdates
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from geoalign.errors import StackError
from geoalign.plot import sheet
from geoalign.plot.sheet import BLUE, GREY, ORANGE, RED, Sheet, map_size, round_below
from geoalign.types.changes import NOT_OBSERVABLE, changed
from geoalign.types.stack import SAR_BANDS, pixel_size_m


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
    figure = Sheet(figsize=map_size(days.shape), layout="constrained")
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
    figure = Sheet(figsize=(8, 0.6 + 1.7 * len(names)), layout="constrained")
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


def date_histogram(counts: dict[str, int], *, pixel_ha: float | None = None) -> Figure:
    """Bars of the changed area (or pixels) by date of change.

    counts : day as text -> pixels (as in a run's manifest); pixel_ha : area of a pixel, None for pixel counts
    """
    figure = Sheet(figsize=(6.5, 2.6), layout="constrained")
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


def reliability(result, *, prior: float | None = None, title: str | None = None) -> Figure:
    """Reliability diagram: of pixels given a probability, the share that changed, and below how many pixels that were.

    Parameters
    ----------
    result : accuracy.Reliability
        Of `accuracy.reliability`.
    prior : float, optional
        The share of change that was assumed, drawn as a line: who says this everywhere knows nothing.
    title : str, optional

    Returns
    -------
    Figure: points on the diagonal are right; above it more changed than was said. Bars are 95 % intervals (Wilson) as
    if pixels were independent, which neighbours are not: they are the least there is.

    Examples
    --------
    >>> from geoalign.accuracy import reliability as measure
    >>> p = np.repeat([0.1, 0.8], 10)
    >>> figure = reliability(measure(p, np.arange(20) % 10 < 10 * p))
    """
    table = result.table[result.table["n"] > 0]
    figure = Sheet(figsize=(4.6, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="dashed", label="says what it means")
    if prior is not None:
        upper.axhline(prior, color=GREY, linewidth=0.8, linestyle="dotted", label=f"prior {prior:g}")
    x, share, n = (table[name].to_numpy(float) for name in ("predicted", "observed", "n"))
    centre = (share + 1.92 / n) / (1 + 3.84 / n)
    half = 1.96 * np.sqrt(share * (1 - share) / n + 0.96 / n**2) / (1 + 3.84 / n)
    bars = np.clip([share - (centre - half), centre + half - share], 0, None)
    upper.errorbar(x, share, bars, fmt="o-", color=BLUE, linewidth=1, markersize=5, capsize=2, label="measured")
    upper.set(ylabel="share that changed", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    upper.legend(loc="lower right", fontsize=8)
    upper.set_title(title or f"calibration error {result.error:.3f}, Brier score {result.brier:.3f}", fontsize=10)
    lower.bar(table["low"], n, width=table["high"] - table["low"], align="edge", color=BLUE, edgecolor="white")
    lower.set(xlabel="probability that was given", ylabel="pixels", yscale="log")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
    return figure


def _reduced(changes):
    """Days of change (float, NaN none) and where nothing could be seen, at a size fit for drawing."""
    step = max(1, -(-max(changes.sizes["y"], changes.sizes["x"]) // sheet.LONGEST))
    where = changed(changes)
    nanoseconds = changes.date.astype("datetime64[ns]").astype("int64")
    days = (nanoseconds // 86_400_000_000_000).where(where & changes.date.notnull()).astype("float64")
    unseen = changes.status == NOT_OBSERVABLE
    if step > 1:
        days = days.coarsen(y=step, x=step, boundary="pad").max()
        unseen = unseen.astype("float32").coarsen(y=step, x=step, boundary="pad").mean() > 0.5
    return np.asarray(days.values), np.asarray(unseen.values, bool)


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
    length = round_below(max(target, 1e-9))
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
