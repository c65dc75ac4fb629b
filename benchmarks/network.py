"""A series of which some scenes have little in common with the rest: each to the reference alone, and as a network.

    python benchmarks/network.py [--size 384]

24 scenes over two years, rendered by area averaging from one finer source that changes with the seasons; 6 of them are
decorrelated: two under snow, two of a flood, two under 70 % cloud. Error: RMSE of the end-point error over all pixels
of a scene, relative to the reference.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import cv2
import numpy as np
from pairs import about_centre, fields, render
from results import write_section

from geoalign import Shift, coregister, new_stack
from geoalign.registration.adjust import compose

FINE = 3
DAY0 = np.datetime64("2022-01-10", "ns")


@dataclass(frozen=True)
class Series:
    """stack : scenes with NaN under clouds; truths : scene -> Warp from the common ground to it; odd : decorrelated"""

    stack: object
    truths: dict
    odd: dict

    def errors_px(self, alignment) -> dict:
        """Scene -> RMSE of its end-point error relative to the reference, px; NaN where it was not aligned."""
        shape = self.stack.sizes["y"], self.stack.sizes["x"]
        rows, cols = np.mgrid[0 : shape[0] : 8, 0 : shape[1] : 8].astype(float)
        frame = self.truths[alignment.reference].inverse()
        out = {}
        for name, truth in self.truths.items():
            out[name] = np.nan
            if name in alignment.warps:
                (a, b), (r, c) = alignment.warps[name].pull(rows, cols), compose(frame, truth).pull(rows, cols)
                out[name] = float(np.sqrt(np.mean((a - r) ** 2 + (b - c) ** 2)))
        return out


def series(size=384, scenes=24, seed=3) -> Series:
    """The simulated series; the same seed gives the same bits."""
    rng = np.random.default_rng(seed)
    bare = fields(size, seed, FINE)
    layers = [fields(size, seed + k, FINE) for k in (31, 32, 33)]  # growth, snow drift and relief
    days = np.sort((np.arange(scenes) * 730 / scenes + rng.uniform(-8, 8, scenes)).round())
    names = [f"s{k:02d}" for k in range(scenes)]
    snow, flood, cloud = ((0, scenes // 2), (7, 8), (5, scenes - 5))
    odd = {names[k]: word for word, places in (("snow", snow), ("flood", flood), ("cloud", cloud)) for k in places}
    rows, cols = (np.mgrid[0 : bare.shape[0], 0 : bare.shape[1]] / bare.shape[0]).astype(np.float32)
    water = rows + 0.15 * np.sin(7 * cols) > 0.38
    images, truths = [], {}
    for k, name in enumerate(names):
        year = 2 * np.pi * (days[k] - 15) / 365.25
        green = 0.5 - 0.5 * np.cos(year)
        ground = (1 - 0.55 * green) * bare + 0.55 * green * layers[0]
        if k in snow:
            # larger images hold more windows: as much less of each must be left for the scene to be lost
            ground = 19.2 / size * bare + 0.5 * layers[1] + 0.25 * layers[2]
        elif green < 0.15:
            ground = ground + 0.3 * layers[1]  # patches of snow left on other winter scenes
        if k in flood:
            waves = cv2.GaussianBlur(rng.normal(size=ground.shape).astype(np.float32), (0, 0), FINE)
            ground = np.where(water, -2.0 + 0.5 * waves, ground)
        truth = Shift(*rng.uniform(-2, 2, 2))
        if k % 3 == 2:
            shift = rng.uniform(-2, 2, 2)
            truth = about_centre(size, rng.normal(0, 0.1), 1 + rng.normal(0, 1e-3), rng.normal(0, 5e-4), shift)
        image = render(ground, size, FINE, truth.inverse().pull)
        image += (0.1 if k in snow else 0.03) * rng.normal(size=image.shape)
        share = 0.7 if k in cloud else 0.1 * (k % 4 == 1)
        if share:
            blobs = cv2.GaussianBlur(rng.normal(size=image.shape), (0, 0), size / 14)
            image[blobs > np.quantile(blobs, 1 - share)] = np.nan
        images.append(image.astype(np.float32))
        truths[name] = truth
    times = DAY0 + days.astype(int) * np.timedelta64(1, "D").astype("timedelta64[ns]")
    return Series(new_stack({"red": np.stack(images)}, times, scene=names), truths, odd)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    made = series(options.size, seed=options.seed)
    results, seconds = {}, {}
    for network in (False, True):
        started = time.process_time()
        found = coregister(made.stack, network=network)
        seconds[network] = time.process_time() - started
        results[network] = found.report.set_index("scene"), made.errors_px(found), found.reference
    lines = ["| scene | to the reference alone (px) | network (px) | predicted, network (px) | closure (px) | how |"]
    lines.append("|---|---|---|---|---|---|")
    report = results[True][0]
    for name in made.truths:
        cells = []
        for network in (False, True):
            error = results[network][1][name]
            cells.append(f"{error:.3f}" if np.isfinite(error) else results[network][0].status[name])
        row = report.loc[name]
        how = row.reason or row.status
        kind = f" ({made.odd[name]})" if name in made.odd else ""
        lines.append(
            f"| {name}{kind} | {' | '.join(cells)} | {np.sqrt(2) * row.sigma_px:.3f} | {row.closure_px:.3f} | {how} |"
        )
    worst = []
    for network in (False, True):
        values = np.array(list(results[network][1].values()))
        lost = int(np.isnan(values).sum())
        worst.append(f"{np.nanmax(values):.3f}" + (f", {lost} lost" if lost else ""))
    lines.append(f"| worst | {worst[0]} | {worst[1]} | | | |")
    lines.append(f"| cpu seconds | {seconds[False]:.1f} | {seconds[True]:.1f} | | | |")
    if options.seed == 3:
        write_section(f"network.py: a series of {len(made.truths)} scenes, {options.size} px", lines)
    else:
        print("\n".join(lines))
    return 0 if np.nanmax(list(results[True][1].values())) <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
