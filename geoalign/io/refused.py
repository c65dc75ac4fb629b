"""What a raster holds that can't be used as a scene yet: said beside the reason, so that the next step is plain."""

from __future__ import annotations

import glob
from pathlib import Path

from geoalign.io.geotiff import gdal_env

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".nc", ".png", ".jpg")
MOST = 20
"""Files that are told of at the most."""


def holds(source) -> list[tuple[str, str]]:
    """(name, what it holds) of the rasters in a folder, pattern or file: size, bands, type, CRS, pixel, nodata.

    Files that are no rasters are not among them.

    Examples
    --------
    >>> holds("data/sar/S1A_20240110.tif")
    [('S1A_20240110.tif', '197 x 197 px; vv vh, uint16; EPSG:32633, pixel 10; nodata 0')]
    """
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    place = Path(source)
    files = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES) if place.is_dir() else sorted(
        map(Path, glob.glob(str(source))))  # fmt: skip
    out = []
    for path in files[:MOST]:
        try:
            with gdal_env(), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path) as src:
                    out.append((path.name, _told(src)))
        except RasterioIOError:
            continue
    return out


def _told(src) -> str:
    if src.count == 0 and src.subdatasets:
        return f"{len(src.subdatasets)} variables: {' '.join(name.rsplit(':', 1)[-1] for name in src.subdatasets)}"
    names = [name or f"band{k}" for k, name in enumerate(src.descriptions, 1)]
    bands = " ".join(names[:14]) + (" ..." if len(names) > 14 else "")
    code = None if src.crs is None else src.crs.to_epsg()
    crs = "no CRS" if src.crs is None else f"EPSG:{code}" if code else "a CRS without a code"
    pixel = "" if src.crs is None else f", pixel {abs(src.transform.a):g}"
    nodata = "no nodata declared" if src.nodata is None else f"nodata {src.nodata:g}"
    return f"{src.width} x {src.height} px; {bands}, {'/'.join(sorted(set(src.dtypes)))}; {crs}{pixel}; {nodata}"
