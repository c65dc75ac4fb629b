import numpy as np

from geoalign.kernels.fastlog import exp, ln


def test_ln_is_the_logarithm_over_the_whole_range():
    rng = np.random.default_rng(0)
    work = np.ones((6, 500))
    work[0] = np.exp(rng.uniform(-600, 600, 500))
    work[1] = np.exp(rng.normal(0, 0.01, 500))
    wanted = np.log(work[:2])
    ln(work, work.view(np.int64), 2, 500)
    np.testing.assert_allclose(work[:2], wanted, rtol=1e-11, atol=1e-16)


def test_ln_leaves_the_rest_alone():
    work = np.full((3, 4), 2.0)
    ln(work, work.view(np.int64), 1, 2)
    np.testing.assert_allclose(work[0], [np.log(2), np.log(2), 2, 2])


def test_exp_is_the_exponential_and_0_far_below():
    work = np.ones((3, 400))
    values = np.zeros((2, 400))
    values[1] = np.linspace(-900, 650, 400)
    wanted = np.where(values[1] >= -700, np.exp(values[1]), 0)
    exp(values, 1, work, work.view(np.int64), 400)
    np.testing.assert_allclose(values[1], wanted, rtol=1e-10)
