"""Styles: well-formed, relative, and timed (`tests/clients/test_gis.py` opens them in QGIS itself)."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from geoalign import polygons, write_changes
from geoalign.types.changes import STATUS
from tests.handmade import changes_at, day, geobox, random_changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("styled")
    write_changes(random_changes(share=0.2), path, polygons=lambda layers: polygons(layers))
    return path


def test_every_file_is_well_formed_and_named_for_its_data(folder):
    styles = sorted(p.stem for p in folder.glob("*.qml"))
    assert styles == sorted(["changes", *(p.stem for p in folder.glob("*.tif"))])
    for path in [*folder.glob("*.qml"), folder / "changes.qlr"]:
        assert ET.parse(path).getroot().tag in ("qgis", "qlr")


def test_the_layer_definition_is_relative_complete_and_timed(folder):
    root = ET.parse(folder / "changes.qlr").getroot()
    layers = root.findall("maplayers/maplayer")
    nodes = root.findall(".//layer-tree-layer")
    assert [node.get("id") for node in nodes] == [layer.findtext("id") for layer in layers]
    assert len({layer.findtext("id") for layer in layers}) == len(layers)
    for layer in layers:
        source = layer.findtext("datasource")
        assert source.startswith("./")
        assert (folder / source.partition("|")[0]).is_file()
        assert layer.findtext("srs/spatialrefsys/authid") == "EPSG:32633"
    vector = next(layer for layer in layers if layer.get("type") == "vector")
    time = vector.find("temporal")
    assert (time.get("enabled"), time.get("mode")) == ("1", "2")
    assert (time.get("startField"), time.get("endField")) == ("start_date", "end_date")


def test_status_has_its_codes_and_dates_their_days(folder):
    entries = ET.parse(folder / "status.qml").getroot().findall(".//paletteEntry")
    assert [int(entry.get("value")) for entry in entries] == list(STATUS)
    for item in ET.parse(folder / "date.qml").getroot().findall(".//item"):
        assert np.datetime64(int(item.get("value")), "D") == np.datetime64(item.get("label"))


def test_dates_written_as_numbers_have_real_days_in_the_legend(tmp_path):
    write_changes(random_changes(), tmp_path, date_encoding="yyyymmdd")
    for item in ET.parse(tmp_path / "date.qml").getroot().findall(".//item"):
        assert np.datetime64(item.get("label"))
        assert item.get("label").replace("-", "") == item.get("value")


@pytest.mark.parametrize("n", [1, 3, 8, 9, 40])
def test_every_dated_polygon_has_a_class(tmp_path, n):
    dates = day("2024-01-01") + np.arange(n) * np.timedelta64(7, "D")
    flag = np.zeros((1, 2 * n))
    flag[0, ::2] = 1
    changes = changes_at(flag, date=np.repeat(dates, 2)[None])
    write_changes(changes, tmp_path, polygons=lambda layers: polygons(layers))
    root = ET.parse(tmp_path / "changes.qml").getroot()
    classes = [(float(r.get("lower")), float(r.get("upper"))) for r in root.findall(".//range")]
    for date in dates.astype("datetime64[D]").astype(int):
        assert sum(low <= date <= high for low, high in classes) == 1


def test_odd_names_keep_the_files_well_formed(tmp_path):
    changes = changes_at(np.ones((2, 2)), box=geobox((2, 2)))
    changes.attrs["kind"] = 'a <b> & "c" \x00\x1b'
    changes["<&>\x07"] = changes.why
    write_changes(changes, tmp_path, polygons=lambda layers: polygons(layers))
    for path in [*tmp_path.glob("*.qml"), tmp_path / "changes.qlr"]:
        ET.parse(path)


def test_nothing_changed_still_has_a_style(tmp_path):
    write_changes(changes_at(np.zeros((3, 3))), tmp_path, polygons=lambda layers: polygons(layers))
    assert ET.parse(tmp_path / "changes.qlr").getroot().findall(".//range")
