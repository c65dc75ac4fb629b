"""Auto: phase where it convinces, brought near by ORB features where it does not."""

from __future__ import annotations

from dataclasses import dataclass

from geoalign.errors import MatchError
from geoalign.registration.orb import OrbMatcher
from geoalign.registration.phase import NothingToMatch, PhaseMatcher, masked
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import Match


@dataclass(frozen=True)
class AutoMatcher:
    """The matcher that the images bear out.

    Correlation of the whole image, refined by phase tie points, is tried first: it is the most precise and needs the
    least texture. Where nothing stands out (a rotation, a scale), ORB features bring the images near, and phase tie
    points refine from there. The answer is always measured by phase tie points held out of the fit.

    model : shift, rigid, similarity, affine, projective, field, or auto: the simplest that held-out points allow
    max_shift_px : search as far as this; None = a fifth of the image
    """

    model: str = "auto"
    max_shift_px: float | None = None

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0) -> Match:
        """Match two images that are read by tiles."""
        phase = PhaseMatcher(self.model, self.max_shift_px)
        try:
            return phase.align(reference, moving, seed=seed)
        except NothingToMatch:
            raise
        except MatchError as reason:
            try:
                start = OrbMatcher(max_shift_px=self.max_shift_px).start(reference, moving, seed)
            except MatchError as second:
                raise MatchError(f"{str(reason).rstrip('.')}; and by features: {second}") from reason
            return phase.align(reference, moving, seed=seed, starts=(start,))
