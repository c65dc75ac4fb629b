import json

import numpy as np
import pytest

from geoalign import open_stack
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.io import products
from geoalign.io.dates import Facts


def applied(stack):
    return json.loads(stack.attrs["applied"])[0]


@pytest.mark.parametrize(
    ("text", "product", "sensor", "name"),
    [
        ("B04", "sentinel2-l2a", "S2A", "red"),
        ("B8", "sentinel2-l2a", "S2A", "nir"),
        ("B8A", "sentinel2-l2a", "S2A", "nir08"),
        ("B11_20m", "sentinel2-l2a", "S2A", "swir1"),
        ("swir16", "sentinel2-l2a", "S2A", "swir1"),
        ("AOT", "sentinel2-l2a", "S2A", ""),
        ("SR_B5", "landsat-c2-l2", "LC08", "nir"),
        ("SR_B5", "landsat-c2-l2", "LE07", "swir1"),
        ("ST_B10", "landsat-c2-l2", "LC08", ""),
        ("nir08", "landsat-c2-l2", "LC08", "nir"),
        ("B05", "hls", "HLS-L30", "nir"),
        ("B8A", "hls", "HLS-S30", "nir"),
        ("B05", "hls", "HLS-S30", "rededge1"),
        ("Fmask", "hls", "HLS-L30", "fmask"),
        ("Gamma0_VV", "sentinel1-rtc", "S1A", "vv"),
        ("VH", "opera-rtc-s1", "S1A", "vh"),
        ("inc_map", "sentinel1-rtc", "S1A", ""),
        ("NDVI", "generic", "", "ndvi"),
        ("VV", "generic", "", "vv"),
    ],
)
def test_band_names(text, product, sensor, name):
    assert products.band_name(text, product, sensor) == name


def test_mask_rules_follow_the_products_tables():
    codes = np.arange(12, dtype=np.uint8)
    assert codes[products.SCL.bad(codes)].tolist() == [0, 1, 3, 8, 9, 10]
    qa = np.array([21824, 1, 21824 | 1 << 3, 21824 | 1 << 4, 1 << 7], np.uint16)  # clear, fill, cloud, shadow, water
    assert products.QA_PIXEL.bad(qa).tolist() == [False, True, True, True, False]
    fmask = np.array([0, 64, 192, 2, 8, 32, 255], np.uint8)  # clear, aerosol bits, cloud, shadow, water, fill
    assert products.FMASK.bad(fmask).tolist() == [False, False, False, True, True, False, True]
    assert products.OPERA_MASK.bad(np.array([0, 1, 2, 3, 255])).tolist() == [False, True, True, True, True]
    assert products.LS_MAP.bad(np.array([1, 5, 17, 7, 25, 0])).tolist() == [False, True, True, True, True, False]


def test_calibration_is_exact_and_masks_what_is_none():
    dn = np.array([0, 1000, 1001, 65535], np.uint16)
    out = products.Calibration(1e-4, -0.1, (0.0,), "reflectance").apply(dn)
    assert np.isnan(out[0])
    np.testing.assert_array_equal(out[1:], np.array([0.0, 0.0001, 6.4535], np.float64).astype(np.float32))
    power = np.array([0.0, -1.0, np.inf, np.nan, 0.5], np.float32)
    assert np.isfinite(products.Calibration(units="power").apply(power)).tolist() == [False] * 4 + [True]
    np.testing.assert_allclose(products.Calibration(units="dB").apply(np.array([-10.0])), 0.1)
    np.testing.assert_allclose(products.Calibration(units="amplitude").apply(np.array([0.5])), 0.25)


@pytest.mark.parametrize(("baseline", "offset"), [("02.14", 0.0), ("03.01", 0.0), ("04.00", -0.1), ("05.10", -0.1)])
def test_sentinel2_offset_goes_by_baseline_not_by_date(s2, tmp_path, baseline, offset):
    s2("A", "2019-06-01", baseline=baseline)
    stack = open_stack(tmp_path / "s2")
    assert applied(stack)["offset"] == offset


def test_unknown_baseline_is_refused_and_can_be_given(s2, tmp_path):
    s2("A", "2019-06-01", baseline=None)
    with pytest.raises(NoUsableData, match=r"processing baseline is unknown.*sentinel2-l2a@05.10"):
        open_stack(tmp_path / "s2")
    assert applied(open_stack(tmp_path / "s2", product="sentinel2-l2a@02.14"))["offset"] == 0.0


