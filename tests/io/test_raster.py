"""Changes through files: nothing lost, valid COGs, and one pass over lazy layers."""

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from rio_cogeo import cog_validate

from geoalign import ConfigError, StateError, check_changes, chunked, polygons, read_changes, write_changes
from geoalign.types.changes import NOT_OBSERVABLE, STATUS, VARIABLES, WHY
from tests.handmade import changes_at, day, geobox, random_changes

SHAPE = (70, 90)


@pytest.fixture(scope="module")
def changes():
    out = random_changes(SHAPE, share=0.2, date_end=np.full(SHAPE, day("2024-12-01")))
    status = out.status.copy()
    status[:5, :5] = NOT_OBSERVABLE
    why = out.why.copy()
    why[:5, :5] = WHY["cloud"]
    out = out.assign(status=status, why=why)
    dates = np.full((2, *SHAPE), day("2024-02-03"))
    dates[1] = np.datetime64("NaT")
    out["break_date"] = ("break", "y", "x"), dates, {"long_name": "dates of all breaks"}
    out["break_magnitude"] = ("break", "y", "x"), np.ones((2, *SHAPE), np.float32)
    out["n_changes"] = ("y", "x"), np.ones(SHAPE, np.uint8)
    out["seen"] = ("y", "x"), np.eye(*SHAPE, dtype=bool)
    out["level"] = ("y", "x"), np.random.default_rng(0).normal(size=SHAPE)
    return out


@pytest.fixture(scope="module")
def written(changes, tmp_path_factory):
    return write_changes(changes, tmp_path_factory.mktemp("out"), polygons=lambda layers: polygons(layers))


def test_nothing_is_lost(changes, written):
    again = read_changes(written["status"].parent)
    assert all(isinstance(layer.data, da.Array) for layer in again.data_vars.values())
    check_changes(again)
    xr.testing.assert_identical(again.compute(), changes)
    assert again.odc.geobox == changes.odc.geobox


def test_reading_is_the_same_for_any_chunks(written):
    folder = written["status"].parent
    xr.testing.assert_identical(read_changes(folder, chunks=40).compute(), read_changes(folder, chunks=None))


@pytest.mark.parametrize("encoding", ["days", "yyyymmdd"])
def test_dates_come_back_to_the_day(changes, tmp_path, encoding):
    write_changes(changes, tmp_path, date_encoding=encoding)
    xr.testing.assert_identical(read_changes(tmp_path).compute(), changes)


def test_what_dates_look_like_in_the_file(tmp_path):
    changes = changes_at([[1, 0]], date="2024-05-17")
    for encoding, value, units in (
        ("days", 19860, "days since 1970-01-01"),
        ("yyyymmdd", 20240517, "date as the number yyyymmdd"),
        ("year", 2024, "calendar year"),
    ):
        path = write_changes(changes, tmp_path, date_encoding=encoding)["date"]
        with rasterio.open(path) as file:
            assert file.read(1).tolist() == [[value, 0]]
            assert (file.dtypes, file.nodata, file.units) == (("int32",), 0, (units,))
    assert read_changes(tmp_path).date.values[0, 0] == day("2024-01-01")
    with pytest.raises(ConfigError, match="yyyymmdd"):
        write_changes(changes, tmp_path, date_encoding="iso")


@pytest.mark.parametrize("date", ["1969-12-31", "1999-12-31", "2000-02-29", "2024-12-31", "2025-01-01"])
def test_awkward_days_survive(tmp_path, date):
    changes = changes_at([[1, 0]], date=date)
    for encoding in ("days", "yyyymmdd"):
        write_changes(changes, tmp_path, date_encoding=encoding)
        assert read_changes(tmp_path).date.values[0, 0] == day(date)


