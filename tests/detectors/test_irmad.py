import numpy as np
import pytest
import xarray as xr

from geoalign import ConfigError, StackError, detect, new_stack
from geoalign.types.changes import NOT_OBSERVABLE, WHY, changed

DATES = ["2021-05-01", "2023-05-01"]


def scene_pair(seed=0, shape=(120, 130), share=True, whole=False, noise=1.5):
    """Six 8-bit bands of a textured ground in another light, a few percent built over."""
    rng = np.random.default_rng(seed)
    parcels = np.repeat(np.repeat(rng.normal(size=(2, shape[0] // 5 + 1, shape[1] // 6 + 1)), 5, 1), 6, 2)
    parcels = parcels[:, : shape[0], : shape[1]] + 0.3 * rng.normal(size=(2, *shape))
    mix = rng.normal(0, 12, (6, 2))
    ground = 90 + np.einsum("bk,krc->brc", mix, parcels)
    after = ground.copy()
    mask = np.zeros(shape, bool)
    if share:
        for _ in range(8):
            r, c = rng.integers(0, shape[0] - 14), rng.integers(0, shape[1] - 14)
            mask[r : r + 12, c : c + 10] = True
        after[:, mask] = 120 + rng.normal(0, 12, (6, 1)) + rng.normal(0, 5, (6, mask.sum()))
    after = after * rng.uniform(0.7, 1.1, (6, 1, 1)) + rng.uniform(-5, 10, (6, 1, 1))
    pair = np.stack([ground, after], 1) + rng.normal(0, noise, (6, 2, *shape))
    names = ("blue", "green", "red", "nir", "swir1", "swir2")
    return new_stack(dict(zip(names, np.round(pair) if whole else pair)), DATES), mask


@pytest.mark.parametrize("name", ["irmad", "cva"])
@pytest.mark.parametrize("seed", [0, 1])
def test_change_is_found_in_8_bit_values_under_another_light(name, seed):
    stack, mask = scene_pair(seed, whole=True)
    hit = changed(detect(stack, name)).values
    assert hit[mask].mean() > 0.9
    assert hit[~mask].mean() < 0.02


@pytest.mark.parametrize("name", ["irmad", "cva"])
def test_where_nothing_changed_hardly_anything_is_flagged(name):
    assert changed(detect(scene_pair(3, share=False)[0], name)).mean() < 0.01


@pytest.mark.parametrize("name", ["irmad", "cva"])
def test_probability_is_calibrated(name):
    stack, mask = scene_pair(4)
    p = detect(stack, name).probability.values
    error = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (p >= low) & (p < low + 0.1 + 1e-6)
        if inside.any():
            error += inside.mean() * abs(p[inside].mean() - mask[inside].mean())
    assert error < 0.03


def test_alpha_is_the_share_of_stable_pixels_flagged():
    found = changed(detect(scene_pair(5, share=False)[0], "irmad", alpha=0.05)).mean()
    assert 0.02 < found < 0.065


def test_quiet_water_does_not_make_busy_land_change():
    """Half the scene ten times as bright and noisy as the other, nothing changed."""
    rng = np.random.default_rng(0)
    bright = np.where(np.arange(80) < 40, 1.0, 0.15)
    pair = (0.3 + rng.normal(0, 0.01, (3, 2, 80, 80))) * bright
    found = detect(new_stack(dict(zip(("green", "red", "nir"), pair)), DATES), "irmad")
    assert changed(found).mean() < 0.02


def test_the_sector_names_the_bands_that_rose():
    stack, mask = scene_pair(6, share=False)
    more = stack.copy(deep=True)
    more.red[1, 40:60, 40:60] += 60
    more.nir[1, 40:60, 40:60] -= 60
    found = detect(more, "cva")
    assert ((found.sector.values[45:55, 45:55] & 0b1100) == 0b0100).mean() > 0.95
    assert (found.direction.values[45:55, 45:55] == 0).all()
    assert found.sector.attrs["flag_meanings"].split()[2:4] == ["red", "nir"]


def test_groups_before_and_after_a_date():
    one, mask = scene_pair(7)
    many = xr.concat([one.isel(time=[k]) for k in (0, 0, 0, 1, 1, 1)], "time")
    many = many.assign_coords(time=np.arange("2020", "2026", dtype="datetime64[Y]").astype("datetime64[ns]"))
    many.red[1, :, :] = np.nan
    found = detect(many, "irmad", since="2022-06-01")
    assert changed(found).values[mask].mean() > 0.9
    hit = changed(found).values
    assert (found.date.values[hit] == np.datetime64("2023-01-01")).all()
    assert (found.date_after.values[hit] == np.datetime64("2022-01-01")).all()
    with pytest.raises(StackError, match="leaves 0 scenes"):
        detect(many, "irmad", since="1999-01-01")


def test_what_cannot_be_fitted_says_so():
    flat = new_stack({"red": np.full((2, 20, 20), 0.1), "nir": np.full((2, 20, 20), 0.3)}, DATES)
    found = detect(flat, "irmad")
    assert (found.status == NOT_OBSERVABLE).all()
    assert (found.why.values & WHY["not_detectable"] > 0).all()
    with pytest.raises(StackError, match="2 or more optical bands"):
        detect(flat[["red"]], "irmad")
    with pytest.raises(ConfigError, match="alpha is 2"):
        detect(flat, "irmad", alpha=2)
