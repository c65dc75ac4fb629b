"""Error and time of registration, ours beside other packages on the same pairs in one run, and on real pairs.

    python benchmarks/registration.py [--peers PYTHON] [--data FOLDER] [--seeds 21 22] [--rows shift affine ...]

PYTHON: an interpreter that has OpenCV, scikit-image, SimpleITK and itk-elastix; without it those that are installed
here take part. FOLDER: real imagery (`registration/...`), by default ../shared/data or $GEOALIGN_REAL_DATA; without it
the pairs are made from synthetic ground only. Pairs are those of `pairs.py`; error is the RMSE of the displacement over
all pixels, seconds are those of a second call. The peers
that take longest see the first pairs of a row only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from pairs import about_centre, pair
from results import write_section

from geoalign import match
from geoalign.kernels.resample import resample

STEP = 4
ROWS = {
    "shift clean": ("ecc", 0.003, 0.15),
    "shift cloud": ("ecc", 0.003, 0.25),
    "shift xmodal 1": ("mutual_information", 0.016, None),
    "shift xmodal 3": ("mutual_information", 0.016, None),
    "shift xmodal 5": ("mutual_information", 0.016, None),
    "affine clean": ("ecc", 0.004, None),
    "affine cloud": ("ecc", 0.004, 0.6),
    "affine xmodal 3": ("mutual_information", 0.025, 1.0),
    "similarity clean": ("ecc", 0.006, None),
    "dense clean": ("dense", 0.030, 1.5),
    "dense cloud": ("dense", 0.040, 2.0),
    "dense xmodal 3": ("dense", 0.18, 3.0),
    "dense clean 2048": ("dense", 0.070, 10.0),
}
"""Pair -> matcher that fits it, and what it should reach: RMSE in px, seconds."""
LINEAR = ("OpenCV ECC", "OpenCV phaseCorrelate", "scikit-image", "SimpleITK MI", "AROSICS global", "AROSICS local")
DENSE = ("OpenCV DIS", "SimpleITK MI", "elastix", "AROSICS local")
SLOW = {"SimpleITK MI": 2, "elastix": 1, "AROSICS global": 2, "AROSICS local": 1}
"""Peer -> pairs of a row it is given: the first ones, as it takes the longest. Of fields every slow peer gets one."""
LIMIT_S = 240
"""A peer that takes longer for one pair is stopped."""
REAL = {"optical_sar": 0.74, "visible_infrared": 0.47, "visible_infrared_30m": 0.01, "lidar_optical": 0.65,
        "optical_map": 0.66}  # fmt: skip
"""Real pair -> what the best affine leaves at its check points, px RMSE."""


class Peers:
    """The worker, started again where a package takes it down."""

    def __init__(self, python):
        self.command = [python, str(Path(__file__).with_name("peers_registration.py"))]
        self.process = None
        hello = self._start()
        self.versions, self.methods = hello["versions"], hello["methods"]

    def _start(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return json.loads(self.process.stdout.readline())

    def ask(self, **job):
        from threading import Timer

        if self.process.poll() is not None:
            self._start()
        watch = Timer(LIMIT_S, self.process.kill)
        watch.start()
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        watch.cancel()
        if not reply:
            self.process.wait()
        return json.loads(reply) if reply else {"error": f"no answer in {LIMIT_S} s, or a crash"}

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Score:
    """What one method did on the pairs of one row."""

    def __init__(self):
        self.errors, self.cpu, self.wall, self.within, self.reasons = [], [], [], [], []

    def add(self, error, cpu, wall):
        self.errors.append(error)
        self.cpu.append(cpu)
        self.wall.append(wall)

    @property
    def rmse(self):
        return float(np.sqrt(np.mean(np.square(self.errors)))) if self.errors and not self.reasons else np.inf

    @property
    def seconds(self):
        return float(np.median(self.cpu))

    def text(self, brackets=""):
        if self.reasons:
            return f"fails ({len(self.reasons)} of {len(self.reasons) + len(self.errors)})"
        error = f"{self.rmse:.3f}" if self.rmse < 10 else f"{self.rmse:.0f}"
        return f"{error}{brackets}, {self.seconds:.2g} / {np.median(self.wall):.2g} s"


def ours(made, matcher, twice):
    """(Match, cpu seconds, wall seconds)"""
    options = {"matcher": matcher} | ({} if made.valid is None else {"valid": made.valid})
    for _ in range(2 if twice else 1):
        cpu, wall = time.process_time(), time.perf_counter()
        found = match(made.reference, made.moving, **options)
        seconds = time.process_time() - cpu, time.perf_counter() - wall
    return found, *seconds


def errors_of(warp, truth, shape):
    """Errors along rows and columns at every fourth pixel, (2, n, n)."""
    grid = np.mgrid[0 : shape[0] : STEP, 0 : shape[1] : STEP].astype(float)
    return np.stack(warp.pull(*grid)) - np.stack(truth.pull(*grid)), grid


def within(found, error, grid):
    """Shares of errors, axis by axis, within 1 and 2 sigma."""
    ratio = np.abs(error) / found.sigma_px(*grid)
    return (ratio <= 1).mean(axis=(1, 2)), (ratio <= 2).mean(axis=(1, 2))


def measure(row, sources, seeds, folder, peers, scratch):
    """Method -> Score. Ours are "auto" and the dedicated matcher."""
    name, size = (row.removesuffix(" 2048"), 2048) if row.endswith("2048") else (row, 512)
    kind = name.split()[0]
    scores = defaultdict(Score)
    cases = [(seed, source) for seed in seeds for source in sources]
    for k, (seed, source) in enumerate(cases[:1] if size > 512 else cases):
        made = pair(name, source=source, size=size, seed=seed, folder=folder)
        for matcher in ("auto", ROWS[row][0]):
            try:
                found, cpu, wall = ours(made, matcher, twice=k == 0)
            except Exception as err:
                scores[matcher].reasons.append(str(err))
                continue
            error, grid = errors_of(found.warp, made.truth, made.reference.shape)
            scores[matcher].add(np.sqrt((error**2).sum(axis=0).mean()), cpu, wall)
            scores[matcher].within.append(within(found, error, grid))
        wanted = [m for m in (DENSE if kind == "dense" else LINEAR) if m in peers.methods]
        wanted = [m for m in wanted if m not in SLOW or k < (1 if kind == "dense" else SLOW[m])]
        if size > 512:
            wanted = [m for m in wanted if m != "SimpleITK MI"]
        arrays = {"reference": made.reference, "moving": made.moving}
        if made.valid is not None:
            arrays |= {"valid_reference": made.valid[0], "valid_moving": made.valid[1]}
        for label, array in arrays.items():
            np.save(Path(scratch, f"{label}.npy"), array)
        for method in wanted:
            reply = peers.ask(
                folder=scratch, method=method, model=kind, masked=made.valid is not None, modal="xmodal" in name
            )
            if "error" in reply:
                scores[method].reasons.append(reply["error"])
                continue
            error = np.load(Path(scratch, "pull.npy")) - np.stack(made.truth.pull(*grid_of(made)))
            scores[method].add(np.sqrt((error**2).sum(axis=0).mean()), reply["cpu"], reply["wall"])
        state = ", ".join(f"{m} {s.text()}" for m, s in scores.items())
        print(f"{row}, seed {seed}, {source}: {state}", file=sys.stderr, flush=True)
    return scores


def grid_of(made):
    return np.mgrid[0 : made.reference.shape[0] : STEP, 0 : made.reference.shape[1] : STEP].astype(float)


def ratio(own, other):
    """CPU time of another method over ours."""
    return f"{other.seconds / own.seconds:.2g}"


def tables(results, methods):
    """Lines: ours against what is asked and against the peers, then all peers."""
    head = ["pair", "asked", "geoalign auto", "geoalign fitting", "of auto's errors within 1 / 2 sigma",
            "most precise peer", "its time over auto's", "fastest peer as precise as auto", "its time over auto's",
            "over fitting's"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    shares = []
    for row, scores in results.items():
        matcher, limit, seconds = ROWS[row]
        auto, fitting = scores["auto"], scores[matcher]
        share = np.mean(auto.within, axis=(0, 2)) if auto.within else np.full(2, np.nan)
        shares += [share] * bool(auto.within)
        asked = f"{limit}" + (f", {seconds} s" if seconds else "")
        cells = [row, asked, auto.text(), f"{matcher} {fitting.text()}", f"{share[0]:.2f} / {share[1]:.2f}"]
        others = {m: s for m, s in scores.items() if m in methods and np.isfinite(s.rmse)}
        equal = {m: s for m, s in others.items() if s.rmse <= auto.rmse}
        best = min(others, key=lambda m: others[m].rmse, default=None)
        first = min(equal, key=lambda m: equal[m].seconds, default=None)
        cells += ["none", ""] if best is None else [f"{best} {others[best].text()}", ratio(auto, others[best])]
        cells += (
            ["none", "", ""]
            if first is None
            else [f"{first} {equal[first].text()}", ratio(auto, equal[first]), ratio(fitting, equal[first])]
        )
        lines.append(f"| {' | '.join(cells)} |")
    whole = np.mean(shares, axis=0)
    lines += ["", f"All pairs, axis by axis: {whole[0]:.0%} of auto's errors within 1 sigma_px, {whole[1]:.0%} within 2.",
              "", f"| pair | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]  # fmt: skip
    for row, scores in results.items():
        cells = [scores[m].text() if m in scores else "" for m in methods]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def grey(path):
    import rasterio

    with rasterio.open(path) as source:
        return source.read().astype(np.float32).mean(axis=0)


def real_pairs(folder):
    """Name, reference, moving, points (n, 2), where they are in the moving image, and what may be left (px)."""
    import pandas as pd
    import rasterio

    for name, floor in REAL.items():
        here = Path(folder, "registration", name)
        points = pd.read_csv(here / "checkpoints.csv")
        at, there = (points[[f"{side}_row", f"{side}_col"]].to_numpy(float) for side in ("ref", "sen"))
        reference, moving = grey(here / "reference.tif"), grey(here / "sensed.tif")
        if name == "visible_infrared_30m":
            warp = about_centre(moving.shape[0], 1.5, 1.01, shift=(12.3, -7.6))
            rows, cols = np.indices(moving.shape).astype(float)
            moving, there = (
                resample(moving, *warp.inverse().pull(rows, cols), "cubic"),
                np.stack(warp.pull(*there.T), 1),
            )
        yield name, reference, moving, at, there, floor
    here = Path(folder, "registration", "s1s2_flow")
    radar, optical = grey(here / "s1.tif"), grey(here / "s2.tif")
    with rasterio.open(here / "flow.tif") as source:
        dy, dx = source.read().astype(float)
    rows, cols = np.indices(radar.shape).astype(float)
    at = np.stack([rows.ravel(), cols.ravel()], 1)
    there = at + np.stack([dy.ravel(), dx.ravel()], 1)
    yield "s1s2_flow", resample(radar, rows + dy, cols + dx, "cubic"), optical, at, there, None


def real(folder):
    """Lines of the table of real pairs, matched with nothing but the two images."""
    lines = ["| pair | no motion (px) | geoalign auto, RMSE (px) | median (px) | affine through the points (px) | asked (px) "
             "| sigma_px | warp | matcher | cpu / wall s |", "|---" * 10 + "|"]  # fmt: skip
    for name, reference, moving, at, there, floor in real_pairs(folder):
        still = np.sqrt(((at - there) ** 2).sum(axis=1).mean())
        asked = {"optical_map": "1.0", "visible_infrared_30m": "0.1", "s1s2_flow": "median 1.0"}
        limit = asked[name] if name in asked else f"{floor + 0.15:.2f}"
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            found = match(reference, moving)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            length = np.hypot(*(np.stack(found.warp.pull(*at.T), 1) - there).T)
            kind = type(found.warp).__name__.lower()
            sigma = np.sqrt((found.sigma_px(*at.T) ** 2).mean())
            cells = [f"{np.sqrt((length**2).mean()):.3f}", f"{np.median(length):.3f}", f"{floor or ''}", limit,
                     f"{sigma:.3f}", kind, found.method, f"{cpu:.2g} / {wall:.2g}"]  # fmt: skip
        except Exception as err:
            cells = [f"fails: {err}", "", f"{floor or ''}", limit, "", "", "", ""]
        lines.append(f"| {name} | {still:.2f} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22])
    parser.add_argument("--rows", nargs="+", help="only pairs whose names hold one of these words; nothing is written")
    options = parser.parse_args()
    folder = options.data or Path(
        os.environ.get("GEOALIGN_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared/data"
    )
    sources = ["fields", "sentinel2"] if (folder / "registration/s2_pair").is_dir() else ["fields"]
    rows = [row for row in ROWS if not options.rows or any(word in row for word in options.rows)]
    peers = Peers(options.peers)
    with tempfile.TemporaryDirectory() as scratch:
        results = {}
        for row in rows:
            results[row] = measure(row, sources, options.seeds, folder, peers, scratch)
    peers.close()
    versions = ", ".join(f"{name} {number}" for name, number in peers.versions.items())
    lines = [
        f"Peers: {versions}. RMSE over all pixels (px) of {len(options.seeds)} seeds x {len(sources)} grounds "
        f"({', '.join(sources)}), root mean square; 2048 px: one pair; CPU / wall seconds of a pair (median, second call), on a",
        "machine shared with other work: compare CPU seconds. `auto` is told nothing but the masks; the fitting matcher is",
        "named, its model is not; peers are told the model. SimpleITK sees the first seed only, B-splines one pair of a row.",
        "",
        *tables(results, peers.methods),
    ]
    if options.rows:
        print("\n".join(lines))
        return 0
    write_section("registration.py: pairs with known displacement, ours and others, 512 px", lines)
    if len(sources) > 1:
        write_section("registration.py: real pairs, nothing told", real(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
