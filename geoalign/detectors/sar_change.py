"""Change between two SAR dates: the detector of two dates to use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import derived, neighbourhood, per_pixel, whole_image
from geoalign.detectors.sar_pair import check_prior, pair_changes, pair_of
from geoalign.kernels.log_ratio import N_BIN
from geoalign.kernels.sar_change import (
    DEPTH,
    LAGS,
    LEVELS,
    SCALES,
    first_cut,
    first_labels,
    joint_histogram,
    joint_statistics,
    judged,
    lag_histogram,
    lag_statistics,
    noise,
    noise_histogram,
    posterior,
    ratio_histograms,
    smoothed,
    speckle_of_pair,
    total,
)
from geoalign.types.changes import WHY

BETA = 3.0
"""Strength of the spatial prior: agreeing neighbours are worth 6 nats, a straight border through a pixel's
neighbourhood none."""
ROUNDS = 10
TURNS = 4
"""How often the classes are learnt again from the labels."""
TEMPER = 0.5
"""Share of the posterior log-odds that is believed: neighbours are not independent witnesses. By simulation."""


@dataclass(frozen=True)
class SarChange:
    """What changed between two SAR scenes of any and unequal speckle, learnt from the pair itself.

    1. The noise of each date is measured between neighbours. The log-ratio of Gaussian means just wide enough for it,
       or wider where that shows nothing, is cut on either side of its mode by Kittler and Illingworth's criterion with
       generalised Gaussians; a side that shows no second class stays without change. A small class counts where wider
       means keep it, single bright points do not.
    2. From these labels the classes are learnt: how much the changed ground fell or rose, and which pairs of values
       (before, after) changed and unchanged pixels have. Every pixel, hardly smoothed, is then judged by the mean of
       two likelihood ratios: that of two gamma variables of each date's own looks, and that of the joint histograms.
    3. A Potts field spreads the evidence of neighbours, by mean field. 2 and 3 are repeated four times.

    So edges stay where they are, strong or unequal speckle is averaged within what changed rather than across its
    border, and nothing is asked of the user.

    Parameters
    ----------
    since : str or datetime64, optional
        First date of the second group. None compares the first scene with the last.
    prior : float, optional
        Share of change that `probability` assumes; None takes the share found in the image.

    Notes
    -----
    SAR bands are averaged in the log-ratio; any other stack must have one band. Values <= 0 are missing, except in
    a quick-look (all values whole numbers), where zero is the darkest grey. An unknown stretch is no obstacle as long
    as noise grows with the signal (intensity, amplitude, any power of it); a stretch in dB works less well.

    `magnitude` is the log-ratio of the least mean in dB, less that of the unchanged ground; `direction` its sign. Where
    neither side shows a second class nothing changed, and every pixel carries the reason `not_detectable`. With a
    coordinate `sigma_px` the noise grows by (|gradient| sigma_px)^2; pixels that only this excuses carry
    `misregistered`. Change smaller than about ten pixels, or fainter than its speckle, is lost.

    There is no `alpha`: a change has to be a class of its own, not a deviation.

    References
    ----------
    Bazi, Bruzzone and Melgani (2005), doi:10.1109/TGRS.2004.842441 (the first cut); Bruzzone and Fernandez Prieto
    (2000), Automatic analysis of the difference image for unsupervised change detection, doi:10.1109/36.843009
    (classes and field in turn); Zhang (1992), doi:10.1109/78.157297 (mean field). The likelihoods, their mean and the
    measures of noise are ours.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(2, 1 / 2, (2, 80, 80))
    >>> power[1, 30:50, 30:50] /= 6
    >>> found = SarChange().detect(new_stack({"vv": power}, ["2024-01-01", "2024-01-13"]))
    >>> int(found.status[40, 40]), int(found.direction[40, 40]), int(found.status[5, 5])
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
        spread = whole_image(noise_histogram, noise, pair.before, pair.after, size=5)
        view = neighbourhood(
            smoothed, pair.before, pair.after, pair.shift_variance,
            depth=DEPTH,
            outputs={
                "ratio": ("float32", "scale", len(SCALES)), "light": "float32", "place": "int16", "shrink": "float32",
                "flat": bool,
            },
            spread=spread,
        )  # fmt: skip
        counts = whole_image(ratio_histograms, total, view.ratio, view.flat, size=len(SCALES) * N_BIN)
        cut = derived(first_cut, counts, spread, size=8)
        first = neighbourhood(
            first_labels, view.ratio, view.shrink, depth=0, outputs={"label": "int8", "blurred": bool}, cut=cut
        )
        labels = first.label
        lags = whole_image(
            lag_histogram,
            lag_statistics,
            pair.before,
            pair.after,
            view.ratio,
            labels,
            view.flat,
            size=2 * len(LAGS) + 4,
        )
        speckle = derived(speckle_of_pair, lags, spread, cut, size=5)
        for _ in range(TURNS):
            tables = whole_image(
                joint_histogram, joint_statistics, view.place, view.ratio, labels, size=5 + 2 * LEVELS**2
            )
            found = neighbourhood(
                judged, view.light, view.place, view.ratio, view.shrink, labels,
                depth=ROUNDS, outputs={"label": "int8", "odds": "float32"},
                cut=cut, speckle=speckle, tables=tables, beta=BETA, n_round=ROUNDS,
            )  # fmt: skip
            labels = found.label
        return self._changes(pair, view, first, found, cut, tables)

    def _changes(self, pair, view, first, found, cut, tables):
        seen = view.ratio.isel(scale=0).notnull()
        direction = xr.where(seen, found.label, 0).astype("int8")
        refused = np.isinf(cut[5]) & np.isinf(cut[7])
        excused = first.blurred & (direction == 0)
        probability = per_pixel(
            posterior, found.odds, found.label, outputs={"p": "float32"},
            share=tables[4], prior=np.nan if self.prior is None else float(self.prior), temper=TEMPER,
        ).p  # fmt: skip
        return pair_changes(
            self, pair, seen=seen, direction=direction,
            magnitude=(view.ratio.isel(scale=0) - cut[0].astype("float32")) * np.float32(10 / np.log(10)),
            probability=probability,
            why=xr.where(refused, WHY["not_detectable"], 0) | xr.where(excused, WHY["misregistered"], 0),
        )  # fmt: skip
