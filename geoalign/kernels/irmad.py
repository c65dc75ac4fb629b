"""Iteratively reweighted multivariate alteration detection, and what follows from its unchanged pixels."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh
from scipy.stats import chi2

from geoalign.kernels.mixture import ln_constant, tail_distance, two_classes
from geoalign.kernels.two_dates import HEAD, N_LEVEL

MOST_ROUNDS, STILL = 100, 3e-4
START_PIXELS = 20_000
"""Pixels, evenly taken, with which it is found out where to begin."""
INVARIANT = 0.95
"""P(no change) from which a pixel counts as invariant in the radiometric normalisation."""
RIDGE = 1e-8
"""Share of its own variance that is added to each band's, for bands that are sums of others. Of its own, so that the
units of the bands make no difference."""
LEAST_PIXELS = 50
MOST_RATIO = 4.0
"""Furthest that the noise of one kind of ground may be from that of most."""
DOUBT = 0.1
"""Weight that pixels keep at the least, falling with their squared distance: without it the weights can settle on one
kind of ground and then hold all others for changed."""


def sample(before, after, *, step):
    """Every `step`-th pixel of a block in both axes, complete ones only: before and after, and the same of its right
    neighbour (NaN where that is not complete), (n, 4 band) float32."""
    both = np.concatenate([before, after])
    right = np.full_like(both, np.nan)
    right[..., :-1] = both[..., 1:]
    right[:, ~np.isfinite(right).all(0)] = np.nan
    n = len(both)
    both, right = (v[:, ::step, ::step].reshape(n, -1).T for v in (both, right))
    return np.concatenate([both, right], axis=1)[np.isfinite(both).all(1)].astype(np.float32)


def reweighted(x, y):
    """The canonical variates of unchanged pixels, and each pixel's distance from no change.

    x, y : (n, band) values of the same pixels at two dates

    Returns
    -------
    squares : (n,) chi2(band) where nothing changed, in its middle
    rho : (band,) canonical correlations, largest first
    a, b : (band, band) weights, a column a variate, of x and y; variates have unit variance
    means : (2, band) of x and y over unchanged pixels
    weight : (n,) P(no change)
    spread : (band,) standard deviation of a.x - b.y where nothing changed, so scaled

    Notes
    -----
    Nielsen (2007), doi:10.1109/TIP.2006.888195, with two differences. The sum of squares is scaled to have the median
    of its distribution before it is turned into weights: weighting by P(no change) takes the tails off the unchanged
    pixels too, so their variances shrink from round to round; left alone, the statistic of unchanged ground grows to
    several times its nominal size and the weights settle on a part of it. And where much has changed the weights may
    settle in more than one way, by which pixels they begin with: they begin with all, with the darker and the brighter
    half, and with those that agree best at once; that outcome is kept whose middle half agrees best (the least volume
    of noise, as in the minimum covariance determinant).
    """
    n_band = x.shape[1]
    part = slice(None, None, max(1, len(x) // START_PIXELS))
    some_x, some_y = x[part], y[part]
    # halves told apart by the variates themselves, so that the units and mixtures of the bands make no difference
    found = [_settle(some_x, some_y, np.ones(len(some_x)))]
    first = _settle(some_x, some_y, np.ones(len(some_x)), rounds=1)
    level = some_x @ first["a"][:, 0]
    halves = (level < np.median(level), level >= np.median(level), first["squares"] < np.median(first["squares"]))
    found += [_settle(some_x, some_y, np.where(half, 1.0, DOUBT)) for half in halves]
    # of outcomes as good as one another (they are mostly the same) the first
    best = min(found, key=lambda f: round(f["volume"] - found[0]["volume"], 1))
    u, v = x - best["means"][0], y - best["means"][1]
    squares = (((u @ best["a"] - v @ best["b"]) / best["spread"]) ** 2).sum(1)
    f = _settle(x, y, _weights(squares, n_band))
    return f["squares"], f["rho"], f["a"], f["b"], f["means"], f["weight"], f["spread"]


def _settle(x, y, weight, rounds=MOST_ROUNDS):
    """Canonical variates and weights in turn until the correlations stand still, as a dict; see `reweighted`."""
    n_band = x.shape[1]
    rho_before = np.zeros(n_band)
    middle = chi2.ppf(0.5, n_band)
    for _ in range(rounds):
        total = weight.sum()
        means = np.stack([weight @ x, weight @ y]) / total
        u, v = x - means[0], y - means[1]
        s11, s22 = (_covariance(k, weight, total) for k in (u, v))
        s12 = (u * weight[:, None]).T @ v / total
        _, a = eigh(s12 @ np.linalg.solve(s22, s12.T), s11)
        a = a[:, ::-1]
        b = np.linalg.solve(s22, s12.T @ a)
        b /= np.maximum(np.sqrt(np.einsum("ij,ik,kj->j", b, s22, b)), 1e-12)
        rho = np.clip(np.einsum("ij,ik,kj->j", a, s12, b), 0.0, 1 - 1e-6)
        # the sign of a variate is free: it is fixed so that it rises with the sum of the bands
        turn = np.where((s11 @ a / np.sqrt(np.diag(s11))[:, None]).sum(0) < 0, -1.0, 1.0)
        a, b = a * turn, b * turn
        squares = ((u @ a - v @ b) ** 2 / (2 * (1 - rho))).sum(1)
        scale = max(np.median(squares) / middle, 1e-12)
        squares = squares / scale
        weight = _weights(squares, n_band)
        if np.abs(rho - rho_before).max() < STILL:
            break
        rho_before = rho
    spread = np.sqrt(2 * (1 - rho) * scale)
    # in the bands' own units, as the variates are scaled by what counts as unchanged
    volume = 2 * np.log(spread).sum() - np.linalg.slogdet(a)[1] - np.linalg.slogdet(b)[1]
    return {"squares": squares, "rho": rho, "a": a, "b": b, "means": means, "weight": weight, "spread": spread,
            "volume": volume}  # fmt: skip


def _weights(squares, n_band):
    return np.maximum(chi2.sf(squares, n_band), DOUBT * n_band / np.maximum(squares, n_band))


def _covariance(centred, weight, total):
    s = (centred * weight[:, None]).T @ centred / total
    # a band that is constant has no variance of its own
    return s + np.diag(RIDGE * np.diag(s) + 1e-12 * RIDGE * np.trace(s))


def major_axis(x, y, weight):
    """Slope and level by band such that slope * y + level is y as x shows it.

    x, y : (n, band); weight : (n,) P(no change)

    Orthogonal regression of the standardised values (reduced major axis): it does not depend on the units of either
    date, and where ground hardly varies it gives the ratio of the noise, not an arbitrary direction.
    """
    total = weight.sum()
    mean_x, mean_y = weight @ x / total, weight @ y / total
    sd_x, sd_y = (np.sqrt(weight @ (v - m) ** 2 / total) for v, m in ((x, mean_x), (y, mean_y)))
    slope = sd_x / np.maximum(sd_y, 1e-12)
    return slope, mean_x - slope * mean_y


def invariant(weight):
    """Weights that leave the surely unchanged pixels alone to decide, and all where hardly any are sure."""
    sure = weight > INVARIANT
    return sure.astype(float) if sure.sum() >= LEAST_PIXELS else weight


def pack(values, dof, weights, means, slope, level, ground, alpha):
    """A fit as one vector, for `two_dates.decide`; its first number is 0 where there was too little to fit.

    values : (n, 4 band) of `sample`; weights : before and after, (variate, band); means : (2, band); ground : (band,)
    weights of the bands whose sum before tells the kinds of ground apart

    Layout: known, dof, ln scale, nu, change's mean, share, sd (`mixture.two_classes`), a constant, the distance at
    `alpha` (NaN without); means and weights before and after, slope, level, ground, its levels and the noise there.
    """
    n_band = len(slope)
    parts = np.split(values.astype(np.float64), 4, axis=1)
    here, there = ((x - means[0]) @ weights[0].T - (y - means[1]) @ weights[1].T for x, y in (parts[:2], parts[2:]))
    at = parts[0] @ ground
    bins, noise = noise_by_level(at, np.sqrt(((here - there) ** 2).sum(1)))
    distance = np.sqrt((here**2).sum(1)) / np.interp(at, bins, noise)
    scale, nu, mean, sd, share = two_classes(distance, dof)
    if not np.isfinite(scale):
        return unknown(n_band)
    cut = tail_distance(alpha, scale, nu, dof) if alpha is not None else np.nan
    head = [1.0, dof, scale, nu, mean, share, sd, ln_constant(nu, dof), cut]
    square = [w.ravel() for w in weights]
    return np.concatenate([head, means.ravel(), *square, slope, level, ground, bins, noise])


def noise_by_level(at, steps):
    """How noise depends on the ground: levels (ascending) and noise there, relative to that of most ground.

    at : (n,) level of the ground before; steps : (n,) length of the difference between neighbours' variates, NaN = none

    Water is quieter than land and cities are busier than fields; with one noise for all, the busy ground would be a
    class of its own and pass for change. Differences between neighbours tell noise from change, which moves neighbours
    together. Within a quarter, noise counts as the same.
    """
    known = np.isfinite(steps)
    if known.sum() < LEAST_PIXELS * N_LEVEL:
        return np.arange(N_LEVEL, dtype=float), np.ones(N_LEVEL)
    order = np.argsort(at[known], kind="stable")
    groups = np.array_split(np.stack([at[known], steps[known]])[:, order], N_LEVEL, axis=1)
    bins, noise = np.array([np.median(g, axis=1) for g in groups]).T
    ratio = np.log(np.maximum(noise, 1e-9) / max(np.median(noise), 1e-9))
    ratio = np.sign(ratio) * np.clip(np.abs(ratio) - np.log(1.25), 0.0, np.log(MOST_RATIO))
    return np.maximum.accumulate(bins + 1e-9 * np.arange(N_LEVEL)), np.exp(ratio)


def unknown(n_band):
    """The fit of an image with nothing to fit."""
    return np.zeros(HEAD + 5 * n_band + 2 * n_band**2 + 2 * N_LEVEL)


def varied(values, n_band):
    """Whether both dates vary in every band, and there are pixels enough."""
    return len(values) >= LEAST_PIXELS * n_band and bool((np.ptp(values[:, : 2 * n_band], axis=0) > 1e-9).all())


def fit(parts, *, n_band, alpha=None):
    """IR-MAD of sampled pixels (list of `sample`), as `pack` lays it out."""
    values = np.concatenate(parts)
    if not varied(values, n_band):
        return unknown(n_band)
    x, y = values[:, :n_band].astype(np.float64), values[:, n_band : 2 * n_band].astype(np.float64)
    _, _, a, b, means, weight, spread = reweighted(x, y)
    slope, level = major_axis(x, y, invariant(weight))
    return pack(
        values, float(n_band), (a.T / spread[:, None], b.T / spread[:, None]), means, slope, level, a[:, 0], alpha
    )


def normalisation(parts, *, n_band):
    """Slope and level by band (2 band,) that bring the second date to the first one's radiometry; NaN where unknown."""
    values = np.concatenate(parts)
    if not varied(values, n_band):
        return np.full(2 * n_band, np.nan)
    x, y = values[:, :n_band].astype(np.float64), values[:, n_band : 2 * n_band].astype(np.float64)
    weight = reweighted(x, y)[5]
    return np.concatenate(major_axis(x, y, invariant(weight)))