def test_every_layer_is_a_valid_cog_with_nodata_units_and_description(changes, written):
    for name in changes.data_vars:
        valid, errors, hints = cog_validate(written[name], strict=True)
        assert valid, (name, errors, hints)
        with rasterio.open(written[name]) as file:
            assert file.nodata is not None, name
            assert file.descriptions[0], name
            assert file.scales == (1.0,) * file.count
            assert file.offsets == (0.0,) * file.count
            assert file.crs.to_epsg() == 32633
    with rasterio.open(written["magnitude"]) as file:
        assert np.isnan(file.nodata)
        assert file.units == ("dB",)
    with rasterio.open(written["status"]) as file:
        assert file.nodata == NOT_OBSERVABLE
        assert file.read(1)[0, 0] == NOT_OBSERVABLE
        assert file.colormap(1)[3] == (215, 48, 31, 255)
    with rasterio.open(written["break_date"]) as file:
        assert file.count == 2


def test_overviews_of_codes_hold_codes_and_those_of_sizes_averages(tmp_path):
    shape = (1200, 1200)
    flag = np.zeros(shape)
    flag[:, ::2] = 1
    dates = np.where(np.arange(shape[1]) % 4 == 0, day("2020-01-01"), day("2024-01-01"))
    dates = np.broadcast_to(dates, shape)
    files = write_changes(changes_at(flag, date=dates), tmp_path)
    with rasterio.open(files["date"]) as file:
        assert file.overviews(1)
        small = file.read(1, out_shape=(300, 300))
        known = {0, *(int(d.astype("datetime64[D]").astype(int)) for d in np.unique(dates))}
        assert set(np.unique(small)) <= known
    with rasterio.open(files["status"]) as file:
        assert set(np.unique(file.read(1, out_shape=(300, 300)))) <= set(STATUS)
    valid, errors, hints = cog_validate(files["status"], strict=True)
    assert valid, (errors, hints)
    with rasterio.open(files["probability"]) as file:
        np.testing.assert_allclose(file.read(1, out_shape=(300, 300)), 0.45, rtol=1e-6)


def test_lazy_layers_give_the_same_files(changes, written, tmp_path):
    files = write_changes(changes.chunk(y=13, x=31), tmp_path, polygons=lambda layers: polygons(layers))
    assert set(files) == set(written)
    for name in changes.data_vars:
        assert files[name].read_bytes() == written[name].read_bytes(), name


def test_every_block_is_computed_once_and_statistics_too(tmp_path):
    calls = {"block": 0, "statistic": 0}

    def count(block, level):
        calls["block"] += 1
        return (block[:, 0] > level).astype(np.uint8), block[:, 0]

    def total(block):
        calls["statistic"] += 1
        return block.sum()

    values = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    source = xr.DataArray(da.from_array(values, chunks=(1, 20, 90)), dims=("time", "y", "x"))
    level = chunked.whole_image(total, lambda parts: sum(parts) / values.size, source, block=35)
    found = chunked.per_pixel(count, source, outputs={"n_changes": "uint8", "level": "float32"}, level=level)
    changes = changes_at(np.zeros(SHAPE), box=None).assign(found.data_vars)
    calls["block"] = calls["statistic"] = 0
    blocks = []
    for row0, block in chunked.row_blocks(changes, rows=30):
        blocks.append((row0, block.sizes["y"]))
    assert blocks == [(0, 40), (40, 30)]
    assert calls == {"block": 4, "statistic": 6}
    write_changes(changes, tmp_path)
    np.testing.assert_array_equal(read_changes(tmp_path).level.values, found.level.values)


def test_values_and_whole_statistics_of_blocks_are_those_of_the_whole():
    values = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    source = xr.DataArray(da.from_array(values, chunks=(1, 16, 23)), dims=("time", "y", "x"))
    level = chunked.whole_image(lambda b: b.sum(dtype=float), lambda parts: sum(parts), source, block=35)
    found = chunked.per_pixel(lambda b, s: b[:, 0] * s, source, outputs={"v": "float64"}, s=level)
    parts = [block for _, block in chunked.row_blocks(found, rows=20)]
    xr.testing.assert_identical(xr.concat(parts, "y"), found.compute())


