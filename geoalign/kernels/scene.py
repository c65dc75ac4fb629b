"""The ground that simulated scenes are rendered from: land cover at any coordinate, what it reflects and scatters, and
the point spread that turns it into pixels.

Everything random here is a hash of integer coordinates and a salt, so a point has one value however the ground is cut
into blocks. Coordinates are project pixels, centres at integers; `fine` arrays sample the ground `oversample` times a
pixel, cell (i, j) centred at ((i + 0.5) / oversample - 0.5, ...).
"""

import math

import numpy as np
from numba import njit

FOREST, CROP, GRASS, URBAN, BARE, WATER, ROAD = range(7)
CLASSES = ("forest", "crop", "grass", "urban", "bare", "water", "road")
NONE, FLOOD, CLEARING, BUILDING = range(4)
KINDS = ("none", "flood", "clearing", "building")

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
def hash01(i, j, salt):
    """A number in [0, 1) from three integers (32-bit multiply-xorshift mixing); the same under Python and numba."""
    h = (i * 374761393 + j * 668265263 + salt * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 3266489917) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    return h / 4294967296.0


@njit(nogil=True, cache=True)
def value_noise(y, x, salt):
    """Smooth noise in 0..1 with lattice spacing 1: quintic blend of hashed lattice values."""
    i = int(math.floor(y))
    j = int(math.floor(x))
    t = y - i
    u = x - j
    t = t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
    u = u * u * u * (u * (u * 6.0 - 15.0) + 10.0)
    top = hash01(i, j, salt) * (1.0 - u) + hash01(i, j + 1, salt) * u
    low = hash01(i + 1, j, salt) * (1.0 - u) + hash01(i + 1, j + 1, salt) * u
    return top * (1.0 - t) + low * t


@njit(nogil=True, cache=True)
def fractal(y, x, salt, octaves):
    """Octaves of `value_noise`, each rotated against the last so that no lattice shows; about 0..1, mean 0.5."""
    total = 0.0
    weight = 1.0
    norm = 0.0
    for k in range(octaves):
        total += weight * (value_noise(y, x, salt + 7919 * k) - 0.5)
        norm += weight
        weight *= 0.55
        y, x = 1.62 * y + 1.18 * x + 17.3, -1.18 * y + 1.62 * x + 5.1
    return 0.5 + total / norm


@njit(nogil=True, cache=True)
def river_col(y, k, macro, salt):
    """Column of river k's centre line at row y."""
    phase = 6.283185307 * hash01(k, 11, salt)
    return macro * (k + 0.62) + 20.0 * math.sin(y / 31.0 + phase) + 7.0 * math.sin(y / 13.3 + 2.0 * phase)


@njit(nogil=True, cache=True)
def river_distance(y, x, macro, salt):
    """Distance from the nearest river's centre line, px."""
    k = int(math.floor(x / macro))
    best = 1e9
    for m in range(k - 1, k + 2):
        c = river_col(y, m, macro, salt)
        slope = river_col(y + 0.5, m, macro, salt) - river_col(y - 0.5, m, macro, salt)
        best = min(best, abs(x - c) / math.sqrt(1.0 + slope * slope))
    return best


@njit(nogil=True, cache=True)
def _near(y, x, i, j, fy, fx, macro, salt):
    """Distance to a landmark of macro cell (i, j), whose place in the cell is (fy, fx) with some jitter; in cells."""
    cy = macro * (i + fy + 0.06 * (hash01(i, j, salt) - 0.5))
    cx = macro * (j + fx + 0.06 * (hash01(i, j, salt + 1) - 0.5))
    return math.sqrt((y - cy) ** 2 + (x - cx) ** 2) / macro


