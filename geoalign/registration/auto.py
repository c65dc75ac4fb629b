"""Auto: the answer that the images bear out, whatever sensors they come from and however they differ."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.mapping import expectation, mapped
from geoalign.kernels.resample import resample
from geoalign.registration.affine_models import TANGENTS
from geoalign.registration.ecc import EccMatcher
from geoalign.registration.field import turned_round
from geoalign.registration.mutual_information import MutualInformationMatcher
from geoalign.registration.orb import OrbMatcher
from geoalign.registration.phase import NothingToMatch, PhaseMatcher, first_limit, masked, refine
from geoalign.registration.select import distance_px, model_name
from geoalign.registration.structure import StructureMatcher
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import Match
from geoalign.types.warp import Field

log = logging.getLogger("geoalign")

RELATED = 0.3
"""Part of the variance of one image that the other's values explain, from which one curve relates them everywhere."""
AGREE_PX = 0.2
"""Answers of structure and of mutual information that are no further apart are taken as one; the latter is steadier."""
CONFIRMED_PX = 0.1
"""How far tie points and all pixels together may disagree, beside their error, to count as one answer."""
OVERLAID_PX = 1024
"""Pixels along the shorter side that suffice to tell how the values of two images are related."""
PROPORTION, BY_CHANCE = 1.5, 0.02
"""Values that explain more of the other image than so many times what proportion to them does are of another kind."""


@dataclass(frozen=True)
class AutoMatcher:
    """The matcher that the images bear out.

    Correlation of the whole image, refined by phase tie points, is tried first: within one sensor it is the most
    precise and needs the least texture. Where nothing stands out (a rotation, a scale), ORB features bring the images
    near. Where the images are of different kinds (their values are related, but not in proportion), mutual information
    answers if one curve relates them everywhere, and structure where the relation differs from place to place. Where
    held-out points want a field, `dense` fits it.

    model : shift, rigid, similarity, affine, projective, polynomial2, field, or auto: the simplest that held-out points
        allow
    max_shift_px : search as far as this; None = a fifth of the image
    across : images may come from sensors of different kinds. Within a stack of one sensor that need not be tried
    """

    model: str = "auto"
    max_shift_px: float | None = None
    across: bool = True

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0, starts=()) -> Match:
        """Match two images that are read by tiles. `starts`: warps to try besides what the search finds."""
        try:
            found = self._alike(reference, moving, seed, starts)
        except NothingToMatch:
            raise
        except MatchError as reason:
            if not self.across:
                raise
            return self._unlike(reference, moving, seed, starts, reason)
        if not self.across or not _other_kind(reference, moving, found.warp):
            return polished(reference, moving, found, seed)
        try:
            return self._unlike(reference, moving, seed, (found.warp,), None)
        except MatchError as reason:
            log.debug("matched as images of one kind, because as images of two: %s", reason)
            return found

    def _alike(self, reference, moving, seed, starts) -> Match:
        """Images whose values rise together."""
        phase = PhaseMatcher(self.model, self.max_shift_px)
        try:
            return phase.align(reference, moving, seed=seed, starts=starts)
        except NothingToMatch:
            raise
        except MatchError as reason:
            try:
                start = OrbMatcher(max_shift_px=self.max_shift_px).start(reference, moving, seed)
            except MatchError as second:
                raise MatchError(f"{str(reason).rstrip('.')}; and by features: {second}") from reason
            return phase.align(reference, moving, seed=seed, starts=(start,))

    def _unlike(self, reference, moving, seed, starts, reason) -> Match:
        """Images of different kinds. `reason`: why they did not match as images of one kind."""
        errors = [] if reason is None else [str(reason)]
        informed = structured = None
        related = 0.0
        model = self.model if self.model in TANGENTS else "auto" if self.model == "auto" else "affine"
        try:
            matcher = MutualInformationMatcher(model, self.max_shift_px)
            informed = matcher.align(reference, moving, seed=seed, starts=starts)
            curves = _curves(reference, moving, informed.warp)
            related = max(curve[2] for curve in curves)
        except MatchError as err:
            errors.append(f"by mutual information: {err}")
        if related < RELATED or self.model == "projective":
            near = starts if informed is None else (informed.warp, *starts)
            try:
                structured = StructureMatcher(self.model, self.max_shift_px).align(
                    reference, moving, seed=seed, starts=near
                )
            except MatchError as err:
                errors.append(f"by structure: {err}")
        if informed is None and structured is None:
            raise MatchError("; and ".join(e.rstrip(".") for e in errors) + ".")
        if related >= RELATED and self.model in ("auto", "field"):
            bent = self._through_curve(reference, moving, informed.warp, curves, seed)
            if bent is not None:
                return bent
        if structured is None:
            return informed
        apart = np.inf if informed is None else distance_px(informed.warp, structured.warp, reference.shape)
        return informed if apart <= AGREE_PX and self.model not in ("field", "projective") else structured

    def _through_curve(self, reference, moving, start, curves, seed) -> Match | None:
        """A field between one image as the other's sensor would show it and the other; None where none is wanted.

        The image that tells more about the other is the one to be translated: noise can't be told from signal.
        """
        if reference.by_tiles or moving.by_tiles:
            return None
        ahead, back = curves
        swap = back[2] > ahead[2]
        one, other = (moving, reference) if swap else (reference, moving)
        shown = Image(mapped(one.tiles([None])[0], back if swap else ahead))
        limit = 2 * first_limit(reference.shape, self.max_shift_px)
        try:
            near = start.inverse() if swap else start
            found = refine(shown, other, near, self.model, limit, seed, "mutual_information")
        except MatchError:
            return None
        if not isinstance(found.warp, Field):
            return None
        return turned_round(found) if swap else found


