"""Ecc: the warp of greatest correlation, over all pixels that both images show. The most precise within one sensor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from geoalign.errors import ConfigError, MatchError
from geoalign.kernels import ecc
from geoalign.kernels.fit import PARAMETERS, fit_model
from geoalign.kernels.phase import masked_correlation
from geoalign.kernels.refine import sample, spline
from geoalign.registration import quality
from geoalign.registration.orb import OrbMatcher
from geoalign.registration.phase import check_texture, first_limit, masked
from geoalign.registration.select import LADDER, choose, distance_px
from geoalign.registration.sift import SiftMatcher
from geoalign.registration.tiepoints import Image, Windows, block_mean, full_level, windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Projective, Shift, Warp

SCALES = (0.9, 2.0, 4.0)
"""Scales (px) of the structure compared. Below 0.9 aliasing takes over; the broader ones are for noisy images."""
CLEAN = 0.9
"""Correlation of the blocks above which the finest scale is not doubted."""
SMALLEST_PX, LARGEST_PX = 96, 1024
"""Sides of the coarsest and of the finest whole image of the pyramid; above are blocks at full resolution."""
EVIDENCE = 7.0
"""Standard deviations the correlation must stand above that of wrong lags; the best lag of noise reaches 3 to 5."""
FLOOR_PX = 0.001
"""Error of a shift that no amount of structure removes (aliasing, interpolation), an axis."""
FLOOR_SHARE = 0.3
"""Part of it that is left where the displacement runs through several pixels over the image: it goes by the fraction of
a pixel, and averages out."""
LOOSE_PX = 0.5
"""Predicted error over the image, an axis, above which there is no answer."""
STEPS = 20
"""Steps at full resolution at most; three or four are usual, more where the images are noisy."""


@dataclass(frozen=True)
class EccMatcher:
    """Correlation of two images, maximised over the parameters of a warp by Gauss-Newton steps, coarse to fine.

    Every pixel that both images show takes part, in blocks whose own brightness and contrast are free; masks of both
    images are looked at in every step. Starts are the best lag of the whole image, no motion, and the consensus of
    ORB, then SIFT features where neither convinces: rotations and scales are found without being told. Weak where
    brightness does not rise together in the two images (SAR against optical): MatchError there.

    model : shift, rigid, similarity, affine, projective, or auto: the simplest of shift, similarity and affine that
        held-out blocks allow
    max_shift_px : search as far as this; None = a fifth of the image

    Notes
    -----
    Enhanced correlation coefficient: Evangelidis and Psarakis (2008), doi:10.1109/TPAMI.2008.113. We differ in the
    gradient, taken of the reference so that noise does not pull towards whole pixels (inverse compositional: Baker and
    Matthews 2004, doi:10.1023/B:VISI.0000011205.11775.fd); in gain and level a block instead of one for the image; in
    Cauchy weights of pixels; and in the covariance, a jackknife over blocks, as neighbouring residuals are alike.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> ground = gaussian_filter(np.random.default_rng(0).normal(size=(140, 140)), 2)
    >>> found = EccMatcher("shift")(ground[:128, :128], ground[3:131, 2:130])
    >>> round(found.warp.dy, 3), round(found.warp.dx, 3)
    (-3.0, -2.0)
    """

    model: str = "auto"
    max_shift_px: float | None = None

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0, starts=()) -> Match:
        """Match two images that are read by tiles. `starts`: warps to try first."""
        if self.model not in ("auto", *PARAMETERS):
            raise ConfigError(f"ecc fits {', '.join(PARAMETERS)} or auto, not {self.model!r}; 'phase' does.")
        limit = first_limit(reference.shape, self.max_shift_px)
        pyramid = _pyramid(reference, moving)
        for name, image in zip(("reference", "moving image"), pyramid[-1][1:]):
            check_texture(image, name)
        model = "affine" if self.model == "auto" else self.model
        matrix = self._near(reference, moving, pyramid, model, limit, seed, starts)
        level = full_level(reference, moving, _warp(matrix, model))
        solved = _finest(level, matrix, model, reference.shape)
        if self.model == "auto":
            points = solved.points()
            simplest = choose(
                points.at, points.found, points.covariance, use=points.use, shape=reference.shape, ladder=LADDER[:-1]
            ).model
            if simplest != model:
                model = simplest
                solved = solved.blocks.maximise(_nearest(solved.matrix, model, reference.shape), model, STEPS)
        return _judged(solved, limit + pyramid[0][0], seed, reference.shape)

    def refined(self, reference: Image, moving: Image, start, *, seed=0) -> Match:
        """The answer next to a start that is known to be right within a fraction of a pixel: nothing is searched."""
        level = full_level(reference, moving, start)
        model = "affine" if self.model == "auto" else self.model
        limit = 2 * first_limit(reference.shape, self.max_shift_px)
        return _judged(_finest(level, _matrix(start), model, reference.shape), limit, seed, reference.shape)

    def _near(self, reference, moving, pyramid, model, limit, seed, starts):
        """From the most convincing start to a fraction of a pixel, (3, 3) in whole pixels; MatchError where none is."""
        factor, ref, mov = pyramid[-1]
        coarsest = _Blocks.whole(ref, mov, SCALES[0])
        broad = _Blocks.whole(ref, mov, SCALES[1])
        best, reasons = (0.0, None), []
        for candidates in (
            lambda: [_matrix(warp) for warp in starts],
            lambda: [_best_lag(coarsest, limit, factor), np.eye(3)],
            lambda: [_matrix(OrbMatcher(max_shift_px=self.max_shift_px).start(reference, moving, seed))],
            lambda: [_matrix(SiftMatcher(max_shift_px=self.max_shift_px).start(reference, moving, seed))],
        ):
            try:
                for candidate in candidates():
                    here = _scaled(candidate, 1.0 / factor)
                    for blocks in (broad, coarsest):
                        try:
                            here = blocks.maximise(here, model, 12, 1e-2).matrix
                        except MatchError:
                            continue
                    best = max(best, (coarsest.evidence(here), here), key=lambda pair: pair[0])
                    if best[0] > 2 * EVIDENCE:
                        break
            except MatchError as reason:
                reasons.append(str(reason))
            if best[0] > EVIDENCE:
                break
        if best[0] < EVIDENCE:
            tried = f" Features: {reasons[-1]}" if reasons else ""
            raise MatchError(
                f"no warp stands out: the best one correlates {best[0]:.1f} standard deviations above wrong lags, "
                f"{EVIDENCE:.0f} are needed. The images may not show the same ground, or not alike.{tried}"
            )
        here = best[1]
        for finer, ref, mov in pyramid[-2::-1]:
            here = _scaled(here, factor / finer)
            if finer > 1:
                here = _Blocks.whole(ref, mov, SCALES[0]).maximise(here, model, 8, 1e-2).matrix
            factor = finer
        return _scaled(here, float(factor))


@dataclass(frozen=True)
class _Points:
    """Blocks as tie points, (n, ...): px, and whether the block can be used."""

    at: np.ndarray
    found: np.ndarray
    covariance: np.ndarray
    left: np.ndarray
    use: np.ndarray


@dataclass(frozen=True)
class _Solved:
    """A warp, and what the blocks say under it."""

    blocks: _Blocks
    model: str
    matrix: np.ndarray
    fits: dict
    counts: np.ndarray
    normal: np.ndarray  # (n, k, k), (n, k): of the model's own parameters
    right: np.ndarray
    robust: np.ndarray
    response: float  # the part of a displacement that one step answers with

    @property
    def warp(self) -> Warp:
        return _warp(self.matrix, self.model)

    def points(self) -> _Points:
        b, warp = self.blocks, self.warp
        left = np.where(self.fits["good"][:, None], self.fits["left"], 0.0) / self.response
        use = self.fits["good"] & (self.counts >= 0.25 * b.windows.size**2) & (np.abs(left).max(axis=1) < 3)
        at = np.where(use[:, None], b.centre + b.size * self.fits["middle"], b.windows.centre)
        left = np.where(use[:, None], left, 0.0)
        found = np.stack(warp.pull(*(at + left).T), axis=1)
        jac = warp.jacobian(*at.T)
        own = np.where(use[:, None, None], self.fits["covariance"], np.eye(2)) / self.response**2
        covariance = jac @ own @ jac.transpose(0, 2, 1) + np.eye(2) * FLOOR_PX**2
        return _Points(at, found, covariance, found - np.stack(warp.pull(*at.T), axis=1), use)

    def covariance(self):
        """Of the warp's parameters as `Match` wants it."""
        own = ecc.jackknife(self.normal, self.right)
        if own is None:
            raise MatchError(f"the blocks that hold structure do not span the model {self.model!r}.")
        own = own / self.response**2
        free = ecc.basis(self.model)
        shift = free.T[:, [2, 5]]
        own = own + self._floor_px() ** 2 * shift @ shift.T
        keep = [2, 5] if self.model == "shift" else list(range(8 if self.model == "projective" else 6))
        b, h = self.blocks, 1e-4

        def flat(q):
            return ecc.stepped(self.model, self.matrix, free @ q, b.centre, b.size).ravel()[keep]

        jac = np.stack([(flat(q) - flat(-q)) / (2 * h) for q in np.eye(len(own)) * h], axis=1)
        return jac @ own @ jac.T

    def _floor_px(self) -> float:
        """Error that aliasing leaves in the warp as a whole, an axis."""
        rows, cols = np.meshgrid(*(np.linspace(0, n - 1, 3) for n in self.blocks.shape), indexing="ij")
        away = np.stack(self.warp.pull(rows, cols)) - np.stack([rows, cols])
        return FLOOR_PX * max(1.0 / (1.0 + float(np.ptp(away, axis=(1, 2)).max())), FLOOR_SHARE)


