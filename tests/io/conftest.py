"""Small GeoTIFFs for the tests of the doors."""

import numpy as np
import pytest
import rasterio


def write(path, data, *, names=None, crs="EPSG:32633", x0=500000.0, y0=5000000.0, res=10.0, nodata=None, tags=None,
          scales=None, offsets=None, block=64, **options):  # fmt: skip
    data = np.asarray(data)
    data = data[None] if data.ndim == 2 else data
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = data.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": data.dtype, "crs": crs}
    profile |= {"transform": rasterio.Affine(res, 0, x0, 0, -res, y0), "nodata": nodata, "compress": "deflate"}
    if block:
        profile |= {"tiled": True, "blockxsize": block, "blockysize": block}
    with rasterio.open(path, "w", **(profile | options)) as dst:
        dst.write(data)
        if names:
            dst.descriptions = names
        if tags:
            dst.update_tags(**tags)
        if scales:
            dst.scales = scales
        if offsets:
            dst.offsets = offsets
    return path


@pytest.fixture
def tif():
    """Write a GeoTIFF: tif(path, data (band, y, x), names=, crs=, x0=, y0=, res=, nodata=, tags=, scales=, ...)."""
    return write


@pytest.fixture
def s2(tif, tmp_path):
    """Write one Sentinel-2-like scene with bands blue, red, nir and scl; returns its stored numbers."""

    def make(name, date, *, folder=None, shape=(100, 120), seed=0, baseline="05.10", scl=None, **options):
        rng = np.random.default_rng(seed)
        dn = rng.integers(1100, 4000, (4, *shape)).astype("uint16")
        dn[3] = 4 if scl is None else scl
        tags = {"datetime": date, "scene": name, "sensor": "S2A", "product": "sentinel2-l2a"}
        if baseline:
            tags["processing_baseline"] = baseline
        tif((folder or tmp_path / "s2") / f"{name}.tif", dn, names=("blue", "red", "nir", "scl"), nodata=0,
            tags=tags | options.pop("tags", {}), **options)  # fmt: skip
        return dn

    return make


@pytest.fixture
def sar(tif, tmp_path):
    """Write one SAR scene of linear power, vv and vh, and return it."""

    def make(name, date, *, folder=None, shape=(80, 90), seed=0, orbit=44, level=0.05, **options):
        rng = np.random.default_rng(seed)
        power = rng.gamma(4.4, level / 4.4, (2, *shape)).astype("float32")
        tags = {"datetime": date, "scene": name, "sensor": "S1A", "product": "sentinel1-rtc"}
        if orbit is not None:
            tags["orbit"] = str(orbit)
        path = (folder or tmp_path / "sar") / f"{name}.tif"
        tif(path, power, names=("vv", "vh"), tags=tags | options.pop("tags", {}), **options)
        return power

    return make
