import resource
import time

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint

from geoalign.errors import StackError
from geoalign.io.geotiff import check_path, read_header, read_window, sample, validate_file


def test_header_says_what_the_file_is(tif, tmp_path):
    data = np.random.default_rng(0).integers(0, 9, (2, 100, 130)).astype("uint16")
    path = tif(tmp_path / "a.tif", data, names=("red", "nir"), nodata=0, scales=(1e-4, 1e-4), tags={"scene": "A"})
    head = read_header(path)
    assert head.geobox.crs == "EPSG:32633"
    assert head.shape == (100, 130)
    assert head.descriptions == ("red", "nir")
    assert head.block == (64, 64)
    assert head.tags["scene"] == "A"
    np.testing.assert_array_equal(read_window(str(path), 2, (10, 50), (90, 130)), data[1, 10:50, 90:])
    assert set(np.unique(sample(str(path), 1, head))) <= set(range(9))


def test_no_crs_is_never_guessed(tif, tmp_path):
    with pytest.raises(StackError, match="has no CRS, and none is guessed"):
        read_header(tif(tmp_path / "a.tif", np.ones((20, 20), "float32"), crs=None))


def test_grd_is_refused_with_its_reason(tmp_path):
    path = tmp_path / "s1a-iw-grd-vv.tif"
    points = [GroundControlPoint(r, c, 15 + c / 1e3, 45 - r / 1e3, 0) for r in (0, 19) for c in (0, 19)]
    with rasterio.open(path, "w", driver="GTiff", height=20, width=20, count=1, dtype="uint16") as dst:
        dst.write(np.ones((1, 20, 20), "uint16"))
        dst.gcps = (points, rasterio.CRS.from_epsg(4326))
    with pytest.raises(StackError, match=r"uncalibrated Sentinel-1 GRD.*RTC"):
        read_header(path)


def test_swapped_latitude_and_longitude_are_refused(tif, tmp_path):
    path = tif(tmp_path / "a.tif", np.ones((20, 20), "float32"), crs="EPSG:4326", x0=45.0, y0=145.0, res=0.001)
    with pytest.raises(StackError, match="swapped"):
        read_header(path)


def test_complex_values_are_refused(tif, tmp_path):
    with pytest.raises(StackError, match="complex"):
        read_header(tif(tmp_path / "a.tif", np.ones((20, 20), "complex64")))


@pytest.mark.parametrize(
    "path",
    [
        "/vsicurl/http://169.254.169.254/latest/meta-data",
        "/vsicurl?header_file=/etc/passwd&url=http://example.com/a.tif",
        "/vsizip/a.zip/a.tif",
        "NETCDF:a.nc:vv",
        "<VRTDataset></VRTDataset>",
        "file:///etc/passwd",
        "s3://bucket/a.tif",
        "a.vrt",
    ],
)
def test_gdals_own_notations_are_refused(path):
    with pytest.raises(StackError, match=r"refused|VRT"):
        check_path(path)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "169.254.169.254", "10.1.2.3", "[::1]", "2130706433", "0x7f000001"]
)
def test_addresses_of_this_machine_and_private_networks_are_refused(host):
    with pytest.raises(StackError, match=r"refused|not known"):
        check_path(f"http://{host}/a.tif")
    if host == "127.0.0.1":
        assert check_path("http://127.0.0.1:8000/a.tif", trusted_host="127.0.0.1:8000")


def test_a_signature_is_not_shown(tmp_path):
    with pytest.raises(StackError) as err:
        check_path("https://127.0.0.1/a.tif?sig=secret")
    assert "secret" not in str(err.value)


def test_a_vrt_named_tif_is_not_followed(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"root:x:0:0" * 100)
    path = tmp_path / "a.tif"
    path.write_text(
        '<VRTDataset rasterXSize="10" rasterYSize="10"><VRTRasterBand dataType="Byte" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{secret}</SourceFilename></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(StackError, match="VRT"):
        read_header(path)


def test_validate_finds_one_damaged_block(tif, tmp_path):
    data = np.random.default_rng(0).integers(0, 60000, (1, 512, 512)).astype("uint16")
    path = tif(tmp_path / "a.tif", data)
    assert validate_file(path) is None
    raw = bytearray(path.read_bytes())
    raw[200_000:200_200] = bytes(200)
    path.write_bytes(bytes(raw))
    read_header(path)
    with pytest.raises(StackError, match=r"a\.tif can't be read in band 1, rows \d+-\d+.*damaged"):
        validate_file(path)


def test_a_header_of_a_million_pixels_a_side_costs_nothing(tif, tmp_path):
    path = tif(tmp_path / "a.tif", np.ones((64, 64), "uint8"), block=None)
    raw = bytearray(path.read_bytes())
    for tag in (256, 257):  # width and height, type SHORT: make them LONG 10^6
        at = raw.index(tag.to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00")
        raw[at + 2 : at + 12] = (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + (10**6).to_bytes(4, "little")
    path.write_bytes(bytes(raw))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(StackError, match="1000000 x 1000000"):
        read_header(path)
    assert time.perf_counter() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_gdal_keeps_the_blocks_that_lines_are_read_from(tmp_path):
    # rasterio takes bytes where GDAL itself takes megabytes: 64 of them hold no block, and every line unpacks all
    from rasterio._env import get_gdal_config

    from geoalign.io.geotiff import gdal_env
    from geoalign.pipeline import _gdal

    for env in (gdal_env, _gdal):
        with env():
            assert 2**24 <= get_gdal_config("GDAL_CACHEMAX") <= 2**29
