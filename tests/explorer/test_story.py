"""What the explorer shows is what the data hold: windows at any step, stories of pixels and polygons, marks."""

import numpy as np
import pandas as pd
import pytest

import geoalign
from geoalign import accuracy
from geoalign.errors import ConfigError, StackError
from geoalign.explorer import picture, story
from geoalign.explorer.site import site_of, site_of_run
from tests.small_site import SITE, copy_site, make_scenes
from tests.worlds import geobox

TIME = np.arange("2020-01-01", "2023-01-01", 12, "datetime64[D]")
CHANGED = (slice(4, 8), slice(10, 16))
BREAK = 60


@pytest.fixture(scope="module")
def world():
    """NDVI with a season that falls in a patch; one corner never observed; every seventh scene masked in a column."""
    rng = np.random.default_rng(0)
    season = 0.6 + 0.1 * np.cos(2 * np.pi * np.arange(TIME.size) * 12 / 365.25)
    ndvi = season[:, None, None] + rng.normal(0, 0.02, (TIME.size, 20, 30))
    ndvi[BREAK:, *CHANGED] -= 0.4
    delivered = geoalign.new_stack({"ndvi": ndvi}, TIME, geobox=geobox((20, 30)))
    ndvi = ndvi.copy()
    ndvi[:, :2, :2] = np.nan
    ndvi[::7, :, 12] = np.nan
    stack = geoalign.new_stack({"ndvi": ndvi}, TIME, geobox=geobox((20, 30)))
    changes = geoalign.detect(stack, "harmonic_cusum", since="2021-06-01", order=1)
    return stack, delivered, changes


@pytest.fixture(scope="module")
def site(world):
    stack, delivered, changes = world
    return site_of(stack, changes, delivered=delivered)


def layer_of(site):
    return next(iter(site.layers.values()))


def test_a_window_steps_over_the_grid_and_keeps_within_its_side():
    assert picture.window_for((10980, 10980)) == picture.Window((0, 10980), (0, 10980), 16)
    near = picture.window_for((10980, 10980), (100.2, 420.0), (5000, 5300))
    assert near == picture.Window((100, 420), (5000, 5300), 1)
    with_margin = picture.window_for((100, 100), (40, 60), (0, 20), margin=0.5)
    assert with_margin == picture.Window((30, 70), (0, 30), 1)


def test_a_stepped_window_shows_the_middle_of_each_block(site, world):
    values = site.first.window(3, ["ndvi"], (0, 20), (0, 30), 4)
    assert values.shape == (1, 5, 8)
    np.testing.assert_array_equal(values[0], world[0].ndvi.values[3][2::4][:, [2, 6, 10, 14, 18, 22, 26, 29]])


def test_a_lazy_stack_gives_the_same_and_reads_one_column_of_chunks(world):
    stack, _, changes = world
    read = []

    def watched(block, block_info=None):
        if block_info:
            read.append(block_info[0]["chunk-location"])
        return block

    lazy = stack.chunk({"time": -1, "y": 5, "x": 10})
    lazy["ndvi"] = lazy.ndvi.copy(data=lazy.ndvi.data.map_blocks(watched, dtype="float32"))
    told = story.pixel_story(site_of(lazy, changes), None, 6, 12)
    assert set(read) == {(0, 1, 1)}
    np.testing.assert_array_equal(told.panels["ndvi"]["value"], stack.ndvi.values[:, 6, 12])


def test_a_pixel_tells_its_change_its_masked_observations_and_what_was_expected(site):
    told = story.pixel_story(site, layer_of(site), 6, 12)
    frame = told.panels["ndvi"]
    assert not frame["used"][::7].any()
    assert frame["masked"][::7].notna().all()
    assert frame["masked"].notna().sum() == len(frame[::7])
    assert told.breaks["date"].tolist() == [pd.Timestamp(TIME[BREAK])]
    # the model follows each stretch; that of the first is carried on: what would have been without the change
    off = frame["model"] - frame["value"]
    assert abs(off[:BREAK].median()) < 0.02
    assert abs(off[BREAK:].median()) < 0.02
    assert frame["expected"][:BREAK].isna().all()
    assert (frame["expected"] - frame["value"])[BREAK:].median() == pytest.approx(0.4, abs=0.05)
    words = " ".join(told.words)
    assert f"first seen on {TIME[BREAK]}" in words
    assert "NDVI went from" in words
    assert "5 % of all pixels" in words


