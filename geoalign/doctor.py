"""Is this installation sound, and is a run's folder what its manifest says? `examine` looks, and changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from geoalign import publish
from geoalign.errors import GeoalignError

OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
FOREIGN = ("GDAL_DATA", "PROJ_DATA", "PROJ_LIB", "GDAL_DRIVER_PATH")
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at. status : ok, doubtful or bad; advice : what to do, "" where nothing."""

    what: str
    status: str
    seen: str
    advice: str = ""


def examine(runfolder=None, *, cleared: dict[str, str] | None = None) -> list[Finding]:
    """Look at versions, the environment and the machine, and at a run where one is given.

    Parameters
    ----------
    runfolder : folder of a run or an output folder, optional
    cleared : variables of another GDAL or PROJ that the command line has already taken out

    Returns
    -------
    list of Finding

    Examples
    --------
    >>> [f.status for f in examine() if f.what == "python"]
    ['ok']
    """
    findings = [
        _python(),
        *_packages(),
        _opencv(),
        _imports(),
        *_variables(cleared or {}),
        _crs(),
        _cache(),
        _threads(),
    ]
    findings += [_memory(), _disk(Path(runfolder) if runfolder else Path.cwd())]
    if runfolder is not None:
        findings += _run(Path(runfolder))
    return findings


def _python():
    good = sys.version_info >= (3, 11)
    return Finding(
        "python", "ok" if good else "bad", platform.python_version(), "" if good else "Use Python 3.11 or later."
    )


def _packages():
    have = publish.versions()
    yield Finding("packages", "ok", ", ".join(f"{name} {version}" for name, version in have.items()))
    others = ("opencv-python-headless",)  # another build of OpenCV may stand in; it has its own finding
    absent = [name for name in publish.PACKAGES if name not in have and name not in others]
    if absent:
        yield Finding("missing packages", "bad", ", ".join(absent), "Install geoalign again with pip.")


def _opencv():
    have = {name: importlib.metadata.version(name) for name in OPENCV if _installed(name)}
    seen = ", ".join(f"{name} {version}" for name, version in have.items()) or "none"
    if len(have) > 1:
        advice = "They overwrite each other's files: uninstall all of them, then install opencv-python-headless alone."
        return Finding("opencv", "bad", seen, advice)
    return Finding("opencv", "ok" if have else "bad", seen, "" if have else "pip install opencv-python-headless")


def _installed(name) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _imports():
    wrong = []
    for name in ("cv2", "rasterio", "pyogrio", "numba", "odc.geo", "pyproj"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as err:
            wrong.append(f"{name}: {err}")
    if wrong:
        return Finding("imports", "bad", "; ".join(wrong), "Install these packages again.")
    rasterio, pyogrio = importlib.import_module("rasterio"), importlib.import_module("pyogrio")
    gdals = f"GDAL {rasterio.__gdal_version__} (rasterio), {'.'.join(map(str, pyogrio.__gdal_version__))} (pyogrio)"
    return Finding("imports", "ok", gdals)


def _variables(cleared):
    for name in FOREIGN:
        value = os.environ.get(name)
        if name in cleared:
            yield Finding(
                name, "doubtful", cleared[name], "Ignored by the command line; unset it where you use Python."
            )
        elif value:
            yield Finding(name, "doubtful", value, "It points our GDAL or PROJ to data of another version: unset it.")


def _crs():
    """PROJ works if a UTM coordinate comes out where it should: zone 33's central meridian lies at 500 km."""
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        x, _ = Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True).transform(15.0, 48.0)
    except ProjError as err:
        return Finding("projections", "bad", str(err), "PROJ's data can't be found: unset PROJ_DATA and PROJ_LIB.")
    good = abs(x - 500_000) < 0.01
    return Finding(
        "projections", "ok" if good else "bad", f"EPSG:32633 at 15 E: {x:.3f} m", "" if good else "Reinstall pyproj."
    )


def _cache():
    """Numba keeps compiled kernels beside the package or in a folder of its own; without one every start compiles."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(chosen)] if chosen else [Path(__file__).parent / "kernels" / "__pycache__", Path.home() / ".cache"]
    for place in places:
        near = place
        while not near.exists() and near != near.parent:
            near = near.parent
        if os.access(near, os.W_OK):
            return Finding("numba cache", "ok", str(place))
    advice = "Kernels are compiled at every start: set NUMBA_CACHE_DIR to a folder that can be written."
    return Finding("numba cache", "doubtful", str(places[0]), advice)


def _threads():
    count = os.cpu_count() or 1
    jit = "off" if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") else "on"
    if jit == "off":
        return Finding(
            "threads", "doubtful", f"{count} processors, numba off", "Unset NUMBA_DISABLE_JIT: it is very slow."
        )
    return Finding("threads", "ok", f"{count} processors")


def _memory():
    total, free = _memory_bytes()
    if not total:
        return Finding("memory", "ok", "unknown on this system")
    seen = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    low = free < 2 * GIB
    return Finding("memory", "doubtful" if low else "ok", seen, "Use fewer --threads for large scenes." if low else "")


def _memory_bytes() -> tuple[int, int]:
    """Total and available memory; 0, 0 where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    return values.get("MemTotal", 0), values.get("MemAvailable", 0)


def _disk(folder):
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK)
    seen = f"{free / GIB:.1f} GiB free in {folder}"
    if not writable:
        return Finding("disk", "doubtful", f"{seen}, not writable", "Choose an output folder that can be written to.")
    temporary = shutil.disk_usage(tempfile.gettempdir()).free
    if min(free, temporary) < GIB:
        return Finding(
            "disk", "doubtful", f"{seen}, {temporary / GIB:.1f} GiB in the temporary folder", "Free some space."
        )
    return Finding("disk", "ok", seen)


def _run(folder):
    try:
        place = publish.resolve(folder)
        wrong = publish.verify(place)
    except GeoalignError as err:
        yield Finding("run", "bad", str(err), "Run the site again.")
        return
    count = len(publish.read_manifest(place)["files"])
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        yield Finding("run", "bad", "; ".join(wrong[:5]) + more, "Run the site again; results are replaced whole.")
    else:
        yield Finding("run", "ok", f"{count} files in {place} are as the manifest says")
    for left in sorted(place.parent.glob(".part-*")):
        yield Finding("leftover", "doubtful", str(left), "A run was cut off; the next one clears it away.")
