"""nrt's monitors over a series, in an interpreter that has nrt: python watch_peer.py NAME FOLDER (called by watch.py)."""

import datetime
import json
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr
from nrt.monitor.cusum import CuSum
from nrt.monitor.ewma import EWMA
from nrt.monitor.mosum import MoSum

MAKE = {
    "CuSum": (lambda: CuSum(trend=True, harmonic_order=2, sensitivity=0.05), {"method": "ROC", "alpha": 0.05}),
    "MoSum": (lambda: MoSum(trend=True, harmonic_order=2, sensitivity=0.05), {"method": "ROC", "alpha": 0.05}),
    "EWMA": (lambda: EWMA(trend=True, harmonic_order=2), {}),
}


def main(name, folder):
    folder = Path(folder)
    given = np.load(folder / "in.npz")
    stamps = given["time"].astype("datetime64[ns]")
    n = given["ndvi"].shape[0]
    columns = 100
    cube = np.ascontiguousarray(given["ndvi"].T.reshape(stamps.size, n // columns, columns)).astype(np.float64)
    first = int((stamps < np.datetime64("2011-01-01")).sum())
    make, options = MAKE[name]
    data = xr.DataArray(
        cube, dims=("time", "y", "x"),
        coords={"time": stamps, "y": np.arange(n // columns) * 30.0, "x": np.arange(columns) * 30.0},
    )  # fmt: skip
    monitor = make()
    begin = time.process_time()
    monitor.fit(dataarray=data.isel(time=slice(0, first)), **options)
    fitted = time.process_time() - begin
    days = [
        datetime.datetime(1970, 1, 1) + datetime.timedelta(days=int(d))
        for d in stamps.astype("datetime64[D]").astype(int)
    ]
    monitor.monitor(array=cube[first], date=days[first])
    begin = time.process_time()
    for k in range(first + 1, stamps.size):
        monitor.monitor(array=cube[k], date=days[k])
    spent = time.process_time() - begin
    hit = monitor.mask.reshape(-1) == 3
    np.savez(folder / "out.npz", hit=hit, date=monitor.detection_date.reshape(-1).astype(np.int64))
    print(json.dumps({"fit_s": fitted, "updates": (stamps.size - first - 1) * n / spent}))


if __name__ == "__main__":
    main(*sys.argv[1:])
