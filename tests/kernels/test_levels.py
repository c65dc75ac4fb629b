import numpy as np
import pytest

from geoalign.kernels.levels import levels
from tests import naive


@pytest.mark.parametrize(("date", "over"), [(-1, -1), (12, -1), (12, 18), (0, -1), (29, -1)])
def test_levels_are_those_of_the_definition(date, over):
    rng = np.random.default_rng(0)
    series = rng.normal(size=(4, 30)).astype(np.float32)
    series[rng.random(series.shape) < 0.4] = np.nan
    found = levels(series, np.full(4, date), np.full(4, over), 0.1)
    expected = [naive.side_levels(row, date, over, 0.1) for row in series]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
