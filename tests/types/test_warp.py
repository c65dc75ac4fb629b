import pickle

import dask.base
import numpy as np
import pytest
from hypothesis import given

from geoalign import Affine, Chain, Field, MatchError, Projective, Shift
from geoalign.types.warp import Warp, mean_displacement
from tests.strategies import warps

ROWS, COLS = np.mgrid[0:60:7, 0:50:5].astype(float)


@given(warps())
def test_there_and_back_is_home(warp):
    rows, cols = warp.inverse().pull(*warp.pull(ROWS, COLS))
    np.testing.assert_allclose(rows, ROWS, atol=1e-6)
    np.testing.assert_allclose(cols, COLS, atol=1e-6)
    rows, cols = warp.pull(*warp.inverse().pull(ROWS, COLS))
    np.testing.assert_allclose(rows, ROWS, atol=1e-6)
    np.testing.assert_allclose(cols, COLS, atol=1e-6)


@given(warps())
def test_jacobian_is_the_slope_of_pull(warp):
    h = 1e-4
    j = warp.jacobian(ROWS + 0.3, COLS + 0.2)
    for k, (a, b) in enumerate(((h, 0), (0, h))):
        hi = warp.pull(ROWS + 0.3 + a, COLS + 0.2 + b)
        lo = warp.pull(ROWS + 0.3 - a, COLS + 0.2 - b)
        for i in range(2):
            slope = (hi[i] - lo[i]) / (2 * h)
            # a field has a corner where its grid ends: the slope there is one-sided, so allow the few points on it
            assert np.mean(np.abs(slope - j[..., i, k]) > 1e-4) < 0.1


@given(warps())
def test_a_point_does_not_depend_on_its_company(warp):
    whole = warp.pull(ROWS, COLS)
    alone = warp.pull(ROWS[2:3, 3:4], COLS[2:3, 3:4])
    assert whole[0][2, 3] == alone[0][0, 0]
    assert whole[1][2, 3] == alone[1][0, 0]


@given(warps())
def test_warps_are_values(warp):
    twin = pickle.loads(pickle.dumps(warp))
    assert twin == warp
    assert hash(twin) == hash(warp)
    assert dask.base.tokenize(twin) == dask.base.tokenize(warp)
    assert isinstance(warp, Warp)


def test_shift_says_where_the_pixel_is_found():
    assert [v.item() for v in Shift(1.5, -0.25).pull(10, 20)] == [11.5, 19.75]


def test_chain_goes_from_left_to_right():
    double = Affine(((2, 0, 0), (0, 2, 0)))
    assert Chain((Shift(1, 0), double)).pull(3.0, 5.0)[0] == 8.0
    assert Chain((double, Shift(1, 0))).pull(3.0, 5.0)[0] == 7.0


def test_field_interpolates_its_nodes_and_is_constant_outside():
    rng = np.random.default_rng(3)
    dy, dx = rng.normal(size=(2, 4, 5))
    field = Field(dy, dx, 5, 7, 16, 20)
    i, j = np.mgrid[0:4, 0:5]
    rows, cols = 5 + 16.0 * i, 7 + 20.0 * j
    r, c = field.pull(rows, cols)
    np.testing.assert_allclose(r - rows, dy, atol=1e-9)
    np.testing.assert_allclose(c - cols, dx, atol=1e-9)
    far = field.pull(np.array([-100.0]), np.array([-300.0]))
    np.testing.assert_allclose(far[0] + 100, dy[0, 0])


def test_projective_is_normalised():
    assert Projective(np.eye(3) * 2) == Projective(np.eye(3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Affine(np.eye(3)),
        lambda: Field(np.zeros((2, 2)), np.zeros((2, 3))),
        lambda: Field(np.zeros((1, 5)), np.zeros((1, 5))),
        lambda: Field(np.full((3, 3), np.nan), np.zeros((3, 3))),
    ],
)
def test_wrong_shapes_are_refused(make):
    with pytest.raises(MatchError, match=r"shape|finite"):
        make()


def test_mean_displacement_of_a_turn_is_taken_over_valid_pixels():
    warp = Affine(((1, 0.01, 0), (-0.01, 1, 0)))
    left = np.zeros((100, 100), bool)
    left[:, :50] = True
    assert mean_displacement(warp, (100, 100), left)[0] == pytest.approx(0.245, abs=0.02)
    assert mean_displacement(warp, (100, 100))[0] == pytest.approx(0.495, abs=0.02)
