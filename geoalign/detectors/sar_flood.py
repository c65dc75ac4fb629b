"""The SAR way of `flood`: change and the past on a series, dates beside each other on a few, open water on one."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from geoalign.chunked import neighbourhood, per_pixel, whole_image
from geoalign.detectors.patches import sieve
from geoalign.detectors.sar_input import cube, sar_bands
from geoalign.detectors.sar_themes import FLOOD, MIN_OBS, followed
from geoalign.detectors.series import part, years
from geoalign.errors import StackError
from geoalign.kernels.flood_votes import PLAIN, USUAL_ANGLE, WATER_DB, area_by_date, peak_of, votes, wet_runs
from geoalign.kernels.harmonic import regressors
from geoalign.kernels.inundation import DEPTH_PX as JOINT_PX
from geoalign.kernels.inundation import joint_fields, roughness, roughness_histogram
from geoalign.kernels.open_water import (
    DEPTH_PX,
    SMOOTH_PX,
    classes,
    decibel,
    gauss,
    level_histogram,
    settled,
    water_field,
)
from geoalign.kernels.sieve import grown
from geoalign.kernels.speckle import boxcar
from geoalign.types.changes import CONFIRMED, ENDED, NO_CHANGE, NOT_OBSERVABLE, WHY, dates_at, new_changes
from geoalign.types.stack import check_stack

TILE_PX = 64
"""Side of the tiles that are asked whether they hold water and land."""
MOST_TILES = 400
BOUNDS = {"vv": (-28.0, -11.0), "hh": (-28.0, -11.0), "vh": (-28.0, -17.0), "hv": (-28.0, -17.0)}
"""Where water and land may part, dB."""
STATIC = ("water_occurrence", "layover", "slope_deg", "hand_m", "incidence_deg")
"""Coordinates (y, x) of a stack that are used where they are there."""
PATCH_PX = 3
CAUTION = 0.3
"""Share of the prior's log odds that a patch's own past has to outweigh somewhere. All of it would lose floods in
small or speckled scenes; none would take wet fields for floods."""
REACH = 4.0
"""How far apart the classes of a series have to be, in standard deviations of water. A few scenes have no past to ask
instead, and take what there is."""
GROW_PX = 24
"""How far a flood grows from where its classes show it into what changed likewise: a patch is flood as a whole."""
IN_SIGHT = 0.2
"""Share of all patches that look like water, from which what does not is wet ground: floods of one image look alike."""
DIPS_DB = np.arange(-30.0, 0.05, 0.1)
RARELY, BEYOND = 0.25, (1.55, 2.2)
"""What moisture does to an image: of the deepest drops of its pixels on other dates, the one that so many exceed; and
how many times as deep a drop has to be that moisture does not explain, all over a patch and in places."""
PERMANENT, STEEP_DEG, HIGH_M = 0.75, 15.0, 30.0
SWATH_DEG = (20.0, 60.0)
"""Incidence beyond which water can't be told by its level."""


