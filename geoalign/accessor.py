"""`stack.geoalign.detect("flood")`: the public functions as methods of a Dataset, nothing more.

Importing this module registers the accessor. Nothing that holds no state is kept in it.
"""

from __future__ import annotations

import xarray as xr


@xr.register_dataset_accessor("geoalign")
class GeoalignAccessor:
    """The public functions with this Dataset as their first argument.

    Examples
    --------
    >>> import numpy as np, geoalign, geoalign.accessor
    >>> stack = geoalign.new_stack({"vv": np.ones((2, 4, 5))}, ["2024-01-01", "2024-01-13"])
    >>> sorted(name for name in dir(stack.geoalign) if not name.startswith("_"))
    ['composite', 'coregister', 'detect', 'explore', 'index', 'mask', 'polygons', 'smooth', 'summary']
    """

    def __init__(self, data: xr.Dataset):
        self._data = data

    def mask(self, **options) -> xr.Dataset:
        """Screen a Stack; see `geoalign.mask`."""
        from geoalign.masks import mask

        return mask(self._data, **options)

    def coregister(self, **options):
        """How every scene of a Stack lies on the reference; see `geoalign.coregister`."""
        from geoalign.registration import coregister

        return coregister(self._data, **options)

    def composite(self, by="month", *, how="median") -> xr.Dataset:
        """One image a period out of a Stack; see `geoalign.composite`."""
        from geoalign.composites import composite

        return composite(self._data, by, how=how)

    def smooth(self, **options) -> xr.Dataset:
        """Curves through a Stack's gappy series, for display; see `geoalign.smooth`."""
        from geoalign.smoothing import smooth

        return smooth(self._data, **options)

    def index(self, name) -> xr.DataArray:
        """A spectral index of a Stack, by name; see `geoalign.index`."""
        from geoalign.indices import index

        return index(self._data, name)

    def detect(self, detector, *, sigma_px=None, **options) -> xr.Dataset:
        """Find and date what changed in a Stack; see `geoalign.detect`."""
        from geoalign.detectors import detect

        return detect(self._data, detector, sigma_px=sigma_px, **options)

    def polygons(self, **options):
        """Polygons around what changed, of Changes; see `geoalign.polygons`."""
        from geoalign.vectors import polygons

        return polygons(self._data, **options)

    def explore(self, changes=None, **options):
        """A map in time of a Stack, with its changes; see `geoalign.explore`."""
        from geoalign.explorer import explore

        return explore(self._data, changes, **options)

    def summary(self):
        """What Changes say in short, with a map in a notebook; see `geoalign.summary`."""
        from geoalign.summaries import summary

        return summary(self._data)
