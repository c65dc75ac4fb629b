import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StateError, check_changes
from geoalign.accuracy import reliability
from geoalign.fusion import fuse
from geoalign.types.changes import NOT_OBSERVABLE, changed
from tests.handmade import changes_at

PRIOR = 0.05
DAY = np.timedelta64(1, "D")
START = np.datetime64("2024-03-01", "ns")


def sensor(rng, truth, event, power, *, blind=0.0, step=12):
    """Changes of a sensor whose probabilities are calibrated at PRIOR, with a lag of its own revisit."""
    score = rng.normal(size=truth.shape) + power * truth
    odds = PRIOR / (1 - PRIOR) * np.exp(power * score - power**2 / 2)
    p = odds / (1 + odds)
    lag = rng.integers(0, step, truth.shape) * DAY
    date = np.where(truth, event + lag, START + rng.integers(0, 300, truth.shape) * DAY)
    out = changes_at(p > 0.5, date=date)
    out["probability"] = xr.zeros_like(out.probability) + p.astype(np.float32)
    unseen = rng.random(truth.shape) < blind
    out["status"] = out.status.where(~unseen, NOT_OBSERVABLE)
    out["date"], out["date_after"], out["date_by"] = (out[k].where(~unseen) for k in ("date", "date_after", "date_by"))
    out["why"] = out.why.where(~unseen, 1)
    out.attrs["prior"] = PRIOR
    return out


@pytest.fixture(scope="module", params=[0, 1])
def case(request):
    rng = np.random.default_rng(request.param)
    truth = rng.random((150, 200)) < PRIOR
    event = START + rng.integers(0, 300, truth.shape) * DAY
    one, other = sensor(rng, truth, event, 3.0), sensor(rng, truth, event, 3.5, blind=0.3, step=20)
    return truth, event, one, other


def test_fused_is_earlier_cleaner_and_finds_more(case):
    truth, event, one, other = case
    both = check_changes(fuse({"sar": one, "optical": other}, prior=PRIOR), values=True)
    hit = changed(both).values
    for alone in (one, other):
        mine = changed(alone).values
        assert hit[~truth].mean() <= mine[~truth].mean()
        assert hit[truth].mean() >= mine[truth].mean()
        common = hit & mine & truth
        assert (both.date.values[common] <= alone.date.values[common]).mean() > 0.99
    assert (both.date.values[hit & truth] >= event[hit & truth]).mean() > 0.95


def test_fused_probability_is_calibrated_at_its_prior(case):
    truth, _, one, other = case
    for prior in (PRIOR, 0.2):
        both = fuse({"sar": one, "optical": other}, prior=prior)
        assert reliability(both.probability, truth, prior=prior).error < 0.03


def test_order_of_sensors_and_laziness_change_nothing(case):
    _, _, one, other = case
    both = fuse({"sar": one, "optical": other}, sigma_px=0.7)
    lazy = fuse({"sar": one.chunk(y=37, x=50), "optical": other.chunk(y=37, x=50)}, sigma_px=0.7)
    assert lazy.status.chunks is not None
    xr.testing.assert_identical(lazy.compute(), both)
    swapped = fuse({"optical": other, "sar": one}, sigma_px=0.7)
    xr.testing.assert_equal(swapped.probability, both.probability)
    xr.testing.assert_equal(swapped.status, both.status)


def pair(gap_px=0, gap_days=0, p=(0.4, 0.4)):
    out = []
    for k in range(2):
        flag = np.zeros((7, 9), bool)
        flag[3, 3 + k * gap_px] = True
        c = changes_at(flag, date=np.full(flag.shape, START + k * gap_days * DAY))
        c["probability"] = xr.where(c.status == 3, np.float32(p[k]), np.float32(0.02))
        c.attrs["prior"] = 0.02
        out.append(c)
    return {"sar": out[0], "optical": out[1]}


def test_the_window_in_space_is_that_of_the_misregistration():
    assert changed(fuse(pair())).sum() == 1
    assert changed(fuse(pair(gap_px=2))).sum() == 0
    found = changed(fuse(pair(gap_px=2), sigma_px=1.0)).values
    assert found[3, 3]
    assert found[3, 5]
    assert found.sum() == 2


def test_changes_at_another_time_do_not_support_each_other():
    assert changed(fuse(pair(gap_days=100))).sum() == 1
    assert changed(fuse(pair(gap_days=300))).sum() == 0
    both = fuse(pair(gap_days=20))
    assert both.date.values[3, 3] == START
    assert both.n_sensors.values[3, 3] == 2


def test_blind_sensors_say_nothing_and_weights_temper():
    sources = pair(p=(0.8, 0.02))
    plain = fuse(sources)
    blind = sources["optical"].copy()
    blind["status"] = xr.full_like(blind.status, NOT_OBSERVABLE)
    blind["date"] = xr.full_like(blind.date, np.datetime64("NaT"))
    blind["why"] = xr.full_like(blind.why, 4)
    alone = fuse({"sar": sources["sar"], "optical": blind})
    assert float(alone.probability[3, 3]) == pytest.approx(0.8, abs=1e-4)
    assert float(plain.probability[3, 3]) == pytest.approx(0.8, abs=1e-4)  # p at its prior is no evidence
    weak = fuse(sources, weights={"sar": 0.5})
    assert 0.02 < float(weak.probability[3, 3]) < 0.8
    nobody = fuse({"a": blind, "b": blind})
    assert (nobody.status == NOT_OBSERVABLE).all()
    assert (nobody.why == 4).all()


def test_what_one_sensor_alone_shows_has_to_be_plain_where_another_looked():
    """Evidence of 6.5 and 9 nats against another's weak "no"; of 6.5 where the other saw nothing at all."""
    base = np.log(PRIOR / (1 - PRIOR))
    day = np.full((1, 3), START + 100 * DAY)
    shows, other = changes_at(np.array([[True, True, True]]), date=day), changes_at(np.zeros((1, 3), bool), date=day)
    for changes, nats in ((shows, [6.5, 9.0, 6.5]), (other, [-1.0, -1.0, 0.0])):
        odds = np.array([nats]) + base
        changes["probability"] = xr.zeros_like(changes.probability) + (1 / (1 + np.exp(-odds))).astype(np.float32)
        changes.attrs["prior"] = PRIOR
    other["status"] = other.status.where([[True, True, False]], NOT_OBSERVABLE)
    other["why"] = other.why.where([[True, True, False]], 1)
    both = check_changes(fuse({"sar": shows, "optical": other}, prior=PRIOR), values=True)
    assert both.status.values.tolist() == [[0, 3, 3]]
    assert both.probability.values[0, 0] <= 0.5
    assert (both.probability.values[0, 1:] > 0.5).all()
    assert np.isnat(both.date.values[0, 0])


def test_what_cannot_be_fused_is_refused():
    sources = pair()
    with pytest.raises(StateError, match="another grid"):
        fuse({"a": sources["sar"], "b": sources["optical"].isel(x=slice(1, None))})
    with pytest.raises(ConfigError, match="weights"):
        fuse(sources, weights={"radar": 0.5})
    with pytest.raises(ConfigError, match="prior"):
        fuse(sources, prior=0)
    nameless = sources["sar"].assign_attrs(prior=float("nan"))
    with pytest.raises(StateError, match="states no prior"):
        fuse({"a": nameless})
