"""A whole run: what it leaves behind, what it says about it, and what a reader sees while it happens."""

import json
import shutil

import numpy as np
import pytest
import rasterio
import xarray as xr

from geoalign import publish, run
from geoalign.config import load_config
from geoalign.errors import ConfigError, GeoalignError, NoUsableData, StateError
from geoalign.io import raster, read_changes
from geoalign.pipeline import LAYER_BYTES, plan, read_run
from geoalign.types.changes import changed, check_changes, new_changes
from tests.small_site import SITE, copy_site, make_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def site(scenes, tmp_path):
    return copy_site(scenes, tmp_path)


@pytest.fixture(scope="module")
def done(scenes, tmp_path_factory):
    return run(copy_site(scenes, tmp_path_factory.mktemp("done")))


def test_a_run_leaves_layers_polygons_and_a_manifest(done):
    layer = done.layers["log_ratio"]
    assert done.exit_code == 0
    assert done.skipped == []
    changes = check_changes(read_changes(done.folder / "layers" / "log_ratio"), values=True)
    n = int(changed(changes).sum())
    assert n > 0
    assert layer["pixels"]["confirmed"] + layer["pixels"]["ended"] == n
    assert layer["area_ha"] == pytest.approx(n / 100)
    assert sum(layer["dates"].values()) == n
    for place in layer["files"].values():
        assert (done.folder / place).is_file()


def test_the_manifest_says_with_what_from_what_and_how_long(done):
    document = publish.read_manifest(done.folder)
    assert document["versions"]["geoalign"]
    assert {"numpy", "rasterio", "xarray"} <= set(document["versions"])
    assert document["configuration"]["name"] == "small"
    assert len(document["inputs"]) == 6
    assert all(len(r["sha256"]) == 64 and r["bytes"] > 0 for r in document["inputs"])
    assert {"open", "read scenes", "detect log_ratio"} <= set(document["timings"])
    assert document["peak_rss_mb"] > 10
    assert document["grid"]["crs"] == "EPSG:32633"
    assert publish.verify(done.folder) == []


def test_accuracy_is_measured_where_the_truth_is_known(done):
    scores = done.accuracy["detection"] + done.accuracy["registration"]
    assert json.loads((done.folder / "accuracy.json").read_text()) == done.accuracy
    assert scores == []  # log_ratio is no theme, and nothing was aligned


def test_a_run_repeated_leaves_one_set_of_the_same_results(site):
    first = run(site)
    before = read_changes(first.folder / "layers" / "log_ratio").load()
    second = run(site)
    assert second.run_id == first.run_id
    assert [p.name for p in (site.parent / "out" / "runs").iterdir()] == [second.folder.name]
    assert read_run(site.parent / "out").folder == second.folder
    after = read_changes(second.folder / "layers" / "log_ratio").load()
    assert before.drop_attrs().identical(after.drop_attrs())


def test_other_inputs_make_another_run_and_keep_the_old(site):
    first = run(site)
    (site.parent / "sar" / sorted(p.name for p in (site.parent / "sar").iterdir())[-1]).unlink()
    second = run(site)
    assert second.run_id != first.run_id
    assert first.folder.is_dir()
    assert read_run(site.parent / "out").folder == second.folder


def test_a_run_that_fails_midway_leaves_the_old_results_as_they_were(site):
    first = run(site)

    def fail(folder):
        raise GeoalignError("the disk is full")

    with pytest.raises(GeoalignError, match="disk is full"):
        run(site, then=[fail])
    assert read_run(site.parent / "out").folder == first.folder
    assert publish.verify(first.folder) == []
    assert [p.name for p in (site.parent / "out" / "runs").iterdir()] == [first.folder.name]


def test_what_a_killed_run_left_is_cleared_away(site):
    left = site.parent / "out" / "runs" / ".part-99999999"
    left.mkdir(parents=True)
    (left / "half.tif").write_bytes(b"half")
    run(site)
    assert not left.exists()


def test_two_runs_at_once_are_refused_with_the_lock_code(site):
    with publish.locked(site.parent / "out"), pytest.raises(publish.Locked, match="another run") as caught:
        run(site)
    assert caught.value.exit_code == 75


