"""Structure: tie points on what sensors share (edges, self-similarity). For SAR, infrared, LiDAR and maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geoalign.errors import MatchError
from geoalign.kernels.fit import consensus
from geoalign.kernels.resample import resample
from geoalign.kernels.structure import correlate, darkest, describe, peaks
from geoalign.registration import quality
from geoalign.registration.phase import NothingToMatch, check_texture, first_limit, magnified, masked
from geoalign.registration.points import Points
from geoalign.registration.select import FIELD_POINTS, LADDER, beats, choose, distance_px, fit
from geoalign.registration.tiepoints import Image, Level, Windows, full_level, windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Shift

SEARCH_PX = 128
"""Longest side of the decimated images in which shifts, turns and scales are searched."""
MIDDLE_PX = 320
"""Longest side of the decimated images in which the candidates are told apart."""
DEGREES = tuple(range(-12, 13, 2))
SCALES = (0.88, 0.94, 1.0, 1.06, 1.12)
"""Turns and scales that are tried; the windows bear half a step."""
CONVINCING = 9.0
"""Standard deviations above other lags at which the upright search is believed and nothing else is tried."""
CANDIDATES = 4
"""Places of the search that are looked at more closely, at most."""
REACH = 6
"""Pixels the windows are searched around where the present warp puts them."""
BANDS = (0.7, 1.4, 2.8)
"""Scales (px) of the descriptors: fine for clean images, broad for speckled ones."""
EVIDENCE = 5.5
"""Standard deviations by which the right place must stand out (`quality.evidence`). Of unrelated images: up to 4.8."""
AGREEMENT = 8.0
"""Standard deviations by which more windows must agree than by chance. Of unrelated images: up to 5.7."""
AGREE_PX = 2.0
"""Windows within this of the warp agree with it."""
FLOOR_PX = 0.02
"""Error of a tie point that no amount of structure removes (aliasing, interpolation), an axis."""


@dataclass(frozen=True)
class StructureMatcher:
    """Tie points by correlating dense descriptors that do not depend on the sensor; a warp through them.

    What is compared of each pixel is its self-similarity (MIND) and the orientations of the gradients around it, modulo
    180 degrees (`kernels.structure.describe` gives the papers and where we differ). Grey values that have a long right
    tail, such as SAR intensity, are taken in logarithms. The start is searched without hints: shifts by Fourier
    transforms, over turns of +-12 degrees and scales of 0.88 to 1.12 where the upright image does not convince.

    Precise to a few tenths of a pixel between sensors, to a few hundredths within one. `phase` is more precise there.

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
        limit = first_limit(reference.shape, self.max_shift_px)
        warp = _start(reference, moving, limit, starts)
        if reference.by_tiles or moving.by_tiles:
            factor = max(reference.factor, moving.factor)
            pair = _Pair.decimated(reference, moving, factor, windows_for)
            warp = magnified(_tightened(pair, magnified(warp, 1.0 / factor), BANDS[1])[0], factor)
        return _refined(reference, moving, warp, self.model, limit, seed)


