"""GeoTIFF and COG, read window by window through an allow-list of drivers; headers first, values only when computed.

GDAL datasets are not thread-safe: every read opens its own. Nothing is ever filled in for what can't be read: an
unreadable block raises StackError and names its file.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from odc.geo.geobox import GeoBox

from geoalign.errors import StackError
from geoalign.io.address import resolved
from geoalign.io.tiff import MAX_BANDS, MAX_BLOCK_BYTES, MAX_PIXELS, check_head, check_tiff

SUFFIXES = (".tif", ".tiff", ".jp2")

_ENV = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 64 * 2**20,  # bytes, as rasterio hands them on: dask keeps what is needed again
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_NUM_THREADS": "1",  # dask's threads are the parallelism
    "GDAL_HTTP_TIMEOUT": "30",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
}


@dataclass(frozen=True)
class Header:
    """What a file says about itself. `bands`, `dtypes`, `nodata`, ... are in band order."""

    path: str
    geobox: GeoBox
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str, ...]
    descriptions: tuple[str, ...]
    block: tuple[int, int]
    overviews: tuple[int, ...]
    stamp: tuple[int, int]  # modification time (ns) and size: a file that is replaced gets other dask keys
    tags: dict[str, str] = field(hash=False)

    @property
    def shape(self):
        return tuple(self.geobox.shape)

    @property
    def shown(self):
        return shown_path(self.path)

    @property
    def count(self):
        return len(self.dtypes)


def is_remote(path) -> bool:
    """True for an http or https address."""
    return str(path).lower().startswith(("http://", "https://"))


def check_path(path, *, trusted_host: str | None = None) -> str:
    """The path as text, or StackError where it could reach what it should not.

    Local paths and http(s) addresses only. GDAL's own notations (`/vsi...`, `NETCDF:...`, XML) are refused, and so are
    addresses of this machine or a private network, unless their host is `trusted_host` (the one the user named).
    """
    text = os.fspath(path)
    if is_remote(text):
        _check_host(text, trusted_host)
        return text
    if text.lower().startswith("/vsi") or "://" in text or "<" in text or re.match(r"^[A-Za-z][A-Za-z0-9_]+:", text):
        raise StackError(
            f"{text!r} is refused: give a local path or an https address (no /vsi, VRT or driver notation)."
        )
    if text.lower().endswith(".vrt"):
        raise StackError(f"{text} is a VRT, which can read any other file; give the GeoTIFFs themselves.")
    return text


def _check_host(address, trusted_host):
    parts = urlsplit(address)
    host = parts.hostname or ""
    if trusted_host is not None and parts.netloc == trusted_host:
        return
    resolved(host, parts.port or 443, shown_path(address))


def shown_path(address):
    """The path as it may be shown: without the query, which may hold a signature."""
    return str(address).split("?")[0]


def _cause(err):
    """What GDAL said: rasterio's own message may only point to it."""
    return str(err.__cause__ or err).rstrip(".")


def gdal_env():
    """GDAL's settings while geoalign reads: no directory scans, no Python in VRTs, bounded cache and waits."""
    import rasterio

    return rasterio.Env(**_ENV)


def opened(path, **options):
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        # one driver by name: GDAL tries no other, so that a VRT or anything else in disguise is never interpreted
        driver = "JP2OpenJPEG" if urlsplit(path).path.lower().endswith(".jp2") else "GTiff"
        return rasterio.open(path, driver=driver, sharing=False, **options)


def read_header(path, *, trusted_host: str | None = None) -> Header:
    """Header of a GeoTIFF, COG or JPEG 2000; values are not read.

    Raises
    ------
    StackError
        Not a raster, truncated, sizes no scene has, no CRS (uncalibrated Sentinel-1 GRD gets its own message), no
        georeference, coordinates outside the CRS's domain.
    """
    import rasterio

    path = check_path(path, trusted_host=trusted_host)
    stamp = (0, 0)
    if not is_remote(path):
        path = os.path.abspath(path)  # a stack outlives the folder it was opened in
        if not os.path.isfile(path):
            raise StackError(f"{path} does not exist or is not a file.")
        if path.lower().endswith(".jp2"):
            if os.path.getsize(path) == 0:
                raise StackError(f"{path} is empty (0 bytes). Fetch it again.")
        else:
            check_tiff(path)
        stamp = _stamp(path)
    else:
        from geoalign.io.remote import peek

        head, size = peek(path, trusted_host)
        if not urlsplit(path).path.lower().endswith(".jp2"):
            check_head(shown_path(path), head, size)
    try:
        with gdal_env(), opened(path) as src:
            _check_claims(shown_path(path), src)
            return Header(
                path=path,
                geobox=_geobox(shown_path(path), src),
                dtypes=tuple(src.dtypes),
                nodata=tuple(src.nodatavals),
                scales=tuple(src.scales),
                offsets=tuple(src.offsets),
                units=tuple(u or "" for u in src.units),
                descriptions=tuple(d or "" for d in src.descriptions),
                block=tuple(src.block_shapes[0]),
                overviews=tuple(src.overviews(1)),
                stamp=stamp,
                tags=dict(src.tags()),
            )
    except rasterio.errors.RasterioError as err:
        raise StackError(f"{shown_path(path)} can't be opened as a raster: {_cause(err)}.") from err


def _stamp(path):
    if is_remote(path):
        return (0, 0)
    try:
        stat = os.stat(path)
    except OSError as err:
        raise StackError(f"{path} can't be read any more: {err}.") from err
    return (stat.st_mtime_ns, stat.st_size)