def test_no_season_is_read_into_a_short_history(site):
    told = story.pixel_story(site, layer_of(site), 6, 12)
    frame = told.panels["ndvi"].iloc[BREAK - 20 :].reset_index(drop=True)
    model, expected = story._model(layer_of(site), "ndvi", frame, told.breaks)
    before = frame["value"][:20].dropna()
    np.testing.assert_allclose(model[:20], before.median())
    np.testing.assert_allclose(expected[20:], before.median())


def test_every_break_of_a_pixel_has_its_interval_and_its_model():
    time = np.arange("2010-01-01", "2022-01-01", 16, "datetime64[D]")
    first, second = 90, 180
    season = 0.5 + 0.1 * np.cos(2 * np.pi * np.arange(time.size) * 16 / 365.25)
    ndvi = season[:, None, None] + np.random.default_rng(0).normal(0, 0.02, (time.size, 2, 2))
    ndvi[first:second] -= 0.2
    stack = geoalign.new_stack({"ndvi": ndvi}, time, geobox=geobox((2, 2)))
    site = site_of(stack, geoalign.detect(stack, "breaks"))
    told = story.pixel_story(site, layer_of(site), 0, 1)
    assert told.breaks["date"].tolist() == [pd.Timestamp(time[first]), pd.Timestamp(time[second])]
    assert (told.breaks["date_after"] < told.breaks["date"]).all()
    assert (told.breaks["date_by"] >= told.breaks["date"]).all()
    words = " ".join(told.words)
    assert "2 breaks in the series" in words
    assert str(told.breaks["date_after"][0].date()) in words
    frame = told.panels["ndvi"]
    for part in (slice(0, first), slice(first, second), slice(second, None)):
        assert abs((frame["model"] - frame["value"])[part].median()) < 0.02


def test_a_stable_and_an_unseen_pixel_are_told_apart(site):
    stable = story.pixel_story(site, layer_of(site), 15, 25)
    assert stable.breaks.empty
    assert stable.words[0].startswith("No change was found here")
    unseen = story.pixel_story(site, layer_of(site), 0, 0)
    assert unseen.words[0] == "Not observable: never observed."
    with pytest.raises(StackError, match="outside"):
        story.pixel_story(site, layer_of(site), 20, 0)


def test_a_polygon_is_found_where_it_lies_and_tells_its_story(site, world):
    layer = layer_of(site)
    stack = world[0]
    index = story.polygon_at(layer, float(stack.x[12]), float(stack.y[6]))
    assert story.polygon_at(layer, float(stack.x[25]), float(stack.y[15])) is None
    told = story.polygon_story(site, layer, index)
    assert told.before < BREAK <= told.after
    assert f"First seen on {TIME[BREAK]}" in " ".join(told.words)
    assert "(24 pixels)" in told.words[0]


@pytest.mark.parametrize("what", list(picture.OVERLAYS))
def test_overlays_have_colour_where_there_is_something_to_tell(site, world, what):
    window = picture.window_for((20, 30))
    over = picture.overlay(layer_of(site), what, window, site.first, 3)
    status = world[2].status.values
    alpha = np.broadcast_to(over.pixels[..., 3], status.shape) if over.pixels.shape[0] > 1 else None
    if what in ("date", "probability"):
        assert (alpha[status == 3] == 255).all()
    if what == "date":
        assert (alpha[np.isin(status, (0, 255))] == 0).all()
    if what == "status":
        assert (over.pixels[status == 255][:, :3] == picture._rgb(picture.STATUS_COLOURS[255])).all()
        assert ("#D55E00", "confirmed") in over.key
    if what == "observability":
        assert (alpha[:2, :2] == 255).all()
        assert ("#000000", "never observed") in over.key
    if what == "none":
        assert not over.pixels.any()


def test_the_error_of_the_alignment_is_shown_as_a_number_or_a_map(world):
    stack, _, changes = world
    window = picture.window_for((20, 30))
    for sigma in (("time", np.full(TIME.size, 0.2)), (("time", "y", "x"), np.full((TIME.size, 20, 30), 0.2))):
        site = site_of(stack.assign_coords(sigma_px=sigma), changes)
        assert any("0.200 px" in text for _, text in picture.overlay(None, "sigma", window, site.first, 3).key)
    with pytest.raises(ConfigError, match="unknown"):
        picture.overlay(None, "colour", window, site.first, 3)


