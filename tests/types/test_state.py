from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

from geoalign import StateError, check_state, new_changes, new_stack, new_state
from geoalign.detectors import DETECTORS
from geoalign.registration import MATCHERS
from geoalign.types.changes import CONFIRMED, NO_CHANGE, dates_at
from geoalign.types.plugins import Detector, Matcher, Online


def make(**changed):
    level = xr.DataArray(np.zeros((2, 3), "f4"), dims=("y", "x"))
    options = {"detector": "Ewma()", "last_time": np.datetime64("2024-01-05"), "n_scenes": 3} | changed
    return new_state({"level": level}, **options)


def test_a_state_knows_its_detector_and_how_far_it_got(tmp_path):
    state = make()
    state.to_zarr(tmp_path / "state.zarr")
    again = xr.open_zarr(tmp_path / "state.zarr")
    assert check_state(again, detector="Ewma()", variables=["level"]).attrs["last_time"].startswith("2024-01-05")


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda s: s.level, "Dataset"),
        (lambda s: s.assign_attrs(state_version=99), "version 99"),
        (lambda s: s.drop_attrs(), "missing"),
        (lambda s: s.assign(level=s.level.astype(object)), "numbers"),
        (lambda s: s.assign(n=("k", [1])), "end with"),
    ],
)
def test_what_does_not_fit_is_said(broken, says):
    with pytest.raises(StateError, match=says):
        check_state(broken(make()))


def test_a_state_is_refused_to_another_detector():
    with pytest.raises(StateError, match=r"made by Ewma\(\), not by Ewma\(keep=0.5\)"):
        check_state(make(), detector="Ewma(keep=0.5)")
    with pytest.raises(StateError, match="no sigma"):
        check_state(make(), variables=["sigma"])
    with pytest.raises(StateError, match="at least one"):
        new_state({}, detector="x", last_time="2024-01-01", n_scenes=0)


@dataclass(frozen=True)
class Watch:
    """A bare watching detector: the smallest that keeps the promises."""

    limit: float = 5.0
    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ("a",)

    def start(self, history):
        variables = {"level": history.a.isel(time=0, drop=True), "first": xr.full_like(history.a[0], -1, "int32")}
        first = xr.zeros_like(variables["first"], dtype="datetime64[ns]") + np.timedelta64("NaT")
        variables |= {"first": first.reset_coords(drop=True), "n": xr.ones_like(history.a[0], dtype="uint16")}
        variables = {k: v.reset_coords(drop=True) for k, v in variables.items()}
        return new_state(variables, detector=repr(self), last_time=history.time.values[0], n_scenes=1)

    def update(self, state, scenes):
        check_state(state, detector=repr(self))
        out = state.copy()
        for k, time in enumerate(scenes.time.values):
            high = (scenes.a.isel(time=k) > out.level + self.limit).reset_coords(drop=True)
            out["first"] = xr.where(high & out["first"].isnull(), time, out["first"]).astype("datetime64[ns]")
            out["n"] = (out.n + scenes.a.isel(time=k).notnull().astype("uint16")).reset_coords(drop=True)
        n = state.attrs["n_scenes"] + scenes.sizes["time"]
        return out.assign_attrs(state.attrs, last_time=str(scenes.time.values[-1]), n_scenes=n)

    def report(self, state):
        hit = state["first"].notnull()
        index = xr.where(hit, 0, -1)
        none = dates_at(index * 0 - 1, [])
        layers = {
            "status": xr.where(hit, CONFIRMED, NO_CHANGE).astype("uint8"),
            "date": state["first"],
            "date_after": none,
            "date_by": state["first"],
            "magnitude": state.level * 0,
            "direction": hit.astype("int8"),
            "probability": hit.astype("f4"),
            "n_obs": state.n,
            "why": hit.astype("uint16") * 0,
        }
        return new_changes(layers, kind=self.kind, detector=repr(self))

    def detect(self, stack):
        return self.report(self.update(self.start(stack.isel(time=[0])), stack.isel(time=slice(1, None))))


def test_two_visits_are_one():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 4, 5))
    values[6:, 1, 1] += 20
    stack = new_stack({"a": values}, np.datetime64("2024-01-01") + np.arange(9))
    watch = Watch()
    started = watch.start(stack.isel(time=[0]))
    halves = watch.update(watch.update(started, stack.isel(time=slice(1, 5))), stack.isel(time=slice(5, 9)))
    xr.testing.assert_identical(watch.report(halves), watch.detect(stack))
    assert watch.report(halves).date.values[1, 1] == stack.time.values[6]


def test_plug_ins_fit_their_protocols():
    assert isinstance(Watch(), Online)
    assert all(isinstance(cls(), Detector) for cls in DETECTORS.values())
    assert all(isinstance(cls(), Matcher) for cls in MATCHERS.values())
