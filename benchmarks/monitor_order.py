"""Whole visits in any order: hundreds of histories of arrival against arrival in order, bit for bit.

python benchmarks/monitor_order.py [histories [registered ones]]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypothesis import HealthCheck, Phase, given, settings
from results import write_section

from tests.monitor.histories import Histories, histories

SITES = {
    "32 px, four tiles, taken as they lie": {"size": 32, "n_watched": 6, "clearing": 2, "hole": (8, 18, 10, 22)},
    "64 px, sixteen tiles, registered": {
        "size": 64, "n_watched": 6, "clearing": 2, "hole": (20, 34, 24, 40), "register": True, "moved_px": 0.5,
    },
}  # fmt: skip


def run(options, n):
    """(made, histories that differ, seconds) of n histories."""
    folder = Path(tempfile.mkdtemp(prefix="monitor-order-"))
    made, wrong, seen = Histories.of(folder, **options), [], []
    begin = time.perf_counter()

    @settings(max_examples=n, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(histories(made.plain.watched()))
    def law(visits):
        seen.append(visits)
        try:
            made.check(visits)
        except AssertionError as err:
            wrong.append(str(err))
        if len(seen) % 20 == 0:
            print(len(seen), len(wrong), f"{time.perf_counter() - begin:.0f} s", flush=True)

    law()
    shutil.rmtree(folder)
    return made, seen, wrong


def main(counts):
    lines = [
        "`python benchmarks/monitor_order.py`: six scenes in one to five visits, in any order, up to two of them "
        "reprocessed (before or after the first delivery), up to three delivered again, with the same bytes under "
        "another name too; each history on a copy of a site that was visited once, through files, validation, alignment, "
        "evidence, fold and publication. States, rasters as they are read and current alerts against those of the same "
        "scenes in order, a visit each.",
        "",
        "| site | histories | visits | late, doubled or reprocessed deliveries told | retractions told | that differ |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (name, options), n in zip(SITES.items(), counts):
        made, seen, wrong = run(options, n)
        told = made.said["duplicate"] + made.said["superseded"]
        lines.append(
            f"| {name} | {len(seen)} | {made.n_visits} | {told} | {made.said['alert retracted']} | {len(wrong)} |"
        )
        print(lines[-1], wrong[:3], flush=True)
    write_section("Monitoring: whole visits in any order", lines)


if __name__ == "__main__":
    main([int(v) for v in sys.argv[1:]] or [200, 40])
