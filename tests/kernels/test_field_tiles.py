"""Points on a field: the banded normal matrix is that of the plain least-squares problem."""

import numpy as np

from geoalign.kernels import flow
from geoalign.kernels.field_tiles import point_normal, weights_at

N_R, N_C = 6, 7


def test_points_give_the_normal_equations_of_their_field():
    rng = np.random.default_rng(0)
    u, v = rng.uniform(1, N_R - 2, 20), rng.uniform(1, N_C - 2, 20)
    root = rng.normal(size=(20, 2, 2))
    inverse, residual = root @ root.transpose(0, 2, 1), rng.normal(size=(20, 2))
    basis = (*weights_at(u, N_R), *weights_at(v, N_C))
    hessian, right = point_normal(*basis, inverse, residual, N_R, N_C)

    rows, cols = (flow.dense_basis(*b, n) for b, n in ((basis[:2], N_R), (basis[2:], N_C)))
    design = np.einsum("pi,pj->pij", rows, cols).reshape(20, -1)
    full = np.einsum("pi,pab,pj->iajb", design, inverse, design).reshape(2 * N_R * N_C, -1)
    banded = flow.banded(hessian, 1.0)
    for k in range(banded.shape[1]):
        np.testing.assert_allclose(banded[: len(full) - k, k], np.diagonal(full, k), atol=1e-9)
    np.testing.assert_allclose(
        np.moveaxis(right, 0, -1).ravel(), np.einsum("pi,pab,pb->ia", design, inverse, residual).ravel(), atol=1e-9
    )
