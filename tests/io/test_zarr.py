import json

import dask
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import new_stack, open_stack
from geoalign.errors import NoUsableData, StackError
from geoalign.io.zarr import _chunks, check_zarr, write_stack

BOX = GeoBox((70, 90), Affine(10, 0, 500000.0, 0, -10, 5000000.0), "EPSG:32633")


@pytest.fixture
def stack():
    rng = np.random.default_rng(0)
    values = rng.gamma(4, 0.02, (5, 70, 90)).astype(np.float32)
    values[1, :10] = np.nan
    times = np.datetime64("2024-01-01T05:12:13.123456", "ns") + np.arange(5) * np.timedelta64(12, "D")
    out = new_stack({"vv": values, "vh": values / 4}, times, geobox=BOX, sensor="S1A", orbit=44)
    out.vv.attrs["enl"] = 4.4
    return out.assign_coords(sigma_px=("time", np.linspace(0, 0.2, 5)))


def test_a_stack_comes_back_as_it_was(stack, tmp_path):
    path = write_stack(stack.chunk({"time": 1, "y": 33, "x": 41}), tmp_path / "s.zarr", chunks=(1, 32, 32))
    back = open_stack(path)
    assert back.odc.geobox == BOX
    for name in ("vv", "vh"):
        np.testing.assert_array_equal(back[name], stack[name])
    for name in ("time", "scene", "sensor", "orbit"):
        np.testing.assert_array_equal(back[name], stack[name])
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_writing_never_replaces_silently(stack, tmp_path):
    path = write_stack(stack, tmp_path / "s.zarr")
    with pytest.raises(StackError, match="exists already"):
        write_stack(stack, path)
    write_stack(stack * 2, path, overwrite=True)
    np.testing.assert_array_equal(open_stack(path).vv, stack.vv * 2)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_a_failed_write_leaves_nothing(stack, tmp_path):
    def fail(block):
        raise RuntimeError("no more")

    broken = stack.chunk({"time": 1}).copy()
    broken["vv"] = broken.vv.copy(data=broken.vv.data.map_blocks(fail, dtype="f4", meta=np.empty((0, 0, 0), "f4")))
    with pytest.raises(RuntimeError, match="no more"), dask.config.set(scheduler="synchronous"):
        write_stack(broken, tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_store_opens_lazily_on_another_grid(stack, tmp_path, no_compute):
    path = write_stack(stack, tmp_path / "s.zarr")
    other = GeoBox((30, 40), Affine(20, 0, 500100.0, 0, -20, 4999900.0), "EPSG:32633")
    with no_compute():
        lazy = open_stack(path, like=other, time="2024-01-01/2024-01-20")
    assert lazy.sizes["time"] == 2
    assert np.isfinite(lazy.vv[0].values).all()


def netcdf(path, **changes):
    rng = np.random.default_rng(0)
    shape = (3, 40, 50)
    dn = rng.integers(1100, 3000, shape).astype("int16")
    scl = np.full(shape, 4, "int8")
    scl[1, :5] = 9
    data = xr.Dataset(
        {"B4": (("time", "y", "x"), dn, {"_FillValue": np.int16(-32768)}), "SCL": (("time", "y", "x"), scl)},
        coords={
            "time": np.array(["2024-01-01", "2024-01-06", "2024-01-11"], "datetime64[ns]"),
            "y": 5000000.0 - 10 * np.arange(40) - 5,
            "x": 500000.0 + 10 * np.arange(50) + 5,
        },
        attrs={"product": "sentinel2-l2a", "processing_baseline": "05.10", "sensor": "S2A"},
    ).odc.assign_crs("EPSG:32633")
    data = changes.pop("edit", lambda d: d)(data)
    data.to_netcdf(path)
    return dn


def test_netcdf_is_calibrated_and_masked_like_files(tmp_path, no_compute):
    dn = netcdf(tmp_path / "a.nc")
    with no_compute():
        stack = open_stack(tmp_path / "a.nc")
    assert list(stack) == ["red"]
    assert np.isnan(stack.red.values).sum() == 250
    np.testing.assert_allclose(stack.red[0], (dn[0] - 1000.0) * 1e-4, rtol=1e-6)
    assert json.loads(stack.attrs["applied"])[2]["mask"].startswith("SCL")
    assert stack.sensor.values.tolist() == ["S2A"] * 3


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.drop_vars("spatial_ref"), "no CRS"),
        (lambda d: d.drop_vars("x"), "no x and y"),
        (lambda d: d.assign_coords(x=np.sqrt(d.x.values - 490000)), "not regular"),
        (lambda d: d.assign_coords(time=[1, 2, 3]), "not dates"),
        (lambda d: d[["spatial_ref"]].assign(note=("time", [1, 2, 3])), "no variable with dimensions"),
    ],
)
def test_netcdf_that_is_no_stack_is_refused(tmp_path, edit, message):
    netcdf(tmp_path / "a.nc", edit=edit)
    with pytest.raises(NoUsableData, match=message):
        open_stack(tmp_path / "a.nc")


