"""The notebooks and the explorer in a real JupyterLab in a real browser, without a network.

Needs `pip install 'geoalign[viz]' playwright` and a Chromium; skipped where one of them is absent. With
GEOALIGN_SCREENSHOTS, a folder, every notebook is kept as it looked, in pieces.
"""

import os
import sys
from pathlib import Path

import nbformat
import pytest

from tests.clients import lab
from tests.clients.browser import CHROMIUM, SHOWN, browser, click_at

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install 'geoalign[viz]'")
pytest.importorskip("panel", reason="the explorer needs panel: pip install 'geoalign[viz]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

NOTEBOOKS = sorted((lab.ROOT / "notebooks").glob("*.ipynb"))

LOOK = """\
import geoalign

events = ("flood", "clearing")
made = geoalign.simulate(size=96, seed=8, sensors=("sar",), n_sar=16, events=events, misregistration_px=0)
changes = {name: geoalign.detect(made.sar, name).compute() for name in ("flood", "deforestation")}
best = max(changes, key=lambda name: int((changes[name].status >= 3).sum()))
rows, cols = ((changes[best].status >= 3) & (changes[best].status <= 4)).values.nonzero()
print("changed at", best, rows[0], cols[0], float(changes[best].x[cols[0]]), float(changes[best].y[rows[0]]))"""


@pytest.fixture(scope="module")
def driver():
    with playwright.sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with lab.jupyterlab(tmp_path_factory.mktemp("lab")) as (address, work):
        write(work / "notebooks" / "look.ipynb", [LOOK, "made.sar.geoalign.explore(changes)", "note = 1"])
        yield address


@pytest.fixture
def opened(driver, tmp_path, address):
    """A browser page; whatever is done in it, it asks nobody but this machine and complains of nothing."""
    with browser(driver, tmp_path / "profile") as (page, seen):
        yield page
        assert seen.strangers() == set()
        assert seen.errors == []
    lab.close(address)


def write(path, cells):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, path)


def keep(page, name):
    if "GEOALIGN_SCREENSHOTS" in os.environ:
        lab.shoot(page, Path(os.environ["GEOALIGN_SCREENSHOTS"]) / name)


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_a_notebook_runs_without_a_complaint_and_shows_pictures(opened, address, name):
    lab.open_notebook(opened, address, f"notebooks/{name}")
    took = lab.run_all(opened)
    sys.stderr.write(f"{name} ran in {took:.0f} s\n")
    opened.wait_for_timeout(500)
    cells = lab.outputs(opened)
    keep(opened, name.removesuffix(".ipynb"))
    assert not any(cell["error"] for cell in cells)
    assert [cell["complaint"] for cell in cells if cell["complaint"]] == []
    assert sum(cell["pictures"] for cell in cells) >= 1
    # a picture near the top
    assert any(cell["pictures"] for cell in cells[:3])


def test_the_explorer_lives_in_a_cell(opened, address):
    expect = playwright.expect
    expect.set_options(timeout=30_000)
    lab.open_notebook(opened, address, "notebooks/look.ipynb")
    lab.run_all(opened)
    opened.locator(".geoalign-map").first.wait_for()
    opened.locator(".geoalign-map").first.scroll_into_view_if_needed()
    opened.wait_for_timeout(1000)
    said = lab.outputs(opened)[0]["text"].split("changed at ")[1].split()
    layer, row, col, x, y = said[0], *map(int, said[1:3]), *map(float, said[3:5])
    opened.get_by_label("Changes").select_option(layer)
    opened.wait_for_timeout(500)
    before, after = opened.evaluate(SHOWN)
    assert 0.3 < before < 1
    assert 0.3 < after < 1

    click_at(opened, x, y)
    expect(opened.get_by_text(f"row {row}, column {col}")).to_be_visible()
    expect(opened.get_by_text("confirmed: first seen on")).to_be_visible()
    expect(opened.get_by_text("Mean probability")).to_be_visible()
    keep(opened, "widget")

    # with the pointer over it the keys are the explorer's
    opened.keyboard.press("]")
    assert opened.evaluate(SHOWN)[0] > before
    # in a cell they are the cell's
    middle = opened.evaluate(SHOWN)[0]
    cell = opened.locator(".jp-CodeCell").last
    cell.locator(".cm-content").click()
    opened.keyboard.type("[3]")
    expect(cell.locator(".cm-content")).to_contain_text("[3]")
    assert opened.evaluate(SHOWN)[0] == middle
