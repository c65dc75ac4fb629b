"""Two-date detectors on real pairs with a published mask: kappa at default settings, beside plain baselines.

python benchmarks/sar_pairs.py [--data ../shared/data]
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import rasterio
from results import write_section
from scipy.ndimage import uniform_filter
from skimage.filters import threshold_otsu

import geoalign

PAIRS = ("ottawa", "san_francisco", "farmland")
DETECTORS = ("sar_change", "log_ratio", "mean_ratio", "pca_kmeans")


def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return source.read().astype("float32")


def kappa(hit, truth):
    chance = hit.mean() * truth.mean() + (1 - hit.mean()) * (1 - truth.mean())
    return ((hit == truth).mean() - chance) / (1 - chance)


def otsu(before, after):
    ratio = np.abs(np.log((uniform_filter(after, 3) + 1) / (uniform_filter(before, 3) + 1)))
    return ratio > threshold_otsu(ratio)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    data = parser.parse_args().data
    lines = [
        "`detect(stack, name)` with no option; log-ratio + Otsu: 3 x 3 means, |ln|, Otsu. CPU seconds of the second call.",
        "",
        "| pair | " + " | ".join(DETECTORS) + " | log-ratio + Otsu | sar_change, CPU s |",
        "|---" * (len(DETECTORS) + 3) + "|",
    ]
    for name in PAIRS:
        before, after, truth = (read(data / "sar_pairs" / name / f"{k}.tif")[0] for k in ("t1", "t2", "change"))
        truth = truth > 0
        stack = geoalign.new_stack({"vv": np.stack([before, after])}, ["2000-01-01", "2000-02-01"])
        row = [f"{kappa(geoalign.detect(stack, d).status.values == 3, truth):.3f}" for d in DETECTORS]
        start = time.process_time()
        geoalign.detect(stack, "sar_change")
        seconds = time.process_time() - start
        lines.append(f"| {name} | {' | '.join(row)} | {kappa(otsu(before, after), truth):.3f} | {seconds:.2f} |")
    folder = data / "optical_pairs" / "sardinia"
    first, second, truth = (read(folder / f"{k}.tif") for k in ("t1", "t2", "change"))
    pair = {
        "infrared": geoalign.new_stack({"nir": first}, ["1995-09-01"]),
        "colour": geoalign.new_stack(
            {k: second[i : i + 1] for i, k in enumerate(("red", "green", "blue"))}, ["1996-07-01"]
        ),
    }
    found = [kappa(geoalign.detect(pair, "heterogeneous", seed=s).status.values == 3, truth[0] > 0) for s in range(3)]
    lines += [
        "",
        f"sardinia, near infrared against colour, `heterogeneous`, seeds 0 to 2: {', '.join(f'{k:.3f}' for k in found)}.",
    ]
    write_section("sar_pairs.py: two dates, kappa against the published mask", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
