import json

import dask
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import Shift, open_stack
from geoalign.chunked import pull
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.types.alignment import REPORT_COLUMNS, Alignment
from geoalign.types.grid import GridMap
from geoalign.types.stack import check_stack
from geoalign.types.warp import Chain


def skipped(stack):
    return json.loads(stack.attrs["skipped"])


def applied(stack):
    return json.loads(stack.attrs["applied"])


def test_scenes_on_one_grid_are_read_without_resampling(s2, tmp_path):
    dn = [s2(f"S{k}", f"2024-01-0{k + 1}T10:00:00Z", seed=k) for k in range(3)]
    stack = check_stack(open_stack(tmp_path / "s2"))
    assert list(stack) == ["blue", "red", "nir"]
    assert list(stack.scene.values) == ["S0", "S1", "S2"]
    assert stack.odc.geobox.crs == "EPSG:32633"
    assert stack.blue.dtype == np.float32
    for k in range(3):
        np.testing.assert_allclose(stack.blue[k], (dn[k][0] - 1000.0) * 1e-4, rtol=1e-6)
    assert applied(stack)[0]["offset"] == -0.1
    assert applied(stack)[0]["notes"] == ["offset by processing baseline 05.10"]


def test_opening_computes_nothing_and_keys_are_the_same_each_time(s2, tmp_path, no_compute):
    s2("A", "2024-01-01")
    s2("B", "2024-01-05", x0=500013.0)
    with no_compute():
        one, other = open_stack(tmp_path / "s2"), open_stack(tmp_path / "s2")
    assert one.blue.data.name == other.blue.data.name
    assert one.red.data.name != one.blue.data.name


def test_a_file_that_changed_gets_other_keys(s2, tmp_path):
    s2("A", "2024-01-01")
    before = open_stack(tmp_path / "s2").blue.data.name
    s2("A", "2024-01-01", seed=9)
    after = open_stack(tmp_path / "s2")
    assert after.blue.data.name != before
    after.compute()


def test_lazy_equals_eager_with_odd_chunks(s2, tmp_path):
    s2("A", "2024-01-01")
    s2("B", "2024-01-05", x0=500013.0, seed=1)
    whole = open_stack(tmp_path / "s2").compute()
    for chunks in (17, (33, 50), {"y": 100, "x": 29}):
        with dask.config.set(scheduler="threads"):
            xr.testing.assert_identical(open_stack(tmp_path / "s2", chunks=chunks).compute(), whole)


def test_the_cloud_mask_is_set_before_resampling(s2, tmp_path):
    scl = np.full((100, 120), 4, "uint16")
    scl[40:60, 50:70] = 9
    dn = s2("A", "2024-01-01", scl=scl)
    box = GeoBox((100, 120), Affine(10, 0, 500004.0, 0, -10, 4999997.0), "EPSG:32633")
    stack = open_stack(tmp_path / "s2", like=box)
    native = ((dn[0] - 1000.0) * 1e-4).astype(np.float32)
    native[scl == 9] = np.nan
    source = GeoBox((100, 120), Affine(10, 0, 500000.0, 0, -10, 5000000.0), "EPSG:32633")
    expected = pull(native, GridMap(box, source), (100, 120))
    np.testing.assert_array_equal(stack.blue[0], expected)
    assert np.isnan(stack.blue[0]).sum() >= 380


def test_a_mask_of_half_the_resolution_covers_its_pixels(tif, tmp_path):
    stem = "S2A_MSIL2A_20220301T100319_N0400_R122_T32TQM_20220301T121212"
    dn = np.full((40, 60), 3000, "uint16")
    scl = np.full((20, 30), 4, "uint8")
    scl[5, 7] = 8
    tif(tmp_path / f"{stem}_B04_10m.tif", dn, nodata=0, block=16)
    tif(tmp_path / f"{stem}_SCL_20m.tif", scl, res=20.0, block=16)
    stack = open_stack(tmp_path)
    missing = np.isnan(stack.red[0].values)
    assert missing.sum() == 4
    assert missing[10:12, 14:16].all()
    np.testing.assert_allclose(stack.red[0, 0, 0], 0.2, rtol=1e-6)
    assert int(stack.orbit[0]) == 122


