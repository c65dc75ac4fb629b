"""Water where there was none: when it came and when it went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri

from geoalign.chunked import neighbourhood, per_pixel
from geoalign.detectors.patches import check_area, sieve
from geoalign.detectors.series import check_options, part, widening
from geoalign.errors import StackError
from geoalign.indices import index
from geoalign.kernels.water import flood_runs, supported
from geoalign.types.changes import CONFIRMED, ENDED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack, is_sar

HISTORY_MIN = 3
"""Observations before the watched time that make a usual dry state."""
TOGETHER = 2
"""Scenes by which neighbours' first wet observation may differ in one flood (clouds hide some)."""


@dataclass(frozen=True)
class Flood:
    """Flood with its first and last date, from optical or SAR series.

    Optical: an observation is wet where its water index (mndwi; ndwi without swir1) rose by 0.2 or more over the
    pixel's usual dry value, at least half of the dry ground's infrared light is gone, and it is not bright as clouds
    are (tests of the kind of USGS DSWE, made relative to the pixel). Cast shadow fails the first test, cloud the last;
    snow in the shade is told by its near infrared, which is no darker than its green.
    A flood is two wet observations with no two dry ones between them, or one of open water by DSWE's test, with wet
    neighbours at about the same time. Where water stood in a quarter of the history, or at the same season, it is no
    flood.
    SAR: drop to the level of water, told from moisture and wind; from a single scene on. There, all open water is
    reported. Known water, slopes and shadow go along as coordinates of the stack. See `sar_flood.flood_sar`.

    Parameters
    ----------
    alpha : float
        Chance of a false alarm at a stable dry pixel over the whole time watched: the rise must pass the normal
        quantile of alpha shared among the observations. The conditions above only lower it.
    prior : float
        Share of change that `probability` assumes.
    since, until, history : see `HarmonicCusum`
    enl : float, optional
        Looks of SAR data; None estimates them.
    min_area_m2 : float
        Smaller patches are left out (grids in metres only).

    Notes
    -----
    `date` is the first wet observation. Status 3 where it is wet at the end, 4 where it fell dry, then `date_end` is
    the first dry observation. `magnitude` is the median rise of the water index. Where water stood before as well,
    status is 0 with the reason `not_detectable`; where the watched scenes show nothing of a pixel it is 255, `cloud`.

    References
    ----------
    Jones (2019), Improved automated detection of subpixel-scale inundation: revised Dynamic Surface Water Extent (DSWE)
    partial surface water tests, doi:10.3390/rs11040374; Xu (2006), doi:10.1080/01431160600589179.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> land, water = np.array([0.08, 0.30, 0.25]), np.array([0.09, 0.05, 0.02])
    >>> wet = np.isin(np.arange(20), (12, 13, 14))[:, None]
    >>> bands = np.where(wet, water, land)[:, :, None, None] * np.ones((3, 3))
    >>> time = np.arange("2024-01-01", "2024-07-19", 10, "datetime64[D]")
    >>> found = Flood().detect(new_stack(dict(zip(("green", "nir", "swir1"), bands.swapaxes(0, 1))), time))
    >>> int(found.status[1, 1]), str(found.date.values[1, 1])[:10], str(found.date_end.values[1, 1])[:10]
    (4, '2024-04-30', '2024-05-30')
    """

    alpha: float = 0.01
    prior: float = 0.02
    since: str | None = None
    until: str | None = None
    history: float | None = None
    enl: float | None = None
    min_area_m2: float = 1000.0

    kind: ClassVar[str] = "flood"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        check_area(self.min_area_m2)

    def detect(self, stack):
        """Changes (y, x) of a Stack of optical or of SAR scenes; lazy where the stack is."""
        check_stack(stack)
        if is_sar(stack):
            from geoalign.detectors.sar_flood import flood_sar

            return flood_sar(self, stack)
        if not {"green", "nir"} <= set(stack.data_vars):
            raise StackError(
                "flood needs green and nir (better with swir1), or SAR (vv or vh); the stack has "
                f"{', '.join(map(str, stack.data_vars))}."
            )
        stack, first = part(stack, self.since, self.until, self.history)
        water = index(stack, "mndwi" if "swir1" in stack else "ndwi")
        dark = stack.nir + (stack.swir1 if "swir1" in stack else stack.nir)
        steep, spread = widening(stack, water)
        time = stack.time.values
        watched = max(1, time.size - abs(first))
        found = per_pixel(
            _fields,
            water,
            dark.astype("float32"),
            stack.nir,
            stack.green,
            steep,
            outputs={
                "outcome": "int8",
                **dict.fromkeys(("date", "after", "end"), "int32"),
                **dict.fromkeys(("magnitude", "log_ratio", "score"), "float32"),
                "n_obs": "uint16",
                "confirmed": "int32",
            },
            season=pd.DatetimeIndex(time).dayofyear.to_numpy(np.float64),
            first=first,
            spread=spread,
            gate=float(-ndtri(self.alpha / watched)),
        )
        near = neighbourhood(
            supported, found.score, found.date.astype("float32"), depth=1, outputs={"keep": bool}, reach=TOGETHER
        )
        return self._changes(stack, found, sieve(near.keep, stack, self.min_area_m2), watched)

    def _changes(self, stack, found, flooded, watched):
        time = stack.time.values
        status = xr.where(found.outcome < 0, NOT_OBSERVABLE, NO_CHANGE)
        status = xr.where(flooded, xr.where(found.outcome == 1, CONFIRMED, ENDED), status)
        why = xr.where(found.outcome == -1, WHY["no_data"], xr.where(found.outcome < -1, WHY["too_few"], 0))
        # dry or wet before, and never seen since watching began
        why = xr.where(found.outcome == -3, WHY["cloud"], why)
        why = xr.where(found.outcome == 3, WHY["not_detectable"], why)
        odds = np.exp(np.minimum(found.log_ratio, 60.0)) * np.float32(self.prior / (1 - self.prior) / watched)
        probability = xr.where(found.outcome == 3, 0.0, odds / (1 + odds)).where(found.outcome >= 0)
        layers = {
            "status": status,
            "date": dates_at(found.date.where(flooded, -1), time),
            "date_after": dates_at(found.after.where(flooded, -1), time),
            "date_by": dates_at(found.date.where(flooded, -1), time),
            "magnitude": found.magnitude.where(flooded),
            "direction": xr.where(flooded, 1, 0),
            "probability": probability,
            "n_obs": found.n_obs,
            "why": why,
            "date_confirmed": dates_at(found.confirmed.where(flooded, -1), time),
            "date_end": dates_at(found.end.where(flooded, -1), time),
        }
        return new_changes(
            layers,
            kind=self.kind,
            detector=repr(self),
            prior=self.prior,
            inputs=stack.scene.values if "scene" in stack.coords else (),
            coords=stack.coords,
        )


def _fields(water, dark, nir, green, steep, *, season, first, spread, gate):
    r = flood_runs(water, dark, nir, green, steep, season, first, spread, HISTORY_MIN, gate)
    return tuple(r[:, k] for k in (0, 1, 2, 3, 4, 5, 7, 6, 8))
