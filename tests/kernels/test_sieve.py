import numpy as np
import pytest
from scipy import ndimage

from geoalign.kernels.sieve import backed, large_enough

EIGHT = np.ones((3, 3))


@pytest.mark.parametrize("n_min", [1, 2, 5, 30])
def test_patches_are_those_of_scipy(n_min):
    mask = np.random.default_rng(2).random((40, 50)) < 0.3
    labels, _ = ndimage.label(mask, EIGHT)
    size = np.bincount(labels.ravel())
    np.testing.assert_array_equal(large_enough(mask, n_min), mask & (size[labels] >= n_min))


@pytest.mark.parametrize("n_min", [4, 9])
def test_a_window_of_reach_is_enough(n_min):
    """The answer at a pixel is the same in the window that reaches n_min - 1 px around it."""
    mask = np.random.default_rng(3).random((30, 30)) < 0.35
    whole = large_enough(mask, n_min)
    d = n_min - 1
    for r, c in ((0, 0), (11, 14), (15, 3), (29, 20)):
        a, b = max(0, r - d), max(0, c - d)
        window = mask[a : r + d + 1, b : c + d + 1].copy()
        assert large_enough(window, n_min)[r - a, c - b] == whole[r, c]


def test_doubtful_pixels_need_neighbours():
    sure = np.zeros((6, 6), bool)
    doubtful = np.zeros((6, 6), bool)
    sure[1:3, 1:3] = True
    doubtful[3, 1:3] = doubtful[5, 5] = True
    found = backed(sure, doubtful, 3)
    assert found[3, 1]
    assert found[3, 2]
    assert not found[5, 5]
    assert found[sure].all()
