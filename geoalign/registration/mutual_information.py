"""Mutual information: the warp under which one image says most about the other. For pairs of different sensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.errors import ConfigError, MatchError
from geoalign.registration.affine_models import TANGENTS, as_model
from geoalign.registration.information_answer import Answer, best_smoothing
from geoalign.registration.information_pair import Pair
from geoalign.registration.information_search import EVIDENCE, Pyramid
from geoalign.registration.phase import check_texture, first_limit, magnified, masked
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import Match


@dataclass(frozen=True)
class MutualInformationMatcher:
    """Mutual information (Mattes), maximised over a shift, rigid, similarity or affine warp.

    It asks only that one image's intensity tells something about the other's: the relation may be inverted or have
    several branches, as between SAR and optical. Any shift to `max_shift_px` is found, with rotations to 12 degrees and
    scales of 0.9 to 1.1, by a search over classes of intensity in decimated images; steps of a Newton kind then climb
    from coarse to fine. The noisier image is left at its own pixels and the smoother one interpolated, so that
    interpolation does not modulate the noise and draw the answer to whole pixels.

    model : shift, rigid, similarity, affine, or auto: the simplest from which the affine departs within its error
    max_shift_px : search as far as this; None = a fifth of the image
    samples : pixels used at full resolution at the most, spread evenly and jittered by the seed

    The covariance is measured: the scores of parts of the image, whose sum is zero at the answer, show by their scatter
    how far it could have been elsewhere (a sandwich estimate). `score` is the informational correlation of the two
    images, sqrt(1 - exp(-2 I)) (Linfoot 1957). Tie points are steps of single blocks; all of them take part in the
    answer, and those marked "check" (a sixth, by seed) have their residual to the warp that would have been found
    without them, from which `cv_px` is taken.

    References
    ----------
    Mattes et al. (2003), doi:10.1109/TMI.2003.809072; Thevenaz, Unser (2000), doi:10.1109/83.887976. We differ in the
    roles of the two images, in the search by classes and in the covariance.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> ground = gaussian_filter(np.random.default_rng(0).normal(size=(140, 140)), 2)
    >>> found = MutualInformationMatcher("shift")(ground[:128, :128], np.abs(ground)[3:131, 2:130])
    >>> round(found.warp.dy, 1), round(found.warp.dx, 1)
    (-3.0, -2.0)
    """

    model: str = "auto"
    max_shift_px: float | None = None
    samples: int = 400_000

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0, starts=()) -> Match:
        """Match two images; of large ones tiles are read. `starts`: warps to try besides what the search finds."""
        if self.model not in ("auto", *TANGENTS):
            raise ConfigError(
                f"mutual information fits {', '.join(TANGENTS)} or auto, not {self.model!r}; the matcher 'phase' does."
            )
        base = max(1, max(reference.factor, moving.factor) if reference.by_tiles or moving.by_tiles else 1)
        images = [image.coarse(base) for image in (reference, moving)]
        for name, image in zip(("reference", "moving image"), images):
            check_texture(image, name)
        limit = first_limit(reference.shape, self.max_shift_px)
        rough = [_roughness(image) for image in images]
        swap, alike = rough[1] > rough[0], max(rough) < 2 * min(rough)
        pyramid = Pyramid(images, swap, seed)
        warp = self._near(pyramid, limit / base, [magnified(w, 1 / base) for w in starts])
        if base == 1:
            pair = Pair.whole(*pyramid.ordered(1), self.samples, seed, 0.0, alike)
        else:
            warp = magnified(warp, base)
            pair = Pair.tiled(*((moving, reference) if swap else (reference, moving)), warp, seed, alike)
        return self._finish(pair, warp, swap, reference.shape, limit + base, seed)

    def _near(self, pyramid, limit, starts):
        """The most convincing start, brought to the finest level of the pyramid; as lattice -> interpolated."""
        best = None
        for warps in pyramid.candidates(limit, starts, turned=self.model != "shift", scaled=self.model != "rigid"):
            for warp in warps:
                if self.model == "rigid":
                    warp = as_model(warp, "rigid", pyramid.shape)
                try:
                    found, seen = pyramid.climb(warp, self.model)
                except MatchError:
                    continue
                if best is None or seen > best[0]:
                    best = (seen, found)
            if best is not None and best[0] > 2 * EVIDENCE:
                break
        if best is None:
            raise MatchError("the two images have too little in common to compare.")
        if best[0] < EVIDENCE:
            raise MatchError(
                f"no motion stands out: the information at the best one is {best[0]:.1f} standard deviations above "
                f"wrong ones, {EVIDENCE:.0f} are needed. The images may not show the same ground, or hold mostly noise."
            )
        return best[1]

    def _finish(self, pair, warp, swap, shape, limit, seed):
        pair, warp = best_smoothing(pair, warp, self.model)
        model = "affine" if self.model == "auto" else self.model
        warp = pair.climb(warp, model, close=3e-4)
        answer = Answer.at(pair, warp, model)
        if self.model == "auto":
            simple = answer.simplest()
            if simple != model:
                warp = pair.climb(as_model(warp, simple, pair.shape), simple, close=3e-4)
                answer = Answer.at(pair, warp, simple)
        return answer.match(swap, shape, limit, seed)


def _roughness(image):
    """How much of an image is noise from pixel to pixel: the spread of its second differences over its own."""
    lap = image[1:-1, 1:-1] - 0.25 * (image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:])
    lap = lap[np.isfinite(lap)]
    a, b = np.nanquantile(image, (0.1, 0.9))
    return float(np.median(np.abs(lap)) / (b - a)) if lap.size and b > a else 0.0
