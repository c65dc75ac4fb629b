import numpy as np

from geoalign.kernels.dates import NO_TIME, day_numbers, times_of


def test_scene_numbers_become_times_and_those_of_no_scene_none():
    stamps = np.array(["1969-12-31T23:59:59.999999999", "2024-02-29T12:00", "NaT"], "datetime64[ns]")
    for numbers in (np.array([0, 1, 2, -1, 3, -(2**31), 2**31 - 1], np.int32), np.array([1, 0, 65535], np.uint16)):
        found = times_of(numbers, stamps.view(np.int64)).view("datetime64[ns]")
        naive = [stamps[n] if 0 <= n < 3 else np.datetime64("NaT", "ns") for n in numbers.tolist()]
        np.testing.assert_array_equal(found, np.array(naive))


def test_days_are_those_of_numpy_before_1970_too():
    rng = np.random.default_rng(0)
    times = rng.integers(-(2**62), 2**62, 500)
    times[:4] = NO_TIME, -1, 0, 86_399_999_999_999
    stamps = times.view("datetime64[ns]")
    days = stamps.astype("datetime64[D]").astype(np.int64)
    naive = [-7 if np.isnat(s) else d for s, d in zip(stamps, days.tolist())]
    assert day_numbers(times, np.int32(-7)).tolist() == naive
