"""Change between two optical dates whatever their light: canonical variates of the bands, reweighted to no change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geoalign.detectors.two_dates import check_two_dates, detect_two_dates
from geoalign.kernels.irmad import fit


@dataclass(frozen=True)
class Irmad:
    """What changed between two optical scenes of several bands, without a number to choose and in any units.

    Iteratively reweighted multivariate alteration detection: the linear combinations of the bands that agree best at
    both dates are found from the pixels that did not change, and what disagrees in them beyond measure is change. No
    linear difference between the scenes (light, haze, gain, raw numbers against reflectance) has any effect.

    Where the cut lies comes from the image: distances of unchanged ground follow an F distribution whose scale and
    tails are fitted beside a class of change, since on real ground, and with 8-bit values most of all, they are far
    from the chi2 of the textbook. The log odds of the two classes are averaged over a pixel's 5 x 5 neighbourhood
    with Gaussian weights (0.7 px), and a pixel has changed where they are above 0.

    Parameters
    ----------
    since : str or datetime64, optional
        First date of the second group; each group is its median. None compares the first scene with the last; where a
        pixel was not observed in one of these, its next complete observation stands in.
    prior : float, optional
        Share of change to assume; None takes the share fitted to the image.
    alpha : float, optional
        Cut at this chance of a false alarm at a stable pixel instead, pixel by pixel: by the fitted distribution of
        unchanged ground. None cuts where change and no change are equally likely.

    Notes
    -----
    `magnitude` is the distance from no change in standard deviations, `direction` 1 where all bands rose against the
    unchanged ground, -1 where all fell, else 0; `sector` has a bit for each band that rose. `probability` is the
    posterior of the fitted classes. Constant or very small images (under 50 pixels a band) are `not_detectable`.
    With a coordinate `sigma_px` the covariance of the variates grows by sigma_px^2 times the products of their
    gradients, so that a pattern of change that a shift would make there is forgiven, and no other.

    References
    ----------
    Nielsen (2007), The regularized iteratively reweighted MAD method for change detection in multi- and hyperspectral
    data, doi:10.1109/TIP.2006.888195. We differ in the scaling of the statistic (`kernels.irmad.reweighted`) and in
    the threshold (`kernels.mixture.two_classes`).

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> rng = np.random.default_rng(0)
    >>> ground = rng.normal(0.2, 0.05, (3, 1, 60, 60))
    >>> pair = np.concatenate([ground, 1.3 * ground - 0.02], axis=1) + rng.normal(0, 0.004, (3, 2, 60, 60))
    >>> pair[0, 1, 20:30, 20:30] += 0.2
    >>> found = Irmad().detect(new_stack(dict(zip(("red", "nir", "swir1"), pair)), ["2024-05-01", "2025-05-01"]))
    >>> int(found.status[25, 25]), int(found.status[50, 5])
    (3, 0)
    """

    since: str | None = None
    prior: float | None = None
    alpha: float | None = None

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_two_dates(self)

    def detect(self, stack):
        """Changes (y, x) between the two dates of a Stack; lazy where the stack is."""
        return detect_two_dates(self, stack, fit, least_bands=2)
