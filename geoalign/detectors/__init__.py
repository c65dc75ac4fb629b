"""Detectors: what changed, where and when. One file a detector; `detect` is the door, `DETECTORS` the list."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace

import numpy as np
import xarray as xr

from geoalign.chunked import is_lazy
from geoalign.detectors.bayts import Bayts
from geoalign.detectors.bfast_lite import BfastLite
from geoalign.detectors.bfast_monitor import BfastMonitor
from geoalign.detectors.breaks import Breaks
from geoalign.detectors.burn import Burn
from geoalign.detectors.ccdc import Ccdc
from geoalign.detectors.cold import Cold
from geoalign.detectors.cusum import Cusum
from geoalign.detectors.cva import Cva
from geoalign.detectors.damage import Damage
from geoalign.detectors.deforestation import Deforestation
from geoalign.detectors.ewma import Ewma
from geoalign.detectors.flood import Flood
from geoalign.detectors.gamma_glr import GammaGlr
from geoalign.detectors.harmonic_cusum import HarmonicCusum
from geoalign.detectors.heterogeneous import Heterogeneous
from geoalign.detectors.irmad import Irmad
from geoalign.detectors.land_cover import LandCover
from geoalign.detectors.landtrendr import LandTrendr
from geoalign.detectors.log_ratio import LogRatio
from geoalign.detectors.mean_ratio import MeanRatio
from geoalign.detectors.mosum import Mosum
from geoalign.detectors.omnibus import Omnibus
from geoalign.detectors.pca_kmeans import PcaKmeans
from geoalign.detectors.pwtt import Pwtt
from geoalign.detectors.sar_change import SarChange
from geoalign.detectors.sccd import Sccd
from geoalign.detectors.shipping_routes import ShippingRoutes
from geoalign.detectors.ships import Ships
from geoalign.detectors.trend import Trend
from geoalign.detectors.urbanization import Urbanization
from geoalign.detectors.watch import Watch
from geoalign.errors import ConfigError, StackError
from geoalign.types.changes import check_changes
from geoalign.types.stack import check_stack

DETECTORS: dict[str, type] = {
    "log_ratio": LogRatio,
    "irmad": Irmad,
    "cva": Cva,
    "sar_change": SarChange,
    "heterogeneous": Heterogeneous,
    "mean_ratio": MeanRatio,
    "pca_kmeans": PcaKmeans,
    "omnibus": Omnibus,
    "gamma_glr": GammaGlr,
    "land_cover": LandCover,
    "bayts": Bayts,
    "breaks": Breaks,
    "harmonic_cusum": HarmonicCusum,
    "trend": Trend,
    "watch": Watch,
    "ccdc": Ccdc,
    "cold": Cold,
    "bfast_lite": BfastLite,
    "landtrendr": LandTrendr,
    "sccd": Sccd,
    "ewma": Ewma,
    "cusum": Cusum,
    "mosum": Mosum,
    "bfast_monitor": BfastMonitor,
    "flood": Flood,
    "deforestation": Deforestation,
    "burn": Burn,
    "urbanization": Urbanization,
    "damage": Damage,
    "pwtt": Pwtt,
    "ships": Ships,
    "shipping_routes": ShippingRoutes,
}
"""Name -> class. A new detector is one file in this folder and one line here."""


def detect(stack, detector, *, sigma_px=None, **options):
    """Find and date what changed.

    Parameters
    ----------
    stack : Stack (time, y, x), or dict of two Stacks on one grid for a detector that compares sensors
        Masked and aligned; NaN = not observed. Never changed.
    detector : str or object
        A name out of `DETECTORS` ("flood", "harmonic_cusum", ...), one of its classes' objects, or any object of
        yours with `detect(stack) -> Changes`.
    sigma_px : number, optional
        1-sigma error of the alignment, an axis, in px. None takes the stack's coordinate `sigma_px` where it has one;
        a number sets it for all scenes; 0 turns it off. Detectors widen their noise by (|gradient| * sigma_px)^2.
    **options
        Fields of the detector (`alpha`, `prior`, `since`, `until`, `history`, `order`, `enl`, `min_area_m2`, ...).

    Returns
    -------
    Changes (y, x), lazy where the stack is.

    Raises
    ------
    ConfigError
        Unknown detector or option (the nearest one and all of them are named), a value out of range.
    StackError
        Not a Stack, or without the bands that the detector needs.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import detect, new_stack
    >>> time = np.arange("2018-01-01", "2022-01-01", 10, "datetime64[D]")
    >>> noise = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 4, 4))
    >>> noise[100:, 0, 0] -= 0.3
    >>> changes = detect(new_stack({"ndvi": noise}, time), "harmonic_cusum", since="2020-01-01", alpha=0.01)
    >>> int(changes.status[0, 0]), str(changes.date.values[0, 0])[:10] == str(time[100])
    (3, True)
    """
    finder = make(detector, **options)
    if isinstance(stack, Mapping) and not isinstance(stack, xr.Dataset):
        if not callable(getattr(finder, "joined", None)):
            raise StackError(
                f"{_label(detector)} takes one Stack, got a dict of {len(stack)} ({', '.join(map(str, stack))}). "
                "Stacks of two sensors are compared by 'heterogeneous'."
            )
        stack = finder.joined({name: _settled(check_stack(one)) for name, one in stack.items()})
    check_stack(stack)
    needed = tuple(getattr(finder, "needs", ()))
    absent = [band for band in needed if band not in stack]
    if absent:
        raise StackError(
            f"{_label(detector)} needs band {', '.join(map(repr, needed))}; {', '.join(map(repr, absent))} is missing "
            f"(bands: {', '.join(map(str, stack.data_vars))}). Open the stack with bands={list(needed)}."
        )
    changes = finder.detect(with_sigma(_settled(stack), sigma_px))
    return check_changes(changes, values=not is_lazy(changes))


def make(detector, **options):
    """The detector object that a name (or an object) and options stand for; ConfigError where they are unknown."""
    if not isinstance(detector, str):
        if isinstance(detector, type) or not callable(getattr(detector, "detect", None)):
            raise ConfigError(
                f"a detector is one of the names {', '.join(DETECTORS)}, or an object with detect(stack); "
                f"got {detector!r}."
            )
        if not options:
            return detector
        if not is_dataclass(detector):
            raise ConfigError(
                f"options {', '.join(options)} can't be set on a {type(detector).__name__}; set them where it is made."
            )
        _check_options(type(detector), options)
        return replace(detector, **options)
    if detector not in DETECTORS:
        raise ConfigError(f"detector {detector!r} is unknown{_nearest(detector, DETECTORS)}.")
    _check_options(DETECTORS[detector], options, detector)
    return DETECTORS[detector](**options)


def with_sigma(stack, sigma_px):
    """The stack with the coordinate `sigma_px` as asked for: None leaves it, 0 drops it, a number sets it."""
    if sigma_px is None:
        return stack
    if not (np.isscalar(sigma_px) and np.isreal(sigma_px) and np.isfinite(sigma_px) and sigma_px >= 0):
        raise ConfigError(f"sigma_px is {sigma_px!r}; give None, or a number of px that is not negative.")
    if sigma_px == 0:
        return stack.drop_vars("sigma_px", errors="ignore")
    return stack.assign_coords(sigma_px=("time", np.full(stack.sizes["time"], float(sigma_px))))


def _settled(stack):
    """The stack with its coordinates along time in memory: `stack.chunk(...)` makes even scene names lazy."""
    lazy = {k: v for k, v in stack.coords.items() if v.dims == ("time",) and is_lazy(v)}
    return stack.assign_coords({k: v.compute(scheduler="synchronous") for k, v in lazy.items()}) if lazy else stack


def _check_options(cls, options, name=None):
    known = [field.name for field in fields(cls) if field.init]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ConfigError(
            f"{name or cls.__name__} has no option {unknown[0]!r}{_nearest(unknown[0], known)}.",
            tuple(f"{name or cls.__name__} has no option {key!r}{_nearest(key, known)}" for key in unknown),
        )


def _nearest(word, known):
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} There are: {', '.join(known)}"


def _label(detector):
    return detector if isinstance(detector, str) else type(detector).__name__
