"""Change between two SAR dates by clustering patches of the log-ratio (PCA-k-means)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood, per_pixel, whole_image
from geoalign.detectors.sar_pair import check_prior, pair_changes, pair_of
from geoalign.errors import ConfigError
from geoalign.kernels.log_ratio import smoothed_log_ratio
from geoalign.kernels.pca_kmeans import learn, parted, patches
from geoalign.types.changes import WHY

STEEP = 3.0
"""ln odds of change at the changed centre, at even prior."""
SAMPLE = {"block": 512, "most": 25}


@dataclass(frozen=True)
class PcaKmeans:
    """Two clusters of the patches of |log-ratio|: the one farther from zero changed.

    Parameters
    ----------
    since : str or datetime64, optional
        First date of the second group. None compares the first scene with the last.
    side : int
        Of a patch, px, odd.
    components : int
        Principal components kept.
    prior : float, optional
        Share of change that `probability` assumes; None takes the share found in the image.
    seed : int
        Of k-means (used only if a cluster runs empty).

    Notes
    -----
    Two clusters are always found, whether something changed or not: use `sar_change` to know. `probability` is the
    logistic of the distances to both centres, not calibrated. The axes and centres are learnt from patches that do not
    overlap. With `sigma_px` the log-ratio is shortened by what the gradient and the residual shift make of it.

    References
    ----------
    Celik (2009), Unsupervised change detection in satellite images using principal component analysis and k-means
    clustering, doi:10.1109/LGRS.2009.2025059. Patches here are centred on their pixel, and the image is the log-ratio.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(8, 1 / 8, (2, 60, 60))
    >>> power[1, 20:40, 20:40] /= 4
    >>> found = PcaKmeans().detect(new_stack({"vv": power}, ["2024-01-01", "2024-01-13"]))
    >>> int(found.status[30, 30]), int(found.direction[30, 30]), int(found.status[5, 5])
    (3, -1, 0)
    """

    since: str | None = None
    side: int = 5
    components: int = 3
    prior: float | None = None
    seed: int = 0

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_prior(self.prior)
        if not (isinstance(self.side, int) and self.side % 2 and 3 <= self.side <= 15):
            raise ConfigError(f"side is {self.side!r}; it is an odd number of px from 3 to 15.")
        if not (isinstance(self.components, int) and 1 <= self.components <= self.side**2):
            raise ConfigError(f"components is {self.components!r}; it is a whole number from 1 to side squared.")

    def detect(self, stack):
        """Changes (y, x) between the two groups of dates of a Stack; lazy where the stack is."""
        pair = pair_of(stack, self.since)
        smooth = neighbourhood(
            smoothed_log_ratio, pair.before, pair.after, pair.shift_variance, depth=2,
            outputs={"ratio": "float32", "blur": "float32", "flat": bool}, radius=1,
        )  # fmt: skip
        certain = np.maximum(np.abs(smooth.ratio) - 2 * smooth.blur, 0)
        n = self.side**2
        learnt = whole_image(
            patches, partial(learn, side=self.side, components=self.components, seed=self.seed), certain,
            size=n * (1 + self.components) + 2 * self.components + 1, side=self.side, step=self.side, **SAMPLE,
        )  # fmt: skip
        score = {
            name: neighbourhood(
                parted, image, depth=self.side // 2, outputs={"score": "float32"},
                learnt=learnt, side=self.side, components=self.components,
            ).score
            for name, image in (("told", certain), ("bare", np.abs(smooth.ratio)))
        }  # fmt: skip
        changed = score["told"] > 0
        p = per_pixel(
            _probability, score["told"], outputs={"p": "float32"},
            share=learnt[-1], prior=np.nan if self.prior is None else float(self.prior),
        ).p  # fmt: skip
        return pair_changes(
            self, pair, seen=smooth.ratio.notnull(),
            direction=xr.where(changed, np.sign(smooth.ratio), 0).astype("int8"),
            magnitude=smooth.ratio * np.float32(10 / np.log(10)), probability=p,
            why=xr.where((score["bare"] > 0) & ~changed, WHY["misregistered"], 0),
        )  # fmt: skip


def _probability(score, share, prior):
    if not 0 < share < 1:
        return np.zeros(score.size, np.float32)
    moved = 0.0 if np.isnan(prior) else np.log(prior / (1 - prior)) - np.log(share / (1 - share))
    return (1 / (1 + np.exp(-(STEEP * np.clip(np.nan_to_num(score, nan=-9), -9, 9) + moved)))).astype(np.float32)
