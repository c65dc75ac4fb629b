"""Pairs of images whose displacement is known, as `registration.py` and its tests of accuracy use them.

Both images of a pair are rendered from one finer source: a pixel is the mean of FINE x FINE samples after the blur of a
detector, so neither is a resampled copy of the other. Truth: reference pixel x is seen in the moving image at pull(x).
Sources: "fields" (relief-like noise, fields with sharp borders, roads) and "sentinel2" (a real 10 m scene from the
folder of real data, rendered at 20 m).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from geoalign import Affine, Shift
from geoalign.kernels.resample import resample

MARGIN = 80


@dataclass(frozen=True)
class Waves:
    """A smooth displacement: ten random waves of 180-420 px, at most `most_px`."""

    seed: int
    most_px: float = 5.0
    waves: tuple = field(default=(), compare=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        length, angle = rng.uniform(180, 420, 10), rng.uniform(0, 2 * np.pi, 10)
        waves = np.stack([np.cos(angle) / length, np.sin(angle) / length, rng.uniform(0, 1, 10)], 1)
        weights = rng.normal(size=(2, 10))
        object.__setattr__(self, "waves", (waves, weights))
        rows, cols = np.mgrid[0:2048:16, 0:2048:16].astype(float)
        dy, dx = self._raw(rows, cols)
        object.__setattr__(self, "waves", (waves, weights * self.most_px / np.hypot(dy, dx).max()))

    def _raw(self, rows, cols):
        waves, weights = self.waves
        dy, dx = np.zeros(np.shape(rows)), np.zeros(np.shape(rows))
        for (fr, fc, phase), wy, wx in zip(waves, *weights):
            value = np.sin(2 * np.pi * (fr * rows + fc * cols + phase))
            dy += wy * value
            dx += wx * value
        return dy, dx

    def pull(self, rows, cols):
        dy, dx = self._raw(rows, cols)
        return rows + dy, cols + dx

    def inverse_pull(self, rows, cols):
        """To 3e-5 px: solved at every third pixel and interpolated, as the waves are many times longer."""
        low = np.floor([rows.min(), cols.min()]) - 8
        shape = [int(np.ceil((v.max() - a) / 3)) + 5 for v, a in zip((rows, cols), low)]
        nodes = np.stack(np.mgrid[: shape[0], : shape[1]]) * 3.0 + low[:, None, None]
        r, c = nodes
        for _ in range(9):
            dy, dx = self._raw(r, c)
            r, c = nodes[0] - dy, nodes[1] - dx
        at = (rows - low[0]) / 3, (cols - low[1]) / 3
        return tuple(v + resample(-d, *at, "bspline") for v, d in zip((rows, cols), (dy, dx)))


def about_centre(size, degrees, scale, shear=0.0, shift=(-3.25, 2.75)):
    """Affine that turns, scales and shears about the image's centre, then shifts."""
    t, m = np.radians(degrees), (size - 1) / 2
    a = scale * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) @ [[1, shear], [0, 1]]
    return Affine(np.column_stack([a, np.array([m, m]) - a @ [m, m] + shift]))


def truths(size, seed=7):
    return {
        "shift": Shift(-3.25, 2.75),
        "affine": about_centre(size, 0.4, 1.003, 0.002),
        "similarity": about_centre(size, 12.0, 1.10),
        "dense": Waves(seed),
    }


@lru_cache(2)
def fields(size, seed, fine):
    """(row, col) float32 source of `fine` samples a pixel, MARGIN px wider than the image on each side."""
    rng = np.random.default_rng(seed)
    n = (size + 2 * MARGIN) * fine
    spectrum = np.fft.rfft2(rng.normal(size=(n, n)).astype(np.float32))
    f = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
    noise = np.fft.irfft2(spectrum / np.maximum(f, 1 / n) ** 1.3, (n, n))
    scene = (noise / noise.std()).astype(np.float32)
    for _ in range(int(400 * (size / 512) ** 2)):
        corners = cv2.boxPoints(
            (tuple(rng.uniform(0, n, 2)), tuple(rng.uniform(12, 60, 2) * fine), float(rng.choice([20.0, 65.0])))
        )
        r0, c0 = np.maximum(np.floor(corners.min(0)[::-1]).astype(int), 0)
        r1, c1 = np.minimum(np.ceil(corners.max(0)[::-1]).astype(int) + 1, n)
        if r1 <= r0 or c1 <= c0:
            continue
        plot = np.zeros((r1 - r0, c1 - c0), np.uint8)
        cv2.fillPoly(plot, [np.round(corners - [c0, r0]).astype(np.int32)], 1)
        here = scene[r0:r1, c0:c1]
        here[plot > 0] = 0.4 * here[plot > 0] + rng.normal(0, 1.0)
    for _ in range(int(20 * size / 512)):
        a, b = rng.uniform(0, n, (2, 2)).astype(int).tolist()
        cv2.line(scene, a, b, float(rng.normal(0, 1.5)), max(1, fine))
    return cv2.GaussianBlur(scene, (0, 0), 0.5 * fine)


