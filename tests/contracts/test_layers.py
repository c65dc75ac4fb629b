"""The import contracts of pyproject.toml, and that importing geoalign costs nothing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_data_flows_one_way():
    # in a process of its own: import-linter switches off every logger that exists
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_geoalign_loads_nothing_heavy():
    heavy = ("numpy", "xarray", "dask", "rasterio", "numba", "cv2")
    code = f"import sys, geoalign; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import geoalign

    for name in geoalign.__all__:
        assert getattr(geoalign, name) is not None
