"""Change between two dates, or two groups of dates, by the log-ratio of their intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood, per_pixel, whole_image
from geoalign.errors import ConfigError, StackError
from geoalign.kernels.log_ratio import (
    LOW,
    STEP,
    before_and_after,
    classify,
    difference_histogram,
    ratio_histogram,
    smoothed_log_ratio,
    smoothing_radius,
)
from geoalign.kernels.threshold import two_sided
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import SAR_BANDS, check_stack

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
        if self.prior is not None and not 0 < self.prior < 1:
            raise ConfigError(f"prior is {self.prior!r}; it is a share strictly between 0 and 1, or None.")

    def detect(self, stack):
        """Changes (y, x) between the two groups of dates of a Stack; lazy where the stack is."""
        check_stack(stack, min_scenes=2)
        bands = [name for name in stack.data_vars if name in SAR_BANDS] or list(stack.data_vars)
        if len(bands) > 1 and bands[0] not in SAR_BANDS:
            raise StackError(
                f"which band is meant? The stack has {', '.join(map(str, bands))}, none of them backscatter "
                f"({', '.join(SAR_BANDS)}). Give one, as stack[['{bands[0]}']]."
            )
        stack, split = self._groups(stack)
        offset = whole_image(_quick_look, _offset, *(stack[b] for b in bands))
        parts = [_means(stack[b], split, offset) for b in bands]
        before = xr.concat([p.before for p in parts], "band")
        after = xr.concat([p.after for p in parts], "band")
        radius = whole_image(difference_histogram, smoothing_radius, parts[0].before, parts[0].after)
        smooth = neighbourhood(
            smoothed_log_ratio,
            before,
            after,
            self._shift_variance(stack, split, parts[0].before),
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
        return self._changes(stack, parts, smooth, found, fit)

    def _groups(self, stack):
        if self.since is None:
            return stack.isel(time=[0, -1]), 1
        since = np.datetime64(self.since, "ns")
        split = int((stack.time.values < since).sum())
        if not 0 < split < stack.sizes["time"]:
            raise StackError(
                f"since {self.since} leaves {split} scenes before and {stack.sizes['time'] - split} after it "
                f"(first {str(stack.time.values[0])[:10]}, last {str(stack.time.values[-1])[:10]}); both need one."
            )
        return stack, split

    def _shift_variance(self, stack, split, like):
        if "sigma_px" not in stack.coords:
            return xr.zeros_like(like)
        squares = stack.sigma_px.astype("float32") ** 2
        # the mean of a group has the mean of its scenes' errors, each its own
        total = squares[:split].mean("time") / split + squares[split:].mean("time") / (squares.sizes["time"] - split)
        return (xr.zeros_like(like) + total.reset_coords(drop=True)).astype("float32")

    def _changes(self, stack, parts, smooth, found, fit):
        n_obs = xr.concat([p.n_obs for p in parts], "band").min("band")
        seen = smooth.ratio.notnull()
        changed = seen & (found.direction != 0)
        status = xr.where(seen, xr.where(changed, CONFIRMED, NO_CHANGE), NOT_OBSERVABLE)
        why = xr.where(seen, 0, xr.where(n_obs > 0, WHY["too_few"], WHY["no_data"]))
        refused = np.isinf(fit[1]) & np.isinf(fit[13])
        why = (
            why | xr.where(seen & refused, WHY["not_detectable"], 0) | xr.where(found.blurred, WHY["misregistered"], 0)
        )
        time = stack.time.values
        last = xr.concat([p["last"] for p in parts], "band").min("band")
        first = xr.concat([p["first"] for p in parts], "band").max("band")
        date = dates_at(first.where(changed, -1).astype("int32"), time)
        magnitude = (smooth.ratio - fit[0].astype("float32")) * np.float32(10 / np.log(10))
        layers = {
            "status": status,
            "date": date,
            "date_after": dates_at(last.where(changed, -1).astype("int32"), time),
            "date_by": date,
            "magnitude": magnitude,
            "direction": found.direction,
            "probability": found.probability,
            "n_obs": n_obs,
            "why": why,
        }
        return new_changes(
            layers, kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units="dB",
            inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip


def _means(band, split, offset):
    return per_pixel(
        before_and_after,
        band,
        outputs={"before": "float32", "after": "float32", "last": "int32", "first": "int32", "n_obs": "uint16"},
        split=split,
        offset=offset,
    )


def _quick_look(*blocks):
    """Largest value, and whether every value is a whole number."""
    whole, largest = 1.0, 0.0
    for block in blocks:
        values = block[np.isfinite(block)]
        if values.size:
            whole = min(whole, float((values == np.round(values)).all()))
            largest = max(largest, float(values.max()))
    return whole, largest


def _offset(parts):
    return float(all(p[0] for p in parts) and max(p[1] for p in parts) > 1)


def _fit(parts):
    return two_sided(np.sum(parts, axis=0), LOW, STEP)
