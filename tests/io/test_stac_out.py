"""The STAC item and collection: required fields by hand, links that lead somewhere, values that are true."""

import json

import numpy as np
import pystac
import pytest
import rasterio
import shapely

from geoalign import ConfigError, polygons, write_changes
from geoalign.io.stac_out import EXTENSIONS, write_collection
from geoalign.types.changes import STATUS, WHY
from tests.handmade import changes_at, geobox, random_changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("site")
    (home / "scenes").mkdir()
    (home / "report.html").write_text("report")
    run = {
        "id": "20240901-flood",
        "site": "valley",
        "created": "2024-09-01T10:00:00Z",
        "inputs": {"a": home / "scenes" / "a.tif", "b": "https://example.com/b.json"},
        "report": home / "report.html",
        "parameters": {"alpha": 0.01},
        "sensor": "sentinel-1",
    }
    write_changes(random_changes((40, 50)), home / "out", polygons=lambda layers: polygons(layers), run=run)
    return home / "out"


def load(folder, name="item.json"):
    return json.loads((folder / name).read_text())


def test_the_item_has_what_stac_asks_for(folder):
    item = load(folder)
    assert (item["type"], item["stac_version"], item["id"]) == ("Feature", "1.1.0", "20240901-flood")
    assert set(item["stac_extensions"]) == set(EXTENSIONS.values())
    assert item["collection"] == load(folder, "collection.json")["id"] == "valley-flood"
    properties = item["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] < properties["end_datetime"]
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:shape"] == [40, 50]
    assert properties["proj:transform"] == [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0]
    assert properties["processing:software"].keys() == {"geoalign"}
    assert properties["geoalign:parameters"] == {"alpha": 0.01}
    assert sum(properties["geoalign:pixels"].values()) == 40 * 50


def test_outline_and_box_agree_and_turn_the_right_way(folder):
    item = load(folder)
    shape = shapely.geometry.shape(item["geometry"])
    assert shape.is_valid
    assert shape.exterior.is_ccw
    np.testing.assert_allclose(shape.bounds, item["bbox"], atol=1e-6)
    assert 14 < item["bbox"][0] < 16
    assert 44 < item["bbox"][1] < 46


def test_every_asset_is_there_and_says_what_it_holds(folder):
    assets = load(folder)["assets"]
    assert {"status", "date", "probability", "polygons", "project", "report"} <= set(assets)
    for name, asset in assets.items():
        assert not asset["href"].startswith("/")
        assert (folder / asset["href"]).resolve().is_file(), name
        assert asset["type"], name
        assert asset["roles"], name
        for band in asset.get("bands", []):
            with rasterio.open(folder / asset["href"]) as file:
                assert band["data_type"] == file.dtypes[0]
                assert band["nodata"] == ("nan" if np.isnan(file.nodata) else file.nodata)
    classes = assets["status"]["classification:classes"]
    assert {entry["value"]: entry["name"] for entry in classes} == STATUS
    bits = assets["why"]["classification:bitfields"]
    assert {entry["name"]: 1 << entry["offset"] for entry in bits} == WHY


def test_links_are_relative_and_lead_somewhere(folder):
    item, collection = load(folder), load(folder, "collection.json")
    derived = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
    assert derived == ["../scenes/a.tif", "https://example.com/b.json"]
    for document in (item, collection):
        for link in document["links"]:
            assert link["rel"] != "self"
            if link["rel"] in ("root", "parent", "collection", "item"):
                assert (folder / link["href"]).is_file()


def test_pystac_reads_it_back(folder):
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    (item,) = collection.get_items()
    assert item.id == "20240901-flood"
    assert item.get_collection().id == "valley-flood"
    low, high = collection.extent.temporal.intervals[0]
    assert low == item.common_metadata.start_datetime
    assert high == item.common_metadata.end_datetime


def test_a_collection_over_several_runs_spans_them_all(tmp_path):
    items = []
    for k, date in enumerate(("2024-01-10", "2025-03-04")):
        changes = changes_at(np.ones((4, 4)), box=geobox((4, 4), x=500000.0 + 1000 * k), date=date)
        items.append(write_changes(changes, tmp_path / f"run{k}")["item"])
    path = write_collection(tmp_path / "collection.json", items)
    document = json.loads(path.read_text())
    assert [link["href"] for link in document["links"] if link["rel"] == "item"] == [
        "./run0/item.json",
        "./run1/item.json",
    ]
    low, high = document["extent"]["temporal"]["interval"][0]
    assert low.startswith("2023-12-29")
    assert high.startswith("2025-03-04")
    boxes = [json.loads(item.read_text())["bbox"] for item in items]
    assert document["extent"]["spatial"]["bbox"][0][2] == max(box[2] for box in boxes)


def test_nothing_changed_and_no_crs_still_make_an_item(tmp_path):
    write_changes(changes_at(np.zeros((3, 3)), box=None), tmp_path, run={"created": "2024-09-01"})
    item = load(tmp_path)
    assert item["geometry"] is None
    assert item["properties"]["start_datetime"] == "2024-09-01T00:00:00Z"
    write_changes(changes_at(np.zeros((3, 3))), tmp_path, run={"start": "2024-01-01", "end": "2024-06-01"})
    assert load(tmp_path)["properties"]["end_datetime"] == "2024-06-01T00:00:00Z"


def test_unknown_keys_of_a_run_are_named(tmp_path):
    with pytest.raises(ConfigError, match="colour"):
        write_changes(changes_at(np.zeros((3, 3))), tmp_path, run={"colour": "red"})


def test_the_same_run_writes_the_same_bytes(tmp_path):
    changes = random_changes()
    run = {"id": "r", "created": "2024-09-01"}
    first = {p.name: p.read_bytes() for p in write_changes(changes, tmp_path / "a", run=run).values()}
    second = {p.name: p.read_bytes() for p in write_changes(changes, tmp_path / "b", run=run).values()}
    assert first == second
