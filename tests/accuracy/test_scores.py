"""Sampling, lag, patches, probabilities and false alarms: figures counted by hand, or drawn with the truth known."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geoalign import accuracy
from geoalign.errors import StackError
from tests.handmade import changes_at, random_changes

NAT = np.datetime64("NaT")


def test_intervals_are_those_printed_by_olofsson_2014():
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    found = accuracy.area_estimates(counts, np.array([0.020, 0.015, 0.320, 0.645]) * 1e7).intervals()
    np.testing.assert_allclose((found.area_high - found.area_low) / 2, [68_418, 41_731, 172_332, 180_907], rtol=1e-4)
    np.testing.assert_allclose((found.users_high - found.users_low)[[1, 2]] / 2, [0.101, 0.040], atol=6e-4)
    assert (found.overall_high - found.overall_low)[0] / 2 == pytest.approx(0.018, abs=6e-4)
    assert (found.producers_high <= 1).all()


def test_allocation_is_that_of_the_paper_and_of_a_map():
    sizes = {"a": 200_000, "b": 150_000, "c": 3_200_000, "d": 6_450_000}
    plan = accuracy.allocate(sizes, users={"a": 0.7, "b": 0.6, "c": 0.9, "d": 0.95}, least=75)
    assert sum(plan.values()) == 641
    stratum = accuracy.strata(changes_at(np.eye(40, dtype=bool)), buffer_px=2)
    plan = accuracy.allocate(stratum, least=30, total=200)
    assert plan[1] == 30
    assert sum(plan.values()) == pytest.approx(200, abs=2)
    frame = accuracy.draw_sample(stratum, plan, seed=3)
    assert frame.stratum.value_counts().to_dict() == plan
    assert (stratum.values[frame.row, frame.col] == frame.stratum).all()
    assert not frame[["row", "col"]].duplicated().any()
    pd.testing.assert_frame_equal(frame, accuracy.draw_sample(stratum, plan, seed=3))
    with pytest.raises(StackError, match="can't be drawn"):
        accuracy.draw_sample(stratum, {1: 41})


def test_the_buffer_is_the_ground_around_change_and_unseen_is_apart():
    flag = np.zeros((9, 9), bool)
    flag[4, 4] = True
    changes = changes_at(flag)
    changes["status"][0, 0] = 255
    stratum = accuracy.strata(changes, buffer_px=1).values
    assert (stratum == 1).sum() == 1
    assert (stratum == 2).sum() == 4
    assert stratum[0, 0] == 255


@pytest.fixture(scope="module")
def population():
    rng = np.random.default_rng(0)
    mapped = np.zeros((200, 200), bool)
    mapped[50:80, 40:90] = True
    real = np.roll(mapped, 2, axis=1)
    real[rng.random(real.shape) < 0.03] = True
    stratum = accuracy.strata(changes_at(mapped), buffer_px=3)
    return stratum, mapped, real


def test_stratified_estimates_are_unbiased_and_cover_the_truth(population):
    stratum, mapped, real = population
    sizes = {k: int((stratum.values == k).sum()) for k in (0, 1, 2)}
    truth = {
        "area": real.mean(),
        "users": real[mapped].mean(),
        "producers": mapped[real].mean(),
        "overall": (mapped == real).mean(),
    }
    inside, values = [], []
    for seed in range(60):
        frame = accuracy.draw_sample(stratum, {0: 300, 1: 80, 2: 80}, seed=seed)
        at = frame.row.to_numpy(), frame.col.to_numpy()
        found = accuracy.stratified_estimates(frame.stratum, mapped[at], real[at], sizes)
        values.append(found.value)
        inside.append([found.low[k] <= truth[k] <= found.high[k] for k in truth])
    mean = pd.DataFrame(values).mean()
    for name, value in truth.items():
        assert mean[name] == pytest.approx(value, abs=0.03)

    assert np.mean(inside, axis=0).min() > 0.8
    with pytest.raises(StackError, match="lacks the stratum"):
        accuracy.stratified_estimates([0, 0, 7, 7], [0, 0, 1, 1], [0, 0, 1, 1], {0: 10})


def test_with_strata_that_are_the_classes_both_estimators_agree():
    rng = np.random.default_rng(1)
    mapped = np.repeat([True, False], [60, 90])
    real = np.where(rng.random(150) < 0.9, mapped, ~mapped)
    counts = [[(mapped & real).sum(), (mapped & ~real).sum()], [(~mapped & real).sum(), (~mapped & ~real).sum()]]
    one = accuracy.area_estimates(counts, [2e6, 8e6])
    two = accuracy.stratified_estimates(mapped, mapped, real, {True: 2e6, False: 8e6})
    assert two.value["area"] == pytest.approx(one.classes.area[0] / 1e7)
    assert two.error["area"] == pytest.approx(one.classes.area_error[0] / 1e7, rel=1e-3)
    assert two.value["producers"] == pytest.approx(one.classes.producers[0])
    assert two.error["producers"] == pytest.approx(one.classes.producers_error[0], rel=1e-3)
    assert two.value["overall"] == pytest.approx(one.overall)


def test_shares_found_in_time_count_all_events():
    truth = np.array([["2024-05-01", "2024-04-11", "2024-03-01", "2024-05-10", "2024-01-01", "NaT"]], "datetime64[D]")
    changes = changes_at([[1, 1, 1, 1, 0, 1]], date="2024-05-01")
    found = accuracy.found_within(changes, truth)
    # lags 0, 20, 61, early by 9, missed; one false, and the early one is false too
    np.testing.assert_allclose(found.found, [0.2, 0.2, 0.4, 0.4, 0.6])
    np.testing.assert_allclose(found.precision, [1 / 3, 1 / 3, 2 / 4, 2 / 4, 3 / 5])
    np.testing.assert_allclose(found.f1, [2 / 8, 2 / 8, 4 / 9, 4 / 9, 6 / 10])
    assert accuracy.found_within(changes, truth, early_days=10).found[0] == pytest.approx(0.4)
    with pytest.raises(StackError, match="no layer"):
        accuracy.found_within(changes, truth, by="date_confirmed")


def test_events_near_the_end_are_censored_not_missed():
    days = np.datetime64("2024-05-01") - np.arange(100)
    truth = days[None].astype("datetime64[D]")
    lag = np.random.default_rng(0).exponential(20, 100).round().astype(int)
    date = days + lag
    changes = changes_at((date <= np.datetime64("2024-05-01"))[None], date=date[None])
    found = accuracy.found_within(changes, truth, end="2024-05-01", days=(15, 30))
    full = (lag <= 15).mean(), (lag <= 30).mean()
    assert found.found[1] < full[1] - 0.03
    np.testing.assert_allclose(found.found_censored, full, atol=0.06)


def test_patches_and_outlines_by_hand():
    real, mapped = np.zeros((2, 20, 30), bool)
    real[2:8, 2:8] = real[12:18, 2:8] = real[2:8, 20:26] = True
    mapped[2:8, 2:8] = mapped[12:18, 5:11] = mapped[12:14, 20:22] = True
    table = accuracy.objects(mapped, real).set_index("iou")
    assert table.n_matched.to_dict() == {0.1: 2, 0.5: 1}
    assert table.recall[0.5] == pytest.approx(1 / 3)
    assert accuracy.objects(real, real).f1.tolist() == [1, 1]
    assert accuracy.boundary(real, real).f1.tolist() == [1, 1, 1]
    moved = accuracy.boundary(np.roll(real, 2, axis=0), real)
    assert moved.f1[0] < 1
    assert moved.f1[1] == 1
    assert accuracy.objects(random_changes(), np.full((30, 40), NAT)).recall.isna().all()


def test_reliability_of_calibrated_and_of_bold_probabilities():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2, 100_000)
    real = rng.random(p.size) < p
    good = accuracy.reliability(p, real)
    assert good.error < 0.01
    assert good.brier == pytest.approx(np.mean((p - real) ** 2))
    assert good.brier_reliability - good.resolution + good.uncertainty == pytest.approx(good.brier, abs=0.002)
    bold = accuracy.reliability(p**0.3, real)
    assert bold.error > 0.2
    assert bold.brier > good.brier
    # half of the stable pixels thrown away: with the prior stated, the diagram is the same
    kept = real | (rng.random(p.size) < 0.5)
    odds = p / (1 - p)
    assert accuracy.reliability(p[kept], real[kept]).error > 0.03
    assert accuracy.reliability(p[kept], real[kept], prior=real.mean()).error < 0.01
    assert odds.min() >= 0


def test_false_alarms_per_area_and_month():
    flag = np.zeros((100, 100), bool)
    flag[10:12, 10:12] = flag[50, 50] = flag[90:, 90:] = True
    stable = np.ones_like(flag)
    stable[95:, :] = False
    rate = accuracy.false_alarms(changes_at(flag), days=365.25, stable=stable)
    assert (rate.n_alarms, rate.n_pixels) == (2, 4 + 1 + 50)
    assert rate.area_km2 == pytest.approx(0.95)
    assert rate.rate == pytest.approx(2 / (0.95 / 1000 * 12))
    assert rate.low < rate.rate < rate.high
    with pytest.raises(StackError, match="pixel_m"):
        accuracy.false_alarms(changes_at(flag, box=None), days=30)


def test_a_placebo_run_shows_only_what_came_in_its_time():
    time = np.arange("2022-01-01", "2023-01-01", 10, "datetime64[D]").astype("datetime64[ns]")
    stack = xr.Dataset({"ndvi": (("time", "y", "x"), np.zeros((time.size, 5, 5), np.float32))}, {"time": time})
    seen = []

    def find(shown, since):
        seen.append((since, shown.time.values[-1]))
        return changes_at(np.eye(5, dtype=bool))

    table = accuracy.placebo(find, stack, ["2022-03-01", "2022-06-01"], days=60, pixel_m=10)
    assert [s for s, _ in seen] == ["2022-03-01", "2022-06-01"]
    assert all(t <= np.datetime64(s) + np.timedelta64(60, "D") for s, t in seen)
    assert table.n_alarms.tolist() == [1, 1]
