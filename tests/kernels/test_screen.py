import numpy as np
import pytest

from geoalign.kernels.screen import excursions, grow


def naive_grow(flags, radius):
    out = np.zeros_like(flags)
    for r, c in np.ndindex(flags.shape):
        for i, j in np.ndindex(flags.shape):
            if flags[i, j] and (i - r) ** 2 + (j - c) ** 2 <= radius**2:
                out[r, c] = 1
    return out


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 3.0])
def test_grow_is_a_disc(radius):
    flags = (np.random.default_rng(0).random((14, 11)) < 0.05).astype(np.uint8)
    np.testing.assert_array_equal(grow(flags, radius), naive_grow(flags, radius))


def test_excursions_leave_lasting_changes_alone():
    rng = np.random.default_rng(0)
    series = (0.05 + 0.005 * rng.standard_normal((3, 12))).astype(np.float32)
    series[0, 5] = 0.6  # a cloud
    series[1, 6:] = 0.3  # a change that stays
    series[2, 3:5] = 0.6  # two dates in a row: not one excursion
    found = excursions(series, 5.0, np.inf, 0.01)
    assert found[0].tolist() == [0] * 5 + [1] + [0] * 6
    assert not found[1:].any()
    assert not excursions(series, np.inf, np.inf, 0.01).any()
    assert not excursions(series[:, :4], 5.0, 5.0, 0.01).any()


def test_excursions_need_neighbours_that_came_back():
    series = np.full((2, 8), 0.3, np.float32)
    series[0, 0] = series[0, 7] = 0.0  # the ends: what was before or comes after is not known
    series[1, 3] = 0.0
    series[1, 4] = np.nan  # the next observation is the one after the gap
    found = excursions(series, np.inf, 4.0, 0.01)
    assert not found[0].any()
    assert found[1].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
