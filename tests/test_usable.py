"""Scenes of no use are told apart from those that lack a band; a reference is what it was named."""

import json
import shutil

import numpy as np
import pytest
import rasterio

from geoalign import run
from geoalign.align import align_scenes
from geoalign.errors import ConfigError, NoUsableData
from tests.small_site import SITE, copy_site, make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def site(scenes, tmp_path):
    return copy_site(scenes, tmp_path)


def test_a_scene_that_lacks_one_band_is_kept_without_alignment(site):
    victim = sorted((site.parent / "sar").iterdir())[2]
    with rasterio.open(victim, "r+") as file:
        file.write(np.zeros(file.shape, file.dtypes[1]), 2)
    result = run(site)
    assert result.skipped == []
    assert result.exit_code == 0


def test_a_reference_that_was_left_out_is_told_with_the_reason(scenes, tmp_path):
    first = sorted(p.stem for p in (scenes / "sar").iterdir())[0]
    text = SITE.replace("register = false\n", "").replace(
        "[[detect]]", f'[register]\nreference = "{first}"\n[[detect]]'
    )
    site = copy_site(scenes, tmp_path, text)
    (tmp_path / "sar" / f"{first}.tif").write_bytes(b"")
    with pytest.raises(NoUsableData, match=f"reference scene {first} is left out: .*is empty.*name another"):
        run(site)


def test_a_raster_can_be_the_reference(tmp_path):
    scenes = make_scenes(tmp_path / "scenes", size=160, misregistration_px=0.5)
    first = sorted(p.name for p in (scenes / "sar").iterdir())[0]
    text = SITE.split("register")[0] + f'[register]\nreference = "here/{first}"\nmodel = "shift"\n[[detect]]\n'
    site = copy_site(scenes, tmp_path / "site", text + 'detector = "log_ratio"\n')
    (tmp_path / "site" / "here").mkdir()
    shutil.copy(tmp_path / "site" / "sar" / first, tmp_path / "site" / "here" / first)
    result = run(site)
    assert "reference" not in set(result.registration["status"])
    assert list(result.registration["status"]).count("aligned") >= 4


def damage(path, band):
    """Spoil the first block of one band, so that the header is whole and the values are not."""
    with rasterio.open(path) as file:
        place, size = (int(file.get_tag_item(f"BLOCK_{k}_0_0", "TIFF", bidx=band)) for k in ("OFFSET", "SIZE"))
    data = bytearray(path.read_bytes())
    data[place : place + size // 2] = b"\xff" * (size // 2)
    path.write_bytes(bytes(data))


def test_align_goes_on_without_a_scene_that_is_damaged_inside(tmp_path):
    from geoalign import simulate

    options = {"sensors": ("optical",), "n_optical": 3, "cloud": 0.0, "oversample": 2, "warps": ("shift",)}
    simulate(tmp_path / "s", size=128, seed=2, misregistration_px=0.5, events=False, **options)
    victim = sorted((tmp_path / "s" / "optical").glob("*.tif"))[1]
    damage(victim, 2)  # green is not among the bands that are looked at when a file is opened
    result = align_scenes(tmp_path / "s" / "optical", tmp_path / "out", model="shift", write=True)
    assert result.exit_code == 3
    assert [r["scene"] for r in result.skipped] == [victim.stem]
    assert "the file is damaged" in result.skipped[0]["reason"]
    assert len(list((tmp_path / "out" / "scenes").glob("*.tif"))) == 2


def test_align_checks_output_and_resampling_before_any_work(scenes, tmp_path):
    with pytest.raises(ConfigError, match="'cubik' is unknown; choose one of nearest"):
        align_scenes(scenes / "sar", tmp_path / "out", resampling="cubik")
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match=r"file can.t be made: .*Choose another output folder"):
        align_scenes(scenes / "sar", tmp_path / "file")


def test_a_link_that_leads_nowhere_is_told(site):
    victim = sorted((site.parent / "sar").iterdir())[2]
    victim.unlink()
    victim.symlink_to("/no/such/place.tif")
    result = run(site)
    assert result.exit_code == 3
    assert [r["scene"] for r in result.skipped] == [victim.stem]
    assert "does not exist" in json.dumps(result.skipped)