def polished(reference: Image, moving: Image, found: Match, seed) -> Match:
    """A linear match once more by `ecc`, which weighs all pixels together, where that confirms it; else as it was.

    Tie points find and judge the warp, robust against what has changed; what they share (aliasing, interpolation) they
    do not see, and pixels in sum are the better measure where the warp is right already.
    """
    if isinstance(found.warp, Field):
        return found
    try:
        better = EccMatcher(model_name(found.warp)).refined(reference, moving, found.warp, seed=seed)
    except MatchError as reason:
        log.debug("tie points stand, because ecc says: %s", reason)
        return found
    middle = np.array(reference.shape) / 2
    apart = distance_px(better.warp, found.warp, reference.shape)
    if apart > CONFIRMED_PX + 4 * float(found.sigma_px(*middle)):
        return found
    return replace(better, method=found.method)


def _other_kind(reference, moving, warp) -> bool:
    """Whether the values of the images are related otherwise than in proportion."""
    ref, mov, both = _overlaid(reference, moving, warp)
    curve = expectation(ref, mov, both)
    if curve is None:
        return False
    linear = np.corrcoef(ref[both], mov[both])[0, 1] ** 2 if both.any() else 0.0
    return curve[2] > PROPORTION * linear + BY_CHANCE


def _curves(reference, moving, warp):
    """What the reference leads us to expect of the moving image once it is warped, and the other way round."""
    ref, mov, both = _overlaid(reference, moving, warp)
    nothing = (np.zeros(2), np.zeros(2), 0.0)
    return expectation(ref, mov, both) or nothing, expectation(mov, ref, both) or nothing


def _overlaid(reference, moving, warp):
    """Both images decimated, the moving one warped, and where both are seen."""
    large = reference.by_tiles or moving.by_tiles
    factor = max(reference.factor, moving.factor) if large else 1
    if not large and min(reference.shape) >= 2 * OVERLAID_PX:
        factor = min(reference.shape) // OVERLAID_PX
    ref, mov = reference.coarse(factor), moving.coarse(factor)
    rows, cols = np.mgrid[0 : ref.shape[0], 0 : ref.shape[1]].astype(float)
    rows, cols = warp.pull((rows + 0.5) * factor - 0.5, (cols + 0.5) * factor - 0.5)
    mov = resample(mov, (rows + 0.5) / factor - 0.5, (cols + 0.5) / factor - 0.5, "bilinear")
    return ref, mov, np.isfinite(ref) & np.isfinite(mov)
