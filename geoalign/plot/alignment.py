"""How the scenes lie: tie points, drift over time, the predicted error, all scenes at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import dates as mdates
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from geoalign.errors import StackError
from geoalign.plot.sheet import BLUE, GREEN, GREY, ORANGE, RED, Sheet, map_size, round_below

CROSSES = ("x", "+", "1", "2")
"""Marks of the commonest reasons for which tie points were rejected."""


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
    width, height = map_size(alignment.shape)
    figure = Sheet(figsize=(width + 1.8, height), layout="constrained")
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
        key = round_below(largest)
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
    figure = Sheet(figsize=(8, 4.4), layout="constrained")
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
    figure = Sheet(figsize=map_size(shape), layout="constrained")
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
    figure = Sheet(figsize=(min(14, max(6.5, 2.5 + 0.28 * n)), 4.6), layout="constrained")
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


def _short(reason):
    return reason if len(reason) <= 40 else reason[:38] + "…"