def test_dates_are_counted_once_a_pixel(site, world):
    assert picture.histogram(layer_of(site), site.first)[str(TIME[BREAK])] == 24


def test_stack_and_changes_must_lie_on_one_grid(world):
    with pytest.raises(StackError, match="one grid"):
        site_of(world[0].isel(x=slice(5)), world[2])


def test_marks_are_kept_and_are_a_reference_for_accuracy(site, world, tmp_path):
    layer, changes = layer_of(site), world[2]
    index = story.polygon_at(layer, float(changes.x[12]), float(changes.y[6]))
    row = layer.polygons.iloc[[index]]
    marks = accuracy.mark(accuracy.mark(None, row, "wrong", layer="a"), row, "wrong", layer="b")
    marks = accuracy.mark(marks, row, "right", layer="a")
    assert marks[["layer", "verdict"]].values.tolist() == [["b", "wrong"], ["a", "right"]]
    for verdict, precision in (("right", 1.0), ("wrong", 0.0)):
        path = geoalign.write_polygons(marks[marks["verdict"] == verdict], tmp_path / f"{verdict}.gpkg")
        reference = accuracy.marked(path, changes)
        score = accuracy.assess(changes, reference.date, valid=reference.valid)
        assert (score.n_pixels, score.precision) == (24, precision)
    assert accuracy.marked(geoalign.write_polygons(marks, tmp_path / "a.geojson"), changes).valid.sum() == 24
    with pytest.raises(ConfigError, match="right or wrong"):
        accuracy.mark(marks, row, "maybe")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on misregistered scenes, one of them broken."""
    folder = tmp_path_factory.mktemp("explored")
    text = SITE.replace("register = false", "[register]\nmodel = 'shift'").replace("5399360, 500640", "5398720, 501280")
    return geoalign.run(copy_site(make_scenes(folder / "made", size=128, misregistration_px=1.0), folder / "a", text))


def test_a_run_is_opened_and_shows_what_its_detector_saw(run):
    site = site_of_run(run.folder.parent.parent)
    view, alignment = site.first, site.first.alignment
    scenes = run.folder.parent.parent.parent / "sar"
    aligned = geoalign.open_stack(scenes, like=alignment.geobox, alignment=alignment)
    names = [str(s) for s in aligned.scene.values]
    k, there = view.scenes.index(names[2]), 2
    whole = view.window(k, ["vv"], (0, 128), (0, 128))[0]
    np.testing.assert_allclose(whole, aligned.vv[there].values, rtol=1e-5)
    part = view.window(k, ["vv"], (40, 60), (80, 120))[0]
    np.testing.assert_allclose(part, whole[40:60, 80:120], rtol=1e-5)
    pixel, _ = view.series(["vv", "vh"], 50, 110)
    order = [view.scenes.index(name) for name in names]
    np.testing.assert_allclose(pixel[1, order], aligned.vh.values[:, 50, 110], rtol=1e-5)
    layer = next(iter(site.layers.values()))
    changes = geoalign.read_changes(run.folder / "layers" / layer.name)
    np.testing.assert_array_equal(layer.window("status", (0, 128), (0, 128)), changes.status.values)
    facts = layer.pixel(50, 110)
    assert facts["date"] == changes.date.values[50, 110] or np.isnat(facts["date"])


def test_a_coarse_look_lies_where_the_fine_one_does(run):
    view = site_of_run(run.folder).first
    fine = view.window(0, ["vv"], (0, 128), (0, 128), aligned=False, masked=False)[0]
    coarse = view.window(0, ["vv"], (0, 128), (0, 128), 4, aligned=False, masked=False)[0]
    assert coarse.shape == (32, 32)
    blocks = np.log(np.nanmean(fine.reshape(32, 4, 32, 4), axis=(1, 3)))

    def alike(dy, dx):
        return np.corrcoef(np.log(coarse)[4:-4, 4:-4].ravel(), np.roll(blocks, (dy, dx), (0, 1))[4:-4, 4:-4].ravel())[
            0, 1
        ]

    assert alike(0, 0) > max(alike(dy, dx) for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)))
