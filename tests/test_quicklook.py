"""Pictures of before and after: the right scenes, one stretch, gaps left open."""

import numpy as np
from matplotlib.image import imread

from geoalign import new_stack
from geoalign.quicklook import before_after

TIME = np.datetime64("2024-01-01") + np.arange(9) * 12


def test_what_came_is_in_the_second_picture_only(tmp_path):
    values = np.random.default_rng(0).normal(0.2, 0.02, (9, 30, 40))
    values[5:, 10:20, 10:30] = 0.6
    values[:, :, :5] = np.nan
    stack = new_stack({"red": values, "green": values, "blue": values}, TIME).chunk({"time": 1, "y": 7})
    record = before_after(stack, tmp_path / "pictures", "optical")
    before, after = (imread(tmp_path / record[key]).astype(float) for key in ("before", "after"))
    assert before.shape == after.shape == (30, 40, 4)
    change = (after - before)[..., 0]
    assert change[12:18, 12:28].mean() > 80
    assert abs(change[22:, 12:].mean()) < 25
    assert (before[:, :4, 3] == 0).all()
    assert record["before_dates"] == "2024-01-01 to 2024-01-25"
    assert record["after_dates"] == "2024-03-13 to 2024-04-06"


def test_a_large_stack_is_drawn_small_and_radar_in_decibels(tmp_path):
    power = np.random.default_rng(0).gamma(4, 0.02, (2, 1000, 30))
    record = before_after(new_stack({"vv": power, "vh": power / 4}, TIME[:2]), tmp_path, "sar")
    assert record["step"] == 2
    assert record["bands"] == "vv vh"
    assert imread(tmp_path / "sar_after.webp").shape[:2] == (500, 15)


def test_a_stack_without_any_value_gives_an_empty_picture(tmp_path):
    record = before_after(new_stack({"ndvi": np.full((2, 8, 8), np.nan)}, TIME[:2]), tmp_path, "x")
    assert record["bands"] == "ndvi"
    assert (imread(tmp_path / "x_before.webp")[..., 3] == 0).all()
