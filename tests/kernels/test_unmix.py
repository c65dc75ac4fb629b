import numpy as np
from scipy.optimize import nnls

from geoalign.kernels.unmix import CLOUD, ENDMEMBERS, GREEN, ndfi, solutions, unmix

MAPS = solutions(ENDMEMBERS)


def slow_unmix(spectrum):
    """Non-negative least squares with the sum to one as one heavily weighted equation more."""
    heavy = 1e4
    return nnls(np.vstack([ENDMEMBERS.T, np.full(5, heavy)]), np.append(spectrum, heavy))[0]


def test_fractions_are_those_of_the_slow_twin():
    spectra = np.random.default_rng(0).uniform(0, 0.6, (300, 6))
    found = unmix(spectra, ENDMEMBERS, *MAPS)
    np.testing.assert_allclose(found, [slow_unmix(s) for s in spectra], atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_planted_fractions_come_back():
    planted = np.random.default_rng(1).dirichlet(np.ones(5), 200)
    found = unmix(planted @ ENDMEMBERS, ENDMEMBERS, *MAPS)
    np.testing.assert_allclose(found, planted, atol=1e-5)


def test_what_is_not_observed_stays_so():
    spectra = np.full((2, 6), 0.2)
    spectra[1, 3] = np.nan
    found = unmix(spectra, ENDMEMBERS, *MAPS)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


def test_ndfi_is_one_for_leaves_minus_one_for_soil_and_none_for_cloud_and_shade():
    leaves, soil, shade, cloud = ENDMEMBERS[GREEN], ENDMEMBERS[2], ENDMEMBERS[3], ENDMEMBERS[CLOUD]
    series = np.array([leaves, 0.5 * leaves, soil, shade, cloud, 0.25 * leaves + 0.25 * soil]).astype(np.float32)
    found = ndfi(*(band[None] for band in series.T), ENDMEMBERS, *MAPS)[0]
    # half leaves' light under half shade: leaves count without the shade, 0.25 / 0.5
    expected = [1, 1, -1, np.nan, np.nan, (0.5 - 0.25) / (0.5 + 0.25)]
    np.testing.assert_allclose(found, expected, atol=1e-3)
