"""Change between two SAR dates by the ratio of local means: the plain one, to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood, per_pixel, whole_image
from geoalign.detectors.sar_pair import check_prior, pair_changes, pair_of
from geoalign.errors import ConfigError
from geoalign.kernels.log_ratio import smoothed_log_ratio
from geoalign.kernels.mean_ratio import cut, decided, histogram
from geoalign.types.changes import WHY


@dataclass(frozen=True)
class MeanRatio:
    """Which pixels' local means differ by more than the rest do, by 1 - min(m1 / m2, m2 / m1).

    Parameters
    ----------
    since : str or datetime64, optional
        First date of the second group. None compares the first scene with the last.
    radius : int
        Of the local mean, px; 2 is 5 x 5.
    prior : float, optional
        Share of change that `probability` assumes; None takes the share found in the image.

    Notes
    -----
    The cut is Kittler and Illingworth's with generalised Gaussians, on the logarithm of that ratio, the unchanged class
    at zero; no gate asks whether there are two classes. `sar_change` finds more and errs less; this one is its
    yardstick. With `sigma_px` the log-ratio is shortened by what the gradient and the residual shift make of it.

    References
    ----------
    Inglada and Mercier (2007), A new statistical similarity measure for change detection in multitemporal SAR images,
    doi:10.1109/TGRS.2007.893568, who name the mean ratio; the cut is that of `log_ratio`.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(8, 1 / 8, (2, 60, 60))
    >>> power[1, 20:40, 20:40] /= 4
    >>> found = MeanRatio().detect(new_stack({"vv": power}, ["2024-01-01", "2024-01-13"]))
    >>> int(found.status[30, 30]), int(found.direction[30, 30]), int(found.status[5, 5])
    (3, -1, 0)
    """

    since: str | None = None
    radius: int = 2
    prior: float | None = None

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_prior(self.prior)
        if not (isinstance(self.radius, int) and 1 <= self.radius <= 10):
            raise ConfigError(f"radius is {self.radius!r}; it is a whole number of px from 1 to 10.")

    def detect(self, stack):
        """Changes (y, x) between the two groups of dates of a Stack; lazy where the stack is."""
        pair = pair_of(stack, self.since)
        smooth = neighbourhood(
            smoothed_log_ratio, pair.before, pair.after, pair.shift_variance, depth=self.radius + 1,
            outputs={"ratio": "float32", "blur": "float32", "flat": bool}, radius=self.radius,
        )  # fmt: skip
        certain = np.sign(smooth.ratio) * np.maximum(np.abs(smooth.ratio) - 2 * smooth.blur, 0)
        fit = whole_image(histogram, cut, certain, smooth.flat, size=12)
        prior = np.nan if self.prior is None else float(self.prior)
        outputs = {"direction": "int8", "probability": "float32"}
        found = per_pixel(decided, certain, outputs=outputs, found=fit, prior=prior)
        bare = per_pixel(decided, smooth.ratio, outputs=outputs, found=fit, prior=prior)
        excused = (bare.direction != 0) & (found.direction == 0)
        return pair_changes(
            self, pair, seen=smooth.ratio.notnull(), direction=found.direction,
            magnitude=smooth.ratio * np.float32(10 / np.log(10)), probability=found.probability,
            why=xr.where(excused, WHY["misregistered"], 0) | xr.where(np.isinf(fit[0]), WHY["not_detectable"], 0),
        )  # fmt: skip
