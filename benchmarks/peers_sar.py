"""nrt's MoSum on dB, run by sar_series.py in an interpreter of its own: reads a stack, writes dates and CPU seconds.

python peers_sar.py STACK.npz OUT.npz
"""

import sys
import time

import numpy as np
import xarray as xr
from nrt.monitor.mosum import MoSum

HISTORY = 28
"""Scenes of history: what lies before the first change."""


def run(series, stamps, *, order=1, trend=False, sensitivity=0.05, method="OLS"):
    """(day of detection, 0 none; CPU seconds)"""
    began = time.process_time()
    cube = xr.DataArray(series, dims=("time", "y", "x"), coords={"time": stamps.astype("datetime64[ns]")})
    monitor = MoSum(trend=trend, harmonic_order=order, sensitivity=sensitivity)
    monitor.fit(cube[:HISTORY], method=method)
    for t in range(HISTORY, series.shape[0]):
        monitor.monitor(series[t], date=stamps[t].astype("datetime64[us]").astype(object))
    return monitor.detection_date.astype(np.int64), time.process_time() - began


def main() -> int:
    given = np.load(sys.argv[1])
    stamps = given["time"]
    vh, vv = 10 * np.log10(given["vh"]), 10 * np.log10(given["vv"])
    out = {}
    for name, series in (("vh", vh), ("mean of vv and vh", (vv + vh) / 2)):
        for label, options in (
            ("alpha 0.05", {}),
            ("alpha 0.01", {"sensitivity": 0.01}),
            ("its defaults (trend, order 2, alpha 0.05, ROC)", {"order": 2, "trend": True, "method": "ROC"}),
        ):
            key = f"nrt MoSum on dB, {name}, {label}"
            run(series[:, :8, :8], stamps, **options)
            days, seconds = run(series, stamps, **options)
            out[f"days:{key}"], out[f"seconds:{key}"] = days, seconds
    np.savez(sys.argv[2], **out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
