"""From what to what: stable segments of a SAR series described and grouped into classes over the region."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd

from geoalign.chunked import neighbourhood, whole_image
from geoalign.detectors.gamma_glr import GammaGlr
from geoalign.detectors.sar_input import check_share, sar_bands
from geoalign.detectors.series import years
from geoalign.errors import ConfigError
from geoalign.kernels.land_cover import NONE, assign, classes, describe, sample
from geoalign.types.changes import new_changes

SCALE_DB = {"level": 2.0, "ratio": 2.0, "variability": 1.0, "season": 2.0}
"""What counts as one unit of difference in each feature."""
APART = 1.0
"""Units by which two classes must differ to be two."""
SAMPLE_BLOCK = {"block": 256, "most": 36}


@dataclass(frozen=True)
class LandCover:
    """Steps in a SAR series that say from what to what: a class of ground before, and one after.

    `gamma_glr` cuts each pixel's series into stable segments. Each is described by the level of every band, their
    ratio, its variability and its season (dB), and all segments of the region are grouped by k-means. Classes are
    numbered from the weakest backscatter to the strongest (0 is the water of a scene that has some); what they are is
    for the user to say, with the help of `class_table`.

    Parameters
    ----------
    alpha : float
        Chance that a stable pixel is flagged anywhere in the series.
    enl : float, optional
        Looks. None takes each band's `attrs["enl"]`, and estimates it from the series where there is none.
    prior : float
        Share of changed pixels that `probability` assumes.
    n_class : int
        Classes at most; those nearer to each other than 2 dB in all are one.
    max_breaks : int
        Changes of a pixel that are kept; what follows the last of them is one segment.
    seed : int
        Of the k-means. The same seed gives the same classes, however the stack is chunked.

    Notes
    -----
    Layers besides those of `gamma_glr`: `class_from` and `class_to`, the classes before and after the strongest change
    (where nothing changed, both the pixel's class; 255 none), and over (segment, y, x) `segment_class`,
    `segment_<band>`, `segment_ratio`, `segment_variability`, `segment_season`. A segment under 300 days has no season,
    one of fewer than four observations no variability, and is classed by the rest. A change may stay within a class:
    the step is real, the kind of ground the same. A season of more than 1 to 2 dB that little of the scene has is cut
    into steps of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = np.full((60, 24, 24), 0.02)
    >>> power[:, :12] = 0.1
    >>> power[30:, :4] = 0.02
    >>> speckle = np.random.default_rng(0).gamma(8, 1 / 8, power.shape)
    >>> stack = new_stack({"vh": power * speckle}, np.datetime64("2023-01-01") + 12 * np.arange(60))
    >>> found = LandCover(enl=8).detect(stack)
    >>> [(int(found.class_from[r, 0]), int(found.class_to[r, 0])) for r in (0, 8, 20)]
    [(1, 0), (1, 1), (0, 0)]
    """

    alpha: float = 0.005
    enl: float | None = None
    prior: float = 0.1
    n_class: int = 6
    max_breaks: int = 4
    seed: int = 0

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_share("alpha", self.alpha)
        check_share("prior", self.prior)
        if not 2 <= self.n_class <= 50 or self.max_breaks < 1:
            raise ConfigError(
                f"n_class is {self.n_class} and max_breaks {self.max_breaks}; 2 to 50 classes and 1 or more breaks."
            )

    def detect(self, stack):
        """Changes (y, x) of a Stack of one orbit; lazy where the stack is."""
        steps = GammaGlr(alpha=self.alpha, enl=self.enl, prior=self.prior, max_breaks=self.max_breaks)
        found = steps.search(stack)
        bands = sar_bands(stack)
        names = [*bands, "ratio", "variability", "season"]
        scale = np.array([SCALE_DB.get(name, SCALE_DB["level"]) for name in names])
        n_segment = self.max_breaks + 1
        features = neighbourhood(
            _described,
            *(stack[b].transpose("time", "y", "x").reset_coords(drop=True) for b in bands),
            found.break_date,
            depth=0,
            outputs={"features": ("float32", "feature", n_segment * len(names))},
            years=years(stack.time.values),
        ).features
        centres = whole_image(
            partial(sample, n_feature=len(names)),
            partial(classes, n_class=self.n_class, scale=scale, apart=APART, seed=self.seed),
            features,
            size=self.n_class * len(names),
            **SAMPLE_BLOCK,
        )
        classed = neighbourhood(
            assign,
            features,
            found.strongest,
            found.break_date,
            depth=0,
            outputs={"segment_class": ("uint8", "segment", n_segment), "class_from": "uint8", "class_to": "uint8"},
            centres=centres,
            scale=scale,
        )
        layers = steps.layers(stack, found) | dict(classed.data_vars)
        for k, name in enumerate(names):
            layers[f"segment_{name}"] = features.isel(feature=slice(k, None, len(names))).rename(feature="segment")
        return new_changes(
            layers, kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units="dB",
            inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip


def class_table(changes):
    """What the classes of `land_cover` look like: a row a class, pixels now and mean features of its segments (dB).

    changes : Changes made by LandCover, computed. Returns a DataFrame indexed by class.
    """
    names = [n for n in changes.data_vars if n.startswith("segment_") and n != "segment_class"]
    flat = {name: changes[name].values.ravel() for name in ["segment_class", *names]}
    frame = pd.DataFrame(flat)
    frame = frame[frame.segment_class != NONE]
    table = frame.groupby("segment_class")[names].mean()
    now = pd.Series(changes.class_to.values.ravel()).value_counts()
    table.insert(0, "pixels", now.reindex(table.index).fillna(0).astype(int))
    return table.rename(columns=lambda name: name.removeprefix("segment_")).rename_axis("class")


def _described(*layers, years):
    *bands, breaks = layers
    return describe(np.stack(bands), breaks, years)
