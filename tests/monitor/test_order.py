"""The law of order: however scenes arrive, what is published is what in-order arrival without duplicates would have
given, bit for bit."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from geoalign.config import parse_config
from geoalign.detectors import make
from geoalign.monitor import Monitor, evidence, fold
from geoalign.monitor.arrivals import VALID, Product, resolve
from geoalign.monitor.baseline import Frame
from geoalign.monitor.cluster import runner
from geoalign.monitor.themes import apart, fold_theme
from tests.monitor.histories import Histories, histories
from tests.monitor.watched import Watched

SIDE, N_HISTORY, N_WATCHED = 16, 16, 6
START = np.datetime64("2023-01-01T10:00:00", "ns")
CONFIG = parse_config(
    'name = "law"\nscenes = "."\noutput = "out"\n[grid]\ncrs = "EPSG:32633"\nresolution_m = 10\n'
    '[[detect]]\ndetector = "watch"\nindex = "ndvi"\norder = 0\nname = "t"\n[monitor]\nsince = "2023-06-10"\n'
)
FRAME = Frame(
    "law", "scenes", "EPSG:32633", (10.0, 0.0, 500000.0, 0.0, -10.0, 5400000.0), (SIDE, SIDE), SIDE, ("ndvi",),
    "optical", (-1,), "", 10.0, {}, {},
)  # fmt: skip


def _product(k, version):
    """Delivery of acquisition k; version 1 is reprocessed, and 2 the same bytes as 0 under another name."""
    content = f"content-{k}-{1 if version == 1 else 0}"
    when = str(START + np.timedelta64(10 * k, "D"))
    return Product(
        key=f"{k}-{version}", stack="scenes", scene=f"s{k:02d}" + ("_copy" if version == 2 else ""), acquisition=when,
        time=when, sensor="S2A", orbit=-1, tile="t", processing="2" if version == 1 else "1", bands=("ndvi",),
        paths=(f"{k}-{version}",), content=(content,), mtime_ns=k, status=VALID, reason="", arrived=0.0,
    )  # fmt: skip


def _values(k, version):
    rng = np.random.default_rng([k, version])
    out = rng.normal(0.7, 0.02, (1, SIDE, SIDE)).astype("f4")
    if k >= N_HISTORY + 2:
        out[:, 4:10, 5:12] -= 0.3
    if k % 3 == 1:
        out[:, :7, :] = np.nan
    return out


def _scene(acquisition):
    a = acquisition
    return evidence.Scene(evidence.evidence_key(a, FRAME), a.scene, a.name, a.time, a.sensor, a.orbit, None)


def _write(root, acquisition, values):
    job = {
        "scene": acquisition.scene, "time": acquisition.time, "sensor": acquisition.sensor,
        "orbit": acquisition.orbit,
    }  # fmt: skip
    import dask

    scene = _scene(acquisition)
    stack = evidence.stack_of([values], [scene], FRAME)
    with dask.config.set(scheduler="synchronous"):
        evidence._write(stack, None, "", job, FRAME, evidence.path_of(root, scene.key))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Evidence of every delivery, the started model, and what in-order arrival gives."""
    root = tmp_path_factory.mktemp("law")
    for k in range(N_HISTORY + N_WATCHED):
        for version in (0, 1):
            found, _ = resolve([_product(k, version)])
            _write(root, next(iter(found.values())), _values(k, version))
    history = [_scene(next(iter(resolve([_product(k, 0)])[0].values()))) for k in range(N_HISTORY)]
    return SimpleNamespace(root=root, history=history)


def _visit(root, site, products):
    found, _ = resolve(products)
    scenes = apart(_scene(a) for a in found.values())
    detector = replace(make("watch", index="ndvi", order=0), since="2023-06-10")
    steps = fold.chain(detector, FRAME, site.history, scenes, since="2023-06-10", refit_days=0.0)
    theme = fold.Theme("t", "change", detector, FRAME, tuple(site.history), steps)
    with runner(threads=1) as hands:
        work = SimpleNamespace(root=root, runner=hands, config=CONFIG, events=[])
        alerts, figures = fold_theme(work, theme)
    fold.sweep_states(theme, root)
    return theme, [a.content() for a in alerts.alerts], fold.head_digest(theme, root), figures


