"""How Changes, an Alignment and a Simulation show themselves: what matters, in words and in a notebook's HTML."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import geoalign
from tests.test_plot import alignment, made


class Closed(HTMLParser):
    """Every tag is closed in its order."""

    VOID = ("img", "br")

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_changes_are_told_in_figures():
    changes = made(place=(slice(5, 9), slice(10, 20)))
    told = changes.geoalign.summary()
    assert told.lines[0] == "40 of 2,400 pixels changed = 0.40 ha, on 2024-05-01"
    assert told.lines[1] == "180 pixels (7.5 %) could not be seen"
    assert "never observed: 180 pixels" in repr(told)
    lazy = geoalign.summary(changes.chunk({"y": 7, "x": 11}))
    assert repr(lazy) == repr(told)
    assert geoalign.summary(made(place=(slice(0, 0), slice(0, 0)))).lines[0] == "none of 2,400 pixels changed"


def test_changes_show_a_map_in_a_notebook():
    html = made().geoalign.summary()._repr_html_()
    Closed(html)
    assert "data:image/png;base64," in html
    assert "2024-05-01" in html
    assert not re.search(r"https?://|<script", html)


def test_an_alignment_says_how_well_it_lies_and_what_does_not():
    text = repr(alignment())
    assert text == (
        "<Alignment: 3 scenes on a (1 aligned, 1 rejected); held-out points within 0.20 px (median), 0.20 px (worst); "
        "c: flat>"
    )
    html = alignment()._repr_html_()
    Closed(html)
    assert html.count("<tr>") == 4
    assert "flat" in html


@pytest.mark.parametrize("events", [True, False])
def test_a_simulation_says_what_it_holds_without_rendering_it(events):
    made = geoalign.simulate(size=64, n_optical=3, n_sar=4, seed=5, events=events)
    assert repr(made).startswith("<Simulation of 64 x 64 px, seed 5; 3 optical and 4 sar scenes; ")
    assert ("planted: " in repr(made)) is events
    html = made._repr_html_()
    Closed(html)
    assert not {"optical", "sar"} & set(vars(made))
    if events:
        first = np.nanmin(made.truth.dates.to_dataarray().values.astype("datetime64[D]"))
        assert str(first) in html
