"""Sift: blobs matched by what surrounds them, a consensus affine through them. Finds rotations and scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geoalign.kernels.sift import sift_matches
from geoalign.registration.features import FeatureMatcher


@dataclass(frozen=True)
class SiftMatcher(FeatureMatcher):
    """SIFT features, ratio and mutual checks, MAGSAC, and a robust fit through what is left.

    Finds rotations and scales without being told, in dim, 12-bit and logarithmic images alike; precise to about a
    hundredth of a pixel on clean ones.

    model : shift, rigid, similarity, affine, projective, polynomial2, field, or auto
    max_shift_px : features further apart are not compared; None = a fifth of the image
        (and what a rotation of some 15 degrees does to its corners)
    features : at most so many in each image

    References
    ----------
    Lowe (2004), doi:10.1023/B:VISI.0000029664.99615.94; Barath et al. (2020), doi:10.1109/CVPR42600.2020.00138.
    """

    method: ClassVar[str] = "sift"

    def pairs(self, reference, moving, reach_px):
        return sift_matches(reference, moving, features=self.features, max_shift_px=reach_px)
