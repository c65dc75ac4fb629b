"""Composites of a pixel's observations, held against what they mean."""

import numpy as np
import pytest
from scipy.optimize import minimize

from geoalign.kernels.composite import GEOMEDIAN, MEDIAN, MEDOID, compose


def observations(seed=0, n_pixel=12, n_band=4, n_time=23):
    rng = np.random.default_rng(seed)
    cube = rng.uniform(0.05, 0.5, (n_pixel, n_band, 1)) + rng.normal(0, 0.02, (n_pixel, n_band, n_time))
    cloud = rng.random((n_pixel, 1, n_time)) < 0.15
    cube = np.where(cloud, 0.6 + rng.normal(0, 0.1, cube.shape), cube)
    cube[np.broadcast_to(rng.random((n_pixel, 1, n_time)) < 0.3, cube.shape)] = np.nan
    cube[rng.random(cube.shape) < 0.03] = np.nan
    cube[0] = np.nan
    return cube.astype(np.float32)


BEGINS = np.array([0, 9, 10, 23])


def test_the_median_is_that_of_each_band():
    cube = observations()
    found, count = compose(cube, BEGINS, MEDIAN)
    for k in range(3):
        part = cube[..., BEGINS[k] : BEGINS[k + 1]]
        with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="All-NaN"):
            expected = np.nanmedian(part.astype(float), axis=-1)
        np.testing.assert_allclose(found[..., k], expected, rtol=1e-6)
        np.testing.assert_array_equal(count[:, k], np.isfinite(part).all(1).sum(-1))


def test_the_medoid_is_the_observation_nearest_to_all():
    cube = observations(1)
    found, _ = compose(cube, BEGINS, MEDOID)
    for pixel in range(len(cube)):
        for k in range(3):
            whole = cube[pixel, :, BEGINS[k] : BEGINS[k + 1]].T.astype(float)
            whole = whole[np.isfinite(whole).all(1)]
            if len(whole) == 0:
                assert np.isnan(found[pixel, :, k]).all()
                continue
            far = np.linalg.norm(whole[:, None] - whole[None], axis=-1).sum(1)
            np.testing.assert_array_equal(found[pixel, :, k], whole[np.argmin(far)].astype(np.float32))


def test_no_point_is_nearer_to_all_than_the_geometric_median():
    cube = observations(2)
    found, _ = compose(cube, BEGINS, GEOMEDIAN)
    for pixel in range(1, len(cube)):
        whole = cube[pixel, :, 10:].T.astype(float)
        whole = whole[np.isfinite(whole).all(1)]

        def far(point, whole=whole):
            return np.linalg.norm(whole - point, axis=1).sum()

        best = minimize(
            far, whole.mean(0), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000}
        )
        assert far(found[pixel, :, 2]) <= best.fun * (1 + 1e-5)


@pytest.mark.parametrize("how", [MEDIAN, MEDOID, GEOMEDIAN])
def test_a_third_of_undetected_clouds_does_no_harm(how):
    rng = np.random.default_rng(3)
    truth = rng.uniform(0.05, 0.4, (200, 6, 1))
    cube = truth + rng.normal(0, 0.01, (200, 6, 12))
    cube[:, :, :4] = 0.7 + rng.normal(0, 0.05, (200, 6, 4))
    found, _ = compose(cube.astype(np.float32), np.array([0, 12]), how)
    assert np.abs(found - truth).mean() < 0.02
