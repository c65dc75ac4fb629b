"""What the server of child processes imports once: everything a visit needs, without starting a thread."""

import dask.array
import geopandas
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