def _fresh(tmp, site, started):
    root = tmp
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    (root / "evidence").symlink_to(site.root / "evidence")
    if started is not None:
        shutil.copytree(started / "state", root / "state")
    return root


@pytest.mark.slow
def test_every_history_of_arrival_gives_the_bits_of_arrival_in_order(site, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(fold, "EVERY_SCENES", 2)
    monkeypatch.setattr(fold, "KEPT", 2)
    base = tmp_path_factory.mktemp("visits")
    started = _fresh(base / "started", site, None)
    _visit(started, site, [])
    truth, moved = {}, 0

    @settings(max_examples=200, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(histories(range(N_HISTORY, N_HISTORY + N_WATCHED)))
    def law(visits):
        nonlocal moved
        final = frozenset(d for visit in visits for d in visit if d[1] == 1)
        if final not in truth:
            root = _fresh(base / "order", site, started)
            wanted = {k: (k, 0) for k in range(N_HISTORY, N_HISTORY + N_WATCHED)} | {k: (k, v) for k, v in final}
            seen = []
            for k in sorted(wanted):
                seen.append(_product(*wanted[k]))
                found = _visit(root, site, seen)
            truth[final] = found
        root = _fresh(base / "random", site, started)
        seen = []
        for visit in visits:
            seen += [_product(*d) for d in visit]
            found = _visit(root, site, seen)
        moved += len(visits) > 1
        assert found[0].head.hash == truth[final][0].head.hash
        assert found[2] == truth[final][2]
        assert found[1] == truth[final][1]
        assert found[3] == truth[final][3]

    law()
    assert moved > 100
    some = next(iter(truth.values()))
    assert any(a["status"] in ("provisional", "confirmed") for a in some[1])


@pytest.mark.parametrize(
    ("n", "options"),
    [(4, {"size": 32, "hole": (8, 18, 10, 22)}),
     (1, {"size": 64, "hole": (20, 34, 24, 40), "register": True, "moved_px": 0.5})],
    ids=["as they lie", "registered"],
)  # fmt: skip
def test_whole_visits_through_files_and_alignment_in_any_order(n, options, tmp_path):
    made = Histories.of(tmp_path, at_once=5, n_watched=5, clearing=2, **options)

    @settings(max_examples=n, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(histories(made.plain.watched()))
    def law(visits):
        made.check(visits)

    law()
    assert n == 1 or made.said["duplicate"] + made.said["superseded"] > 0
    assert made.said["valid"] >= 5 * n


def test_an_alert_that_a_late_scene_takes_away_is_retracted_with_its_reason(tmp_path):
    site = Watched(tmp_path, size=32, n_history=16, n_watched=5, clearing=9, hole=(8, 18, 10, 22))
    site.write_site()
    site.write_many(site.history())
    now = float(site.times[-1].astype("datetime64[s]").astype(int))
    monitor = Monitor(site.site, threads=1)
    first, second = site.n_history, site.n_history + 1
    bad = {b: np.where(np.isnan(v), v, 0.15 if b == "red" else 0.2).astype("f4") for b, v in site.bands(second).items()}
    site.write(first)
    site.write(second, bands=bad, processing="")
    monitor.visit(now=now)
    assert sum(monitor.visit(now=now).alerts.values()) == 1
    site.write(second, name=f"{site.name(second)}_good", processing="05.00")
    result = monitor.visit(now=now)
    assert result.alerts == {}
    (change,) = result.changes
    assert change["status"] == "retracted"
    assert "reprocessed" in change["reason"]
    revisions = monitor.history(change["alert"])["revisions"]
    assert revisions[0]["status"] in ("first", "provisional")
    assert revisions[-1]["status"] == "retracted"
    assert [r["revision"] for r in revisions] == [1, 2]
