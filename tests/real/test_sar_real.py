"""SAR detectors on real imagery: pairs with a published change mask, a Sentinel-1 series in which nothing happens."""

import warnings

import numpy as np
import pytest
import rasterio
import xarray as xr

from geoalign import detect, new_stack

pytestmark = pytest.mark.real


def pair(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        images = []
        for name in ("t1", "t2", "change"):
            with rasterio.open(folder / f"{name}.tif") as source:
                images.append(source.read(1))
    before, after, change = images
    stack = new_stack({"intensity": np.stack([before, after]).astype("float32")}, ["2000-01-01", "2000-02-01"])
    return stack, change > 0


def kappa(hit, truth):
    agree = (hit == truth).mean()
    chance = hit.mean() * truth.mean() + (1 - hit.mean()) * (1 - truth.mean())
    return (agree - chance) / (1 - chance)


# farmland's dates have 1 and 4 looks; simple thresholds reach .44 there
@pytest.mark.parametrize(("name", "least"), [("ottawa", 0.90), ("san_francisco", 0.86), ("farmland", 0.55)])
def test_log_ratio_agrees_with_the_published_mask(real_data, name, least):
    stack, truth = pair(real_data / "sar_pairs" / name)
    found = detect(stack, "log_ratio")
    assert kappa(found.status.values == 3, truth) >= least


# the recommended detector of two dates, as `detect(stack, "sar_change")`
@pytest.mark.parametrize(("name", "least"), [("ottawa", 0.935), ("san_francisco", 0.905), ("farmland", 0.88)])
def test_sar_change_agrees_with_the_published_mask(real_data, name, least):
    stack, truth = pair(real_data / "sar_pairs" / name)
    found = detect(stack.rename(intensity="vv"), "sar_change")
    assert (found.status != 255).all()
    assert kappa(found.status.values == 3, truth) >= least


def test_heterogeneous_finds_the_lake_that_grew_between_infrared_and_colour(real_data):
    folder = real_data / "optical_pairs" / "sardinia"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        images = []
        for name in ("t1", "t2", "change"):
            with rasterio.open(folder / f"{name}.tif") as source:
                images.append(source.read())
    infrared = new_stack({"nir": images[0].astype("float32")}, ["1995-09-01"])
    colour = new_stack(
        {n: images[1][k : k + 1].astype("float32") for k, n in enumerate(("red", "green", "blue"))}, ["1996-07-01"]
    )
    found = detect({"infrared": infrared, "colour": colour}, "heterogeneous")
    assert kappa(found.status.values == 3, images[2][0] > 0) >= 0.70


def png(real_data, name, bands):
    with xr.open_dataset(real_data / "series" / "s1_png" / f"{name}.nc") as source:
        return new_stack({b: source[b].values for b in bands}, source.time.values)


def tenth(seen, way):
    """A tenth of the observed pixels: scattered at random, or the block around the middle one of them."""
    if way == "scattered":
        return np.random.default_rng(0).random(seen.shape) < 0.1
    rows, cols = np.nonzero(seen)
    middle = rows.size // 2
    apart = np.maximum(abs(rows - rows[middle]), abs(cols - cols[middle]))
    near = np.argsort(apart, kind="stable")[: rows.size // 10]
    truth = np.zeros(seen.shape, bool)
    truth[rows[near], cols[near]] = True
    return truth


SERIES = [("rtc_vh_raw", ("vh",)), ("rtc_vv_vh_tv", ("vv", "vh")), ("rtc_vv_vh_tv", ("vv",))]


@pytest.mark.parametrize(("name", "bands"), SERIES)
def test_omnibus_leaves_stable_ground_alone(real_data, name, bands):
    found = detect(png(real_data, name, bands), "omnibus", alpha=0.01)
    seen = found.status.values != 255
    assert (found.status.values == 3)[seen].mean() <= 0.02


@pytest.mark.parametrize("way", ["scattered", "block"])
@pytest.mark.parametrize(("name", "bands"), SERIES)
def test_omnibus_finds_a_drop_of_5_db_in_a_tenth_of_the_pixels(real_data, name, bands, way):
    stack = png(real_data, name, bands)
    truth = tenth((stack[bands[0]].notnull().sum("time") >= 3).values, way)
    for b in bands:
        stack[b].values[5:, truth] *= 10**-0.5
    found = detect(stack, "omnibus", alpha=0.01)
    seen = found.status.values != 255
    hit = found.status.values == 3
    assert hit[truth & seen].mean() >= 0.9
    assert hit[~truth & seen].mean() <= 0.02


@pytest.mark.parametrize("theme", ["flood", "deforestation", "urbanization"])
def test_themes_leave_stable_ground_alone(real_data, theme):
    for name, bands in SERIES:
        found = detect(png(real_data, name, bands), theme)
        seen = found.status.values != 255
        assert found.status.isin((3, 4)).values[seen].mean() < 0.01
