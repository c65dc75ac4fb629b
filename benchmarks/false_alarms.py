"""How often each detector flags stable ground: nominal alpha against the share of pixels flagged.

    python benchmarks/false_alarms.py [--side 400]

Stable dual-pol gamma speckle (L 4.4, given and estimated) and stable seasonal reflectance with 30 % gaps.
"""

import argparse
import sys

import numpy as np
from results import write_section

import geoalign
from geoalign.types.changes import changed


def speckle(side, n, looks=4.4, seed=0):
    rng = np.random.default_rng(seed)
    bands = {
        name: rng.gamma(looks, level / looks, (n, side, side)).astype("f4")
        for name, level in (("vv", 0.1), ("vh", 0.02))
    }
    stack = geoalign.new_stack(bands, np.datetime64("2020-01-01") + np.arange(n) * 12)
    return stack


def season(side, n, seed=0):
    rng = np.random.default_rng(seed)
    days = np.arange(n) * 16
    ndvi = 0.6 + 0.15 * np.sin(2 * np.pi * days / 365.25)[:, None, None] + rng.normal(0, 0.03, (n, side, side))
    ndvi[rng.random(ndvi.shape) < 0.3] = np.nan
    return geoalign.new_stack({"ndvi": ndvi.astype("f4")}, np.datetime64("2010-01-01") + days)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=400)
    side = parser.parse_args().side
    lines = ["| detector | series | dates | alpha | pixels | flagged |", "|---|---|---|---|---|---|"]
    for n in (10, 30, 60):
        stack = speckle(side, n, seed=n)
        for looks in (4.4, None):
            found = geoalign.detect(stack, "omnibus", alpha=0.01, enl=looks)
            lines.append(
                f"| omnibus | speckle L 4.4, ENL {'given' if looks else 'estimated'} | {n} | .01 | {side**2} "
                f"| {float(changed(found).mean()):.4f} |"
            )
    for n in (92, 230):
        for alpha in (0.01, 0.05):
            stack = season(side, n, seed=n)
            found = geoalign.detect(
                stack, "harmonic_cusum", alpha=alpha, index="ndvi", since=str(stack.time.values[46])[:10]
            )
            lines.append(
                f"| harmonic_cusum | season + noise, 30 % gaps | {n} | {alpha} | {side**2} | {float(changed(found).mean()):.4f} |"
            )
    write_section("false_alarms.py: nominal and actual", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
