"""What the simulated ground reflects and scatters on a day: spectra and backscatter by land cover, season and event."""

import math

import numpy as np
from numba import njit

from geoalign.kernels.scene import BARE, BUILDING, CLEARING, CROP, FLOOD, FOREST, GRASS, URBAN, WATER, hash01

OPTICAL_BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
SAR_BANDS = ("vv", "vh")

# Surface reflectance of pure covers (blue green red nir swir1 swir2), typical of Sentinel-2 L2A over central Europe
_LEAF = (0.028, 0.060, 0.034, 0.420, 0.190, 0.090)
_CANOPY = (0.018, 0.040, 0.022, 0.320, 0.125, 0.055)
_SOIL = (0.070, 0.100, 0.135, 0.220, 0.300, 0.250)
_LITTER = (0.040, 0.058, 0.074, 0.175, 0.165, 0.105)
_STRAW = (0.060, 0.088, 0.105, 0.240, 0.230, 0.160)
_GRAVEL = (0.140, 0.180, 0.220, 0.285, 0.340, 0.300)
_ASPHALT = (0.085, 0.095, 0.105, 0.125, 0.145, 0.135)
_ROOF = (0.190, 0.205, 0.220, 0.250, 0.265, 0.245)
_TILE = (0.070, 0.090, 0.165, 0.235, 0.275, 0.235)
_LAKE = (0.042, 0.046, 0.030, 0.016, 0.008, 0.005)
_MUDDY = (0.070, 0.098, 0.088, 0.045, 0.018, 0.012)
_FELLED = (0.058, 0.082, 0.104, 0.195, 0.250, 0.190)
SPECTRA = np.array(
    [_LEAF, _CANOPY, _SOIL, _LITTER, _STRAW, _GRAVEL, _ASPHALT, _ROOF, _TILE, _LAKE, _MUDDY, _FELLED], np.float64
)
_I_LEAF, _I_CANOPY, _I_SOIL, _I_LITTER, _I_STRAW, _I_GRAVEL = range(6)
_I_ASPHALT, _I_ROOF, _I_TILE, _I_LAKE, _I_MUDDY, _I_FELLED = range(6, 12)

# gamma0 in dB (vv, vh) by class, C band at about 38 degrees
BACKSCATTER_DB = np.array(
    [(-8.3, -13.6), (-10.8, -17.2), (-11.8, -18.8), (-4.5, -11.5), (-13.0, -21.5), (-19.5, -27.0), (-15.5, -23.5)],
    np.float64,
)
EVENT_DB = np.array([(0.0, 0.0), (-4.0, -3.0), (-1.5, -3.0), (5.0, 4.0)], np.float64)
"""Change of backscatter (vv, vh) by kind of event, dB; see `simulate` for why."""


@njit(nogil=True, cache=True)
def _season(day, peak, power):
    """0..1 over the year, 1 at day-of-year `peak`; a raised cosine to a power, smooth and of few harmonics."""
    return (0.5 + 0.5 * math.cos(6.283185307179586 * (day - peak) / 365.25)) ** power


@njit(nogil=True, cache=True)
def _crop_cover(parcel, day, year, salt):
    """Green cover 0..1 of a crop parcel: winter or summer crop, sown a little earlier or later each year."""
    late = hash01(parcel, 1, salt) < 0.45
    peak = (205.0 if late else 148.0) + 36.0 * (hash01(parcel, 2, salt) - 0.5)
    peak += 10.0 * (hash01(parcel, year, salt + 1) - 0.5)
    top = 0.72 + 0.25 * hash01(parcel, 3, salt) + 0.06 * (hash01(parcel, year, salt + 2) - 0.5)
    return 0.08 + top * _season(day, peak, 2)


