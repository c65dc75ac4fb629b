"""Warping one image: ours beside GDAL's warper with the same kernels, one thread each.

python benchmarks/apply.py
"""

import sys
import time

import numpy as np
from affine import Affine as Transform
from rasterio.warp import Resampling, reproject
from results import write_section

from geoalign import Affine
from geoalign.chunked import pull

SIZE = 4096
WARP = Affine(((1.001, 0.002, 3.3), (-0.002, 0.999, -2.7)))
KINDS = ("nearest", "bilinear", "cubic", "lanczos")


def by_gdal(image, kind):
    """The same through GDAL: columns and rows are its x and y, pixel corners at integers."""
    (a, b, dy), (c, d, dx) = WARP.matrix
    to_source = Transform(d, c, dx + 0.5 - 0.5 * (d + c), b, a, dy + 0.5 - 0.5 * (a + b))
    out = np.full(image.shape, np.nan, np.float32)
    reproject(
        image, out, src_transform=Transform.identity(), dst_transform=to_source, src_crs="EPSG:32633",
        dst_crs="EPSG:32633", resampling=Resampling[kind], src_nodata=np.nan, dst_nodata=np.nan, num_threads=1,
    )  # fmt: skip
    return out


def main() -> int:
    image = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    lines = ["| kernel | ours (CPU s) | GDAL (CPU s) | GDAL / ours |", "|---|---|---|---|"]
    for kind in KINDS:
        seconds = {}
        for name, method in (("ours", lambda im, k: pull(im, WARP, im.shape, resampling=k)), ("gdal", by_gdal)):
            method(image[:256, :256], kind)
            started = time.process_time()
            method(image, kind)
            seconds[name] = time.process_time() - started
        ours, gdal = seconds["ours"], seconds["gdal"]
        lines.append(f"| {kind} | {ours:.2f} | {gdal:.2f} | {gdal / ours:.1f} |")
    write_section("apply.py: warping 4096 x 4096 px by an affine, one thread", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
