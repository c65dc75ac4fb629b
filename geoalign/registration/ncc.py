"""Ncc: windows found by normalised cross-correlation, a robust warp through them. Plain, and hard to surprise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.fit import PARAMETERS
from geoalign.kernels.ncc import peaks
from geoalign.registration import quality
from geoalign.registration.orb import OrbMatcher
from geoalign.registration.phase import check_texture, first_limit, first_search, judged, masked
from geoalign.registration.points import Points
from geoalign.registration.select import choose, distance_px, fit
from geoalign.registration.tiepoints import Image, Level, full_level, windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Field, Shift

SCALES = (1.0, 2.0, 3.5)
"""Scales (px) of the structure compared; the one whose windows agree best is taken."""
REACH = 6
"""Pixels the windows are searched around where the start puts them; half as far once they agree."""
CLEAN = 0.9
"""Correlation of the windows above which the finest scale is not doubted."""
POINT_PX, FLOOR_PX = 0.01, 0.0015
"""Error that no amount of structure removes (aliasing, interpolation), of a window and of the whole warp, an axis."""


@dataclass(frozen=True)
class NccMatcher:
    """Windows of the reference looked for in the moving image by masked normalised cross-correlation.

    The peak of each window is placed between the pixels, with a covariance from its curvature and its height; the warp
    through the peaks is robust, and windows are looked for again where it puts them, until it stays. No gradients and
    no model of brightness are involved: each window may be brighter or of more contrast in the other image, but not
    inverted. Starts are the best lag of the whole image, then the consensus of ORB features.

    model : shift, rigid, similarity, affine, projective, field, or auto: the simplest that held-out points allow
    max_shift_px : search as far as this; None = a fifth of the image

    References
    ----------
    Lewis (1995), Fast template matching; masks: Padfield (2012), doi:10.1109/TIP.2011.2181402.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> ground = gaussian_filter(np.random.default_rng(0).normal(size=(140, 140)), 2)
    >>> found = NccMatcher("shift")(ground[:128, :128], ground[3:131, 2:130])
    >>> round(found.warp.dy, 2), round(found.warp.dx, 2)
    (-3.0, -2.0)
    """

    model: str = "auto"
    max_shift_px: float | None = None

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0, starts=()) -> Match:
        """Match two images that are read by tiles. `starts`: warps to try besides what the search finds."""
        for name, image in (("reference", reference), ("moving image", moving)):
            check_texture(image.coarse(image.factor), name)
        shape = reference.shape
        factor = max(reference.factor, moving.factor)
        limit = first_limit(shape, self.max_shift_px)
        start, seen = first_search(reference, moving, factor, limit, starts)
        if seen < quality.EVIDENCE:
            start, seen = self._by_features(reference, moving, factor, limit, seed, start, seen)
        level = full_level(reference, moving, start)
        warp = start
        if factor > 1:
            points, seen = _located(level, warp, SCALES[1], REACH)
            warp = _steady(points, shape).warp
        if seen < quality.EVIDENCE:
            raise MatchError(
                f"no motion stands out: the best one scores {seen:.1f} standard deviations above wrong ones, "
                f"{quality.EVIDENCE:.0f} are needed. The images may not show the same ground, or hold mostly noise."
            )
        scale, warp = _best_scale(level, warp, shape)
        return self._measured(level, warp, scale, limit + factor, seed, shape)

    def _by_features(self, reference, moving, factor, limit, seed, start, seen):
        try:
            near = OrbMatcher(max_shift_px=self.max_shift_px).start(reference, moving, seed)
        except MatchError:
            return start, seen
        again = first_search(reference, moving, factor, limit, (near,))
        return again if again[1] > seen else (start, seen)

    def _measured(self, level, warp, scale, limit, seed, shape) -> Match:
        if self.model == "field":
            level = level.with_windows(windows_for(shape, finer=True))
        own = _own_offset(level, scale)
        for _ in range(5):
            points, _ = _located(level, warp, scale, REACH // 2, own)
            fitted = _fit(self.model, points, points.use, shape) if self.model in PARAMETERS else _steady(points, shape)
            if fitted is None:
                raise MatchError(f"{int(points.use.sum())} windows are too few for the model {self.model!r}.")
            moved, warp = distance_px(fitted.warp, warp, shape), fitted.warp
            if moved < 2e-3:
                break
        check = quality.check_points(points.use, seed)
        kept = points.use & ~check
        if self.model == "auto":
            fitted = choose(points.at, points.found, points.covariance, use=kept, shape=shape)
        else:
            fitted = _fit(self.model, points, kept, shape)
        if fitted is None:
            raise MatchError(f"{int(kept.sum())} windows are too few for the model {self.model!r}.")
        found = judged(level, scale, points, fitted, kept, check, limit, "ncc", shape)
        covariance = np.array(found.covariance)
        if isinstance(found.warp, Field):
            return replace(found, covariance=covariance + FLOOR_PX**2)
        shifts = [0, 1] if isinstance(found.warp, Shift) else [2, 5]
        covariance[shifts, shifts] += FLOOR_PX**2
        return replace(found, covariance=covariance)


def _own_offset(level, scale):
    """Where the windows of the reference are found in the reference itself, (n, 2) px.

    Not quite at nothing: what comes in at one side of a window as it is moved, and goes out at the other, is not alike.
    The moving image does the same to the same windows, so this is taken off.
    """
    same = Level(level.windows, level.ref, level.ref_at, level.ref, level.ref_at)
    surfaces, shared = same.search(Shift(0.0, 0.0), REACH // 2, scale)
    return np.nan_to_num(peaks(surfaces, shared * level.windows.size**2, scale)[0])


def _located(level, warp, scale, reach, own=0.0):
    """Every window as a tie point, looked for around `warp`; and the evidence that what was found is not chance."""
    surfaces, shared = level.search(warp, reach, scale)
    size, centre = level.windows.size, level.windows.centre
    offset, error, height = peaks(surfaces, shared * size**2, scale)
    reason = np.full(len(centre), "", object)
    reason[~np.isfinite(height)] = "no peak"
    with np.errstate(invalid="ignore"):
        reason[~(np.trace(error, axis1=1, axis2=2) < 18.0) & (reason == "")] = "no structure"
    reason[shared < 0.25] = "masked or outside"
    use = reason == ""
    if use.sum() < 3:
        raise MatchError(f"{int(use.sum())} of {len(use)} windows could be found; 3 are needed at the least.")
    offset = np.where(use[:, None], offset - own, 0.0)
    found = np.stack(warp.pull(*(centre + offset).T), axis=1)
    jac = warp.jacobian(*centre.T)
    error = np.where(use[:, None, None], error, np.eye(2))
    error = jac @ error @ jac.transpose(0, 2, 1) + np.eye(2) * POINT_PX**2
    score = np.where(use, np.clip(np.nan_to_num(height), 0.0, 1.0), 0.0)
    middle = np.median(offset[use], axis=0)
    seen = quality.evidence(surfaces, shared, np.broadcast_to(middle, offset.shape)) if reach >= REACH else 0.0
    return Points(centre, found, error, use, score, reason), seen


def _best_scale(level, warp, shape):
    """The scale whose windows agree best, and the warp through them; broader ones are tried while they gain."""
    best = None
    for scale in SCALES:
        try:
            points, _ = _located(level, warp, scale, REACH)
            fitted = _steady(points, shape)
        except MatchError:
            continue
        if best is not None and fitted.sigma_px >= best[0]:
            break
        best, warp = (fitted.sigma_px, scale, fitted.warp), fitted.warp
        if np.median(points.score[points.use]) > CLEAN:
            break
    if best is None:
        raise MatchError("fewer than 3 windows hold structure that both images show.")
    return best[1:]


def _steady(points, shape):
    """Affine where the windows carry it, else a shift."""
    for model in ("affine", "shift"):
        fitted = _fit(model, points, points.use, shape) if model == "shift" or points.use.sum() >= 8 else None
        # an affine that windows in one corner leave free elsewhere would run away
        if fitted is not None and (model == "shift" or fitted.sigma_px < 0.5):
            return fitted
    raise MatchError("the windows that were found do not agree on a motion.")


def _fit(model, points, use, shape):
    return fit(model, points.at, points.found, points.covariance, use=use, shape=shape)