@njit(nogil=True, cache=True)
def _cover(y, x, macro, salt):
    """Class, parcel number and a sub-class code of the ground at project pixel (y, x)."""
    bend = 6.0 * (fractal(y / 23.0, x / 23.0, salt + 1, 3) - 0.5)
    river = river_distance(y + bend * 0.3, x, macro, salt + 2)
    if river < 3.2 + 1.6 * value_noise(y / 40.0, x / 40.0, salt + 3):
        return WATER, 1, 0
    i = int(math.floor(y / macro))
    j = int(math.floor(x / macro))
    rough = fractal(y / 38.0, x / 38.0, salt + 4, 3) - 0.5
    if _near(y, x, i, j, 0.82, 0.24, macro, salt + 5) + 0.12 * rough < 0.062:
        return WATER, 2, 0

    road = macro * (math.floor(y / macro) + 0.47) + 9.0 * math.sin(x / 47.0)
    if abs(y - road) < 0.65:
        return ROAD, 3, 0
    street = macro * (math.floor(x / macro) + 0.33) + 6.0 * math.sin(y / 39.0)
    if abs(x - street) < 0.5:
        return ROAD, 4, 0

    town = _near(y, x, i, j, 0.30, 0.27, macro, salt + 7) + 0.16 * rough
    village = _near(y, x, i, j, 0.74, 0.84, macro, salt + 8) + 0.12 * rough
    if town < 0.095 or village < 0.05:
        return _town(y, x, salt + 9)

    wood = fractal(y / 62.0 + 3.1, x / 62.0 - 1.7, salt + 10, 4)
    for k in range(2):
        near = _near(y, x, i, j, 0.58 if k == 0 else 0.24, 0.16 if k == 0 else 0.88, macro, salt + 11 + k)
        wood += 0.34 * math.exp(-((near / 0.16) ** 2))
    wood -= 0.4 * math.exp(-((river / 24.0) ** 2))
    if wood > 0.57:
        # stands of 30 px or so differ in species
        stand = hash01(int(math.floor((y + bend) / 31.0)), int(math.floor((x - bend) / 27.0)), salt + 13)
        return FOREST, 10 + int(stand * 9999), 0
    return _fields(y, x, macro, salt + 20)


@njit(nogil=True, cache=True)
def _town(y, x, salt):
    """Buildings, gardens and streets on a turned grid."""
    v = 0.92 * y + 0.39 * x
    u = -0.39 * y + 0.92 * x
    i = int(math.floor(v / 5.0))
    j = int(math.floor(u / 7.0))
    dv = v - 5.0 * i
    du = u - 7.0 * j
    lot = 1000 + int(hash01(i, j, salt) * 100000)
    if dv < 0.8 or du < 0.8:
        return ROAD, lot, 0
    half = int(du > 3.9)
    place = hash01(2 * j + half, i, salt + 1)
    if dv < 3.4 and 0.5 < (du - 0.8 - 3.1 * half) < 2.8 and place < 0.85:
        return URBAN, lot + half, 1 if place < 0.5 else 2
    return GRASS, lot + half, 3


@njit(nogil=True, cache=True)
def _fields(y, x, macro, salt):
    """Parcels: strips cut at uneven places, the whole lattice turned; tracks along some borders."""
    wy = y + 2.0 * (value_noise(y / 55.0, x / 55.0, salt) - 0.5)
    wx = x + 2.0 * (value_noise(y / 55.0, x / 55.0, salt + 1) - 0.5)
    v = 0.95 * wy - 0.31 * wx
    u = 0.31 * wy + 0.95 * wx
    band = int(math.floor(v / 22.0))
    dv = v - 22.0 * band
    shift = 60.0 * hash01(band, 3, salt + 2)
    j = int(math.floor((u + shift) / 34.0))
    du = u + shift - 34.0 * j
    cut = 10.0 + 14.0 * hash01(band, j, salt + 3)
    part = int(du > cut)
    if dv < 0.45 and hash01(band, 5, salt + 4) < 0.6:
        return ROAD, 5, 1
    if abs(du - cut * part) < 0.3 and hash01(band, j, salt + 5) < 0.3:
        return ROAD, 5, 1
    pid = 200000 + int(hash01(band, 2 * j + part, salt + 6) * 1e9)
    kind = hash01(band, 2 * j + part, salt + 7)
    if kind < 0.66:
        return CROP, pid, 0
    if kind < 0.95:
        return GRASS, pid, 0
    return BARE, pid, 0