def _check_claims(path, src):
    if src.width * src.height > MAX_PIXELS or src.count > MAX_BANDS:
        raise StackError(
            f"{path} claims {src.width} x {src.height} pixels in {src.count} bands; that is not read at once."
        )
    height, width = src.block_shapes[0]
    together = src.count if src.profile.get("interleave") == "pixel" else 1
    if height * width * np.dtype(src.dtypes[0]).itemsize * together > MAX_BLOCK_BYTES:
        raise StackError(f"{path} has blocks of {height} x {width} pixels; at most 256 MiB are read at once.")
    if any(np.dtype(d).kind == "c" for d in src.dtypes):
        raise StackError(f"{path} holds complex values (single-look complex); give detected, terrain-corrected power.")


def _geobox(path, src):
    if src.crs is None:
        if src.gcps[0]:
            raise StackError(
                f"{path} has ground control points but no CRS: an uncalibrated Sentinel-1 GRD ({src.dtypes[0]} "
                "amplitude in radar geometry). Give radiometrically terrain-corrected (RTC) power instead."
            )
        raise StackError(
            f"{path} has no CRS, and none is guessed. If you know it, write it into the file: "
            f"rio edit-info --crs EPSG:32633 {Path(path).name}"
        )
    if src.transform.is_identity or src.transform.determinant == 0:
        raise StackError(f"{path} has a CRS but no georeference (its transform is {tuple(src.transform)[:6]}).")
    # the short name where it is certain, so that grids of the same CRS are equal whatever wrote them
    code = src.crs.to_epsg(confidence_threshold=100)
    box = GeoBox((src.height, src.width), src.transform, f"EPSG:{code}" if code else src.crs.to_wkt())
    if box.crs.geographic:
        bounds = box.extent.boundingbox
        if bounds.bottom < -90.001 or bounds.top > 90.001 or bounds.left < -360 or bounds.right > 360:
            raise StackError(
                f"{path} is in degrees but spans {bounds.left:.2f}..{bounds.right:.2f} E, {bounds.bottom:.2f}.."
                f"{bounds.top:.2f} N: longitude and latitude are swapped, or the CRS tag is wrong."
            )
    return box


def read_window(path, band, rows, cols, *, stamp=None, step: int = 1):
    """Values of one band in its own type, rows and cols as (start, stop); StackError where a block can't be read.

    band : number, or a list of them, which gives (band, row, col)
    stamp : that of the header, to notice a file that was replaced since it was opened
    step : every step-th pixel, from an overview where there is one
    """
    import rasterio
    from rasterio.windows import Window

    if stamp is not None and stamp != _stamp(path):
        raise StackError(f"{shown_path(path)} changed after it was opened. Open the stack again.")
    window = Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])
    try:
        with gdal_env(), opened(path) as src:
            if step == 1:
                return src.read(band, window=window)
            size = (window.height // step, window.width // step)
            factors = src.overviews(1)
        # the overview by its number: left to choose, GDAL was seen to decode the full image at a factor of exactly 16
        fits = [(f, level) for level, f in enumerate(factors) if step % f == 0]
        factor, level = max(fits, default=(1, None))
        window = Window(cols[0] // factor, rows[0] // factor, size[1] * step // factor, size[0] * step // factor)
        with gdal_env(), opened(path, **({} if level is None else {"overview_level": level})) as src:
            return src.read(band, window=window, out_shape=(len(band), *size) if isinstance(band, list) else size)
    except (rasterio.errors.RasterioError, MemoryError) as err:
        raise StackError(
            f"{shown_path(path)} can't be read in band {band}, rows {rows[0]}-{rows[1]}, columns {cols[0]}-{cols[1]}: "
            f"the file is damaged ({_cause(err)}). Fetch it again, or take the scene out."
        ) from err


def sample(path, band, header, *, size: int = 256):
    """Some values of a band, in its own type, 1-D: from an overview where there is one, else from five windows."""
    import rasterio
    from rasterio.windows import Window

    height, width = header.shape
    try:
        with gdal_env(), opened(path) as src:
            coarse = [o for o in header.overviews if max(height, width) / o <= 2048]
            if coarse or max(height, width) <= 1024:
                factor = max(1, -(-max(height, width) // size))
                return src.read(band, out_shape=(-(-height // factor), -(-width // factor))).ravel()
            parts = []
            for r, c in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
                row, col = int(r * height), int(c * width)
                window = Window(col, row, min(64, width - col), min(64, height - row))
                parts.append(src.read(band, window=window).ravel())
            return np.concatenate(parts)
    except rasterio.errors.RasterioError as err:
        raise StackError(
            f"{shown_path(path)} can't be read in band {band}: the file is damaged ({_cause(err)})."
        ) from err


def validate_file(path) -> None:
    """Read every block of every band once, to be sure that a file is whole.

    Opening a stack reads headers only; a damaged block in the middle of a file shows when it is computed. This finds
    it beforehand, at the price of decoding the file (about 1 s for 10980 x 10980 of 16 bit). One window is held at a
    time.

    Raises
    ------
    StackError
        The header is refused, or a block can't be read; the message names the file, the band and the place.
    """
    header = read_header(path)
    rows = header.block[0]
    height, width = header.shape
    # whole blocks, about 16 MB a read
    tall = rows * max(1, int(2**22 // max(1, rows * width)))
    for band in range(1, header.count + 1):
        for r in range(0, height, tall):
            read_window(header.path, band, (r, min(r + tall, height)), (0, width))
