"""Every step in a SAR series, each with its date, interval and probability: generalised likelihood ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood
from geoalign.detectors.sar_input import check_share, correlation_of, sar_bands, speckle_of
from geoalign.errors import ConfigError
from geoalign.kernels.gamma_breaks import breaks
from geoalign.kernels.glr_null import TWO_SIDED, max_quantile
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack

NEPER_DB = 10 / np.log(10)
ALIKE_SHARE = 0.7
"""Share of alpha spent on what all bands do alike, which real change mostly does; the rest on any step."""


@dataclass(frozen=True)
class GammaGlr:
    """The dates at which the mean intensity of a pixel stepped to another level, in a long SAR series.

    The likelihood ratio of two means against one is taken at every date, for gamma intensities of L looks in any number
    of bands; where the largest exceeds what a stable series shows by chance, the series is cut there and both parts are
    searched in the same way (binary segmentation). Then each date is found again between its neighbours, and changes
    that these make needless are dropped. What all bands do alike is tested apart, with 0.7 of `alpha`: one degree of
    freedom instead of one a band.

    Parameters
    ----------
    alpha : float
        Chance that a stable pixel is flagged anywhere in the series; again for either part beside a change.
    enl : float, optional
        Looks. None takes each band's `attrs["enl"]`, and estimates it from the series where there is none.
    prior : float
        Share of changed pixels that `probability` assumes.
    change_db : float
        Size of change that `probability` assumes (standard deviation of a step in one band, dB; the bands' steps are
        taken as correlated by 0.7).
    min_obs : int
        Observations below which a pixel is not observable. All bands must be there at a date.
    max_breaks : int
        Changes of a pixel that are kept in `break_date` and its like; all are counted.

    Notes
    -----
    Besides the layers of every Changes: `n_changes` and, over (break, y, x) in order of time, `break_date`,
    `break_after`, `break_by`, `break_magnitude`, `break_probability`. A change lies between `date_after` and `date_by`
    in 95 % of cases or more (posterior over all dates). `magnitude` is the mean over bands of the ratio of the means
    after and before, in dB; `direction` is +1 or -1 where all bands agree, else 0.

    A step stays; a change that ends is found as two steps where either side lasts long enough to show in the mean of
    all (`omnibus` looks for any pattern, this for steps, more sharply). Assumed: looks alike in time; season and rain
    are part of the noise where the ENL is estimated, and count as change where it is given. Successive dates may be
    correlated: how much is estimated from the scene (`kernels.lag`), and means over correlated dates are trusted as
    much less as they deserve. A given ENL is believed; one that is too high flags stable pixels.

    With the coordinate `sigma_px` the log-variance of an observation grows by (|gradient| / intensity x sigma_px)^2,
    once for each band (the shift is the same in all).

    References
    ----------
    Vostrikova (1981), Detecting "disorder" in multidimensional random processes, Soviet Mathematics Doklady 24, 55-59,
    for binary segmentation; Bartlett (1937), doi:10.1098/rspa.1937.0109, for the correction to few looks. The law of
    the largest of many ratios is simulated (`kernels.glr_null`).

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(8, 1 / 8, (60, 20, 20))
    >>> power[20:, 5, 5] /= 4
    >>> power[45:, 5, 5] *= 4
    >>> time = np.datetime64("2024-01-01") + 12 * np.arange(60)
    >>> found = GammaGlr(enl=8).detect(new_stack({"vh": power}, time))
    >>> int(found.n_changes[5, 5]), [str(d)[:10] for d in found.break_date.values[:2, 5, 5]]
    (2, ['2024-08-28', '2025-06-24'])
    """

    alpha: float = 0.005
    enl: float | None = None
    prior: float = 0.1
    change_db: float = 4.0
    min_obs: int = 4
    max_breaks: int = 4

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_share("alpha", self.alpha)
        check_share("prior", self.prior)
        if not self.change_db > 0:
            raise ConfigError(f"change_db is {self.change_db!r}; it is a size in dB above 0.")
        if self.min_obs < 2 or self.max_breaks < 1:
            raise ConfigError(
                f"min_obs is {self.min_obs} and max_breaks {self.max_breaks}; at least 2 and 1 are needed."
            )

    def detect(self, stack):
        """Changes (y, x) of a Stack of one orbit; lazy where the stack is."""
        found = self.search(stack)
        return new_changes(
            self.layers(stack, found), kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units="dB",
            inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip

    def search(self, stack):
        """Dataset of what `kernels.gamma_breaks.breaks` gives, dates as numbers of scenes."""
        check_stack(stack, min_scenes=2)
        bands = sar_bands(stack)
        speckle = speckle_of(stack, bands, self.enl)
        kept = dict.fromkeys(("break_date", "break_after", "break_by"), ("int32", "break", self.max_breaks))
        sizes = dict.fromkeys(("break_magnitude", "break_probability"), ("float32", "break", self.max_breaks))
        return neighbourhood(
            _breaks,
            *(stack[b].transpose("time", "y", "x").reset_coords(drop=True) for b in bands),
            speckle.looks,
            speckle.slope,
            speckle.sigma,
            depth=0,
            outputs={
                "n_obs": "uint16", "n_changes": "uint16", "flag": "uint8",
                **dict.fromkeys(("strongest", "after", "by"), "int32"),
                "magnitude": "float32", "direction": "int8", "probability": "float32", **kept, **sizes,
            },
            limits=limits(self.alpha, stack.sizes["time"], len(bands)), d0=speckle.d0, lag=correlation_of(stack, bands),
            prior=float(self.prior), spread=float(self.change_db / NEPER_DB), min_obs=int(self.min_obs),
            max_breaks=int(self.max_breaks),
        )  # fmt: skip

    def layers(self, stack, found):
        """The layers of Changes from what `search` gave."""
        time = stack.time.values
        seen = found.n_obs >= self.min_obs
        changed = found.n_changes > 0
        why = xr.where(seen, 0, xr.where(found.n_obs > 0, WHY["too_few"], WHY["no_data"]))
        return {
            "status": xr.where(seen, xr.where(changed, CONFIRMED, NO_CHANGE), NOT_OBSERVABLE),
            "date": dates_at(found.strongest, time),
            "date_after": dates_at(found.after, time),
            "date_by": dates_at(found.by, time),
            "magnitude": found.magnitude,
            "direction": found.direction,
            "probability": found.probability,
            "n_obs": found.n_obs,
            "why": why | xr.where((found.flag & 2) > 0, WHY["misregistered"], 0),
            "n_changes": found.n_changes,
            "break_date": dates_at(found.break_date, time),
            "break_after": dates_at(found.break_after, time),
            "break_by": dates_at(found.break_by, time),
            "break_magnitude": found.break_magnitude,
            "break_probability": found.break_probability,
        }


def _breaks(*layers, **scalars):
    *bands, looks, slope, sigma = layers
    # one type for all, as a compiled kernel wants its tuples
    bands = tuple(b if b.flags.writeable else b.copy() for b in bands)
    return breaks(bands, looks, slope, sigma, **scalars)


def limits(alpha, n_time, n_band):
    """(2, n_time + 1): what the largest z of a stable segment of n dates, and of its common part, exceed by chance."""
    out = np.full((2, n_time + 1), np.inf)
    shares = ((1 - ALIKE_SHARE) * alpha, ALIKE_SHARE * alpha) if n_band > 1 else (alpha, None)
    for n in range(2, n_time + 1):
        out[0, n] = max_quantile(shares[0], n, n_band, TWO_SIDED)
        if n_band > 1:
            out[1, n] = max_quantile(shares[1], n, 1, TWO_SIDED)
    return out