@njit(nogil=True, cache=True)
def optical_values(cover, sub, parcel, texture, grain, event, kinds, active, day, year, salt, spectra):
    """Reflectance of the fine ground on one day: (band, row, col) float32.

    event : (row, col) int32, number of the planted event, 0 none; kinds, active : by event number, its kind and
        whether it shows on this day
    day : day of the year, 1-366
    """
    n_band = spectra.shape[1]
    n_row, n_col = cover.shape
    out = np.empty((n_band, n_row, n_col), np.float32)
    leaf = _season(day, 190.0, 1)
    for i in range(n_row):
        for j in range(n_col):
            c = cover[i, j]
            p = parcel[i, j]
            t = texture[i, j]
            g = grain[i, j]
            e = event[i, j]
            own = hash01(p, 9, salt)
            share = 0.0
            first = _I_SOIL
            second = _I_SOIL
            gain = 1.0
            if e > 0 and active[e]:
                kind = kinds[e]
                if kind == FLOOD:
                    first = _I_MUDDY
                    gain = 1.0 + 0.08 * t
                elif kind == CLEARING:
                    first = _I_FELLED
                    second = _I_LEAF
                    share = 0.06 + 0.06 * leaf + 0.06 * t
                    gain = 1.0 + 0.10 * t + 0.18 * g
                else:
                    first = _I_ROOF if g > -0.1 else _I_ASPHALT
                    gain = 1.0 + 0.25 * g + 0.06 * t
            elif c == FOREST:
                # conifers keep their needles, broad-leaved stands lose theirs
                first = _I_LITTER
                second = _I_CANOPY
                share = 0.90 + 0.08 * leaf - (0.45 * own) * (1.0 - leaf) + 0.04 * t
                gain = 1.0 + 0.06 * t + 0.22 * g + 0.16 * (own - 0.5)
            elif c == CROP:
                second = _I_LEAF
                share = _crop_cover(p, day, year, salt) + 0.05 * t
                gain = 1.0 + 0.28 * (own - 0.5) + 0.05 * t + 0.04 * g
            elif c == GRASS:
                first = _I_STRAW
                second = _I_LEAF
                share = 0.38 + 0.25 * own + 0.30 * leaf + 0.08 * t + (0.15 * g if sub[i, j] == 3 else 0.0)
                gain = 1.0 + 0.20 * (own - 0.5) + 0.05 * t + 0.05 * g
            elif c == URBAN:
                first = _I_TILE if sub[i, j] == 1 else _I_ROOF
                gain = 0.8 + 0.5 * own + 0.10 * g
            elif c == BARE:
                first = _I_GRAVEL
                gain = 0.9 + 0.2 * own + 0.10 * t + 0.06 * g
            elif c == WATER:
                first = _I_LAKE
                second = _I_MUDDY
                share = (0.35 if p == 1 else 0.05) + 0.05 * t
            else:
                first = _I_GRAVEL if sub[i, j] == 1 else _I_ASPHALT
                gain = 0.9 + 0.08 * g
            share = min(max(share, 0.0), 1.0)
            for b in range(n_band):
                out[b, i, j] = gain * ((1.0 - share) * spectra[first, b] + share * spectra[second, b])
    return out


@njit(nogil=True, cache=True)
def sar_values(cover, sub, parcel, texture, grain, event, kinds, active, day, year, salt, base_db, event_db, season):
    """Mean backscatter (linear power, no speckle) of the fine ground on one day: (vv/vh, row, col) float32.

    season : scale of the yearly course; 1 gives crops +-1 dB in vh, grass +-0.5 dB, forest +-0.25 dB, half that in vv
    Other arguments as for `optical_values`.
    """
    n_row, n_col = cover.shape
    out = np.empty((2, n_row, n_col), np.float32)
    to_ln = math.log(10.0) / 10.0
    leaf = 2.0 * _season(day, 190.0, 1) - 1.0
    for i in range(n_row):
        for j in range(n_col):
            c = cover[i, j]
            p = parcel[i, j]
            t = texture[i, j]
            g = grain[i, j]
            own = hash01(p, 8, salt) - 0.5
            db = 0.0
            course = 0.0
            factor = 1.0
            if c == FOREST:
                db = 1.2 * own + 0.5 * t
                course = 0.25 * leaf
            elif c == CROP:
                db = 4.0 * own + 0.4 * t
                course = 2.0 * _crop_cover(p, day, year, salt) - 1.0
            elif c == GRASS:
                db = 2.4 * own + 0.4 * t
                course = 0.5 * leaf
            elif c == URBAN:
                # a few walls facing the radar carry most of the power
                db = 3.0 * own
                factor = 0.5 + (4.0 if g > 0.75 else 0.0)
            elif c == BARE:
                db = 2.0 * own + 0.6 * t
            elif c == WATER:
                db = 0.4 * t
            else:
                db = 1.0 * own
            k = 0
            e = event[i, j]
            if e > 0 and active[e]:
                k = kinds[e]
                if k == BUILDING:
                    factor *= 1.0 + 0.7 * g
            for b in range(2):
                yearly = season * course * (0.5 if b == 0 else 1.0)
                out[b, i, j] = factor * math.exp(to_ln * (base_db[c, b] + event_db[k, b] + db + yearly))
    return out