def flood_sar(theme, stack):
    """Changes (y, x) of a flood in SAR backscatter.

    Parameters
    ----------
    theme : Flood
    stack : Stack in linear power, of one orbit or of several that take turns; vv and vh, or one of them
        Where they are known, static layers go along as coordinates over (y, x), each optional:
        `water_occurrence` (0..1 or 0..100: permanent and seasonal water, 75 % and more is never flood), `layover` (true
        where layover or shadow falls: not observable), `slope_deg` (above 15: no flood), `hand_m` (height above the
        nearest drainage; above 30 m: no flood), `incidence_deg` (expected level of water).
        `stack = stack.assign_coords(hand_m=(("y", "x"), hand))`.

    Notes
    -----
    Six scenes or more: runs of dates of up to 180 days, at least 2 dB below the rest of the series (mean of the
    bands), found by likelihood and drawn pixel by pixel. What was drawn is then held against the ground's own past (a
    model with season from 32 other dates on, else its usual level) and against water: the scene's own where its
    histogram shows it, else as known at this incidence. Moisture moves all bands of a place together, water does not;
    wind roughens some water, in co-polarisation most. A drop is a flood where water is likelier than the ground's own
    model, in patches in which it somewhere is so by a third of what floods are rare (`prior`). Where little in the
    image looks like water (less than a fifth), and 15 other dates tell how deep moisture goes, patches count as well
    that lie 1.5 times as deep, in places 2.2 times: floods rough with wind or pierced by stalks. Water that stands
    there on a quarter of the other dates, or at the same season of other years, is usual water: 0, `not_detectable`;
    so is ground as dark as water in the mean. A drop that stays for more than 90 days at the end of the series is taken
    for something else.

    Two to five scenes: `since` (else the first half of the time) parts history from what is watched. The same odds of
    water, from single pixels: of a date of the history against the scene's ground, of a later one against the pixel's
    own level before; neighbours and dates then agree by mean-field rounds. A flood is water now, none in the history,
    and a drop of 2 dB. In co-polarisation alone, water that was rough with wind in all of the history is not told from
    land that was flooded.

    A single scene: everything that is open water is reported, permanent water, smooth runways and radar shadow
    included, unless `water_occurrence`, `layover`, `slope_deg` or `hand_m` say better. `probability` then is that of
    water, with the scene's own share of it as prior.

    `date` is the first flooded acquisition, `date_peak` the one of the pixel's flood on which most of the scene was
    flooded, `date_end` the first dry one (status 4). Where the classes are not learnt from the scene, `why` says
    `fallback_threshold` (short series).

    References
    ----------
    Bauer-Marschallinger et al. (2022), Satellite-based flood mapping through Bayesian inference from a Sentinel-1 SAR
    datacube, doi:10.3390/rs14153673, for the ground's own model and the level of water; we average a run's dates and
    give speckle to the likelihood of the change. Chini et al. (2017), doi:10.1109/TGRS.2017.2737664, for tiles with
    two sides; we fit three classes to them.
    """
    check_stack(stack)
    bands = sar_bands(stack, mixed=True)
    static = _static(stack)
    if stack.sizes["time"] < MIN_OBS:
        return _few(theme, stack, bands, static)
    ready, found, judged, drawn = followed(theme, stack, FLOOD)
    kinds = _kinds(ready.stack, bands, REACH, settle=True)
    level = _level(ready.power)
    time = ready.stack.time.values
    angle = static.get("incidence_deg", xr.zeros_like(found.n_obs, dtype="float32") + np.float32(USUAL_ANGLE))
    when = years(time)
    polled = per_pixel(
        _polled,
        level,
        _own_level(ready),
        drawn.start,
        drawn.stop,
        angle.astype("float32"),
        outputs={**dict.fromkeys(("past", "calm", "fall", "dip"), "float32"), "usual": bool},
        kinds=kinds,
        bands=tuple(bands),
        water=np.array([WATER_DB[name] for name in bands]).ravel(),
        x=regressors(when - np.floor(when[0]), 3).ravel(),
        season=pd.DatetimeIndex(time).dayofyear.to_numpy(np.float64),
    )
    change = (drawn.probability > 0.5) & judged.gate & ~polled.usual
    plain = _patches(polled.past, change, theme.prior)
    # floods of one image look alike: where next to nothing looks like water, what moisture does not explain counts
    deepest = whole_image(_dips, _deepest, polled.dip.where(change))
    fell = per_pixel(_beyond, polled.fall, outputs={"plain": bool, "likelier": bool}, deepest=deepest)
    faint = plain | _patches(polled.calm, change & fell.likelier, theme.prior, somewhere=fell.plain)
    flooded = plain | (faint & (whole_image(_counted, _share, plain, faint) < IN_SIGHT))
    seen = found.n_obs >= MIN_OBS
    barred, hidden = _barred(static, found.n_obs)
    hit = sieve(flooded & seen & ~barred & ~hidden, ready.stack, theme.min_area_m2)
    # a change that is no flood by its past is as likely one as change without a cause is
    probability = xr.where(change & ~flooded, drawn.probability * np.float32(theme.prior), drawn.probability)
    probability = probability.where(~(polled.usual | barred), 0.0).where(seen & ~hidden)
    why = xr.where(seen, 0, xr.where(found.n_obs > 0, WHY["too_few"], WHY["no_data"]))
    why = why | xr.where(seen & (judged.dark | polled.usual), WHY["not_detectable"], 0)
    return _changes(
        theme,
        ready.stack,
        hit=hit,
        seen=seen & ~hidden,
        start=drawn.start,
        before=drawn.before,
        stop=drawn.stop,
        magnitude=drawn.ln_ratio.mean("band") * np.float32(10 / np.log(10)),
        probability=probability,
        n_obs=found.n_obs,
        why=why | _why(barred, hidden),
    )


