import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geoalign import accuracy
from geoalign.errors import StackError
from geoalign.types.alignment import Alignment
from geoalign.types.changes import new_changes
from geoalign.types.warp import Affine, Shift
from tests.handmade import changes_at

TIMES = pd.date_range("2024-01-01T05:17", periods=10, freq="12D")
NAT = np.datetime64("NaT", "ns")


def changes_from(status, date):
    status = np.asarray(status, np.uint8)
    date = np.asarray(date, "datetime64[ns]")

    def layer(values, dtype):
        return xr.DataArray(np.broadcast_to(np.asarray(values, dtype), status.shape).copy(), dims=("y", "x"))

    layers = {
        "status": layer(status, np.uint8),
        "date": xr.DataArray(date, dims=("y", "x")),
        "date_after": layer(NAT, "datetime64[ns]"),
        "date_by": layer(NAT, "datetime64[ns]"),
        "magnitude": layer(1, np.float32),
        "direction": layer(-1, np.int8),
        "probability": layer(0.9, np.float32),
        "n_obs": layer(10, np.uint16),
        "why": layer(0, np.uint16),
    }
    return new_changes(layers, kind="change", detector="made()")


@pytest.fixture
def case():
    """A row of eight: right, right but one acquisition late, missed, false, three right nothings, not observable."""
    truth = np.array([["2024-01-20"] * 3 + ["NaT"] * 4 + ["2024-01-20"]], "datetime64[ns]")
    status = [[3, 4, 0, 3, 0, 0, 0, 255]]
    date = np.full((1, 8), NAT)
    date[0, 0] = TIMES[2]  # 2024-01-25, the first acquisition after the 20th
    date[0, 1] = TIMES[3]
    date[0, 3] = TIMES[5]
    return changes_from(status, date), truth


def test_counts_and_ratios_are_those_of_a_hand_count(case):
    a = accuracy.assess(*case, times=TIMES)
    assert (a.n_pixels, a.n_not_observable, a.n_not_observable_changed) == (7, 1, 1)
    assert (a.tp, a.fp, a.fn, a.tn) == (2, 1, 1, 3)
    assert a.precision == pytest.approx(2 / 3)
    assert a.recall == pytest.approx(2 / 3)
    assert a.f1 == pytest.approx(2 / 3)
    assert a.iou == pytest.approx(1 / 2)
    assert a.area_bias == 0
    agree, chance = 5 / 7, (3 * 3 + 4 * 4) / 49
    assert a.kappa == pytest.approx((agree - chance) / (1 - chance))


def test_dates_are_compared_with_the_first_acquisition_that_could_show_the_change(case):
    a = accuracy.assess(*case, times=TIMES)
    assert (a.median_abs_days, a.mean_abs_days, a.bias_days) == (6.0, 6.0, 6.0)
    assert (a.mean_abs_acquisitions, a.exact_share) == (0.5, 0.5)
    without = accuracy.assess(*case)
    assert without.mean_abs_days == pytest.approx((5 + 17) / 2)
    assert np.isnan(without.mean_abs_acquisitions)


def test_a_change_at_the_wrong_date_is_wrong_where_a_tolerance_is_asked_for(case):
    a = accuracy.assess(*case, times=TIMES, tolerance_days=6)
    assert (a.tp, a.fp, a.fn, a.tn, a.n_misdated) == (1, 2, 2, 3, 1)
    assert accuracy.assess(*case, times=TIMES, tolerance_days=12).tp == 2


def test_with_observed_the_first_usable_acquisition_is_the_one_to_find(case):
    seen = np.ones((10, 1, 8), bool)
    seen[2, 0, 1] = False  # the second pixel was under cloud when the first showed its change
    a = accuracy.assess(*case, times=TIMES, observed=seen)
    assert (a.mean_abs_days, a.exact_share) == (0.0, 1.0)
    seen[2:, 0, 2] = False  # and the third was never seen again: nothing could have shown its change
    assert accuracy.assess(*case, times=TIMES, observed=seen).fn == 0
    with pytest.raises(StackError, match="time"):
        accuracy.assess(*case, observed=seen)
    with pytest.raises(StackError, match="shape"):
        accuracy.assess(*case, times=TIMES, observed=seen[:3])


def test_a_change_after_the_last_acquisition_is_left_out(case):
    changes, truth = case
    a = accuracy.assess(changes, truth, times=TIMES[:1])
    assert a.n_pixels == 4
    assert a.fn == 0
    assert a.fp == 1


def test_valid_pixels_alone_are_counted_and_empty_ratios_are_nan(case):
    a = accuracy.assess(*case, times=TIMES, valid=np.array([[False] * 4 + [True] * 4]))
    assert (a.n_pixels, a.tn) == (3, 3)
    assert np.isnan([a.precision, a.recall, a.f1, a.median_abs_days]).all()


def test_lazy_changes_and_a_frame_and_a_repr(case):
    changes, truth = case
    a = accuracy.assess(changes.chunk({"x": 3}), xr.DataArray(truth, dims=("y", "x")), times=TIMES)
    assert a == accuracy.assess(changes, truth, times=TIMES)
    assert a.to_frame().f1.item() == a.f1
    assert "F1 0.667" in repr(a)


def test_reference_of_another_shape_or_type_is_refused(case):
    changes, truth = case
    with pytest.raises(StackError, match="shape"):
        accuracy.assess(changes, truth[:, :5])
    with pytest.raises(StackError, match="datetime64"):
        accuracy.assess(changes, np.zeros((1, 8)))


