"""`geoalign init`: what it writes is valid, on the scenes' own grid, and nothing is overwritten."""

import tomllib

import pytest

from geoalign.cli import main
from geoalign.config import load_config
from geoalign.errors import ConfigError, NoUsableData
from geoalign.new_site import write_site
from tests.small_site import make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"))


def test_the_file_is_valid_and_names_what_is_there(scenes, tmp_path):
    path = write_site(tmp_path / "site.toml", str(scenes / "sar" / "*.tif"), detector="deforestation")
    text = path.read_text(encoding="utf-8")
    config, plain = load_config(path), tomllib.loads(text)
    assert config.layers.keys() == {"deforestation"}
    assert plain["grid"]["crs"] == "EPSG:32633"
    assert plain["grid"]["resolution_m"] == 10
    west, south, east, north = plain["grid"]["bbox"]
    assert (east - west) % 10 == (north - south) % 10 == 0
    assert f"# {len(list((scenes / 'sar').glob('*.tif')))} scenes, " in text


def test_paths_are_relative_to_the_file_and_move_with_it(scenes, tmp_path, monkeypatch):
    (tmp_path / "sites").mkdir()
    (tmp_path / "scenes").symlink_to(scenes / "sar")
    monkeypatch.chdir(tmp_path)
    path = write_site("sites/site.toml", "scenes/*.tif")
    assert tomllib.loads(path.read_text())["scenes"] == "../scenes/*.tif"


def test_a_file_that_is_there_is_kept(tmp_path, capsys):
    path = tmp_path / "site.toml"
    path.write_text("mine")
    assert main(["init", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_no_scenes_and_unknown_detectors_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(NoUsableData):
        write_site(tmp_path / "site.toml", str(tmp_path / "*.tif"))
    with pytest.raises(ConfigError, match="no detector 'floods'"):
        write_site(tmp_path / "site.toml", str(tmp_path / "*.tif"), detector="floods")
    assert list(tmp_path.iterdir()) == []
