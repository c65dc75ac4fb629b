"""Linear unmixing of a pixel into green leaves, dead wood, soil, shade and cloud, and the NDFI of these."""

from __future__ import annotations

import itertools

import numpy as np
from numba import njit

ENDMEMBERS = np.array(
    [
        (0.05, 0.09, 0.04, 0.61, 0.30, 0.10),
        (0.14, 0.17, 0.22, 0.30, 0.55, 0.30),
        (0.20, 0.30, 0.34, 0.58, 0.60, 0.58),
        (0.00, 0.00, 0.00, 0.00, 0.00, 0.00),
        (0.90, 0.96, 0.80, 0.78, 0.72, 0.65),
    ]
)
"""Reflectance (blue green red nir swir1 swir2) of green and dead vegetation, soil, shade, cloud (Souza et al. 2005)."""
GREEN, DEAD, SOIL, SHADE, CLOUD = range(5)
CLOUDY = 0.3
"""Share of cloud from which an observation is none of the ground."""


def solutions(endmembers):
    """The least-squares fractions that add up to one, for every choice of endmembers, as linear maps of the spectrum.

    Returns member (subset, n) bool, slope (subset, n, band), offset (subset, n): fractions = slope @ x + offset. Larger
    subsets come first.
    """
    n, n_band = endmembers.shape
    subsets = [s for size in range(n, 0, -1) for s in itertools.combinations(range(n), size)]
    member = np.zeros((len(subsets), n), np.bool_)
    slope = np.zeros((len(subsets), n, n_band))
    offset = np.zeros((len(subsets), n))
    for k, subset in enumerate(subsets):
        rows = list(subset)
        chosen = endmembers[rows]
        m = len(rows)
        system = np.ones((m + 1, m + 1))
        system[:m, :m] = chosen @ chosen.T
        system[m, m] = 0.0
        inverse = np.linalg.inv(system)
        member[k, rows] = True
        slope[k, rows] = inverse[:m, :m] @ chosen
        offset[k, rows] = inverse[:m, m]
    return member, slope, offset


@njit(nogil=True, cache=True)
def unmix(spectra, endmembers, member, slope, offset):
    """Fractions >= 0 that add up to one and leave the least squared residual.

    spectra : (n, band); endmembers : (m, band); the rest as `solutions` gives it
    Returns (n, m) float32, NaN where a band is not observed. The problem is convex: the subset whose own solution has
    no negative fraction, and that no endmember outside it would better, is the answer.
    """
    n, n_band = spectra.shape
    m = endmembers.shape[0]
    out = np.full((n, m), np.nan, np.float32)
    f = np.empty(m)
    rest = np.empty(n_band)
    best = np.empty(m)
    for p in range(n):
        seen = True
        for b in range(n_band):
            seen &= np.isfinite(spectra[p, b])
        if not seen:
            continue
        least = np.inf
        for k in range(member.shape[0]):
            feasible = True
            for j in range(m):
                f[j] = 0.0
                if member[k, j]:
                    value = offset[k, j]
                    for b in range(n_band):
                        value += slope[k, j, b] * spectra[p, b]
                    if value < 0.0:
                        feasible = False
                        break
                    f[j] = value
            if not feasible:
                continue
            error = 0.0
            for b in range(n_band):
                rest[b] = -spectra[p, b]
                for j in range(m):
                    rest[b] += f[j] * endmembers[j, b]
                error += rest[b] ** 2
            if error < least:
                least = error
                best[:] = f
            if optimal(rest, endmembers, member[k]):
                best[:] = f
                break
        out[p] = best
    return out


@njit(nogil=True, cache=True)
def optimal(rest, endmembers, member):
    """Whether no endmember outside the subset would lessen the residual (the Karush-Kuhn-Tucker conditions)."""
    inside = -np.inf
    for j in range(member.size):
        if member[j]:
            inside = max(inside, np.dot(endmembers[j], rest))
    outside = np.inf
    for j in range(member.size):
        if not member[j]:
            outside = min(outside, np.dot(endmembers[j], rest))
    return outside >= inside - 1e-9


@njit(nogil=True, cache=True)
def ndfi(blue, green, red, nir, swir1, swir2, endmembers, member, slope, offset):
    """Normalised difference fraction index of series.

    blue ... swir2 : (n_pixel, n_time) float32 reflectance
    Returns (n_pixel, n_time) float32 in -1..1: 1 closed green canopy, below 0 more dead matter and soil than leaves.
    NaN where not observed, where clouds take `CLOUDY` of the pixel or more, and where there is nothing but shade.
    """
    n_pixel, n_time = blue.shape
    out = np.full((n_pixel, n_time), np.nan, np.float32)
    spectra = np.empty((n_time, 6))
    for p in range(n_pixel):
        for t in range(n_time):
            spectra[t, 0] = blue[p, t]
            spectra[t, 1] = green[p, t]
            spectra[t, 2] = red[p, t]
            spectra[t, 3] = nir[p, t]
            spectra[t, 4] = swir1[p, t]
            spectra[t, 5] = swir2[p, t]
        f = unmix(spectra, endmembers, member, slope, offset)
        for t in range(n_time):
            if not f[t, 0] >= 0.0 or f[t, CLOUD] >= CLOUDY:
                continue
            light = 1.0 - f[t, SHADE]
            leaves = f[t, GREEN] / light if light > 1e-3 else 0.0
            bare = f[t, DEAD] + f[t, SOIL]
            if leaves + bare > 0.0:
                out[p, t] = (leaves - bare) / (leaves + bare)
    return out