class Planted:
    """As much of a Truth as registration() looks at."""

    def __init__(self, warps, geobox):
        self.warps = warps
        self.warp_kinds = dict.fromkeys(warps, "shift")
        self.geobox = geobox

    def relative(self, reference, scene):
        a, b = self.warps[reference], self.warps[scene]
        return Shift(b.dy - a.dy, b.dx - a.dx)


@pytest.fixture
def planted():
    from affine import Affine as Transform
    from odc.geo.geobox import GeoBox

    box = GeoBox((40, 50), Transform(10, 0, 5e5, 0, -10, 5e6), "EPSG:32633")
    return Planted({"a": Shift(1, 0), "b": Shift(0, 2), "c": Shift(0, 0)}, box)


def alignment_of(planted, reference, warps, geobox=None):
    report = pd.DataFrame({"scene": list(planted.warps), "status": "aligned", "sigma_px": 0.05})
    box = geobox or planted.geobox
    return Alignment(reference, warps, report, box, tuple(box.shape))


def test_residuals_are_taken_from_the_scene_the_alignment_lies_on(planted):
    found = {"a": Shift(0, 0), "b": Shift(-1, 2.3)}
    frame = accuracy.registration(alignment_of(planted, "a", found), planted).set_index("scene")
    assert frame.rmse_px["a"] == 0
    assert frame.rmse_px["b"] == pytest.approx(0.3)
    assert frame.planted_rms_px["b"] == pytest.approx(np.hypot(1, 2))
    assert np.isnan(frame.rmse_px["c"])


def test_residuals_of_a_median_reference_are_taken_from_the_ground(planted):
    frame = accuracy.registration(alignment_of(planted, "median", planted.warps), planted)
    assert (frame.rmse_px == 0).all()


def test_an_affine_residual_is_the_root_mean_square_over_the_whole_image(planted):
    warp = Affine(((1.0, 0.0, 1.0), (0.01, 1.0, 0.0)))
    frame = accuracy.registration(alignment_of(planted, "median", {"a": warp}), planted, step_px=1)
    rows = np.arange(40)
    assert frame.rmse_px[0] == pytest.approx(np.sqrt(((0.01 * rows) ** 2).mean()))
    assert frame.max_px[0] == pytest.approx(0.39)


def test_residuals_are_in_pixels_of_the_alignment_where_its_grid_is_another(planted):
    from odc.geo.geobox import GeoBox

    coarse = GeoBox((20, 25), planted.geobox.affine * planted.geobox.affine.scale(2), "EPSG:32633")
    frame = accuracy.registration(alignment_of(planted, "c", {"b": Shift(0, 1)}, coarse), planted).set_index("scene")
    assert frame.planted_rms_px["b"] == pytest.approx(1.0)
    assert frame.rmse_px["b"] == pytest.approx(0.0, abs=1e-9)


def test_scenes_the_truth_does_not_know_are_refused(planted):
    alignment = alignment_of(planted, "a", {})
    planted.warps.pop("c")
    with pytest.raises(StackError, match="c"):
        accuracy.registration(alignment, planted)


def test_area_estimates_reproduce_the_example_of_olofsson_2014():
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    result = accuracy.area_estimates(counts, np.array([0.020, 0.015, 0.320, 0.645]) * 1e7)
    c = result.classes
    np.testing.assert_allclose(c.area, [235_086, 129_846, 3_175_221, 6_459_846], rtol=1e-5)
    np.testing.assert_allclose(1.96 * c.area_error, [68_418, 41_731, 172_332, 180_907], rtol=1e-4)
    np.testing.assert_allclose(c.users, [0.880, 0.733, 0.927, 0.963], atol=6e-4)
    np.testing.assert_allclose(1.96 * c.users_error, [0.074, 0.101, 0.040, 0.021], atol=6e-4)
    np.testing.assert_allclose(c.producers, [0.749, 0.847, 0.935, 0.962], atol=6e-4)
    np.testing.assert_allclose(1.96 * c.producers_error, [0.213, 0.254, 0.034, 0.018], atol=6e-4)
    assert result.overall == pytest.approx(0.947, abs=6e-4)
    assert 1.96 * result.overall_error == pytest.approx(0.018, abs=6e-4)


def test_area_estimates_refuse_a_class_with_one_sample():
    with pytest.raises(StackError, match="two"):
        accuracy.area_estimates([[1, 0], [5, 5]], [1, 1])


def test_intervals_hold_where_errors_come_in_clusters():
    """Patches are found or missed as a whole: what is right in the long run lies in 95 % of the intervals or nearly."""
    rng = np.random.default_rng(3)
    held = {"recall": 0, "precision": 0}
    for _ in range(60):
        real, found = np.zeros((2, 24, 24), bool)
        real[rng.random(real.shape) < 0.3] = True
        found[real & (rng.random(real.shape) < 0.8)] = True  # recall .8
        found[~real & (rng.random(real.shape) < 0.3 * 0.8 / 0.7 / 4)] = True  # precision .8
        real, found = (np.kron(layer, np.ones((6, 6), bool)) for layer in (real, found))
        dates = np.where(real, np.datetime64("2024-05-01", "ns"), np.datetime64("NaT", "ns"))
        score = accuracy.assess(changes_at(found), dates)
        for name in held:
            held[name] += getattr(score, f"{name}_low") <= 0.8 <= getattr(score, f"{name}_high")
    assert min(held.values()) >= 50, held


def test_few_blocks_give_no_interval():
    flag = np.zeros((20, 20))
    flag[3:6, 3:6] = 1
    dates = np.where(flag > 0, np.datetime64("2024-05-01", "ns"), np.datetime64("NaT", "ns"))
    score = accuracy.assess(changes_at(flag), dates)
    assert score.f1 == 1
    assert np.isnan([score.f1_low, score.f1_high, score.recall_low, score.precision_high]).all()
