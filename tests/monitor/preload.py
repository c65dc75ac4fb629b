"""What the server of child processes imports once: everything a visit needs, without starting a thread."""

import dask.array
import geopandas
import numpy as np
import xarray
import zarr

import geoalign.detectors
import geoalign.io
import geoalign.io.raster
import geoalign.io.stac_out
import geoalign.masks
import geoalign.monitor
import geoalign.pipeline
import geoalign.registration

__all__ = ["dask", "geoalign", "geopandas", "xarray", "zarr"]

_stack = geoalign.new_stack(
    {"ndvi": np.full((20, 4, 4), 0.5, np.float32)}, np.datetime64("2022-01-01") + 10 * np.arange(20)
)
_watch = geoalign.detectors.Watch(order=0)
_watch.report(_watch.update(_watch.start(_stack.isel(time=slice(0, 18))), _stack.isel(time=slice(18, 20))))
"""The kernels are loaded once, and not by every child."""
