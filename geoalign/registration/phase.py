"""Phase: masked correlation finds, least squares on the correlated band refines. Good within one kind of sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.errors import ConfigError, MatchError
from geoalign.kernels.fit import consensus
from geoalign.kernels.phase import masked_correlation, parabola_peak, upsampled_peak
from geoalign.kernels.refine import band_pass
from geoalign.registration import quality
from geoalign.registration.field import field_match
from geoalign.registration.points import Points, points_of, response_of
from geoalign.registration.select import FIELD_POINTS, STRAIGHT, beats, choose, distance_px, fit
from geoalign.registration.tiepoints import Image, Level, coarse_level, full_level, windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Shift

SEARCH_BAND = 1.5
"""Scale (px) of the structure the search looks for."""
BANDS = (0.5, 0.9, 2.0)
"""Scales (px) the refinement chooses among: fine for clean images, broad for speckled ones."""
REACH = 6
"""Pixels the windows are searched around where the first search puts them."""
STEADY_PX = 0.5
"""Error over the image above which an affine is not trusted to predict where the windows lie; a shift is then."""
CONTRADICTED = 0.25
"""Share of windows beyond the reach of a linear warp from which a field is tried."""
SURPRISE = 100.0
"""Scatter about a linear warp, over what the points' own errors predict (variance ratio), that has one tried too."""
FAR_PX = 3.0
"""What a window counts that lies beyond the refinement's reach."""


class NothingToMatch(MatchError):
    """An image holds nothing to match: no valid pixels, or no structure. The stack's report calls the scene failed."""


