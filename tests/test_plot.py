"""Figures: what is drawn is what was given, in the right place and units."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geoalign import Alignment, Shift, StackError, new_changes, new_stack, plot
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
    monkeypatch.setattr(plot, "LONGEST", 13)
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


def test_tie_points_are_drawn_by_use_and_an_unknown_scene_is_refused():
    figure = plot.tie_points(alignment())
    assert figure.axes[0].get_title().startswith("b: ")
    assert len(figure.axes[0].collections) == 3
    with pytest.raises(StackError, match="scenes with some: b"):
        plot.tie_points(alignment(), scene="c")


def test_a_histogram_has_a_bar_a_date():
    axes = plot.date_histogram({"2024-05-01": 30, "2024-06-01": 10}, pixel_ha=0.01).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.3, 0.1])
    assert plot.date_histogram({}).axes[0].patches == [] or len(plot.date_histogram({}).axes[0].patches) == 0


def test_a_figure_shows_itself_without_pyplot():
    assert plot.date_histogram({"2024-05-01": 3})._repr_png_().startswith(b"\x89PNG")
