"""The bundle of a layer in the programs that people open it with; each skipped, with its reason, where it is absent."""

import json
import shutil
import subprocess
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
from pandas.testing import assert_frame_equal
from rio_cogeo import cog_validate

from geoalign import polygons, read_changes, write_changes, write_polygons
from geoalign.types.changes import changed
from tests.handmade import NAT, changes_at, day

PYTHON = "/usr/bin/python3"
DAYS = ("start_date", "end_date", "date_after", "date_by")


@pytest.fixture(scope="module")
def changes():
    flag = np.zeros((60, 80), bool)
    flag[5:20, 5:25], flag[30:50, 40:70], flag[40:44, 50:55] = True, True, False
    date = np.where(np.arange(80) < 30, day("2024-03-01"), day("2024-06-15")) + np.zeros((60, 1), "m8[ns]")
    end = np.where(np.arange(80) < 30, day("2024-05-01"), NAT) + np.zeros((60, 1), "m8[ns]")
    status = np.where(np.arange(80) < 30, 4, 3) + np.zeros((60, 1), int)
    return changes_at(flag, date=date, date_end=end, status=status)


@pytest.fixture(scope="module")
def frame(changes):
    return polygons(changes)


@pytest.fixture(scope="module")
def folder(changes, frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle")
    write_changes(changes, path, polygons=frame)
    return path


def test_qgis_opens_it_styled_placed_and_in_time(folder, tmp_path):
    if not Path(PYTHON).is_file() or subprocess.run([PYTHON, "-c", "import qgis.core"], capture_output=True).returncode:
        pytest.skip("QGIS with its Python is not installed here")
    script = Path(__file__).with_name("qgis_bundle.py")
    environment = {"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [PYTHON, str(script), str(folder), str(tmp_path / "map.png")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    layers = report["qlr"]["layers"]
    assert report["qlr"]["ok"], report["qlr"]["message"]
    assert all(layer["valid"] and layer["crs"] == "EPSG:32633" for layer in [*layers, *report["rasters"]])
    assert len({tuple(layer["extent"]) for layer in layers if layer["kind"] == "raster"}) == 1
    shown = {layer["name"]: layer for layer in layers}
    assert shown["polygons"]["renderer"] == "graduatedSymbol"
    assert shown["polygons"]["valid_geometries"]
    assert shown["polygons"]["all_drawn"]
    assert shown["status"]["renderer"] == "paletted"
    assert shown["date"]["renderer"] == "singlebandpseudocolor"
    assert shown["polygons"]["temporal"]
    assert shown["polygons"]["temporal_fields"] == ["start_date", "end_date"]
    assert all(shown["polygons"]["fields"][name] == "Date" for name in DAYS)
    assert report["polygons_on_change"] == 1.0
    assert report["played"] == [["2024-03-01", 1, 1], ["2024-06-15", 1, 1]]
    assert {layer["name"]: layer["renderer"] for layer in report["rasters"]}["status"] == "paletted"
    assert (tmp_path / "map.png").stat().st_size > 2000


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "geojson"])
def test_ogr_reads_fields_dates_and_shapes(frame, tmp_path, suffix):
    if shutil.which("ogrinfo") is None:
        pytest.skip("ogrinfo (gdal-bin) is not installed here")
    path = write_polygons(frame, tmp_path / f"changes.{suffix}")
    told = subprocess.run(["ogrinfo", "-al", "-so", str(path)], capture_output=True, text=True, check=True)
    assert "ERROR" not in told.stderr
    assert "Warning" not in told.stderr
    assert f"Feature Count: {len(frame)}" in told.stdout
    kind = "DateTime" if suffix == "fgb" else "Date"  # FlatGeobuf knows no days without a time
    for name in DAYS:
        assert f"{name}: {kind} (" in told.stdout


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "geojson", "parquet"])
def test_there_and_back_nothing_is_lost(frame, tmp_path, suffix):
    path = write_polygons(frame, tmp_path / f"changes.{suffix}")
    back = gpd.read_parquet(path) if suffix == "parquet" else gpd.read_file(path, use_arrow=True)
    back = back.set_index("id").loc[frame["id"]].reset_index().to_crs(frame.crs)
    for name in DAYS:
        assert list(back[name].astype("datetime64[s]")) == list(frame[name].astype("datetime64[s]"))
    numbers = ["probability", "magnitude", "area_ha", "n_pixels", "direction"]
    assert_frame_equal(back[numbers], frame[numbers].reset_index(drop=True), check_dtype=False)
    # RFC 7946 has degrees, to seven digits
    assert back.geometry.symmetric_difference(frame.geometry).area.max() < (5.0 if suffix == "geojson" else 1e-6)


def test_geoparquet_satisfies_an_independent_validator(frame, tmp_path):
    validator = pytest.importorskip("geoparquet_validator", reason="pip install geoparquet-validator")
    report = validator.check(str(write_polygons(frame, tmp_path / "changes.parquet")))
    for name in ("core", "covering", "distribution"):
        assert validator.conformant(report, name), validator.failed(report)


def test_geojson_satisfies_an_independent_model_of_rfc_7946(frame, tmp_path):
    model = pytest.importorskip("geojson_pydantic", reason="pip install geojson-pydantic")
    text = write_polygons(frame, tmp_path / "changes.geojson").read_text(encoding="utf-8")
    read = model.FeatureCollection.model_validate_json(text)
    assert len(read.features) == len(frame)
    assert "crs" not in json.loads(text)  # RFC 7946 has no other than degrees
    for feature in read.features:
        # ISO dates, not times: what was a day stays one
        assert all(len(feature.properties[name]) == 10 for name in DAYS if feature.properties[name])


def test_rasters_are_cogs_and_come_back(folder, changes):
    for path in folder.glob("*.tif"):
        valid, errors, _ = cog_validate(path, strict=True)
        assert valid, (path.name, errors)
    back = read_changes(folder)
    for name in ("status", "date", "date_after", "date_by", "magnitude", "probability", "n_obs", "why"):
        np.testing.assert_array_equal(back[name].values, changes[name].values, err_msg=name)
    assert int(changed(back).sum()) == int(changed(changes).sum())


def test_pystac_finds_everything_that_stac_names(folder):
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 1
    for asset in items[0].get_assets().values():
        assert (folder / Path(asset.href).name).is_file()
    assert items[0].properties["proj:code"] == "EPSG:32633"


def test_stac_satisfies_the_schema(folder):
    pytest.importorskip("jsonschema", reason="pip install jsonschema")
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    for thing in (collection, *collection.get_items()):
        document = thing.to_dict(include_self_link=False)
        # the schemas of extensions lie on the network; that of STAC itself comes with pystac
        pystac.validation.validate_dict(document | {"stac_extensions": []}, href=str(folder / "x.json"))


def test_the_readme_names_every_file_and_field(folder, frame):
    text = (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.glob("*.tif"):
        assert f"| {path.name} | " in text
    for name in frame.columns.drop("geometry"):
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert line.split("|")[2].strip(), f"{name} is not explained"
    assert "3 confirmed" in text
