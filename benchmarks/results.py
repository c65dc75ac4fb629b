"""Writes a benchmark's table into its own section of RESULTS.md, with the date, versions and machine."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("numpy", "numba", "xarray", "dask", "rasterio", "opencv-python-headless", "scikit-image")


def write_section(title: str, lines: list[str]) -> None:
    """Replace (or add) the section `title`; the rest of the file stays as it is."""
    import geoalign

    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    head = (
        f"## {title}\n\n{datetime.date.today().isoformat()}, geoalign {geoalign.__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {versions}\n"
    )
    old = (
        RESULTS.read_text() if RESULTS.exists() else "# Measured\n\nEach section was written by the script it names.\n"
    )
    parts = old.split("\n## ")
    kept = [parts[0].rstrip(), *(f"## {p.rstrip()}" for p in parts[1:] if not p.startswith(title + "\n"))]
    RESULTS.write_text("\n\n".join([*kept, head + "\n" + "\n".join(lines)]) + "\n")
    print("\n".join(lines))
