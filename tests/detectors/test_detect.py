"""The door: names and objects, options, sigma_px, and errors that say what to do."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, StateError, check_changes, detect, new_stack
from geoalign.detectors import DETECTORS, make, with_sigma
from geoalign.detectors.harmonic_cusum import HarmonicCusum


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 0.02, (60, 6, 5))
    values[40:, :3] -= 0.2
    return new_stack({"ndvi": values}, np.datetime64("2020-01-01") + np.arange(60) * np.timedelta64(16, "D"))


def test_the_registry_is_plain_and_every_kind_is_named():
    assert {"log_ratio", "omnibus", "harmonic_cusum", "flood", "deforestation", "urbanization"} <= set(DETECTORS)
    for name, cls in DETECTORS.items():
        assert isinstance(cls.kind, str), name
        assert isinstance(cls.needs, tuple), name
        assert cls() == cls(), "detectors are frozen dataclasses"
        assert hash(cls()) == hash(cls())


def test_a_name_with_options_and_an_object_are_the_same(stack):
    by_name = detect(stack, "harmonic_cusum", alpha=0.05, order=1)
    by_object = detect(stack, HarmonicCusum(alpha=0.05, order=1))
    changed_object = detect(stack, HarmonicCusum(order=1), alpha=0.05)
    xr.testing.assert_identical(by_name, by_object)
    xr.testing.assert_identical(by_name, changed_object)
    check_changes(by_name, values=True)


def test_a_detector_of_ones_own(stack):
    @dataclass(frozen=True)
    class Mine:
        level: float = 0.5
        kind: ClassVar[str] = "mine"
        needs: ClassVar[tuple] = ("ndvi",)

        def detect(self, stack):
            return HarmonicCusum(order=0).detect(stack)

    assert int((detect(stack, Mine(), level=0.3).status == 3).sum()) >= 15
    with pytest.raises(ConfigError, match="did you mean 'level'"):
        detect(stack, Mine(), levle=0.3)
    with pytest.raises(StackError, match=r"Mine needs band 'ndvi'.*bands: vv"):
        detect(stack.rename(ndvi="vv"), Mine())


def test_what_a_detector_returns_is_checked(stack):
    class Broken:
        def detect(self, stack):
            return stack

    with pytest.raises(StateError, match="status"):
        detect(stack, Broken())


@pytest.mark.parametrize(("word", "near"), [("fload", "flood"), ("harmonic", "harmonic_cusum"), ("xyz", "omnibus")])
def test_an_unknown_detector_lists_all(stack, word, near):
    with pytest.raises(ConfigError, match=near) as caught:
        detect(stack, word)
    assert all(name in str(caught.value) for name in DETECTORS)


def test_unknown_options_are_all_named_at_once(stack):
    with pytest.raises(ConfigError, match="did you mean 'alpha'") as caught:
        detect(stack, "harmonic_cusum", alhpa=0.1, ordr=2)
    assert len(caught.value.problems) == 2
    assert "since" in caught.value.problems[0]


@pytest.mark.parametrize("what", [HarmonicCusum, 3, None, object()])
def test_what_can_not_detect_is_refused(stack, what):
    with pytest.raises(ConfigError, match=r"object with detect\(stack\)"):
        detect(stack, what)


def test_options_can_not_be_set_on_a_plain_object(stack):
    class Plain:
        def detect(self, stack):
            return None

    with pytest.raises(ConfigError, match="can't be set on a Plain"):
        make(Plain(), alpha=0.1)


def test_sigma_px_is_taken_set_or_dropped(stack):
    own = stack.assign_coords(sigma_px=("time", np.full(60, 0.2)))
    assert with_sigma(own, None) is own
    assert "sigma_px" not in with_sigma(own, 0).coords
    np.testing.assert_array_equal(with_sigma(stack, 0.5).sigma_px, 0.5)
    for bad in (-1, np.nan, "much"):
        with pytest.raises(ConfigError, match="sigma_px"):
            with_sigma(stack, bad)


def test_sigma_px_over_the_image_is_taken_too(stack):
    field = xr.full_like(stack.ndvi, 0.3)
    found = detect(stack.assign_coords(sigma_px=field), "harmonic_cusum", order=1)
    xr.testing.assert_allclose(
        found.probability, detect(stack, "harmonic_cusum", order=1, sigma_px=0.3).probability, atol=1e-6
    )


def test_not_a_stack_is_refused():
    with pytest.raises(StackError, match="Stack"):
        detect(np.ones((3, 4, 4)), "flood")
