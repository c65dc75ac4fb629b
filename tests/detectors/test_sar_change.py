import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, check_changes, detect, new_stack
from geoalign.detectors.sar_change import SarChange
from geoalign.types.changes import WHY

TIME = ["2024-01-01", "2024-01-13", "2024-01-25"]


def scenes(kind, looks, seed=0, shape=(150, 160)):
    """Two quick-looks (8-bit amplitude, clipped at both ends) of fields, water and a road; (stack, truth)."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    ground = np.where((rows // 30 + cols // 40) % 2, 0.12, 0.2)
    ground[:, 130:] = 0.012
    ground[100:103, :130] *= 2.5
    after = ground * 1.1
    truth = np.zeros(shape, bool)
    if kind == "flood":
        truth[20:70, 30:90] = True
        after[truth] = 0.012
    elif kind == "strips":
        truth[20:90, 30:110] = ((cols - 30) % 10 < 6)[20:90, 30:110]
        after[truth] *= 0.08
    elif kind == "line":
        truth[60:65, :130] = True
        after[truth] *= 6
    elif kind == "both":
        truth[20:50, 20:60] = truth[90:130, 70:110] = True
        after[20:50, 20:60] *= 5
        after[90:130, 70:110] /= 5
    grey = [np.sqrt(m * rng.gamma(n, 1 / n, shape)) for m, n in zip((ground, after), looks)]
    grey = [np.clip(np.round((g - 0.03) / (np.quantile(g, 0.98) - 0.03) * 255), 0, 255) for g in grey]
    return new_stack({"vv": np.stack(grey)}, TIME[:2]), truth


def kappa(found, truth):
    hit = found.status.values == 3
    agree = (hit == truth).mean()
    chance = hit.mean() * truth.mean() + (1 - hit.mean()) * (1 - truth.mean())
    return (agree - chance) / (1 - chance)


@pytest.mark.parametrize("looks", [(4, 4), (4, 1)])
@pytest.mark.parametrize(("kind", "least"), [("flood", 0.95), ("strips", 0.85), ("line", 0.8), ("both", 0.9)])
def test_a_planted_change_is_found_whatever_the_looks(kind, least, looks):
    stack, truth = scenes(kind, looks)
    assert (stack.vv.values == 0).any()
    found = check_changes(SarChange().detect(stack), values=True)
    assert kappa(found, truth) > least
    assert (found.status != 255).all()  # the zeros of a quick-look are its darkest grey


def test_a_quick_look_scaled_to_one_is_the_same():
    stack, _ = scenes("flood", (4, 4))
    scaled = new_stack({"vv": stack.vv.values / 255}, TIME[:2])
    found, want = SarChange().detect(scaled), SarChange().detect(stack)
    assert (found.status != 255).all()
    assert (found.status == want.status).mean() > 0.999


def test_both_signs_are_told_apart():
    stack, _ = scenes("both", (4, 4))
    found = SarChange().detect(stack)
    assert int(found.direction[35, 40]) == 1
    assert int(found.direction[110, 90]) == -1
    assert float(found.magnitude[35, 40]) > 2 > -2 > float(found.magnitude[110, 90])
    assert str(found.date.values[35, 40])[:10] == TIME[1]
    assert str(found.date_after.values[35, 40])[:10] == TIME[0]


@pytest.mark.parametrize("looks", [(1, 1), (4, 1), (8, 8)])
def test_nothing_is_forced_where_nothing_changed(looks):
    found = SarChange().detect(scenes(None, looks, seed=3)[0])
    assert (found.status == 0).all()
    assert (found.why == WHY["not_detectable"]).all()
    assert (found.probability == 0).all()


def test_probability_means_what_it_says():
    p, truth = [], []
    for seed in range(3):
        for kind in ("flood", "line", "both"):
            stack, planted = scenes(kind, (4, 1), seed)
            p.append(SarChange().detect(stack).probability.values.ravel())
            truth.append(planted.ravel())
    p, truth = np.concatenate(p), np.concatenate(truth)
    brier = np.mean((p - truth) ** 2)
    assert brier < 0.25 * truth.mean() * (1 - truth.mean())
    assert truth[p < 0.02].mean() < 0.02
    assert truth[p > 0.98].mean() > 0.95
    assert abs(p.mean() - truth.mean()) < 0.03


def test_a_prior_moves_the_probability_and_nothing_else():
    stack, _ = scenes("flood", (4, 4))
    rare, common = SarChange(prior=0.01).detect(stack), SarChange(prior=0.3).detect(stack)
    assert float(rare.probability.mean()) < float(common.probability.mean())
    xr.testing.assert_equal(rare.status, common.status)


def test_gaps_do_not_spread_and_have_their_reason():
    stack, truth = scenes("flood", (4, 4))
    stack.vv[1, 40:50, 50:60] = np.nan
    stack.vv[:, 0, 0] = np.nan
    found = check_changes(SarChange().detect(stack), values=True)
    assert (found.status.values[40:50, 50:60] == 255).all()
    assert (found.why.values[40:50, 50:60] == WHY["too_few"]).all()
    assert int(found.why[0, 0]) == WHY["no_data"]
    assert int((found.status == 255).sum()) == 101
    around = np.zeros_like(truth)
    around[38:52, 48:62] = True
    around[40:50, 50:60] = False
    assert (found.status.values[around] == 3).mean() > 0.95


def test_calibrated_power_of_two_bands_and_groups_of_dates():
    rng = np.random.default_rng(5)
    truth = np.zeros((90, 100), bool)
    truth[30:60, 30:70] = True
    bands = {b: level * rng.gamma(2, 0.5, (3, 90, 100)) for b, level in (("vv", 0.1), ("vh", 0.02))}
    for values in bands.values():
        values[1:, truth] *= 10**-0.4
    stack = new_stack(bands, TIME)
    means = SarChange(since="2024-01-10").detect(stack)
    assert kappa(means, truth) > 0.95
    assert int(means.n_obs[5, 5]) == 3
    assert str(means.date.values[45, 50])[:10] == TIME[1]


def test_a_residual_shift_at_an_edge_is_no_change():
    rng = np.random.default_rng(4)
    edge = np.where(np.arange(120) % 24 < 12, 0.3, 0.02)
    cols = np.arange(120)
    moved = [np.interp(cols + s, cols, edge) * rng.gamma(20, 1 / 20, (100, 120)) for s in (0.0, 3.0)]
    stack = new_stack({"vv": np.stack(moved)}, TIME[:2])
    told = stack.assign_coords(sigma_px=("time", [0.0, 3.0]))
    ignoring, knowing = SarChange().detect(stack), SarChange().detect(told)
    assert float((ignoring.status == 3).mean()) > 0.05
    assert (knowing.status == 3).sum() < 0.3 * (ignoring.status == 3).sum()
    assert ((knowing.why & WHY["misregistered"]) > 0).any()


@pytest.mark.parametrize("chunks", [{"time": 1, "y": 37, "x": 160}, {"time": 2, "y": 29, "x": 51}])
def test_lazy_is_eager(chunks, no_compute):
    stack, _ = scenes("both", (4, 1))
    stack.vv[1, 3:9, 5:30] = np.nan
    eager = SarChange().detect(stack)
    with no_compute():
        lazy = detect(stack.chunk(chunks), "sar_change")
    xr.testing.assert_identical(lazy.compute(), eager)


def test_mistakes_are_named():
    stack, _ = scenes("flood", (4, 4))
    with pytest.raises(ConfigError, match=r"prior is 1\.5"):
        SarChange(prior=1.5)
    with pytest.raises(StackError, match="leaves 0 scenes before"):
        SarChange(since="2020-01-01").detect(stack)
    with pytest.raises(StackError, match="which band is meant"):
        SarChange().detect(new_stack({"red": stack.vv.values, "nir": stack.vv.values}, TIME[:2]))
