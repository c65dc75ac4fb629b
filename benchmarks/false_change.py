"""False change under a residual shift: what detectors flag on unchanged ground, with and without knowing `sigma_px`.

    python benchmarks/false_change.py [--side 256] [--seeds 1] [--part both | own | common]

A ground of parcels with sharp borders, hedges and texture is seen scene after scene, each pixel the mean of what lies
under a detector's blur around the place that the scene really shows. That place is off by a random shift of its own in
every scene, normal, with standard deviation `shift` px an axis: that is what `sigma_px` says. Rectangles of 6 to
20 px, 8 % of the image, change in the middle of the series; a second set has 3 to 10 px. In a second part the earlier
scenes lie right and the later ones are all off by `shift` along both axes, as after a change of processing.

Flagged: share of pixels further than 3 px from any patch. F1: of those and the pixels inside the patches.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from results import write_section
from scipy.ndimage import binary_dilation, map_coordinates

import geoalign
from geoalign.types.changes import changed

SHIFTS = (0.0, 0.1, 0.25, 0.5, 1.0)
ALPHA = 0.01
FINE = 8
"""Samples of the ground a pixel, along each axis."""
PATCHES = (6, 20), (3, 10)
"""Sides of the changed rectangles, px; the second set shows what small ones lose by their borders."""
CHANGED = 0.08
"""Share of the image that changes."""
MARGIN = 6
"""Ground beyond the image, px."""
# cover: vv dB, vh dB, NDVI level, seasonal amplitude, phase (years)
COVERS = np.array([
    (-11.0, -17.5, 0.45, 0.25, 0.50), (-9.5, -16.0, 0.50, 0.22, 0.40), (-8.5, -14.0, 0.78, 0.07, 0.53),
    (-10.0, -17.0, 0.60, 0.12, 0.50), (-13.0, -20.5, 0.20, 0.04, 0.45), (-6.0, -12.5, 0.25, 0.05, 0.50),
])  # fmt: skip
HEDGE = np.array((-8.0, -13.5, 0.72, 0.08, 0.53))
STEP_DB = (-3.0, -5.0)
STEP_NDVI = -0.22


class Ground:
    """Cover parameters of the fine ground, (5, row, col), and where and how it changes."""

    def __init__(self, side, seed, patch=PATCHES[0]):
        rng = np.random.default_rng(seed)
        n = (side + 2 * MARGIN) * FINE
        rows, cols = np.mgrid[:n, :n].astype(np.float32)
        # parcels: the nearest of scattered points, in a metric of their own direction
        points = rng.uniform(0, n, (int((n / FINE) ** 2 / 500), 2)).astype(np.float32)
        kinds = rng.integers(0, len(COVERS), len(points))
        from scipy.spatial import cKDTree

        distance, nearest = cKDTree(points).query(np.stack([rows.ravel(), cols.ravel()], 1), k=2, workers=1)
        hedge = ((distance[:, 1] - distance[:, 0]) < 1.2 * FINE) & (kinds[nearest].sum(axis=1) % 3 == 0)
        self.values = COVERS[kinds[nearest[:, 0]]].T.copy()
        self.values[:, hedge] = HEDGE[:, None]
        self.values = self.values.reshape(5, n, n)
        coarse = rng.normal(size=(5, n // 12 + 2, n // 12 + 2))
        for k, size in enumerate((0.7, 0.7, 0.03, 0.01, 0.0)):
            grain = cv2.resize(coarse[k].astype(np.float32), (n, n), interpolation=cv2.INTER_CUBIC)
            self.values[k] += size * grain
        self.mask = np.zeros((side, side), bool)
        while self.mask.mean() < CHANGED:
            h, w = rng.integers(patch[0], patch[1] + 1, 2)
            r, c = rng.integers(4, side - patch[1] - 4, 2)
            self.mask[r : r + h, c : c + w] = True
        wide = np.pad(self.mask, MARGIN)
        self.changed = np.kron(wide, np.ones((FINE, FINE), bool))
        self.side = side

    def seen(self, fine, dy, dx):
        """The image of a fine layer at an offset of (dy, dx) px."""
        blurred = cv2.GaussianBlur(cv2.blur(fine, (FINE, FINE)), (0, 0), 0.4 * FINE)
        at = (np.arange(self.side) + MARGIN + 0.5) * FINE - 0.5
        return map_coordinates(blurred, np.meshgrid(at + dy * FINE, at + dx * FINE, indexing="ij"), order=1)


def moves_of(rng, shift, n, common):
    """(n, 2) px: a shift of its own for every scene, or one that the scenes from number `common` on share."""
    own = np.clip(rng.normal(0, shift, (n, 2)), -MARGIN + 2, MARGIN - 2)
    return own if common is None else np.where(np.arange(n)[:, None] >= common, shift, 0.0) * np.ones((n, 2))


def sar(ground, shift, n=30, looks=4.4, seed=0, common=False):
    rng = np.random.default_rng(seed)
    moves = moves_of(rng, shift, n, n // 3 if common else None)
    bands = {"vv": np.empty((n, ground.side, ground.side), np.float32)}
    bands["vh"] = bands["vv"].copy()
    for b, name in enumerate(bands):
        before = (10 ** (ground.values[b] / 10)).astype(np.float32)
        after = np.where(ground.changed, before * np.float32(10 ** (STEP_DB[b] / 10)), before)
        for t, (dy, dx) in enumerate(moves):
            mean = ground.seen(after if t >= n // 2 else before, dy, dx)
            bands[name][t] = rng.gamma(looks, mean / looks)
    return geoalign.new_stack(bands, np.datetime64("2022-01-03") + np.arange(n) * 12)


def optical(ground, shift, n=92, seed=0, common=False):
    """NDVI every 16 days for four years, 30 % gaps, noise .03; the change comes in the third year."""
    rng = np.random.default_rng(seed)
    moves = moves_of(rng, shift, n, n // 2 if common else None)
    level, size, phase = ground.values[2:]
    parts = [level, size * np.cos(2 * np.pi * phase), size * np.sin(2 * np.pi * phase), ground.changed * STEP_NDVI]
    parts = [p.astype(np.float32) for p in parts]
    days = np.arange(n) * 16
    ndvi = np.empty((n, ground.side, ground.side), np.float32)
    for t, (dy, dx) in enumerate(moves):
        angle = 2 * np.pi * days[t] / 365.25
        fine = parts[0] + np.cos(angle) * parts[1] + np.sin(angle) * parts[2]
        ndvi[t] = ground.seen(fine + parts[3] if t >= 60 else fine, dy, dx)
    ndvi += rng.normal(0, 0.03, ndvi.shape)
    ndvi[rng.random(ndvi.shape) < 0.3] = np.nan
    return geoalign.new_stack({"ndvi": ndvi}, np.datetime64("2020-01-03") + days)


def scores(ground, found):
    """(share flagged, F1)"""
    flagged = changed(found).values
    stable = ~binary_dilation(ground.mask, iterations=3)
    hit, missed = (flagged & ground.mask).sum(), (~flagged & ground.mask).sum()
    false = (flagged & stable).sum()
    return false / stable.sum(), 2 * hit / (2 * hit + missed + false)


CASES = {
    "omnibus": (sar, {"enl": 4.4}),
    "harmonic_cusum": (optical, {"index": "ndvi", "since": "2021-12-24"}),
}
CASE_NAMES = tuple(CASES)


def measure(side, seeds, *, common=False):
    """dict (detector, patch, shift, known) -> (share flagged, F1), means over the seeds"""
    wanted = [(PATCHES[0], shift, known) for shift in SHIFTS for known in (True, False)]
    wanted += [] if common else [(PATCHES[1], shift, True) for shift in SHIFTS]
    out = {}
    for name, (make, options) in CASES.items():
        stacks = {}
        for patch, shift, known in wanted:
            rows = []
            for seed in range(seeds):
                if (patch, shift, seed) not in stacks:
                    ground = Ground(side, seed, patch)
                    stacks = {(patch, shift, seed): (ground, make(ground, shift, seed=seed + 100, common=common))}
                ground, stack = stacks[patch, shift, seed]
                if known or shift > 0:
                    found = geoalign.detect(stack, name, alpha=ALPHA, sigma_px=shift if known else 0, **options)
                rows.append(scores(ground, found))
            out[name, patch, shift, known] = tuple(np.mean(rows, axis=0))
    return out


def picture(own, common, path):
    """False change of both parts and F1 of the first, against the residual shift."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, PercentFormatter

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.9), layout="constrained")
    panels = ((own, 0, "False change: each scene off by its own shift"),
              (common, 0, "False change: later scenes off together"),
              (own, 1, "Planted change found: own shifts"))  # fmt: skip
    for ax, (results, k, title) in zip(axes, panels):
        for name, colour in (("omnibus", "#0072B2"), ("harmonic_cusum", "#E69F00")):
            for known, style, word in ((True, "o-", "sigma_px given"), (False, "s--", "not given")):
                values = [results[name, PATCHES[0], shift, known][k] for shift in SHIFTS]
                face = colour if known else "white"
                ax.plot(SHIFTS, values, style, color=colour, ms=5, mfc=face, label=f"{name}, {word}")
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("residual shift (px rms, an axis)")
        ax.grid(alpha=0.25)
    for ax in axes[:2]:
        ax.set_yscale("log")
        ax.set(ylim=(0.004, 0.25), ylabel="stable pixels flagged")
        ax.axhline(ALPHA, color="#888888", lw=1)
        ax.text(0.0, ALPHA * 0.96, "nominal", va="top", fontsize=8, color="#666666")
        ax.yaxis.set_major_locator(FixedLocator([0.005, 0.01, 0.02, 0.05, 0.1, 0.2]))
        ax.yaxis.set_minor_locator(FixedLocator([]))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes[2].set(ylim=(0.6, 1), ylabel="F1")
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def table(results, given):
    """Lines of the table; the columns of small patches only where they were measured."""
    small = (CASE_NAMES[0], PATCHES[1], 0.0, True) in results
    head = ["detector", "residual shift (px, rms an axis)", "flagged, sigma_px given", "of nominal", "F1",
            "of no shift", "flagged, not given", "F1, not given"]  # fmt: skip
    head += ["F1 of 3-10 px patches, given", "of no shift"] if small else []
    grounds = "1 ground" if given.seeds == 1 else f"{given.seeds} grounds"
    lines = [f"{given.side} x {given.side} px, {grounds}, alpha {ALPHA}.", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in CASE_NAMES:
        for shift in SHIFTS:
            (share, f1), (plain, plain_f1) = (results[name, PATCHES[0], shift, known] for known in (True, False))
            cells = [name, f"{shift}", f"{share:.4f}", f"{share / ALPHA:.2f}", f"{f1:.3f}",
                     f"{f1 / results[name, PATCHES[0], 0.0, True][1]:.2f}", f"{plain:.4f}", f"{plain_f1:.3f}"]  # fmt: skip
            if small:
                lesser = results[name, PATCHES[1], shift, True][1]
                cells += [f"{lesser:.3f}", f"{lesser / results[name, PATCHES[1], 0.0, True][1]:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--part", choices=("both", "own", "common"), default="both")
    given = parser.parse_args()
    parts = {}
    for part, title in (("own", "a residual shift"), ("common", "a shift that later scenes share")):
        if given.part in (part, "both"):
            parts[part] = measure(given.side, given.seeds, common=part == "common")
            write_section(f"false_change.py: false change under {title}", table(parts[part], given))
    if given.part == "both":
        picture(*parts.values(), Path(__file__).resolve().parents[1] / "docs/img/false_change.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
