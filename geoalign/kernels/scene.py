"""The ground that simulated scenes are rendered from: land cover at any coordinate, and the point spread that turns it
into pixels.

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
