"""Error of a shift and of an affine, ours beside what OpenCV and scikit-image give on the same pairs in one run.

    python benchmarks/registration.py

Each image is the mean of 4 x 4 samples of one finer ground, so neither is a resampled copy of the other. Error: RMSE of
the displacement over all pixels. `fails` is a raised error; a wrong answer is printed as the error it has.
"""

import sys
import time

import cv2
import numpy as np
from results import write_section
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.registration import phase_cross_correlation

from geoalign import Affine, Shift, match

SIZE, FINE = 512, 4
WARPS = {
    "shift": Shift(-3.25, 2.75),
    "affine": Affine(((1.003, 0.009, -3.25), (-0.007, 1.003, 2.75))),
}


def ground(rng):
    n = (SIZE + 64) * FINE
    scene = gaussian_filter(rng.normal(size=(n, n)), 5) * 8 + gaussian_filter(rng.normal(size=(n, n)), 50) * 60
    for _ in range(300):
        r, c = rng.integers(0, n - 300, 2)
        h, w = rng.integers(40, 300, 2)
        scene[r : r + h, c : c + w] += rng.normal(0, 1.5)
    return gaussian_filter(scene, 0.5 * FINE)


def render(scene, warp):
    """Pixel (r, c) of the image sees the ground where the inverse warp puts it: `pull` leads from reference to moving."""
    offsets = (np.arange(FINE) + 0.5) / FINE - 0.5
    total = np.zeros((SIZE, SIZE))
    rows, cols = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    inverse = warp.inverse()
    for a in offsets:
        for b in offsets:
            r, c = inverse.pull(rows + a, cols + b)
            total += map_coordinates(scene, [(r + 32.5) * FINE - 0.5, (c + 32.5) * FINE - 0.5], order=1)
    return total / FINE**2


def pairs():
    rng = np.random.default_rng(7)
    scene = ground(rng)
    reference = render(scene, Shift())
    spread = reference.std()

    def noisy(image):
        return (image + rng.normal(0, 0.02 * spread, image.shape)).astype(np.float32)

    def speckled(image, looks):
        power = np.exp((image - image.mean()) / spread / 2)
        # every method gets the logarithm, in which speckle is additive
        return np.log(power * rng.gamma(looks, 1 / looks, image.shape)).astype(np.float32)

    for name, warp in WARPS.items():
        moving = render(scene, warp)
        yield f"{name} clean", warp, noisy(reference), noisy(moving)
        yield f"{name} speckle L=4.4", warp, speckled(reference, 4.4), speckled(moving, 4.4)


def unit(image):
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


def by_ecc(reference, moving):
    matrix = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6)
    _, matrix = cv2.findTransformECC(unit(reference), unit(moving), matrix, cv2.MOTION_AFFINE, stop, None, 5)
    (a, b, tx), (c, d, ty) = matrix
    return Affine(((d, c, ty), (b, a, tx)))


def by_cv2_phase(reference, moving):
    (dx, dy), _ = cv2.phaseCorrelate(unit(reference).astype(float), unit(moving).astype(float))
    return Shift(dy, dx)


def by_skimage(reference, moving):
    dy, dx = phase_cross_correlation(reference, moving, upsample_factor=100)[0]
    return Shift(-dy, -dx)


METHODS = {
    "geoalign auto": lambda a, b: match(a, b).warp,
    "geoalign phase": lambda a, b: match(a, b, matcher="phase").warp,
    "geoalign orb": lambda a, b: match(a, b, matcher="orb").warp,
    "OpenCV ECC affine": by_ecc,
    "OpenCV phaseCorrelate": by_cv2_phase,
    "scikit-image phase x100": by_skimage,
}


def main() -> int:
    rows, cols = np.mgrid[0:SIZE:8, 0:SIZE:8].astype(float)
    lines = ["| pair | " + " | ".join(METHODS) + " | no motion |", "|---" * (len(METHODS) + 2) + "|"]
    for name, truth, reference, moving in pairs():
        r, c = truth.pull(rows, cols)
        cells = []
        for method in METHODS.values():
            started = time.perf_counter()
            try:
                fr, fc = method(reference, moving).pull(rows, cols)
                error = f"{np.sqrt(np.mean((fr - r) ** 2 + (fc - c) ** 2)):.3f}"
            except Exception as err:
                error = f"fails ({type(err).__name__})"
            cells.append(f"{error} px, {time.perf_counter() - started:.2f} s")
        still = np.sqrt(np.mean((rows - r) ** 2 + (cols - c) ** 2))
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {still:.2f} px |")
    write_section("registration.py: error and time of one pair, 512 px", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
