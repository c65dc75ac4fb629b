"""ORB features matched between two images. OpenCV 4.10 and 5."""

import cv2
import numpy as np

from geoalign.kernels.features import RATIO, places, spread, stretched


def orb_matches(reference, moving, *, features=4000, max_shift_px=None, blur=1.0):
    """Mutual, unambiguous ORB matches.

    reference, moving : (row, col), NaN = not observed
    features : at most so many in each image, spread over a 4 x 4 grid of it by taking the strongest of each cell
    max_shift_px : matches further apart are dropped
    blur : Gaussian smoothing before detection, px
    Returns (points, found): (n, 2) float64 row, col.
    """
    sides = []
    for image in (reference, moving):
        grey, mask = stretched(image)
        grey = cv2.GaussianBlur(grey, (0, 0), blur)
        detector = cv2.ORB_create(nfeatures=4 * features, fastThreshold=5, edgeThreshold=16)
        keypoints = spread(detector.detect(grey, mask), image.shape, features)
        keypoints, described = detector.compute(grey, keypoints)
        sides.append((places(keypoints), described))
    (at, ours), (to, theirs) = sides
    if ours is None or theirs is None or min(len(ours), len(theirs)) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    forward = _best(matcher.knnMatch(ours, theirs, k=2))
    backward = _best(matcher.knnMatch(theirs, ours, k=2))
    pairs = [(i, j) for i, j in forward.items() if backward.get(j) == i]
    pairs = np.array(pairs, int).reshape(-1, 2)
    points, found = at[pairs[:, 0]], to[pairs[:, 1]]
    if max_shift_px is not None and len(points):
        near = np.hypot(*(found - points).T) <= max_shift_px
        points, found = points[near], found[near]
    return points, found


def _best(pairs):
    out = {}
    for pair in pairs:
        if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance:
            out[pair[0].queryIdx] = pair[0].trainIdx
    return out
