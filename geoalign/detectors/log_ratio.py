"""Change between two dates, or two groups of dates, by the log-ratio of their intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood, whole_image
from geoalign.detectors.sar_pair import check_prior, pair_changes, pair_of
from geoalign.kernels.log_ratio import (
    LOW,
    STEP,
    classify,
    difference_histogram,
    ratio_histogram,
    smoothed_log_ratio,
    smoothing_radius,
)
from geoalign.kernels.threshold import two_sided
from geoalign.types.changes import WHY

VOTE_PX = 2
"""Radius of the majority vote (5 x 5): change is larger than that, speckle is not."""
LARGEST_BOXCAR_PX = 3


@dataclass(frozen=True)
class LogRatio:
    """What changed between two SAR scenes, brighter or darker, without a number to choose.

    Means of each group of dates are smoothed by a boxcar just wide enough for their speckle (3 x 3 to 7 x 7: the noise
    of the log-ratio falls to 0.15 nepers or less, measured between neighbours). The log-ratio's histogram is cut on
    either side of its mode by Kittler and Illingworth's criterion with generalised Gaussians, where two classes explain
    that side clearly better than one; where they do not, nothing changed on that side, and with neither side cut every
    pixel carries the reason `not_detectable`: no threshold is forced on an image that shows none. A 5 x 5 majority vote
    removes what speckle is left.

    Parameters
    ----------
    since : str or datetime64, optional
        First date of the second group. None compares the first scene with the last.
    prior : float, optional
        Share of change that `probability` assumes; None takes the share found in the image.

    Notes
    -----
    SAR bands are averaged in the log-ratio; any other stack must have one band. Values <= 0 are missing, except in
    a quick-look (all values whole numbers): there zero is the darkest grey, and one grey step is added before the
    ratio. Windows that are constant in both groups (clipped quick-looks) do not enter the histogram.

    `magnitude` is the log-ratio in dB less that of the unchanged ground, `direction` its sign. `probability` is the
    posterior of the fitted classes. With a coordinate `sigma_px` the unchanged class widens by (|gradient| sigma_px)^2;
    pixels that only this excuses carry the reason `misregistered`.

    There is no `alpha`: the cut is where both errors together are least, not where one of them has a given size.

    References
    ----------
    Bazi, Bruzzone and Melgani (2005), An unsupervised approach based on the generalized Gaussian model to automatic
    change detection in multitemporal SAR images, doi:10.1109/TGRS.2004.842441; Moser and Serpico (2006),
    doi:10.1109/TGRS.2006.876288. We add the gate, see `kernels.threshold.half_threshold`.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(8, 1 / 8, (2, 60, 60))
    >>> power[1, 20:40, 20:40] /= 4
    >>> found = LogRatio().detect(new_stack({"vv": power}, ["2024-01-01", "2024-01-13"]))
    >>> int(found.status[30, 30]), int(found.direction[30, 30]), int(found.status[5, 5])
    (3, -1, 0)
    """

    since: str | None = None
    prior: float | None = None

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_prior(self.prior)

    def detect(self, stack):
        """Changes (y, x) between the two groups of dates of a Stack; lazy where the stack is."""
        pair = pair_of(stack, self.since)
        radius = whole_image(difference_histogram, smoothing_radius, pair.before.isel(band=0), pair.after.isel(band=0))
        smooth = neighbourhood(
            smoothed_log_ratio,
            pair.before,
            pair.after,
            pair.shift_variance,
            depth=LARGEST_BOXCAR_PX,
            outputs={"ratio": "float32", "blur": "float32", "flat": bool},
            radius=radius,
        )
        fit = whole_image(ratio_histogram, _fit, smooth.ratio, smooth.flat, size=25)
        prior = np.nan if self.prior is None else float(self.prior)
        found = neighbourhood(
            classify,
            smooth.ratio,
            smooth.blur,
            depth=VOTE_PX,
            outputs={"direction": "int8", "probability": "float32", "blurred": bool},
            fit=fit,
            prior=prior,
            radius=VOTE_PX,
        )
        refused = np.isinf(fit[1]) & np.isinf(fit[13])
        return pair_changes(
            self,
            pair,
            seen=smooth.ratio.notnull(),
            direction=found.direction,
            magnitude=(smooth.ratio - fit[0].astype("float32")) * np.float32(10 / np.log(10)),
            probability=found.probability,
            why=xr.where(refused, WHY["not_detectable"], 0) | xr.where(found.blurred, WHY["misregistered"], 0),
        )


def _fit(parts):
    return two_sided(np.sum(parts, axis=0), LOW, STEP)
