"""Peak memory and time of a whole run over scenes far larger than memory should hold.

    python benchmarks/large_stack.py [--size 10980] [--scenes 8] [--folder FOLDER]

Simulates SAR scenes (2 bands) as tiled files, then runs `geoalign run` on them in a process of its own and reads that
process's peak resident memory from the operating system. The folder is kept when named, so that a second run starts
from the same scenes.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import write_section

LIMIT_GB = 4.0
SITE = """name = "large"
scenes = "sar/*.tif"
output = "out"
[[detect]]
detector = "omnibus"
alpha = 0.001
[vectors]
min_area_m2 = 10000
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=10980)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        simulated_s = simulate_scenes(folder, options.size, options.scenes)
        site = folder / "large.toml"
        site.write_text(SITE)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "geoalign.cli", "run", str(site), "-v"])
        wall_s = time.perf_counter() - started
        peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        size_gb = sum(p.stat().st_size for p in (folder / "sar").glob("*.tif")) / 2**30
    raw_gb = options.scenes * options.size**2 * 2 * 4 / 2**30
    write_section(
        "large_stack.py: memory of a whole run",
        [
            "| scenes | size (px) | bands | raw float32 (GB) | files (GB) | simulate (s) | run (s) | peak RSS (GB) | limit (GB) |",
            "|---|---|---|---|---|---|---|---|---|",
            f"| {options.scenes} | {options.size} x {options.size} | 2 | {raw_gb:.1f} | {size_gb:.1f} | {simulated_s:.0f} "
            f"| {wall_s:.0f} | {peak_gb:.2f} | {LIMIT_GB:.0f} |",
        ],
    )
    return 0 if done.returncode in (0, 3) and peak_gb <= LIMIT_GB else 1


def simulate_scenes(folder: Path, size: int, scenes: int) -> float:
    """Write the scenes in a process of their own, so that the run's peak is the run's alone."""
    if (folder / "site.toml").exists():
        return 0.0
    started = time.perf_counter()
    code = f"import geoalign; geoalign.simulate({str(folder)!r}, size={size}, n_sar={scenes}, sensors=('sar',), oversample=2, seed=1)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run([sys.executable, "-c", code], check=True)
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    if peak_gb > LIMIT_GB and before / 2**20 < LIMIT_GB:
        raise SystemExit(f"simulating took {peak_gb:.1f} GB; run again with --folder so that only the run is measured")
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
