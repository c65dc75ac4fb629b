"""The doors: files and catalogues in, layers and polygons out. No other room opens a file."""

from importlib import import_module as _import_module

_HOMES = {
    "open_stack": "geoalign.io.open",
    "read_changes": "geoalign.io.raster",
    "write_changes": "geoalign.io.raster",
    "write_polygons": "geoalign.io.vector",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'geoalign.io' has no attribute {name!r}")
