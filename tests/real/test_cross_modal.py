"""Structure on real pairs of different sensors, with no hint of where they lie."""

import itertools

import numpy as np
import pandas as pd
import pytest
import rasterio

from geoalign import Affine, MatchError, match
from geoalign.kernels.resample import resample
from geoalign.types.warp import Field

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

LIMIT_PX = {"optical_sar": 0.89, "visible_infrared": 0.62, "lidar_optical": 0.80, "optical_map": 1.0}
"""The residual of the best affine at the check points + 0.15 px; 1 px for the map."""


def grey(path):
    with rasterio.open(path) as source:
        return source.read().astype(np.float32).mean(axis=0)


@pytest.fixture(scope="module")
def pairs(real_data):
    """name -> reference, moving, check points (n, 2) in both."""
    out = {}
    for name in (*LIMIT_PX, "visible_infrared_30m"):
        folder = real_data / "registration" / name
        points = pd.read_csv(folder / "checkpoints.csv")
        ends = [points[[f"{side}_row", f"{side}_col"]].to_numpy() for side in ("ref", "sen")]
        out[name] = (grey(folder / "reference.tif"), grey(folder / "sensed.tif"), *ends)
    return out


def rmse_px(warp, points, found):
    return float(np.sqrt(((np.stack(warp.pull(*points.T), 1) - found) ** 2).sum(axis=1).mean()))


def displaced(image, warp):
    """What is at x in the image is at warp.pull(x) in the result; NaN where nothing was seen."""
    rows, cols = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(float)
    return resample(image, *warp.inverse().pull(rows, cols), "cubic")


def turned(shape, degrees, scale, shift):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    m, middle = np.array([[c, -s], [s, c]]), (np.array(shape) - 1) / 2
    return Affine(np.column_stack([m, middle - m @ middle + shift]))


@pytest.mark.parametrize("name", LIMIT_PX)
@pytest.mark.parametrize("swapped", [False, True])
def test_pairs_as_they_come(pairs, name, swapped):
    reference, moving, points, found = pairs[name]
    if swapped:
        reference, moving, points, found = moving, reference, found, points
    assert rmse_px(match(reference, moving, matcher="structure").warp, points, found) <= LIMIT_PX[name]


@pytest.mark.parametrize(
    ("name", "limit_px"), [("optical_sar", 0.89), ("visible_infrared", 0.62), ("lidar_optical", 0.90)]
)
@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [(0, 1.0, (60, -40)), (10, 1.0, (20, 30)), (-7, 0.92, (20, -60)), (3, 1.1, (-30, 10))],
)
def test_far_turned_and_scaled(pairs, name, limit_px, degrees, scale, shift):
    reference, moving, points, found = pairs[name]
    warp = turned(moving.shape, degrees, scale, shift)
    answer = match(reference, displaced(moving, warp), matcher="structure").warp
    # the residual of the check points grows with the scale of the image they are measured in
    assert rmse_px(answer, points, np.stack(warp.pull(*found.T), 1)) <= limit_px * max(scale, 1)


def test_a_map_is_found_far_off(pairs):
    reference, moving, points, found = pairs["optical_map"]
    warp = turned(moving.shape, 10, 1.0, (20, 30))
    answer = match(reference, displaced(moving, warp), matcher="structure").warp
    assert rmse_px(answer, points, np.stack(warp.pull(*found.T), 1)) <= 1.3


def test_a_known_warp_between_visible_and_infrared(pairs):
    """Against the answer without the warp: the bands themselves lie about a tenth of a pixel apart."""
    reference, moving, points, _ = pairs["visible_infrared_30m"]
    own = match(reference, moving, matcher="structure").warp
    np.testing.assert_array_less(np.abs(np.stack(own.pull(*points.T), 1) - points).mean(axis=0), 0.2)
    warp = turned(moving.shape, 1.5, 1.01, (12.3, -7.6))
    found = match(reference, displaced(moving, warp), matcher="structure").warp
    assert rmse_px(found, points, np.stack(warp.pull(*own.pull(*points.T)), 1)) < 0.1


def test_a_field_between_sentinel_1_and_2(real_data):
    folder = real_data / "registration/s1s2_flow"
    radar, optical = grey(folder / "s1.tif"), grey(folder / "s2.tif")
    with rasterio.open(folder / "flow.tif") as source:
        dy, dx = source.read().astype(float)
    rows, cols = np.mgrid[0 : radar.shape[0], 0 : radar.shape[1]].astype(float)
    for still, bent in ((radar, optical), (optical, radar)):
        found = match(resample(bent, rows + dy, cols + dx, "cubic"), still, matcher="structure").warp
        assert isinstance(found, Field)
        r, c = found.pull(rows, cols)
        assert np.median(np.hypot(r - rows - dy, c - cols - dx)) < 1.0


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(LIMIT_PX, 2))[::2])
def test_wrong_scenes_are_refused(pairs, one, other):
    with pytest.raises(MatchError, match=r"\w+"):
        match(pairs[one][0][:320, :320], pairs[other][1][-320:, -320:], matcher="structure")


def test_water_fog_and_noise_are_refused(pairs):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(5)
    scene = pairs["optical_sar"][0][:320, :320]
    speckle = rng.gamma(1.0, size=scene.shape).astype(np.float32)
    fog = gaussian_filter(rng.normal(size=scene.shape), 8).astype(np.float32)
    for image in (speckle, fog, rng.normal(size=scene.shape).astype(np.float32)):
        with pytest.raises(MatchError, match=r"\w+"):
            match(scene, image, matcher="structure")
