import json
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pystac
import pytest
from shapely.geometry import box, mapping

from geoalign import open_stack
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.io.remote import Documents
from geoalign.io.stac import asset_bands

BBOX = [15.0, 45.14, 15.016, 45.154]
AREA = mapping(box(*BBOX))


def item_of(k, folder, tif, *, version="1.0", properties=None, seed=None, crs_code=32633):
    """A Sentinel-2 item with red, nir and scl assets beside it; returns the item and its stored red."""
    rng = np.random.default_rng(k if seed is None else seed)
    red = rng.integers(1100, 4000, (64, 80)).astype("uint16")
    scl = np.full((32, 40), 4, "uint8")
    scl[3, 4] = 9
    name = f"S2A_32TQM_2024010{k + 1}_0_L2A"
    tif(folder / name / "B04.tif", red, nodata=0, block=16)
    tif(folder / name / "B08.tif", red // 2 + 1000, nodata=0, block=16)
    tif(folder / name / "SCL.tif", scl, res=20.0, nodata=0, block=16)
    base = {"platform": "sentinel-2a", "s2:processing_baseline": "05.10", "sat:relative_orbit": 122}
    base |= {"proj:epsg": crs_code} if version == "1.0" else {"proj:code": f"EPSG:{crs_code}"}
    item = pystac.Item(name, AREA, BBOX, datetime(2024, 1, 1 + k, 10, tzinfo=UTC), base | (properties or {}))
    item.collection_id = "sentinel-2-l2a"
    for key, file, common in (("red", "B04.tif", "red"), ("nir", "B08.tif", "nir"), ("scl", "SCL.tif", None)):
        fields = {}
        if common and version == "1.0":
            fields = {"eo:bands": [{"name": file[:3], "common_name": common}],
                      "raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0}]}  # fmt: skip
        elif common:
            fields = {"bands": [{"name": file[:3], "eo:common_name": common, "raster:scale": 1e-4,
                                 "raster:offset": -0.1, "nodata": 0}]}  # fmt: skip
        asset = pystac.Asset(f"./{file}", media_type=pystac.MediaType.COG, roles=["data"], extra_fields=fields)
        item.add_asset(key, asset)
    item.add_asset("thumbnail", pystac.Asset("./thumb.jpg", media_type="image/jpeg", roles=["thumbnail"]))
    item.set_self_href(str(folder / name / f"{name}.json"))
    return item, red


@pytest.fixture(params=["1.0", "1.1"])
def catalogue(request, tmp_path, tif):
    """A local catalogue of three items; its path and the stored red of each."""
    folder = tmp_path / "catalogue"
    catalog = pystac.Catalog("c", "three scenes")
    reds = []
    for k in range(3):
        item, red = item_of(k, folder, tif, version=request.param)
        catalog.add_item(item)
        reds.append(red)
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    for path in folder.rglob("*.json"):
        text = json.loads(path.read_text())
        if text["type"] == "Feature":
            text["stac_version"] = f"{request.param}.0"
            path.write_text(json.dumps(text))
    return folder / "catalog.json", reds


def check(stack, reds):
    assert set(stack) == {"red", "nir"}
    assert stack.sensor.values.tolist() == ["S2A"] * len(reds)
    assert stack.orbit.values.tolist() == [122] * len(reds)
    for k, red in enumerate(reds):
        expected = ((red - 1000.0) * 1e-4).astype(np.float32)
        expected[6:8, 8:10] = np.nan
        np.testing.assert_allclose(stack.red[k], expected, rtol=1e-6)


def test_a_local_catalogue_opens(catalogue, no_compute):
    path, reds = catalogue
    with no_compute():
        stack = open_stack(path)
    check(stack, reds)
    assert json.loads(stack.attrs["applied"])[0]["offset"] == -0.1
    check(open_stack(path.parent), reds)  # the folder that holds it
    check(open_stack(pystac.Catalog.from_file(str(path))), reds)


def test_time_and_bbox_leave_items_unopened(catalogue):
    path, reds = catalogue
    for file in path.parent.glob("S2A_32TQM_20240103*/*.tif"):
        file.unlink()
    check(open_stack(path, time="2024-01-01/2024-01-02", strict=True), reds[:2])
    stack = open_stack(path)
    assert stack.sizes["time"] == 2
    assert "does not exist" in json.loads(stack.attrs["skipped"])[0]["reason"]
    with pytest.raises(NoUsableData, match="no scene was found"):
        open_stack(path, bbox=(20, 40, 21, 41))


def test_assets_that_are_not_wanted_stay_closed(catalogue):
    path, reds = catalogue
    for file in path.parent.rglob("B08.tif"):
        file.unlink()
    stack = open_stack(path, bands=["red"])
    assert list(stack) == ["red"]
    assert np.isnan(stack.red.values).sum() == 4 * len(reds)  # the mask is opened all the same


def test_of_several_copies_of_a_band_the_best_is_read(tmp_path, tif):
    item, red = item_of(0, tmp_path, tif)
    copies = {"red-jp2": "s3://bucket/B04.jp2", "B04_20m": "./B04_20m.tif", "B04_60m": "./B04_60m.tif"}
    for key, href in copies.items():  # Earth Search lists JPEG 2000 copies, Copernicus every resolution
        fields = {"eo:bands": [{"name": "B04", "common_name": "red"}]}
        item.add_asset(key, pystac.Asset(href, media_type="image/jp2", roles=["data"], extra_fields=fields))
    item.assets = dict(reversed(item.assets.items()))
    check(open_stack([item]), [red])


def test_items_and_collections_of_items_open(tmp_path, tif):
    items, reds = zip(*(item_of(k, tmp_path, tif) for k in range(2)))
    check(open_stack(list(items)), reds)
    check(open_stack(pystac.ItemCollection(items)), reds)
    for item in items:
        item.make_asset_hrefs_absolute()
    path = tmp_path / "items.json"
    path.write_text(json.dumps(pystac.ItemCollection(items).to_dict()))
    check(open_stack(path), reds)
    items[0].save_object()
    check(open_stack(items[0].get_self_href()), reds[:1])


@pytest.mark.parametrize(("flag", "offset"), [(True, 0.0), (False, -0.1)])
def test_earth_search_says_whether_the_offset_is_in_the_values(tmp_path, tif, flag, offset):
    item, red = item_of(0, tmp_path, tif, properties={"earthsearch:boa_offset_applied": flag})
    stack = open_stack([item])
    assert json.loads(stack.attrs["applied"])[0]["offset"] == offset
    np.testing.assert_allclose(stack.red[0, 0, 0], red[0, 0] * 1e-4 + offset, rtol=1e-5)


def test_a_crs_that_its_item_denies_is_refused(tmp_path, tif):
    item, _ = item_of(0, tmp_path, tif, crs_code=32632)
    with pytest.raises(NoUsableData, match=r"EPSG:32633, but its item says EPSG:32632"):
        open_stack([item])


def test_bands_of_both_versions_read_the_same():
    old = {"eo:bands": [{"name": "B04", "common_name": "red"}], "raster:bands": [{"scale": 1e-4, "offset": -0.1}]}
    new = {"bands": [{"name": "B04", "eo:common_name": "red", "raster:scale": 1e-4, "raster:offset": -0.1}]}
    expected = [{"name": "B04", "common_name": "red", "scale": 1e-4, "offset": -0.1}]
    assert [asset_bands(pystac.Asset("a.tif", extra_fields=f)) for f in (old, new)] == [expected] * 2
    assert asset_bands(pystac.Asset("a.tif")) == [{}]


def test_what_is_no_stac_says_so(tmp_path):
    (tmp_path / "a.json").write_text('{"type": "Topology"}')
    (tmp_path / "b.json").write_text("{")
    for name, message in (("a.json", "no STAC document"), ("b.json", "can't be read as STAC")):
        with pytest.raises(NoUsableData, match=message):
            open_stack(tmp_path / name)
    with pytest.raises(ConfigError, match="is unknown; give a path"):
        open_stack(42)


def test_a_missing_client_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'geoalign\[stac\]'"):
        open_stack({"api": "https://example.com", "collections": ["sentinel-2-l2a"]})


class Api(SimpleHTTPRequestHandler):
    """The least of a STAC API that a client can search, and the files beside it."""

    items: list = []
    fail = 0

    def _send(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/geo+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        root = f"http://{self.headers['Host']}"
        if self.path.rstrip("/") in ("", "/api"):
            links = [{"rel": "self", "href": f"{root}/api"}, {"rel": "root", "href": f"{root}/api"},
             {"rel": "search", "href": f"{root}/api/search", "method": "POST", "type": "application/json"}]  # fmt: skip
            conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
            self._send({"type": "Catalog", "id": "api", "description": "-", "stac_version": "1.0.0", "links": links,
                        "conformsTo": conforms})  # fmt: skip
        else:
            super().do_GET()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["collections"] == ["sentinel-2-l2a"]
        first, last = (t.replace("Z", "+00:00") for t in asked["datetime"].split("/"))
        span = [datetime.fromisoformat(t) for t in (first, last)]
        found = [i for i in self.items if span[0] <= datetime.fromisoformat(i["properties"]["datetime"]) <= span[1]]
        self._send({"type": "FeatureCollection", "features": found, "links": []})

    def log_message(self, *args):
        pass


@pytest.fixture
def api(tmp_path, tif):
    pytest.importorskip("pystac_client")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Api, directory=str(tmp_path)))
    root = f"http://127.0.0.1:{server.server_port}"
    items, reds = zip(*(item_of(k, tmp_path, tif) for k in range(3)))
    for item in items:
        for asset in item.assets.values():
            asset.href = f"{root}/{item.id}/{asset.href[2:]}"
        item.set_self_href(None)
    Api.items = [item.to_dict(include_self_link=False) for item in items]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"{root}/api", reds
    server.shutdown()
    server.server_close()


def test_an_api_is_searched_and_its_files_read(api):
    address, reds = api
    stack = open_stack({"api": address, "collections": ["sentinel-2-l2a"]}, time="2024-01-01/2024-01-02")
    check(stack, reds[:2])
    with pytest.raises(ConfigError, match="needs collections"):
        open_stack({"api": address})
    with pytest.raises(ConfigError, match="STAC API: say what to look for"):
        open_stack(address)


def test_a_remote_item_may_not_point_to_this_machine(api, tmp_path):
    address, _ = api
    document = dict(Api.items[0])
    document["assets"] = {"red": {"href": "http://127.0.0.1:1/B04.tif", "type": "image/tiff"}}
    (tmp_path / "evil.json").write_text(json.dumps(document))
    with pytest.raises(NoUsableData, match="address of this machine"):
        open_stack(address.replace("/api", "/evil.json"))
    document["assets"]["red"]["href"] = "/etc/passwd.tif"
    (tmp_path / "evil.json").write_text(json.dumps(document))
    with pytest.raises((NoUsableData, StackError)):
        open_stack(address.replace("/api", "/evil.json"))


def test_an_address_that_is_down_is_named():
    with pytest.raises(StackError, match="can't be reached"):
        open_stack("http://127.0.0.1:9/catalog.json")


def test_a_broken_item_does_not_take_the_others_along(catalogue):
    path, reds = catalogue
    next(path.parent.rglob("S2A_32TQM_20240102*.json")).write_text("{")
    stack = open_stack(path)
    check(stack.isel(time=[0, 1]), [reds[0], reds[2]])
    assert stack.sizes["time"] == 2
    assert len(json.loads(stack.attrs["skipped"])) == 1


def test_a_remote_catalogue_may_not_lead_to_local_files(api, tmp_path):
    address, _ = api
    link = {"rel": "item", "href": "file:///etc/passwd"}
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "c", "description": "-",
        "stac_version": "1.0.0", "links": [link, {"rel": "item", "href": "http://127.0.0.1:1/x.json"}]}))  # fmt: skip
    with pytest.raises(NoUsableData, match=r"refused[\s\S]*address of this machine"):
        open_stack(address.replace("/api", "/catalog.json"))


