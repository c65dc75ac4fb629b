"""Mutual information: the warp under which one image says most about the other. For pairs of different sensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import chi2

from geoalign.errors import ConfigError, MatchError
from geoalign.kernels import mutual_information as kernel
from geoalign.kernels.fit import tukey
from geoalign.kernels.resample import resample
from geoalign.registration import quality
from geoalign.registration.phase import check_texture, first_limit, magnified, masked
from geoalign.registration.select import distance_px
from geoalign.registration.tiepoints import Image, block_mean, cut, windows_for
from geoalign.types.alignment import Match
from geoalign.types.warp import Affine, Shift

SEARCH_PX = 160
"""Longest side of the image in which the first search runs."""
EVIDENCE_PX = 320
"""Longest side of the image in which a candidate is judged."""
CLASSES = 8
"""Classes of intensity of either image in the first search."""
TURNS = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)
"""Degrees and scales searched where a shift alone does not convince."""
RING = (4.0, 7.0)
"""Wrong positions a match is compared with lie so far from it, px."""
EVIDENCE = 7.0
"""Standard deviations the information must stand above that of wrong positions."""
SMOOTHING = (0.4, 0.8, 1.4)
"""Smoothing of the interpolated image (px, Gaussian) to choose among: the least quiets aliasing, more is for noise."""
CELLS = 4
"""Cells along an axis of a block: what the scatter of scores is taken over."""
ALIKE_PX = 0.7
"""Smoothing of both images, px, where neither is much noisier than the other."""
FLOOR_PX = 0.0003
"""Error of a shift that no amount of structure removes (aliasing, interpolation), an axis."""
SIMPLER = 0.99
"""A simpler model is preferred where the affine's departure from it is within this quantile of its own error."""


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
        pyramid = _Pyramid(images, swap, seed)
        warp = self._near(pyramid, limit / base, [magnified(w, 1 / base) for w in starts])
        if base == 1:
            pair = _Pair.whole(*pyramid.ordered(1), self.samples, seed, 0.0, alike)
        else:
            warp = magnified(warp, base)
            pair = _Pair.tiled(*((moving, reference) if swap else (reference, moving)), warp, seed, alike)
        return self._finish(pair, warp, swap, reference.shape, limit + base, seed)

    def _near(self, pyramid, limit, starts):
        """The most convincing start, brought to the finest level of the pyramid; as lattice -> interpolated."""
        best = None
        for warps in pyramid.candidates(limit, starts, turned=self.model != "shift", scaled=self.model != "rigid"):
            for warp in warps:
                if self.model == "rigid":
                    warp = _as_model(warp, "rigid", pyramid.shape)
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
        pair, warp = _best_smoothing(pair, warp, self.model)
        model = "affine" if self.model == "auto" else self.model
        warp = pair.climb(warp, model, close=3e-4)
        answer = _Answer.at(pair, warp, model)
        if self.model == "auto":
            simple = answer.simplest()
            if simple != model:
                warp = pair.climb(_as_model(warp, simple, pair.shape), simple, close=3e-4)
                answer = _Answer.at(pair, warp, simple)
        return answer.match(swap, shape, limit, seed)


def _shift_tangent(b):
    return np.array([[0, 0], [0, 0], [1, 0], [0, 0], [0, 0], [0, 1]], float)


def _rigid_tangent(b):
    turn = np.array([-b[1, 0], -b[1, 1], 0, b[0, 0], b[0, 1], 0]) / np.hypot(b[0, 0], b[1, 0])
    return np.column_stack([turn, _shift_tangent(b)])


def _similarity_tangent(b):
    return np.column_stack([[1, 0, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0], _shift_tangent(b)]).astype(float)


def _affine_tangent(b):
    return np.eye(6)


TANGENTS = {
    "shift": _shift_tangent,
    "rigid": _rigid_tangent,
    "similarity": _similarity_tangent,
    "affine": _affine_tangent,
}
"""Models, and the directions (6, k) in which they may change the six numbers of an affine about the centre."""


def _matrix(warp):
    return np.array([[1, 0, warp.dy], [0, 1, warp.dx]]) if isinstance(warp, Shift) else np.array(warp.matrix)


def _centred(matrix, centre, size):
    """The affine on ((row, col) - centre) / size."""
    return np.column_stack([matrix[:, :2] * size, matrix[:, :2] @ centre + matrix[:, 2]])


