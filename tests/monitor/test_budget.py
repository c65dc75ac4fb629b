import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from odc.geo.geobox import GeoBox

from geoalign import new_stack
from geoalign.accuracy import false_alarms
from geoalign.detectors import Watch
from geoalign.errors import ConfigError, StackError
from geoalign.monitor.budget import FEWEST, assess, limit, run_length, threshold
from tests.monitor.things import BOX, alert_of, config_of, site_of

BUDGET = "[monitor.budget]\nalarms_per_1000km2_month = 2000\n"
SCENES = [(t, 0.9) for t in pd.date_range("2022-07-01", "2024-06-30", freq="10D")]


def site_with(tmp_path, text=BUDGET):
    return site_of(config_of(tmp_path, text))


def alerts_on(days):
    return [alert_of(k, date_confirmed=f"{d:%Y-%m-%d}") for k, d in enumerate(days)]


def drawn(rate, seed=0):
    """Alarms of a site with so many a month."""
    rng = np.random.default_rng(seed)
    return alerts_on(t for t, _ in SCENES for _ in range(rng.poisson(rate * 10 / 30.44)))


def test_without_a_budget_nothing_is_said(tmp_path):
    assert assess([], site_with(tmp_path, ""), {"watch": SCENES})["status"] == "off"


def test_a_site_within_its_budget_is_quiet_and_its_rate_is_that_of_its_alarms(tmp_path):
    # 1.2 km2: 2000 a month and 1000 km2 are 2.16 a month of what is observed
    alarms = 0
    for seed in range(12):
        told = assess(drawn(2.16, seed), site_with(tmp_path), {"watch": SCENES})
        chart = told["themes"]["watch"]
        alarms += any(c["level"] >= chart["limit"] for c in chart["chart"])
        assert chart["low"] <= chart["rate"] <= chart["high"]
    assert chart["exposure"] == pytest.approx(0.0012 * 0.9 * 24, rel=0.02)
    # two years of twelve sites, one wrong alarm in ten years each
    assert alarms <= 7


def test_twice_the_budget_is_told_within_months_with_what_it_may_mean(tmp_path):
    delays = []
    for seed in range(10):
        told = assess(drawn(4.5, seed), site_with(tmp_path), {"watch": SCENES})
        chart = told["themes"]["watch"]
        over = [k for k, c in enumerate(chart["chart"]) if c["level"] >= chart["limit"]]
        delays.append(over[0] / 3 if over else 99)
    assert told["status"] == "alarm"
    assert "either much has really happened" in told["reason"]
    assert np.median(delays) < 10


def test_it_comes_back_once_the_alarms_stop(tmp_path):
    early = [a for a in drawn(8.0) if a.date_confirmed < "2022-12-01"]
    told = assess(early, site_with(tmp_path), {"watch": SCENES})
    levels = [c["level"] for c in told["themes"]["watch"]["chart"]]
    assert max(levels) >= told["themes"]["watch"]["limit"]
    assert told["status"] == "ok"


def test_an_outage_is_not_time_that_was_watched(tmp_path):
    gone = [s for s in SCENES if not pd.Timestamp("2023-01-01") < s[0] < pd.Timestamp("2023-07-01")]
    whole, part = (assess([], site_with(tmp_path), {"watch": s})["themes"]["watch"] for s in (SCENES, gone))
    assert part["exposure"] < 0.8 * whole["exposure"]
    nothing = assess([], site_with(tmp_path), {"watch": []})["themes"]["watch"]
    assert nothing["status"] == "ok"
    assert nothing["rate"] is None


def test_a_few_alarms_of_a_tiny_site_are_no_alarm_of_the_chart(tmp_path):
    site = site_with(tmp_path, "[monitor.budget]\nalarms_per_1000km2_month = 1\n")
    days = [pd.Timestamp("2023-02-06")] * (FEWEST - 1)
    assert assess(alerts_on(days), site, {"watch": SCENES})["status"] == "ok"
    assert assess(alerts_on(days * 2), site, {"watch": SCENES})["status"] == "alarm"


def test_run_lengths_are_those_of_a_simulation():
    rng = np.random.default_rng(1)
    for mean, height in ((0.5, 2.5), (2.0, 4.0)):
        lengths = []
        for _ in range(300):
            level, months = 0.0, 0
            while level <= height:
                months += 1
                level = max(0.0, level + rng.poisson(mean) - mean / np.log(2))
            lengths.append(months)
        error = np.std(lengths) / np.sqrt(300)
        assert abs(run_length(mean, height) - np.mean(lengths)) < 4 * error
    assert run_length(1.0, limit(1.0, 120.0)) >= 120