@njit(nogil=True, cache=True)
def ground(row0, col0, n_row, n_col, oversample, macro, salt):
    """Static ground over fine cells [row0, row0 + n_row) x [col0, col0 + n_col).

    macro : px, the cell in which the large features (river, lake, town, woods) repeat with variations
    Returns cover uint8, sub-class uint8, parcel int32, texture float32 (about -1..1, several px wide), grain float32
    (-1..1, independent about every half pixel).
    """
    cover = np.empty((n_row, n_col), np.uint8)
    sub = np.empty((n_row, n_col), np.uint8)
    parcel = np.empty((n_row, n_col), np.int32)
    texture = np.empty((n_row, n_col), np.float32)
    grain = np.empty((n_row, n_col), np.float32)
    for i in range(n_row):
        y = (row0 + i + 0.5) / oversample - 0.5
        for j in range(n_col):
            x = (col0 + j + 0.5) / oversample - 0.5
            c, p, s = _cover(y, x, macro, salt)
            cover[i, j] = c
            parcel[i, j] = p
            sub[i, j] = s
            texture[i, j] = 2.0 * (2.0 * fractal(y / 7.0, x / 7.0, salt + 40, 3) - 1.0)
            grain[i, j] = 2.0 * hash01(int(math.floor(2.0 * y)), int(math.floor(2.0 * x)), salt + 41) - 1.0
    return cover, sub, parcel, texture, grain


@njit(nogil=True, cache=True)
def covers_at(rows, cols, macro, salt):
    """Class at project pixels (rows, cols), 1-D arrays."""
    out = np.empty(rows.size, np.uint8)
    for p in range(rows.size):
        out[p] = _cover(rows[p], cols[p], macro, salt)[0]
    return out


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


@njit(nogil=True, cache=True)
def render(values, rows, cols, row0, col0, oversample, sigma_row, sigma_col):
    """Pixels from the fine ground: a Gaussian point spread around each pixel's place on the ground.

    values : (band, row, col) fine cells, the first of them cell (row0, col0)
    rows, cols : (row, col) project pixel coordinates of the pixels' centres on the ground
    sigma_row, sigma_col : point spread, project px
    Returns (band, row, col) float32. The window must reach 3.5 sigma around every pixel.
    """
    n_band = values.shape[0]
    sr = sigma_row * oversample
    sc = sigma_col * oversample
    hr = int(math.ceil(3.2 * sr))
    hc = int(math.ceil(3.2 * sc))
    wr = np.empty(2 * hr + 2)
    wc = np.empty(2 * hc + 2)
    out = np.empty((n_band, rows.shape[0], rows.shape[1]), np.float32)
    for p in range(rows.shape[0]):
        for q in range(rows.shape[1]):
            y = (rows[p, q] + 0.5) * oversample - 0.5 - row0
            x = (cols[p, q] + 0.5) * oversample - 0.5 - col0
            i0 = int(math.floor(y)) - hr
            j0 = int(math.floor(x)) - hc
            total_r = 0.0
            for a in range(2 * hr + 2):
                d = (i0 + a - y) / sr
                wr[a] = math.exp(-0.5 * d * d)
                total_r += wr[a]
            total_c = 0.0
            for a in range(2 * hc + 2):
                d = (j0 + a - x) / sc
                wc[a] = math.exp(-0.5 * d * d)
                total_c += wc[a]
            norm = 1.0 / (total_r * total_c)
            for b in range(n_band):
                total = 0.0
                for a in range(2 * hr + 2):
                    line = 0.0
                    for m in range(2 * hc + 2):
                        line += wc[m] * values[b, i0 + a, j0 + m]
                    total += wr[a] * line
                out[b, p, q] = total * norm
    return out


