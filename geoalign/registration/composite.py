"""A stack of one kind of sensor on a stack of another: composite on composite, one warp for all scenes."""

from __future__ import annotations

import logging

import bottleneck
import numpy as np

from geoalign import chunked
from geoalign.errors import StackError
from geoalign.registration.adjust import compose, rms_sigma_px
from geoalign.registration.auto import AutoMatcher
from geoalign.registration.neighbours import Pairs
from geoalign.registration.network import align_stack, matching_band, median_of, one_line, sharpest_band
from geoalign.registration.select import model_name
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import REPORT_COLUMNS, Alignment, Match
from geoalign.types.stack import check_stack, geobox_of, is_sar, pixel_size_m
from geoalign.types.warp import mean_displacement

log = logging.getLogger("geoalign")


def align_across(stack, reference, matcher, *, band, seed, refine, network) -> Alignment:
    """A stack of one kind of sensor on one of another: within itself first, then composite on composite.

    The mean of the aligned SAR scenes' logarithms has little speckle, the median of the optical ones no clouds; one
    match of the two holds for all scenes.
    """
    within = AutoMatcher(getattr(matcher, "model", "auto"), getattr(matcher, "max_shift_px", None))
    own = align_stack(stack, within, reference="auto", band=band, seed=seed, refine=refine, network=network)
    check_stack(reference)
    if (reference.sizes["y"], reference.sizes["x"]) != tuple(own.shape) or geobox_of(reference) != geobox_of(stack):
        raise StackError("the reference lies on another grid than the stack; open it with like=stack.")
    shown = _composite(own.apply(stack), band, seed)
    match = Pairs([_composite(reference, "auto", seed), shown], matcher, seed, across=True).match(0, 1)
    log.info("composite of the stack on that of the reference: %s", one_line(match))
    report = own.report.copy()
    lies = report["scene"].isin(list(own.warps))
    if not isinstance(match, Match):
        blank = [c for c in REPORT_COLUMNS if c not in ("scene", "status", "n_points", "method", "model", "reason")]
        report.loc[lies, blank] = np.nan
        report.loc[lies, ["status", "method", "model"]] = "rejected", "", ""
        report.loc[lies, "reason"] = f"the stack's composite can't be tied to the reference's: {match}"
        return Alignment("stack", {}, report, own.geobox, own.shape)
    shape = tuple(own.shape)
    warps = {name: compose(match.warp, warp) for name, warp in own.warps.items()}
    moved = {name: mean_displacement(warp, shape) for name, warp in warps.items()}
    report.loc[lies, "dy"] = [moved[name][0] for name in report.loc[lies, "scene"]]
    report.loc[lies, "dx"] = [moved[name][1] for name in report.loc[lies, "scene"]]
    report.loc[lies, "model"] = [model_name(warps[name]) for name in report.loc[lies, "scene"]]
    report.loc[lies, "sigma_px"] = np.hypot(report.loc[lies, "sigma_px"], rms_sigma_px(match, shape))
    report.loc[lies, ["status", "method"]] = "aligned", match.method
    metre = pixel_size_m(stack) or np.nan
    common = {"rmse_px": match.rmse_px, "cv_px": match.cv_px, "ce90_px": match.ce90_px}
    for name, value in common.items():
        # within the stack and across sensors, one after the other
        report.loc[lies, name] = np.hypot(report.loc[lies, name].fillna(0.0), value)
        report.loc[lies, name.replace("_px", "_m")] = report.loc[lies, name] * metre
    points = own.points.copy()
    if len(points):
        back = match.warp.inverse().pull(points["row"].to_numpy(float), points["col"].to_numpy(float))
        points["row"], points["col"] = back
    return Alignment("stack", warps, report, own.geobox, own.shape, points)


def _composite(stack, band, seed) -> Image:
    """What a stack of aligned scenes shows without its noise: the mean of logarithms for SAR, else the median."""
    if band == "auto":
        band = sharpest_band(stack, seed)
    bands = matching_band(stack, band)
    if not is_sar(stack):
        return Image(median_of(bands))

    def mean(series):
        return bottleneck.nanmean(series.astype(np.float64), axis=1)

    return Image(chunked.per_pixel(mean, bands, outputs={"mean": "float32"})["mean"].data)
