"""The table of faults names tests that exist, and leaves none of the 46 out."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if re.match(r"\| \d+ \|", line)]


def test_all_46_faults_are_there_in_order():
    assert [int(row.split("|")[1]) for row in ROWS] == list(range(1, 47))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_test_that_is_named_exists(row):
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row)
    assert named
    for path, name in named:
        text = (ROOT / path).read_text()
        assert not name or re.search(rf"^def {name}\(", text, re.MULTILINE), f"{path} has no {name}"
    for script in re.findall(r"`(benchmarks/\w+\.py)`", row):
        assert (ROOT / script).is_file()
