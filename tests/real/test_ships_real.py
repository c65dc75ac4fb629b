"""Ships on chips with boxes drawn by hand: harbours, open sea, unknown looks and stretch; default settings."""

import csv
import warnings

import numpy as np
import pytest
import rasterio

from geoalign import new_stack
from geoalign.detectors.ships import find

pytestmark = pytest.mark.real


def chips(folder):
    boxes = {}
    with open(folder / "ships.csv") as lines:
        for row in csv.DictReader(lines):
            boxes.setdefault(row["chip"], []).append([float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax")])
    for name, drawn in boxes.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(folder / f"{name}.tif") as source:
                yield name, source.read(1).astype(np.float32), np.array(drawn)


def overlap(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def matched(found, drawn, least):
    """How many boxes are met, each by one of its own, the best first."""
    pairs = sorted(((overlap(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(drawn)), reverse=True)
    one, other = set(), set()
    for value, i, j in pairs:
        if value >= least and i not in one and j not in other:
            one.add(i)
            other.add(j)
    return len(one)


@pytest.mark.parametrize("power", [1, 2])
def test_ships_are_found_with_few_false_ones(real_data, power):
    hits = false = n = n_chip = 0
    for _, look, drawn in chips(real_data / "ships"):
        table = find(new_stack({"hh": look[None] ** power}, ["2020-01-01"]))
        found = table[["xmin", "ymin", "xmax", "ymax"]].to_numpy() + 0.5
        met = matched(found, drawn, 0.3)
        hits, false, n, n_chip = hits + met, false + len(found) - met, n + len(drawn), n_chip + 1
    assert hits / n >= 0.85
    assert false / n_chip <= 1.0
