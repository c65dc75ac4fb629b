"""Peaks lie between the lags where a surface's own top lies, and say so where there is none."""

import numpy as np

from geoalign.kernels.ncc import peaks


def hill(dy, dx, *, bend=(0.02, 0.01, 0.004), top=0.9, reach=3):
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] - np.array([dy, dx])[:, None, None]
    return top - bend[0] * y**2 - bend[1] * x**2 - 2 * bend[2] * x * y


def test_the_top_of_a_paraboloid_is_found_exactly():
    surfaces = np.stack([hill(0.3, -0.2), hill(-1.4, 1.1), hill(0.0, 0.0)])
    offset, _, height = peaks(surfaces, np.full(3, 4000.0), 1.0)
    np.testing.assert_allclose(offset, [(0.3, -0.2), (-1.4, 1.1), (0, 0)], atol=1e-9)
    np.testing.assert_allclose(height, 0.9, atol=1e-9)


def test_flat_border_and_negative_surfaces_have_no_peak():
    surfaces = np.stack([np.full((7, 7), 0.5), hill(3.4, 0), hill(0, 0) - 2])
    offset, covariance, _ = peaks(surfaces, np.full(3, 4000.0), 1.0)
    assert np.isnan(offset).all()
    assert np.isnan(covariance).all()


def test_a_sharper_higher_peak_of_more_pixels_is_surer():
    def size(surface, pixels=4000.0):
        return np.trace(peaks(surface[None], np.array([pixels]), 1.0)[1][0])

    plain = size(hill(0, 0))
    assert size(hill(0, 0, bend=(0.04, 0.02, 0.008))) < plain
    assert size(hill(0, 0, top=0.95)) < plain
    np.testing.assert_allclose(size(hill(0, 0), 16000.0), plain / 4)


def test_the_covariance_is_what_noise_makes_of_the_peak():
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(1)
    found, said = [], []
    ground = gaussian_filter(rng.normal(size=(70, 70)), 2.0)
    ground /= ground.std()
    for _ in range(60):
        a, b = (ground + 3.0 * gaussian_filter(rng.normal(size=(70, 70)), 1.0) for _ in range(2))
        inner = a[3:67, 3:67]
        surface = np.array(
            [[np.corrcoef(inner.ravel(), b[i : i + 64, j : j + 64].ravel())[0, 1] for j in range(7)] for i in range(7)]
        )
        offset, covariance, _ = peaks(surface[None], np.array([4096.0]), 1.0)
        found.append(offset[0])
        said.append(np.diag(covariance[0]))
    ratio = np.sqrt(np.mean(said)) / np.std(found)
    assert 0.5 < ratio < 2
