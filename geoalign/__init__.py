"""geoalign: align satellite time series to a fraction of a pixel, then find and date what changed on the ground.

The public names are loaded on first use, so that `import geoalign` stays quick. The accessor `.geoalign` of Datasets is
there once xarray was loaded, by you or by the first public name that needs it.
"""

import sys as _sys
from importlib import import_module as _import_module

__version__ = "0.1.0"

_HOMES = {
    "open_stack": "geoalign.io",
    "write_changes": "geoalign.io",
    "write_polygons": "geoalign.io",
    "read_changes": "geoalign.io",
    "new_stack": "geoalign.types.stack",
    "check_stack": "geoalign.types.stack",
    "new_changes": "geoalign.types.changes",
    "check_changes": "geoalign.types.changes",
    "new_state": "geoalign.types.state",
    "check_state": "geoalign.types.state",
    "Shift": "geoalign.types.warp",
    "Affine": "geoalign.types.warp",
    "Projective": "geoalign.types.warp",
    "Field": "geoalign.types.warp",
    "Chain": "geoalign.types.warp",
    "Match": "geoalign.types.alignment",
    "Alignment": "geoalign.types.alignment",
    "mask": "geoalign.masks",
    "match": "geoalign.registration",
    "coregister": "geoalign.registration",
    "detect": "geoalign.detectors",
    "polygons": "geoalign.vectors",
    "footprints": "geoalign.objects",
    "forms": "geoalign.objects",
    "fuse": "geoalign.fusion",
    "composite": "geoalign.composites",
    "smooth": "geoalign.smoothing",
    "index": "geoalign.indices",
    "despeckle": "geoalign.speckle",
    "estimate_enl": "geoalign.speckle",
    "simulate": "geoalign.simulation",
    "Simulation": "geoalign.simulation",
    "run": "geoalign.pipeline",
    "Monitor": "geoalign.monitor",
    "explore": "geoalign.explorer",
    "summary": "geoalign.summaries",
    "GeoalignError": "geoalign.errors",
    "StackError": "geoalign.errors",
    "NoUsableData": "geoalign.errors",
    "MatchError": "geoalign.errors",
    "ConfigError": "geoalign.errors",
    "StateError": "geoalign.errors",
}

_MODULES = ("accuracy", "detectors", "errors", "explorer", "indices", "io", "masks", "monitor", "objects", "pipeline",
            "plot", "radiometry", "registration", "report", "simulation", "types", "vectors")  # fmt: skip

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name):
    if name in _HOMES:
        value = getattr(_import_module(_HOMES[name]), name)
        globals()[name] = value
        _register()
        return value
    if name in _MODULES:
        return _import_module(f"geoalign.{name}")
    raise AttributeError(f"module 'geoalign' has no attribute {name!r}")


def _register():
    """Give Datasets their accessor, without loading xarray for it."""
    if "xarray" in _sys.modules and "geoalign.accessor" not in _sys.modules:
        _import_module("geoalign.accessor")


def __dir__():
    return sorted({*__all__, *_MODULES})


_register()