def test_an_offset_that_was_taken_off_already_is_noticed(s2, tif, tmp_path):
    dn = np.random.default_rng(0).integers(100, 3000, (2, 64, 64)).astype("uint16")
    tags = {"datetime": "2023-01-01", "product": "sentinel2-l2a", "processing_baseline": "05.09"}
    tif(tmp_path / "a.tif", dn, names=("blue", "nir"), tags=tags)
    with pytest.raises(NoUsableData, match="applied already"):
        open_stack(tmp_path)
    # Earth Search's flag is known to be wrong in places: there the values decide
    (tmp_path / "a.json").write_text('{"earthsearch:boa_offset_applied": false}')
    stack = open_stack(tmp_path)
    assert applied(stack)["offset"] == 0.0
    assert "taken off already" in "; ".join(applied(stack)["notes"])
    np.testing.assert_allclose(stack.nir[0], dn[1] * 1e-4, rtol=1e-6)


def test_header_and_baseline_must_agree(tif, tmp_path):
    dn = np.full((64, 64), 3000, "uint16")
    tags = {"datetime": "2023-01-01", "product": "sentinel2-l2a", "processing_baseline": "05.09"}
    tif(tmp_path / "a.tif", dn, names=("red",), tags=tags, scales=(1e-4,), offsets=(0.0,))
    with pytest.raises(NoUsableData, match=r"means an offset of -0.1.*says 0"):
        open_stack(tmp_path)


def test_hls_takes_each_sensors_near_infrared(tif, tmp_path):
    for sensor, nir in (("L30", "B05"), ("S30", "B8A")):
        day = {"L30": "2020005", "S30": "2020006"}[sensor]
        stem = f"HLS.{sensor}.T10SEG.{day}T185000.v2.0"
        for band, value in ((nir, 3000), ("B04", 500)):
            dn = np.full((32, 32), value, "int16")
            dn[0] = -9999
            tif(tmp_path / f"{stem}.{band}.tif", dn, res=30.0, nodata=-9999, scales=(1e-4,), block=16)
        fmask = np.zeros((32, 32), "uint8")
        fmask[5, 5] = 2
        tif(tmp_path / f"{stem}.Fmask.tif", fmask, res=30.0, nodata=255, block=16)
    stack = open_stack(tmp_path)
    assert set(stack) == {"red", "nir"}
    assert stack.sensor.values.tolist() == ["HLS-L30", "HLS-S30"]
    np.testing.assert_allclose(np.nanmax(stack.nir.values, axis=(1, 2)), 0.3, rtol=1e-6)
    assert np.isnan(stack.nir.values).sum() == 2 * 33


def test_opera_bursts_keep_their_mask_and_orbit(tif, tmp_path):
    stem = "OPERA_L2_RTC-S1_T009-019294-IW2_20240123T200000Z_20240124T010101Z_S1A_30_v1.0"
    power = np.full((32, 32), 0.1, "float32")
    power[:4] = np.nan
    layover = np.zeros((32, 32), "uint8")
    layover[10, 10] = 2
    tif(tmp_path / f"{stem}_VV.tif", power, res=30.0, nodata=np.nan, block=16)
    tif(tmp_path / f"{stem}_mask.tif", layover, res=30.0, nodata=255, block=16)
    stack = open_stack(tmp_path)
    assert int(stack.orbit[0]) == 9
    assert np.isnan(stack.vv.values).sum() == 4 * 32 + 1
    assert applied(stack)["mask"] == products.OPERA_MASK.meaning


def test_sar_declared_in_decibel_or_amplitude_becomes_power(tif, tmp_path):
    for k, (units, value) in enumerate((("dB", -10.0), ("amplitude", 0.1**0.5), ("power", 0.1))):
        tags = {"datetime": f"2024-01-0{k + 1}", "product": "sentinel1-rtc", "units": units}
        tif(tmp_path / f"{units}.tif", np.full((40, 40), value, "float32"), names=("vv",), tags=tags)
    np.testing.assert_allclose(open_stack(tmp_path).vv, 0.1, rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        (np.full((40, 40), -12.0, "float32"), ("vv",), "dB, and linear power is expected"),
        (np.full((40, 40), 200, "uint16"), ("vv",), "not calibrated"),
        (np.full((40, 40), 200.0, "float32"), ("vv",), "uncalibrated counts"),
        (np.full((40, 40), 2000, "uint16"), ("red",), "digital numbers with no known scale"),
    ],
)
def test_wrong_units_are_refused_with_the_reason(tif, tmp_path, data, names, message):
    tif(tmp_path / "a_20240101.tif", data, names=names)
    with pytest.raises(NoUsableData, match=message):
        open_stack(tmp_path)