@njit(nogil=True, cache=True)
def paint(labels, row0, col0, oversample, cover, allowed, polygon, number):
    """Write `number` into fine cells inside the polygon whose class is allowed and which hold no event yet.

    labels : (row, col) int32, changed in place; polygon : (vertex, 2) project px (row, col); allowed : bool by class
    """
    n_row, n_col = labels.shape
    lo_i = max(0, int(math.floor((polygon[:, 0].min() + 0.5) * oversample)) - row0 - 1)
    hi_i = min(n_row, int(math.ceil((polygon[:, 0].max() + 0.5) * oversample)) - row0 + 1)
    lo_j = max(0, int(math.floor((polygon[:, 1].min() + 0.5) * oversample)) - col0 - 1)
    hi_j = min(n_col, int(math.ceil((polygon[:, 1].max() + 0.5) * oversample)) - col0 + 1)
    for i in range(lo_i, hi_i):
        y = (row0 + i + 0.5) / oversample - 0.5
        for j in range(lo_j, hi_j):
            if labels[i, j] != 0 or not allowed[cover[i, j]]:
                continue
            if _in_polygon(polygon, y, (col0 + j + 0.5) / oversample - 0.5):
                labels[i, j] = number


@njit(nogil=True, cache=True)
def _in_polygon(polygon, y, x):
    """Even-odd rule."""
    n = polygon.shape[0]
    odd = False
    for k in range(n):
        y1 = polygon[k, 0]
        x1 = polygon[k, 1]
        y2 = polygon[(k + 1) % n, 0]
        x2 = polygon[(k + 1) % n, 1]
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            odd = not odd
    return odd


@njit(nogil=True, cache=True)
def inside(polygon, rows, cols):
    """Which of the points (rows, cols), 1-D arrays, lie inside the polygon (vertex, 2)."""
    out = np.empty(rows.size, np.bool_)
    for p in range(rows.size):
        out[p] = _in_polygon(polygon, rows[p], cols[p])
    return out


@njit(nogil=True, cache=True)
def majority(labels, oversample, n_events):
    """Event number of each project pixel: the one that holds at least half of its cells, else 0."""
    n_row = labels.shape[0] // oversample
    n_col = labels.shape[1] // oversample
    out = np.zeros((n_row, n_col), np.int32)
    counts = np.zeros(n_events + 1, np.int64)
    for i in range(n_row):
        for j in range(n_col):
            best = 0
            for a in range(oversample):
                for b in range(oversample):
                    e = labels[i * oversample + a, j * oversample + b]
                    counts[e] += 1
                    if e > 0 and counts[e] > counts[best]:
                        best = e
            if best > 0 and 2 * counts[best] >= oversample * oversample:
                out[i, j] = best
            for a in range(oversample):
                for b in range(oversample):
                    counts[labels[i * oversample + a, j * oversample + b]] = 0
    return out


@njit(nogil=True, cache=True)
def cloud_fields(rows, cols, salt, shadow_dy, shadow_dx, level):
    """Cloud and shadow at project pixel coordinates (2-D arrays).

    level : the field above which there is cloud; shadow_dy, shadow_dx : where a cloud's shadow falls, px
    Returns opacity 0..1 of the cloud, depth 0..1 of the shadow, and the field of both together, from which a level for
    a wanted share can be taken.
    """
    opacity = np.empty(rows.shape, np.float32)
    depth = np.empty(rows.shape, np.float32)
    both = np.empty(rows.shape, np.float32)
    for p in range(rows.shape[0]):
        for q in range(rows.shape[1]):
            y = rows[p, q]
            x = cols[p, q]
            cloud = fractal(y / 52.0, x / 52.0, salt, 4)
            shade = fractal((y - shadow_dy) / 52.0, (x - shadow_dx) / 52.0, salt, 4)
            both[p, q] = max(cloud, shade)
            opacity[p, q] = min(max((cloud - level) / 0.07 + 0.15, 0.0), 1.0)
            depth[p, q] = min(max((shade - level) / 0.05 + 0.15, 0.0), 1.0)
    return opacity, depth, both


@njit(nogil=True, cache=True)
def smooth_field(rows, cols, scale, salt):
    """`fractal` noise of 2 octaves at (rows, cols), lattice spacing `scale` px; float32."""
    out = np.empty(rows.shape, np.float32)
    for p in range(rows.shape[0]):
        for q in range(rows.shape[1]):
            out[p, q] = fractal(rows[p, q] / scale, cols[p, q] / scale, salt, 2)
    return out
