"""SAR themes on series with known change and traps: F1, false change, dates; floods beside water, wind and wet fields.

    python benchmarks/sar_themes.py [--seeds 3] [--only themes floods]

The worlds are those of `sar_worlds.py`. "Null" is the same world without change: all that is flagged there is false.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from results import write_section

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import geoalign
from benchmarks.sar_worlds import LOOKS, WATER, flood, scores, theme

CASES = {
    "30 dates": {"n": 30},
    "60 dates": {"n": 60},
    "90 dates": {"n": 90},
    "60, wet spell of 8 scenes": {"swing": "spell"},
    "60, level of the land shifts by 2 dB": {"swing": "late"},
    "60, two orbits": {"orbits": 2},
    "60, season of 1 dB": {"season_db": 1.0},
}
FLOODS = {
    "40 dates": {},
    "40, wind on 60 % of the dates": {"wind": 0.6},
    "90, two scenes long": {"n": 90, "length": 2},
    "12 dates": {"n": 12},
    "60, two orbits": {"n": 60, "orbits": 2},
    "4 dates, the last flooded": {"n": 4, "at": 3, "length": 1},
    "2 dates": {"n": 2, "at": 1, "length": 1},
}


def mean(rows, name):
    return np.nanmean([row[name] for row in rows])


def themes(seeds):
    lines = ["| theme | series | F1 | lowest | false | date error, median and mean (scenes) | flagged, null |",
             "|---" * 7 + "|"]  # fmt: skip
    for kind in ("deforestation", "urbanization", "damage", "pwtt"):
        for name, options in CASES.items():
            rows, null = [], []
            for seed in range(seeds):
                event = 2 * options.get("n", 60) // 3 if kind in ("damage", "pwtt") else None
                world = theme("damage" if kind == "pwtt" else kind, seed=seed, event=event, **options)
                since = {"since": str(world.stack.time.values[event])} if event else {}
                rows.append(scores(world, geoalign.detect(world.stack, kind, **since)))
                calm = theme(None, seed=seed + 50, **options)
                null.append(scores(calm, geoalign.detect(calm.stack, kind, **since))["false"])
            low = min(row["f1"] for row in rows)
            cells = [kind, name, f"{mean(rows, 'f1'):.3f}", f"{low:.3f}", f"{mean(rows, 'false'):.4f}",
                     f"{mean(rows, 'median'):.0f}, {mean(rows, 'mean'):.2f}", f"{np.mean(null):.4f}"]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def floods(seeds):
    lines = ["| series | F1 | lowest | recall | false | of permanent water called flood | flagged without a flood |",
             "|---" * 7 + "|"]  # fmt: skip
    for name, options in FLOODS.items():
        rows, water, null = [], [], []
        for seed in range(seeds):
            world = flood(seed=seed, **options)
            found = geoalign.detect(world.stack, "flood")
            rows.append(scores(world, found))
            water.append(np.isin(found.status.values, (3, 4))[world.cover == WATER].mean())
            dry = flood(seed=seed, flooded=False, **options)
            null.append(scores(dry, geoalign.detect(dry.stack, "flood"))["false"])
        cells = [name, f"{mean(rows, 'f1'):.3f}", f"{min(r['f1'] for r in rows):.3f}", f"{mean(rows, 'recall'):.3f}",
                 f"{mean(rows, 'false'):.4f}", f"{np.mean(water):.4f}", f"{np.mean(null):.4f}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["themes", "floods"])
    given = parser.parse_args()
    if "themes" in given.only:
        head = (
            f"{given.seeds} worlds each, 96 x 96 px, {LOOKS} looks, defaults; steps of 3 dB (vv and vh; clearings 1.5 "
        )
        head += "dB in vv), patches of 4 to 26 px, moisture swings of 2 dB over all land on a quarter of the dates."
        write_section("sar_themes.py: clearing, building and damage in SAR series", [head, "", *themes(given.seeds)])
    if "floods" in given.only:
        head = (
            f"{given.seeds} worlds each, 128 x 128 px, defaults. Fields get 3 dB darker or 2.5 dB brighter, parcel by "
        )
        head += "parcel, on a third of the dates and during the flood; wind on the water; a slope in radar shadow."
        write_section("sar_themes.py: floods in SAR series", [head, "", *floods(given.seeds)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
