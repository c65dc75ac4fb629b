"""Whole or not at all, and names that stay in their folder."""

import pytest

from geoalign.io.atomic import atomic, move_into, safe_name


def test_an_error_leaves_the_old_file_and_no_crumbs(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with atomic(path) as partial:
            partial.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_side_files_of_drivers_are_swept_up(tmp_path):
    with atomic(tmp_path / "a.gpkg") as partial:
        partial.write_text("x")
        partial.with_name(partial.name + "-journal").write_text("y")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gpkg"]


@pytest.mark.parametrize(
    "name", ["../up", "/root", "a/b\\c", ".hidden", "", "..", "ä b\n", "x" * 500, "CON:", "a;rm -rf"]
)
def test_safe_names_stay_in_their_folder(tmp_path, name):
    safe = safe_name(name)
    assert (tmp_path / safe).resolve().parent == tmp_path.resolve()
    assert set(safe) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert 0 < len(safe) <= 120
    assert not safe.startswith(".")


def test_moving_replaces_files_and_keeps_others(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    (old / "a").write_text("1")
    (old / "b").write_text("1")
    (new / "a").write_text("2")
    move_into(new, old)
    assert (old / "a").read_text() == "2"
    assert (old / "b").read_text() == "1"
