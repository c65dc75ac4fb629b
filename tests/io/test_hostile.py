"""Input that means harm is refused before a file or a socket is touched, and before memory is taken."""

import ast
import builtins
import io
import json
import os
import pickle
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio

import geoalign
from geoalign import Alignment, open_stack, write_changes
from geoalign.errors import ConfigError, GeoalignError, NoUsableData, StackError
from geoalign.io import address
from geoalign.io.atomic import safe_name
from geoalign.io.geotiff import check_path, read_header
from geoalign.io.remote import Documents
from geoalign.io.tiff import FREE_BYTES, check_tiff
from geoalign.io.zarr import check_zarr
from tests.handmade import changes_at

ROOT = Path(geoalign.__file__).parent


@pytest.fixture
def untouched(monkeypatch):
    """Neither a file is opened, nor GDAL asked, nor a socket connected, nor a name resolved outside."""
    touched = []

    def refuse(what):
        def call(*args, **kwargs):
            touched.append((what, args[:1]))
            raise AssertionError(f"{what} was called with {args[:1]}")

        return call

    real = builtins.open

    def opened(file, *args, **kwargs):
        if not str(file).endswith((".py", ".pyc")):
            touched.append(("open", file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(rasterio, "open", refuse("rasterio.open"))
    monkeypatch.setattr("socket.socket.connect", refuse("connect"))
    monkeypatch.setattr("socket.create_connection", refuse("create_connection"))
    return touched


@pytest.mark.parametrize(
    "source",
    [
        "/vsicurl/http://169.254.169.254/latest/meta-data/",
        "/vsicurl?header_file=/etc/passwd&url=http://example.com/a.tif",
        "/vsizip//vsicurl/http://example.com/a.zip/a.tif",
        "/VSIS3/bucket/a.tif",
        "file:///etc/passwd",
        "ftp://example.com/a.tif",
        "s3://bucket/a.tif",
        "NETCDF:/etc/passwd:vv",
        'HDF5:"/etc/passwd"://x',
        "<VRTDataset><SourceFilename>/etc/passwd</SourceFilename></VRTDataset>",
        "a.vrt",
        "http://127.0.0.1/a.tif",
        "http://169.254.169.254/a.tif",
        "http://2130706433/a.tif",
        "http://0x7f.1/a.tif",
        "http://10.0.0.8/a.tif",
        "http://192.168.1.1/a.tif",
        "http://[::1]/a.tif",
        "http://[::ffff:169.254.169.254]/a.tif",
        "http://[64:ff9b::a9fe:a9fe]/a.tif",
    ],
)
def test_addresses_and_notations_that_reach_elsewhere_touch_nothing(source, untouched):
    with pytest.raises(StackError):
        read_header(source)
    with pytest.raises(GeoalignError):
        open_stack(source, time="2024")
    assert untouched == []


VRT = """<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1" {more}>
<SourceFilename relativetoVRT="0">{path}</SourceFilename></VRTRasterBand></VRTDataset>"""
PYTHON = """<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1"
subClass="VRTDerivedRasterBand"><PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionType>f
</PixelFunctionType><PixelFunctionCode><![CDATA[import pathlib
def f(*a, **k): pathlib.Path("{path}").touch()]]></PixelFunctionCode></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("name", ["a_20240101.tif", "a_20240101.jp2", "a_20240101.vrt"])
@pytest.mark.parametrize("text", [VRT.format(more='subClass="VRTRawRasterBand"', path="/etc/passwd"), VRT.format(
    more="", path="/vsicurl/http://169.254.169.254/x.tif"), PYTHON])  # fmt: skip
def test_a_vrt_in_whatever_disguise_reads_nothing_and_runs_nothing(tmp_path, monkeypatch, name, text):
    canary = tmp_path / "canary"
    (tmp_path / name).write_text(text.replace("{path}", str(canary)))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a socket was connected"))
    with pytest.raises(GeoalignError):
        open_stack(tmp_path / name)
    assert not canary.exists()


def tiff(entries, body=b""):
    """A little-endian TIFF of one directory; entries (tag, type, count, value or bytes laid after the directory)."""
    head = 8 + 2 + 12 * len(entries) + 4
    table, data = b"", b""
    for tag, kind, count, value in entries:
        if isinstance(value, bytes):
            table += struct.pack("<HHII", tag, kind, count, head + len(data))
            data += value
        else:
            table += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + data + body


def test_a_header_that_claims_the_world_costs_neither_memory_nor_time(tmp_path):
    base = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 16), (277, 3, 1, 1), (322, 4, 1, 64), (323, 4, 1, 64)]
    claims = {
        "pixels": {256: 10**6, 257: 10**6},
        "tile": {322: 2**30, 323: 2**30},
        "tile_row": {322: 2**30, 323: 1},
        "bands": {277: 65529},
        "bits": {258: 65528},
    }
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for name, claim in claims.items():
        path = tmp_path / f"{name}_20240101.tif"
        path.write_bytes(tiff([(t, k, n, claim.get(t, v)) for t, k, n, v in base]))
        with pytest.raises(StackError, match=rf"{name}_20240101\.tif"):
            read_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert time.process_time() - start < 2


def bomb(path, size, tile=2048):
    """A deflate bomb: every tile of a large image is the same kilobyte of packed zeros."""
    packed = zlib.compress(bytes(tile * tile), 9)
    n = (size // tile) ** 2
    entries = [(256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 8), (259, 3, 1, 8), (277, 3, 1, 1)]
    entries += [(322, 4, 1, tile), (323, 4, 1, tile)]
    head = 8 + 2 + 12 * (len(entries) + 2) + 4
    place = head + 8 * n
    entries += [
        (324, 4, n, struct.pack(f"<{n}I", *[place] * n)),
        (325, 4, n, struct.pack(f"<{n}I", *[len(packed)] * n)),
    ]
    path.write_bytes(tiff(entries, packed))
    return path


def test_a_decompression_bomb_is_refused_by_its_ratio_before_it_is_unpacked(tmp_path, untouched):
    path = bomb(tmp_path / "bomb_20240101.tif", 40960)
    assert path.stat().st_size < 20_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    untouched.clear()
    with pytest.raises(StackError, match=r"unpack its \d+ bytes to 1\.6 GiB.*bomb"):
        read_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert untouched == [("open", str(path))]


def test_an_empty_scene_of_everyday_size_is_no_bomb(tif, tmp_path):
    path = tif(tmp_path / "a.tif", np.zeros((1, 4096, 4096), "uint16"), block=512, compress="zstd")
    check_tiff(path)
    assert path.stat().st_size * 1100 < 4096 * 4096 * 2 < FREE_BYTES
    check_tiff(bomb(tmp_path / "b.tif", 2048 * 4))


class Evil:
    """An object whose unpickling creates a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mknod, (str(self.canary),))


def test_pickles_are_not_opened_whatever_they_are_called(tmp_path):
    canary = tmp_path / "canary"
    evil = pickle.dumps(Evil(canary))
    array = np.empty(1, object)
    array[0] = Evil(canary)
    np.save(tmp_path / "a_20240101.npy", array, allow_pickle=True)
    for name in ("a_20240101.pkl", "a_20240101.tif", "a_20240101.nc", "a_20240101.json", "a_20240101.npy"):
        path = tmp_path / name
        if path.suffix != ".npy":
            path.write_bytes(evil)
        with pytest.raises(GeoalignError):
            open_stack(path)
        with pytest.raises(GeoalignError):
            Alignment.load(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "array",
    [
        {"dtype": "|O", "filters": [{"id": "pickle"}]},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
        {"dtype": "|O", "filters": [{"id": "json2"}]},
        {"dtype": "<f4", "filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"}},
    ],
)
def test_a_store_that_could_run_code_is_refused_from_its_metadata_alone(tmp_path, monkeypatch, array):
    base = {"zarr_format": 2, "shape": [1], "chunks": [1], "compressor": None, "fill_value": None, "order": "C"}
    (tmp_path / "a.zarr" / "vv").mkdir(parents=True)
    (tmp_path / "a.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "a.zarr" / "vv" / ".zarray").write_text(json.dumps(base | {"filters": None} | array))
    canary = tmp_path / "canary"
    (tmp_path / "a.zarr" / "vv" / "0").write_bytes(pickle.dumps(Evil(canary)))
    monkeypatch.setattr("xarray.open_dataset", lambda *a, **k: pytest.fail("the store was opened"))
    with pytest.raises(StackError, match="could run code"):
        check_zarr(tmp_path / "a.zarr")
    with pytest.raises(NoUsableData, match="could run code"):
        open_stack(tmp_path / "a.zarr")
    assert not canary.exists()


FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "torch", "xml", "lxml",
             "telnetlib", "ftplib", "tarfile", "zipfile"}  # fmt: skip