def test_bands_in_separate_files_make_scenes(tif, tmp_path):
    for date in ("20200101", "20200117"):
        stem = f"LC08_L2SP_192030_{date}_20201231_02_T1"
        for band, value in (("SR_B4", 10000), ("SR_B5", 20000)):
            tif(tmp_path / f"{stem}_{band}.TIF", np.full((30, 40), value, "uint16"), res=30.0, block=16)
        qa = np.full((30, 40), 21824, "uint16")
        qa[0, :5] |= 1 << 3
        tif(tmp_path / f"{stem}_QA_PIXEL.TIF", qa, res=30.0, block=16)
        tif(tmp_path / f"{stem}_ST_B10.TIF", qa, res=30.0, block=16)
    stack = open_stack(tmp_path)
    assert list(stack) == ["red", "nir"]
    assert stack.sizes["time"] == 2
    assert str(stack.time.values[0])[:10] == "2020-01-01"
    np.testing.assert_allclose(stack.red[0, 5, 5], 10000 * 2.75e-5 - 0.2, rtol=1e-6)
    assert np.isnan(stack.red[0].values).sum() == 5


def test_one_grid_for_scenes_of_several(s2, tmp_path, caplog):
    caplog.set_level("INFO", logger="geoalign")
    s2("A", "2024-01-01")
    s2("B", "2024-01-02", x0=500300.0, y0=5000100.0, seed=1)
    s2("C", "2024-01-03", crs="EPSG:32632", x0=971100.0, y0=5018000.0, res=20.0, shape=(200, 200), seed=2)
    stack = open_stack(tmp_path / "s2")
    box = stack.odc.geobox
    assert box.crs == "EPSG:32633"
    assert box.resolution.x == 10
    assert box.affine.c % 10 == 0
    assert "3 scenes on 3 grids" in caplog.text
    one = open_stack(tmp_path / "s2" / "A.tif").compute()
    same = stack.isel(time=0).sel(x=one.x, y=one.y).compute()
    np.testing.assert_array_equal(same.blue, one.blue[0])  # whole-pixel moves keep every value
    assert np.isfinite(stack.blue[2].values).any()


def alignment_of(warps, box, reference):
    import pandas as pd

    rows = [[s, "aligned", 0, 0, 0, 0, 9, 0.07, 0, 0, 0, 0, 0, "phase", "shift", ""] for s in warps]
    rows.append(["bad", "rejected", 0, 0, 0, 0, 0, np.nan, 0, 0, 0, 0, 0, "phase", "shift", "all cloud"])
    return Alignment(reference, warps, pd.DataFrame(rows, columns=list(REPORT_COLUMNS)), box, tuple(box.shape))


def test_alignment_and_reprojection_are_one_resampling(s2, tmp_path):
    dn = s2("A", "2024-01-01")
    s2("bad", "2024-01-02", seed=1)
    s2("R", "2024-01-03", seed=2)
    box = GeoBox((60, 70), Affine(15, 0, 500020.0, 0, -15, 4999980.0), "EPSG:32633")
    warp = Shift(0.4, -0.7)
    stack = open_stack(tmp_path / "s2", alignment=alignment_of({"A": warp, "R": Shift()}, box, "R"))
    assert list(stack.scene.values) == ["A", "R"]
    np.testing.assert_allclose(stack.sigma_px, [0.07, 0.07])
    assert skipped(stack)[0]["reason"] == "no warp: all cloud"
    native = GeoBox((100, 120), Affine(10, 0, 500000.0, 0, -10, 5000000.0), "EPSG:32633")
    expected = pull(((dn[0] - 1000.0) * 1e-4).astype(np.float32), Chain((warp, GridMap(box, native))), (60, 70))
    np.testing.assert_array_equal(stack.blue[0], expected)


def test_time_and_bands_are_chosen(s2, tmp_path):
    for k in range(4):
        s2(f"S{k}", f"2024-0{k + 1}-15T10:00:00Z", seed=k)
    folder = tmp_path / "s2"
    assert open_stack(folder, time="2024-02").sizes["time"] == 1
    assert open_stack(folder, time="2024-02/2024-03").sizes["time"] == 2
    assert open_stack(folder, time=("2024-02-15", None)).sizes["time"] == 3
    assert list(open_stack(folder, bands=["nir"])) == ["nir"]
    with pytest.raises(NoUsableData, match="2030"):
        open_stack(folder, time="2030")
    with pytest.raises(StackError, match="swir1 is in no scene"):
        open_stack(folder, bands=["swir1"])
    with pytest.raises(ConfigError, match="understood"):
        open_stack(folder, time="soon")


