"""What feature matchers share: images made fit for detectors, mutual matches, and the affine a consensus supports."""

import cv2
import numpy as np

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


def between_pixels(reference, moving, points, found):
    """Matches moved to where the patch around the feature fits best (Lucas-Kanade), for detectors of whole pixels.

    A match that moves by more than 1.5 px was not improved but lost, and stays where it was.
    """
    if not len(points):
        return found
    swap = [1, 0]
    start = np.ascontiguousarray(points[:, swap], np.float32)
    guess = np.ascontiguousarray(found[:, swap], np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.005)
    better, good, _ = cv2.calcOpticalFlowPyrLK(
        reference, moving, start, guess.copy(), winSize=(17, 17), maxLevel=0, criteria=stop,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    better = better.astype(np.float64)[:, swap]
    near = (good.ravel() == 1) & (np.hypot(*(better - found).T) <= 1.5)
    return np.where(near[:, None], better, found)


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
