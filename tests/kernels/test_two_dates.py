import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from geoalign.kernels.irmad import fit, sample
from geoalign.kernels.two_dates import LEAST_ODDS, MOST_ODDS, decide, explained, log_odds, pair, unpack


def naive_pair(series, split):
    whole = [t for t in range(series.shape[1]) if np.isfinite(series[:, t]).all()]
    early, late = (
        (whole[:1], whole[-1:]) if split == 0 else ([t for t in whole if t < split], [t for t in whole if t >= split])
    )
    if len(whole) < 2 or not early or not late:
        return np.full(len(series), np.nan), np.full(len(series), np.nan), -1, -1, len(whole)
    return np.median(series[:, early], 1), np.median(series[:, late], 1), early[-1], late[0], len(whole)


@pytest.mark.parametrize("split", [0, 3])
def test_pair_is_that_of_the_obvious_code(split):
    rng = np.random.default_rng(0)
    series = rng.normal(size=(200, 2, 7)).astype(np.float32)
    series[rng.random(series.shape) < 0.4] = np.nan
    got = pair(series, split)
    for p in range(len(series)):
        for have, want in zip(got, naive_pair(series[p].astype(float), split)):
            np.testing.assert_allclose(have[p], want, rtol=1e-6)


def images(seed=0, shape=(50, 60)):
    rng = np.random.default_rng(seed)
    before = rng.normal(0.2, 0.05, (3, *shape))
    after = 1.2 * before + 0.01
    after[:, 20:30, 20:35] = rng.normal(0.4, 0.05, (3, 10, 15))
    noise = rng.normal(0, 0.004, (2, 3, *shape))
    return (before + noise[0]).astype(np.float32), (after + noise[1]).astype(np.float32)


def test_decide_is_smoothed_log_odds_of_the_distance():
    before, after = images()
    after[:, 5, 5] = np.nan
    vector = fit([sample(before, after, step=1)], n_band=3)
    head, mean0, mean1, w0, w1, *_, ground, bins, noise = unpack(vector, 3)
    changed, probability, distance, *_ = decide(before, after, np.zeros((50, 60), np.float32), vector, np.nan)
    u = np.einsum("ib,brc->irc", w0, before - mean0[:, None, None]) - np.einsum(
        "ib,brc->irc", w1, after - mean1[:, None, None]
    )
    d = np.sqrt((u**2).sum(0)) / np.interp(np.einsum("b,brc->rc", ground, before), bins, noise)
    np.testing.assert_allclose(distance, d, rtol=1e-4)
    assert np.isnan(probability[5, 5])
    assert not changed[5, 5]
    odds = np.clip(np.vectorize(lambda v: log_odds(v, head))(np.nan_to_num(d)), LEAST_ODDS, MOST_ODDS)
    weight = np.isfinite(d).astype(float)
    smooth = gaussian_filter(odds * weight, 0.7, radius=2, mode="constant") / gaussian_filter(
        weight, 0.7, radius=2, mode="constant"
    )
    seen = np.isfinite(d)
    np.testing.assert_allclose(probability[seen], (1 / (1 + np.exp(-smooth)))[seen], atol=1e-5)
    assert (changed == (probability > 0.5)).all()
    assert changed[21:29, 21:34].mean() > 0.95
    assert changed[:18].mean() < 0.01


def test_a_prior_moves_the_odds_and_alpha_the_cut():
    before, after = images()
    zero = np.zeros((50, 60), np.float32)
    vector = fit([sample(before, after, step=1)], n_band=3, alpha=0.05)
    changed = decide(before, after, zero, vector, np.nan)[0]
    assert 0.02 < changed[:18].mean() < 0.09
    plain = fit([sample(before, after, step=1)], n_band=3)
    low, high = (decide(before, after, zero, plain, p)[1] for p in (0.001, 0.5))
    assert (low < high).all()


def test_explained_is_that_of_the_inverse_covariance():
    rng = np.random.default_rng(0)
    u, g, h = rng.normal(size=(3, 5))
    full = u @ np.linalg.inv(np.eye(5) + 0.7 * (np.outer(g, g) + np.outer(h, h))) @ u
    assert u @ u - explained(u, g, h, 0.7) == pytest.approx(full)
