"""Watching a series for a step with a few numbers a pixel: model, noise and two cumulative sums, one scene at a time.

`learn` fits season, trend, noise and its autocorrelation to a history; `fold` takes scenes in. Prediction errors are
carried to the normal scale (the model's own error and the doubt about its noise included) and whitened. For either
direction the log-likelihood ratio of "a step since scene j" against "none" is kept for the best j; the size of the step
is the mean error seen so far, so that it never looks ahead. A start at scene j costs log w_j, w_j = a / (a + j)^2 in
all, so that the chance of ever crossing a fixed limit stays bounded however long the watch.

`fold` runs scene by scene over blocks of pixels that stay in the cache, in loops of few arrays: so they vectorise.
Everything is float32 there and every scene's result is what the state holds, so that a watch that was stored and taken
up again gives the same bits.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import numpy as np
from numba import literal_unroll, njit

from geoalign.kernels.harmonic import TREND_SD, autocorrelation, choose_order, predict, robust_fit
from geoalign.kernels.watch_charts import chart, returned

BLOCK = 2048
"""Pixels that are taken through all scenes together: their state stays in the cache."""

MOST_SPARE = 400_000_000
"""Bytes of state up to which a piece of memory is kept for the next update; two of them at most."""

NONE = 65535
"""Scene number for "none"."""

CUT = np.float32(2.8)
"""The model learns from errors up to so many sd."""

KEPT_VARIANCE = np.float32(0.9702)
"""Variance of standard normal errors within `CUT`."""

OUTLIER = np.float32(3.5)
"""An error beyond it says nothing about the next one."""

DOUBT = np.float32(6.0)
"""Nothing is learned while the evidence for a step lies so far (nats) above that of a fresh start."""

SHARED = np.float32(2.0)
"""Errors within so many |gradient| sigma_px may be an offset that all later scenes share. At a sharp border, where one
pixel takes all of the step that two show the gradient of, it is a whole sigma_px."""

PAUSE = 50.0
"""a of the weights: scenes until half of alpha is spent."""

ALPHAS = np.array([0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001])
LIMITS = np.array([-1.75, -0.30, 0.55, 1.30, 2.25, 2.95, 3.60, 4.45, 5.10])
"""Limit of the evidence by level: quantiles of its supremum over 3,000 independent normal errors of which 1 % are
outliers (`tests/kernels/test_watch.py` simulates some of them again)."""


def limit(alpha: float) -> float:
    """Evidence (nats) at which a step is confirmed; the last slope goes on beyond the table."""
    at, xs, ys = np.log(float(alpha)), np.log(ALPHAS[::-1]), LIMITS[::-1]
    if at < xs[0]:
        return float(ys[0] + (xs[0] - at))
    return float(np.interp(at, xs, ys))


def start_cost(n_scenes) -> np.ndarray:
    """log w_j for the j-th watched scene (1, 2, ...), float32."""
    return (np.log(PAUSE) - 2 * np.log(PAUSE + np.asarray(n_scenes, np.float64))).astype(np.float32)


@njit(nogil=True, cache=True)
def learn(series, x, years, step, order):
    """Model of every pixel's history.

    series : (n_pixel, n_time) float32, NaN = not observed
    x : (n_time, p) `harmonic.regressors`, years from the end of the history; years : (n_time,)
    step : usual years from one scene to the next
    order : harmonics; fewer where a pixel has too few observations

    Returns beta (p, n_pixel) float32; spread (4, n_pixel) float32: (X'X)^-1 of level and trend (three numbers), mean
    diagonal of the season's; noise (n_pixel,) float32 variance; memory (n_pixel,) uint8, autocorrelation from one scene
    to the next in hundredths; freedom, n_obs, last (n_pixel,) uint16: degrees of freedom (0: too few observations),
    observations, number of the last observed scene; before (n_pixel,) float32, its standardised error.
    """
    n_pixel, n_time = series.shape
    p_max = x.shape[1]
    beta_out = np.zeros((p_max, n_pixel), np.float32)
    spread = np.zeros((4, n_pixel), np.float32)
    noise = np.zeros(n_pixel, np.float32)
    memory = np.zeros(n_pixel, np.uint8)
    freedom = np.zeros(n_pixel, np.uint16)
    n_obs = np.zeros(n_pixel, np.uint16)
    last = np.full(n_pixel, NONE, np.uint16)
    before = np.zeros(n_pixel, np.float32)
    at = np.empty(n_time, np.int64)
    y = np.empty(n_time)
    error = np.empty(n_time)
    keep = np.empty(n_time)
    xs = np.empty((n_time, p_max))
    beta = np.empty(p_max)
    inverse = np.empty((p_max, p_max))
    for pixel in range(n_pixel):
        n = 0
        level = 0.0
        for t in range(n_time):
            v = series[pixel, t]
            if np.isfinite(v):
                at[n] = t
                y[n] = v
                level += abs(v)
                xs[n] = x[t]
                n += 1
        n_obs[pixel] = min(n, NONE)
        if n > 0:
            last[pixel] = at[n - 1]
        p = choose_order(n, order)
        if p == 0:
            continue
        span = years[at[n - 1]] - years[at[0]]
        ridge = 1.0 / TREND_SD**2 if span < 1.9 else 0.0
        squares = robust_fit(xs, y, n, p, ridge, keep, inverse, beta)
        if squares < 0.0:
            continue
        trend = 1 if p == 2 else 3
        squares += ridge * beta[trend] ** 2
        used = 1 if ridge > 0.0 else 0
        for i in range(n):
            used += int(keep[i])
        df = max(used - p, 1)
        floor = (1e-4 * level / n + 1e-12) ** 2
        variance = max(squares / df, floor)
        for a in range(p):
            beta_out[a, pixel] = beta[a]
        spread[0, pixel] = inverse[0, 0]
        spread[1, pixel] = inverse[0, trend]
        spread[2, pixel] = inverse[trend, trend]
        for a in range(p):
            if a != 0 and a != trend:
                spread[3, pixel] += inverse[a, a] / (p - 2)
        noise[pixel] = variance
        freedom[pixel] = min(df, NONE)
        for i in range(n):
            error[i] = (y[i] - predict(xs[i], beta, p)) / np.sqrt(variance)
        if keep[n - 1] > 0.0:
            before[pixel] = error[n - 1]
        memory[pixel] = int(round(100.0 * autocorrelation(error, keep, years, at, n, p, 1.5 * step)))
    return beta_out, spread, noise, memory, freedom, n_obs, last, before


def fold(series, x, gap, shift, usual, cost, first, bound, beta, spread, noise, memory, steep, before, freedom, n_obs,
         n_watched, last, evidence, size, n_since, since, after, by, outcome, confirmed, over):  # fmt: skip
    """Take scenes into the state, in order.

    series : (n_scene, n_pixel) float32, NaN = not observed; x : (n_scene, p) float32, years from the end of the history
    gap : (n_scene, n_known) uint8, usual steps from each known scene to this one
    shift : (n_scene, 1 or n_pixel) float32, squared sigma_px; usual : its mean in the history, whose noise holds it
    cost : (n_scene,) float32 `start_cost`; first : number of the first scene; bound : float32 `limit`

    The rest is the state; float32 and integers, (n_pixel,) or (k, n_pixel): see `learn` for beta to freedom.
    steep : squared gradient; n_watched : observations since the watch began
    evidence, size, n_since, since, after, by : (2, n_pixel), for drops and for rises: log-likelihood ratio plus cost of
        the start; mean error since it; observations since it; scene numbers of the first changed observation, of the
        last one before it that looked normal, of the one by which the step was plain. Once a step is confirmed, the
        other direction's place watches for the return
    outcome : (n_pixel,) uint8, 0 none, 1 drop, 2 rise confirmed, 3 drop, 4 rise that is over; confirmed, over : scene
        numbers of the confirming observation and of the first one back

    Returns the state that changes, new arrays, in the same order (without memory and steep).
    """
    old = (beta, spread, noise, before, freedom, n_obs, n_watched, last, evidence, size, n_since, since, after, by,
           outcome, confirmed, over)  # fmt: skip
    new = _room(old)
    _fold(
        series,
        x,
        gap,
        shift,
        usual,
        cost,
        first,
        bound,
        memory,
        steep,
        tuple(zip(map(_rows, old), map(_rows, new))),
        new,
    )
    return new


class _Lease:
    """A piece of memory that is used again once the last array that lies in it is gone."""

    spare: ClassVar[deque] = deque(maxlen=2)

    def __init__(self, n_bytes):
        try:
            self.memory = self.spare.pop()
        except IndexError:
            self.memory = None
        if self.memory is None or self.memory.size != n_bytes:
            self.memory = np.empty(n_bytes, np.uint8)
        self.__array_interface__ = self.memory.__array_interface__

    def __del__(self):
        if self.memory.size <= MOST_SPARE:
            self.spare.append(self.memory)


def _room(arrays):
    """Arrays of the same shapes and types and of any content in one piece of memory, a used one where there is one.

    Fresh memory has to be zeroed by the system first: a quarter of the time of one scene's update.
    """
    places = np.cumsum([0, *(-(-a.nbytes // 64) * 64 for a in arrays)])
    room = np.asarray(_Lease(int(places[-1])))
    return tuple(room[p : p + a.nbytes].view(a.dtype).reshape(a.shape) for p, a in zip(places, arrays))


def _rows(array):
    return array.reshape(-1, array.shape[-1])


@njit(nogil=True, cache=True, error_model="numpy")
def _fold(series, x, gap, shift, usual, cost, first, bound, memory, steep, copied, new):
    """`fold` into arrays `new` of any content: each block is copied there and taken through all scenes.

    copied : pairs (old, new) of the arrays of the state that change, as (k, n_pixel)
    """
    (beta, spread, noise, before, freedom, n_obs, n_watched, last, evidence, size, n_since, since, after, by,
     outcome, confirmed, over) = new  # fmt: skip
    n_scene, n_pixel = series.shape
    p = x.shape[1]
    one = np.float32(1.0)
    zero = np.float32(0.0)
    work = np.empty((14, BLOCK), np.float32)
    seen = np.empty(BLOCK, np.bool_)
    wide = shift.shape[1] > 1
    trend = 1 if p == 2 else 3
    seasons = np.float32((p - 2) / 2)
    for begin in range(0, n_pixel, BLOCK):
        end = min(begin + BLOCK, n_pixel)
        n = end - begin
        for pair in literal_unroll(copied):
            source, copy = pair
            for r in range(copy.shape[0]):
                taken, kept = source[r, begin:end], copy[r, begin:end]
                for i in range(n):  # from 0 on slices, or it does not vectorise
                    kept[i] = taken[i]
        e, h, sd, u, v = work[0, :n], work[1, :n], work[2, :n], work[3, :n], work[4, :n]
        decay, white, g, a, b = work[5, :n], work[6, :n], work[7, :n], work[8, :n], work[9, :n]
        room, top, old, keep = work[10, :n], work[11, :n], work[12, :n], work[13, :n]
        on = seen[:n]
        p00, p01, p11, q = spread[0, begin:end], spread[1, begin:end], spread[2, begin:end], spread[3, begin:end]
        level = beta[0, begin:end]
        variance, mem, slope, prior = noise[begin:end], memory[begin:end], steep[begin:end], before[begin:end]
        df, count, watched, recent = freedom[begin:end], n_obs[begin:end], n_watched[begin:end], last[begin:end]
        state, when, back = outcome[begin:end], confirmed[begin:end], over[begin:end]
        for i in range(n):
            r = np.float32(0.01) * mem[i]
            white[i] = np.sqrt((one - r) / (one + r))
        for k in range(n_scene):
            row = series[k, begin:end]
            t = x[k, trend]
            number = np.uint16(first + k)
            for i in range(n):
                on[i] = np.isfinite(row[i]) & (df[i] > 0)
            for i in range(n):
                count[i] += np.uint16(1) if np.isfinite(row[i]) else np.uint16(0)
            for i in range(n):
                e[i] = row[i] - level[i]
            for c in range(1, p):
                coefficient = beta[c, begin:end]
                value = x[k, c]
                for i in range(n):
                    e[i] -= coefficient[i] * value
            for i in range(n):
                e[i] = e[i] if on[i] else zero
            for i in range(n):
                h[i] = p00[i] + t * (p01[i] + p01[i] + t * p11[i]) + q[i] * seasons
            for i in range(n):
                floor = np.float32(1e-4) * level[i]
                # correlated errors tell less about the model than so many independent ones
                floor *= floor
                sd[i] = (variance[i] if variance[i] > floor else floor) * (one + h[i] / (white[i] * white[i]))
            for i in range(n):
                a[i] = shift[k, 0]
            if wide:
                for i in range(n):
                    a[i] = shift[k, begin + i]
            for i in range(n):
                more = a[i] - usual
                sd[i] += slope[i] * (more if more > zero else zero)
                # what later scenes may lie off all the same way is no change, however often it is seen
                room[i] = SHARED * np.sqrt(slope[i] * a[i])
            for i in range(n):
                sd[i] = np.sqrt(sd[i]) + np.float32(1e-12)
            for i in range(n):
                # Student-t to normal (Abramowitz and Stegun 26.7.8)
                s = abs(e[i]) - room[i]
                s = (s if s > zero else zero) / sd[i]
                f = np.float32(df[i]) + np.float32(1e-3)
                r = one - np.float32(0.25) / f
                s = s * (r if r > zero else zero) / np.sqrt(one + np.float32(0.5) * s * s / f)
                u[i] = s if e[i] >= 0 else -s
            steps = gap[k]
            for i in range(n):
                r = np.float32(0.01) * mem[i]
                m = steps[recent[i]] if recent[i] < steps.size else np.uint8(0)
                decay[i] = zero if m == 0 or m > 3 else r if m == 1 else r * r if m == 2 else r * r * r
            for i in range(n):
                v[i] = (u[i] - decay[i] * prior[i]) / np.sqrt(one - decay[i] * decay[i])
            top[:] = np.float32(-1e30)
            for d in range(2):
                other = 1 - d
                side = np.float32(2 * d - 1)
                own = np.uint8(d + 1)
                chart(side, own, cost[k], number, bound, on, e, sd, v, white, state, evidence[d, begin:end],
                      size[d, begin:end], n_since[d, begin:end], since[d, begin:end], after[d, begin:end],
                      by[d, begin:end], top, old, keep, a, b)  # fmt: skip
                n_own = 0
                for i in range(n):
                    n_own += 1 if state[i] == own else 0
                if n_own > 0:
                    returned(side, own, number, on, sd, v, white, state, size[d, begin:end], evidence[other, begin:end],
                             n_since[other, begin:end], since[other, begin:end], back, when)  # fmt: skip
            for d in range(2):
                own = np.uint8(d + 1)
                strong, length = evidence[d, begin:end], n_since[d, begin:end]
                cleared, begun = evidence[1 - d, begin:end], n_since[1 - d, begin:end]
                for i in range(n):
                    hit = on[i] & (state[i] == 0) & (length[i] >= 3) & (strong[i] >= bound)
                    g[i] = one if hit else zero
                n_hit = 0
                for i in range(n):
                    n_hit += 1 if g[i] > 0 else 0
                if n_hit == 0:
                    continue
                for i in range(n):
                    when[i] = number if g[i] > 0 else when[i]
                for i in range(n):
                    state[i] = own if g[i] > 0 else state[i]
                for i in range(n):
                    cleared[i] = zero if g[i] > 0 else cleared[i]
                for i in range(n):
                    begun[i] = np.uint16(0) if g[i] > 0 else begun[i]
            # learn from what is neither far off nor in doubt
            for i in range(n):
                calm = on[i] & (state[i] == 0) & (abs(u[i]) <= CUT) & (top[i] - cost[k] < DOUBT)
                keep[i] = one if calm else zero
            for i in range(n):
                g[i] = keep[i] * e[i] / (one + h[i])
            for i in range(n):
                f = np.float32(df[i])
                fresh = g[i] * e[i] / KEPT_VARIANCE
                variance[i] += keep[i] * (fresh - variance[i]) / (f + one)
            for i in range(n):
                df[i] += np.uint16(1) if (keep[i] > 0) & (df[i] < 65000) else np.uint16(0)
            for i in range(n):
                a[i] = p00[i] + p01[i] * t
            for i in range(n):
                b[i] = p01[i] + p11[i] * t
            for i in range(n):
                keep[i] = keep[i] / (one + a[i] + b[i] * t)
            for i in range(n):
                p00[i] -= a[i] * a[i] * keep[i]
            for i in range(n):
                p01[i] -= a[i] * b[i] * keep[i]
            for i in range(n):
                p11[i] -= b[i] * b[i] * keep[i]
            for c in range(p):
                coefficient = beta[c, begin:end]
                if c == 0:
                    for i in range(n):
                        coefficient[i] += a[i] * g[i]
                elif c == trend:
                    for i in range(n):
                        coefficient[i] += b[i] * g[i]
                else:
                    value = x[k, c]
                    for i in range(n):
                        coefficient[i] += q[i] * value * g[i]
            for i in range(n):
                q[i] = q[i] / (one + np.float32(0.5) * q[i]) if keep[i] > 0 else q[i]
            for i in range(n):
                fresh = u[i] if abs(u[i]) <= OUTLIER else zero
                prior[i] = fresh if on[i] else prior[i]
            for i in range(n):
                recent[i] = number if on[i] else recent[i]
            for i in range(n):
                watched[i] += np.uint16(1) if on[i] else np.uint16(0)