@lru_cache(2)
def sentinel2(folder):
    """The same from a real scene: 10 m pixels as the finer samples."""
    import rasterio

    with rasterio.open(next(Path(folder, "registration/s2_pair").glob("*ref*.tif"))) as source:
        return cv2.GaussianBlur(source.read(1).astype(np.float32), (0, 0), 0.5 * 2)


def render(scene, size, fine, inverse=None):
    """Image of size x size px; `inverse(rows, cols)`: where a pixel's ground lies in the reference."""
    pad = (scene.shape[0] / fine - size) / 2
    rows, cols = np.mgrid[0:size, 0:size].astype(np.float64)
    total = np.zeros((size, size))
    for a in (np.arange(fine) + 0.5) / fine - 0.5:
        for b in (np.arange(fine) + 0.5) / fine - 0.5:
            r, c = (rows + a, cols + b) if inverse is None else inverse(rows + a, cols + b)
            # mirrored beyond the edge; not with cv2.remap, which rounds positions to 1/32 of a sample
            r, c = ((v + pad + 0.5) * fine - 0.5 for v in (r, c))
            r, c = (n - 1 - np.abs(n - 1 - np.abs(v)) for v, n in zip((r, c), scene.shape))
            total += resample(scene, r, c, "bspline")
    return total / fine**2


@dataclass(frozen=True)
class Pair:
    name: str
    truth: object
    reference: np.ndarray
    moving: np.ndarray
    valid: tuple | None = None

    def error_px(self, warp, step=4) -> float:
        """RMSE of the end-point error over the image."""
        rows, cols = np.mgrid[0 : self.reference.shape[0] : step, 0 : self.reference.shape[1] : step].astype(float)
        (a, b), (r, c) = warp.pull(rows, cols), self.truth.pull(rows, cols)
        return float(np.sqrt(np.mean((a - r) ** 2 + (b - c) ** 2)))


def pair(name, *, source="fields", size=512, seed=7, folder=None) -> Pair:
    """A pair by its name: "<shift|affine|similarity|dense|none> <clean|cloud|xmodal L>"."""
    kind, look = name.split(" ", 1)
    truth = {**truths(size, seed), "none": Shift(0.0, 0.0)}[kind]
    fine = 3 if source == "fields" else 2
    scene = fields(size, seed, fine) if source == "fields" else sentinel2(str(folder))
    inverse = truth.inverse_pull if kind == "dense" else truth.inverse().pull
    reference, moving = render(scene, size, fine), render(scene, size, fine, inverse)
    rng = np.random.default_rng(seed + 100)
    middle, spread = reference.mean(), reference.std()
    noise = [0.02 * spread * rng.normal(size=reference.shape) for _ in range(2)]
    if look.startswith("xmodal"):
        z = (moving - middle) / spread
        # bright and dark ground look alike, darker than what lies between: no correlation between the two images
        power = np.exp(0.9 * np.cos(1.8 * z)) * rng.gamma(float(look.split()[1]), size=z.shape)
        return Pair(name, truth, (reference + noise[0]).astype(np.float32), np.log(power).astype(np.float32))
    images = [image + n for image, n in zip((reference, moving), noise)]
    valid = None
    if look == "cloud":
        valid = tuple(np.ones(reference.shape, bool) for _ in images)
        for image, mask in zip(images, valid):
            blobs = cv2.GaussianBlur(rng.normal(size=image.shape), (0, 0), size / 20)
            bright = np.clip((blobs - np.quantile(blobs, 0.88)) / blobs.std(), 0, None)
            image += 6 * spread * bright
            mask[bright > 0] = False
    return Pair(name, truth, *(image.astype(np.float32) for image in images), valid)
