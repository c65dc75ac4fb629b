"""Dense: a smooth displacement field through every pixel that both images show."""

from __future__ import annotations

from dataclasses import dataclass, replace

from geoalign.registration.auto import AutoMatcher
from geoalign.registration.phase import masked
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import Match


@dataclass(frozen=True)
class DenseMatcher:
    """A displacement field, fitted to all pixels at once.

    From the affine that `auto` finds, cubic B-splines are fitted coarse to fine by Gauss-Newton steps on band-passed
    images: each pixel counts by its local gain and noise, so that clouds, change and speckle weigh little. How stiff
    the field is is chosen by the evidence of the images themselves. Images of different sensors are matched through the
    mean of one given the value of the other, as far as there is such a relation. `valid` and NaN are masks in both.

    model : "auto" and "field" give the field; the linear ones are answered as `auto` answers them
    max_shift_px : search as far as this; None = a fifth of the image

    The covariance is the error of the field at its nodes, px^2 an axis: from the curvature of the fit, the prior, and
    the scatter of the scores of neighbouring pixels. MatchError where the field would fold.

    References
    ----------
    B-spline free-form deformation: Rueckert et al. (1999), doi:10.1109/42.796284. Gauss-Newton on the reference's
    gradient: Lucas, Kanade (1981); Baker, Matthews (2004), doi:10.1023/B:VISI.0000011205.11775.fd. We add the local
    gain and noise, the choice of stiffness by evidence (MacKay 1992, doi:10.1162/neco.1992.4.3.415) and the error.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> ground = gaussian_filter(np.random.default_rng(0).normal(size=(140, 140)), 2)
    >>> found = DenseMatcher()(ground[:128, :128], ground[3:131, 2:130])
    >>> [round(float(v), 1) for v in found.warp.pull(64.0, 64.0)]
    [61.0, 62.0]
    """

    model: str = "auto"
    max_shift_px: float | None = None

    def __call__(self, reference, moving, *, valid=None, seed=0) -> Match:
        """Match two images (row, col), NaN = not observed; `valid`: a mask, or (reference's, moving's)."""
        return self.align(*(Image(v) for v in masked(reference, moving, valid)), seed=seed)

    def align(self, reference: Image, moving: Image, *, seed=0, starts=()) -> Match:
        """Match two images; of large ones decimated versions are matched. `starts`: warps to try besides."""
        model = "field" if self.model == "auto" else self.model
        found = AutoMatcher(model, self.max_shift_px).align(reference, moving, seed=seed, starts=starts)
        return replace(found, method="dense")