def test_mixed_orbits_are_refused_and_one_can_be_chosen(sar, tmp_path):
    sar("A", "2024-01-01T05:00:00Z", orbit=44)
    sar("B", "2024-01-03T17:00:00Z", orbit=117)
    sar("C", "2024-01-13T05:00:00Z", orbit=44)
    with pytest.raises(StackError, match=r"44 \(2 scenes\), 117 \(1 scenes\).*orbit="):
        open_stack(tmp_path / "sar")
    stack = open_stack(tmp_path / "sar", orbit=44)
    assert list(stack.scene.values) == ["A", "C"]
    with pytest.raises(NoUsableData, match="no scene has relative orbit 9"):
        open_stack(tmp_path / "sar", orbit=9)


def test_sar_and_optical_do_not_mix(s2, sar, tmp_path):
    s2("A", "2024-01-01", folder=tmp_path / "all")
    sar("B", "2024-01-02", folder=tmp_path / "all")
    with pytest.raises(StackError, match="SAR and optical are mixed"):
        open_stack(tmp_path / "all")


def test_a_bad_scene_is_named_and_the_others_go_on(s2, tif, tmp_path, caplog):
    folder = tmp_path / "s2"
    s2("A", "2024-01-01")
    s2("B", "2024-01-02", seed=1)
    (folder / "empty_20240103.tif").write_bytes(b"")
    (folder / "page_20240104.tif").write_text("<!DOCTYPE html><html>error 503</html>")
    tif(folder / "nodate.tif", np.ones((20, 20), "float32"))
    s2("nocrs", "2024-01-05", crs=None)
    s2("far", "2024-01-06", x0=900000.0)
    whole = (folder / "B.tif").read_bytes()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    box = GeoBox((100, 120), Affine(10, 0, 500000.0, 0, -10, 5000000.0), "EPSG:32633")
    stack = open_stack(folder, like=box)
    assert list(stack.scene.values) == ["A", "B"]
    reasons = {r["path"].split("/")[-1]: r["reason"] for r in skipped(stack)}
    assert "0 bytes" in reasons["empty_20240103.tif"]
    assert "HTML" in reasons["page_20240104.tif"]
    assert "no acquisition date" in reasons["nodate.tif"]
    assert "no CRS" in reasons["nocrs.tif"]
    assert "no overlap" in reasons["far.tif"]
    assert "truncated" in reasons["cut.tif"]
    assert len(reasons) == 6
    assert "left out" in caplog.text
    with pytest.raises(StackError):
        open_stack(folder, like=box, strict=True)


def test_nothing_usable_says_why(tmp_path):
    with pytest.raises(NoUsableData, match="does not exist"):
        open_stack(tmp_path / "nowhere")
    with pytest.raises(NoUsableData, match="nothing matches"):
        open_stack(str(tmp_path / "*.tif"))
    with pytest.raises(NoUsableData, match="holds no GeoTIFF"):
        open_stack(tmp_path)
    (tmp_path / "a_20240101.tif").write_bytes(b"")
    (tmp_path / "b_20240102.tif").write_bytes(b"not a tiff")
    with pytest.raises(NoUsableData, match=r"0 bytes[\s\S]*not a TIFF"):
        open_stack(tmp_path)


def test_duplicates_are_left_out_and_neighbours_become_one_scene(s2, tmp_path):
    s2("A", "2024-01-01T10:00:00Z")
    s2("copy", "2024-01-01T10:00:00Z")
    stack = open_stack(tmp_path / "s2")
    assert list(stack.scene.values) == ["A"]
    assert "A.tif" in skipped(stack)[0]["reason"]
    assert "copy.tif" in skipped(stack)[0]["reason"]
    (tmp_path / "s2" / "copy.tif").unlink()
    s2("east", "2024-01-01T10:00:00Z", x0=501200.0, seed=4)
    stack = open_stack(tmp_path / "s2")
    assert stack.sizes["time"] == 1
    assert stack.sizes["x"] == 240
    assert np.isfinite(stack.blue.values).all()
    assert "mosaic of A, east" in applied(stack)[0]["notes"][-1]


def test_overlapping_tiles_of_one_datatake_are_a_mosaic(tif, tmp_path):
    for tile, x0, value in (("32TQM", 500000.0, 3000), ("32TRM", 500300.0, 4000)):
        name = f"S2A_MSIL2A_20220301T100319_N0400_R122_T{tile}_20220301T121212_B04.tif"
        tif(tmp_path / name, np.full((50, 50), value, "uint16"), x0=x0, nodata=0, block=16)
    stack = open_stack(tmp_path)
    assert list(stack.scene.values) == ["S2A_20220301T100319_R122"]
    np.testing.assert_allclose(stack.red[0, 10, [0, 40, 70]], [0.2, 0.2, 0.3], rtol=1e-6)


