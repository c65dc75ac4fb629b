import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.special import polygamma
from scipy.stats import gamma, norm

from geoalign.kernels.log_ratio import LOW, N_BIN, STEP
from geoalign.kernels.sar_change import (
    CLUMPED_GATE,
    LEVELS,
    evidence,
    first_cut,
    first_labels,
    gaussian_mean,
    joint_histogram,
    joint_statistics,
    lag_histogram,
    lag_statistics,
    looks_of,
    noise,
    noise_histogram,
    posterior,
    ratio_histograms,
    smoothed,
    speckle_of_pair,
    total,
)
from geoalign.kernels.threshold import GATE, two_sided


def pair(looks=(4, 4), shape=(150, 160), db=0.0, seed=0, sigma=0.0):
    """(before, after) (1, row, col), and where a block changed."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, bool)
    truth[40:80, 50:110] = True
    out = []
    for k, n in enumerate(looks):
        speckle = rng.gamma(n, 1 / n, shape)
        if sigma:
            z = gaussian_filter(rng.normal(size=shape), sigma)
            speckle = gamma.ppf(norm.cdf(z / z.std()), n) / n
        out.append((0.1 * speckle * np.where(truth & (k == 1), 10 ** (db / 10), 1))[None].astype(np.float32))
    return *out, truth


def learnt(before, after):
    spread = noise([noise_histogram(before, after)])
    still = np.zeros(before.shape[1:], np.float32)
    ratio, light, place, shrink, flat = smoothed(before, after, still, spread)
    cut = first_cut(total([ratio_histograms(ratio, flat)]), spread)
    labels, _ = first_labels(ratio, shrink, cut)
    speckle = speckle_of_pair(lag_statistics([lag_histogram(before, after, ratio, labels, flat)]), spread, cut)
    tables = joint_statistics([joint_histogram(place, ratio, labels)])
    return spread, ratio, light, place, shrink, cut, labels, speckle, tables


@pytest.mark.parametrize("sigma", [0.5, 1.3])
def test_gaussian_mean_is_scipys_where_all_is_seen_and_knows_gaps(sigma):
    rng = np.random.default_rng(0)
    image = rng.random((30, 40))
    got = gaussian_mean(image, sigma)
    reach = int(np.ceil(3 * sigma))
    expected = gaussian_filter(image, sigma, radius=reach, mode="constant")
    expected /= gaussian_filter(np.ones_like(image), sigma, radius=reach, mode="constant")
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    image[10:14, 20] = np.nan
    gaps = gaussian_mean(image, sigma)
    assert (np.isnan(gaps) == np.isnan(image)).all()
    seen = np.where(np.isnan(image), 0, image)
    known = gaussian_filter(seen, sigma, radius=reach, mode="constant")
    known /= gaussian_filter(1.0 * ~np.isnan(image), sigma, radius=reach, mode="constant")
    np.testing.assert_allclose(gaps[~np.isnan(image)], known[~np.isnan(image)], rtol=1e-12)


@pytest.mark.parametrize("looks", [(1, 1), (4, 4), (4, 1), (12, 3)])
def test_each_dates_looks_are_found(looks):
    *_, speckle, _ = learnt(*pair(looks)[:2])
    # looks of a gamma variable of the same spread between neighbours; exact for many looks
    np.testing.assert_allclose(speckle[1:3], looks, rtol=0.3)
    assert speckle[0] > 0.9  # speckle is white: a pixel counts in full


def test_correlated_speckle_counts_for_less():
    weight = learnt(*pair((4, 4), sigma=1.2)[:2])[7][0]
    assert 0.2 < weight < 0.6


@pytest.mark.parametrize("looks", [0.5, 1, 4.4, 30])
def test_looks_of_inverts_trigamma(looks):
    assert looks_of(polygamma(1, looks)) == pytest.approx(looks, rel=1e-6)


def test_the_first_cut_finds_the_side_that_changed_and_no_other():
    before, after, truth = pair(db=-6)
    *_, cut, labels, _, tables = learnt(before, after)
    assert np.isfinite(cut[5])
    assert np.isinf(cut[7])
    assert (labels[truth] == -1).mean() > 0.9
    assert (labels[~truth] == 0).mean() > 0.98
    assert tables[0] - cut[0] == pytest.approx(-6 * np.log(10) / 10, abs=0.12)
    assert tables[4] == pytest.approx(truth.mean(), abs=0.02)


def test_evidence_is_the_ratio_of_the_densities_of_two_gamma_variables():
    before, after, truth = pair(db=-6)
    spread, ratio, light, place, shrink, cut, labels, speckle, tables = learnt(before, after)
    bare = tables.copy()
    bare[5:] = 0.0  # the joint histograms say nothing
    low, high = evidence(light, place, ratio, shrink, labels, cut, speckle, bare)
    l1, l2 = speckle[1:3]
    d = (light - cut[0]).astype(float)
    mu = tables[0] - cut[0]

    def log_density(x, shift):
        # ln of the density of ln(b / a) for a ~ gamma(l1, 1/l1), b ~ e^shift gamma(l2, 1/l2), but for constants
        return l2 * (x - shift) - (l1 + l2) * np.log(l1 + l2 * np.exp(x - shift))

    expected = 0.5 * speckle[0] * (log_density(d, mu) - log_density(d, 0.0))
    used = low > -50
    np.testing.assert_allclose(low[used], expected[used], rtol=1e-5, atol=1e-5)
    assert used[truth].mean() > 0.95
    assert (high == -50).all()
    full = evidence(light, place, ratio, shrink, labels, cut, speckle, tables)[0]
    assert np.median(full[truth]) > 1 > -1 > np.median(full[~truth & used])


def test_joint_densities_are_taken_from_the_labels():
    place = np.zeros((20, 20), np.int16)
    labels = np.zeros((20, 20), np.int8)
    labels[:5] = 1
    place[:5] = 40 * LEVELS + 10
    place[5:] = 10 * LEVELS + 10
    tables = joint_statistics([joint_histogram(place, np.zeros((4, 20, 20), np.float32), labels)])
    rise = tables[5 + LEVELS**2 :].reshape(LEVELS, LEVELS)
    assert rise[40, 10] == 8.0
    assert rise[10, 10] == -8.0
    assert tables[4] == 0.25
    assert tables[2:4].tolist() == [0, 100]


def test_a_prior_moves_the_probability_by_its_odds():
    odds = np.array([-3.0, 0.0, 2.0], np.float32)
    labels = np.zeros(3, np.int8)
    same = posterior(odds, labels, 0.1, np.nan, 1.0)
    np.testing.assert_allclose(same, 1 / (1 + np.exp(-odds)), rtol=1e-6)
    rare = posterior(odds, labels, 0.1, 0.01, 1.0)
    ratio = (rare / (1 - rare)) / (same / (1 - same))
    np.testing.assert_allclose(ratio, (0.01 / 0.99) / (0.1 / 0.9), rtol=1e-4)


def pyramid(shares, n=40_000, place=-1.6, seed=0):
    """Histograms of a log-ratio whose noise shrinks with the scale, with a class of so large a share at each."""
    rng = np.random.default_rng(seed)
    rows = []
    for k, share in enumerate(shares):
        few = int(share * n)
        values = np.concatenate([rng.laplace(0, 0.21 / 1.5**k, n - few), rng.normal(place, 0.3, few)])
        rows.append(np.histogram(values, N_BIN, (LOW, LOW + N_BIN * STEP))[0])
    return np.array(rows, float).ravel()


@pytest.mark.parametrize("sigma", [0.8, 1.3])
def test_a_small_class_is_believed_where_wider_means_keep_it(sigma):
    spread = np.array([0.3, 0.3, sigma, -5.0, 0.0])
    ground, tail = pyramid((0.005, 0.004, 0.003, 0.001)), pyramid((0.005, 0.0005, 0.0, 0.0))
    gain = two_sided(ground[:N_BIN], LOW, STEP, gate=-9.0)[2]
    assert CLUMPED_GATE < gain < GATE  # too little by itself
    scale, threshold = first_cut(ground, spread)[4:6]
    assert scale == 0
    assert 1.0 < threshold < 1.6
    assert np.isinf(first_cut(tail, spread)[5])


def test_single_points_are_no_class_however_bright():
    """Plain at first, gone under a narrow mean a little wider; under wide ones that may be a small patch."""
    points = pyramid((0.02, 0.002, 0.0, 0.0), place=-2.5)
    assert two_sided(points[:N_BIN], LOW, STEP, gate=GATE)[1] < np.inf
    assert np.isinf(first_cut(points, np.array([0.3, 0.3, 0.7, -5.0, 0.0]))[5])
    assert np.isfinite(first_cut(points, np.array([0.3, 0.3, 1.3, -5.0, 0.0]))[5])
