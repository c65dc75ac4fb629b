"""doctor: says what is wrong with an installation or a run, and what to do."""

import pytest

from geoalign import doctor
from geoalign.doctor import examine


def one(findings, what):
    (found,) = [f for f in findings if f.what == what]
    return found


@pytest.fixture(scope="module")
def findings():
    return examine()


def test_a_sound_installation_is_said_to_be_sound(findings):
    for what in ("python", "packages", "opencv", "imports", "projections"):
        assert one(findings, what).status == "ok", one(findings, what)
    assert "GDAL" in one(findings, "imports").seen
    assert all(f.advice for f in findings if f.status != "ok")


def test_two_builds_of_opencv_are_bad(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: True)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "5.0")
    found = doctor._opencv()
    assert found.status == "bad"
    assert "opencv-python 5.0" in found.seen


def test_variables_of_another_gdal_are_named(monkeypatch):
    monkeypatch.setenv("GDAL_DATA", "/elsewhere")
    found = {f.what: f for f in doctor._variables({"PROJ_LIB": "/other"})}
    assert (found["GDAL_DATA"].status, found["PROJ_LIB"].seen) == ("doubtful", "/other")


def test_numba_switched_off_is_doubtful(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert doctor._threads().status == "doubtful"


def test_a_folder_without_a_run_is_bad(tmp_path):
    assert one(examine(tmp_path), "run").status == "bad"


def test_little_memory_or_disk_is_doubtful(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_memory_bytes", lambda: (8 * doctor.GIB, doctor.GIB))
    assert doctor._memory().status == "doubtful"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert doctor._disk(tmp_path / "not" / "there").status == "doubtful"