class _Pair:
    """Two images at one resolution, as descriptors around windows.

    tails : what is added before logarithms are taken of either, None = no logarithms
    """

    def __init__(self, level: Level, tails, shape):
        self.level, self.tails, self.shape = level, tails, shape
        self.windows = level.windows

    @classmethod
    def decimated(cls, reference: Image, moving: Image, factor: int, windows_of):
        ref, mov = reference.coarse(factor), moving.coarse(factor)
        windows = windows_of(ref.shape)
        n = len(windows.start)
        zero = np.zeros((n, 2), int)
        level = Level(windows, [ref] * n, zero, [mov] * n, zero, reference.prepared if reference.keep else None)
        return cls(level, _tails(reference, moving), ref.shape)

    @classmethod
    def whole(cls, reference: Image, moving: Image, warp):
        return cls(full_level(reference, moving, warp), _tails(reference, moving), reference.shape)

    def with_windows(self, windows: Windows) -> _Pair:
        return _Pair(self.level.with_windows(windows), self.tails, self.shape)

    def surfaces(self, warp, reach: int, scale: float):
        """Correlation of every window over +-reach px around where the warp expects it.

        Returns (surfaces, shared): (n, 2 reach + 1, 2 reach + 1), and the part of each window that was compared.
        """
        level, size = self.level, self.windows.size
        n, wide = len(self.windows.start), size + 2 * reach
        side = 2 * reach + 1
        surfaces, shared = np.empty((n, side, side)), np.empty(n)
        # whole images have one tile for all windows; of large ones each window has its own
        for tile in dict.fromkeys(map(id, level.ref)):
            places = [k for k in range(n) if id(level.ref[k]) == tile]
            first = places[0]
            ref, ref_ok = self._reference(first, scale)
            mov, mov_ok, corner = self._moving(first, warp, scale, reach)
            parts = []
            for k in places:
                r, c = self.windows.start[k] - level.ref_at[first]
                a, b = self.windows.start[k] - corner - reach
                here, there = np.s_[r : r + size, c : c + size], np.s_[a : a + wide, b : b + wide]
                parts.append((ref[:, *here], ref_ok[here], mov[:, *there], mov_ok[there]))
            stacked = (np.stack(part) for part in zip(*parts))
            found, common = correlate(*stacked, (0, 0, side, side))
            surfaces[places], shared[places] = found, common.max(axis=(1, 2)) / size**2
        return surfaces, shared

    def _reference(self, k, scale):
        cache = self.level._cache if self.level.shared is None else self.level.shared
        key = ("structure", id(self.level.ref[k]), scale)
        if key not in cache:
            cache[key] = describe(_evened(self.level.ref[k], self.tails[0]), scale)
        return cache[key]

    def _moving(self, k, warp, scale, reach):
        """Descriptors of the moving image as the warp sees it, on the reference's tile widened by `reach`.

        The image is resampled first and described then, so that turned images have unturned orientations. Returns
        (channels, valid, first pixel (row, col) in the reference).
        """
        level = self.level
        corner = level.ref_at[k] - reach
        rows, cols = np.indices(np.array(level.ref[k].shape) + 2 * reach).astype(float)
        rows, cols = warp.pull(rows + corner[0], cols + corner[1])
        r0, c0 = level.mov_at[k].tolist()
        seen = resample(_evened(level.mov[k], self.tails[1]), rows, cols, "bspline", row0=r0, col0=c0)
        return *describe(seen, scale), corner


def _tails(reference, moving):
    return tuple(darkest(image.coarse(image.factor)) for image in (reference, moving))


def _evened(image, tail):
    return np.asarray(image, np.float32) if tail is None else np.log(np.maximum(image, 0.0) + np.float32(tail))


