"""The report page: it stands alone, says what was found and what was not, and escapes what it is given."""

import json
import re
from html.parser import HTMLParser

import geopandas as gpd
import pytest

from geoalign import publish, run
from geoalign.errors import StateError
from geoalign.report import MOST_POLYGONS, html_report, write_report
from tests.small_site import SITE, copy_site, make_scenes

NASTY = "<script>alert('x')</script> & \\\"more\\\""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    text = SITE.replace('"small"', f'"{NASTY}"').replace("register = false", "[register]\nmodel = 'shift'")
    text = text.replace("5399360, 500640", "5398400, 501600")
    site = copy_site(make_scenes(folder / "made", size=160, misregistration_px=1.0), folder / "copy", text)
    bad = sorted((folder / "copy" / "sar").iterdir())[1]
    bad.write_bytes(b"<html>not found</html>")
    return run(site, then=[write_report])


@pytest.fixture(scope="module")
def page(done):
    return done.report.read_text()


class Checker(HTMLParser):
    """Every tag closed in order; what pages may fetch is collected."""

    VOID = {"meta", "img", "input", "br", "path", "use"}

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.fetched, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "srcset", "data") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_is_whole_and_well_formed(page):
    checker = Checker()
    checker.feed(page)
    assert checker.wrong == []
    assert checker.open == []
    assert len(page) < 10e6


def test_the_page_asks_nothing_of_the_network(page):
    checker = Checker()
    checker.feed(page)
    assert checker.fetched
    assert all(source.startswith("data:") for source in checker.fetched)
    assert "link" not in checker.tags
    assert not re.search(r"url\(\s*['\"]?(?!#)", page)
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_text_from_data_is_escaped(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_page_says_what_was_found_and_what_was_left_out(done, page):
    layer = done.layers["log_ratio"]
    assert f"{layer['area_ha']:,.1f} ha" in page
    for words in (
        "What was found",
        "Before and after",
        "How the scenes lie",
        "Scenes left out",
        "What could not be seen",
    ):
        assert words in page
    for skipped in done.skipped:
        assert skipped["scene"] in page
    for scene in done.registration["scene"]:
        assert scene in page
    assert done.run_id in page


def test_the_figures_are_those_of_the_summary_and_of_the_polygons(done, page):
    document = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))
    for name, layer in document["layers"].items():
        found = next(row for row in re.findall(r"<tr>.*?</tr>", page) if f"<td>{name}</td>" in row)
        total = sum(layer["pixels"].values())
        assert f"{layer['area_ha']:,.1f} ha" in found
        assert f"<td class=n>{layer['polygons']:,}</td>" in found
        assert min(layer["dates"]) in found
        assert max(layer["dates"]) in found
        assert f"{100 * layer['pixels']['not_observable'] / total:.1f} %" in found
        table = page[page.index(f"<h3>{name}</h3>") :]
        table = table[table.index("class=sortable") : table.index("</table>")]
        frame = gpd.read_file(done.folder / "layers" / name / "changes.gpkg", use_arrow=True)
        assert table.count("<tr>") == len(frame) + 1 <= MOST_POLYGONS + 1
        for record in frame.itertuples():
            assert f"{record.start_date}" in table
            assert f"<td class=n>{record.area_ha:.2f}</td>" in table
            place = gpd.GeoSeries([record.geometry], crs=frame.crs).representative_point().to_crs(4326)[0]
            assert f"{place.y:.4f}, {place.x:.4f}" in table


def test_the_same_run_gives_the_same_page(done, page):
    again = html_report(done.folder)
    strip = re.compile(r"Peak memory so far [\d,]+ MB|<td class=n>[\d.]+ s</td>|<tr><td>report</td></tr>")
    assert len(strip.sub("", again)) == pytest.approx(len(strip.sub("", page)), abs=200)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(StateError, match="holds no run"):
        write_report(tmp_path)


def test_a_page_written_again_is_known_to_the_manifest(tmp_path):
    result = run(copy_site(make_scenes(tmp_path / "scenes"), tmp_path / "site"))
    write_report(result.folder)
    assert publish.verify(result.folder) == []
