"""The search for the motion of most information: classes of intensity first, then from coarse to fine."""

from __future__ import annotations

import numpy as np

from geoalign.kernels import mutual_information as kernel
from geoalign.kernels.resample import resample
from geoalign.registration.information_pair import ALIKE_PX, Pair
from geoalign.registration.phase import magnified
from geoalign.registration.tiepoints import block_mean
from geoalign.types.warp import Affine

SEARCH_PX = 160
"""Longest side of the image in which the first search runs."""
EVIDENCE_PX = 320
"""Longest side of the image in which a candidate is judged."""
CLASSES = 8
"""Classes of intensity of either image in the first search."""
TURNS = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)
"""Degrees and scales searched where a shift alone does not convince."""
EVIDENCE = 7.0
"""Standard deviations the information must stand above that of wrong positions."""


class Pyramid:
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
            self._pairs[factor] = Pair.whole(*self.ordered(factor), 200_000, self.seed, ALIKE_PX)
        return self._pairs[factor]

    def candidates(self, limit, starts, turned, scaled):
        """Lists of warps to try, likeliest first: what is given and what a shift explains; then turns and scales."""
        top = self.factors[0]
        lattice, interpolated = (kernel.smoothed(image, 1.0) for image in self.ordered(top))
        reach = int(np.ceil(limit / top)) + 1
        classes = kernel.class_image(lattice, CLASSES)
        first = [w.inverse() if self.swap else w for w in starts]
        peak, _ = search(classes, interpolated, np.eye(2, 3), reach, limit / top)
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
                found.append(search(classes, interpolated, about, reach, limit / top))
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


def search(classes, interpolated, about, reach, limit):
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
