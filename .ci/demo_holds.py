"""Fails where the demo's accuracy against its planted truth has fallen: python .ci/demo_holds.py OUTPUT/latest."""

import json
import statistics
import sys
from pathlib import Path

LEAST_F1 = 0.88
MOST_RMSE_PX = 0.06
"""Of the median scene; a tenth of the scenes bend more than a few tie points can say."""

measured = json.loads((Path(sys.argv[1]) / "accuracy.json").read_text(encoding="utf-8"))
wrong = [
    f"{row['layer']}: F1 {row['f1']:.3f} (at least {LEAST_F1}), median date error {row['median_abs_acquisitions']}"
    for row in measured["detection"]
    if not (row["f1"] >= LEAST_F1 and row["median_abs_acquisitions"] == 0)
]
rmse_px = statistics.median(row["rmse_px"] for row in measured["registration"] if row["status"] == "aligned")
if not rmse_px <= MOST_RMSE_PX:
    wrong.append(f"registration: {rmse_px:.3f} px (at most {MOST_RMSE_PX})")
if len(measured["detection"]) != 6:
    wrong.append(f"{len(measured['detection'])} layers, 6 were asked for")
sys.exit("the demo is less accurate than it was:\n" + "\n".join(wrong) if wrong else 0)
