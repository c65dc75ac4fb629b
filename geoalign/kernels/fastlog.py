"""ln and exp of whole arrays, in loops that a compiler turns into vector instructions (a call to libm stops it).

Scratch is handed in, seen both as float64 and as int64: making a view costs as much as ten logarithms.
"""

import numpy as np
from numba import njit

SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
INV_LN2 = 1.44269504088896338700


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def ln(work, bits, n_row, n):
    """Replaces work[:n_row, :n] by their natural logarithm; relative error below 1e-11.

    work : (3 * rows, ...) float64; rows from a third of them on are scratch. bits : work.view(np.int64)
    Values must be positive and normal, which is not checked.

    ln x = e ln 2 + ln m with m in [sqrt(1/2), sqrt(2)), and ln m = 2 artanh s with s = (m - 1) / (m + 1).
    """
    spare = work.shape[0] // 3
    for r in range(n_row):
        for i in range(n):
            e = (bits[r, i] - SQRT_HALF_BITS) >> 52
            bits[spare + r, i] = bits[r, i] - (e << 52)
            work[2 * spare + r, i] = np.float64(np.int32(e))
        for i in range(n):
            s = (work[spare + r, i] - 1.0) / (work[spare + r, i] + 1.0)
            q = s * s
            series = 1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))
            series = q * (1 / 3 + q * (1 / 5 + q * series))
            low = work[2 * spare + r, i] * LN2_LOW + 2.0 * s * (1.0 + series)
            work[r, i] = work[2 * spare + r, i] * LN2_HIGH + low


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def exp(values, row, work, bits, n):
    """Replaces values[row, :n] by exp of them, 0 below -700; relative error below 1e-10.

    values : (..., n) float64, at most 700; work, bits : as of `ln`, of which the first row is used
    """
    for i in range(n):
        x = max(values[row, i], -700.0)
        k = np.floor(x * INV_LN2 + 0.5)
        r = (x - k * LN2_HIGH) - k * LN2_LOW
        tail = 1 / 5040 + r * (1 / 40320 + r * (1 / 362880))
        tail = 1 / 24 + r * (1 / 120 + r * (1 / 720 + r * tail))
        out = 1.0 + r * (1.0 + r * (0.5 + r * (1 / 6 + r * tail)))
        bits[0, i] = (np.int64(np.int32(k)) + 1023) << 52
        values[row, i] = out if values[row, i] >= -700.0 else 0.0
    for i in range(n):
        values[row, i] *= work[0, i]
