"""Figures: what is drawn is what was given, in the right place and units."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.quiver import Quiver, QuiverKey
from PIL import Image

from geoalign import Affine, Alignment, Match, Shift, StackError, accuracy, new_changes, new_stack, plot
from geoalign.types.alignment import REPORT_COLUMNS, TIE_POINT_COLUMNS
from tests.worlds import geobox

DAY = np.datetime64("2024-05-01", "ns")


def made(shape=(40, 60), place=(slice(5, 9), slice(10, 20)), box=True):
    status = np.zeros(shape, np.uint8)
    status[place] = 3
    status[-3:] = 255
    coords = dict(new_stack({"vv": np.ones((1, *shape))}, ["2024-01-01"], geobox=geobox(shape) if box else None).coords)
    coords = {k: v for k, v in coords.items() if k in ("y", "x", "spatial_ref")}

    def layer(values):
        return xr.DataArray(values, dims=("y", "x"), coords=coords)

    date = np.where(status == 3, DAY, np.datetime64("NaT", "ns"))
    step = np.timedelta64(6, "D")
    zero = np.zeros(shape)
    layers = {
        "status": layer(status), "date": layer(date), "date_after": layer(date - step), "date_by": layer(date),
        "magnitude": layer(zero), "direction": layer(zero), "probability": layer(zero), "n_obs": layer(zero),
        "why": layer(np.where(status == 255, 1, 0)),
    }  # fmt: skip
    return new_changes(layers, kind="flood", detector="by hand")


def images(figure):
    return [image for axes in figure.axes for image in axes.get_images()]


def test_dates_are_drawn_where_they_are_with_a_date_bar():
    figure = plot.change_dates(made())
    dates = np.ma.filled(images(figure)[-1].get_array().astype(float), np.nan)
    assert np.isfinite(dates).sum() == 40
    assert np.isfinite(dates[5:9, 10:20]).all()
    figure.draw_without_rendering()
    labels = [t.get_text() for t in figure.axes[1].get_yticklabels()]
    assert labels == ["2024-05-01"]


def test_the_scale_bar_has_a_round_length():
    texts = {t.get_text() for t in plot.change_dates(made()).axes[0].texts}
    assert texts == {"100 m"}  # a fifth of 60 pixels of 10 m is 120 m
    assert {t.get_text() for t in plot.change_dates(made(box=False)).axes[0].texts} == {"10 px"}


def test_a_large_layer_is_reduced_without_losing_a_pixel(monkeypatch):
    monkeypatch.setattr(plot.sheet, "LONGEST", 13)
    figure = plot.change_dates(made(place=(7, 11)).chunk({"y": 7, "x": 9}))
    dates = np.ma.filled(images(figure)[-1].get_array().astype(float), np.nan)
    assert max(dates.shape) <= 13
    assert np.isfinite(dates).sum() == 1


def test_no_change_says_so():
    figure = plot.change_dates(made(place=(slice(0, 0), slice(0, 0))))
    assert "no change found" in {t.get_text() for t in figure.axes[0].texts}


def test_a_background_of_any_size_is_taken():
    assert len(images(plot.change_dates(made(), background=np.zeros((8, 9, 3), np.uint8)))) == 3


def test_a_series_is_drawn_in_decibels_with_the_date_of_change():
    values = np.full((4, 40, 60), 0.1)
    values[2:, 6, 12] = 0.01
    stack = new_stack({"vv": values}, ["2024-04-01", "2024-04-25", "2024-05-01", "2024-05-13"], geobox=geobox((40, 60)))
    y, x = float(stack.y[6]), float(stack.x[12])
    figure = plot.series(stack, y + 3, x - 3, changes=made())
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([-10, -10, -20, -20], abs=1e-4)
    assert "2024-05-01" in figure.axes[0].get_title()
    with pytest.raises(StackError, match="outside"):
        plot.series(stack, y + 1e6, x)


def alignment():
    rows = [
        ("a", "reference", 0, 0, 0, np.nan, 0, 0, 0, np.nan, np.nan, np.nan, np.nan, "", "", ""),
        ("b", "aligned", 1.5, -0.5, 0.1, 0.2, 2, 0.05, 1, 2, 0.3, 3, 0.1, "phase", "shift", ""),
        (
            "c",
            "rejected",
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            0,
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            "",
            "",
            "flat",
        ),
    ]
    points = pd.DataFrame([dict.fromkeys(TIE_POINT_COLUMNS, 0.1) | {"scene": "b", "use": u} for u in ("fit", "check")])
    return Alignment("a", {"b": Shift(1.5, -0.5)}, pd.DataFrame(rows, columns=REPORT_COLUMNS), None, (40, 60), points)


def test_displacements_are_drawn_for_aligned_scenes_only():
    figure = plot.registration(alignment())
    dy, dx = (line.get_ydata() for line in figure.axes[0].lines[:2])
    assert list(dy) == [0, 1.5]
    assert list(dx) == [0, -0.5]


def test_residuals_are_drawn_by_use_and_reason_with_a_key():
    made = alignment()
    rejected = pd.DataFrame([dict.fromkeys(TIE_POINT_COLUMNS, 3.0) | {"scene": "b", "use": "rejected", "reason": r}
                             for r in ("cloud", "cloud", "outlier")])  # fmt: skip
    made.points.loc[1, "dx_residual"] = 0.3
    figure = plot.residuals(dataclasses.replace(made, points=pd.concat([made.points, rejected], ignore_index=True)))
    axes = figure.axes[0]
    assert axes.get_title() == "b: residuals\nrmse 0.100 px, held out 0.200 px, CE90 0.300 px"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["used (1)", "held out (1)", "cloud (2)", "outlier (1)"]
    assert figure.findobj(QuiverKey)[0].text.get_text() == "0.2 px"
    arrows = figure.findobj(Quiver)[0]
    assert arrows.U[1] / arrows.U[0] == pytest.approx(3)


def test_residuals_of_an_unknown_scene_are_refused():
    with pytest.raises(StackError, match="scenes with some: b"):
        plot.residuals(alignment(), "c")


def test_drift_is_drawn_over_time_with_its_error_and_status():
    days = ["2024-01-01", "2024-03-01", "2024-02-01"]
    stack = new_stack({"vv": np.ones((3, 4, 4))}, sorted(days), scene=["a", "c", "b"])
    figure = plot.drift(alignment(), stack)
    for axes, value in zip(figure.axes, (1.5, -0.5)):
        bars = {c.get_label(): c for c in axes.containers}
        assert set(bars) == {"aligned (1)", "reference (1)"}
        line, _, (bar,) = bars["aligned (1)"]
        assert line.get_xdata()[0] == np.datetime64("2024-03-01")
        assert line.get_ydata()[0] == value
        assert np.ptp(bar.get_segments()[0][:, 1]) == pytest.approx(2 * 0.05)
        assert [line.get_label() for line in axes.lines if line.get_label().startswith("rej")] == ["rejected (1)"]
    given = plot.drift(alignment().report, dict(zip("abc", days)))
    assert given.axes[0].containers[0][0].get_xdata()[0] == np.datetime64("2024-03-01")
    assert plot.drift(alignment()).axes[0].containers[0][0].get_xdata()[0] == 2
    with pytest.raises(StackError, match="no time is known of c"):
        plot.drift(alignment(), {"a": days[0], "b": days[1]})
    with pytest.raises(StackError, match="2 times"):
        plot.drift(alignment(), days[:2])


def test_the_map_of_sigma_shows_where_the_warp_is_known():
    points = pd.DataFrame([dict.fromkeys(TIE_POINT_COLUMNS, 3.0) | {"use": "fit"}])
    found = Match(Affine(np.eye(2, 3)), np.diag([1e-6, 0, 0.01] * 2), 1, 0, 9, "test", points)
    figure = plot.sigma(found, (40, 60))
    drawn = images(figure)[0].get_array()
    assert drawn.shape == (40, 60)
    assert drawn[39, 0] == pytest.approx(np.sqrt(0.01 + 39**2 * 1e-6))
    assert images(plot.sigma(xr.DataArray(drawn, dims=("y", "x"))))[0].get_array()[5, 7] == drawn[5, 7]
    with pytest.raises(StackError, match="shape="):
        plot.sigma(found)
    with pytest.raises(StackError, match="one scene"):
        plot.sigma(np.ones((3, 4, 5)))


def test_a_flicker_alternates_the_reference_and_the_scenes(tmp_path):
    ground = np.zeros((40, 50))
    ground[10:20, 5:15] = 1
    moved, gap = np.roll(ground, 20, 1), ground.copy()
    gap[30:] = np.nan
    made = plot.flicker(ground, moved, gap)
    with Image.open(made.save(tmp_path / "f.gif")) as gif:
        assert gif.n_frames == made.frames == 2
        scale = (gif.width - 6) // 100
        first = np.asarray(gif.convert("L"))[scale // 2 :: scale]
        gif.seek(1)
        second = np.asarray(gif.convert("L"))[scale // 2 :: scale]
    left, right = slice(0, 50 * scale), slice(50 * scale + 6, None)
    np.testing.assert_array_equal(first[:, left], first[:, right])
    np.testing.assert_array_equal(second[:, right], first[:, right])
    assert (second[15, left] != first[15, left]).any()
    assert made._repr_html_().startswith("<img alt=")
    for wrong in ((ground,), (ground, ground[:5])):
        with pytest.raises(StackError, match="at least one scene"):
            plot.flicker(*wrong)
    with pytest.raises(StackError, match="1 labels"):
        plot.flicker(ground, moved, gap, labels=("a",))


def test_a_histogram_has_a_bar_a_date():
    axes = plot.date_histogram({"2024-05-01": 30, "2024-06-01": 10}, pixel_ha=0.01).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.3, 0.1])
    assert plot.date_histogram({}).axes[0].patches == [] or len(plot.date_histogram({}).axes[0].patches) == 0


def test_a_figure_shows_itself_without_pyplot():
    assert plot.date_histogram({"2024-05-01": 3})._repr_png_().startswith(b"\x89PNG")


def test_a_reliability_diagram_shows_what_was_said_and_what_happened():
    rng = np.random.default_rng(0)
    said = rng.random(20_000)
    figure = plot.reliability(accuracy.reliability(said, rng.random(said.size) < said), prior=0.5)
    upper, lower = figure.axes
    points = next(line for line in upper.lines if line.get_marker() == "o")
    x, y = points.get_data()
    assert len(x) == 10
    assert np.abs(x - y).max() < 0.05
    low, high = (np.array([s[k][1] for s in upper.collections[0].get_segments()]) for k in (0, 1))
    assert ((low < x) & (x < high)).mean() > 0.7
    assert sum(bar.get_height() for bar in lower.patches) == said.size
    nothing = plot.reliability(accuracy.reliability(np.zeros(5), np.zeros(5, bool)))
    assert nothing.axes[0].lines[1].get_ydata().tolist() == [0]