def test_a_grd_with_a_crs_is_refused_by_its_name(tif, tmp_path):
    stem = "S1A_IW_GRDH_1SDV_20170909T175748_20170909T175813_018302_01EC88_98A1"
    tif(tmp_path / f"{stem}.tif", np.full((40, 40), 200, "uint16"))
    with pytest.raises(NoUsableData, match=r"Sentinel-1 GRD with uint16 counts: uncalibrated.*RTC"):
        open_stack(tmp_path)
    (tmp_path / f"{stem}.tif").unlink()
    tif(tmp_path / f"{stem}_Gamma0_VV.tif", np.full((40, 40), 0.1, "float32"))
    stack = open_stack(tmp_path)
    assert list(stack) == ["vv"]
    assert int(stack.orbit[0]) == 30


def test_generic_files_use_gdals_scale_and_nodata_and_honour_scl(tif, tmp_path):
    data = np.full((3, 40, 40), 2500, "uint16")
    data[0, 0] = 9999
    data[2] = 4
    data[2, 7] = 9
    tif(
        tmp_path / "a_20240101.tif",
        data,
        names=("red", "nir", "SCL"),
        nodata=9999,
        scales=(1e-4, 1e-4, 1),
        offsets=(-0.1, -0.1, 0),
    )
    stack = open_stack(tmp_path)
    assert list(stack) == ["red", "nir"]
    np.testing.assert_allclose(np.nanmedian(stack.red), 0.15, rtol=1e-6)
    assert np.isnan(stack.red.values).sum() == 80
    assert np.isnan(stack.nir.values).sum() == 40


def test_unnamed_bands_are_taken_as_they_are(tif, tmp_path):
    tif(tmp_path / "a_20240101.tif", np.full((2, 40, 40), 700, "uint16"))
    stack = open_stack(tmp_path)
    assert list(stack) == ["band1", "band2"]
    assert float(stack.band2.max()) == 700


def test_unknown_products_are_named():
    with pytest.raises(ConfigError, match="choose auto"):
        products.profile_of("sentinel3", "")
    with pytest.raises(ConfigError, match="choose auto"):
        products.profile_of("hls@05.10", "")
    with pytest.raises(StackError, match="'planetscope' is unknown"):
        products.profile_of("auto", "planetscope")


def test_calibration_of_nothing_known_is_identity():
    found, notes = products.calibration(products.PROFILES["generic"], Facts(), dtype="float32")
    assert (found.scale, found.offset, notes) == (1.0, 0.0, [])


def test_float_reflectance_is_not_scaled_again(tif, tmp_path):
    tags = {"datetime": "2023-01-01", "product": "sentinel2-l2a"}
    tif(tmp_path / "a.tif", np.full((64, 64), 0.25, "float32"), names=("red",), tags=tags)
    assert float(open_stack(tmp_path).red.max()) == 0.25
    tif(tmp_path / "a.tif", np.full((64, 64), 2500, "float32"), names=("red",), tags=tags)
    with pytest.raises(NoUsableData, match="digital numbers"):
        open_stack(tmp_path)


def test_doubts_are_noted_and_logged_once(tif, tmp_path, caplog):
    for k in range(3):
        data = np.full((64, 64), 0.25, "float32")
        data[:10] = 0
        tif(tmp_path / f"a_2024010{k + 1}.tif", data, names=("ndvi",))
    stack = open_stack(tmp_path)
    assert applied(stack)["notes"] == ["check: 16% of ndvi are 0 and no nodata is declared: taken as values"]
    assert caplog.text.count("no nodata is declared") == 1
    assert "and 2 more scenes" in caplog.text


def test_dark_water_of_a_new_baseline_is_no_reason_to_refuse(tif, tmp_path):
    rng = np.random.default_rng(0)
    dn = rng.normal(985, 15, (64, 64)).astype("uint16")  # reflectance -0.0015 +- 0.0015 over water
    tags = {"datetime": "2023-01-01", "product": "sentinel2-l2a", "processing_baseline": "05.09"}
    tif(tmp_path / "a.tif", dn, names=("nir",), tags=tags)
    assert float(open_stack(tmp_path).nir.mean()) == pytest.approx(-0.0015, abs=1e-3)
