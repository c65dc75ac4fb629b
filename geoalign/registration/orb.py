"""Orb: features matched, a consensus affine through them. Finds rotations and scales that a correlation can't."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.orb import magsac_affine, orb_matches
from geoalign.registration import quality
from geoalign.registration.phase import check_texture, first_limit, magnified, masked
from geoalign.registration.select import LADDER, choose, distance_px, fit
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Shift

POINT_PX = 0.3
"""Error of a matched feature, an axis; scaled afterwards by the scatter that is seen."""
MIN_INLIERS = 12
"""Features that must agree. Of unrelated images a MAGSAC affine gathers 4 to 8 by chance."""


@dataclass(frozen=True)
class OrbMatcher:
    """ORB features, ratio and mutual checks, MAGSAC, and a robust fit through what is left.

    Precise to about a tenth of a pixel on clean images; `auto` uses it to bring images near that are rotated or scaled.

    model : shift, rigid, similarity, affine, projective, field, or auto
    max_shift_px : matches further apart are dropped; None = a fifth of the image
        (and what a rotation of some 15 degrees does to its corners)
    features : at most so many in each image
    """

    model: str = "auto"
    max_shift_px: float | None = None
    features: int = 4000

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0) -> Match:
        """Match two images; of large ones the decimated versions are matched."""
        factor = max(reference.feature_factor, moving.feature_factor)
        points, found, inliers = self.consensus(reference, moving, factor, seed)
        shape = reference.shape
        points, found = ((p + 0.5) * factor - 0.5 for p in (points[inliers], found[inliers]))
        covariance = np.broadcast_to(np.eye(2) * (POINT_PX * factor) ** 2, (len(points), 2, 2))
        check = quality.check_points(np.ones(len(points), bool), seed)
        if self.model == "auto":
            fitted = choose(points, found, covariance, use=~check, shape=shape, ladder=LADDER[:-1])
        else:
            fitted = fit(self.model, points, found, covariance, use=~check, shape=shape)
        if fitted is None:
            raise MatchError(f"{int((~check).sum())} features are too few for the model {self.model!r}.")
        use = np.where(check, "check", "fit").astype(object)
        use[(fitted.weight <= 0) & ~check] = "rejected"
        reason = np.where(use == "rejected", "outlier", "").astype(object)
        in_fit = use == "fit"
        sigma = np.full(len(points), POINT_PX * factor * np.sqrt(fitted.factor))
        score = np.clip(np.exp(-0.5 * fitted.length**2), 0.0, 1.0)
        return Match(
            warp=fitted.warp,
            covariance=fitted.covariance,
            score=float(inliers.mean()),
            rmse_px=quality.rms_length(fitted.residual, in_fit),
            n_points=int(in_fit.sum()),
            method="orb",
            tie_points=quality.point_table(points, found, fitted.residual, sigma, score, use, reason),
            cv_px=quality.rms_length(fitted.residual, check),
        )

    def start(self, reference: Image, moving: Image, seed) -> Affine:
        """The affine of the decimated images alone, in pixels of the whole ones: a start for the phase matcher."""
        factor = max(reference.feature_factor, moving.feature_factor)
        points, found, inliers = self.consensus(reference, moving, factor, seed)
        matrix, _ = magsac_affine(points[inliers], found[inliers], seed=seed)
        if matrix is None:
            raise MatchError("the features that agree do not span an affine.")
        return magnified(Affine(matrix), factor)

    def consensus(self, reference: Image, moving: Image, factor, seed):
        """Matches and which of them agree; MatchError where too few do, or on an affine no sensor makes."""
        ref, mov = reference.coarse(factor), moving.coarse(factor)
        check_texture(ref, "reference")
        check_texture(mov, "moving image")
        limit = first_limit(reference.shape, self.max_shift_px)
        # a rotation about the centre moves the corners further than the middle
        reach = (limit + 0.2 * max(reference.shape)) / factor
        points, found = orb_matches(ref, mov, features=self.features, max_shift_px=reach)
        matrix, inliers = magsac_affine(points, found, seed=seed)
        count = int(inliers.sum())
        need = max(MIN_INLIERS, 0.04 * len(points))
        if matrix is None or count < need:
            raise MatchError(f"{count} of {len(points)} matched features agree on an affine; {need:.0f} are needed.")
        stretch = np.linalg.svd(matrix[:, :2], compute_uv=False)
        if stretch.max() > 1.5 or stretch.min() < 0.67 or np.linalg.det(matrix[:, :2]) <= 0:
            raise MatchError(
                f"the features agree on a warp that stretches by {stretch.min():.2f} to {stretch.max():.2f}; "
                "images on one grid differ by less (0.67 to 1.5)."
            )
        spread = points[inliers].std(axis=0)
        if min(spread / np.array(ref.shape)) < 0.05:
            raise MatchError("the features that agree lie in one small patch or line of the image.")
        middle = np.array(ref.shape) / 2
        far = float(np.hypot(*(matrix @ [*middle, 1.0] - middle))) * factor
        if far > limit + factor:
            raise MatchError(f"the motion found is {far:.1f} px, beyond the {limit:.1f} px searched.")
        if distance_px(Affine(matrix), Shift(0.0, 0.0), ref.shape) > 0.6 * max(ref.shape):
            raise MatchError("the features agree on a warp that leaves the image.")
        return points, found, inliers
