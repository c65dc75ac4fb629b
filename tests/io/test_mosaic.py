import json

import numpy as np
import pytest

from geoalign import open_stack
from geoalign.errors import NoUsableData


def notes(stack, k):
    return json.loads(stack.attrs["applied"])[k]["notes"]


@pytest.fixture
def landsat(tif, tmp_path):
    def make(row, *, sensor="LC08", day="20240101", y0=5000000.0, value=10000):
        name = f"{sensor}_L2SP_192{row:03d}_{day}_20241231_02_T1_SR_B4.TIF"
        tif(tmp_path / name, np.full((40, 40), value, "uint16"), res=30.0, y0=y0, block=16)

    return make


def test_rows_of_one_landsat_path_are_one_scene(landsat, tmp_path):
    landsat(30)
    landsat(31, y0=4999100.0, value=20000)
    stack = open_stack(tmp_path)
    assert list(stack.scene.values) == ["LC08_20240101T000000_R192"]
    assert dict(stack.sizes) == {"time": 1, "y": 70, "x": 40}
    np.testing.assert_allclose(stack.red[0, [0, 35, 60], 5], [0.075, 0.075, 0.35], rtol=1e-5)


def test_two_sensors_on_a_day_without_times_are_set_apart(landsat, tmp_path):
    landsat(30)
    landsat(30, sensor="LC09")
    stack = open_stack(tmp_path)
    assert np.diff(stack.time.values)[0] == np.timedelta64(1, "s")
    assert "time of day unknown" in notes(stack, 1)[-1]


def test_scenes_of_different_passes_stay_apart(sar, tmp_path):
    sar("A", "2024-01-01T05:00:00Z")
    sar("B", "2024-01-01T05:10:00Z")
    assert open_stack(tmp_path / "sar").sizes["time"] == 2


def test_bursts_of_one_pass_are_one_scene(tif, tmp_path):
    for k, x0 in ((293, 500000.0), (294, 500900.0)):
        name = f"OPERA_L2_RTC-S1_T009-019{k}-IW2_20240123T20000{k - 290}Z_20240124T010101Z_S1A_30_v1.0_VV.tif"
        tif(tmp_path / name, np.full((40, 40), 0.1, "float32"), res=30.0, x0=x0, nodata=np.nan, block=16)
    stack = open_stack(tmp_path)
    assert list(stack.scene.values) == ["S1A_20240123T200003_R009"]
    assert stack.sizes["x"] == 70
    assert np.isfinite(stack.vv.values).all()
    assert len(json.loads(stack.attrs["applied"])[0]["tiles"]) == 2


def test_two_files_of_one_name_are_not_two_scenes(tif, tmp_path):
    for k in range(2):
        power = np.full((40, 40), 0.1, "float32")
        tif(tmp_path / f"{k}.tif", power, names=("vv",), tags={"scene": "A", "datetime": "2024-01-01", "orbit": "1"})
    stack = open_stack(tmp_path)
    assert stack.sizes["time"] == 1
    (record,) = json.loads(stack.attrs["skipped"])
    assert record["path"].endswith("1.tif")
    assert "0.tif already" in record["reason"]


def test_a_band_that_comes_twice_with_others_is_ambiguous(tif, tmp_path):
    tags = {"scene": "A", "datetime": "2024-01-01", "orbit": "1"}
    for k, names in enumerate((("vv",), ("vv", "vh"))):
        tif(tmp_path / f"{k}.tif", np.full((len(names), 40, 40), 0.1, "float32"), names=names, tags=tags)
    with pytest.raises(NoUsableData, match=r"band vv twice: .*0\.tif \(band 1\) and .*1\.tif"):
        open_stack(tmp_path)
