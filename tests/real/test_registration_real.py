"""Registration on real imagery: sub-pixel crops, a really misregistered pair, and pairs of different sensors."""

import re

import numpy as np
import pandas as pd
import pytest
import rasterio

from geoalign import MatchError, chunked, coregister, match, new_stack
from geoalign.types.warp import mean_displacement

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]


def read(path, band=1):
    with rasterio.open(path) as source:
        image = source.read(band).astype(np.float32)
    image[image == 0] = np.nan
    return image


def test_sub_pixel_crops(real_data):
    errors = []
    for left in sorted((real_data / "registration/subpixel/medicis").glob("*_left.tif")):
        dy, dx = map(float, re.search(r"r([+-][\d.]+)c([+-][\d.]+)_left", left.name).groups())
        found = match(read(left), read(left.with_name(left.name.replace("left", "right"))))
        errors.append(np.hypot(*np.subtract(mean_displacement(found.warp, (110, 110)), (dy, dx))))
    assert len(errors) == 8
    assert np.median(errors) <= 0.02
    assert np.max(errors) <= 0.05


def tile_residuals(reference, moving, size=128):
    """Shifts left between two images by an independent matcher, on tiles."""
    from skimage.registration import phase_cross_correlation

    out = []
    for r in range(16, reference.shape[0] - size - 16, size):
        for c in range(16, reference.shape[1] - size - 16, size):
            a, b = (np.nan_to_num(v[r : r + size, c : c + size]) for v in (reference, moving))
            out.append(np.hypot(*phase_cross_correlation(a, b, upsample_factor=100)[0]))
    return np.array(out)


def test_misregistered_sentinel_2_pair(real_data):
    folder = real_data / "registration/s2_pair"
    reference, moving = read(folder / "ref_S2A_20160608.tif"), read(folder / "tgt_S2A_20160529.tif")
    before = np.median(tile_residuals(reference, moving))
    found = match(reference, moving)
    stack = new_stack({"red": np.stack([moving, reference])}, ["2016-05-29", "2016-06-08"], scene=["tgt", "ref"])
    alignment = coregister(stack, reference="ref")
    for warp in (found.warp, alignment.warps["tgt"]):
        dy, dx = mean_displacement(warp, reference.shape)
        assert abs(dy + 1.8) < 0.2
        assert abs(dx - 0.55) < 0.2
        after = np.median(tile_residuals(reference, chunked.pull(moving, warp, reference.shape)))
        assert after < 0.15 < before


@pytest.mark.parametrize(
    "name", ["optical_sar", "visible_infrared", "visible_infrared_30m", "lidar_optical", "optical_map"]
)
@pytest.mark.parametrize("matcher", ["phase", "orb", "auto"])
def test_different_sensors_are_matched_well_or_refused(real_data, name, matcher):
    folder = real_data / "registration" / name
    points = pd.read_csv(folder / "checkpoints.csv")
    reference_rc = points[["ref_row", "ref_col"]].to_numpy()
    moving_rc = points[["sen_row", "sen_col"]].to_numpy()
    try:
        found = match(read(folder / "reference.tif"), read(folder / "sensed.tif"), matcher=matcher)
    except MatchError:
        return
    rows, cols = found.warp.pull(*reference_rc.T)
    assert np.sqrt(((rows - moving_rc[:, 0]) ** 2 + (cols - moving_rc[:, 1]) ** 2).mean()) <= 3
