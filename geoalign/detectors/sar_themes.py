"""The SAR way of the themes: changes that stay, and the runs of `sar_flood`, in series of backscatter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood, per_pixel
from geoalign.detectors.patches import sieve
from geoalign.detectors.sar_input import cube, sar_bands, speckle_of
from geoalign.detectors.sar_level import steady
from geoalign.detectors.series import part
from geoalign.kernels.enl import mean_intensity
from geoalign.kernels.gamma_glr import RUN, STEP, draw, pool, scan
from geoalign.kernels.glr_null import ONE_SIDED, SEGMENT, max_quantile
from geoalign.types.changes import CONFIRMED, ENDED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack

POOL_PX = 1
"""Radius of the neighbourhood whose series are gathered: 3 x 3, so that patches of a few pixels show."""
REACH_PX = 3
"""How far a pixel looks for the hypothesis that it may be part of."""
ROUNDS = 6
COUPLING = 0.6
"""ln odds that an agreeing neighbour adds; a straight edge, with 5 against 3 of 8, is worth 1.2."""
RIVAL_MARGIN = 6.0
"""2 ln likelihood by which a run must beat a step, or the other way round, to decide the kind: about 2 ln n dates."""
RIVAL_SHARE = 1.25
"""A run may explain a step's series so much better before the step is given up: seasons and rain come on top."""
AT_ONCE_SHARE = 0.6
"""Share of a change that must come within three acquisitions before and after its date; a season's comes gradually."""
MIN_OBS = 6
"""Observations for a pixel to be observable."""
NEPER_DB = 10 / np.log(10)


@dataclass(frozen=True)
class Pattern:
    """What a theme looks like in backscatter.

    kind : RUN or STEP; sign : -1 drop, 1 rise; lead : bands of which one must carry the change, "" for any
    min_db : least mean change over bands (over the leading band where there is one), dB
    min_before, min_run : observations before the change, and in it
    most_days : longest run that ends
    dark_db : band -> level (dB) below which the ground was water or shadow before, and the theme can't show
    """

    kind: int
    sign: int
    lead: tuple[str, ...]
    min_db: float
    min_before: int
    min_run: int
    most_days: float
    dark_db: dict[str, float]


DARK_DB = {"vv": -17.0, "hh": -17.0, "vh": -24.0, "hv": -24.0}
FLOOD = Pattern(RUN, -1, (), 2.0, 3, 1, 180.0, DARK_DB)
CLEARING = Pattern(STEP, -1, ("vh", "hv"), 2.0, 3, 3, np.inf, {"vh": -20.0, "hv": -20.0, "vv": -14.0, "hh": -14.0})
BUILDING = Pattern(STEP, 1, (), 2.0, 3, 4, np.inf, DARK_DB)
FALL = Pattern(STEP, -1, (), 1.5, 3, 2, np.inf, DARK_DB)
RISE = replace(FALL, sign=1)


def deforestation_sar(theme, stack):
    """Changes (y, x) of a clearing: a drop of backscatter that stays, led by cross-polarisation.

    Notes
    -----
    vh drops by at least 2 dB for at least three acquisitions up to the end; vv may drop as well, it needs not. Without
    vh the drop of vv alone decides, which soil moisture can hide. Rain over the whole scene is taken out beforehand.
    Ground below -20 dB in vh (and -14 dB in vv) in the mean of the series has no woods: 0, `not_detectable`.
    """
    return _detect(theme, stack, CLEARING)


def urbanization_sar(theme, stack):
    """Changes (y, x) of building: a rise of backscatter by at least 2 dB that stays for at least four acquisitions.

    Ground as dark as water in the mean of the series can't show it: 0, `not_detectable`.
    """
    return _detect(theme, stack, BUILDING)


