"""Orb: features matched, a consensus affine through them. Finds rotations and scales that a correlation can't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geoalign.kernels.orb import orb_matches
from geoalign.registration.features import FeatureMatcher


@dataclass(frozen=True)
class OrbMatcher(FeatureMatcher):
    """ORB features, ratio and mutual checks, MAGSAC, and a robust fit through what is left.

    Precise to about a tenth of a pixel on clean images and quick; `sift` is more precise.

    model : shift, rigid, similarity, affine, projective, polynomial2, field, or auto
    max_shift_px : matches further apart are dropped; None = a fifth of the image
        (and what a rotation of some 15 degrees does to its corners)
    features : at most so many in each image

    References
    ----------
    Rublee et al. (2011), doi:10.1109/ICCV.2011.6126544.
    """

    method: ClassVar[str] = "orb"

    def pairs(self, reference, moving, reach_px):
        return orb_matches(reference, moving, features=self.features, max_shift_px=reach_px)