def _broad(shape) -> Windows:
    """Windows of about a fifth of the image: what tells candidates apart needs more structure than a tie point."""
    size = min(int(np.clip(8 * round(min(shape) / 40), 24, 96)), *shape)
    starts = [[round((k + 0.5) * n / max(1, n // size) - size / 2) for k in range(max(1, n // size))] for n in shape]
    return Windows(np.array([(r, c) for r in starts[0] for c in starts[1]]), size)


def _start(reference: Image, moving: Image, limit, starts):
    """The candidate that the windows of the decimated images bear out best."""
    factor = max(-(-max(image.shape) // MIDDLE_PX) for image in (reference, moving))
    pair = _Pair.decimated(reference, moving, factor, _broad)
    best = None
    for turned in (False, True):
        found = _search(reference, moving, limit, turned)
        tried = [warp for _, warp in found[: CANDIDATES if turned else 1]]
        for warp in (*tried, *(() if turned else (*starts, Shift(0.0, 0.0)))):
            try:
                better, seen = _tightened(pair, magnified(warp, 1.0 / factor), BANDS[0], rounds=3)
            except MatchError:
                continue
            if best is None or seen > best[0] * 1.1 + 1e-9:
                best = (seen, magnified(better, factor))
        if best is not None and best[0] > 3 * EVIDENCE and (turned or found[0][0] > CONVINCING):
            break
    if best is None:
        raise MatchError("the windows of the two images have too little in common to compare.")
    return best[1]


def _search(reference: Image, moving: Image, limit, turned):
    """Where the whole images correlate best, with the standard deviations by which each place stands out.

    turned : try turns and scales too. Returns [(deviations, warp)], best first, no two of them near each other.
    """
    factor = max(-(-max(image.shape) // SEARCH_PX) for image in (reference, moving))
    tails = _tails(reference, moving)
    ref, mov = (_evened(image.coarse(factor), tail) for image, tail in zip((reference, moving), tails))
    fixed, fixed_ok = describe(ref, BANDS[0])
    reach = int(np.ceil(limit / factor)) + 1
    lags = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    middle = (np.array(ref.shape) - 1) / 2
    found = []
    for scale in SCALES if turned else (1.0,):
        for degrees in DEGREES if turned else (0.0,):
            c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
            turn = np.array([[c, -s], [s, c]])
            inverse = np.linalg.inv(turn)
            ends = (np.array([(i, j) for i in (0, mov.shape[0]) for j in (0, mov.shape[1])]) - middle) @ inverse.T
            low = np.floor((ends + middle).min(axis=0)).astype(int)
            high = np.ceil((ends + middle).max(axis=0)).astype(int)
            seen = mov
            if degrees or scale != 1.0:
                grid = np.stack(np.mgrid[low[0] : high[0], low[1] : high[1]]).astype(float)
                rows, cols = np.einsum("ij,j...->i...", turn, grid - middle[:, None, None]) + middle[:, None, None]
                seen = resample(mov, rows, cols, "bilinear")
            if not np.isfinite(seen).any():
                continue
            free, free_ok = describe(seen, BANDS[0])
            search = (-reach - low[0], -reach - low[1], 2 * reach + 1, 2 * reach + 1)
            surface, shared = correlate(
                _centred(fixed, fixed_ok), fixed_ok, _centred(free, free_ok), free_ok, search, 0.3
            )
            surface = np.where(lags <= reach, surface * np.sqrt(shared / max(shared.max(), 1.0)), 0.0)
            spread = surface[lags <= reach].std()
            if not spread > 0:
                continue
            for _ in range(2 if turned else CANDIDATES):
                i, j = np.unravel_index(np.argmax(surface), surface.shape)
                lag = np.array([i, j]) - reach
                warp = Shift(*map(float, lag))
                if degrees or scale != 1.0:
                    warp = Affine(np.column_stack([turn, middle - turn @ (middle - lag)]))
                found.append((surface[i, j] / spread, warp))
                surface[max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4] = 0.0
    if not found:
        raise NothingToMatch("no valid pixels are left away from the gaps; the masks are too scattered.")
    kept = []
    for score, warp in sorted(found, key=lambda pair: -pair[0]):
        if all(distance_px(warp, other, ref.shape) > 6.0 for _, other in kept):
            kept.append((score, warp))
        if len(kept) == CANDIDATES:
            break
    return [(score, magnified(warp, factor)) for score, warp in kept]


def _centred(channels, valid):
    """Less the mean: a preferred orientation of the whole scene correlates at every lag."""
    mean = channels[:, valid].mean(axis=1) if valid.any() else np.zeros(len(channels), np.float32)
    return (channels - mean[:, None, None]) * valid


def _tightened(pair: _Pair, warp, scale, rounds=2, reach=REACH):
    """The warp that the windows agree on, and the evidence for it; searched anew around it `rounds` times."""
    centre = pair.windows.centre
    for _ in range(rounds):
        surfaces, shared = pair.surfaces(warp, reach, scale)
        offset, covariance, height, found = peaks(surfaces)
        use = found & (shared > 0.25)
        places = np.flatnonzero(use)
        if places.size < 3:
            raise MatchError(f"only {places.size} of {len(use)} windows could be compared; 3 are needed at the least.")
        inside = places[consensus(centre[places], (centre + offset)[places], height[places] ** 2)]
        agreed = _through(warp, centre, offset, covariance, inside, pair.shape)
        moved = np.stack(agreed.pull(*centre.T), 1) - np.stack(warp.pull(*centre.T), 1)
        seen, warp = quality.evidence(surfaces, shared, moved, ridge=0.75), agreed
        if np.abs(moved).max() < 0.5:
            break
    return warp, seen


def _through(warp, centre, offset, covariance, inside, shape):
    """Affine through the windows inside the consensus, a similarity or the mean shift where they are few."""
    target = np.stack(warp.pull(*(centre + offset).T), axis=1)
    error = covariance + np.eye(2) * 0.5**2
    use = np.zeros(len(centre), bool)
    use[inside] = True
    for model, need in (("affine", 10), ("similarity", 6)):
        if inside.size >= need:
            fitted = fit(model, centre, target, error, use=use, shape=shape)
            if fitted is not None and fitted.sigma_px < 1.0:
                return fitted.warp
    shift = (target - np.stack(warp.pull(*centre.T), axis=1))[inside].mean(axis=0) if inside.size else np.zeros(2)
    if isinstance(warp, Shift):
        return Shift(float(warp.dy + shift[0]), float(warp.dx + shift[1]))
    m = np.array(warp.matrix)
    m[:, 2] += shift
    return Affine(m)


def _refined(reference: Image, moving: Image, start, model, limit, seed) -> Match:
    """From a start within a few pixels to a measured match, or MatchError."""
    pair = _Pair.whole(reference, moving, start)
    best = None
    warp, seen = start, 0.0
    for scale in BANDS:
        # once the place is certain the other scales only have to say how well they measure it
        if seen < 2 * EVIDENCE:
            try:
                warp, seen = _tightened(pair, start, scale)
            except MatchError:
                continue
        points = _points(pair, warp, scale, REACH)
        fitted = _steady(points, pair.shape)
        if fitted is not None and (best is None or fitted.sigma_px < best[0]):
            best = (fitted.sigma_px, scale, fitted.warp, seen, points)
    if best is None:
        raise MatchError("fewer than 3 windows hold structure that both images show.")
    _, scale, warp, seen, points = best
    agreement = _agreement(points, warp)
    if seen < EVIDENCE or agreement < AGREEMENT:
        raise MatchError(
            f"no motion stands out: the best one scores {seen:.1f} standard deviations above wrong ones "
            f"({EVIDENCE:.1f} are needed), and its windows agree by {agreement:.1f} more than by chance "
            f"({AGREEMENT:.0f} are needed). The images may not show the same ground, or hold mostly noise."
        )
    for _ in range(4):
        points = _points(pair, warp, scale, 4)
        fitted = (
            _steady(points, pair.shape) if model in ("auto", "field") else _fit(model, points, points.use, pair.shape)
        )
        if fitted is None:
            raise MatchError(f"{int(points.use.sum())} tie points are too few for the model {model!r}.")
        moved = distance_px(fitted.warp, warp, pair.shape)
        warp = fitted.warp
        if moved < 1e-3:
            break
    coarse = pair, points
    if model in ("auto", "field"):
        pair, points = _bent(pair, points, warp, scale, model)
    kept, check = _split(points, seed)
    if model == "auto":
        # where the smaller windows spoke against a field it is not asked for again
        ladder = LADDER[:-1] if pair is coarse[0] else LADDER
        fitted = choose(points.at, points.found, points.covariance, use=kept, shape=pair.shape, ladder=ladder)
        if fitted.model != "field" and pair is not coarse[0]:
            # the larger windows measure a linear warp better
            pair, points = coarse
            kept, check = _split(points, seed)
            options = {"use": kept, "shape": pair.shape, "ladder": LADDER[:-1]}
            fitted = choose(points.at, points.found, points.covariance, **options)
    else:
        fitted = _fit(model, points, kept, pair.shape)
    if fitted is None:
        raise MatchError(f"{int(kept.sum())} tie points are too few for the model {model!r}.")
    return _judged(pair, scale, points, fitted, kept, check, limit)


def _split(points: Points, seed):
    """Which points are fitted, and which are held out to check the fit."""
    check = quality.check_points(points.use, seed)
    return points.use & ~check, check


def _agreement(points: Points, warp) -> float:
    """How many more windows were found where the warp puts them than chance would put there, standard deviations."""
    left = points.found - np.stack(warp.pull(*points.at.T), axis=1)
    near = np.hypot(*left[points.use].T) < AGREE_PX
    chance = np.pi * AGREE_PX**2 / (2 * REACH + 1) ** 2
    n = max(near.size, 1)
    return float((near.sum() - n * chance) / np.sqrt(n * chance * (1 - chance)))


def _points(pair: _Pair, warp, scale, reach) -> Points:
    """Tie points of every window around `warp`; their covariance with the scatter that the surfaces don't tell."""
    surfaces, shared = pair.surfaces(warp, reach, scale)
    offset, covariance, height, found = peaks(surfaces)
    reason = np.full(len(found), "", object)
    reason[~found] = "beyond the search or no peak"
    reason[~(np.trace(covariance, axis1=1, axis2=2) < 18.0) & found] = "no structure"
    reason[shared <= 0.25] = "masked or outside"
    use = reason == ""
    centre = pair.windows.centre
    rows, cols = warp.pull(*(centre + np.where(use[:, None], offset, 0.0)).T)
    jac = warp.jacobian(*centre.T)
    error = jac @ covariance @ jac.transpose(0, 2, 1) + np.eye(2) * FLOOR_PX**2
    error[~use] = np.eye(2)
    score = np.where(use, np.clip(height, 0.0, 1.0), 0.0)
    points = Points(centre, np.stack([rows, cols], 1), error, use, score, reason)
    fitted = _steady(points, pair.shape)
    return points if fitted is None else _with_scatter(points, fitted)


def _with_scatter(points: Points, fitted) -> Points:
    """What sensors show of one object lies apart (roof and foot, radar layover, a map's drawing): an error that all
    points have alike, estimated from the residuals, by the median of their length."""
    r, c = fitted.held_out[points.use], points.covariance[points.use]

    def length(scatter2):
        return float(np.median(np.einsum("ni,nij,nj->n", r, np.linalg.inv(c + np.eye(2) * scatter2), r)))

    low, high = 0.0, 9.0
    if length(0.0) > 2 * np.log(2):
        for _ in range(30):
            half = 0.5 * (low + high)
            low, high = (half, high) if length(half) > 2 * np.log(2) else (low, half)
    return Points(points.at, points.found, points.covariance + np.eye(2) * low, points.use, points.score, points.reason)


def _steady(points: Points, shape):
    """Affine where the points carry it, else a shift; None below three points."""
    if points.use.sum() < 3:
        return None
    for model in ("affine", "shift"):
        if model == "affine" and points.use.sum() < 8:
            continue
        fitted = _fit(model, points, points.use, shape)
        if fitted is not None and (model == "shift" or fitted.sigma_px < 1.0):
            return fitted
    return None


def _fit(model, points, use, shape, **options):
    return fit(model, points.at, points.found, points.covariance, use=use, shape=shape, **options)


def _bent(pair, points, warp, scale, model):
    """Points around a field where one is asked for or predicts left-out points better than an affine does.

    In smaller windows: within a window the displacement must be nearly constant. Else the points as they came.
    """
    smaller = pair.with_windows(windows_for(pair.shape, finer=True))
    finer = _points(smaller, warp, scale, REACH)
    for _ in range(3):
        enough = finer.use.sum() >= FIELD_POINTS
        field = _fit("field", finer, finer.use, pair.shape, bends=(0.3, 2.0)) if enough else None
        if field is None:
            return pair, points
        if model == "auto":
            linear = _fit("affine", finer, finer.use, pair.shape)
            if linear is not None and not beats(field, linear, finer.covariance, finer.use, pair.shape):
                return pair, points
        moved = distance_px(field.warp, warp, pair.shape)
        warp = field.warp
        finer = _points(smaller, warp, scale, 4)
        if moved < 0.05:
            break
    return smaller, finer


def _judged(pair: _Pair, scale, points: Points, fitted, kept, check, limit) -> Match:
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
    far = float(np.hypot(*np.median((np.stack([rows, cols], 1) - points.at)[in_fit], axis=0)))
    if far > limit:
        raise MatchError(f"the motion found is {far:.1f} px, beyond the {limit:.1f} px searched.")
    moved = distance_px(fitted.warp, Shift(0.0, 0.0), pair.shape)
    if moved > max(0.3, 4 * fitted.sigma_px):
        judge = in_check if in_check.sum() >= 3 else in_fit | in_check
        now, before = (pair.surfaces(w, 1, scale)[0][judge, 1, 1].mean() for w in (fitted.warp, Shift(0.0, 0.0)))
        if now <= before:
            raise MatchError(
                f"the warp found ({moved:.2f} px) is no better than no motion on held-out windows "
                f"(correlation {now:.3f} against {before:.3f})."
            )
    sigma = np.sqrt(np.trace(points.covariance, axis1=1, axis2=2) / 2 * fitted.factor)
    table = quality.point_table(points.at, points.found, fitted.residual, sigma, points.score, use, reason)
    return Match(
        warp=fitted.warp,
        covariance=fitted.covariance,
        score=float(np.median(points.score[in_fit])),
        rmse_px=quality.rms_length(fitted.residual, in_fit),
        n_points=int(in_fit.sum()),
        method="structure",
        tie_points=table,
        cv_px=quality.rms_length(fitted.residual, in_check),
    )
