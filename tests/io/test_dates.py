import json

import numpy as np
import pytest

from geoalign.errors import StackError
from geoalign.io.dates import describe, parse_time, relative_orbit, safe_name, sensor_name

NAMES = {
    "S2A_MSIL2A_20220101T100319_N0301_R122_T32TQM_20220305T121212.SAFE/G/R10m/T32TQM_20220101T100319_B04_10m.jp2": (
        "sentinel2-l2a", "2022-01-01T10:03:19", "S2A", 122, "B04", "32TQM", "03.01"),
    "S2A_32TQM_20220101_0_L2A/B8A.tif": ("sentinel2-l2a", "2022-01-01T00:00:00", "S2A", -1, "B8A", "32TQM", ""),
    "T32TQM_20220101T100319_SCL_20m.jp2": ("sentinel2-l2a", "2022-01-01T10:03:19", "S2", -1, "SCL", "32TQM", ""),
    "LE07_L2SP_192030_20200101_20200115_02_T1_SR_B4.TIF": (
        "landsat-c2-l2", "2020-01-01T00:00:00", "LE07", 192, "SR_B4", "192030", ""),
    "HLS.S30.T10SEG.2020060T185000.v2.0.B8A.tif": (
        "hls", "2020-02-29T18:50:00", "HLS-S30", -1, "B8A", "10SEG", ""),
    "OPERA_L2_RTC-S1_T009-019294-IW2_20240123T200000Z_20240124T010101Z_S1A_30_v1.0_VV.tif": (
        "opera-rtc-s1", "2024-01-23T20:00:00", "S1A", 9, "VV", "T009-019294-IW2", ""),
    "S1A_IW_20180628T151555_DVP_RTC30_G_gpuned_AA97_VH.tif": (
        "sentinel1-rtc", "2018-06-28T15:15:55", "S1A", -1, "VH", "", ""),
    "S1B_IW_GRDH_1SDV_20170903T175659_20170903T175724_007231_00CBEF_874B_rtc/iw-vv.rtc.tiff": (
        "sentinel1-rtc", "2017-09-03T17:56:59", "S1B", 30, "vv", "", ""),
    "site_2020-01-05_red.tif": ("", "2020-01-05T00:00:00", "", -1, "red", "", ""),
    "MOD13Q1.A2020060.tif": ("", "2020-02-29T00:00:00", "", -1, "", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_product_names_are_understood(name):
    facts = describe(name)
    product, time, sensor, orbit, band, tile, baseline = NAMES[name]
    assert (facts.product, facts.sensor, facts.orbit) == (product, sensor, orbit)
    assert (facts.band, facts.tile, facts.baseline) == (band, tile, baseline)
    assert facts.time == np.datetime64(time)


def test_files_of_one_scene_share_its_id():
    stem = "LC08_L2SP_192030_20200101_20200115_02_T1"
    assert {describe(f"{stem}_{b}.TIF").scene for b in ("SR_B4", "QA_PIXEL", "ST_B10")} == {stem}
    assert {describe(f"a_20200101_{b}.tif").scene for b in ("red", "nir", "B04", "vv")} == {"a_20200101"}


def test_two_dates_in_an_unknown_name_are_refused_with_both():
    with pytest.raises(StackError, match=r"several dates \(2020-01-01.*2020-02-02.*tried"):
        describe("a_20200101_20200202.tif")


def test_no_date_shows_what_was_tried():
    with pytest.raises(StackError, match=r"tried sidecar foo\.json: no date; tags: no date; name patterns"):
        describe("foo.tif", {"TIFFTAG_DATETIME": "2020:01:01 00:00:00"})


@pytest.mark.parametrize("name", ["a_99999999.tif", "a_20201345.tif", "a_20200230.tif", "a_1234567890.tif"])
def test_digits_that_are_no_date_are_not_one(name):
    with pytest.raises(StackError, match="no acquisition date"):
        describe(name)


def test_tags_beat_sidecar_and_sidecar_beats_name(tmp_path):
    path = tmp_path / "a_20200101.tif"
    assert describe(path).time == np.datetime64("2020-01-01")
    (tmp_path / "a_20200101.json").write_text(
        json.dumps({"datetime": "2020-03-01T12:00:00+02:00", "orbit": 7, "scene": "X"})
    )
    facts = describe(path)
    assert (facts.time, facts.orbit, facts.scene) == (np.datetime64("2020-03-01T10:00:00"), 7, "X")
    facts = describe(path, {"DATETIME": "2021-01-01T00:00:00Z", "enl": "4.4"})
    assert (facts.time, facts.orbit, facts.enl) == (np.datetime64("2021-01-01"), 7, 4.4)


def test_landsat_metadata_gives_the_time_of_day(tmp_path):
    stem = "LC08_L2SP_192030_20200101_20200115_02_T1"
    document = {"LANDSAT_METADATA_FILE": {"IMAGE_ATTRIBUTES": {
        "DATE_ACQUIRED": "2020-01-01", "SCENE_CENTER_TIME": "10:03:19.1234560Z"}}}  # fmt: skip
    (tmp_path / f"{stem}_MTL.json").write_text(json.dumps(document))
    assert str(describe(tmp_path / f"{stem}_SR_B4.TIF").time)[:19] == "2020-01-01T10:03:19"


def test_broken_sidecar_and_tags_are_named(tmp_path):
    path = tmp_path / "a.tif"
    (tmp_path / "a.json").write_text("{not json")
    with pytest.raises(StackError, match=r"a\.json can't be read as JSON"):
        describe(path)
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(StackError, match="must hold an object"):
        describe(path)
    with pytest.raises(StackError, match="'soon' is not a date"):
        describe("b.tif", {"datetime": "soon"})
    with pytest.raises(StackError, match="disagree"):
        describe("b.tif", {"datetime": "2020-01-01", "acquisition_date": "2020-02-01"})
    with pytest.raises(StackError, match="numbers are expected"):
        describe("b_20200101.tif", {"orbit": "forty"})


@pytest.mark.parametrize("stamp", ["1970-01-01T00:00:00Z", "2999-01-01"])
def test_clocks_that_were_never_set_are_refused(stamp):
    with pytest.raises(StackError, match="before 1972 or in the future"):
        describe("a.tif", {"datetime": stamp})


def test_level_1_landsat_is_refused():
    with pytest.raises(StackError, match="Level-1"):
        describe("LC08_L1TP_192030_20200101_20200115_02_T1_B4.TIF")


def test_relative_orbits_of_published_pairs():
    # STEP forum 7042: both of relative orbit 30; the first 2017-09-09, the second 2017-09-03
    assert relative_orbit("S1A", 18302) == relative_orbit("S1B", 7231) == 30
    assert relative_orbit("S9Z", 1) == -1


def test_names_are_safe_for_files():
    assert safe_name("../../etc/passwd") == "_.._etc_passwd"
    assert safe_name("a/b\\c d") == "a_b_c_d"
    assert safe_name("S2A_2020+1.x-y") == "S2A_2020+1.x-y"
    assert safe_name("..") == "scene"


def test_platforms_have_short_names():
    assert [sensor_name(s) for s in ("sentinel-2a", "Sentinel-1B", "landsat-8", "LANDSAT_7", "planet")] == [
        "S2A", "S1B", "LC08", "LE07", "planet"]  # fmt: skip
    assert parse_time("2020-01-01", "x")[1]
    assert not parse_time("2020-01-01T10:00:00.5+01:00", "x")[1]


@pytest.mark.parametrize(
    ("stamp", "utc"),
    [
        ("2024-02-29T23:30:00-02:00", "2024-03-01T01:30:00"),
        ("2024-10-27T02:30:00+02:00", "2024-10-27T00:30:00"),
        ("2024-10-27T02:30:00+01:00", "2024-10-27T01:30:00"),
        ("2024-02-29", "2024-02-29T00:00:00"),
        ("2023-12-31T23:59:59.999Z", "2023-12-31T23:59:59.999"),
    ],
)
def test_times_of_any_zone_become_utc_through_leap_days_and_summer_time(stamp, utc):
    assert describe("a.tif", {"datetime": stamp}).time == np.datetime64(utc, "ns")
