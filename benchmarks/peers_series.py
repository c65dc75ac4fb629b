"""Other packages on the arrays of `series.py`, in an interpreter of their own; knows nothing of geoalign.

    PYTHON benchmarks/peers_series.py PEER FOLDER PIXELS

FOLDER holds time.npy (days since 1970), ndvi.npy (n_pixel, n_time), bands.npy (6, n_pixel, n_time), NaN = cloud.
Writes PEER.npz: days (n_break, n_pixel), -1 none; seconds of processor time after a warm call; pixels; version.
"""

import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
SINCE = 14975  # 2011-01-01, where monitoring starts
UNIX = 719163  # ordinal of 1970-01-01


def nrt_monitor(days, ndvi, bands, kind):
    """History before 2011 fitted as the class does by default, then scene after scene."""
    import xarray as xr
    from nrt.monitor.ccdc import CCDC
    from nrt.monitor.cusum import CuSum
    from nrt.monitor.ewma import EWMA

    stamps = days.astype("datetime64[D]").astype("datetime64[ns]")

    def cube(values):
        at = {"time": stamps, "y": [0.0], "x": np.arange(len(values), dtype=float)}
        return xr.DataArray(np.ascontiguousarray(values.T[:, None, :], np.float32), dims=("time", "y", "x"), coords=at)

    series = cube(ndvi)
    past = days < SINCE
    if kind == "ccdc":
        monitor = CCDC(trend=True)
        monitor.fit(series[past], green=cube(bands[1])[past], swir=cube(bands[4])[past], scaling_factor=1)
    else:
        monitor = {"cusum": CuSum, "ewma": EWMA}[kind](trend=True)
        monitor.fit(series[past])
    for i in np.flatnonzero(~past):
        monitor.monitor(array=series.values[i], date=stamps[i].astype("datetime64[s]").item())
    found = np.asarray(monitor.detection_date).reshape(1, -1).astype(int)
    return np.where((np.asarray(monitor.mask).reshape(1, -1) == 3) & (found > 0), found, -1)


def pyxccd(days, ndvi, bands, kind):
    """Six bands x 10,000, pixel by pixel; a cloudy date is left out by its quality band."""
    from pyxccd import cold_detect, sccd_detect

    out = []
    for pixel in range(ndvi.shape[0]):
        values = np.nan_to_num(bands[:, pixel] * 1e4).astype(np.int64)
        qa = np.where(np.isfinite(ndvi[pixel]), 0, 4).astype(np.int64)
        dates = (days + UNIX).astype(np.int64)
        if kind == "sccd":
            found = sccd_detect(dates, *values, qa).rec_cg
            out.append([int(r["t_break"]) - UNIX for r in found if r["t_break"] > 0])
        else:
            found = cold_detect(dates, *values, np.zeros_like(dates), qa)
            out.append([int(r["t_break"]) - UNIX for r in found if r["t_break"] > 0 and r["change_prob"] == 100])
    return ragged(out)


def zeit_bands(days, ndvi, bands, kind):
    import zeit

    cube = np.ascontiguousarray(np.transpose(bands, (2, 0, 1))[:, :, None, :] * 1e4, np.float32)
    found = getattr(zeit, kind)(cube, dates=days.astype("datetime64[D]"), n_jobs=1).compute()
    dates = found.t_break.values.reshape(found.t_break.shape[0], -1)
    sure = found.change_prob.values.reshape(dates.shape) >= 1 if kind == "sccd" else True
    return np.where(np.isnat(dates) | ~np.asarray(sure), -1, dates.astype("datetime64[D]").astype(int))


def zeit_lite(days, ndvi, bands):
    import zeit

    cube = np.ascontiguousarray(ndvi.T[:, None, :], np.float32)
    start = 1970 + days[0] / 365.25
    found = zeit.bfast_lite(
        cube, dates=days.astype("datetime64[D]"), start_time=start, frequency=23, n_jobs=1
    ).compute()
    index = np.stack([found[f"breakpoint_idx_{k}"].values.reshape(-1) for k in range(1, 6)])
    return np.where(np.isfinite(index), days[np.minimum(np.nan_to_num(index).astype(int) + 1, days.size - 1)], -1)


def zeit_monitor(days, ndvi, bands):
    import zeit

    cube = np.ascontiguousarray(ndvi.T[:, None, :], np.float32)
    found = zeit.bfast_monitor(
        cube, 1970 + SINCE / 365.25, dates=days.astype("datetime64[D]"), start_time=1970 + days[0] / 365.25,
        frequency=23, n_jobs=1,
    ).compute()  # fmt: skip
    index = found.breakpoint_idx.values.reshape(1, -1)
    return np.where(np.isfinite(index) & (index >= 0), days[np.nan_to_num(index).astype(int)], -1)


def ruptures_kernel(days, ndvi, bands):
    """Residuals of one season (two harmonics) over the whole series, Gaussian kernel, penalty 3 log n. The linear kernel
    was tried: it takes undetected clouds for breaks."""
    import ruptures

    turn = 2 * np.pi * days / 365.25
    x = np.stack([np.ones(days.size), np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)], axis=1)
    out = []
    for series in ndvi.astype(float):
        seen = np.isfinite(series)
        e = series[seen] - x[seen] @ np.linalg.lstsq(x[seen], series[seen], rcond=None)[0]
        e /= np.median(np.abs(np.diff(e))) / 0.6745 / np.sqrt(2)
        found = ruptures.KernelCPD(kernel="rbf", min_size=5).fit(e[:, None]).predict(pen=3 * np.log(e.size))
        out.append(list(days[seen][found[:-1]]))
    return ragged(out)


def ragged(rows):
    out = np.full((max(1, max(map(len, rows))), len(rows)), -1)
    for pixel, row in enumerate(rows):
        out[: len(row), pixel] = row
    return out


PEERS = {
    "nrt_ccdc": ("nrt", lambda *a: nrt_monitor(*a, "ccdc")),
    "nrt_cusum": ("nrt", lambda *a: nrt_monitor(*a, "cusum")),
    "nrt_ewma": ("nrt", lambda *a: nrt_monitor(*a, "ewma")),
    "pyxccd_sccd": ("pyxccd", lambda *a: pyxccd(*a, "sccd")),
    "pyxccd_cold": ("pyxccd", lambda *a: pyxccd(*a, "cold")),
    "zeit_sccd": ("zeit-cdts", lambda *a: zeit_bands(*a, "sccd")),
    "zeit_ccdc": ("zeit-cdts", lambda *a: zeit_bands(*a, "ccdc")),
    "zeit_bfast_lite": ("zeit-cdts", zeit_lite),
    "zeit_bfast_monitor": ("zeit-cdts", zeit_monitor),
    "ruptures_kernel": ("ruptures", ruptures_kernel),
}


def main() -> int:
    name, folder, pixels = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    package, run = PEERS[name]
    days = np.load(folder / "time.npy")
    ndvi, bands = np.load(folder / "ndvi.npy"), np.load(folder / "bands.npy")
    run(days, ndvi[:4], bands[:, :4])
    begin = time.process_time()
    found = run(days, ndvi[:pixels], bands[:, :pixels])
    seconds = time.process_time() - begin
    np.savez(
        folder / f"{name}.npz", days=found, seconds=seconds, pixels=pixels, version=f"{package} {version(package)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