@dataclass(frozen=True)
class PhaseMatcher:
    """Tie points by masked, sub-pixel phase correlation, refined by least squares; a warp through them.

    model : shift, rigid, similarity, affine, projective, polynomial2, field, or auto: the simplest that held-out points
        allow
    max_shift_px : search as far as this; None = a fifth of the image
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
        factor = max(reference.factor, moving.factor)
        limit = first_limit(reference.shape, self.max_shift_px)
        start, seen = first_search(reference, moving, factor, limit, starts)
        # at full resolution the first search has compared the windows already
        known = seen if factor == 1 else 0.0
        return refine(reference, moving, start, self.model, limit + factor, seed, "phase", seen=known)


def masked(reference, moving, valid):
    """Both images as float32 with NaN where not valid."""
    pair = [np.array(image, np.float32) for image in (reference, moving)]
    masks = valid if isinstance(valid, tuple | list) else (valid, valid)
    for image, mask in zip(pair, masks):
        if image.ndim != 2:
            raise MatchError(f"two images (row, col) are matched, got shape {image.shape}.")
        if mask is not None:
            mask = np.asarray(mask, bool)
            if mask.shape != image.shape:
                raise MatchError(f"a mask of shape {mask.shape} was given for an image of shape {image.shape}.")
            image[~mask] = np.nan
        image[~np.isfinite(image)] = np.nan
    return pair


def check_texture(image, name):
    """MatchError where an image holds nothing to match."""
    values = image[np.isfinite(image)]
    if values.size == 0:
        raise NothingToMatch(f"no valid pixels in the {name}.")
    if values.size < 256:
        raise NothingToMatch(f"only {values.size} valid pixels in the {name}; 256 are needed at the least.")
    if float(values.max()) - float(values.min()) <= 1e-6 * max(abs(float(values.max())), 1e-30):
        raise NothingToMatch(f"the {name} is flat: nothing to match.")


def first_limit(shape, max_shift_px) -> float:
    """How far to search, px: a fifth of the image by default."""
    if max_shift_px is None:
        return max(shape) / 5
    if not 0 < max_shift_px < max(shape):
        raise ConfigError(
            f"max_shift_px is {max_shift_px}; it must lie between 0 and the image's side, {max(shape)} px."
        )
    return float(max_shift_px)


def first_search(reference: Image, moving: Image, factor: int, limit: float, starts=()):
    """The most convincing start among no motion, the best lag of the whole image, and `starts`.

    Returns (warp, evidence of it).
    """
    ref, mov = reference.coarse(factor), moving.coarse(factor)
    reach = int(np.ceil(limit / factor)) + 1
    (a, a_ok), (b, b_ok) = (band_pass(image, SEARCH_BAND, 4 * SEARCH_BAND) for image in (ref, mov))
    if not a_ok.any() or not b_ok.any():
        raise NothingToMatch("no valid pixels are left away from the gaps; the masks are too scattered.")
    side = 2 * reach + 1
    surface, _ = masked_correlation(a, a_ok, b, b_ok, (-reach, -reach, side, side), 0.3)
    lags = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) * factor
    surface[lags > limit + factor] = 0.0
    i, j = np.unravel_index(np.argmax(surface), surface.shape)
    dy, dx, _ = upsampled_peak(a, a_ok, b, b_ok, (i - reach, j - reach))
    peak = Shift(dy * factor, dx * factor)
    candidates = [*starts, peak, Shift(0.0, 0.0)]
    level = coarse_level(reference, moving, factor)
    best = None
    for warp in candidates:
        here = _decimated(warp, factor)
        surfaces, shared = level.search(here, REACH, SEARCH_BAND)
        found, use = _peaks(level, here, surfaces, shared)
        fitted = _agreed(here, level.windows.centre, found, use, surfaces, ref.shape)
        if fitted is None:
            continue
        offset = np.stack(fitted.pull(*level.windows.centre.T), 1) - np.stack(here.pull(*level.windows.centre.T), 1)
        seen = quality.evidence(surfaces, shared, np.clip(offset, -REACH, REACH))
        if best is None or seen > best[0] * 1.1 + 1e-9:
            best = (seen, magnified(fitted, factor))
        if seen > 3 * quality.EVIDENCE:
            break  # nothing could be more convincing
    if best is None:
        raise MatchError("the windows of the two images have too little in common to compare.")
    return best[1], best[0]


def refine(reference: Image, moving: Image, start, model, limit, seed, method, *, seen=0.0) -> Match:
    """From a start within a few pixels to a measured match, or MatchError.

    seen : the evidence that windows at full resolution gave for the start; where it is weak they are searched again
    """
    level = full_level(reference, moving, start)
    centre = level.windows.centre
    warp = start
    for _ in range(2):
        if seen > 2 * quality.EVIDENCE:
            break
        surfaces, shared = level.search(warp, REACH, SEARCH_BAND)
        found, use = _peaks(level, warp, surfaces, shared)
        agreed = _agreed(warp, centre, found, use, surfaces, reference.shape)
        if agreed is None:
            raise MatchError(
                f"only {int(use.sum())} of {len(use)} windows could be compared; 3 are needed at the least."
            )
        offset = np.stack(agreed.pull(*centre.T), 1) - np.stack(warp.pull(*centre.T), 1)
        seen, warp = quality.evidence(surfaces, shared, offset), agreed
    if seen < quality.EVIDENCE:
        raise MatchError(
            f"no motion stands out: the best one scores {seen:.1f} standard deviations above wrong ones, "
            f"{quality.EVIDENCE:.0f} are needed. The images may not show the same ground, or hold mostly noise."
        )
    fine, warp, response = best_band(level, warp, reference.shape)
    images = (reference, moving)
    return measure(level, warp, fine, response, model, limit, seed, method, reference.shape, images)


def _decimated(warp, factor):
    return warp if factor == 1 else _conjugate(warp, 1.0 / factor)


def magnified(warp, factor):
    """A warp of images decimated by `factor`, in pixels of the whole ones."""
    return warp if factor == 1 else _conjugate(warp, float(factor))


def _conjugate(warp, scale):
    """The same warp in pixels `1 / scale` times as large: centres map by p -> (p + 0.5) * scale - 0.5."""
    m = np.eye(3)
    m[:2] = [[1, 0, warp.dy], [0, 1, warp.dx]] if isinstance(warp, Shift) else warp.matrix
    to = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5], [0, 0, 1]])
    out = (to @ m @ np.linalg.inv(to))[:2]
    return Shift(float(out[0, 2]), float(out[1, 2])) if isinstance(warp, Shift) else Affine(out)


def _peaks(level: Level, warp, surfaces, shared):
    """Where each window was found, (n, 2), and whether it can be used."""
    n, side, _ = surfaces.shape
    reach = side // 2
    centre = level.windows.centre
    offset, use = np.zeros((n, 2)), np.zeros(n, bool)
    for k in range(n):
        i, j = np.unravel_index(np.argmax(surfaces[k]), (side, side))
        use[k] = shared[k] >= 0.25 and 0 < i < side - 1 and 0 < j < side - 1 and surfaces[k, i, j] > 0
        offset[k] = np.array([i, j]) + parabola_peak(surfaces[k], i, j) - reach
    rows, cols = warp.pull(centre[:, 0] + offset[:, 0], centre[:, 1] + offset[:, 1])
    return np.stack([rows, cols], axis=1), use


def _agreed(warp, centre, found, use, surfaces, shape):
    """Affine through the windows that agree, a shift where they are few; None below three."""
    places = np.flatnonzero(use)
    if places.size < 3:
        return None
    vote = np.maximum(surfaces[places].max(axis=(1, 2)), 0.0) ** 2
    # what the start left over varies slowly, even where the start turns the image
    left = found - np.stack(warp.pull(*centre.T), axis=1)
    inside = places[consensus(centre[places], (centre + left)[places], vote)]
    if inside.size == 0:
        return None
    if inside.size >= 8:
        unit = np.broadcast_to(np.eye(2), (inside.size, 2, 2))
        fitted = fit("affine", centre[inside], found[inside], unit, use=np.ones(inside.size, bool), shape=shape)
        if fitted is not None and fitted.sigma_px < 2 * STEADY_PX:
            return fitted.warp
    shift = left[inside].mean(axis=0)
    if isinstance(warp, Shift):
        return Shift(float(warp.dy + shift[0]), float(warp.dx + shift[1]))
    m = np.array(warp.matrix)
    m[:, 2] += shift
    return Affine(m)


def best_band(level: Level, warp, shape, bands=BANDS):
    """The band whose points agree best. Returns (fine, warp after a step in it, response)."""
    best = None
    for fine in sorted(bands, reverse=True):
        response = response_of(level, warp, fine)
        points = points_of(level, warp, fine, response)
        fitted = _steady(points, shape) if points.use.sum() >= 3 else None
        if fitted is None:
            continue
        if best is None:
            # the broadest band has the longest reach: let it bring the others near
            warp = fitted.warp
        if best is None or fitted.sigma_px < best[0]:
            best = (fitted.sigma_px, fine, fitted.warp, response)
    if best is None:
        raise MatchError("fewer than 3 windows hold structure that both images show.")
    return best[1:]


def _steady(points: Points, shape):
    """Affine where the points carry it, else a shift."""
    for model in ("affine", "shift"):
        if model == "affine" and points.use.sum() < 8:
            continue
        fitted = fit(model, points.at, points.found, points.covariance, use=points.use, shape=shape)
        # an affine that points in one corner leave free elsewhere would run away
        if fitted is not None and (model == "shift" or fitted.sigma_px < STEADY_PX):
            return fitted
    return None


def measure(level, warp, fine, response, model, limit, seed, method, shape, images=None) -> Match:
    """Iterate the windows around the warp they imply, choose the model, and judge it on points held out.

    images : (reference, moving), to which a field is fitted where it is wanted; None = through the tie points, if asked
    """
    linear = None if model in ("auto", "field") else model
    for _ in range(6):
        points = points_of(level, warp, fine, response)
        if points.use.sum() < 3:
            raise MatchError(f"{int(points.use.sum())} of {len(points.use)} windows could be matched; 3 are needed.")
        fitted = _steady(points, shape) if linear is None else _fit(linear, points, points.use, shape)
        if fitted is None:
            raise MatchError(f"{int(points.use.sum())} tie points are too few for the model {model!r}.")
        moved = distance_px(fitted.warp, warp, shape)
        warp = fitted.warp
        if moved < 1e-3:
            break
    if response < 0.98:
        response = response_of(level, warp, fine)
        points = points_of(level, warp, fine, response)
    if images and (model == "field" or (model == "auto" and _bends(level, warp, fine, response, shape))):
        return field_match(*images, warp, fine, seed, method)
    if images and model == "auto":
        field = _field_instead(images, points, fitted, fine, seed, method)
        if field is not None:
            return field
    usable = points.use.copy()
    check = quality.check_points(usable, seed)
    kept = usable & ~check
    if model == "auto":
        fitted = choose(points.at, points.found, points.covariance, use=kept, shape=shape, ladder=STRAIGHT)
    else:
        fitted = _fit(model, points, kept, shape)
    if fitted is None:
        raise MatchError(f"{int(kept.sum())} tie points are too few for the model {model!r}.")
    return judged(level, fine, points, fitted, kept, check, limit, method, shape)


def _field_instead(images, points, linear, fine, seed, method) -> Match | None:
    """A field where many windows contradict the linear warp and the field predicts held-out ones far better.

    What bends more often than tie points can tell (`_bends`) leaves windows beyond the reach of the linear warp.
    """
    beyond = points.reason == "beyond the refinement's reach"
    measured = (beyond | points.use).sum()
    surprised = linear.factor > SURPRISE or beyond.sum() > CONTRADICTED * measured
    if not surprised or measured < FIELD_POINTS:
        return None
    try:
        field = field_match(*images, linear.warp, fine, seed, method)
    except MatchError:
        return None
    left = np.hypot(*linear.residual[points.use].T)
    left = np.sqrt(((left**2).sum() + FAR_PX**2 * beyond.sum()) / (left.size + beyond.sum()))
    return field if field.n_points >= FIELD_POINTS and field.cv_px < 0.5 * left else None


def _fit(model, points, use, shape, **options):
    return fit(model, points.at, points.found, points.covariance, use=use, shape=shape, **options)


def _bends(level, warp, fine, response, shape) -> bool:
    """Whether a field predicts points left out of its fit better than an affine does.

    In smaller windows, within which the displacement is nearly constant; measured again around the field, because
    steps from the affine are short where it is far off.
    """
    smaller = level.with_windows(windows_for(shape, finer=True))
    points = points_of(smaller, warp, fine, response)
    for again in (True, False):
        if points.use.sum() < FIELD_POINTS:
            return False
        # two stiffnesses tell whether the image bends
        field = _fit("field", points, points.use, shape, bends=(0.3, 2.0))
        linear = _fit("affine", points, points.use, shape)
        if field is None or (linear is not None and not beats(field, linear, points.covariance, points.use, shape)):
            return False
        if again:
            points = points_of(smaller, field.warp, fine, response_of(smaller, field.warp, fine))
    return True


def judged(level, fine, points, fitted, kept, check, limit, method, shape):
    """The Match, or MatchError where the points held out do not bear the warp out."""
    outlier = fitted.weight <= 0
    use = np.where(check, "check", np.where(kept, "fit", "rejected")).astype(object)
    reason = points.reason.copy()
    lost = (kept & outlier) | (check & (fitted.length > 6.0))
    use[lost], reason[lost] = "rejected", "outlier"
    in_fit, in_check = use == "fit", use == "check"
    if in_fit.sum() < 3:
        raise MatchError(f"only {int(in_fit.sum())} tie points agree on a warp; 3 are needed at the least.")
    rows, cols = fitted.warp.pull(*points.at.T)
    away = np.stack([rows, cols], 1) - points.at
    far = float(np.hypot(*np.median(away[in_fit], axis=0)))
    if far > limit:
        raise MatchError(f"the motion found is {far:.1f} px, beyond the {limit:.1f} px searched.")
    quality.refuse_worse(level, fitted.warp, in_check, in_fit, shape, fitted.sigma_px)
    sigma = np.sqrt(np.trace(points.covariance, axis1=1, axis2=2) / 2 * fitted.factor)
    table = quality.point_table(points.at, points.found, fitted.residual, sigma, points.score, use, reason)
    return Match(
        warp=fitted.warp,
        covariance=fitted.covariance,
        score=float(np.median(points.score[in_fit])),
        rmse_px=quality.rms_length(fitted.residual, in_fit),
        n_points=int(in_fit.sum()),
        method=method,
        tie_points=table,
        cv_px=quality.rms_length(fitted.residual, in_check),
    )
