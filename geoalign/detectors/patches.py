"""Patches too small to report, taken out of a mask lazily and without seams."""

from __future__ import annotations

import numpy as np

from geoalign.chunked import neighbourhood
from geoalign.errors import ConfigError
from geoalign.kernels.sieve import backed, large_enough
from geoalign.types.stack import pixel_size_m

LARGEST_PX = 200
"""Patches are followed so far; a larger minimum is left to `polygons`, which sees them whole."""


BACKED_BY = 4
"""Neighbours out of eight that make two last observations enough, where a lone pixel needs three."""


def check_area(min_area_m2):
    """An area that is not negative, or ConfigError."""
    if not (np.isscalar(min_area_m2) and min_area_m2 >= 0):
        raise ConfigError(f"min_area_m2 is {min_area_m2!r}; it is an area in m2, 0 keeps single pixels.")


def sieve(mask, stack, min_area_m2):
    """The mask (y, x) without 8-connected patches below min_area_m2; unchanged where the grid is not in metres."""
    size = pixel_size_m(stack)
    n_min = 1 if size is None else min(int(np.ceil(min_area_m2 / size**2)), LARGEST_PX)
    if n_min <= 1:
        return mask
    return neighbourhood(large_enough, mask, depth=n_min - 1, outputs={"keep": bool}, n_min=n_min).keep


def with_neighbours(sure, doubtful):
    """The mask `sure`, and pixels of `doubtful` with at least four of their eight neighbours in one of the two."""
    return neighbourhood(backed, sure, doubtful, depth=1, outputs={"keep": bool}, n_min=BACKED_BY).keep