def test_arrays_without_a_crs_come_back_without(tmp_path):
    changes = random_changes(box=None)
    write_changes(changes, tmp_path, polygons=polygons(changes))
    xr.testing.assert_identical(read_changes(tmp_path).compute(), changes)


@pytest.mark.parametrize("crs", ["EPSG:4326", "+proj=laea +lat_0=52 +lon_0=10 +datum=WGS84 +units=m"])
def test_other_crs_come_back(tmp_path, crs):
    box = geobox((6, 8), crs, 0.25, 10.0, 50.0)
    changes = random_changes((6, 8), box=box)
    write_changes(changes, tmp_path)
    again = read_changes(tmp_path).compute()
    assert again.odc.geobox.crs == box.crs
    assert again.odc.geobox.affine.almost_equals(box.affine)
    np.testing.assert_array_equal(again.date.values, changes.date.values)


def test_single_rows_and_single_pixels_can_be_written(tmp_path):
    for shape in ((1, 1), (1, 7), (600, 1)):
        changes = random_changes(shape, share=1.0)
        write_changes(changes, tmp_path, polygons=lambda layers: polygons(layers))
        np.testing.assert_array_equal(read_changes(tmp_path).status.values, changes.status.values)


def test_a_failed_write_changes_nothing(changes, tmp_path):
    files = write_changes(changes, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) >= {path.name for path in files.values()}

    def fail(layers):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_changes(changes, tmp_path, polygons=fail)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_names_can_not_leave_the_folder(tmp_path):
    folder = tmp_path / "deep" / "out"
    changes = changes_at(np.ones((2, 2)))
    changes["../../evil"] = changes.why
    files = write_changes(changes, folder)
    assert all(path.parent == folder for path in files.values())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]
    assert "../../evil" in read_changes(folder)


def test_layers_that_share_a_file_name_are_refused(tmp_path):
    changes = changes_at(np.ones((2, 2)))
    changes["Status"] = changes.why
    with pytest.raises(StateError, match=r"status\.tif"):
        write_changes(changes, tmp_path)


def test_layers_that_no_raster_holds_are_refused_before_anything_is_computed(tmp_path, no_compute):
    changes = changes_at(np.ones((2, 2))).chunk()
    changes["fit"] = ("y", "x", "order"), np.zeros((2, 2, 3))
    with no_compute(), pytest.raises(StateError, match="fit"):
        write_changes(changes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reading_says_what_is_missing(tmp_path, changes):
    with pytest.raises(StateError, match="status"):
        read_changes(tmp_path)
    files = write_changes(changes, tmp_path)
    files["why"].unlink()
    with pytest.raises(StateError, match="why missing"):
        read_changes(tmp_path)


def test_a_truncated_layer_is_named(tmp_path, changes):
    files = write_changes(changes, tmp_path)
    files["date"].write_bytes(files["date"].read_bytes()[:100])
    with pytest.raises(StateError, match=r"date\.tif"):
        read_changes(tmp_path)


def test_other_rasters_in_the_folder_are_left_alone(tmp_path, changes):
    write_changes(changes, tmp_path)
    with rasterio.open(tmp_path / "dem.tif", "w", driver="GTiff", height=3, width=3, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 3, 3), np.uint8))
    assert set(read_changes(tmp_path).data_vars) >= set(VARIABLES)


def test_nothing_changed_is_written_too(tmp_path):
    files = write_changes(changes_at(np.zeros((5, 5))), tmp_path, polygons=lambda layers: polygons(layers))
    assert (read_changes(tmp_path).status == 0).all()
    assert files["polygons"].is_file()


def test_inputs_are_not_changed(tmp_path):
    changes = random_changes()
    before = changes.copy(deep=True)
    write_changes(changes, tmp_path)
    xr.testing.assert_identical(changes, before)