def test_damaged_netcdf_is_refused(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"")
    (tmp_path / "b.nc").write_text("<html>")
    netcdf(tmp_path / "c.nc")
    whole = (tmp_path / "c.nc").read_bytes()
    (tmp_path / "c.nc").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(NoUsableData, match=r"0 bytes[\s\S]*neither a raster nor NetCDF[\s\S]*can't be opened"):
        open_stack(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "dtype": "|O"},
        {"filters": None, "dtype": "|O"},
        {"filters": [{"id": "mypackage.codec"}]},
        {"chunks": [10**9, 10, 10]},
    ],
)
def test_stores_that_could_run_code_are_refused_before_they_are_read(stack, tmp_path, change):
    path = write_stack(stack, tmp_path / "s.zarr")
    place = path / "vv" / ".zarray"
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    (path / ".zmetadata").unlink()
    with pytest.raises(NoUsableData, match=r"could run code|chunks of"):
        open_stack(path)


def test_zarr_format_3_codecs_are_checked_too(stack, tmp_path):
    stack.drop_vars(["scene", "sensor"]).to_zarr(tmp_path / "s.zarr", zarr_format=3)
    check_zarr(tmp_path / "s.zarr")
    place = tmp_path / "s.zarr" / "vv" / "zarr.json"
    document = json.loads(place.read_text())
    document["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    place.write_text(json.dumps(document))
    with pytest.raises(StackError, match="pickle could run code"):
        check_zarr(tmp_path / "s.zarr")


@pytest.mark.real
def test_real_series_open(real_data):
    folder = real_data / "series"
    stack = open_stack(folder / "romania/s2_romania_10m.nc", product="sentinel2-l2a@02.14")
    assert dict(stack.sizes) == {"time": 140, "y": 100, "x": 100}
    assert 0.0 < float(np.nanmedian(stack.red)) < 0.2
    with pytest.raises(NoUsableData, match="digital numbers with no known scale"):
        open_stack(folder / "romania/s2_romania_10m.nc")
    sar = open_stack(folder / "s1_png/rtc_vh_raw.nc")
    assert 0.01 < float(np.nanmedian(sar.vh)) < 0.1
    assert 0.6 < float(sar.vh.isnull().mean()) < 0.7
    ndvi = open_stack(folder / "tura_ndvi.nc")
    assert -0.2 < float(ndvi.ndvi.min()) < float(ndvi.ndvi.max()) < 1.2


def test_files_are_read_in_whole_chunks_of_theirs(tmp_path):
    shape = (6, 300, 400)
    cube = xr.Dataset({"a": (("time", "y", "x"), np.zeros(shape, "float32"))})
    cube.to_netcdf(tmp_path / "plain.nc")
    with xr.open_dataset(tmp_path / "plain.nc") as data:
        assert _chunks(data) == {"time": 1, "y": 1024, "x": 1024}
    cube.to_netcdf(tmp_path / "tiled.nc", encoding={"a": {"chunksizes": (6, 50, 60)}})
    with xr.open_dataset(tmp_path / "tiled.nc") as data:
        assert _chunks(data) == {"time": 6, "y": 800, "x": 780}
    cube.chunk({"time": 2, "y": 100, "x": 100}).to_zarr(tmp_path / "a.zarr")
    with xr.open_dataset(tmp_path / "a.zarr", engine="zarr") as data:
        assert _chunks(data) == {"time": 2, "y": 1000, "x": 1000}


def test_a_damaged_chunk_is_an_error_of_its_scene_only(stack, tmp_path):
    path = write_stack(stack, tmp_path / "s.zarr")
    chunk = path / "vv" / "3.0.0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    back = open_stack(path)
    np.testing.assert_array_equal(back.vv[2], stack.vv[2])
    with pytest.raises(StackError, match=r"s\.zarr can't be read in variable vv: the file is damaged"):
        back.vv[3].compute()
