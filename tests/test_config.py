"""The site file: what is right is read, what is wrong is named, all at once, with key and line."""

import pytest

from geoalign.config import ONLY, load_config, parse_config, scenes_config
from geoalign.detectors import DETECTORS
from geoalign.errors import ConfigError
from geoalign.keylines import key_lines
from geoalign.registry import loaded_options, source_options
from tests.small_site import processor_seconds

SMALLEST = """
name = "valley"
scenes = "scenes/*.tif"
output = "out"
[grid]
crs = "EPSG:32633"
resolution_m = 10
[register]
reference = "auto"
[[detect]]
detector = "log_ratio"
[vectors]
min_area_m2 = 1000
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scenes").mkdir()
    for sensor in ("optical", "sar"):
        (tmp_path / sensor).mkdir()
    return tmp_path


def problems(text, folder):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, folder=folder)
    return caught.value.problems


def test_the_smallest_site_file_is_enough(folder):
    config = parse_config(SMALLEST, folder=folder)
    assert config.sources == {ONLY: str(folder / "scenes" / "*.tif")}
    assert config.output_folder == folder / "out"
    assert config.vectors.min_area_m2 == 1000
    assert list(config.layers) == ["log_ratio"]
    assert config.register_of(ONLY).reference == "auto"


def test_several_sensors_with_options_of_their_own(folder):
    text = """
name = "valley"
output = "out"
scenes = { optical = "optical/*.tif", sar = "sar/*.tif" }
orbit = { sar = 44 }
[register]
model = "affine"
[register.sar]
reference = "S1A_1"
model = "shift"
[[detect]]
detector = "log_ratio"
on = "sar"
[[detect]]
detector = "log_ratio"
on = "sar"
since = 2024-05-01
"""
    config = parse_config(text, folder=folder)
    assert config.register_of("optical").model == "affine"
    assert (config.register_of("sar").model, config.register_of("sar").reference) == ("shift", "S1A_1")
    assert (config.orbit_of("sar"), config.orbit_of("optical")) == (44, None)
    assert list(config.layers) == ["log_ratio-sar", "log_ratio-sar-2"]
    assert str(config.layers["log_ratio-sar-2"].options["since"]) == "2024-05-01"


def test_alignment_can_be_turned_off_for_all_or_for_one(folder):
    off = SMALLEST.replace('[register]\nreference = "auto"\n', "").replace("[grid]", "register = false\n[grid]")
    assert parse_config(off, folder=folder).register_of(ONLY) is None
    one = SMALLEST.replace('"scenes/*.tif"', '{ optical = "optical/*.tif", sar = "sar/*.tif" }')
    one = one.replace('reference = "auto"', "sar = false").replace('"log_ratio"', '"log_ratio"\non = "sar"')
    config = parse_config(one, folder=folder)
    assert config.register_of("sar") is None
    assert config.register_of("optical").reference == "auto"


def test_everything_wrong_is_named_at_once_with_its_line(folder):
    text = """name = "valley"