@dataclass
class _Blocks:
    """Two images at one resolution and scale of structure, in blocks: tiles (one for all where held whole)."""

    windows: Windows
    ref: list  # (values, valid) a block
    ref_at: np.ndarray
    mov: list  # (spline coefficients, valid) a block
    mov_at: np.ndarray
    shape: tuple
    centre: np.ndarray = field(init=False)
    size: float = field(init=False)

    def __post_init__(self):
        self.centre = (np.array(self.shape) - 1) / 2
        self.size = max(self.shape) / 2

    @classmethod
    def whole(cls, ref, mov, scale):
        windows = windows_for(ref.shape)
        n = len(windows.start)
        return cls.of(windows, [ref] * n, np.zeros((n, 2), int), [mov] * n, np.zeros((n, 2), int), scale, ref.shape)

    @classmethod
    def of(cls, windows, ref, ref_at, mov, mov_at, scale, shape):
        known = {}
        for which, tiles in (("ref", ref), ("mov", mov)):
            for tile in tiles:
                if (which, id(tile)) not in known:
                    values, valid = ecc.structure(tile, scale, 4 * scale)
                    known[which, id(tile)] = (values if which == "ref" else spline(values), valid)
        pairs = ([known[which, id(tile)] for tile in tiles] for which, tiles in (("ref", ref), ("mov", mov)))
        return cls(windows, next(pairs), ref_at, next(pairs), mov_at, shape)

    @property
    def one_tile(self) -> bool:
        """Whether the images are held whole: one tile of each serves all blocks."""
        same = all(all(tile is tiles[0] for tile in tiles) for tiles in (self.ref, self.mov))
        return same and not self.ref_at.any() and not self.mov_at.any()

    def look(self, matrix, model, robust) -> _Solved:
        """What the blocks say under a warp."""
        order, side = 8 if model == "projective" else 6, self.windows.size
        if self.one_tile:
            moments, counts = ecc.blocks_moments(
                *self.ref[0], self.windows.start, side, side, *self.mov[0], np.ascontiguousarray(matrix), self.centre,
                self.size, order, robust,
            )  # fmt: skip
        else:
            moments, counts = self._of_tiles(matrix, order, side, robust)
        fits = ecc.block_fit(moments, counts)
        normal, right = ecc.pooled(moments, fits)
        free = ecc.basis(model)[:order]
        return _Solved(self, model, matrix, fits, counts, free.T @ normal @ free, right @ free, robust, 1.0)

    def _of_tiles(self, matrix, order, side, robust):
        """`ecc.blocks_moments`, each block in its own tiles."""
        n = len(self.ref)
        moments, counts = np.zeros((n, order + 3, order + 3)), np.zeros(n)
        for k in range(n):
            at = np.eye(3), np.eye(3)
            at[0][:2, 2], at[1][:2, 2] = self.ref_at[k], -self.mov_at[k]
            r, c = self.windows.start[k] - self.ref_at[k]
            moments[k], counts[k] = ecc.block_moments(
                *self.ref[k], r, c, side, side, *self.mov[k], at[1] @ matrix @ at[0],
                self.centre - self.ref_at[k], self.size, order, robust[k],
            )  # fmt: skip
        return moments, counts

    def maximise(self, matrix, model, steps, tolerance=1e-3, robust=None) -> _Solved:
        """Gauss-Newton steps until one moves the image by less than `tolerance` px, or by little of its error.

        Steps are too short by a common factor where the reference is noisy; the ratio of one step to the next tells it.
        """
        n = len(self.ref)
        robust = np.tile([0.0, 0.0, np.inf], (n, 1)) if robust is None else robust
        free, before, stretch = ecc.basis(model), None, 1.0
        for _ in range(steps):
            seen = self.look(matrix, model, robust)
            q, _ = ecc.solve(seen.normal.sum(axis=0), seen.right.sum(axis=0))
            if q is None or seen.fits["good"].sum() < 3:
                raise MatchError(f"{int(seen.fits['good'].sum())} blocks hold structure that both images show.")
            if before is not None and stretch == 1.0:
                ratio = float(before @ q) / max(float(before @ before), 1e-300)
                stretch = float(np.clip(1 / (1 - ratio), 1.0, 6.0)) if 0.3 < ratio < 0.95 else 1.0
            moved = ecc.displacement(free @ q)
            # a step beyond the reach of the gradient is only a direction
            q = q * stretch * min(1.0, 3.0 / max(moved, 1e-9))
            matrix = ecc.stepped(model, matrix, free @ q, self.centre, self.size)
            robust = np.stack([seen.fits["level"], seen.fits["gain"], np.sqrt(seen.fits["variance"])], axis=1)
            robust[~seen.fits["good"]] = 0.0, 0.0, np.inf
            before = q
            if moved < tolerance:
                break
        return self.look(matrix, model, robust)

    def evidence(self, matrix, reach=12) -> float:
        """How far the correlation under a warp stands out from that of lags around it, in standard deviations."""
        (values, valid), (coef, ok) = self.ref[0], self.mov[0]
        rows, cols = np.mgrid[0 : self.shape[0], 0 : self.shape[1]].astype(float)
        rows, cols = _warp(matrix, "projective").pull(rows, cols)
        found, seen = (v.reshape(values.shape) for v in sample(coef, ok, rows.ravel(), cols.ravel()))
        side = 2 * reach + 1
        surface, shared = masked_correlation(values, valid, found, seen, (-reach, -reach, side, side), 0.3)
        if shared[reach, reach] < 0.1 * values.size:
            return 0.0
        lags = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
        peak, wrong = float(surface[lags <= 1.5].max()), surface[lags > 4]
        return peak / max(float(wrong.std()), 1e-9) if peak > wrong.max() else 0.0