def damage_sar(theme, stack):
    """Changes (y, x) of damage: a step of at least 1.5 dB up or down that stays; the likelier way where both are found.

    Notes
    -----
    alpha is shared between the two ways, half each.
    """
    both = replace(theme, alpha=theme.alpha / 2)
    ready = _ready(theme, stack)
    ways = [_found(both, ready, pattern) for pattern in (FALL, RISE)]
    rises = ways[1][2].probability > ways[0][2].probability
    found, judged, drawn = (xr.where(rises, up, down) for down, up in zip(*ways))
    return _changes(theme, ready.stack, xr.where(rises, 1, -1), found, judged, drawn)


def followed(theme, stack, pattern):
    """What `_detect` makes its Changes from: the series made ready, what was found in it, judged and drawn."""
    ready = _ready(theme, stack)
    return ready, *_found(theme, ready, pattern)


def _detect(theme, stack, pattern):
    ready = _ready(theme, stack)
    return _changes(theme, ready.stack, pattern.sign, *_found(theme, ready, pattern))


@dataclass(frozen=True)
class _Ready:
    """A series ready to be searched: at one level, its neighbourhoods gathered, its noise known."""

    stack: xr.Dataset
    first: int
    bands: list[str]
    power: xr.DataArray
    pooled: xr.DataArray
    speckle: object
    together: object


def _ready(theme, stack):
    check_stack(stack)
    stack, first = part(stack, theme.since, theme.until, theme.history)
    bands = sar_bands(stack, mixed=True)
    stack = steady(stack, bands)
    speckle = speckle_of(stack, bands, theme.enl)
    power = cube(stack, bands)
    pooled = neighbourhood(
        partial(_pool, radius=POOL_PX),
        *(power.isel(band=i) for i in range(len(bands))),
        depth=POOL_PX,
        outputs=dict.fromkeys(bands, ("float32", "time", stack.sizes["time"])),
    )
    # the window has at most as many looks as its pixels together; the shift of a scene is the same in all of them
    own = speckle_of(pooled, bands)
    together = replace(speckle, looks=np.minimum(own.looks, speckle.looks * (2 * POOL_PX + 1) ** 2), d0=own.d0)
    return _Ready(stack, first, bands, power, cube(pooled, bands), speckle, together)


def _found(theme, ready, pattern):
    """What `scan` finds, which of it is of the pattern, and where it is drawn."""
    found = _scan(ready.stack, ready.pooled, ready.together, ready.bands, pattern, ready.first, theme.alpha)
    judged = _judged(theme, ready.bands, pattern, ready.power, found, ready.together.d0)
    return found, judged, _drawn(theme, ready.stack, pattern, ready.power, ready.speckle, found, judged)


def _pool(*bands, radius):
    return tuple(pool(band[None], radius)[0] for band in bands)


def _scan(stack, pooled, speckle, bands, pattern, first, alpha):
    time = stack.time.values
    tail = SEGMENT if pattern.kind == RUN else ONE_SIDED
    return per_pixel(
        scan,
        pooled,
        speckle.looks,
        speckle.slope,
        speckle.sigma,
        outputs={
            "n_obs": "uint16",
            **dict.fromkeys(("z", "other", "sudden"), "float32"),
            **dict.fromkeys(("start", "stop"), "int32"),
            "ln_ratio": ("float32", "band", len(bands)),
        },
        days=(time - time[0]) / np.timedelta64(1, "D"),
        kind=pattern.kind,
        sign=pattern.sign,
        lead=_lead(pattern, bands),
        first=max(first, 0),
        min_before=pattern.min_before,
        min_run=pattern.min_run,
        most_days=float(pattern.most_days),
        min_obs=MIN_OBS,
        least=max_quantile(float(alpha), MIN_OBS, len(bands), tail),
    )


def _lead(pattern, bands):
    return next((bands.index(name) for name in pattern.lead if name in bands), -1)


