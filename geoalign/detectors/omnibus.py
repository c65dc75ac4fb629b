"""Every change in a SAR series: the sequential omnibus test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from geoalign.chunked import per_pixel
from geoalign.detectors.sar_input import Speckle, check_share, correlation_of, cube, one_orbit, sar_bands, speckle_of
from geoalign.errors import ConfigError
from geoalign.kernels.omnibus import omnibus
from geoalign.types.changes import CONFIRMED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack

NEPER_DB = 10 / np.log(10)
C2_BANDS = ("c11", "c22", "c12_re", "c12_im")
"""Names of the covariance matrix of two channels, linear power; c12 = <s1 conj(s2)>."""


@dataclass(frozen=True)
class Omnibus:
    """Which pixels of a SAR series changed at all, when first and last, how often and which way.

    A pixel's series of intensities (any number of channels, taken as independent gamma variables of L looks) is first
    held against "nothing changed": Conradsen's omnibus Q, sensitive to any pattern in time, and the largest step,
    sensitive to a change that stays, with a tenth and nine tenths of `alpha`. Only where this gate opens are changes
    dated, by the factors R_j of Q one date after the other, and each date is then set to its maximum likelihood between
    its neighbours.

    Parameters
    ----------
    alpha : float
        Chance that a stable pixel is flagged anywhere in the series.
    enl : float, optional
        Looks. None takes each band's `attrs["enl"]`, and estimates it from the series where there is none.
    prior : float
        Share of changed pixels that `probability` assumes.
    change_db : float
        Size of change that `probability` assumes (standard deviation of a step, dB).
    min_obs : int
        Observations below which a pixel is not observable. All bands must be there at a date.
    max_breaks : int
        Changes of a pixel that are kept in `break_date`, `break_magnitude`, `break_probability`; all are counted.

    Notes
    -----
    Layers besides those of every Changes: `n_changes`, `first_date`, `last_date`, `p_value` (of the gate) and, over
    (break, y, x), `break_date`, `break_magnitude`, `break_probability`. `magnitude` is the mean over bands of the ratio
    of the means after and before, in dB; `direction` is +1 or -1 where all bands agree, else 0. Where Q is significant
    but no single date is, the pixel is flagged `unlocated`: its date is the most likely one, `date_after` and `date_by`
    span the series.

    A stack with the bands `c11`, `c22`, `c12_re`, `c12_im` (linear power) is tested by its covariance matrices, complex
    Wishart of L looks: besides the two intensities, a change of the channels' correlation or of its phase shows. Other
    bands are not used then. A matrix that is not positive definite is not observed, as every one of a single look:
    average first. `magnitude` is that of the intensities, `direction` +1 or -1 where the matrix
    grows or shrinks for every polarisation (Loewner order). The looks are those of both channels, on average.

    Assumed: looks are alike in time. The correlation of successive dates is estimated from the scene (`kernels.lag`)
    and allowed for. An estimated ENL holds all that varies from date to date where nothing changed (speckle, soil
    moisture, despeckling), is lowered where the ground is noisier than the scene, and looks may differ between pixels;
    pixels that a step or two explain too well take no part in it, so that change does not pass for noise. A given one
    (`enl`, `attrs["enl"]`) is believed, and one that is too high flags stable pixels. Rain that changes the whole scene
    on one date counts as change where the ENL is given. Scenes need one orbit.

    Measured on stable gamma series of 2 to 200 dates and 1 to 20 looks, a nominal 0.01 is 0.008 to 0.011; at one look
    it is 0.006 for two dates and 0.007 for 200.

    With the coordinate `sigma_px` the log-variance of an observation grows by (|gradient| / intensity x sigma_px)^2,
    once for each band (the shift is the same in all).

    References
    ----------
    Conradsen, Nielsen and Skriver (2016), Determining the points of change in time series of polarimetric SAR data,
    doi:10.1109/TGRS.2015.2510160. We add the step to the gate, unequal looks (Bartlett 1937), the dates by likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.1 * np.random.default_rng(0).gamma(8, 1 / 8, (10, 20, 20))
    >>> power[6:, 5, 5] *= 8
    >>> time = np.arange("2024-01-01", "2024-04-30", 12, "datetime64[D]")
    >>> found = Omnibus(enl=8).detect(new_stack({"vv": power}, time))
    >>> str(found.date.values[5, 5])[:10] == str(time[6]), int(found.direction[5, 5])
    (True, 1)
    """

    alpha: float = 0.01
    enl: float | None = None
    prior: float = 0.1
    change_db: float = 4.0
    min_obs: int = 3
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
        check_stack(stack, min_scenes=2)
        matrices = set(C2_BANDS) <= set(stack.data_vars)
        bands = list(C2_BANDS[:2]) if matrices else sar_bands(stack)
        if matrices:
            one_orbit(stack)
        speckle = _of_matrices(stack, self.enl) if matrices else speckle_of(stack, bands, self.enl)
        kept = {"first": "int32", "last": "int32", "strongest": "int32", "previous": "int32"}
        found = per_pixel(
            omnibus,
            cube(stack, C2_BANDS if matrices else bands),
            speckle.looks,
            speckle.slope,
            speckle.sigma,
            outputs={
                "n_obs": "uint16", "n_changes": "uint16", "flag": "uint8", **kept,
                "magnitude": "float32", "direction": "int8", "probability": "float32", "p_value": "float32",
                "break_date": ("int32", "break", self.max_breaks),
                "break_magnitude": ("float32", "break", self.max_breaks),
                "break_probability": ("float32", "break", self.max_breaks),
            },
            d0=speckle.d0, alpha=float(self.alpha), prior=float(self.prior), spread=float(self.change_db / NEPER_DB),
            min_obs=int(self.min_obs), max_breaks=int(self.max_breaks), lag=correlation_of(stack, bands),
        )  # fmt: skip
        return self._changes(stack, found)

    def _changes(self, stack, found):
        seen = found.n_obs >= self.min_obs
        changed = found.n_changes > 0
        unlocated = (found.flag & 1) > 0
        time = stack.time.values
        why = xr.where(seen, 0, xr.where(found.n_obs > 0, WHY["too_few"], WHY["no_data"]))
        why = why | xr.where(unlocated, WHY["unlocated"], 0) | xr.where((found.flag & 2) > 0, WHY["misregistered"], 0)
        date = dates_at(found.strongest, time)
        span = changed & unlocated
        layers = {
            "status": xr.where(seen, xr.where(changed, CONFIRMED, NO_CHANGE), NOT_OBSERVABLE),
            "date": date,
            "date_after": dates_at(xr.where(span, 0, found.previous).astype("int32"), time),
            "date_by": dates_at(xr.where(span, len(time) - 1, found.strongest).astype("int32"), time),
            "magnitude": found.magnitude,
            "direction": found.direction,
            "probability": found.probability,
            "n_obs": found.n_obs,
            "why": why,
            "n_changes": found.n_changes,
            "first_date": dates_at(found["first"], time),
            "last_date": dates_at(found["last"], time),
            "p_value": found.p_value,
            "break_date": dates_at(found.break_date, time),
            "break_magnitude": found.break_magnitude,
            "break_probability": found.break_probability,
        }
        return new_changes(
            layers, kind=self.kind, detector=repr(self), prior=self.prior, magnitude_units="dB",
            inputs=stack.scene.values if "scene" in stack.coords else (), coords=stack.coords,
        )  # fmt: skip


def _of_matrices(stack, enl):
    """Speckle of the two channels as one: each by itself, because they may be correlated."""
    parts = [speckle_of(stack, [name], enl) for name in C2_BANDS[:2]]
    looks, slope = (sum(getattr(p, k) for p in parts) / np.float32(2) for k in ("looks", "slope"))
    # there are four values of a matrix, and one number of looks
    looks, slope = (v.rename(band="matrix") for v in (looks, slope))
    return Speckle(looks, slope, parts[0].sigma, np.minimum(parts[0].d0, parts[1].d0))
