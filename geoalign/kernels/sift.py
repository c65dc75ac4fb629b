"""SIFT features matched between two images. OpenCV 4.10 and 5."""

import cv2
import numpy as np

from geoalign.kernels.features import RATIO, places, spread, stretched

CONTRAST = 0.005
"""Weakest blob that counts, of a range of 1. OpenCV's .04 leaves a dim half of an image without a feature; the
strongest of each cell are taken instead, and the matching sorts out what is noise."""


def sift_matches(reference, moving, *, features=3000, max_shift_px=None):
    """Mutual, unambiguous SIFT matches (Lowe 2004, doi:10.1023/B:VISI.0000029664.99615.94).

    reference, moving : (row, col), NaN = not observed
    features : at most so many in each image, spread over a 4 x 4 grid of it by taking the strongest of each cell
    max_shift_px : features further apart are never compared, so that they can't make a match ambiguous either
    Returns (points, found): (n, 2) float64 row, col.
    Descriptors are compared after Hellinger's map (Arandjelovic and Zisserman 2012, doi:10.1109/CVPR.2012.6248018).
    """
    sides = []
    for image in (reference, moving):
        grey, mask = stretched(image)
        # without precise upscaling OpenCV's places are a quarter of a pixel off, and more than that apart once turned
        detector = cv2.SIFT_create(contrastThreshold=CONTRAST, edgeThreshold=10, sigma=1.6, enable_precise_upscale=True)
        keypoints = spread(detector.detect(grey, mask), image.shape, features)
        keypoints, described = detector.compute(grey, keypoints)
        if described is None or len(keypoints) < 2:
            return np.empty((0, 2)), np.empty((0, 2))
        rooted = np.sqrt(described / np.maximum(described.sum(axis=1, keepdims=True), 1e-12))
        sides.append((places(keypoints), rooted))
    (at, ours), (to, theirs) = sides
    alike = ours @ theirs.T
    if max_shift_px is not None:
        apart = (at**2).sum(1)[:, None] + (to**2).sum(1)[None] - 2 * at @ to.T
        alike[apart > max_shift_px**2] = -1.0
    first, clear = _best(alike)
    back, clear_back = _best(alike.T)
    i = np.flatnonzero(clear & (back[first] == np.arange(len(first))) & clear_back[first])
    # one blob may have several orientations, and err alike in each
    i = i[np.sort(np.unique(at[i], axis=0, return_index=True)[1])]
    return at[i], to[first[i]]


def _best(alike):
    """For each row the column most alike, and whether the second is clearly less so."""
    lines = np.arange(len(alike))
    first = alike.argmax(axis=1)
    best = alike[lines, first]
    rest = alike.copy()
    rest[lines, first] = -1.0
    # of unit vectors: squared distance = 2 - 2 dot
    return first, (best > 0) & (1 - best < RATIO**2 * (1 - np.maximum(rest.max(axis=1), 0.0)))
