"""Zones of a label image without the label image: row runs, connected components, and their outlines.

A run is a stretch of equal code in one row. Memory follows the number of runs, not the size of the image.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NO_DAY = np.int32(-(2**31))
"""Stands for a date that is not known; below every real day number."""


@njit(nogil=True, cache=True)
def row_runs(codes, row0):
    """Runs of equal, non-zero code.

    codes : (row, col) uint8, 0 = background; row0 : number of the first row
    Returns rows, starts, stops (exclusive), code of each run, in row-major order: int32, int32, int32, uint8.
    """
    n = 0
    for r in range(codes.shape[0]):
        before = 0
        for c in range(codes.shape[1]):
            v = codes[r, c]
            if v != 0 and v != before:
                n += 1
            before = v
    rows, starts, stops = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    code = np.empty(n, np.uint8)
    k = -1
    for r in range(codes.shape[0]):
        before = 0
        for c in range(codes.shape[1]):
            v = codes[r, c]
            if v != 0:
                if v != before:
                    k += 1
                    rows[k], starts[k], code[k] = row0 + r, c, v
                stops[k] = c + 1
            before = v
    return rows, starts, stops, code


@njit(nogil=True, cache=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(nogil=True, cache=True)
def label_runs(rows, starts, stops, code, reach):
    """Connected components of runs of the same code.

    rows, starts, stops, code : (n_run,), as `row_runs` gives them, row-major
    reach : 1 joins diagonal neighbours (8-connected), 0 does not (4-connected)
    Returns (n_run,) int32 labels 0, 1, ... in the order of their first run.
    """
    n = rows.size
    parent = np.arange(n).astype(np.int32)
    first = 0
    for i in range(n):
        above = rows[i] - 1
        while first < i and (rows[first] < above or (rows[first] == above and stops[first] + reach <= starts[i])):
            first += 1
        k = first
        while k < i and rows[k] == above and starts[k] < stops[i] + reach:
            if code[k] == code[i]:
                a, b = _root(parent, k), _root(parent, i)
                if a < b:
                    parent[b] = a
                elif b < a:
                    parent[a] = b
            k += 1
    # the smallest run of a component is its root, so labels can be given in one sweep
    count = 0
    labels = np.empty(n, np.int32)
    for i in range(n):
        root = _root(parent, i)
        if root == i:
            labels[i] = count
            count += 1
        else:
            labels[i] = labels[root]
    return labels


@njit(nogil=True, cache=True)
def run_sums(lengths, values):
    """Sum and number of the finite values of each run.

    lengths : (n_run,) pixels of each run; values : (n_pixel,) float32, run after run
    Returns sum float64, count int64: (n_run,).
    """
    total, count = np.zeros(lengths.size, np.float64), np.zeros(lengths.size, np.int64)
    p = 0
    for i in range(lengths.size):
        for _ in range(lengths[i]):
            v = values[p]
            if np.isfinite(v):
                total[i] += v
                count[i] += 1
            p += 1
    return total, count


@njit(nogil=True, cache=True)
def run_extremes(lengths, days):
    """Smallest and largest known day of each run, and how far into the run the smallest is first met.

    lengths : (n_run,); days : (n_pixel,) int32, NO_DAY = unknown
    Returns low, high, at: (n_run,) int32; NO_DAY and 0 where no day is known.
    """
    low, high = np.full(lengths.size, NO_DAY, np.int32), np.full(lengths.size, NO_DAY, np.int32)
    at = np.zeros(lengths.size, np.int32)
    p = 0
    for i in range(lengths.size):
        for k in range(lengths[i]):
            day = days[p]
            p += 1
            if day == NO_DAY:
                continue
            if low[i] == NO_DAY or day < low[i]:
                low[i], at[i] = day, k
            high[i] = max(high[i], day)
    return low, high, at


@njit(nogil=True, cache=True)
def zone_sums(labels, n_zone, values):
    """Sums over zones of a value a run, in run order: (n_zone,) float64."""
    out = np.zeros(n_zone, np.float64)
    for i in range(labels.size):
        out[labels[i]] += values[i]
    return out


@njit(nogil=True, cache=True)
def zone_extremes(labels, n_zone, low, high):
    """Smallest of `low` and largest of `high` over each zone, and the first run that holds the smallest.

    Returns low, high int32, run int32: (n_zone,). A zone without any known day has NO_DAY and its first run.
    """
    least, most = np.full(n_zone, NO_DAY, np.int32), np.full(n_zone, NO_DAY, np.int32)
    run = np.full(n_zone, -1, np.int32)
    for i in range(labels.size):
        z = labels[i]
        if run[z] < 0:
            run[z] = i
        if low[i] != NO_DAY and (least[z] == NO_DAY or low[i] < least[z]):
            least[z], run[z] = low[i], i
        most[z] = max(most[z], high[i])
    return least, most, run


@njit(nogil=True, cache=True)
def zone_medians(order, pointer, offsets, lengths, days):
    """Lower median of the known days of each zone: a day that was really seen.

    order : runs sorted by zone; pointer : (n_zone + 1,) where each zone begins in `order`
    offsets, lengths : (n_run,) where the pixels of each run lie in `days`; days : (n_pixel,) int32
    Returns (n_zone,) int32, NO_DAY where none is known.
    """
    n_zone = pointer.size - 1
    out = np.full(n_zone, NO_DAY, np.int32)
    for z in range(n_zone):
        size = 0
        for k in range(pointer[z], pointer[z + 1]):
            size += lengths[order[k]]
        known = np.empty(size, np.int32)
        n = 0
        for k in range(pointer[z], pointer[z + 1]):
            i = order[k]
            for p in range(offsets[i], offsets[i] + lengths[i]):
                if days[p] != NO_DAY:
                    known[n] = days[p]
                    n += 1
        if n > 0:
            out[z] = np.sort(known[:n])[(n - 1) // 2]
    return out


@njit(nogil=True, cache=True)
def outlines(order, pointer, rows, starts, stops, parts):
    """Rings around the 4-connected parts of each zone.

    A ring is walked with its part on the left, so that outer rings turn counter-clockwise where row 0 is on top, and
    holes the other way. Where two pixels of one part meet at a corner only, the walk crosses from one to the other:
    no ring then touches itself, and holes touch their outer ring, or each other, in single points, as the simple
    feature rules want.

    order, pointer : runs sorted by zone, and where each zone begins
    rows, starts, stops : (n_run,); parts : (n_run,) labels of 4-connected parts, each within one zone

    Returns
    -------
    vertices : (n_vertex, 2) int32 (row, col) of pixel corners, rings closed
    ends : (n_ring,) int64 where each ring ends in `vertices`
    ring_zone, ring_part : (n_ring,) int32; the first ring of a part is its outer one
    """
    n_zone = pointer.size - 1
    largest = 0
    for z in range(n_zone):
        top, bottom, left, right = _bounds(order[pointer[z] : pointer[z + 1]], rows, starts, stops)
        largest = max(largest, (bottom - top + 3) * (right - left + 2))
    # the part (times two) of each pixel of one zone, lowest bit: its top edge has been walked
    scratch = np.zeros(largest, np.int32)
    vertices, n_vertex = np.empty((1024, 2), np.int32), 0
    ends, ring_zone, ring_part, n_ring = np.empty(256, np.int64), np.empty(256, np.int32), np.empty(256, np.int32), 0

    for z in range(n_zone):
        members = order[pointer[z] : pointer[z + 1]]
        top, bottom, left, right = _bounds(members, rows, starts, stops)
        stride = right - left + 2
        for i in members:
            base = (rows[i] - top + 1) * stride + 1 - left
            for c in range(starts[i], stops[i]):
                scratch[base + c] = (parts[i] + 1) * 2
        for i in members:
            base = (rows[i] - top + 1) * stride + 1 - left
            for c in range(starts[i], stops[i]):
                at = base + c
                part = scratch[at] >> 1
                if scratch[at] & 1 or scratch[at - stride] >> 1 == part:
                    continue
                if n_ring == ends.size:
                    ends, ring_zone, ring_part = _twice(ends), _twice(ring_zone), _twice(ring_part)
                begin = n_vertex
                scratch[at] |= 1
                row, col, d_row, d_col = rows[i] - top + 1, c - left + 1, 0, -1
                while True:
                    ahead_left = _at(scratch, stride, row, col, d_row - d_col, d_col + d_row)
                    ahead_right = _at(scratch, stride, row, col, d_row + d_col, d_col - d_row)
                    turned = True
                    if ahead_right == part:
                        d_row, d_col = d_col, -d_row
                    elif ahead_left == part:
                        turned = False
                    else:
                        d_row, d_col = -d_col, d_row
                    if turned:
                        if n_vertex + 2 > vertices.shape[0]:
                            grown = np.empty((2 * vertices.shape[0], 2), np.int32)
                            grown[:n_vertex] = vertices[:n_vertex]
                            vertices = grown
                        vertices[n_vertex, 0], vertices[n_vertex, 1] = row + top - 1, col + left - 1
                        n_vertex += 1
                    row, col = row + d_row, col + d_col
                    if d_col == -1:
                        edge = row * stride + col
                        if edge == at:
                            break
                        scratch[edge] |= 1
                vertices[n_vertex] = vertices[begin]
                n_vertex += 1
                ends[n_ring], ring_zone[n_ring], ring_part[n_ring] = n_vertex, z, part - 1
                n_ring += 1
        for i in members:
            base = (rows[i] - top + 1) * stride + 1 - left
            scratch[base + starts[i] : base + stops[i]] = 0
    return vertices[:n_vertex], ends[:n_ring], ring_zone[:n_ring], ring_part[:n_ring]


@njit(nogil=True, cache=True)
def _bounds(members, rows, starts, stops):
    top, bottom = rows[members[0]], rows[members[0]]
    left, right = starts[members[0]], stops[members[0]]
    for i in members:
        top, bottom = min(top, rows[i]), max(bottom, rows[i])
        left, right = min(left, starts[i]), max(right, stops[i])
    return top, bottom, left, right


@njit(nogil=True, cache=True)
def _at(scratch, stride, row, col, s_row, s_col):
    """Part of the pixel that lies in quadrant (s_row, s_col) of the corner (row, col)."""
    return scratch[(row + (s_row - 1) // 2) * stride + col + (s_col - 1) // 2] >> 1


@njit(nogil=True, cache=True)
def _twice(values):
    grown = np.empty(2 * values.size, values.dtype)
    grown[: values.size] = values
    return grown
