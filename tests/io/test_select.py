import numpy as np
import pytest

from geoalign.errors import ConfigError
from geoalign.io.select import time_range


@pytest.mark.parametrize(
    ("time", "first", "last"),
    [
        ("2024", "2024-01-01", "2024-12-31T23:59:59"),
        ("2024-02", "2024-02-01", "2024-02-29T23:59:59"),
        ("2024-02-03", "2024-02-03", "2024-02-03T23:59:59"),
        ("2024-01-01/2024-02", "2024-01-01", "2024-02-29T23:59:59"),
        (("2024-01-01T06:00:00+02:00", "2024-01-02"), "2024-01-01T04:00:00", "2024-01-02T23:59:59"),
        (slice("2024", "2025"), "2024-01-01", "2025-12-31T23:59:59"),
        (("2024", np.datetime64("2024-03-01T12:00")), "2024-01-01", "2024-03-01T12:00:00"),
    ],
)
def test_both_ends_are_included(time, first, last):
    found = time_range(time)
    assert found[0] == np.datetime64(first)
    assert found[1].astype("datetime64[s]") == np.datetime64(last)


def test_an_end_may_be_open():
    assert time_range("2024/..")[1] > np.datetime64("2200-01-01")
    assert time_range((None, "2024"))[0] < np.datetime64("1800-01-01")


@pytest.mark.parametrize("time", ["soon", "2024/2025/2026", ("2025", "2024"), "2024-13"])
def test_what_is_no_time_says_so(time):
    with pytest.raises(ConfigError, match=r"2024-01-01/2024-06-30|ends before"):
        time_range(time)
