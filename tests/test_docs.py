"""The pages: nothing public is missing from the API, their code runs, their pictures are those of their code."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import geoalign
from geoalign.detectors import DETECTORS
from geoalign.registration import MATCHERS

ROOT = Path(__file__).resolve().parents[1]
API = (ROOT / "docs/api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in geoalign.__all__ if name != "__version__"])
def test_every_public_name_is_in_the_api(name):
    assert re.search(rf"auto(function|class):: geoalign\.{name}\n", API)


@pytest.mark.parametrize("registry", [DETECTORS, MATCHERS], ids=["detectors", "matchers"])
def test_every_plug_in_is_in_the_api(registry):
    for name, plugin in registry.items():
        assert f".. autoclass:: {plugin.__module__}.{plugin.__name__}\n" in API, f"{name} is not in docs/api.md"


def test_the_detector_of_the_how_to_runs(tmp_path):
    (tmp_path / "data").symlink_to(ROOT / "data")
    text = (ROOT / "docs/howto/own_detector.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    code += "\nassert changes.attrs['kind'] == 'brightening'\nassert set(changes.status.values.ravel()) <= {0, 3, 255}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_gallery_draws_its_pictures(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_gallery", ROOT / "docs/make_gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(ROOT)
    drawn = module.main(tmp_path)
    assert len(drawn) >= 6
    for path in drawn:
        assert path.stat().st_size > 3000
        assert (ROOT / "docs" / path.relative_to(tmp_path)).is_file(), "run docs/make_gallery.py"
