"""The watch's kernels: the limit holds, the fast fold is the slow one, and splitting it changes no bit."""

import numpy as np
import pytest

from geoalign.kernels import watch
from geoalign.kernels.harmonic import regressors

STATE = ("beta", "spread", "noise", "memory", "steep", "before", "freedom", "n_obs", "n_watched", "last", "evidence",
         "size", "n_since", "since", "after", "by", "outcome", "confirmed", "over")  # fmt: skip
FOLDED = tuple(name for name in STATE if name not in ("memory", "steep"))
F = np.float32


def world(n_pixel=40, n_history=60, n_scene=50, seed=0, step=-0.12):
    """Series with a step in half of the pixels at the 20th watched scene, outliers and gaps."""
    rng = np.random.default_rng(seed)
    n = n_history + n_scene
    years = np.cumsum(rng.uniform(13, 19, n)) / 365.25
    years -= years[n_history - 1]
    y = 0.6 + 0.1 * np.cos(2 * np.pi * years) + 0.03 * rng.standard_normal((n_pixel, n))
    y[: n_pixel // 2, n_history + 20 :] += step
    y[: n_pixel // 8, n_history + 40 :] -= step
    y[rng.random(y.shape) < 0.02] -= 0.4
    y[rng.random(y.shape) < 0.3] = np.nan
    return y.astype(np.float32), years


def begun(series, years, n_history, order=2):
    step = float(np.median(np.diff(years[:n_history])))
    found = watch.learn(
        series[:, :n_history].copy(), regressors(years[:n_history], order), years[:n_history], step, order
    )
    beta, spread, noise, memory, freedom, n_obs, last, before = found
    n = series.shape[0]
    pair = (2, n)
    state = {
        "beta": beta, "spread": spread, "noise": noise, "memory": memory, "steep": np.full(n, 0.001, F),
        "before": before, "freedom": freedom, "n_obs": n_obs, "n_watched": np.zeros(n, "u2"), "last": last,
        "evidence": np.full(pair, -1e30, F), "size": np.zeros(pair, F), "n_since": np.zeros(pair, "u2"),
        "since": np.zeros(pair, "u2"), "after": np.broadcast_to(last, pair).copy(),
        "by": np.full(pair, watch.NONE, "u2"), "outcome": np.zeros(n, "u1"),
        "confirmed": np.full(n, watch.NONE, "u2"), "over": np.full(n, watch.NONE, "u2"),
    }  # fmt: skip
    return state, step


def folded(state, series, years, step, first, end, n_history, alpha=0.05, order=2):
    numbers = np.arange(first, end)
    apart = np.round((years[first:end, None] - years[None, :end]) / step)
    shift = np.full((end - first, 1), 0.04, F)
    new = watch.fold(
        np.ascontiguousarray(series[:, first:end].T), regressors(years[first:end], order).astype(F),
        np.clip(apart, 1, 255).astype("u1"), shift, F(0.01), watch.start_cost(numbers - n_history + 1), first,
        F(watch.limit(alpha)), *(state[k] for k in STATE),
    )  # fmt: skip
    return state | dict(zip(FOLDED, new))


def test_taking_scenes_in_at_once_or_in_parts_gives_the_same_bits():
    series, years = world()
    state, step = begun(series, years, 60)
    whole = folded(state, series, years, step, 60, 110, 60)
    parts = state
    for first, end in ((60, 61), (61, 77), (77, 110)):
        parts = folded(parts, series, years, step, first, end, 60)
    for name in STATE:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


def test_pixels_do_not_depend_on_their_neighbours():
    series, years = world(n_pixel=700)
    state, step = begun(series, years, 60)
    whole = folded(state, series, years, step, 60, 110, 60)
    some = np.arange(500, 523)
    alone = folded({k: v[..., some].copy() for k, v in state.items()}, series[some], years, step, 60, 110, 60)
    for name in STATE:
        np.testing.assert_array_equal(whole[name][..., some], alone[name], err_msg=name)


def test_memory_is_used_again_only_when_no_array_lies_in_it():
    """An update takes the memory of a state that is gone; one that somebody still holds, or a part of it, stays."""
    series, years = world()
    state, step = begun(series, years, 60)
    watch._Lease.spare.clear()
    first = folded(state, series, years, step, 60, 61, 60)
    held, copy = first["size"][1, 3:9], first["size"][1, 3:9].copy()
    where = first["beta"].ctypes.data
    del first
    others = [folded(state, series, years, step, 60, end, 60) for end in (70, 80, 90)]
    np.testing.assert_array_equal(held, copy)
    assert all(other["beta"].ctypes.data != where for other in others)
    del held
    again = folded(state, series, years, step, 60, 61, 60)
    assert again["beta"].ctypes.data == where
    np.testing.assert_array_equal(again["size"][1, 3:9], copy)


def test_the_state_is_not_changed_and_an_empty_scene_changes_nothing():
    series, years = world()
    state, step = begun(series, years, 60)
    before = {k: v.copy() for k, v in state.items()}
    series[:, 60:63] = np.nan
    after = folded(state, series, years, step, 60, 63, 60)
    for name in STATE:
        np.testing.assert_array_equal(state[name], before[name], err_msg=name)
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def slow(state, pixel, series, years, step, first, end, n_history, bound, order=2):
    """One pixel through the scenes in double precision, as the text of `watch` and `watch_charts` says."""
    s = {k: np.array(v[..., pixel], np.float64) for k, v in state.items()}
    p = 2 + 2 * order
    trend = 1 if p == 2 else 3
    r = s["memory"] / 100
    white = np.sqrt((1 - r) / (1 + r))
    for k in range(first, end):
        y = float(series[pixel, k])
        if not np.isfinite(y):
            continue
        s["n_obs"] += 1
        if s["freedom"] == 0:
            continue
        x = regressors(years[k : k + 1], order)[0]
        cost = np.log(50) - 2 * np.log(50 + k - n_history + 1)
        e = y - s["beta"] @ x
        p00, p01, p11, q = s["spread"]
        h = p00 + 2 * p01 * x[trend] + p11 * x[trend] ** 2 + q * order
        room = 2 * np.sqrt(s["steep"] * 0.04)
        sd = np.sqrt(max(s["noise"], (1e-4 * s["beta"][0]) ** 2) * (1 + h / white**2) + s["steep"] * 0.03)
        t, df = max(abs(e) - room, 0) / sd, s["freedom"]
        u = np.sign(e) * t * (1 - 0.25 / df) / np.sqrt(1 + t * t / (2 * df))
        lag = max(round((years[k] - years[int(s["last"])]) / step), 1)
        decay = r**lag if lag <= 3 else 0.0
        v = (u - decay * s["before"]) / np.sqrt(1 - decay**2)
        top = -np.inf
        decided = int(s["outcome"])
        for d, side in ((0, -1), (1, 1)):
            if decided not in (0, d + 1):
                continue
            size = side * s["size"][d] / sd * white
            m = s["n_since"][d]
            z = np.clip(side * v, -4, 4)
            late = m == 1 and z > size and size < 0.5 * (size + z + 2.5) / 3
            goes = decided == d + 1 or (s["evidence"][d] > cost and not late)
            delta = np.clip((size * m + 2.5) / (m + 1), 1, 4) if goes else 2.5
            gain = np.clip(delta * z - delta**2 / 2, -3, 3)
            if decided:
                s["evidence"][d] = min(max(s["evidence"][d] + gain, s["evidence"][d]), 60)
            else:
                s["evidence"][d] = (s["evidence"][d] if goes else cost) + gain
            top = max(top, s["evidence"][d])
            s["n_since"][d] = m + 1 if goes else 1
            if goes:
                away = e - s["size"][d]
                if s["n_since"][d] > 3:
                    away = np.clip(away, -3 * sd, 3 * sd)
                s["size"][d] += away / s["n_since"][d]
                if s["by"][d] == watch.NONE and s["evidence"][d] - cost >= 3.5:
                    s["by"][d] = k
            else:
                s["size"][d] = e
                s["since"][d], s["by"][d] = k, watch.NONE
                if side * v < 0.5:
                    s["after"][d] = k
        if decided in (1, 2):
            d = decided - 1
            side, o = (-1, 1)[d], 1 - d
            delta = np.clip(side * s["size"][d] / sd * white, 1, 4)
            gain = np.clip(delta**2 / 2 - delta * np.clip(side * v, -4, 4), -3, 3)
            if s["evidence"][o] <= 0:
                s["since"][o], s["n_since"][o], s["evidence"][o] = k, 0, 0
            s["evidence"][o] = max(s["evidence"][o] + gain, 0)
            s["n_since"][o] += 1
            if s["evidence"][o] > 8 and s["n_since"][o] >= 3:
                s["outcome"], s["over"] = decided + 2, s["since"][o]
        if decided == 0:
            for d in (0, 1):
                if s["outcome"] == 0 and s["n_since"][d] >= 3 and s["evidence"][d] >= bound:
                    s["outcome"], s["confirmed"] = d + 1, k
                    s["evidence"][1 - d], s["n_since"][1 - d] = 0, 0
        if s["outcome"] == 0 and abs(u) <= 2.8 and top - cost < 6:
            s["beta"] = s["beta"] + e / (1 + h) * np.array(
                [p00 + p01 * x[trend] if a == 0 else p01 + p11 * x[trend] if a == trend else q * x[a] for a in range(p)]
            )
            s["noise"] = s["noise"] + (e * e / (1 + h) / 0.9702 - s["noise"]) / (df + 1)
            s["freedom"] += 1
            a, b = p00 + p01 * x[trend], p01 + p11 * x[trend]
            w = 1 / (1 + a + b * x[trend])
            s["spread"] = np.array([p00 - a * a * w, p01 - a * b * w, p11 - b * b * w, q / (1 + q / 2)])
        s["before"] = u if abs(u) <= 3.5 else 0.0
        s["last"] = k
        s["n_watched"] += 1
    return s


def test_the_fold_does_what_the_slow_twin_does():
    series, years = world(n_pixel=60, seed=3)
    state, step = begun(series, years, 60)
    fast = folded(state, series, years, step, 60, 110, 60)
    bound = float(F(watch.limit(0.05)))
    same = 0
    for pixel in range(60):
        twin = slow(state, pixel, series, years, step, 60, 110, 60, bound)
        exact = all(np.array_equal(fast[k][..., pixel], twin[k]) for k in
                    ("outcome", "confirmed", "over", "n_watched", "freedom", "last", "n_obs"))  # fmt: skip
        close = all(np.allclose(fast[k][..., pixel], twin[k], rtol=2e-3, atol=2e-3) for k in
                    ("beta", "noise", "evidence", "size", "before"))  # fmt: skip
        same += exact and close
    assert same >= 58, same  # float32 may fall on the other side of a threshold once in a while
    assert (fast["outcome"][:30] > 0).mean() > 0.9
    assert (fast["outcome"][:7] > 2).mean() > 0.7


def test_learning_finds_season_noise_and_autocorrelation():
    rng = np.random.default_rng(1)
    years = -np.arange(180)[::-1] * 16 / 365.25
    noise = rng.standard_normal((300, 180))
    for i in range(1, 180):
        noise[150:, i] = 0.3 * noise[150:, i - 1] + np.sqrt(1 - 0.09) * noise[150:, i]
    series = (0.5 + 0.1 * np.sin(2 * np.pi * years) + 0.02 * years + 0.03 * noise).astype(F)
    series[rng.random(series.shape) < 0.01] -= 0.5
    beta, spread, sd2, memory, freedom, n_obs, last, before = watch.learn(
        series, regressors(years, 2), years, 16 / 365.25, 2
    )
    assert np.median(beta[0]) == pytest.approx(0.5, abs=0.004)
    assert np.median(beta[2]) == pytest.approx(0.1, abs=0.004)
    assert np.median(beta[3]) == pytest.approx(0.02, abs=0.001)
    assert np.sqrt(np.median(sd2)) == pytest.approx(0.03, rel=0.05)
    assert 25 < np.median(memory[150:]) < 50
    assert np.median(memory[:150]) < 20
    assert (n_obs == 180).all()
    assert np.median(spread[3]) == pytest.approx(2 / 180, rel=0.1)


@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_the_limit_holds_for_known_models_with_outliers(alpha):
    """White errors of a model that is known well, 1 % outliers, all to one side, over 600 scenes."""
    rng = np.random.default_rng(2)
    n, n_pixel = 600, 4000
    years = np.arange(1, n + 1) * 16 / 365.25
    series = rng.standard_normal((n_pixel, n)).astype(F)
    series[rng.random(series.shape) < 0.01] = -9
    state, step = begun(np.zeros((n_pixel, 60), F), np.arange(-59, 1) * 16 / 365.25, 60)
    state |= {"noise": np.ones(n_pixel, F), "freedom": np.full(n_pixel, 5000, "u2"), "memory": np.zeros(n_pixel, "u1"),
                  "spread": np.full((4, n_pixel), 1e-7, F), "steep": np.zeros(n_pixel, F)}  # fmt: skip
    everything = np.concatenate([np.zeros((n_pixel, 60), F), series], axis=1)
    out = folded(state, everything, np.concatenate([np.arange(-59, 1) * 16 / 365.25, years]), step, 60, 660, 60, alpha)
    share = (out["outcome"] > 0).mean()
    assert 0.2 * alpha < share < 1.15 * alpha + 0.004, share
