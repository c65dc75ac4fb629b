"""A small site of simulated SAR scenes on disk, for tests of what runs end to end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from geoalign import simulate

SITE = """
name = "small"
scenes = "sar/*.tif"
output = "out"
truth = "truth"
register = false
[grid]
crs = "EPSG:32633"
resolution_m = 10
bbox = [500000, 5399360, 500640, 5400000]
[[detect]]
detector = "log_ratio"
[vectors]
min_area_m2 = 500
"""


def make_scenes(folder, *, size=64, misregistration_px=0.0) -> Path:
    """Six SAR scenes with changes between the first and the last; without misregistration by default."""
    options = {"sensors": ("sar",), "n_sar": 6, "oversample": 2, "warps": ("shift",)}
    simulate(folder, size=size, seed=2, misregistration_px=misregistration_px, **options)
    return Path(folder)


def copy_site(scenes, folder, text=SITE) -> Path:
    """A copy of the scenes with a site file of their own; returns the path of the site file."""
    folder = Path(folder)
    shutil.copytree(Path(scenes) / "sar", folder / "sar")
    shutil.copytree(Path(scenes) / "truth", folder / "truth")
    (folder / "site.toml").write_text(text)
    return folder / "site.toml"


def processor_seconds(code) -> float:
    """Processor time of a fresh Python that runs the code: what it would take on a machine with nothing else to do."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