def test_nothing_in_the_package_can_unpickle_unpack_parse_xml_run_text_or_start_a_shell():
    """So there is no pickle, archive, XML or weights file that could do harm: nothing here reads any."""
    found = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [f"{path.name}: import {n}" for n in names if n.split(".")[0] in FORBIDDEN]
            if isinstance(node, ast.Call):
                call = node.func
                name = call.id if isinstance(call, ast.Name) else call.attr if isinstance(call, ast.Attribute) else ""
                words = {k.arg: k.value for k in node.keywords}
                bare = isinstance(call, ast.Name)
                if bare and name in ("eval", "exec", "compile", "__import__"):
                    found.append(f"{path.name}: {name}()")
                if name in ("system", "popen", "urlretrieve", "fromstring", "iterparse") or "shell" in words:
                    found.append(f"{path.name}: {name}")
                if "allow_pickle" in words and getattr(words["allow_pickle"], "value", True) is not False:
                    found.append(f"{path.name}: allow_pickle")
    allowed = {"style.py: import xml.etree.ElementTree", "style.py: import xml.sax.saxutils"}  # writes, parses nothing
    assert set(found) <= allowed


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", ".hidden", "a\0b", "a\nb", "C:\\x", "~root", "a b;rm"],
)
def test_names_from_outside_stay_where_they_belong(tif, tmp_path, name):
    tif(tmp_path / "in" / "a.tif", np.full((1, 20, 20), 0.2, "float32"), names=("vv",), block=16,
        tags={"datetime": "2024-01-01T00:00:00Z", "scene": name.replace("\0", "_")})  # fmt: skip
    scene = str(open_stack(tmp_path / "in").scene.values[0])
    for text in (scene, safe_name(name)):
        assert "/" not in text
        assert "\\" not in text
        assert text not in ("..", ".", "")
        assert (tmp_path / text).resolve().parent == tmp_path.resolve()


