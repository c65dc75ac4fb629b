"""The segmentation family on real Landsat pixels, against the segments of the MATLAB CCDC."""

import numpy as np
import pandas as pd
import pytest

from geoalign import check_changes, detect, new_stack
from geoalign.types.changes import WHY

pytestmark = pytest.mark.real
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")


def landsat(path, clear=(0, 1)):
    """One pixel as a stack: what `cfmask` calls clear ground or water, reflectance 0-1."""
    table = pd.read_csv(path, parse_dates=["date"]).drop_duplicates("date").sort_values("date")
    seen = table.cfmask.isin(clear).to_numpy()
    bands = {b: np.where(seen, table[b] * 1e-4, np.nan)[:, None, None] for b in BANDS}
    return new_stack(bands, table.date.to_numpy())


@pytest.fixture(scope="module")
def pixels(real_data):
    return real_data / "series" / "pixels"


def test_ccdc_gives_the_reference_breaks(pixels):
    stack = landsat(pixels / "landsat_wa_3657_3610.csv")
    reference = pd.read_csv(pixels / "landsat_wa_3657_3610_reference_segments.csv", parse_dates=["start"])
    found = check_changes(detect(stack, "ccdc"), values=True)
    clear = stack.time.values[np.isfinite(stack.nir.values[:, 0, 0])]
    ours = np.searchsorted(clear, found.break_date.values[: int(found.n_changes[0, 0]), 0, 0])
    theirs = np.searchsorted(clear, reference.start.to_numpy()[1:].astype("datetime64[ns]"))
    assert (np.abs(theirs[:, None] - ours).min(axis=1) <= 1).sum() >= 8
    assert len(ours) <= len(theirs)


@pytest.mark.parametrize("name", ["ccdc", "cold"])
def test_snow_that_stays_is_not_looked_at(pixels, name):
    stack = landsat(pixels / "lcmap_wa_persistent_snow.csv", clear=(0, 1, 3))
    found = check_changes(detect(stack, name), values=True)
    assert int(found.status[0, 0]) == 255
    assert int(found.why[0, 0]) == WHY["not_detectable"]