def _judged(theme, bands, pattern, power, found, d0):
    means = [per_pixel(mean_intensity, power.isel(band=i), outputs={"mean": "float32"}) for i in range(len(bands))]
    return per_pixel(
        _judge,
        found.z,
        found.other,
        found.sudden,
        found.n_obs,
        found.ln_ratio,
        xr.concat([m["mean"] for m in means], "band"),
        outputs={"gate": bool, "eligible": bool, "dark": bool},
        pattern=pattern,
        bands=tuple(bands),
        alpha=float(theme.alpha),
        d0=d0,
    )


def _judge(z, other, sudden, n_obs, ln_ratio, mean, *, pattern, bands, alpha, d0):
    """Which pixels' own neighbourhoods pass at alpha, which hypotheses are of the pattern, where it can't show."""
    tail = SEGMENT if pattern.kind == RUN else ONE_SIDED
    threshold = np.full(int(n_obs.max(initial=0)) + 1, np.inf)
    for n in range(MIN_OBS, threshold.size):
        limit = max_quantile(alpha, n, len(bands), tail)
        # what `omnibus.uneven` takes off where looks vary between pixels, turned round
        degrees = d0 + len(bands) * (n - 1)
        threshold[n] = limit if np.isinf(d0) else degrees * np.expm1(limit / degrees)
    level = np.array([pattern.dark_db.get(name, -np.inf) for name in bands])
    dark = np.all(mean < 10 ** (level / 10), axis=1)
    gate = (z > threshold[n_obs]) & ~dark
    lead = _lead(pattern, bands)
    size = pattern.sign * NEPER_DB * (ln_ratio.mean(axis=1) if lead < 0 else ln_ratio[:, lead])
    kind = z > other + RIVAL_MARGIN if pattern.kind == RUN else other < RIVAL_SHARE * z + RIVAL_MARGIN
    return gate, gate & kind & (size >= pattern.min_db) & (sudden >= AT_ONCE_SHARE), dark


def _drawn(theme, stack, pattern, power, speckle, found, judged):
    n = stack.sizes["time"]
    hypotheses = n * n / 2 if pattern.kind == RUN else n
    return neighbourhood(
        draw,
        power,
        speckle.looks,
        speckle.slope,
        speckle.sigma,
        found.z,
        found.start,
        found.stop,
        found.ln_ratio,
        judged.gate,
        judged.eligible,
        depth=REACH_PX + ROUNDS,
        outputs={
            "probability": "float32",
            **dict.fromkeys(("start", "stop", "before"), "int32"),
            "ln_ratio": ("float32", "band", power.sizes["band"]),
        },
        reach=REACH_PX,
        n_round=ROUNDS,
        coupling=COUPLING,
        ln_prior=float(np.log(theme.prior / (1 - theme.prior) / hypotheses)),
    )


def _changes(theme, stack, sign, found, judged, drawn):
    time = stack.time.values
    seen = found.n_obs >= MIN_OBS
    hit = sieve((drawn.probability > 0.5) & judged.gate, stack, theme.min_area_m2)
    why = xr.where(seen, 0, xr.where(found.n_obs > 0, WHY["too_few"], WHY["no_data"]))
    date = dates_at(drawn.start.where(hit, -1), time)
    layers = {
        "status": xr.where(hit, xr.where(drawn.stop >= 0, ENDED, CONFIRMED), xr.where(seen, NO_CHANGE, NOT_OBSERVABLE)),
        "date": date,
        "date_after": dates_at(drawn.before.where(hit, -1), time),
        "date_by": date,
        "magnitude": (drawn.ln_ratio.mean("band") * np.float32(NEPER_DB)).where(hit),
        "direction": xr.where(hit, sign, 0),
        "probability": drawn.probability.where(seen),
        "n_obs": found.n_obs,
        "why": why | xr.where(seen & judged.dark, WHY["not_detectable"], 0),
        "date_end": dates_at(drawn.stop.where(hit, -1), time),
    }
    return new_changes(
        layers,
        kind=theme.kind,
        detector=repr(theme),
        prior=theme.prior,
        magnitude_units="dB",
        inputs=stack.scene.values if "scene" in stack.coords else (),
        coords=stack.coords,
    )