scenes = { optical = "optical/*.tif", sar = "nowhere/*.tif" }
outputs = "out"
time = ["2024-01-01", "2024-13-01"]
[grid]
crs = "EPSG:999999"
resolution_m = -3
[register]
modle = "shift"
[register.sar]
max_shift_px = "far"
[[detect]]
detector = "log_ration"
on = "sar"
[[detect]]
detector = "log_ratio"
on = "radar"
alpha = 3
prior = 2
[vectors]
min_area = 1000
formats = ["gpkg", "shp"]
"""
    found = problems(text, folder)
    for line, words in {
        1: ("output: missing",),
        2: ("scenes.sar", "nowhere"),
        3: ("outputs: unknown key", "'output'"),
        4: ("time[2]", "2024-13-01"),
        6: ("grid.crs", "EPSG:999999"),
        7: ("grid.resolution_m", "greater than 0", "-3"),
        9: ("register.modle: unknown key", "'model'"),
        11: ("register.sar.max_shift_px", "'far'"),
        13: ("detect[1].detector", "'log_ratio'"),
        17: ("detect[2].on", "'radar'", "'sar'"),
        18: ("detect[2].alpha: unknown key",),
        19: ("detect[2].prior", "between 0 and 1"),
        21: ("vectors.min_area: unknown key", "'min_area_m2'"),
        22: ("vectors.formats[2]", "'shp'"),
    }.items():
        mine = [p for p in found if p.startswith(f"site.toml:{line}:")]
        assert len(mine) == 1, (line, found)
        assert all(word in mine[0] for word in words), mine[0]
    assert len(found) == 14


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('name = "valley"', 'name = "valley'), ("2:", "not valid TOML")),
        (('output = "out"', 'output = "scenes/a.tif"'), ("4: output", "is a file")),
        (("resolution_m = 10", ""), ("5: grid", "resolution_m is missing")),
        (('"EPSG:32633"', '"EPSG:4326"'), ("6: grid.crs", "degrees")),
        (("resolution_m = 10", "resolution_m = 10\nbbox = [5, 0, 1, 9]"), ("8: grid.bbox", "xmin < xmax")),
        (("resolution_m = 10", "resolution_m = 10\nlike = 'no.tif'"), ("8: grid.like", "does not exist")),
        (("[[detect]]", "[detect]"), ("detect", "two brackets")),
        (('reference = "auto"', 'model = "spline"'), ("register.model", "'spline'", "affine")),
        (('reference = "auto"', 'resampling = "sinc"'), ("register.resampling", "'lanczos'")),
        (('scenes = "scenes/*.tif"', ""), ("scenes: missing",)),
        (('scenes = "scenes/*.tif"', 'scenes = "scenes/*.tif"\nstac = "a.json"'), ("either scenes or stac",)),
        (('scenes = "scenes/*.tif"', "scenes = 3"), ("3: scenes", "string")),
        (("[grid]", 'folder = "x"\n[grid]'), ("folder: unknown key",)),
        (('detector = "log_ratio"', 'detector = "log_ratio"\nsince = "May"'), ("detect[1].since", "'May'")),
        (('detector = "log_ratio"', 'detector = "log_ratio"\nprior = "high"'), ("detect[1].prior", "'high'")),
        (('detector = "log_ratio"', 'detector = "harmonic_cusum"\norder = 2.5'), ("detect[1].order", "int", "2.5")),
        (('detector = "log_ratio"', 'detector = "log_ratio"\nname = "../up"'), ("detect[1].name", "folder")),
        (('detector = "log_ratio"', 'detector = "log_ratio"\nname = ".."'), ("detect[1].name", "folder")),
        (('scenes = "scenes/*.tif"', 'scenes = ""'), ("3: scenes", "is empty")),
        (('scenes = "scenes/*.tif"', 'scenes = ["scenes/a.tif"]'), ("3: scenes", "a string or a table")),
        (('output = "out"', 'output = "out"\norbit = "a"'), ("5: orbit", "a whole number or a table", "'a'")),
        (('output = "out"', 'output = "out"\nproduct = "sentinl1"'), ("5: product", "'sentinl1'", "sentinel1-rtc")),
        (('output = "out"', 'output = "out"\ntime = "2024-12/2024-10"'), ("5: time", "ends before it starts")),
        (('output = "out"', 'output = "out"\ntruth = "scenes"'), ("5: truth", "no truth.json")),
        (('reference = "auto"', 'matcher = "phse"'), ("register.matcher", "'phse'", "'phase'")),
        (('reference = "auto"', 'reference = "auto"\n[mask]\ndilat_px = 2'), ("mask.dilat_px", "'dilate_px'")),
        (("resolution_m = 10", "resolution_m = nan"), ("7: grid.resolution_m", "nan")),
        (("resolution_m = 10", "resolution_m = 10\nbbox = [-5e7, -5e6, 5e7, 5e6]"), ("8: grid.bbox", "1e+07 x 1e+06")),
        (("resolution_m = 10", "resolution_m = 10\nbbox = [1, 2]"), ("8: grid.bbox", "too few", "[1, 2]")),
    ],
)  # fmt: skip
def test_each_mistake_says_where_and_what(folder, change, words):
    (folder / "scenes" / "a.tif").touch()
    assert change[0] in SMALLEST
    text = "\n".join(problems(SMALLEST.replace(*change), folder))
    assert all(word in text for word in words), text


def test_one_mistake_is_told_once(folder):
    assert len(problems(SMALLEST.replace('scenes = "scenes/*.tif"', "scenes = 5"), folder)) == 1
    assert len(problems(SMALLEST.replace("[[detect]]", "[detect]"), folder)) == 1
    assert len(problems(SMALLEST.replace("resolution_m = 10", "resolution_m = 10\nbbox = [1]"), folder)) == 1
    assert len(problems(SMALLEST.replace("resolution_m = 10", "resolution_m = nan"), folder)) == 1


def test_names_of_the_rooms_are_those_that_are_checked():
    from inspect import signature

    from geoalign import sitecheck
    from geoalign.io.products import PROFILES
    from geoalign.masks import optical, sar
    from geoalign.registration import MATCHERS, MODELS

    assert set(sitecheck.MATCHERS) == set(MATCHERS)
    assert set(sitecheck.MODELS) == set(MODELS)
    assert set(sitecheck.PRODUCTS) == {"auto", *PROFILES}
    known = {name for room in (optical, sar) for name in signature(room.screen).parameters}
    assert set(sitecheck.MASKS) == known - {"stack"}


def test_a_byte_order_mark_in_front_of_a_site_file_is_read_over(folder):
    (folder / "site.toml").write_text("\ufeff" + SMALLEST, encoding="utf-8")
    assert load_config(folder / "site.toml").name == "valley"


def test_a_missing_file_a_folder_and_odd_bytes_are_told_apart(tmp_path):
    (tmp_path / "odd.toml").write_bytes(b"name = '\xff'")
    for name, word in (("no.toml", "can't be read"), ("", "is a folder"), ("odd.toml", "UTF-8")):
        with pytest.raises(ConfigError, match=word):
            load_config(tmp_path / name)


def test_one_detector_without_a_file_is_checked_in_the_same_way(folder):
    config = scenes_config(folder / "scenes", "log_ratio", folder / "out", {"prior": 0.1}, register=False)
    assert config.layers["log_ratio"].options == {"prior": 0.1}
    with pytest.raises(ConfigError, match="priors: unknown key; did you mean 'prior'"):
        scenes_config(folder / "scenes", "log_ratio", folder / "out", {"priors": 0.1})


def test_every_detector_of_the_registry_is_accepted(folder):
    for name in DETECTORS:
        assert parse_config(SMALLEST.replace("log_ratio", name), folder=folder).detect[0].detector == name


def test_options_read_from_the_source_are_those_of_the_classes():
    assert source_options() == loaded_options()


def test_lines_are_found_through_strings_comments_arrays_and_inline_tables():
    text = '''# a comment = 1
a = "x # = [" # comment
"b c" = """
d = 1
"""
e = [ # one
  "]", { f = 1, g = 2 },
  3 ]
h.i = { j = { k = '=' } }
[t."u v"]
w = 'C:\\'
[[x]]
y = 1
[[x]]
[x.z]
v = 2024-01-01T00:00:00Z
'''
    lines = key_lines(text)
    expected = {
        ("a",): 2, ("b c",): 3, ("e",): 6, ("e", 0): 7, ("e", 1, "g"): 7, ("e", 2): 8, ("h",): 9,
        ("h", "i", "j", "k"): 9,
        ("t", "u v"): 10, ("t", "u v", "w"): 11, ("x", 0, "y"): 13, ("x", 1): 14, ("x", 1, "z", "v"): 16,
    }  # fmt: skip
    assert {key: lines[key] for key in expected} == expected
    assert ("d",) not in lines


def test_validation_takes_less_than_two_seconds_with_its_imports(folder):
    path = folder / "site.toml"
    path.write_text(SMALLEST)
    code = f"import sys; from geoalign.cli import main; sys.exit(main(['validate', {str(path)!r}]))"
    best = min(processor_seconds(code) for _ in range(2))
    assert best < 2.0, f"{best:.2f} s"
