import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.heterogeneous import Heterogeneous
from geoalign.types.changes import WHY

POWER = np.array([0.05, 0.09, 0.14, 0.2, 0.01])
REFLECTANCE = np.array([[0.05, 0.08, 0.3], [0.08, 0.1, 0.25], [0.15, 0.14, 0.2], [0.04, 0.06, 0.4], [0.06, 0.05, 0.02]])


def ground(seed, shape=(120, 130)):
    """Classes before and after: 10 x 10 px fields of four kinds, a lake that grows; and where it grew."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.integers(0, 4, (shape[0] // 10, shape[1] // 10)), np.ones((10, 10), int))
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    before, after = fields.copy(), fields.copy()
    before[np.hypot(rows - 60, cols - 50) < 18] = 4
    after[np.hypot(rows - 60, cols - 60) < 30] = 4
    after[before == 4] = 4
    return before, after, before != after


def radar(classes, seed, looks=4):
    return (POWER[classes] * np.random.default_rng(seed).gamma(looks, 1 / looks, classes.shape))[None]


def optical(classes, seed):
    rng = np.random.default_rng(seed)
    return {
        name: (REFLECTANCE[classes][..., k] * rng.normal(1, 0.08, classes.shape))[None]
        for k, name in enumerate(("red", "green", "nir"))
    }


def pair(order="radar first", seed=0, looks=4):
    before, after, truth = ground(seed)
    if order == "radar first":
        first = new_stack({"vv": radar(before, seed, looks)}, ["2024-01-01"], scene=["a"])
        second = new_stack(optical(after, seed), ["2024-03-01"], scene=["b"])
    else:
        first = new_stack(optical(before, seed), ["2024-01-01"], scene=["a"])
        second = new_stack({"vv": radar(after, seed, looks)}, ["2024-03-01"], scene=["b"])
    return {"one": first, "other": second}, truth


def kappa(found, truth):
    hit = found.status.values == 3
    agree = (hit == truth).mean()
    chance = hit.mean() * truth.mean() + (1 - hit.mean()) * (1 - truth.mean())
    return (agree - chance) / (1 - chance)


@pytest.mark.parametrize("looks", [1, 4])
@pytest.mark.parametrize("order", ["radar first", "optical first"])
def test_what_changed_between_radar_and_optical_is_found(order, looks):
    stacks, truth = pair(order, looks=looks)
    found = check_changes(detect(stacks, "heterogeneous"), values=True)
    assert kappa(found, truth) > 0.75
    hit = (found.status.values == 3) & truth
    assert (found.date.values[hit].astype("datetime64[D]") == np.datetime64("2024-03-01")).all()
    assert (found.date_after.values[hit].astype("datetime64[D]") == np.datetime64("2024-01-01")).all()
    p = found.probability.values
    assert np.mean((p - truth) ** 2) < 0.5 * truth.mean() * (1 - truth.mean())
    assert found.magnitude.values[hit].mean() > 1.5 * found.magnitude.values[~truth].mean()


@pytest.mark.parametrize("seed", [0, 3])
def test_edges_of_unchanged_fields_are_no_change(seed):
    """A tenth of these scenes was flagged: a pair of mixtures is rare wherever it is."""
    before, _, _ = ground(seed)
    stacks = {
        "one": new_stack({"vv": radar(before, seed)}, ["2024-01-01"]),
        "other": new_stack(optical(before, seed + 1), ["2024-03-01"]),
    }
    assert (detect(stacks, "heterogeneous").status == 3).mean() < 0.002


def test_the_order_of_the_dict_does_not_matter():
    stacks, _ = pair()
    turned = dict(reversed(stacks.items()))
    xr.testing.assert_identical(detect(stacks, "heterogeneous"), detect(turned, "heterogeneous"))


def test_one_stack_whose_bands_exist_at_one_date_is_the_same():
    stacks, _ = pair()
    values = {name: np.full((2, 120, 130), np.nan) for name in ("vv", "red", "green", "nir")}
    values["vv"][0] = stacks["one"].vv.values[0]
    for name in ("red", "green", "nir"):
        values[name][1] = stacks["other"][name].values[0]
    stack = new_stack(values, ["2024-01-01", "2024-03-01"], scene=["a", "b"])
    xr.testing.assert_equal(detect(stack, "heterogeneous"), detect(stacks, "heterogeneous"))


@pytest.mark.parametrize("chunks", [{"y": 37, "x": 130}, {"y": 29, "x": 51}])
def test_lazy_is_eager(chunks, no_compute):
    stacks, _ = pair()
    stacks["one"].vv[0, 3:9, 5:30] = np.nan
    eager = detect(stacks, "heterogeneous")
    with no_compute():
        lazy = detect({k: s.chunk(chunks) for k, s in stacks.items()}, "heterogeneous")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_gaps_have_their_reason():
    stacks, _ = pair()
    stacks["one"].vv[0, 40:50, 50:60] = np.nan
    stacks["other"].red[0, 5, 5] = np.nan
    found = check_changes(detect(stacks, "heterogeneous"), values=True)
    assert (found.why.values[40:50, 50:60] == WHY["too_few"]).all()
    assert int((found.status == 255).sum()) == 101


def test_the_error_of_the_alignment_is_carried_and_used():
    stacks, truth = pair()
    told = {k: s.assign_coords(sigma_px=("time", [0.5])) for k, s in stacks.items()}
    joined = Heterogeneous().joined(told)
    assert joined.sigma_px.values.tolist() == [0.5, 0.5]
    ignoring, knowing = detect(stacks, "heterogeneous"), detect(told, "heterogeneous")
    assert ((knowing.status == 3) & ~truth).sum() <= ((ignoring.status == 3) & ~truth).sum()
    assert ((knowing.status == 3) & truth).sum() > 0.75 * truth.sum()


def test_mistakes_are_named():
    stacks, _ = pair()
    with pytest.raises(StackError, match="two Stacks are compared, got 1"):
        detect({"one": stacks["one"]}, "heterogeneous")
    with pytest.raises(StackError, match="the scenes overlap"):
        detect({"one": stacks["one"], "again": stacks["one"]}, "heterogeneous")
    with pytest.raises(StackError, match="different grids"):
        detect({"one": stacks["one"], "other": stacks["other"].isel(y=slice(0, 50))}, "heterogeneous")
    with pytest.raises(StackError, match="compared by 'heterogeneous'"):
        detect(stacks, "sar_change")
    with pytest.raises(ConfigError, match=r"prior is 1\.5"):
        Heterogeneous(prior=1.5)
