"""The explorer in a real browser, on a run of the demo's scenes: what a hand does, and what the page then shows.

Needs `pip install 'geoalign[viz]' playwright` and a Chromium; skipped where one of them is absent. GEOALIGN_DEMO_RUN
names a run of `data/site.toml` that is there already; without it one is made, which takes a minute or two. With
GEOALIGN_SCREENSHOTS, a folder, the page is kept as it looked.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import geoalign
from geoalign.config import load_config
from tests.clients.browser import CHROMIUM, SHOWN, browser, click_at, keep

pytest.importorskip("panel", reason="the explorer needs panel: pip install 'geoalign[viz]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    given = os.environ.get("GEOALIGN_DEMO_RUN")
    if given:
        return Path(given)
    config = load_config(ROOT / "data" / "site.toml")
    return geoalign.run(config.model_copy(update={"output": str(tmp_path_factory.mktemp("demo"))})).folder


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    """The explorer served as a user would; its marks go to a folder of their own."""
    code = (
        "import sys; from geoalign.explorer import serve\n"
        "serve(sys.argv[1], marks=sys.argv[2], browser=False, ready=lambda a: print(a, flush=True))"
    )
    marks = tmp_path_factory.mktemp("marks") / "reference.gpkg"
    process = subprocess.Popen([sys.executable, "-c", code, run, marks], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    said = process.stdout.readline().strip()
    if not said:
        process.wait(10)
        pytest.fail("the explorer ended before it told its address; its words are above", pytrace=False)
    yield said, marks
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def driver():
    with playwright.sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def opened(driver, address, tmp_path_factory):
    playwright.expect.set_options(timeout=30_000)
    profile = tmp_path_factory.mktemp("profile")
    with browser(driver, profile, width=1340, height=1130) as (page, seen):
        start = time.perf_counter()
        page.goto(address[0])
        page.locator(".geoalign-map").first.wait_for()
        sys.stderr.write(f"the page was there after {time.perf_counter() - start:.1f} s\n")
        page.wait_for_timeout(1500)
        yield page, seen
        keep(page, "last")


@pytest.fixture
def page(opened):
    page, seen = opened
    yield page
    page.wait_for_timeout(300)
    assert seen.errors == []
    assert seen.strangers() == set()


@pytest.fixture(scope="module")
def polygon(run):
    """The largest patch of the first layer: its id, a place within it, and one outside all."""
    from geoalign.explorer.site import site_of_run

    site = site_of_run(run)
    layer = next(iter(site.layers.values()))
    row = layer.polygons.sort_values("n_pixels").iloc[-1]
    inside = row.geometry.representative_point()
    return site, layer, row["id"], (inside.x, inside.y)


def test_it_opens_with_a_map_under_a_swipe(page):
    before, after = page.evaluate(SHOWN)
    assert 0.3 < before < 1
    assert 0.3 < after < 1
    assert page.get_by_text("date of change", exact=True).count() >= 1
    keep(page, "opened")


def test_the_swipe_goes_from_all_before_to_all_after(page):
    for _ in range(12):
        page.keyboard.press("]")
    assert page.evaluate(SHOWN)[0] == 1
    for _ in range(12):
        page.keyboard.press("[")
    assert page.evaluate(SHOWN)[1] == 1
    for _ in range(5):
        page.keyboard.press("]")


def test_arrow_keys_and_the_slider_move_in_time(page):
    title = page.locator(".bk-slider-title").filter(has_text="after:")
    first = title.inner_text()
    page.keyboard.press("ArrowLeft")
    playwright.expect(title).not_to_have_text(first)
    second = title.inner_text()
    handle = page.locator(".noUi-handle").nth(1)  # that of the opacity is the first
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 120, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    playwright.expect(title).not_to_have_text(second)
    keep(page, "earlier")


def test_a_click_on_a_pixel_shows_its_series_and_the_evidence(page, polygon):
    site, _, _, (x, y) = polygon
    click_at(page, x, y)
    col, row = (int(v) for v in ~site.first.transform * (x, y))
    playwright.expect(page.get_by_text(f"row {row}, column {col}")).to_be_visible()
    playwright.expect(page.get_by_text(": first seen on")).to_be_visible()
    playwright.expect(page.get_by_text("observations could be used")).to_be_visible()


def test_a_click_on_a_polygon_tells_its_story_and_marks_are_saved(page, polygon, address):
    import geopandas as gpd

    _, layer, name, (x, y) = polygon
    click_at(page, x, y)
    playwright.expect(page.get_by_text("Mean probability")).to_be_visible()
    playwright.expect(page.get_by_alt_text("before", exact=True)).to_be_visible()
    playwright.expect(page.get_by_alt_text("after", exact=True)).to_be_visible()
    for verdict in ("wrong", "right"):
        page.get_by_role("button", name=verdict.capitalize()).click()
        playwright.expect(page.get_by_text(f"Marked {verdict}.")).to_be_visible()
        saved = gpd.read_file(address[1], use_arrow=True)
        assert saved[["id", "layer", "verdict"]].values.tolist() == [[name, layer.name, verdict]]
    keep(page, "polygon")


@pytest.mark.parametrize("what", ["probability", "status", "observability (why not)", "alignment error (σ)"])
def test_every_layer_can_be_laid_over(page, what):
    page.get_by_label("Layer").select_option(what)
    playwright.expect(page.locator("b", has_text=what)).to_be_visible()
    keep(page, what.split()[0])


def test_detectors_are_compared_side_by_side(page, polygon):
    other = list(polygon[0].layers)[-1]
    page.get_by_label("Layer").select_option("date of change")
    page.get_by_label("Beside it").select_option(other)
    playwright.expect(page.locator(".geoalign-map").nth(1)).to_be_visible()
    page.wait_for_timeout(1500)
    keep(page, "beside")
    page.get_by_label("Beside it").select_option("nothing")
    playwright.expect(page.locator(".geoalign-map").nth(1)).not_to_be_visible()


def test_another_layer_brings_its_scenes(page, polygon):
    site = polygon[0]
    first = next(iter(site.layers.values()))
    other = next((layer for layer in site.layers.values() if layer.stack != first.stack), None)
    if other is None:
        pytest.skip("this run has one stack")
    page.get_by_label("Changes").select_option(other.name)
    playwright.expect(page.get_by_label("Scenes")).to_have_value(other.stack)
    scenes = site.stacks[other.stack].scenes
    title = page.locator(".bk-slider-title").filter(has_text="after:")
    playwright.expect(title).to_contain_text(scenes[0][:4])
    page.wait_for_timeout(500)
    keep(page, "sar")


def test_the_registration_can_be_judged(page):
    page.get_by_text("Registration", exact=True).click()
    playwright.expect(page.get_by_text("predicted error")).to_be_visible()
    page.get_by_role("button", name="as delivered").click()
    page.get_by_role("button", name="Flicker").click()
    page.wait_for_timeout(1500)
    keep(page, "registration")
    playwright.expect(page.get_by_text("Left out")).to_be_visible()


REJECTING = """
import numpy as np, xarray as xr, geoalign
from geoalign.explorer.app import start