def noisy(seed, n_time, noise=0.02, size=48):
    """Pixels whose noise grows from left to right, in time with the seasons."""
    rng = np.random.default_rng(seed)
    time = pd.date_range("2020-01-01", periods=n_time, freq="10D")
    level = noise * (1 + np.arange(size) // (size // 3))
    season = 0.1 * np.sin(2 * np.pi * time.dayofyear.values / 365.25)[:, None, None]
    ndvi = 0.6 + season + rng.standard_t(5, (n_time, size, size)) * level
    return new_stack({"ndvi": ndvi}, time, geobox=BOX[:size, :size])


def test_the_alpha_it_finds_keeps_the_budget_on_ground_it_has_not_seen():
    budget = SimpleNamespace(alarms_per_1000km2_month=4000.0)
    found = threshold(noisy(0, 60), Watch(order=1), budget)
    assert 1e-4 < found["alpha"] < 0.3
    assert [s["share"] for s in found["strata"]] == pytest.approx([1 / 3] * 3, abs=0.02)
    stack = noisy(5, 110)
    since, last = stack.time.values[60], stack.time.values[-1]
    changes = Watch(order=1, alpha=found["alpha"], since=str(since)[:19]).detect(stack)
    rate = false_alarms(changes, days=float((last - since) / np.timedelta64(1, "D")))
    assert rate.low <= 4000.0


def test_a_smaller_budget_makes_a_smaller_alpha_and_real_changes_cost_nothing():
    stack = noisy(0, 60)
    loose, tight = (threshold(stack, Watch(order=1), SimpleNamespace(alarms_per_1000km2_month=b)) for b in (4000, 40))
    assert tight["alpha"] < loose["alpha"] / 20
    assert not tight["proven"]
    changed = stack.copy(deep=True)
    changed.ndvi[45:, 10:20, 10:20] -= 0.4
    again = threshold(changed, Watch(order=1), SimpleNamespace(alarms_per_1000km2_month=4000))
    assert again["alpha"] > 0.6 * loose["alpha"]


def test_what_no_alpha_can_be_found_for_says_so():
    with pytest.raises(StackError, match="20 scenes is too short"):
        threshold(noisy(0, 20), Watch(order=1), SimpleNamespace(alarms_per_1000km2_month=1))
    with pytest.raises(ConfigError, match="no alpha"):
        threshold(noisy(0, 40), object(), SimpleNamespace(alarms_per_1000km2_month=1))
    plain = noisy(0, 40).drop_vars("spatial_ref")
    plain = new_stack({"ndvi": plain.ndvi.values}, plain.time.values)
    with pytest.raises(StackError, match="no metres"):
        threshold(plain, Watch(order=1), SimpleNamespace(alarms_per_1000km2_month=1))
    assert isinstance(BOX, GeoBox)


def test_a_site_that_leaves_alpha_to_its_budget_gets_it_from_its_baseline_alone(tmp_path):
    from geoalign.monitor import Monitor
    from tests.monitor.watched import Watched

    site = Watched(tmp_path, size=32, n_history=26, n_watched=4, clearing=1, hole=(8, 18, 10, 22))
    site.write_site("[monitor.budget]\nalarms_per_1000km2_month = 500\n")
    site.write_many(site.history())
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=0.0)
    spent = json.loads((monitor.folder / "latest" / "budget.json").read_text())
    found = spent["thresholds"]["clearing"]
    assert 0 < found["alpha"] <= 0.3
    detector = monitor.status()["models"]["clearing"]["detector"]
    assert f"alpha={found['alpha']!r}" in detector
    site.write_many(site.watched())
    monitor.visit(now=1.0)
    assert monitor.status()["models"]["clearing"]["detector"] == detector
    assert len(found["strata"]) == 3


def test_a_baseline_too_short_for_the_budget_says_so_and_keeps_the_usual_alpha(tmp_path, caplog):
    from geoalign.monitor import Monitor
    from tests.monitor.watched import Watched

    site = Watched(tmp_path, size=24, n_history=17, n_watched=2, hole=(6, 12, 6, 12))
    site.write_site("[monitor.budget]\nalarms_per_1000km2_month = 500\n")
    site.write_many(site.history())
    monitor = Monitor(site.site, threads=1)
    monitor.visit(now=0.0)
    assert "clearing: no alpha for the budget: a history of 17 scenes is too short" in caplog.text
    assert "alpha=0.05" in monitor.status()["models"]["clearing"]["detector"]
