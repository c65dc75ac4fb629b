import struct

import numpy as np
import pytest
import rasterio

from geoalign.errors import StackError
from geoalign.io.tiff import check_tiff


def classic(entries, *, pad=64):
    """A little-endian TIFF with one directory of (tag, type, count, value)."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + table + struct.pack("<I", 0) + b"\0" * pad
    )


def header(width=64, height=64, *, samples=1, tile=(64, 64), more=()):
    base = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (277, 3, 1, samples)]
    return classic([*base, (322, 4, 1, tile[0]), (323, 4, 1, tile[1]), *more])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"<!doctype html><html></html>", "HTML"),
        (b"<VRTDataset rasterXSize='10'>", "VRT"),
        (b"\x89PNG\r\n\x1a\n", "not a TIFF"),
        (b"II*\0\xff\xff\0\0", "truncated"),
        (header(10**6, 10**6), "1000000 x 1000000"),
        (header(tile=(2**15, 2**15)), "blocks of 2048 MiB"),
        (header(tile=(2**30, 2**30)), "blocks of"),
        (header(samples=65529), "65529 bands"),
        (header(0, 5), "0 x 5"),
        (header(more=[(324, 4, 1, 1000), (325, 4, 1, 500)]), "truncated: 1 of 1"),
        (header(more=[(42112, 2, 500, 100)]), "truncated: its directory, or values"),
    ],
)
def test_what_no_scene_can_be_is_refused(tmp_path, content, message):
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(StackError, match=message) as err:
        check_tiff(path)
    assert "x.tif" in str(err.value)


@pytest.mark.parametrize(
    "options", [{}, {"block": None}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"SPARSE_OK": "TRUE"}]
)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 0.999])
def test_truncation_is_seen_wherever_the_file_was_cut(tif, tmp_path, options, share):
    data = np.random.default_rng(0).integers(0, 60000, (2, 200, 150)).astype("uint16")
    path = tif(tmp_path / "a.tif", data, **options)
    check_tiff(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(StackError, match=r"truncated|not a TIFF"):
        check_tiff(path)


def test_band_names_that_are_cut_off_make_no_file_without_names(tmp_path):
    """They may be written last: without them a scene would look as if it lacked its bands."""
    path = tmp_path / "x.tif"
    with rasterio.open(path, "w", driver="GTiff", width=16, height=16, count=2, dtype="uint8") as file:
        file.write(np.ones((2, 16, 16), "uint8"))
    with rasterio.open(path, "r+") as file:
        file.set_band_description(1, "red")
        file.set_band_description(2, "a name long enough to lie at the very end of it")
    check_tiff(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(StackError, match="truncated"):
        check_tiff(path)


def test_sparse_blocks_are_legal(tif, tmp_path):
    data = np.zeros((1, 256, 256), "uint16")
    data[0, :64, :64] = 7
    check_tiff(tif(tmp_path / "a.tif", data, SPARSE_OK="TRUE", nodata=0))


def test_a_file_that_may_not_be_read_is_a_scene_left_out_and_no_end_of_the_run(tif, tmp_path, monkeypatch):
    path = tif(tmp_path / "a.tif", np.ones((1, 64, 64), "uint16"))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StackError, match=r"a\.tif can't be read: Permission denied\. Check"):
        check_tiff(path)