made = geoalign.simulate(size=128, seed=2, sensors=("sar",), n_sar=6, events=(), misregistration_px=1.0)
stack = made.sar.compute()
odd = stack.isel(time=[2]).map(lambda band: band[:, ::-1, ::-1])
odd = odd.assign_coords(scene=("time", ["UPSIDE_DOWN"]), time=odd.time.values + np.timedelta64(3, "D"))
odd = odd.assign_coords(y=stack.y, x=stack.x)
stack = xr.concat([stack, odd], "time", combine_attrs="drop_conflicts").sortby("time")
alignment = geoalign.coregister(stack)
print(alignment.report.set_index("scene").reason["UPSIDE_DOWN"], flush=True)
aligned = alignment.apply(stack)
page = lambda: geoalign.explore(aligned, alignment=alignment, delivered=stack)
start(page, port=0, address="127.0.0.1", browser=False, ready=lambda a: print(a, flush=True))
"""


def test_a_rejected_scene_is_shown_with_its_reason(driver, tmp_path):
    expect = playwright.expect
    expect.set_options(timeout=30_000)
    command = [sys.executable, "-c", REJECTING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            reason, address = (process.stdout.readline().strip() for _ in range(2))
            assert reason
            with browser(driver, tmp_path / "profile", height=1100) as (page, seen):
                page.goto(address)
                page.get_by_text("Registration", exact=True).click()
                row = page.get_by_role("row").filter(has_text="UPSIDE_DOWN")
                expect(row).to_contain_text("rejected")
                expect(row).to_contain_text(reason[:60])
                # it can be looked at as it was delivered, and its points with why each was refused
                handle = page.locator(".noUi-handle").last
                handle.focus()
                for _ in range(7):
                    page.keyboard.press("ArrowRight")
                title = page.locator(".bk-slider-title").filter(has_text="scene:")
                for _ in range(7):
                    if "UPSIDE_DOWN" in title.inner_text():
                        break
                    page.keyboard.press("ArrowLeft")
                    page.wait_for_timeout(700)
                expect(title).to_contain_text("UPSIDE_DOWN")
                expect(page.locator("h3", has_text="UPSIDE_DOWN: rejected")).to_be_visible()
                keep(page, "rejected")
                assert seen.errors == []
                assert seen.strangers() == set()
        finally:
            process.terminate()