def _few(theme, stack, bands, static):
    n = stack.sizes["time"]
    if n == 1 and theme.since is None:
        stack, first = part(stack.isel(time=[0]), None, theme.until, None)[0], 0
    else:
        stack, first = part(stack, theme.since, theme.until, theme.history)
        first = abs(first)
    if stack.sizes["time"] == 1:
        first = 0
    kinds = _kinds(stack, bands, REACH, settle=True) if first > 0 else _kinds(stack, bands, 0.0)
    power = cube(stack, bands)
    n = stack.sizes["time"]
    field = neighbourhood(
        partial(_field, first=first, bands=tuple(bands)),
        power,
        depth=JOINT_PX if first > 0 else DEPTH_PX,
        outputs=dict.fromkeys(("odds", "level"), ("float32", "time", n)),
        kinds=kinds,
        rough=whole_image(roughness_histogram, roughness, power, size=len(bands), block=TILE_PX, most=MOST_TILES),
    )
    found = per_pixel(
        wet_runs,
        field.odds,
        field.level,
        outputs={
            **dict.fromkeys(("start", "before", "stop"), "int32"),
            **dict.fromkeys(("drop", "odds"), "float32"),
            "n_obs": "uint16",
            "stood": bool,
        },
        first=first,
    )
    seen = found.n_obs > first - (first > 0)
    seen = (found.n_obs > 0) & found.odds.notnull()
    barred, hidden = _barred(static, found.n_obs)
    hit = sieve((found.start >= 0) & ~barred & ~hidden, stack, theme.min_area_m2)
    observed = field.odds.notnull().any("time")
    why = xr.where(seen, 0, xr.where(observed, WHY["too_few"], WHY["no_data"]))
    why = why | xr.where(seen & found.stood, WHY["not_detectable"], 0)
    why = why | xr.where(seen & (_learnt(kinds) == 0), WHY["fallback_threshold"], 0)
    probability = (1 / (1 + np.exp(-found.odds))).where(~barred, 0.0).where(seen & ~hidden)
    return _changes(
        theme,
        stack,
        hit=hit,
        seen=seen & ~hidden,
        start=found.start,
        before=found.before,
        stop=found.stop,
        magnitude=found["drop"],
        probability=probability,
        n_obs=found.n_obs,
        why=why | _why(barred, hidden),
    )


def _kinds(stack, bands, reach, settle=False):
    """(band * 5,) classes of water and land, from tiles of all dates."""
    return whole_image(
        level_histogram,
        partial(_all_classes, bands=tuple(bands), reach=reach, settle=settle),
        cube(stack, bands),
        size=5 * len(bands),
        block=TILE_PX,
        most=MOST_TILES,
    )


