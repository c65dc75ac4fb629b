"""Two optical dates: kappa of `irmad` and `cva` at default settings against a labelled pair, and seconds.

python benchmarks/optical_pairs.py FOLDER      (t1.tif, t2.tif, labels.tif: 1 change, 0 none, else unlabelled)
"""

import sys
import time
from pathlib import Path

import numpy as np
import rasterio
from results import write_section

from geoalign import detect, new_stack
from geoalign.types.changes import changed


def main() -> int:
    folder = Path(sys.argv[1])
    sources = [rasterio.open(folder / name) for name in ("t1.tif", "t2.tif")]
    bands = {f"b{k}": np.stack([s.read(k).astype(np.float32) for s in sources]) for k in range(1, sources[0].count + 1)}
    stack = new_stack(bands, ["2000-03-17", "2003-02-06"])
    with rasterio.open(folder / "labels.tif") as source:
        label = source.read(1)
    known = np.isin(label, (0, 1))
    lines = ["| pair | detector | kappa | F1 | share flagged | core-seconds |", "|---|---|---|---|---|---|"]
    for name in ("irmad", "cva"):
        detect(stack.isel(y=slice(0, 60), x=slice(0, 60)), name)
        started = time.process_time()
        found = changed(detect(stack, name)).values
        seconds = time.process_time() - started
        ours, real = found[known], label[known] == 1
        chance = ours.mean() * real.mean() + (1 - ours.mean()) * (1 - real.mean())
        kappa = ((ours == real).mean() - chance) / (1 - chance)
        f1 = 2 * (ours & real).sum() / (ours.sum() + real.sum())
        lines.append(f"| {folder.name} | {name} | {kappa:.4f} | {f1:.4f} | {found.mean():.3f} | {seconds:.2f} |")
    write_section("optical_pairs.py: two optical dates", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
