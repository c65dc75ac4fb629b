"""A SAR series without what is no change on the ground: levels of orbits, and what a whole scene does together."""

from __future__ import annotations

from functools import partial

import numpy as np

from geoalign.chunked import per_pixel, whole_image
from geoalign.detectors.sar_input import SAMPLE, cube
from geoalign.kernels.common_mode import common_factor, divide, one_level, ratio_histogram

POOL_PX = 2
"""Radius of the neighbourhoods whose ratios tell a scene's common factor."""
BLOCK_DATES = 4
"""Dates of each orbit in a stretch of the series within which orbits are compared."""


def steady(stack, bands):
    """The stack's backscatter with orbits brought to one level, pixel by pixel, and scenes to one.

    Rain, frost and calibration move a whole scene; each band of each scene is divided by what most of the scene's 5 x 5
    px neighbourhoods did against their own mean in time. So a change of more than about two fifths of the scene at once
    passes for weather. Orbits differ by look direction: each pixel's level in each orbit is fitted beside the course
    of the series, and taken off.
    """
    stack = stack[list(bands)]
    orbit, block = _stretches(stack)
    n_time = stack.sizes["time"]
    out = {name: stack[name].transpose("time", "y", "x") for name in bands}
    if orbit.max() > 0:
        for name in bands:
            level = per_pixel(
                one_level,
                out[name],
                outputs={"v": ("float32", "time", n_time)},
                orbit=orbit,
                block=block,
                n_orbit=int(orbit.max()) + 1,
                n_block=int(block.max()) + 1,
            ).v
            out[name] = out[name].copy(data=level.data)
    if n_time > 1:
        together = cube(stack.assign(out), bands)
        factor = whole_image(
            partial(ratio_histogram, radius=POOL_PX), common_factor, together, size=len(bands) * n_time, **SAMPLE
        )
        for b, name in enumerate(bands):
            own = factor.isel(stat=slice(b * n_time, (b + 1) * n_time))
            level = per_pixel(divide, out[name], outputs={"v": ("float32", "time", n_time)}, ln_factor=own).v
            out[name] = out[name].copy(data=level.data)
    return stack.assign(out)


def _stretches(stack):
    """(orbit, block) numbers of the dates; one block where orbits do not take turns."""
    n = stack.sizes["time"]
    seen = stack.orbit.values if "orbit" in stack.coords else np.zeros(n)
    orbit = np.unique(seen, return_inverse=True)[1].astype(np.int64)
    n_orbit = int(orbit.max()) + 1
    block = np.arange(n) // (BLOCK_DATES * n_orbit)
    tied = [np.unique(orbit[block == k]).size == n_orbit for k in range(int(block.max()) + 1)]
    return orbit, (block if n_orbit > 1 and np.mean(tied) > 0.5 else np.zeros(n, np.int64))
