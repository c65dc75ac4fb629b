"""The command line: what it prints, where, and the exit code it ends with; bad input from end to end."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoalign import cli
from tests.small_site import SITE, copy_site, make_scenes, processor_seconds


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def site(scenes, tmp_path):
    return copy_site(scenes, tmp_path)


def files(site) -> list[Path]:
    return sorted((site.parent / "sar").iterdir())


def rewrite(path, *, crs="keep", scale=None, **tags):
    """The same raster with another CRS (None: without one), tags, or values."""
    with rasterio.open(path) as file:
        values, profile, kept = file.read(), file.profile, file.tags()
        names, scales, offsets = file.descriptions, file.scales, file.offsets
    if crs != "keep":
        profile["crs"] = crs
    if scale is not None:
        values = scale(values)
        profile |= {"dtype": "float32", "nodata": np.nan, "predictor": 3}
        scales, offsets = (1.0,) * len(scales), (0.0,) * len(scales)
    path.unlink()
    with rasterio.open(path, "w", **profile) as file:
        file.write(values.astype(profile["dtype"]))
        file.descriptions, file.scales, file.offsets = names, scales, offsets
        file.update_tags(**(kept | tags))


def test_help_names_every_command_and_exit_code(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("demo", "simulate", "info", "validate", "align", "detect", "run", "report", "doctor"):
        assert name in text


def test_help_and_import_are_quick():
    for code in ("import geoalign", "import sys; from geoalign.cli import main; sys.exit(main(['--help']))"):
        best = min(processor_seconds(code) for _ in range(2))
        assert best < 1.0, f"{code}: {best:.2f} s"


def test_a_run_then_its_report_and_a_check_of_its_files(site, capsys):
    assert cli.main(["run", str(site), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    folder = Path(document["folder"])
    assert document["exit_code"] == 0
    assert document["layers"]["log_ratio"]["area_ha"] > 0
    assert Path(document["report"]).is_file()

    page = site.parent / "again.html"
    assert cli.main(["report", str(site.parent / "out"), "--output", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")

    assert cli.main(["doctor", str(folder), "--json"]) == 0
    assert any(
        f["what"] == "run" and f["status"] == "ok" for f in json.loads(capsys.readouterr().out.split("\n", 1)[1])
    )
    (folder / "layers" / "log_ratio" / "status.tif").unlink()
    assert cli.main(["doctor", str(folder)]) == 1
    assert "status.tif is missing" in capsys.readouterr().out.replace("\n", " ")


def test_a_dry_run_says_scenes_grid_chunks_memory_and_disk(site, capsys):
    assert cli.main(["run", str(site), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for word in ("6 scenes", "64 x 64 px", "EPSG:32633", "chunks", "memory", "disk"):
        assert word in text
    assert cli.main(["run", str(site), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [64, 64]
    assert not (site.parent / "out").exists()


def test_info_says_what_would_be_applied(site, capsys):
    assert cli.main(["info", str(site.parent / "sar"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bands"] == ["vv", "vh"]
    assert document["crs"] == "EPSG:32633"
    assert len(document["scenes"]) == 6
    assert document["scenes"][0]["product"] == "sentinel1-rtc"
    assert cli.main(["info", str(files(site)[0])]) == 0
    assert "sentinel1-rtc" in capsys.readouterr().out


def test_what_is_left_out_is_said_once_though_scenes_are_opened_again(site, capsys):
    files(site)[2].write_bytes(b"")
    assert cli.main(["run", str(site)]) == 3
    assert capsys.readouterr().err.count("is empty (0 bytes)") == 1


def test_simulate_renders_the_files_and_nothing_twice(tmp_path, capsys, monkeypatch):
    from geoalign.simulation import Simulation

    monkeypatch.setattr(Simulation, "_stack", lambda *a: pytest.fail("a stack was rendered to count its scenes"))
    assert cli.main(["simulate", str(tmp_path / "made"), "--size", "32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenes"] == {"optical": 30, "sar": 30}
    (tmp_path / "file").touch()
    assert cli.main(["simulate", str(tmp_path / "file"), "--size", "32"]) == 1
    assert "can't be made" in capsys.readouterr().err


def test_simulated_scenes_come_with_a_site_file_that_is_valid(tmp_path, capsys):
    assert cli.main(["simulate", str(tmp_path / "made"), "--size", "32", "--seed", "1"]) == 0
    assert cli.main(["validate", str(tmp_path / "made" / "site.toml")]) == 0
    assert "is valid" in capsys.readouterr().out


def test_align_writes_how_scenes_lie_and_the_scenes_aligned(scenes, tmp_path, capsys):
    from geoalign import Alignment, open_stack

    output = tmp_path / "aligned"
    code = cli.main(["align", str(scenes / "sar"), "--output", str(output), "--model", "shift", "--write", "--json"])
    document = json.loads(capsys.readouterr().out)
    alignment = Alignment.load(output / "alignment.json")
    assert code == (3 if len(alignment.warps) < 6 else 0)
    assert document["reference"] == alignment.reference
    again = open_stack(output / "scenes")
    assert set(again.scene.values) == set(alignment.warps)
    assert list(again.data_vars) == ["vv", "vh"]


def test_detect_needs_no_site_file(scenes, tmp_path, capsys):
    line = ["detect", str(scenes / "sar"), "log_ratio", "--output", str(tmp_path / "out"), "--no-register"]
    assert cli.main([*line, "--option", "prior=0.1", "--min-area-m2", "500", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers"]["log_ratio"]["options"] == {"prior": 0.1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["detect", "{scenes}", "log_ration"], "did you mean 'log_ratio'"),
        (["detect", "{scenes}", "log_ratio", "--option", "priors=1"], "did you mean 'prior'"),
        (["detect", "{scenes}", "log_ratio", "--option", "prior"], "must be key=value"),
        (["detect", "{scenes}", "log_ratio", "--alpha", "0.1"], "alpha: unknown key"),
        (["run", "nowhere.toml"], "can't be read"),
        (["run"], "Missing argument"),
        (["fly"], "No such command"),
        (["simulate", "x", "--size", "two"], "Invalid value"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_message(scenes, line, words, capsys):
    assert cli.main([a.replace("{scenes}", str(scenes / "sar")) for a in line]) == 2
    text = capsys.readouterr().err
    assert words in text
    assert "Traceback" not in text


# ------------------------------------------------------------------------------------------------------- bad input


def test_an_empty_folder_is_no_usable_data(site, capsys):
    shutil.rmtree(site.parent / "sar")
    (site.parent / "sar").mkdir()
    assert cli.main(["run", str(site)]) == 4
    assert "nothing matches" in capsys.readouterr().err
    assert cli.main(["info", str(site.parent / "sar")]) == 4


def test_an_unknown_key_ends_with_2_naming_the_nearest_and_its_line(site, capsys):
    site.write_text(SITE.replace("output", "outputs"))
    assert cli.main(["run", str(site)]) == 2
    assert "site.toml:4: outputs: unknown key; did you mean 'output'?" in capsys.readouterr().err
    assert cli.main(["validate", str(site), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_scene_among_good_ones_ends_with_3_and_keeps_the_others(site, capsys, share):
    bad = files(site)[2]
    bad.write_bytes(bad.read_bytes()[: int(bad.stat().st_size * share)])
    assert cli.main(["run", str(site), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert [s["scene"] for s in document["skipped"]] == [bad.stem]
    assert document["layers"]["log_ratio"]["pixels"]["confirmed"] > 0


def test_a_scene_without_crs_is_refused_and_named(site, capsys):
    rewrite(files(site)[1], crs=None)
    assert cli.main(["run", str(site), "--json"]) == 3
    (skipped,) = json.loads(capsys.readouterr().out)["skipped"]
    assert files(site)[1].stem in skipped["scene"] + skipped["reason"]
    assert "CRS" in skipped["reason"]


def test_decibels_where_power_is_expected_are_refused(site, capsys):
    rewrite(files(site)[1], scale=lambda dn: 10 * np.log10(np.maximum(dn, 1) * 1e-4))
    assert cli.main(["run", str(site), "--json"]) == 3
    (skipped,) = json.loads(capsys.readouterr().out)["skipped"]
    assert "dB" in skipped["reason"]


def test_another_crs_is_brought_onto_the_grid(site, capsys):
    from rasterio.warp import calculate_default_transform, reproject

    path = files(site)[1]
    with rasterio.open(path) as file:
        place = calculate_default_transform(file.crs, "EPSG:32632", *file.shape[::-1], *file.bounds)
        profile = file.profile | {"crs": "EPSG:32632", "transform": place[0], "width": place[1], "height": place[2]}
        moved = np.zeros((2, place[2], place[1]), "uint16")
        reproject(file.read(), moved, src_transform=file.transform, src_crs=file.crs, dst_transform=place[0],
                  dst_crs="EPSG:32632", src_nodata=0, dst_nodata=0)  # fmt: skip
        tags, names, scales = file.tags(), file.descriptions, file.scales
    path.unlink()
    with rasterio.open(path, "w", **profile) as file:
        file.write(moved)
        file.descriptions, file.scales = names, scales
        file.update_tags(**tags)
    assert cli.main(["run", str(site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"]["log_ratio"]["pixels"]["confirmed"] > 0


def test_no_overlap_with_the_grid_is_no_usable_data(site, capsys):
    site.write_text(SITE.replace("[500000, 5399360, 500640, 5400000]", "[600000, 5000000, 601000, 5001000]"))
    assert cli.main(["run", str(site)]) == 4
    assert "overlap" in capsys.readouterr().err


def test_a_date_that_is_there_twice_is_told(site, capsys):
    with rasterio.open(files(site)[1]) as file:
        stamp = file.tags()["datetime"]
    rewrite(files(site)[2], datetime=stamp, scene="another")
    assert cli.main(["run", str(site), "--json"]) == 3
    (skipped,) = json.loads(capsys.readouterr().out)["skipped"]
    assert "have the time" in skipped["reason"]


def test_a_date_that_can_not_be_read_is_told(site, capsys):
    bad = files(site)[1]
    rewrite(bad, datetime="someday", scene="x")
    bad = bad.rename(bad.with_name("undated.tif"))
    assert cli.main(["run", str(site), "--json"]) == 3
    (skipped,) = json.loads(capsys.readouterr().out)["skipped"]
    assert "someday" in skipped["reason"]


def test_an_error_is_one_line_and_a_traceback_only_on_demand(site, capsys):
    shutil.rmtree(site.parent / "sar")
    (site.parent / "sar").mkdir()
    assert cli.main(["run", str(site)]) == 4
    lines = [line for line in capsys.readouterr().err.splitlines() if " INFO " not in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    with pytest.raises(Exception, match="nothing matches"):
        cli.main(["run", str(site), "--debug"])


def test_what_should_not_happen_is_said_to_be_our_mistake(monkeypatch, site, capsys):
    from geoalign import pipeline

    def broken(*args, **kwargs):
        raise KeyError("oops")

    monkeypatch.setattr(pipeline, "plan", broken)
    assert cli.main(["run", str(site), "--dry-run"]) == 1
    assert "should not happen" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_says_so(monkeypatch, site, capsys):
    from geoalign import pipeline

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "plan", stopped)
    assert cli.main(["run", str(site), "--dry-run"]) == 130
    assert capsys.readouterr().err == "stopped.\n"


def test_as_a_process_results_and_logs_are_apart_and_a_foreign_gdal_is_ignored(site):
    environment = os.environ | {"PROJ_DATA": "/nowhere", "PROJ_LIB": "/nowhere", "GDAL_DATA": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "geoalign.cli", "run", str(site), "--json", "-v"],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exit_code"] == 0
    assert "INFO open" in done.stderr
    assert "PROJ_DATA=/nowhere belongs to another" in done.stderr


def test_a_program_that_calls_main_keeps_its_own_logging(site, caplog):
    assert cli.main(["validate", str(site), "--quiet"]) == 0
    logging.getLogger("geoalign").warning("still heard")
    assert "still heard" in caplog.text
