"""What feature matchers share: images made fit for detectors, mutual matches, and the affine a consensus supports."""

import cv2
import numpy as np
from numba import njit

from geoalign.kernels.refine import band_pass, spline, window_step

RATIO = 0.85
"""Distance of the best match over that of the second: above it a match is ambiguous (Lowe 2004)."""


def stretched(image):
    """8-bit image between the 1st and 99th percentile, and a mask (255 valid) eaten by a feature's radius.

    image : (row, col), NaN = not observed
    """
    seen = np.isfinite(image)
    low, high = np.percentile(image[seen], [1, 99]) if seen.any() else (0.0, 1.0)
    scaled = np.where(seen, (image - low) / max(float(high - low), 1e-30), 0.5)
    mask = cv2.erode(seen.astype(np.uint8) * 255, np.ones((9, 9), np.uint8), borderValue=255)
    return np.clip(scaled * 255, 0, 255).astype(np.uint8), mask


def spread(keypoints, shape, features):
    """The strongest keypoints of each cell of a 4 x 4 grid over the image, `features` in all at most."""
    cells: dict[tuple[int, int], list] = {}
    for k in keypoints:
        cell = (int(4 * k.pt[1] / shape[0]), int(4 * k.pt[0] / shape[1]))
        cells.setdefault(cell, []).append(k)
    share = max(1, features // 16)
    return [k for cell in sorted(cells) for k in sorted(cells[cell], key=lambda k: (-k.response, k.pt))[:share]]


def places(keypoints):
    """(n, 2) float64 row, col of keypoints."""
    return np.array([k.pt[::-1] for k in keypoints], np.float64).reshape(-1, 2)


def between_pixels(reference, moving, points, matrix, *, scale=0.9, half=8):
    """Features placed by least squares on the patch around each, as an affine they agree on lays it on the other image.

    reference, moving : (row, col), NaN = not observed; points : (n, 2) row, col; matrix : (2, 3) on (row, col, 1)
    scale : of the structure compared, px; half : the patch has 2 half + 1 px a side
    Returns (at, found, variance): (n, 2) the middle of the patch's structure, where it is in `moving`, and (n,) px^2 an
    axis; NaN where the patch holds too little, reaches into masked pixels by more than a half, or would move by over
    1.5 px, or is not alike (correlation below .5). The gain and level of each patch are free: two images are rarely
    equally bright.
    """
    values, valid = band_pass(reference, scale, 4 * scale)
    filtered, seen = band_pass(moving, scale, 4 * scale)
    out = _place(values, valid, spline(filtered), seen, np.asarray(points, np.float64), np.asarray(matrix), half)
    lost = ~(np.hypot(out[:, 2] - out[:, 4], out[:, 3] - out[:, 5]) <= 1.5)
    out[lost] = np.nan
    return out[:, :2], out[:, 2:4], out[:, 6]


@njit(nogil=True, cache=True)
def _place(ref, ref_ok, coef, mov_ok, points, matrix, half):
    """(n, 7): row, col, row and col found, those by the affine alone, variance; `between_pixels` says what they are."""
    out = np.full((len(points), 7), np.nan)
    side = 2 * half + 1
    rows = np.empty((side, side))
    cols = np.empty((side, side))
    for n in range(len(points)):
        r0 = int(round(points[n, 0])) - half
        c0 = int(round(points[n, 1])) - half
        ahead_r = 0.0
        ahead_c = 0.0
        for _ in range(2):
            for i in range(side):
                for j in range(side):
                    r, c = r0 + i + ahead_r, c0 + j + ahead_c
                    rows[i, j] = matrix[0, 0] * r + matrix[0, 1] * c + matrix[0, 2]
                    cols[i, j] = matrix[1, 0] * r + matrix[1, 1] * c + matrix[1, 2]
            step = window_step(ref, ref_ok, r0, c0, side, side, coef, mov_ok, rows, cols)
            if not (step[6] >= 0.5 * side * side and step[5] > 0.5 and abs(step[0]) < 2.0 and abs(step[1]) < 2.0):
                ahead_r = np.nan
                break
            ahead_r += step[0]
            ahead_c += step[1]
        if np.isnan(ahead_r):
            continue
        out[n, 0] = r0 + step[7]
        out[n, 1] = c0 + step[8]
        for a in range(2):
            base = matrix[a, 0] * out[n, 0] + matrix[a, 1] * out[n, 1] + matrix[a, 2]
            out[n, 4 + a] = base
            out[n, 2 + a] = base + matrix[a, 0] * ahead_r + matrix[a, 1] * ahead_c
        out[n, 6] = 0.5 * (step[2] + step[3])
    return out


def magsac_affine(points, found, *, threshold=2.0, seed=0):
    """Affine by MAGSAC (Barath et al. 2020, doi:10.1109/CVPR42600.2020.00138).

    points, found : (n, 2) row, col; threshold : px
    Returns (matrix (2, 3) on (row, col, 1), inliers (n,) bool), or (None, all False).
    """
    none = None, np.zeros(len(points), bool)
    if len(points) < 4:
        return none
    params = cv2.UsacParams()
    params.threshold, params.maxIterations, params.confidence = threshold, 10000, 0.9999
    params.randomGeneratorState = int(seed) % (2**31)
    params.score, params.sampler = cv2.SCORE_METHOD_MAGSAC, cv2.SAMPLING_UNIFORM
    params.loMethod, params.isParallel = cv2.LOCAL_OPTIM_SIGMA, False
    swap = [1, 0]  # OpenCV has (x, y)
    try:
        matrix, inliers = cv2.estimateAffine2D(
            points[:, swap].astype(np.float32), found[:, swap].astype(np.float32), params
        )
    except cv2.error:  # degenerate samples only: OpenCV says so by an error instead of an empty answer
        return none
    if matrix is None or not np.isfinite(matrix).all():
        return none
    m = np.asarray(matrix, np.float64)
    return np.array([[m[1, 1], m[1, 0], m[1, 2]], [m[0, 1], m[0, 0], m[0, 2]]]), inliers.ravel().astype(bool)


def clustering(places, residual, weight, cells=8):
    """How much larger the error of an affine through points is than if each point erred for itself, a variance ratio.

    places : (n, 2) in 0..1 over the image; residual : (n, 2); weight : (n,); cells : along an axis
    Compares the scatter of the points' pulls on the affine, summed within each cell, with that of single points; at
    least 1 (cluster-robust variance, Liang and Zeger 1986, doi:10.1093/biomet/73.1.13, as one ratio for all).
    """
    design = np.column_stack([places - 0.5, np.ones(len(places))])
    normal = (design * weight[:, None]).T @ design
    half = np.linalg.pinv(np.linalg.cholesky(normal + 1e-9 * np.trace(normal) * np.eye(3)))
    pulls = (design @ half.T)[:, :, None] * (residual * weight[:, None])[:, None, :]
    at = np.clip((places * cells).astype(int), 0, cells - 1) @ [cells, 1]
    sums = np.zeros((cells * cells, 3, 2))
    np.add.at(sums, at, pulls)
    alone = float((pulls**2).sum())
    return max(float((sums**2).sum()) / alone, 1.0) if alone > 0 else 1.0