def test_an_older_baseline_of_the_same_tile_is_superseded(tif, tmp_path):
    for baseline, value in (("0301", 2000), ("0500", 3000)):
        name = f"S2A_MSIL2A_20210301T100319_N{baseline}_R122_T32TQM_20230301T121212_B04.tif"
        tif(tmp_path / name, np.full((50, 50), value, "uint16"), nodata=0, block=16)
    stack = open_stack(tmp_path)
    assert "N0500" in str(stack.scene.values[0])
    assert "superseded" in skipped(stack)[0]["reason"]


def test_a_missing_band_is_not_observed_there(tif, tmp_path):
    for k, names in enumerate((("vv", "vh"), ("vv", "vh"), ("vv",))):
        power = np.full((len(names), 20, 20), 0.1 + k, "float32")
        tif(tmp_path / f"s_2024010{k + 1}.tif", power, names=names, block=16)
    stack = open_stack(tmp_path)
    assert np.isnan(stack.vh[2].values).all()
    np.testing.assert_allclose(stack.vv[2], 2.1)
    assert "no vh: NaN" in applied(stack)[2]["notes"]


def test_south_up_and_rotated_files_land_where_they_belong(tif, tmp_path):
    rng = np.random.default_rng(0)
    power = rng.gamma(4, 0.02, (30, 40)).astype("float32")
    tif(tmp_path / "a_20240101_vv.tif", power, block=None)
    tif(tmp_path / "b_20240102_vv.tif", power[::-1], block=None, transform=Affine(10, 0, 500000.0, 0, 10, 4999700.0))
    tif(tmp_path / "c_20240103_vv.tif", power.T, block=None, transform=Affine(0, 10, 500000.0, -10, 0, 5000000.0))
    box = GeoBox((30, 40), Affine(10, 0, 500000.0, 0, -10, 5000000.0), "EPSG:32633")
    stack = open_stack(tmp_path, like=box)
    for k in range(3):
        np.testing.assert_allclose(stack.vv[k], power, rtol=1e-6)


def test_unreadable_block_raises_and_never_gives_zeros(sar, tmp_path):
    sar("A", "2024-01-01", shape=(1100, 1100))  # a smaller file is sampled whole, and refused at the door
    path = tmp_path / "sar" / "A.tif"
    raw = bytearray(path.read_bytes())
    raw[100_000:104_000] = b"\xff" * 4000
    path.write_bytes(bytes(raw))
    stack = open_stack(path)
    with pytest.raises(StackError, match=r"A\.tif can't be read"):
        stack.compute(scheduler="synchronous")


def test_a_file_replaced_after_opening_is_noticed(s2, tmp_path):
    s2("A", "2024-01-01")
    stack = open_stack(tmp_path / "s2")
    s2("A", "2024-01-01", seed=3)
    with pytest.raises(StackError, match="changed after it was opened"):
        stack.compute(scheduler="synchronous")
    (tmp_path / "s2" / "A.tif").unlink()
    with pytest.raises(StackError, match="can't be read any more"):
        stack.compute(scheduler="synchronous")


@pytest.mark.real
def test_spain_in_decibel_is_refused_as_power(real_data, tmp_path):
    (tmp_path / "spain_20190917_s1_db.tif").write_bytes((real_data / "flood/spain/s1_vv_vh_db.tif").read_bytes())
    with pytest.raises(NoUsableData, match=r"dB, and linear power is expected"):
        open_stack(tmp_path)
    stack = open_stack_with_units(tmp_path)
    assert 0.01 < float(stack.vv.median()) < 1.0


def open_stack_with_units(folder):
    (folder / "spain_20190917_s1_db.json").write_text('{"units": "dB", "datetime": "2019-09-17T06:00:00Z"}')
    return open_stack(folder).compute()


@pytest.mark.real
def test_real_sentinel2_pair_opens_on_one_grid(real_data):
    stack = open_stack(real_data / "registration/s2_pair")
    assert dict(stack.sizes) == {"time": 2, "y": 1200, "x": 1200}
    assert [str(t)[:10] for t in stack.time.values] == ["2016-05-29", "2016-06-08"]