def _plain(b, centre, size):
    a = b[:, :2] / size
    return np.column_stack([a, b[:, 2] - a @ centre])


def _to_model(b, model, size):
    """The nearest centred affine of a model."""
    b = b.copy()
    if model == "shift":
        b[:, :2] = np.eye(2) * size
    elif model in ("similarity", "rigid"):
        p, q = 0.5 * (b[0, 0] + b[1, 1]), 0.5 * (b[1, 0] - b[0, 1])
        if model == "rigid":
            p, q = (v * size / np.hypot(p, q) for v in (p, q))
        b[:, :2] = [[p, -q], [q, p]]
    return b


def _as_model(warp, model, shape):
    centre, size = _frame(shape)
    return Affine(_plain(_to_model(_centred(_matrix(warp), centre, size), model, size), centre, size))


def _frame(shape):
    centre = (np.array(shape) - 1) / 2
    return centre, float(np.hypot(*centre))


def _roughness(image):
    """How much of an image is noise from pixel to pixel: the spread of its second differences over its own."""
    lap = image[1:-1, 1:-1] - 0.25 * (image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:])
    lap = lap[np.isfinite(lap)]
    a, b = np.nanquantile(image, (0.1, 0.9))
    return float(np.median(np.abs(lap)) / (b - a)) if lap.size and b > a else 0.0


def _drawn(image, rows, cols, alike, rng):
    """Lattice samples at some pixels: (rows, cols, values).

    Images that are alike share their aliasing, and what interpolation does to either depends on where between the
    pixels it falls: both would draw the answer towards or from whole pixels. A mild smoothing of both takes most of it
    away, and samples at random places between the pixels the rest.
    """
    if not alike:
        return rows.astype(float), cols.astype(float), image[rows, cols]
    smooth = kernel.smoothed(image, ALIKE_PX)
    values = smooth[rows, cols]
    coef, ok = kernel.spline_image(smooth, *(np.quantile(values, (0.001, 0.999)) if values.size else (0, 0)), ALIKE_PX)
    # a lattice of irrational steps fills the pixel evenly wherever one looks; chance would leave clumps
    u, v = (rows[:, None] * [0.8191725134, 0.5497004779] + cols[:, None] * [0.6710436067, 0.7548776662]).T
    rows, cols = (at + (w + rng.uniform()) % 1.0 - 0.5 for at, w in ((rows, u), (cols, v)))
    out = np.empty((rows.size, 3))
    kernel.interpolate(coef, ok, 0, 0, rows, cols, np.eye(2, 3), out)
    good = np.isfinite(out[:, 0])
    return rows[good], cols[good], out[good, 0]


