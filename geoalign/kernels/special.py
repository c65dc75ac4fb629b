"""Special functions for numba: upper incomplete gamma, chi-square tail, normal quantile, trigamma and its inverse."""

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def gammaincc(a, x):
    """Regularised upper incomplete gamma function Q(a, x), a > 0, x >= 0.

    Series for x < a + 1, Lentz's continued fraction beyond (Abramowitz and Stegun 6.5.29 and 6.5.31).
    """
    if x <= 0.0:
        return 1.0
    if math.isinf(x):
        return 0.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = 1.0 / a
        total = term
        n = a
        for _ in range(10000):
            n += 1.0
            term *= x / n
            total += term
            if term < total * 1e-16:
                break
        return max(0.0, 1.0 - front * total)
    tiny = 1e-300
    b = x + 1.0 - a
    c = 1.0 / tiny
    d = 1.0 / b
    h = d
    for i in range(1, 10000):
        an = -i * (i - a)
        b += 2.0
        d = an * d + b
        if abs(d) < tiny:
            d = tiny
        c = b + an / c
        if abs(c) < tiny:
            c = tiny
        d = 1.0 / d
        step = d * c
        h *= step
        if abs(step - 1.0) < 1e-15:
            break
    return front * h


@njit(nogil=True, cache=True)
def chi2_sf(z, f):
    """Upper tail of chi-square with f degrees of freedom."""
    return gammaincc(0.5 * f, 0.5 * z)


@njit(nogil=True, cache=True)
def normal_upper(p):
    """x that a normal deviate exceeds with the chance p, 0 < p <= 0.5; relative error below 1e-6.

    Hastings' approximation (Abramowitz and Stegun 26.2.23) and one step of Newton.
    """
    t = math.sqrt(-2.0 * math.log(p))
    x = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    over = 0.5 * math.erfc(x / math.sqrt(2.0)) - p
    return x + over * math.sqrt(2.0 * math.pi) * math.exp(0.5 * x * x)


@njit(nogil=True, cache=True)
def trigamma(x):
    """psi'(x) for x > 0: recurrence up to 8, then the asymptotic series (Abramowitz and Stegun 6.4.12)."""
    total = 0.0
    while x < 8.0:
        total += 1.0 / (x * x)
        x += 1.0
    r = 1.0 / (x * x)
    return total + 1.0 / x + 0.5 * r + r / x * (1 / 6 - r * (1 / 30 - r * (1 / 42 - r / 30)))


@njit(nogil=True, cache=True)
def looks_of_variance(v):
    """Looks L whose log-intensity has variance v: the L with trigamma(L) = v; inf for v <= 0.

    Newton on 1/trigamma, which is almost straight, so that a handful of steps suffice for any v.
    """
    if not v > 0.0:
        return np.inf
    # trigamma(x) lies between 1/x + 1/(2x^2) and 1/x + 1/x^2
    x = (1.0 + math.sqrt(1.0 + 2.0 * v)) / (2.0 * v)
    for _ in range(60):
        t = trigamma(x)
        h = 1e-4 * x
        slope = (trigamma(x + h) - trigamma(x - h)) / (2.0 * h)
        step = t * (1.0 - t / v) / slope
        x += max(step, -0.5 * x)
        if abs(step) < 1e-11 * x:
            break
    return x
