"""How results appear: whole or not at all. Staging folders, the `latest` pointer, manifests and checksums."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from geoalign.errors import GeoalignError, StateError
from geoalign.io.atomic import atomic

log = logging.getLogger("geoalign")

LATEST = "latest"
HASHED_BYTES = 2**26
"""Input files up to this size are hashed; of larger ones size and time of change are kept."""

PACKAGES = (
    "geoalign", "numpy", "scipy", "pandas", "xarray", "dask", "numba", "rasterio", "pyogrio", "odc-geo", "geopandas",
    "shapely", "pyproj", "opencv-python-headless", "scikit-image", "pydantic", "pystac", "zarr", "matplotlib",
)  # fmt: skip


class Locked(GeoalignError):
    """Another run is writing to the same folder."""

    exit_code = 75


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """One writer a folder. The operating system frees the lock when its holder ends, however it ends."""
    make_folder(output)
    try:
        import fcntl
    except ImportError:  # Windows: staging folders are unique there too, only the last to end wins
        yield
        return
    with open(output / ".lock", "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise Locked(
                f"another run is writing to {output} (process {holder}). Wait for it, or use another output."
            ) from err
        stream.truncate(0)
        stream.write(f"{os.getpid()} on {platform.node()}")
        stream.flush()
        yield


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A hidden folder to write into; gone when left, unless it was published. Those of runs that died go too."""
    runs = make_folder(output / "runs")
    for left in runs.glob(".part-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = make_folder(runs / f".part-{os.getpid()}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, output: Path, name: str) -> Path:
    """Rename a staged folder to OUTPUT/runs/NAME and let OUTPUT/latest point there.

    Earlier runs of the same id (the part of NAME after the time: same inputs, same configuration) are removed
    afterwards, so that a repeated run leaves one set of results.
    """
    final, n = output / "runs" / name, 2
    while final.exists():
        stamp, _, rest = name.partition("-")
        final, n = output / "runs" / f"{stamp}.{n}-{rest}", n + 1
    _sync(folder)
    os.replace(folder, final)
    _point(output, final)
    _sync(output / "runs")
    for old in (output / "runs").glob(f"*-{name.partition('-')[2]}"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def _point(output, final):
    """Swap OUTPUT/latest in one step: a link, or a text file with the name where links are not allowed."""
    pointer, partial = output / LATEST, output / f".{LATEST}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    try:
        os.symlink(os.path.join("runs", final.name), partial, target_is_directory=True)
    except OSError:
        partial.write_text(os.path.join("runs", final.name), encoding="utf-8")
    os.replace(partial, pointer)


def resolve(folder) -> Path:
    """The folder of a run: given itself, or OUTPUT, whose latest run is meant, or the folder of an OUTPUT named out."""
    folder = Path(folder)
    if (folder / "manifest.json").is_file():
        return folder.resolve()
    pointer = folder / LATEST
    target = folder / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else pointer
    if (target / "manifest.json").is_file():
        return target.resolve()
    if (folder / "out").is_dir():  # the demo's folder, or a site's
        return resolve(folder / "out")
    raise StateError(
        f"{folder} holds no run: there is no manifest.json in it, nor in {LATEST}. Give the folder of a run."
    )


_MANIFEST_KEYS = (
    "run_id", "exit_code", "layers", "registration", "skipped", "failed", "accuracy", "timings", "peak_rss_mb",
)  # fmt: skip


def read_manifest(folder) -> dict[str, Any]:
    path = Path(folder) / "manifest.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise StateError(f"{path} can't be read: {err}.") from err
    if not isinstance(document, dict) or document.get("format") != "geoalign.run":
        raise StateError(f"{path} is not the manifest of a run.")
    version = document.get("version")
    if not isinstance(version, int):
        raise StateError(f"{path} has no version (got {version!r}): it is damaged. Run the site again.")
    if version > 1:
        raise StateError(f"{path} is of version {version}; this geoalign reads up to 1. Upgrade geoalign.")
    missing = [key for key in _MANIFEST_KEYS if key not in document]
    if missing:
        raise StateError(f"{path} lacks {', '.join(missing)}: it is damaged. Run the site again.")
    return document


def write_json(path: Path, document) -> Path:
    """Write JSON atomically; NaN becomes null, so that every reader can read it."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(finite(document), indent=1, default=str, allow_nan=False), encoding="utf-8")
    return Path(path)


def finite(value):
    """The same document as plain JSON values; NaN and infinite numbers become None."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file of a run but its manifest: path -> bytes and sha256."""
    out = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            out[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return out


def record_file(folder: Path, path: Path) -> None:
    """Put a file that was written into a finished run again into its manifest, so that `verify` knows it."""
    folder, path = Path(folder).resolve(), Path(path).resolve()
    document = read_manifest(folder)
    if not path.is_relative_to(folder) or "files" not in document:
        return
    record = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    document["files"] = dict(sorted({**document["files"], path.relative_to(folder).as_posix(): record}.items()))
    write_json(folder / "manifest.json", document)


def verify(folder: Path) -> list[str]:
    """What differs between a run's files and its manifest; empty where nothing does."""
    document, wrong = read_manifest(folder), []
    if "files" not in document:
        raise StateError(f"{Path(folder) / 'manifest.json'} lists no files: it is damaged. Run the site again.")
    for name, record in document["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != record["bytes"]:
            wrong.append(f"{name} has {path.stat().st_size} bytes, {record['bytes']} were written")
        elif file_sha256(path) != record["sha256"]:
            wrong.append(f"{name} has changed since it was written (sha256 differs)")
    return wrong


def inputs(scenes) -> list[dict[str, Any]]:
    """The input files of the scenes: size, and sha256 (small files) or time of change (large ones)."""
    out = []
    for scene in scenes:
        for source in scene["applied"].get("paths", ()):
            record = {"stack": scene["stack"], "scene": scene["scene"], "path": str(source)}
            path = Path(source)
            if path.is_file():
                stat = path.stat()
                record["bytes"] = stat.st_size
                if stat.st_size <= HASHED_BYTES:
                    record["sha256"] = file_sha256(path)
                else:
                    record["changed_ns"] = stat.st_mtime_ns
            out.append(record)
    return out


def run_id(configuration, inputs) -> str:
    """Twelve letters that are the same for the same configuration, inputs and version."""
    version = importlib.import_module("geoalign").__version__
    text = json.dumps([version, configuration, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def environment() -> dict[str, Any]:
    return {"python": platform.python_version(), "platform": platform.platform(), "versions": versions()}


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    return dict(_versions())


@cache
def _versions():
    out = {}
    for name in PACKAGES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "geoalign":
                out[name] = importlib.import_module("geoalign").__version__
    return out


def peak_rss_mb() -> float:
    """Most memory this process has held so far, MiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def file_sha256(path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folder(folder: Path) -> Path:
    """The folder, made where it is not there yet; an error that says what to do where it can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise GeoalignError(f"{folder} can't be made: {err.strerror}. Choose another output folder.") from err
    return folder


def _sync(folder: Path):
    """Have the system write a folder's entries to disk, where it can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        log.debug("%s can't be synced", folder)
    finally:
        os.close(handle)