@dataclass
class _Pair:
    """A lattice image and an interpolated one at one resolution, prepared: what can be asked is `at` a warp.

    level : (n,) bins of the lattice's samples at rows, cols (n,); cell : (n,) which of n_cell cells each lies in
    grid : (row, col) cells, CELLS x CELLS of which are a block; None where cells lie apart and are blocks themselves
    tiles : of the interpolated image, (coefficients, ok, top, left, first sample, end), one for all or one a block
    """

    level: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    cell: np.ndarray
    n_cell: int
    grid: tuple | None
    shape: tuple
    raw: list
    bins: int
    smooth: float = 0.0
    tiles: list = field(default_factory=list)
    low: float = 0.0
    width: float = 1.0

    @classmethod
    def whole(cls, lattice, interpolated, samples, seed, smooth=0.0, alike=False):
        rows, cols = np.nonzero(np.isfinite(lattice))
        rng = np.random.default_rng(seed)
        every = int(np.ceil(np.sqrt(rows.size / samples)))
        if every > 1:
            # one pixel anywhere in each cell
            rows, cols = (v.ravel() for v in np.mgrid[0 : lattice.shape[0] : every, 0 : lattice.shape[1] : every])
            rows, cols = rows + rng.integers(0, every, rows.size), cols + rng.integers(0, every, cols.size)
            inside = (rows < lattice.shape[0]) & (cols < lattice.shape[1])
            rows, cols = rows[inside], cols[inside]
            inside = np.isfinite(lattice[rows, cols])
            rows, cols = rows[inside], cols[inside]
        rows, cols, values = _drawn(lattice, rows, cols, alike, rng)
        grid = tuple(CELLS * int(np.clip(n // (48 if n >= 384 else 20), 1, 16)) for n in lattice.shape)
        i, j = (np.clip((v * m / n).astype(int), 0, m - 1) for v, m, n in zip((rows, cols), grid, lattice.shape))
        raw = [(interpolated, 0, 0, 0, rows.size)]
        places = rows, cols, i * grid[1] + j, grid[0] * grid[1], grid
        return cls._made(values, *places, lattice.shape, raw, smooth, alike)

    @classmethod
    def tiled(cls, lattice: Image, interpolated: Image, warp, seed, alike):
        """Samples in windows of a lattice image too large to be held, and the other's tiles where `warp` leads them."""
        windows = windows_for(lattice.shape)
        tiles, tiles_at = cut(lattice, windows.start, windows.start + windows.size)
        rows, cols = warp.pull(*windows.grid())
        low = np.floor(np.stack([rows.min(axis=(1, 2)), cols.min(axis=(1, 2))], axis=1)).astype(int)
        high = np.ceil(np.stack([rows.max(axis=(1, 2)), cols.max(axis=(1, 2))], axis=1)).astype(int) + 1
        others, others_at = cut(interpolated, low, high)
        rng = np.random.default_rng(seed)
        parts, raw, n = [], [], 0
        for k, (first, at) in enumerate(zip(windows.start - tiles_at, tiles_at)):
            box = tuple(slice(v, v + windows.size) for v in first)
            i, j = np.nonzero(np.isfinite(tiles[k][box]))
            i, j, values = _drawn(tiles[k], i + first[0], j + first[1], alike, rng)
            parts.append((values, i + at[0], j + at[1], np.full(i.size, k)))
            raw.append((others[k], *others_at[k], n, n + i.size))
            n += i.size
        values, *places = (np.concatenate(part) for part in zip(*parts))
        return cls._made(values, *places, len(tiles), None, lattice.shape, raw, SMOOTHING[0], alike)

    @classmethod
    def _made(cls, values, rows, cols, cell, n_cell, grid, shape, raw, smooth, alike):
        if values.size < 256:
            raise MatchError("fewer than 256 pixels are left to compare.")
        bins = int(np.clip(round(values.size ** (1 / 3)), 16, 64))
        kinds = ((rows, np.float64), (cols, np.float64), (cell, np.int32))
        rows, cols, cell = (np.ascontiguousarray(v, kind) for v, kind in kinds)
        pair = cls(kernel.ranks(values, bins), rows, cols, cell, n_cell, grid, shape, raw, bins)
        return pair.smoothed(max(smooth, ALIKE_PX) if alike else smooth)

    def smoothed(self, sigma):
        """The same with the interpolated image smoothed by a Gaussian of `sigma` px."""
        images = [kernel.smoothed(tile, sigma) for tile, *_ in self.raw]
        seen = np.concatenate([image[np.isfinite(image)][:: max(1, len(images) // 16)] for image in images])
        if seen.size < 256:
            raise MatchError("fewer than 256 pixels are left to compare.")
        low, width = kernel.bin_range(seen, self.bins)
        if not width > 0:
            raise MatchError("one of the images is flat but for a few pixels: nothing to match.")
        ends = low + 2 * width, low + (self.bins - 3) * width
        tiles = [(*kernel.spline_image(image, *ends, sigma), *rest) for image, (_, *rest) in zip(images, self.raw)]
        return replace(self, smooth=sigma, tiles=tiles, low=low, width=width)

    def thinned(self, every):
        """Every so-many-th sample, for a rough look."""
        keep = np.zeros(self.level.size, bool)
        keep[::every] = True
        ends = np.concatenate([[0], np.cumsum(keep)])
        return replace(
            self,
            **{name: getattr(self, name)[keep] for name in ("level", "rows", "cols", "cell")},
            raw=[(*rest, int(ends[a]), int(ends[b])) for *rest, a, b in self.raw],
            tiles=[(*rest, int(ends[a]), int(ends[b])) for *rest, a, b in self.tiles],
        )

    def values(self, matrix):
        """(n, 3) value and gradient of the interpolated image at the samples."""
        out = np.empty((self.level.size, 3))
        for coef, ok, top, left, a, b in self.tiles:
            kernel.interpolate(coef, ok, top, left, self.rows[a:b], self.cols[a:b], matrix, out[a:b])
        return out

    def at(self, matrix):
        """(information in nats, samples used, the values and the joint histogram it came from, tables)."""
        values = self.values(matrix)
        joint, count = kernel.joint_histogram(self.level, values, self.low, self.width, self.bins, self.bins)
        if count < 256 or count < 0.1 * self.level.size:
            raise MatchError(f"only {count} of {self.level.size} pixels are seen in both images.")
        information, *rest = kernel.tables(joint)
        return information, count, values, joint, rest

    def scores(self, values, rest):
        centre, size = _frame(self.shape)
        places = self.rows, self.cols, self.cell, self.n_cell
        return kernel.scores(self.level, values, *places, *rest, self.low, self.width, centre, size)

    def climb(self, warp, model, *, close, steps=12, most=2.0):
        """The warp of a model at the nearest maximum of information, to `close` px.

        Steps solve with the curvature expected of the histogram; a step that gains nothing is halved.
        """
        centre, size = _frame(self.shape)
        b = _to_model(_centred(_matrix(warp), centre, size), model, size)
        here = self.at(_plain(b, centre, size))
        pull, step, response = None, None, 1.0
        for _ in range(steps):
            gradient, curvature, _ = self.scores(here[2], here[4])
            tangent = TANGENTS[model](b)
            normal = tangent.T @ curvature @ tangent
            now_pull = tangent.T @ gradient.sum(axis=0)
            if pull is not None:
                # how much of what the last step should have changed did change
                response = float(np.clip((pull - now_pull) @ step / (step @ normal @ step), 0.3, 2.0))
            pull = now_pull
            step = _solved(normal, pull) / response
            length = float(np.abs(step).max())
            step *= min(1.0, most / max(length, 1e-12))
            for _ in range(4):
                there = _to_model(b + (tangent @ step).reshape(2, 3), model, size)
                now = self.at(_plain(there, centre, size))
                # for the last bit the gradient knows better: samples that enter and leave at the edges shake the sum
                if now[0] >= here[0] or np.abs(step).max() < 0.1:
                    break
                step = step / 2
            else:
                break
            b, here = there, now
            if np.abs(step).max() < close:
                break
        return Affine(_plain(b, centre, size))

    def evidence(self, warp):
        """How far the information at a warp stands above that at wrong positions around it, in standard deviations.

        How much the information of a block varies among wrong positions is its error; blocks are independent.
        """
        matrix = _matrix(warp)
        total, count = self._by_block(matrix)
        mean = []
        for k, radius in enumerate(RING):
            for turn in (np.arange(8) + 0.5 * k) * np.pi / 4:
                aside = matrix.copy()
                aside[:, 2] += radius * np.array([np.sin(turn), np.cos(turn)])
                here, used = self._by_block(aside)
                mean.append(np.where(used > 32, here / np.maximum(used, 1), np.nan))
        mean = np.array(mean)
        good = (count > 32) & np.isfinite(mean).all(axis=0)
        if good.sum() < 6:
            return 0.0
        mean, total, count = mean[:, good], total[good], count[good]
        spread = np.sqrt((mean.var(axis=0, ddof=1) * count**2).sum() * (1 + 1 / len(mean)))
        # along the crests of waves and furrows other positions tell as much: nothing is known about that direction
        if total.sum() - (mean @ count).max() <= quality.RIDGE * spread:
            return 0.0
        return float((total.sum() - (mean @ count).mean()) / spread)

    def _by_block(self, matrix):
        _, _, values, joint, _ = self.at(matrix)
        parts = kernel.by_block(self.level, values, self.cell, self.n_cell, joint, self.low, self.width)
        return tuple(self.blocks(part) for part in parts)

    def blocks(self, sums):
        """Sums over blocks of sums over cells."""
        if self.grid is None:
            return sums
        parts = sums.reshape(self.grid[0] // CELLS, CELLS, self.grid[1] // CELLS, CELLS, -1).sum(axis=(1, 3))
        return parts.reshape(-1, *sums.shape[1:])


def _solved(normal, right):
    d = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    scaled = normal / d[:, None] / d[None, :]
    if not np.isfinite(scaled).all() or np.linalg.eigvalsh(scaled)[0] < 1e-9:
        raise MatchError(
            "what the images share does not span the model: too little structure, or in one direction only."
        )
    return np.linalg.solve(scaled, right / d) / d


class _Pyramid:
    """Both images at halved resolutions, from where a search finds a motion to where it is judged.

    Warps here lead from the lattice image to the interpolated one, in pixels of the images given.
    """

    def __init__(self, images, swap, seed):
        self.images, self.swap, self.seed = images, swap, seed
        self.shape = images[1 if swap else 0].shape
        top = 1
        while max(max(image.shape) for image in images) / top > SEARCH_PX:
            top *= 2
        self.factors = [f for f in (64, 32, 16, 8, 4, 2, 1) if f <= top]
        self._pairs = {}

    def ordered(self, factor):
        """(lattice, interpolated) image at one resolution."""
        images = [block_mean(image, factor) for image in self.images]
        return images[::-1] if self.swap else images

    def pair(self, factor):
        if factor not in self._pairs:
            self._pairs[factor] = _Pair.whole(*self.ordered(factor), 200_000, self.seed, ALIKE_PX)
        return self._pairs[factor]

    def candidates(self, limit, starts, turned, scaled):
        """Lists of warps to try, likeliest first: what is given and what a shift explains; then turns and scales."""
        top = self.factors[0]
        lattice, interpolated = (kernel.smoothed(image, 1.0) for image in self.ordered(top))
        reach = int(np.ceil(limit / top)) + 1
        classes = kernel.class_image(lattice, CLASSES)
        first = [w.inverse() if self.swap else w for w in starts]
        peak, _ = _search(classes, interpolated, np.eye(2, 3), reach, limit / top)
        yield [*first, magnified(peak, top)]
        yield [Affine(np.eye(2, 3))]
        if not turned:
            return
        found = []
        centre = (np.array(interpolated.shape) - 1) / 2
        for degrees in TURNS:
            for scale in SCALES if scaled else (1.0,):
                if degrees == 0 and scale == 1:
                    continue
                t = np.radians(degrees)
                a = scale * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
                about = np.column_stack([a, centre - a @ centre])
                found.append(_search(classes, interpolated, about, reach, limit / top))
        found.sort(key=lambda pair: -pair[1])
        for warp, _ in found[:4]:
            yield [magnified(warp, top)]

    def climb(self, warp, model):
        """(the warp at the finest level, the evidence for it)."""
        seen = None
        for factor in self.factors:
            pair = self.pair(factor)
            here = magnified(warp, 1 / factor)
            # the whole image turns and stretches as one before it may shear
            this = model if model != "auto" else "similarity"
            this = "similarity" if this == "affine" and factor == self.factors[0] else this
            warp = magnified(pair.climb(here, this, close=0.02, steps=20), factor)
            if seen is None and max(pair.shape) > EVIDENCE_PX / 2:
                seen = pair.evidence(magnified(warp, 1 / factor))
                if seen < EVIDENCE / 2:
                    break
            if factor == 2:
                break
        return warp, seen if seen is not None else pair.evidence(magnified(warp, 1 / factor))


def _search(classes, interpolated, about, reach, limit):
    """The shift of most information after the interpolated image was turned: (warp, how far its peak stands out)."""
    if np.array_equal(about, np.eye(2, 3)):
        turned = interpolated
    else:
        rows, cols = Affine(about).pull(*np.mgrid[0 : interpolated.shape[0], 0 : interpolated.shape[1]].astype(float))
        turned = resample(interpolated, rows, cols, "bilinear")
    surface = kernel.information_surface(classes, kernel.class_image(turned, CLASSES), CLASSES, reach)
    lags = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    surface[lags > limit + 1] = 0.0
    i, j = np.unravel_index(np.argmax(surface), surface.shape)
    # turned(x) = interpolated(about(x)): the shift comes first
    m = about.copy()
    m[:, 2] += m[:, :2] @ [i - reach, j - reach]
    return Affine(m), float(surface[i, j])


def _best_smoothing(pair, warp, model):
    """The smoothing of the interpolated image that makes the answer most certain, and the warp found with it."""
    model = "affine" if model == "auto" else model
    best = None
    for sigma in SMOOTHING:
        if sigma < pair.smooth:
            continue
        here = pair if sigma == pair.smooth else pair.smoothed(sigma)
        rough = here.thinned(max(1, here.level.size // 60_000))
        found = rough.climb(warp, model, close=0.01, steps=4)
        error = _Answer.at(rough, found, model).sigma_px
        if best is None or error < 0.85 * best[0]:
            best = (error, here, found)
        elif error > 1.2 * best[0]:
            break
    return best[1:]


@dataclass
class _Answer:
    """A warp at a maximum of information, with what the blocks say about it."""

    pair: _Pair
    warp: Affine
    model: str
    b: np.ndarray  # the affine about the centre
    gradient: np.ndarray  # (cell, 6)
    curvature: np.ndarray  # (6, 6), as it was found by probing
    local: np.ndarray  # (block, 8)
    response: float
    information: float
    block_information: np.ndarray

    PROBE_PX = 0.25

    @classmethod
    def at(cls, pair, warp, model):
        centre, size = _frame(pair.shape)
        matrix = _matrix(warp)
        information, _, values, joint, rest = pair.at(matrix)
        gradient, curvature, local = pair.scores(values, rest)
        pull = []
        for h in (cls.PROBE_PX, -cls.PROBE_PX):
            aside = matrix.copy()
            aside[:, 2] += h
            _, _, there, _, tables = pair.at(aside)
            pull.append(pair.scores(there, tables)[0].sum(axis=0)[[2, 5]].sum())
        # noise in the interpolated image's gradient looks like knowledge; what bends the information is the truth
        expected = curvature[np.ix_([2, 5], [2, 5])].sum()
        response = float(np.clip((pull[1] - pull[0]) / (2 * cls.PROBE_PX * expected), 0.05, 2.0))
        total, count = kernel.by_block(pair.level, values, pair.cell, pair.n_cell, joint, pair.low, pair.width)
        total, count, local = (pair.blocks(part) for part in (total, count, local))
        local[:, 5:7] /= np.maximum(local[:, 2] + local[:, 4], 1e-300)[:, None]
        spread = (pair.bins - 1) ** 2 / (2 * max(count.sum(), 1))
        block_information = np.maximum(total / np.maximum(count, 1) - spread, 0.0)
        b = _centred(matrix, centre, size)
        parts = gradient, curvature * response, local, response, information - spread, block_information
        return cls(pair, warp, model, b, *parts)

    @property
    def covariance(self):
        """(6, 6) of the affine about the centre: the scatter of the blocks' scores between two inverse curvatures."""
        tangent = TANGENTS[self.model](self.b)
        k = tangent.shape[1]
        normal = tangent.T @ self.curvature @ tangent
        scores, grid = self.gradient @ tangent, self.pair.grid
        scatter = scores.T @ scores if grid is None else kernel.scatter(scores, grid, CELLS)
        n = int((self.local[:, 7] > 0).sum())
        inverse = np.linalg.inv(normal)
        inner = inverse @ scatter @ inverse * n / max(n - k, 1)
        cov = tangent @ inner @ tangent.T
        cov[[2, 5], [2, 5]] += FLOOR_PX**2
        return cov

    @property
    def sigma_px(self):
        """1-sigma error over the image, an axis; px. The mean square of (row - centre) / size is a sixth or so."""
        d = np.diag(self.covariance)
        return float(np.sqrt(0.5 * (d[2] + d[5] + (d[0] + d[1] + d[3] + d[4]) / 6)))

    def simplest(self):
        """The simplest model from which this affine departs by no more than its error allows."""
        size = _frame(self.pair.shape)[1]
        cov = self.covariance
        b = (self.b - np.array([[size, 0, 0], [0, size, 0]])).ravel()
        rules = {
            "shift": np.eye(6)[[0, 1, 3, 4]],
            "similarity": np.array([[1, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0]], float),
        }
        for model, rule in rules.items():
            departs = rule @ b
            apart = rule @ cov @ rule.T + (2 * FLOOR_PX) ** 2 * np.eye(len(rule))
            if departs @ np.linalg.solve(apart, departs) < chi2.ppf(SIMPLER, len(rule)):
                return model
        return "affine"

    def match(self, swap, shape, limit, seed) -> Match:
        pair, local = self.pair, self.local
        still = np.eye(2, 3)
        moved = distance_px(self.warp, Shift(0.0, 0.0), shape)
        if moved > max(0.3, 4 * self.sigma_px):
            try:
                before = pair.at(still)[0]
            except MatchError:
                before = 0.0
            now = pair.at(_matrix(self.warp))[0]
            if now <= before:
                raise MatchError(
                    f"the warp found ({moved:.2f} px) shares no more information than no motion "
                    f"({now:.4f} against {before:.4f} nats)."
                )
        middle = (np.array(shape) - 1) / 2
        out = self.warp.inverse() if swap else self.warp
        far = float(np.hypot(*(np.array(out.pull(*middle)) - middle)))
        if far > limit:
            raise MatchError(f"the motion found is {far:.1f} px, beyond the {limit:.1f} px searched.")
        steps, inverse, use = self._steps()
        length2 = np.where(use, np.einsum("ni,nij,nj->n", steps, np.linalg.inv(inverse), steps), 0.0)
        weight, factor = tukey(length2, use, TANGENTS[self.model](self.b).shape[1])
        check = quality.check_points(use, seed)
        apart = steps - self._without(check, local[:, 5:7]) * check[:, None]
        name = np.where(check, "check", np.where(use, "fit", "rejected")).astype(object)
        reason = np.where(use, "", np.where(local[:, 7] < 32, "masked or outside", "no structure")).astype(object)
        lost = use & (weight <= 0)
        name[lost], reason[lost] = "rejected", "outlier"
        in_fit, in_check = name == "fit", name == "check"
        if in_fit.sum() < 3:
            raise MatchError(
                f"only {int(in_fit.sum())} blocks of the image agree on a warp; 3 are needed at the least."
            )
        at = local[:, 5:7]
        found = np.stack(self.warp.pull(*at.T), 1) + steps
        if swap:
            at, found = found, at
            apart = -apart @ np.linalg.inv(_matrix(self.warp)[:, :2]).T
        sigma = np.sqrt(np.trace(inverse, axis1=1, axis2=2) / 2 * factor)
        score = np.sqrt(1 - np.exp(-2 * self.block_information))
        table = quality.point_table(at, found, apart, sigma, score, name, reason)
        warp, covariance = self._public(swap)
        return Match(
            warp=warp,
            covariance=covariance,
            score=float(np.sqrt(1 - np.exp(-2 * max(self.information, 1e-6)))),
            rmse_px=quality.rms_length(apart, in_fit),
            n_points=int(in_fit.sum()),
            method="mutual_information",
            tie_points=table,
            cv_px=quality.rms_length(apart, in_check),
        )

    def _steps(self):
        """Where each block by itself would lie, px from the warp (n, 2), the error of that (n, 2, 2), and its use."""
        local = self.local
        normal = np.stack([local[:, 2], local[:, 3], local[:, 3], local[:, 4]], 1).reshape(-1, 2, 2)
        trace, det = normal[:, 0, 0] + normal[:, 1, 1], np.linalg.det(normal)
        use = (local[:, 7] >= 32) & (det > 1e-6 * trace**2) & (trace > 0)
        inverse = np.linalg.inv(np.where(use[:, None, None], normal, np.eye(2)))
        steps = np.einsum("nij,nj->ni", inverse, local[:, :2]) / self.response
        inverse = inverse / self.response
        use &= (0.5 * np.trace(inverse, axis1=1, axis2=2) < 9.0) & (np.abs(steps).max(axis=1) < 3.0)
        inverse[~use], steps[~use] = np.eye(2), 0.0
        return steps, inverse, use

    def _without(self, check, at):
        """How far the warp would move at some points, had the blocks in `check` not taken part: to first order, px."""
        tangent = TANGENTS[self.model](self.b)
        normal = tangent.T @ self.curvature @ tangent
        kept = 1 - self.local[check][:, [2, 4]].sum() / max(self.local[:, [2, 4]].sum(), 1e-300)
        change = -tangent @ np.linalg.solve(
            normal * max(kept, 0.1), tangent.T @ self.pair.blocks(self.gradient)[check].sum(axis=0)
        )
        centre, size = _frame(self.pair.shape)
        design = np.column_stack([(at - centre) / size, np.ones(len(at))])
        return design @ change.reshape(2, 3).T

    def _public(self, swap):
        """(warp reference -> moving, covariance as Match wants it)."""
        centre, size = _frame(self.pair.shape)
        if self.model == "shift":
            sign = -1 if swap else 1
            return Shift(*(sign * (self.b[:, 2] - centre)).tolist()), self.covariance[np.ix_([2, 5], [2, 5])]

        def numbers(b):
            m = _plain(b.reshape(2, 3), centre, size)
            return np.array((Affine(m).inverse() if swap else Affine(m)).matrix).ravel()

        flat = self.b.ravel()
        jac = np.stack([(numbers(flat + h) - numbers(flat - h)) / 2e-4 for h in np.eye(6) * 1e-4], axis=1)
        return Affine(numbers(flat).reshape(2, 3)), jac @ self.covariance @ jac.T