def _finest(level, matrix, model, shape) -> _Solved:
    """The solution at full resolution, on the scale of structure whose own error is the least."""
    best = None
    for scale in SCALES:
        blocks = _Blocks.of(level.windows, level.ref, level.ref_at, level.mov, level.mov_at, scale, shape)
        try:
            solved = blocks.maximise(matrix if best is None else best[1].matrix, model, STEPS)
            sigma = _sigma(solved, shape)
        except MatchError:
            if best is None and scale == SCALES[-1]:
                raise
            continue
        if best is None or sigma < best[0]:
            best = (sigma, solved)
        elif best is not None:
            break
        if np.median(solved.fits["correlation"][solved.fits["good"]]) > CLEAN:
            break
    return best[1]


def _sigma(solved, shape):
    rows, cols = (v.ravel() for v in np.meshgrid(*(np.linspace(0, n - 1, 9) for n in shape)))
    match = Match(solved.warp, solved.covariance(), 0.0, 0.0, 0, "", None)
    return float(np.sqrt((match.sigma_px(rows, cols) ** 2).mean()))


def _judged(solved, limit, seed, shape) -> Match:
    """The Match, or MatchError where blocks held out do not bear the warp out."""
    solved = _with_response(solved)
    points, blocks = solved.points(), solved.blocks
    if points.use.sum() < 3:
        raise MatchError(f"{int(points.use.sum())} of {len(points.use)} blocks could be compared; 3 are needed.")
    sigma = _sigma(solved, shape)
    if not sigma < LOOSE_PX:
        raise MatchError(f"the warp found is uncertain by {sigma:.2f} px; {LOOSE_PX} px are allowed.")
    far = float(np.hypot(*np.median(points.found - points.at, axis=0)))
    if far > limit:
        raise MatchError(f"the motion found is {far:.1f} px, beyond the {limit:.1f} px searched.")
    check = quality.check_points(points.use, seed)
    judge = check if check.sum() >= 3 else points.use
    moved = distance_px(solved.warp, Shift(0.0, 0.0), shape)
    alike = solved.fits["correlation"]
    if moved > max(0.3, 4 * sigma):
        still = blocks.look(np.eye(3), solved.model, np.tile([0.0, 0.0, np.inf], (len(check), 1))).fits["correlation"]
        if alike[judge].mean() <= still[judge].mean():
            raise MatchError(
                f"the warp found ({moved:.2f} px) is no better than no motion on held-out blocks "
                f"(correlation {alike[judge].mean():.3f} against {still[judge].mean():.3f})."
            )
    residual = points.left.copy()
    apart, _ = ecc.solve(solved.normal[~check].sum(axis=0), solved.right[~check].sum(axis=0))
    if check.any() and apart is not None:
        without = ecc.stepped(
            solved.model, solved.matrix, ecc.basis(solved.model) @ apart / solved.response, blocks.centre, blocks.size
        )
        residual[check] = (points.found - np.stack(_warp(without, solved.model).pull(*points.at.T), axis=1))[check]
    length2 = np.einsum("ni,nij,nj->n", residual, np.linalg.inv(points.covariance), residual)
    factor = max(float(np.median(length2[points.use])) / 1.386, 1e-12)
    use = np.where(check, "check", np.where(points.use, "fit", "rejected")).astype(object)
    reason = np.where(points.use, "", np.where(solved.fits["good"], "masked or outside", "no structure")).astype(object)
    outlier = points.use & (length2 > factor * 36.0)
    use[outlier], reason[outlier] = "rejected", "outlier"
    in_fit = use == "fit"
    if in_fit.sum() < 3:
        raise MatchError(f"only {int(in_fit.sum())} blocks agree on a warp; 3 are needed at the least.")
    own = np.sqrt(np.trace(points.covariance, axis1=1, axis2=2) / 2 * factor)
    score = np.where(points.use, np.clip(alike, 0.0, 1.0), 0.0)
    table = quality.point_table(points.at, points.found, residual, own, score, use, reason)
    return Match(
        warp=solved.warp,
        covariance=solved.covariance(),
        score=float(np.median(score[in_fit])),
        rmse_px=quality.rms_length(residual, in_fit),
        n_points=int(in_fit.sum()),
        method="ecc",
        tie_points=table,
        cv_px=quality.rms_length(residual, use == "check"),
    )


