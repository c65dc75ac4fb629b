"""The series detectors on real optical series: sane shares, and agreement with another implementation."""

import numpy as np
import pytest
import rasterio
import xarray as xr

from geoalign import check_changes, detect, new_stack
from geoalign.types.changes import changed

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def tura(real_data):
    with xr.open_dataset(real_data / "series" / "tura_ndvi.nc") as data:
        stack = new_stack({"ndvi": data.ndvi.values.astype(np.float32)}, data.time.values)
    with rasterio.open(real_data / "series" / "tura_bfastmonitor_reference.tif") as source:
        date, magnitude = source.read().astype(float)
    return stack, np.where(date > 1900, date, np.nan), magnitude / 1e4


@pytest.fixture(scope="module")
def romania(real_data):
    with xr.open_dataset(real_data / "series" / "romania" / "s2_romania_20m.nc") as data:
        _, first = np.unique(data.time.values, return_index=True)
        seen = np.isin(data.SCL.values[first], (4, 5, 6, 7))
        bands = {}
        for name, band in (("green", "B3"), ("red", "B4"), ("nir", "B8A"), ("swir1", "B11")):
            values = data[band].values[first].astype(np.float32)
            bands[name] = np.where(seen & (values > -9999), values / (1e4 if np.nanmax(values) > 10 else 1), np.nan)
        return new_stack(bands, data.time.values[first])


def test_breaks_agree_roughly_with_bfastmonitor(tura):
    """Both watch from 2009 with one harmonic at .05; the reference chooses its history, dates detections, and takes
    errors that follow each other for change, as they do here."""
    stack, reference, magnitude = tura
    found = check_changes(detect(stack, "harmonic_cusum", since="2009-01-01", order=1, alpha=0.05), values=True)
    ours = changed(found).values
    theirs = ~np.isnan(reference)
    assert (ours == theirs).mean() > 0.65
    assert 0.3 < ours.mean() < theirs.mean()
    assert ours[theirs & (np.abs(magnitude) > 0.15)].mean() > 0.95
    both = ours & theirs
    assert np.corrcoef(found.magnitude.values[both], magnitude[both])[0, 1] > 0.3
    years = 1970 + (found.date.values[both] - np.datetime64("1970-01-01")) / np.timedelta64(1, "D") / 365.25
    # the first changed observation does not come after the day on which the other one notices
    assert (years <= reference[both] + 0.1).mean() > 0.8


def test_changes_form_patches_not_noise(tura):
    """On real ground neighbours change together: the map is far smoother than a random one with as many pixels."""
    stack, *_ = tura
    found = changed(detect(stack, "harmonic_cusum", since="2009-01-01", order=1)).values
    share = found.mean()
    together = (found[:, 1:] == found[:, :-1]).mean()
    assert together > share**2 + (1 - share) ** 2 + 0.25


def test_farmland_patch_is_mostly_stable(real_data):
    """2.5 years of fields: crops turn from year to year, so more than alpha is flagged, but few."""
    with xr.open_dataset(real_data / "series" / "eolearn_patch" / "ndvi.nc") as data:
        _, first = np.unique(data.time.values, return_index=True)
        ndvi = np.where(data.cloud_mask.values > 0, np.nan, data.ndvi.values)[first]
        stack = new_stack({"ndvi": ndvi.astype(np.float32)}, data.time.values[first])
    found = check_changes(detect(stack, "harmonic_cusum"), values=True)
    assert changed(found).mean() < 0.2


def test_themes_find_little_where_little_happened(romania):
    for name, most in (("deforestation", 0.02), ("urbanization", 0.01)):
        found = check_changes(detect(romania, name), values=True)
        assert (found.status != 255).mean() > 0.95
        assert changed(found).mean() < most


def optical_pair(real_data, folder, files, dates):
    bands = {}
    sources = [rasterio.open(real_data / "optical_pairs" / folder / name) for name in files]
    for k in range(sources[0].count):
        bands[f"b{k + 1}"] = np.stack([s.read(k + 1).astype(np.float32) for s in sources])
    return new_stack(bands, dates)


def test_irmad_agrees_with_the_labels_of_taizhou(real_data):
    """At default settings; a plain IR-MAD cut by Otsu's threshold has kappa .933."""
    stack = optical_pair(real_data, "taizhou", ("t1.tif", "t2.tif"), ["2000-03-17", "2003-02-06"])
    with rasterio.open(real_data / "optical_pairs" / "taizhou" / "labels.tif") as source:
        label = source.read(1)
    known = label != 255
    ours, theirs = changed(detect(stack, "irmad")).values[known], label[known] == 1
    agree = (ours == theirs).mean()
    chance = ours.mean() * theirs.mean() + (1 - ours.mean()) * (1 - theirs.mean())
    assert (agree - chance) / (1 - chance) >= 0.945


def test_fields_that_turned_green_within_a_month_are_told_from_woods_and_towns(real_data):
    """The classical pair of Juelich: about a quarter of the scene are fields that were bare in May."""
    stack = optical_pair(real_data, "juelich", ("etm_20010525.tif", "etm_20010626.tif"), ["2001-05-25", "2001-06-26"])
    found = changed(detect(stack, "irmad")).values
    assert 0.1 < found.mean() < 0.35
    assert (found[:, 1:] == found[:, :-1]).mean() > 0.9


def test_bfast_monitor_is_that_of_r(tura):
    """The reference is bfastSpatial's run with start c(2009, 1), order 1, ROC history, OLS-MOSUM."""
    from geoalign.kernels.bfast_monitor import design

    stack, date, magnitude = tura
    found = detect(stack, "bfast_monitor", since="2009-01-01", order=1)
    mine, theirs = changed(found).values, np.isfinite(date)
    assert (mine == theirs).mean() >= 0.97
    both = mine & theirs
    years = design(stack.time.values, 1)[1]
    place = np.searchsorted(stack.time.values, found.date.values[both])
    reference = np.abs(years[None] - date[both][:, None]).argmin(axis=1)
    assert (np.abs(place - reference) <= 1).mean() >= 0.95
    assert np.nanmedian(np.abs(found.magnitude.values - magnitude)) < 0.01