def _all_classes(parts, bands, reach, settle):
    out = []
    for b, name in enumerate(bands):
        counts = np.stack([p[b] for p in parts])
        slope, base, spread = WATER_DB[name]
        kind = classes(counts, BOUNDS[name], (slope * USUAL_ANGLE + base, spread), reach)
        out.append(settled(counts, BOUNDS[name], kind) if settle else kind)
    return np.concatenate(out)


def _patches(odds, change, prior, somewhere=True):
    """Pixels of `change` whose patches are likelier water than ground, by the `odds` of single pixels; plainly so in
    places, and there `somewhere` holds."""
    # a patch has one past: single pixels' are too noisy to tell a drop of 4 dB from one of 3
    around = neighbourhood(
        boxcar, odds.where(change), depth=PATCH_PX, outputs={"odds": "float32"}, radius=PATCH_PX
    ).odds
    # a drop that is as likely wet ground as water is flood only as often as floods are: a patch has to be plain
    # somewhere, and is flood as far as water is likelier
    plain = change & somewhere & (around > np.float32(PLAIN + CAUTION * np.log((1 - prior) / prior)))
    likelier = change & (around > PLAIN)
    return neighbourhood(grown, plain, likelier, depth=GROW_PX, outputs={"grown": bool}, steps=GROW_PX).grown


def _dips(dip):
    return np.histogram(dip[np.isfinite(dip)], DIPS_DB)[0].astype(np.float64)


def _deepest(parts):
    """Level (dB) below which `RARELY` of the pixels' deepest other dates lie."""
    counts = np.cumsum(np.sum(parts, axis=0))
    return DIPS_DB[1 + np.searchsorted(counts, RARELY * counts[-1])] if counts[-1] > 0 else -np.inf


def _beyond(fall, deepest):
    return fall < BEYOND[1] * deepest, fall < BEYOND[0] * deepest


def _counted(plain, faint):
    return np.array([plain.sum(), faint.sum()], np.float64)


def _share(parts):
    plain, faint = np.sum(parts, axis=0)
    return plain / max(faint, 1.0)


def _learnt(kinds):
    """Number of bands whose classes were learnt, 0-d."""
    return kinds.isel(stat=slice(4, None, 5)).sum()


def _field(power, *, kinds, rough, first, bands):
    """(time, row, col) each: ln odds of water, mean dB of the bands."""
    if first > 0:
        kinds = np.asarray(kinds).reshape(-1, 5)
        odds = joint_fields(np.ascontiguousarray(power), kinds, np.asarray(rough), first, *_wind_pair(bands))
    else:
        kinds, speaks = _speaking(kinds)
        odds = [water_field(np.ascontiguousarray(power[speaks, t]), kinds[speaks]) for t in range(power.shape[1])]
    images = [np.ascontiguousarray(power[:, t]) for t in range(power.shape[1])]
    level = [np.mean([gauss(decibel(band), SMOOTH_PX) for band in image], axis=0) for image in images]
    return np.asarray(odds), np.stack(level).astype(np.float32)


def _wind_pair(bands):
    """Numbers of a co- and of a cross-polarised band, -1 where there is none."""
    return tuple(next((k for k, name in enumerate(bands) if name in pair), -1) for pair in (("vv", "hh"), ("vh", "hv")))


def _level(power):
    """(band, time, y, x) smoothed dB."""
    n_band, n_time = power.sizes["band"], power.sizes["time"]
    level = neighbourhood(_smoothed, power, depth=3, outputs={"level": ("float32", "layer", n_band * n_time)}).level
    parts = [level.isel(layer=slice(b * n_time, (b + 1) * n_time)).rename(layer="time") for b in range(n_band)]
    return xr.concat(parts, "band")


def _own_level(ready):
    """(band, time, y, x) dB of each pixel's own mean times the ratio of its neighbourhood to its means."""
    n_time = ready.stack.sizes["time"]
    parts = [
        per_pixel(
            _times_mean, ready.power.isel(band=b), ready.pooled.isel(band=b), outputs={"v": ("float32", "time", n_time)}
        ).v
        for b in range(ready.power.sizes["band"])
    ]
    return xr.concat(parts, "band")


