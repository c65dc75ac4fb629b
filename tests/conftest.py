"""Shared by all tests: where the real imagery is, and a scheduler that refuses to run."""

import os
from pathlib import Path

import dask
import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")
settings.register_profile("default", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("default")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real imagery; skips where there is none."""
    given = os.environ.get("GEOALIGN_REAL_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real imagery is not here (looked at {folder}; set GEOALIGN_REAL_DATA)")
    return folder


@pytest.fixture
def no_compute():
    """Context manager under which any dask computation fails: what runs inside must stay lazy."""

    def refuse(*args, **kwargs):
        raise AssertionError("something was computed that should have stayed lazy")

    return lambda: dask.config.set(scheduler=refuse)
