import numpy as np
import pytest
import xarray as xr

from geoalign import StateError, check_changes, new_changes
from geoalign.types.changes import CONFIRMED, NOT_OBSERVABLE, WHY, changed, dates_at, why_names

TIMES = np.array(["2024-01-01", "2024-01-13", "2024-01-25"], "datetime64[ns]")


def layers(status=((0, CONFIRMED), (0, NOT_OBSERVABLE)), why=((0, 0), (0, 1)), first=((-1, 1), (-1, -1)), **other):
    index = xr.DataArray(np.array(first), dims=("y", "x"))
    out = {
        "status": np.array(status, np.uint8),
        "magnitude": np.zeros((2, 2)),
        "direction": np.zeros((2, 2)),
        "probability": np.full((2, 2), 0.5),
        "n_obs": np.full((2, 2), 3),
        "why": np.array(why),
    }
    out = {k: xr.DataArray(v, dims=("y", "x")) for k, v in (out | other).items()}
    before = xr.where(index > 0, index - 1, -1)
    return out | {
        "date": dates_at(index, TIMES),
        "date_after": dates_at(before, TIMES),
        "date_by": dates_at(index, TIMES),
    }


def make(**options):
    return new_changes(layers(**options), kind="flood", detector="Test()", magnitude_units="dB", inputs=["a", "b"])


def test_layers_get_their_types_and_meanings():
    found = check_changes(make(), values=True)
    assert found.status.attrs["flag_meanings"].split()[3] == "confirmed"
    assert found.magnitude.dtype == np.float32
    assert found.magnitude.attrs["units"] == "dB"
    assert found.date.values[0, 1] == TIMES[1]
    assert np.isnat(found.date.values[0, 0])
    assert changed(found).values.tolist() == [[False, True], [False, False]]
    assert found.attrs["inputs"] == "a b"


def test_dates_at_is_lazy_and_knows_none():
    index = xr.DataArray(np.array([[0, 2], [-1, 7]]), dims=("y", "x"))
    eager = dates_at(index, TIMES)
    xr.testing.assert_identical(eager, dates_at(index.chunk(x=1), TIMES).compute())
    assert np.isnat(eager.values[1]).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"status": ((9, CONFIRMED), (0, 0))}, "status holds"),
        ({"first": ((-1, -1), (-1, -1))}, "a date is needed"),
        ({"first": ((1, 1), (-1, -1))}, "a date is needed"),
        ({"probability": np.full((2, 2), 1.5)}, "probability"),
        ({"why": ((0, 0), (0, 0))}, "reason"),
    ],
)
def test_broken_promises_are_found(options, says):
    with pytest.raises(StateError, match=says):
        check_changes(make(**options), values=True)


def test_a_missing_layer_or_wrong_type_is_named():
    whole = make()
    with pytest.raises(StateError, match="'n_obs'"):
        check_changes(whole.drop_vars("n_obs"))
    with pytest.raises(StateError, match="status is int64"):
        check_changes(whole.assign(status=whole.status.astype("int64")))
    with pytest.raises(StateError, match="date_by is missing"):
        new_changes({k: v for k, v in layers().items() if k != "date_by"}, kind="x", detector="x")


def test_reasons_have_names():
    assert why_names(WHY["cloud"] | WHY["too_few"]) == ["too_few", "cloud"]