def test_layers_with_names_that_lead_elsewhere_stay_in_their_folder(tmp_path):
    changes = changes_at(np.ones((20, 20), bool))
    changes["../../evil"] = changes.magnitude
    write_changes(changes, tmp_path / "a" / "b" / "out")
    written = list(tmp_path.rglob("*evil*"))
    assert written
    assert {p.parent for p in written} == {tmp_path / "a" / "b" / "out"}


def test_a_catalogue_that_turns_inside_between_two_lookups_is_not_followed(monkeypatch):
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    opened = []
    monkeypatch.setattr(address.socket, "getaddrinfo", lambda *a, **k: [(2, 1, 6, "", (next(answers), 443))])
    monkeypatch.setattr(address.socket, "create_connection", lambda *a, **k: opened.append(a) or pytest.fail("opened"))
    with pytest.raises(StackError, match="private network"):
        Documents("https://other.example/catalog.json").read_text("https://rebinding.example/item.json")
    assert opened == []


def test_a_catalogue_that_redirects_to_the_inside_is_not_followed(monkeypatch):
    asked = []

    class Line:
        sock = None

        def set_debuglevel(self, level): ...

        def request(self, method, selector, *args, **kwargs):
            asked.append(selector)

        def getresponse(self):
            from http.client import HTTPResponse

            class Socket:
                def makefile(self, mode):
                    return io.BytesIO(
                        b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\n"
                        b"Content-Length: 0\r\n\r\n"
                    )

            answer = HTTPResponse(Socket())
            answer.begin()
            return answer

        def close(self): ...

    monkeypatch.setattr(address, "connection", lambda *a, **k: Line())
    monkeypatch.setattr(
        address.socket, "getaddrinfo",
        lambda host, *a, **k: [(2, 1, 6, "", ("93.184.216.34" if "example" in host else host, 443))],
    )  # fmt: skip
    with pytest.raises(StackError, match=r"169\.254\.169\.254.*refused"):
        Documents("https://public.example/catalog.json").read_text("https://public.example/item.json")
    assert asked == ["/item.json"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.8/x.tif\r\nContent-Length: 0\r\n\r\n", "private network"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", "not allowed"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + tiff([(256, 4, 1, 10**6), (257, 4, 1, 10**6)]), "1000000 x 1000000"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + tiff([(256, 4, 1, 9), (257, 4, 1, 9), (277, 3, 1, 65529)]), "65529 bands"),
        (b"HTTP/1.1 200 OK\r\n\r\n<VRTDataset>", "VRT"),
    ],
)
def test_a_remote_raster_that_redirects_inside_or_claims_the_world_never_reaches_gdal(monkeypatch, answer, words):
    class Socket:
        def makefile(self, *args, **kwargs):
            return io.BytesIO(answer)

        def sendall(self, data): ...
        def close(self): ...
        def settimeout(self, value): ...

    def lookup(host, *args, **kwargs):
        return [(2, 1, 6, "", ("93.184.216.34" if "example" in host else host, 80))]

    monkeypatch.setattr(address.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(address.socket, "create_connection", lambda *a, **k: Socket())
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: pytest.fail("GDAL was asked"))
    with pytest.raises(StackError, match=words):
        read_header("http://public.example/a.tif")


def test_public_addresses_are_told_from_the_inside_in_every_spelling():
    inside = ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
              "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "224.0.0.1",
              "ff02::1")  # fmt: skip
    assert not any(address.is_public(a) for a in inside)
    assert all(address.is_public(a) for a in ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"))


def test_a_path_may_not_be_what_a_shell_or_a_driver_would_read_into_it(untouched):
    for text in ("PG:dbname=x", "WMS:http://a", "GPKG:a.gpkg:t", "zip://a.zip", "\\\\?\\UNC\\host\\share://x"):
        with pytest.raises(StackError):
            check_path(text)
    assert untouched == []


def test_a_site_file_is_data_and_an_alignment_too(tmp_path):
    from geoalign.config import parse_config

    with pytest.raises(ConfigError):
        parse_config('name = !!python/object/apply:os.system ["touch canary"]', folder=tmp_path)
    (tmp_path / "alignment.json").write_text('{"__class__": "os.system", "args": ["touch canary"]}')
    with pytest.raises(GeoalignError):
        Alignment.load(tmp_path / "alignment.json")
