"""The demo finds its scenes in a checkout, and makes them elsewhere."""

import pytest

from geoalign import demo, pipeline, simulation


@pytest.fixture
def asked(monkeypatch):
    """The Config that the demo would run."""
    seen = []
    monkeypatch.setattr(pipeline, "run", lambda config, **options: seen.append(config) or "done")
    return seen


def test_in_a_checkout_the_scenes_of_the_repository_are_used(asked, tmp_path):
    site = demo.demo_site()
    assert site is not None
    assert demo.run_demo(tmp_path) == "done"
    assert asked[0].folder == site.parent
    assert asked[0].output_folder == tmp_path / "out"
    assert asked[0].truth_folder == site.parent / "truth"
    assert {item.detector for item in asked[0].detect} == {"flood", "deforestation", "urbanization"}


def test_elsewhere_they_are_simulated_first(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "demo_site", lambda: None)
    options = {"size": 32, "n_optical": 2, "n_sar": 2, "oversample": 2}
    monkeypatch.setattr(simulation, "simulate_demo", lambda folder: simulation.simulate(folder, **options))
    steps = []
    demo.run_demo(tmp_path, on_step=steps.append)
    assert steps == ["simulate"]
    assert len(list((tmp_path / "scenes" / "sar").glob("*.tif"))) == 2
    assert asked[0].output_folder == tmp_path / "out"
    assert asked[0].truth_folder == tmp_path / "scenes" / "truth"
