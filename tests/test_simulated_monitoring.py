import json

import numpy as np
import pandas as pd
import pytest

from geoalign import open_stack
from geoalign.cli import main
from geoalign.config import load_config
from geoalign.errors import ConfigError, StackError, StateError
from geoalign.io.geotiff import validate_file
from geoalign.simulation import MonitoredSite, simulate_monitoring

OPTIONS = {"size": 32, "history_days": 160, "watched_days": 240, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate_monitoring(tmp_path_factory.mktemp("site"), **OPTIONS)


def of(made, what):
    return [d for d in made.deliveries if d.what == what]


def test_the_baseline_is_long_enough_for_a_watch_and_nothing_happens_in_it(made):
    since = pd.Timestamp(load_config(made.site).monitor.since)
    baseline = of(made, "baseline")
    assert len(baseline) >= 16
    assert {d.arrives for d in baseline} == {since}
    assert made.truth.events.date.min() > since
    assert set(made.truth.events.kind) <= {"flood", "clearing", "building"}


def test_files_arrive_late_twice_cut_reprocessed_and_not_at_all(made):
    taken = {d.scene: pd.Timestamp(d.scene[4:12]) for d in made.deliveries}
    late = of(made, "late")
    assert len(late) >= 2
    assert all(d.arrives - taken[d.scene] > pd.Timedelta(days=5) for d in late)
    assert [d.arrives for d in made.deliveries] == sorted(d.arrives for d in made.deliveries)
    times = pd.Series(sorted(set(taken.values())))
    assert times.diff().max() >= pd.Timedelta(days=40)
    cut, whole = of(made, "cut")[0], of(made, "whole")[0]
    assert cut.name == whole.name
    validate_file(made.folder / whole.file)
    made.deliver([cut])
    with pytest.raises(StackError, match="truncated"):
        validate_file(made.folder / "scenes" / cut.name)


def test_copies_are_the_same_bytes_and_newer_versions_are_not(made):
    first = {d.scene: made.folder / d.file for d in of(made, "in time")}
    for d in of(made, "copy"):
        assert d.name != first[d.scene].name
        assert (made.folder / d.file).read_bytes() == first[d.scene].read_bytes()
    for d in of(made, "reprocessed"):
        old = first[d.scene.removesuffix("_N0511")]
        assert (made.folder / d.file).read_bytes() != old.read_bytes()


def test_everything_delivered_opens_as_one_stack_in_which_newer_versions_stand(made, caplog):
    paths = made.deliver()
    stack = open_stack(str(made.folder / "scenes" / "*.tif"))
    assert len(paths) == len(made.deliveries)
    assert stack.sizes["time"] == len({d.scene[:12] for d in made.deliveries})
    reasons = [r["reason"] for r in json.loads(stack.attrs["skipped"])]
    assert sum("superseded" in r for r in reasons) == 2
    assert sum("already" in r for r in reasons) == 2
    cloud = of(made, "cloud")[0].scene
    assert np.isnan(stack.red.sel(time=stack.scene == cloud)).all()


def test_the_same_seed_makes_the_same_site_and_it_is_loaded_as_written(made, tmp_path):
    again = simulate_monitoring(tmp_path, **OPTIONS)
    assert again.deliveries == made.deliveries == MonitoredSite.load(made.folder).deliveries
    name = made.deliveries[-1].file
    assert (tmp_path / name).read_bytes() == (made.folder / name).read_bytes()
    together = [d for _, batch in made.batches(days=30) for d in batch]
    assert tuple(together) == made.deliveries
    assert len(list(made.batches(days=30))) < len(list(made.batches()))


def test_what_can_not_be_simulated_or_loaded_says_so(tmp_path):
    with pytest.raises(ConfigError, match="outage_days is 400"):
        simulate_monitoring(tmp_path, outage_days=400)
    with pytest.raises(StateError, match="holds no arrivals"):
        MonitoredSite.load(tmp_path)


def test_the_command_says_what_will_arrive(tmp_path, capsys, monkeypatch):
    import geoalign.simulation as simulation

    real = simulation.simulate_monitoring
    monkeypatch.setattr(simulation, "simulate_monitoring", lambda f, **o: real(f, **(OPTIONS | o)))
    assert main(["simulate", str(tmp_path / "s"), "--monitoring", "--size", "32", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["deliveries"]["cut"] == 1
    assert (tmp_path / "s" / "site.toml").is_file()


def test_scenes_too_small_to_be_tied_are_simulated_where_they_belong(tmp_path, made):
    assert load_config(made.site).register_of("scenes") is None
    large = simulate_monitoring(tmp_path, **(OPTIONS | {"size": 80}))
    assert load_config(large.site).register_of("scenes") is not None