def test_a_wrong_crs_tag_does_not_stretch_the_grid(s2, tmp_path):
    for k in range(3):
        s2(f"S{k}", f"2024-01-0{k + 1}", x0=500000.0 + 1200 * k, seed=k)  # neighbours that only touch
    s2("wrong", "2024-01-05", crs="EPSG:32632", seed=5)
    stack = open_stack(tmp_path / "s2")
    assert list(stack.scene.values) == ["S0", "S1", "S2"]
    assert "lies apart from the other 3 scenes" in skipped(stack)[0]["reason"]
    assert stack.sizes["x"] == 360


def test_bands_travel_to_workers(s2, tmp_path):
    import pickle

    s2("A", "2024-01-01")
    stack = open_stack(tmp_path / "s2")
    again = pickle.loads(pickle.dumps(stack))
    xr.testing.assert_identical(again.compute(), stack.compute())


def test_jpeg2000_band_files_of_a_safe_folder_open(tif, tmp_path):
    granule = tmp_path / "S2B_MSIL2A_20220301T100319_N0400_R122_T32TQM_20220301T121212.SAFE/GRANULE/L2A/IMG_DATA"
    rng = np.random.default_rng(0)
    red = rng.integers(1100, 3000, (64, 64)).astype("uint16")
    options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "block": None, "compress": None}
    for res, bands in (
        (10, {"B04": red}),
        (20, {"B04": red[::2, ::2], "SCL": np.full((32, 32), 4, "uint8")}),
    ):
        for band, values in bands.items():
            path = granule / f"R{res}m/T32TQM_20220301T100319_{band}_{res}m.jp2"
            try:
                tif(path, values, res=float(res), **options)
            except Exception as err:
                pytest.skip(f"this GDAL writes no JPEG 2000 ({err})")
    stack = open_stack(tmp_path)
    assert dict(stack.sizes) == {"time": 1, "y": 64, "x": 64}  # the finer of the two B04
    np.testing.assert_allclose(stack.red[0], (red - 1000.0) * 1e-4, rtol=1e-5)
    assert int(stack.orbit[0]) == 122


def test_scenes_of_another_crs_show_the_same_ground(tif, tmp_path):
    from pyproj import Transformer

    def ground(lon, lat):
        return (0.3 + 0.1 * np.sin(lon * 3000) * np.cos(lat * 2500)).astype("float32")

    def scene(name, crs, x0, y0, res):
        rows, cols = np.mgrid[0:120, 0:120]
        x, y = x0 + (cols + 0.5) * res, y0 - (rows + 0.5) * res
        lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
        tif(tmp_path / name, ground(lon, lat), names=("nir",), crs=crs, x0=x0, y0=y0, res=res)
        return lon, lat

    lon, lat = scene("a_20240101.tif", "EPSG:32633", 500000.0, 5000000.0, 10.0)
    scene("b_20240102.tif", "EPSG:32632", 971500.0, 5017700.0, 12.0)
    scene("c_20240103.tif", "EPSG:4326", 14.9995, 45.154, 0.0001)
    stack = open_stack(tmp_path, like=tmp_path / "a_20240101.tif").compute()
    expected = ground(lon, lat)
    for k in range(3):
        off = (stack.nir.values[k] - expected)[3:-3, 3:-3]
        seen = np.isfinite(off)
        assert seen.mean() > 0.5
        assert np.abs(off[seen]).max() < 0.004  # 4 % of the amplitude, at a wavelength of 16 px


def test_one_pixel_of_overlap_and_scenes_without_values_are_no_crash(s2, tif, tmp_path):
    s2("A", "2024-01-01")
    s2("edge", "2024-01-02", x0=501190.0, y0=4999010.0)
    s2("cloud", "2024-01-03", scl=np.full((100, 120), 9, "uint16"))
    empty = np.zeros((4, 100, 120), "uint16")
    tags = {"datetime": "2024-01-04", "scene": "empty", "sensor": "S2A", "product": "sentinel2-l2a"}
    tif(tmp_path / "s2" / "empty.tif", empty, names=("blue", "red", "nir", "scl"), nodata=0,
        tags=tags | {"processing_baseline": "05.10"})  # fmt: skip
    stack = open_stack(tmp_path / "s2", like=tmp_path / "s2" / "A.tif").compute()
    assert stack.red.notnull().sum(("y", "x")).values.tolist() == [12000, 1, 0, 0]


def test_a_stack_outlives_the_folder_it_was_opened_in(s2, tmp_path, monkeypatch):
    s2("A", "2024-01-01")
    monkeypatch.chdir(tmp_path)
    stack = open_stack("s2")
    monkeypatch.chdir("/")
    assert np.isfinite(stack.red.values).all()
