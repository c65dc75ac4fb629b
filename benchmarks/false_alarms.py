"""How often each detector flags stable ground: nominal alpha against the share of pixels flagged.

    python benchmarks/false_alarms.py [--side 400] [--data FOLDER]

Stable dual-pol gamma speckle (L 4.4, given and estimated) and stable seasonal reflectance with 30 % gaps; then each
detector of SAR series on what goes wrong: looks given that are not so, correlated dates, a residual shift, real ground.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from results import write_section
from sar_stack import VH, VV
from sar_stack import speckle as noise

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


def troubled(side, n=60, *, looks=4.4, lag=0.0, shift=0.0, seed=0):
    """Stable dual-pol speckle with correlated dates, or on ground of stripes (6 dB) whose scenes lie `shift` px off."""
    rng = np.random.default_rng(seed)
    cols = np.arange(side)
    stripes = np.where(cols % 16 < 8, 1.0, 0.25)
    ground = 1.0
    if shift:
        ground = np.stack([np.interp(cols + s, cols, stripes) for s in rng.normal(0, shift, n)])[:, None]
    bands = {
        name: (level * ground * noise(rng, (n, side, side), looks, lag)).astype("f4")
        for name, level in (("vv", VV), ("vh", VH))
    }
    return geoalign.new_stack(bands, np.datetime64("2020-01-03") + np.arange(n) * 12)


def real_series(folder):
    """Sentinel-1 series in which nothing changes: name -> Stack."""
    import xarray as xr

    out = {}
    for path in sorted((folder / "series" / "s1_png").glob("*.nc")):
        with xr.open_dataset(path) as data:
            bands = {
                k.lower(): v.transpose("time", ...).values
                for k, v in data.data_vars.items()
                if k.lower() in ("vv", "vh") and "time" in v.dims
            }
            out[path.stem] = geoalign.new_stack(bands, data.time.values)
    return out


def sar_rows(side, folder):
    """One row a case and detector: share of observable pixels flagged."""
    cases = [
        ("as given, ENL given", troubled(side, seed=1), {"enl": 4.4}),
        ("as given, ENL estimated", troubled(side, seed=1), {}),
        ("ENL 4.4 given, 3.0 true", troubled(side, looks=3.0, seed=2), {"enl": 4.4}),
        ("ENL 3.0 true, estimated", troubled(side, looks=3.0, seed=2), {}),
        ("AR(1) .3, ENL given", troubled(side, lag=0.3, seed=3), {"enl": 4.4}),
        ("AR(1) .3, ENL estimated", troubled(side, lag=0.3, seed=3), {}),
        ("stripes, 0.5 px shift, sigma_px 0, ENL estimated", troubled(side, shift=0.5, seed=4), {"sigma_px": 0}),
        ("stripes, 0.5 px shift, sigma_px .5, ENL estimated", troubled(side, shift=0.5, seed=4), {"sigma_px": 0.5}),
        ("stripes, 0.5 px shift, sigma_px .5, ENL given", troubled(side, shift=0.5, seed=4),
         {"sigma_px": 0.5, "enl": 4.4}),
    ]  # fmt: skip
    cases += [(f"real: {name}, ENL estimated", stack, {}) for name, stack in real_series(folder).items()]
    lines = [
        "",
        "Detectors of SAR series, 60 dates of vv and vh unless real; alpha .01; bayts has none, at its default and at "
        "the published .975.",
        "",
        "| series | omnibus | gamma_glr | bayts | bayts .975 |",
        "|---|---|---|---|---|",
    ]
    for label, stack, options in cases:
        cells = []
        for name, extra in (
            ("omnibus", {"alpha": 0.01}),
            ("gamma_glr", {"alpha": 0.01}),
            ("bayts", {}),
            ("bayts", {"confirm": 0.975}),
        ):
            own = {k: v for k, v in options.items() if k != "enl"} if name == "bayts" else options
            try:
                found = geoalign.detect(stack, name, **own, **extra)
            except geoalign.GeoalignError as error:
                cells.append(f"refused: {error}"[:60])
                continue
            seen = found.status.values != 255
            cells.append(f"{changed(found).values[seen].mean():.4f}" if seen.any() else "none observable")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def omnibus_sizes():
    """Size of the omnibus over lengths and looks, one band, alpha .01."""
    lines = [
        "",
        "omnibus, one band, looks given, alpha .01: share of stable pixels flagged (simulation error .0005 to .002).",
        "",
        "| dates | L 1 | L 2 | L 4.4 | L 20 |",
        "|---|---|---|---|---|",
    ]
    for n in (2, 5, 12, 30, 90, 200):
        side = int(min(120, (1.5e8 / n**2) ** 0.5))
        cells = []
        for looks in (1.0, 2.0, 4.4, 20.0):
            power = np.random.default_rng(n).gamma(looks, 0.1 / looks, (n, side, side)).astype("f4")
            stack = geoalign.new_stack({"vv": power}, np.datetime64("2020-01-01") + np.arange(n) * 12)
            found = geoalign.detect(stack, "omnibus", alpha=0.01, enl=looks, min_obs=2)
            cells.append(f"{float(changed(found).mean()):.4f}")
        lines.append(f"| {n} ({side}^2 px) | {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=400)
    parser.add_argument("--sar-side", type=int, default=160)
    default = os.environ.get("GEOALIGN_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    given = parser.parse_args()
    side = given.side
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
    lines += sar_rows(given.sar_side, given.data) + omnibus_sizes()
    write_section("false_alarms.py: nominal and actual", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