def _with_response(solved, probe=0.3) -> _Solved:
    """The same with its response measured: the blocks are asked again with the warp displaced by `probe` px."""
    shift = np.eye(3)
    shift[:2, 2] = probe
    there = solved.blocks.look(solved.matrix @ shift, solved.model, solved.robust)
    q = (ecc.solve(s.normal.sum(axis=0), s.right.sum(axis=0))[0] for s in (there, solved))
    change = [ecc.basis(solved.model) @ v for v in q if v is not None]
    if len(change) < 2:
        return solved
    answer = (change[1] - change[0])[[2, 5]].mean() / probe
    return replace(solved, response=float(np.clip(answer, 0.1, 1.2)))


def _pyramid(reference, moving):
    """(factor, reference, moving) from fine to coarse; the finest of small images is the image itself."""
    side = max(*reference.shape, *moving.shape)
    factor = 1
    while side > LARGEST_PX * factor:
        factor *= 2
    images = [reference.coarse(factor), moving.coarse(factor)]
    levels, k = [(factor, *images)], 1
    while min(reference.shape) >= SMALLEST_PX * factor * 2 * k:
        k *= 2
        levels.append((factor * k, *(block_mean(image, k) for image in images)))
    return levels


def _best_lag(blocks, limit, factor):
    """The lag of greatest masked correlation of two coarse images, (3, 3) in whole pixels."""
    (values, valid), (coef, ok) = blocks.ref[0], blocks.mov[0]
    grid = (v.ravel().astype(float) for v in np.mgrid[0 : ok.shape[0], 0 : ok.shape[1]])
    moving = sample(coef, ok, *grid)[0].reshape(ok.shape)
    reach = int(np.ceil(limit / factor)) + 1
    side = 2 * reach + 1
    surface, _ = masked_correlation(values, valid, moving, ok, (-reach, -reach, side, side), 0.3)
    lags = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) * factor
    surface[lags > limit + factor] = 0.0
    i, j = np.unravel_index(np.argmax(surface), surface.shape)
    out = np.eye(3)
    out[:2, 2] = (i - reach) * factor, (j - reach) * factor
    return out


def _matrix(warp):
    out = np.eye(3)
    if isinstance(warp, Shift):
        out[:2, 2] = warp.dy, warp.dx
        return out
    out[: len(warp.matrix)] = warp.matrix
    return out


def _warp(matrix, model) -> Warp:
    if model == "shift":
        return Shift(float(matrix[0, 2]), float(matrix[1, 2]))
    return Projective(matrix) if model == "projective" else Affine(matrix[:2])


def _scaled(matrix, scale):
    """The same warp in pixels `1 / scale` times as large: centres map by p -> (p + 0.5) * scale - 0.5."""
    to = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5], [0, 0, 1]])
    out = to @ matrix @ np.linalg.inv(to)
    return out / out[2, 2]


def _nearest(matrix, model, shape):
    """The warp of a simpler model that is nearest over an image."""
    grid = np.stack([v.ravel() for v in np.meshgrid(*(np.linspace(0, n - 1, 5) for n in shape), indexing="ij")], 1)
    found = np.stack(_warp(matrix, "projective").pull(*grid.T), axis=1)
    unit = np.broadcast_to(np.eye(2), (len(grid), 2, 2))
    return fit_model(model, grid, found, unit)["matrix"]
