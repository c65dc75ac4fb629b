"""What feature matchers share: the consensus of matches, whether sensors make such a warp, and the measured answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.features import between_pixels, clustering, magsac_affine
from geoalign.registration import quality
from geoalign.registration.phase import check_texture, first_limit, magnified, masked
from geoalign.registration.select import LADDER, choose, distance_px, fit
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Field, Shift

MIN_INLIERS = 12
"""Features that must agree. Of unrelated images a MAGSAC affine gathers 4 to 8 by chance."""
SPREAD = 0.07
"""Standard deviation of the features' places in the direction they spread the least, of the image's side."""
POINT_PX, FLOOR_PX = 0.01, 0.0015
"""Error that no amount of structure removes (aliasing, interpolation) of a feature and of the whole warp, an axis."""


@dataclass(frozen=True)
class FeatureMatcher(ABC):
    """Features matched, MAGSAC, and a robust fit through what agrees. Subclasses say what `pairs` two images have.

    model : shift, rigid, similarity, affine, projective, polynomial2, field, or auto
    max_shift_px : matches further apart are dropped; None = a fifth of the image
        (and what a rotation of some 15 degrees does to its corners)
    features : at most so many in each image
    """

    method: ClassVar[str]
    model: str = "auto"
    max_shift_px: float | None = None
    features: int = 4000

    @abstractmethod
    def pairs(self, reference, moving, reach_px):
        """Matches of two images (row, col): points and found, (n, 2)."""

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0, starts=()) -> Match:
        """Match two images; of large ones the decimated versions are matched. Features need no `starts`."""
        factor = max(reference.feature_factor, moving.feature_factor)
        points, found, inliers, matrix = self.consensus(reference, moving, factor, seed)
        shape = reference.shape
        at, to, variance = between_pixels(reference.coarse(factor), moving.coarse(factor), points[inliers], matrix)
        good = np.isfinite(variance)
        need = max(MIN_INLIERS, 0.4 * len(good))
        if good.sum() < need:
            raise MatchError(
                f"{int(good.sum())} of {len(good)} features that agree look alike in both; {need:.0f} are needed."
            )
        _check_spread(at[good], reference.coarse(factor).shape)
        points, found = ((p[good] + 0.5) * factor - 0.5 for p in (at, to))
        error = np.sqrt(variance[good] + POINT_PX**2) * factor
        covariance = np.eye(2) * (error**2)[:, None, None]
        check = quality.check_points(np.ones(len(points), bool), seed)
        if self.model == "auto":
            fitted = choose(points, found, covariance, use=~check, shape=shape, ladder=LADDER[:-1])
        else:
            fitted = fit(self.model, points, found, covariance, use=~check, shape=shape)
        if fitted is None:
            raise MatchError(f"{int((~check).sum())} features are too few for the model {self.model!r}.")
        use = np.where(check, "check", "fit").astype(object)
        use[(fitted.weight <= 0) & ~check | (fitted.length > 6.0)] = "rejected"
        reason = np.where(use == "rejected", "outlier", "").astype(object)
        in_fit = use == "fit"
        score = np.clip(np.exp(-0.5 * fitted.length**2), 0.0, 1.0)
        return Match(
            warp=fitted.warp,
            covariance=self._covariance(fitted, points, error, shape),
            score=float(inliers.mean()),
            rmse_px=quality.rms_length(fitted.residual, in_fit),
            n_points=int(in_fit.sum()),
            method=self.method,
            tie_points=quality.point_table(
                points, found, fitted.residual, error * np.sqrt(fitted.factor), score, use, reason
            ),
            cv_px=quality.rms_length(fitted.residual, use == "check"),
        )

    def _covariance(self, fitted, points, error, shape):
        """The fit's, made larger by how much neighbouring features err together, and by what all have in common."""
        together = clustering(points / np.array(shape), fitted.residual, fitted.weight / error**2)
        covariance = fitted.covariance * together
        if isinstance(fitted.warp, Field):
            return covariance + FLOOR_PX**2
        shifts = [0, 1] if isinstance(fitted.warp, Shift) else [2, 5]
        covariance[shifts, shifts] += FLOOR_PX**2
        return covariance

    def start(self, reference: Image, moving: Image, seed) -> Affine:
        """The affine of the decimated images alone, in pixels of the whole ones: a start for the other matchers."""
        factor = max(reference.feature_factor, moving.feature_factor)
        return magnified(Affine(self.consensus(reference, moving, factor, seed)[-1]), factor)

    def consensus(self, reference: Image, moving: Image, factor, seed):
        """Matches, which agree, and on which affine; MatchError where too few do, or on a warp no sensor makes.

        All in pixels of the images decimated by `factor`.
        """
        ref, mov = reference.coarse(factor), moving.coarse(factor)
        check_texture(ref, "reference")
        check_texture(mov, "moving image")
        limit = first_limit(reference.shape, self.max_shift_px)
        # a rotation about the centre moves the corners further than the middle
        reach = (limit + 0.2 * max(reference.shape)) / factor
        points, found = self.pairs(ref, mov, reach)
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
        _check_spread(points[inliers], ref.shape)
        middle = np.array(ref.shape) / 2
        far = float(np.hypot(*(matrix @ [*middle, 1.0] - middle))) * factor
        if far > limit + factor:
            raise MatchError(f"the motion found is {far:.1f} px, beyond the {limit:.1f} px searched.")
        if distance_px(Affine(matrix), Shift(0.0, 0.0), ref.shape) > 0.6 * max(ref.shape):
            raise MatchError("the features agree on a warp that leaves the image.")
        return points, found, inliers, matrix


def _check_spread(points, shape):
    """MatchError where points lie so that an affine through them says little elsewhere."""
    if min(np.linalg.svd((points - points.mean(axis=0)) / shape, compute_uv=False)) < SPREAD * np.sqrt(len(points)):
        raise MatchError("the features that agree lie in one small patch or line of the image.")