def test_scenes_are_aligned_and_the_residual_is_measured(tmp_path):
    scenes = make_scenes(tmp_path / "made", size=160, misregistration_px=1.5)
    text = SITE.replace("register = false\n", "").replace("5399360, 500640", "5398400, 501600")
    text += "\n[register]\nmodel = 'shift'\nresampling = 'bilinear'\n"
    result = run(copy_site(scenes, tmp_path / "copy", text))
    assert set(result.registration["stack"]) == {"scenes"}
    assert result.registration["status"].isin(["aligned", "reference"]).sum() >= 4
    found = {row["scene"]: row["rmse_px"] for row in result.accuracy["registration"]}
    assert np.nanmedian(np.array(list(found.values()), float)) < 0.4  # 1.5 px were planted
    assert (result.folder / "registration" / "scenes.json").is_file()


def test_a_corrupt_scene_is_left_out_with_its_reason_and_the_rest_kept(site):
    names = sorted((site.parent / "sar").iterdir())
    names[2].write_bytes(names[2].read_bytes()[: names[2].stat().st_size // 2])
    result = run(site)
    assert result.exit_code == 3
    assert [r["scene"] for r in result.skipped] == [names[2].stem]
    assert result.skipped[0]["reason"]
    assert result.layers["log_ratio"]["pixels"]["confirmed"] > 0


def test_a_scene_that_holds_nothing_is_left_out(site):
    name = sorted((site.parent / "sar").iterdir())[2]
    with rasterio.open(name, "r+") as file:
        file.write(np.zeros((2, *file.shape), "uint16"))
    result = run(site)
    assert result.exit_code == 3
    assert result.skipped[0]["kind"] == "empty"
    assert "nothing was observed" in result.skipped[0]["reason"]


def test_scenes_that_all_hold_nothing_are_no_usable_data(site):
    for name in (site.parent / "sar").iterdir():
        with rasterio.open(name, "r+") as file:
            file.write(np.zeros((2, *file.shape), "uint16"))
    with pytest.raises(NoUsableData, match="nothing was observed"):
        run(site)
    assert not (site.parent / "out" / "latest").exists()


def test_one_detector_that_fails_does_not_lose_the_others(scenes, tmp_path):
    text = SITE + '[[detect]]\ndetector = "harmonic_cusum"\nsince = "2024-01-01"\n'
    result = run(copy_site(scenes, tmp_path, text))
    assert result.exit_code == 1
    assert list(result.layers) == ["log_ratio"]
    assert "harmonic_cusum" in result.failed


def test_an_option_that_a_detector_refuses_is_told_before_any_work(scenes, tmp_path):
    config = load_config(copy_site(scenes, tmp_path, SITE.replace('"log_ratio"', '"harmonic_cusum"\norder = -4')))
    with pytest.raises(ConfigError, match="order"):
        run(config)
    assert not (tmp_path / "out").exists()


def test_a_plan_reads_no_pixel(site, no_compute):
    with no_compute():
        found = plan(site)
    assert found.shape == (64, 64)
    assert found.crs == "EPSG:32633"
    assert found.resolution == 10
    assert len(found.scenes["scenes"]) == 6
    assert found.memory_mb > 0
    assert found.disk_mb >= 1
    assert not (site.parent / "out").exists()


def test_a_plan_counts_what_lies_on_disk_while_the_layers_are_made(tmp_path, monkeypatch):
    day = np.datetime64("2024-05-01", "ns")
    rng, shape, most, plain = np.random.default_rng(0), (512, 512), [0], raster._cog
    noisy = xr.DataArray(rng.random(shape, np.float32), dims=("y", "x"))
    dates = xr.DataArray(day + rng.integers(0, 999, shape) * np.timedelta64(1, "D"), dims=("y", "x"))
    names = ("date", "date_after", "date_by", "date_confirmed", "date_end")
    layers = {name: dates - np.timedelta64(name == "date_after", "D") for name in names}
    layers |= dict.fromkeys(("magnitude", "probability", "noise"), noisy)
    layers |= {name: (1e4 * noisy).astype("uint16") for name in ("n_obs", "why")}
    layers |= {"status": 0 * noisy + 3, "direction": 2 * (noisy > 0.5) - 1}
    changes = new_changes(layers, kind="change", detector="by hand")

    def watched(folder, layer):
        staged = (folder / f"{layer.file}.strips").stat().st_size
        plain(folder, layer)
        most[0] = max(most[0], staged + sum(p.stat().st_size for p in folder.iterdir()))

    monkeypatch.setattr(raster, "_cog", watched)
    monkeypatch.setattr(raster, "COG_THREADS", 1)
    raster.write_changes(changes, tmp_path)
    told = shape[0] * shape[1] * LAYER_BYTES * (1 + 4 / 3)
    assert 0.4 * told < most[0] < told


def test_stacks_of_other_grids_meet_on_one_that_holds_both(scenes, tmp_path):
    site = copy_site(scenes, tmp_path)
    shutil.copytree(tmp_path / "sar", tmp_path / "two")
    for name in (tmp_path / "two").iterdir():
        with rasterio.open(name, "r+") as file:
            file.transform = file.transform @ rasterio.Affine.translation(8, -4)
    text = SITE[: SITE.index("[grid]")] + SITE[SITE.index("[[detect]]") :].replace(
        '"log_ratio"', '"log_ratio"\non = "one"'
    )
    shapes = []
    for sources in ('{ one = "sar/*.tif" }', '{ one = "sar/*.tif", two = "two/*.tif" }'):
        site.write_text(text.replace('"sar/*.tif"', sources))
        shapes.append(plan(site).shape)
    assert shapes[1] == (shapes[0][0] + 4, shapes[0][1] + 8)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": "geoalign.run", "version": 9}',
        '{"format": "geoalign.run"}',
        '{"format": "geoalign.run", "version": 1}',
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StateError, match="manifest"):
        read_run(tmp_path)


def test_a_manifest_without_its_files_is_damaged(done, tmp_path):
    document = publish.read_manifest(done.folder)
    del document["files"]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(StateError, match="lists no files"):
        publish.verify(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(StateError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / "latest").write_text("runs/gone")
    with pytest.raises(StateError, match="holds no run"):
        read_run(tmp_path)


def test_where_links_are_not_allowed_a_text_file_points_to_the_latest(site, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("links are not allowed")

    monkeypatch.setattr(publish.os, "symlink", refuse)
    result = run(site)
    assert (site.parent / "out" / "latest").is_file()
    assert read_run(site.parent / "out").folder == result.folder


def test_changed_missing_and_cut_files_are_found(site):
    result = run(site)
    folder = result.folder / "layers" / "log_ratio"
    (folder / "status.tif").unlink()
    (folder / "date.tif").write_bytes(b"II")
    whole = (folder / "why.tif").read_bytes()
    (folder / "why.tif").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    wrong = "\n".join(publish.verify(result.folder))
    assert "status.tif is missing" in wrong
    assert "date.tif has 2 bytes" in wrong
    assert "why.tif has changed" in wrong


def test_looking_only_after_the_last_scene_is_no_usable_data(site):
    text = site.read_text().replace('detector = "log_ratio"', 'detector = "log_ratio"\nsince = "2026-01-01"')
    site.write_text(text)
    with pytest.raises(NoUsableData, match="since = 2026-01-01 lies after the last usable scene"):
        run(site)


def test_areas_in_square_metres_on_a_grid_in_degrees_are_refused_before_any_work(scenes, tmp_path):
    from rasterio.warp import calculate_default_transform

    text = SITE.split("[grid]")[0] + '[[detect]]\ndetector = "log_ratio"\n[vectors]\nmin_area_m2 = 500\n'
    site = copy_site(scenes, tmp_path, text)
    for path in (tmp_path / "sar").iterdir():
        with rasterio.open(path, "r+") as file:
            place = calculate_default_transform(file.crs, "EPSG:4326", file.width, file.height, *file.bounds)[0]
            file.crs, file.transform = "EPSG:4326", place
    with pytest.raises(ConfigError, match=r"500, but the grid is in degrees \(EPSG:4326\).*\[grid\]"):
        run(site)