def test_a_busy_server_is_asked_again(tmp_path, monkeypatch):
    class Busy(SimpleHTTPRequestHandler):
        answers = [503, 429]
        asked = 0

        def do_GET(self):
            type(self).asked += 1
            if self.answers:
                self.send_error(self.answers.pop(0))
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    monkeypatch.setattr("geoalign.io.remote.time.sleep", lambda seconds: None)
    (tmp_path / "c.json").write_text("{}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Busy, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/c.json"
    try:
        assert Documents(address).read_text(address) == "{}"
        assert Busy.asked == 3
        with pytest.raises(StackError, match="answers 404"):
            Documents(address).read_text(address.replace("c.json", "d.json"))
        assert Busy.asked == 4
    finally:
        server.shutdown()
        server.server_close()


def test_signatures_stay_out_of_records(api):
    address, _ = api
    for item in Api.items:
        for asset in item["assets"].values():
            asset["href"] += "?sig=secret"
    stack = open_stack({"api": address, "collections": ["sentinel-2-l2a"]}, time="2024-01")
    assert stack.sizes["time"] == 3
    assert "secret" not in str(stack.attrs)
    assert np.isfinite(stack.red.values).any()


def test_a_broken_item_of_a_collection_does_not_take_the_others_with_it(tmp_path, tif):
    items = [item_of(k, tmp_path, tif)[0] for k in range(2)]
    document = pystac.ItemCollection(items).to_dict()
    document["features"].insert(1, {"type": "Feature", "id": "broken"})
    document["features"].append("no item at all")
    (tmp_path / "items.json").write_text(json.dumps(document))
    stack = open_stack(tmp_path / "items.json")
    assert stack.sizes["time"] == 2
    skipped = json.loads(stack.attrs["skipped"])
    assert [r["scene"] for r in skipped] == ["broken", ""]
    assert "feature 2" in skipped[0]["path"]
    assert "no valid STAC item" in skipped[0]["reason"]
    (tmp_path / "none.json").write_text('{"type": "FeatureCollection", "features": [{"type": "Feature"}]}')
    with pytest.raises(NoUsableData, match=r"feature 1.*no valid STAC item"):
        open_stack(tmp_path / "none.json")