def _times_mean(power, ratio):
    seen = (power > 0) & np.isfinite(power)
    mean = np.where(seen, power, 0).sum(axis=1, dtype=np.float64) / np.maximum(seen.sum(axis=1), 1)
    seen = seen & (ratio > 0)
    return np.where(seen, 10 * np.log10(np.where(seen, ratio * mean[:, None], 1.0)), np.nan)


def _smoothed(power):
    flat = power.reshape(-1, *power.shape[2:])
    return np.stack([gauss(decibel(image), SMOOTH_PX) for image in flat]).astype(np.float32)


def _speaking(kinds):
    """(band, 5) classes, and which bands speak: those whose classes were learnt, or all where none was."""
    kinds = np.asarray(kinds).reshape(-1, 5)
    return kinds, (kinds[:, 4] > 0) | ~(kinds[:, 4] > 0).any()


def _polled(level, own_level, start, stop, angle, *, kinds, bands, water, x, season):
    kinds = np.asarray(kinds).reshape(-1, 5)
    return votes(
        level, own_level, start, stop, kinds, water.reshape(-1, 3), angle.astype(np.float64),
        x.reshape(season.size, -1), season, *_wind_pair(bands),
    )  # fmt: skip


def _static(stack):
    """The static layers that the stack carries; StackError where one has other dims than (y, x)."""
    out = {}
    for name in STATIC:
        if name in stack.coords:
            if stack[name].dims != ("y", "x"):
                raise StackError(f"coordinate {name!r} has dims {stack[name].dims}; flood takes it over ('y', 'x').")
            out[name] = stack[name].reset_coords(drop=True)
    return out


def _barred(static, like):
    """Where no flood can be (y, x), and where nothing can be seen."""
    never = xr.zeros_like(like, dtype=bool)
    hidden = never
    if "water_occurrence" in static:
        share = static["water_occurrence"]
        # recurrence maps count in per cent; no map of shares goes beyond 1
        never = never | (share >= PERMANENT) & ((share <= 1) | (share >= 100 * PERMANENT))
    if "slope_deg" in static:
        never = never | (static["slope_deg"] > STEEP_DEG)
    if "hand_m" in static:
        never = never | (static["hand_m"] > HIGH_M)
    if "layover" in static:
        hidden = hidden | (static["layover"].fillna(0) > 0)
    if "incidence_deg" in static:
        hidden = hidden | ~static["incidence_deg"].fillna(USUAL_ANGLE).between(*SWATH_DEG)
    return never, hidden


def _why(barred, hidden):
    return xr.where(barred, WHY["excluded"], 0) | xr.where(hidden, WHY["excluded"] | WHY["shadow"], 0)


def _changes(theme, stack, *, hit, seen, start, before, stop, magnitude, probability, n_obs, why):
    time = stack.time.values
    start, stop = start.where(hit, -1).astype("int32"), stop.where(hit, -1).astype("int32")
    area = whole_image(partial(area_by_date, n_time=time.size), _summed, start, stop, size=time.size)
    peak = per_pixel(peak_of, start, stop, outputs={"peak": "int32"}, area=area).peak
    date = dates_at(start, time)
    layers = {
        "status": xr.where(hit, xr.where(stop >= 0, ENDED, CONFIRMED), xr.where(seen, NO_CHANGE, NOT_OBSERVABLE)),
        "date": date,
        "date_after": dates_at(before.where(hit, -1), time),
        "date_by": date,
        "magnitude": magnitude.where(hit),
        "direction": xr.where(hit, -1, 0),
        "probability": probability,
        "n_obs": n_obs,
        "why": why,
        "date_peak": dates_at(peak, time),
        "date_end": dates_at(stop, time),
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


def _summed(parts):
    return np.sum(parts, axis=0)
