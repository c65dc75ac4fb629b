"""What a raster holds that can't be used as a scene yet: said beside the reason, so that the next step is plain."""

from __future__ import annotations

import glob
from pathlib import Path

from geoalign.errors import StackError
from geoalign.io.geotiff import gdal_env, opened
from geoalign.io.tiff import check_tiff

SUFFIXES = (".tif", ".tiff", ".jp2")
MOST = 20
"""Files that are told of at the most."""


def holds(source) -> list[tuple[str, str]]:
    """(name, what it holds) of the rasters in a folder, pattern or file: size, bands, type, CRS, pixel, nodata.

    Files that are no rasters are not among them, nor what is refused unseen: they are opened as `read_header` does, by
    one driver and after the same checks, for a file that was refused is the last that should be trusted.

    Examples
    --------
    >>> holds("data/sar/S1A_20240110.tif")
    [('S1A_20240110.tif', '197 x 197 px; vv vh, uint16; EPSG:32633, pixel 10; nodata 0')]
    """
    from rasterio.errors import RasterioIOError

    place = Path(source)
    found = place.iterdir() if place.is_dir() else map(Path, glob.glob(str(source)))
    files = sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.is_file())
    out = []
    for path in files[:MOST]:
        try:
            if path.suffix.lower() != ".jp2":
                check_tiff(str(path))
            with gdal_env(), opened(str(path)) as src:
                out.append((path.name, _told(src)))
        except (StackError, RasterioIOError):
            continue
    return out


def _told(src) -> str:
    names = [name or f"band{k}" for k, name in enumerate(src.descriptions, 1)]
    bands = " ".join(names[:14]) + (" ..." if len(names) > 14 else "")
    code = None if src.crs is None else src.crs.to_epsg()
    crs = "no CRS" if src.crs is None else f"EPSG:{code}" if code else "a CRS without a code"
    pixel = "" if src.crs is None else f", pixel {abs(src.transform.a):g}"
    nodata = "no nodata declared" if src.nodata is None else f"nodata {src.nodata:g}"
    return f"{src.width} x {src.height} px; {bands}, {'/'.join(sorted(set(src.dtypes)))}; {crs}{pixel}; {nodata}"
