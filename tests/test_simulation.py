"""What was asked for is what was planted: measured on the scenes, against twins without noise, cloud or events."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from skimage.registration import phase_cross_correlation

from geoalign import chunked
from geoalign.errors import ConfigError, StateError
from geoalign.kernels import scene as maths
from geoalign.kernels.scene_values import OPTICAL_BANDS
from geoalign.simulation import DEMO, Simulation, Truth, simulate
from geoalign.simulation.files import DN_STEP, SAR_SCALE
from geoalign.simulation.recipe import make_recipe
from geoalign.simulation.render import render_tile
from geoalign.types.grid import GridMap

SIZE = 96
SMALL = {"size": SIZE, "seed": 3, "n_optical": 12, "n_sar": 10}


@cache
def made(**options):
    return simulate(**{**SMALL, **options})


def displacement(warp, size=SIZE):
    rows, cols = np.mgrid[0:size, 0:size].astype(float)
    r, c = warp.pull(rows, cols)
    return np.hypot(r - rows, c - cols)


@pytest.mark.parametrize("sensor", ["optical", "sar"])
def test_misregistration_is_as_large_as_asked_for_and_of_every_kind(sensor):
    sim = made()
    scenes = sim.recipe.of(sensor)
    moved = {s.name: displacement(sim.truth.warps[s.name]) for s in scenes}
    assert np.sqrt(np.mean([(d**2).mean() for d in moved.values()])) == pytest.approx(1.5, rel=0.01)
    assert {sim.truth.warp_kinds[n] for n in moved} == {"none", "shift", "affine", "field"}
    still = [name for name, d in moved.items() if d.max() == 0]
    assert still == [sim.truth.references[sensor]]
    for name, d in moved.items():
        assert (d.std() > 0.01) == (sim.truth.warp_kinds[name] in ("affine", "field"))


def test_kinds_of_warp_can_be_chosen_and_switched_off():
    kinds = made(warps=("affine",), n_optical=3).truth.warp_kinds
    assert set(kinds.values()) == {"none", "affine"}
    still = made(misregistration_px=0.0, n_optical=3).truth
    assert set(still.warp_kinds.values()) == {"none"}


def test_the_planted_shift_is_where_an_independent_matcher_finds_it():
    sim = made(warps=("shift",), cloud=0.0, events=False)
    image = sim.optical.nir.sel(time=sim.optical.time.dt.month.isin([6, 7, 8]))
    names = list(image.scene.values)
    fixed = image.values[names.index(sim.truth.references["optical"])]
    for name, moving in zip(names, image.values):
        warp = sim.truth.warps[name]
        found, _, _ = phase_cross_correlation(moving[8:-8, 8:-8], fixed[8:-8, 8:-8], upsample_factor=50)
        assert abs(found[0] - warp.dy) < 0.15
        assert abs(found[1] - warp.dx) < 0.15


def test_cloud_takes_the_share_asked_for_and_little_of_it_goes_undetected():
    cloudy, clear = made(n_optical=30, size=128), made(n_optical=30, size=128, cloud=0.0)
    lost = np.isnan(cloudy.optical.red.values)
    assert lost.mean() == pytest.approx(0.30, abs=0.03)
    shares = lost.mean((1, 2))
    assert shares.min() < 0.02
    assert 0.6 < shares.max() < 0.95
    assert not np.isnan(clear.optical.red.values).any()
    wrong = np.abs(cloudy.optical.red.values - clear.optical.red.values) > 0.02
    assert 0.002 < wrong.mean() < 0.02


def test_speckle_has_the_looks_asked_for_and_is_independent_from_pixel_to_pixel():
    noisy, calm = made(n_sar=4), made(n_sar=4, looks=1e6)
    for band in ("vv", "vh"):
        ratio = noisy.sar[band].values / calm.sar[band].values
        assert ratio.mean() == pytest.approx(1.0, abs=0.01)
        assert 1 / ratio.var() == pytest.approx(4.4, rel=0.04)
        flat = ratio - 1
        assert abs((flat[:, :, 1:] * flat[:, :, :-1]).mean() / ratio.var()) < 0.02
        assert abs((flat[1:] * flat[:-1]).mean() / ratio.var()) < 0.02
    assert noisy.sar.vv.attrs["enl"] == 4.4


@pytest.mark.parametrize(("kind", "vv", "vh"), [("flood", -4, -3), ("clearing", -1.5, -3), ("building", 5, 4)])
def test_events_change_backscatter_by_what_is_promised_from_their_date_on(kind, vv, vh):
    options = {"looks": 1e6, "misregistration_px": 0.0, "size": 128}
    with_event, without = made(**options), made(**options, events=False)
    dates, ends = with_event.truth.dates[kind].values, with_event.truth.flood_end.values
    times = with_event.sar.time.values[:, None, None]
    shows = (times >= dates) & ~((kind == "flood") & (times >= ends))
    assert 0 < shows.any((1, 2)).sum() < times.size
    for band, expected in (("vv", vv), ("vh", vh)):
        change = 10 * np.log10(with_event.sar[band].values / without.sar[band].values)
        others = np.any([~np.isnat(v.values) for k, v in with_event.truth.dates.items() if k != kind], 0)
        assert np.median(change[shows]) == pytest.approx(expected, abs=0.3)
        assert np.abs(change[:, ~others][~shows[:, ~others]]).mean() < 0.05


@pytest.mark.parametrize("kind", ["flood", "clearing", "building"])
def test_the_truth_is_the_area_that_really_changes(kind):
    options = {"looks": 1e6, "misregistration_px": 0.0, "size": 128}
    truth = made(**options).truth
    change = np.log10(made(**options).sar.vv.values / made(**options, events=False).sar.vv.values)
    times = made(**options).sar.time.values
    row = truth.events[truth.events.kind == kind].iloc[0]
    first = np.searchsorted(times, np.datetime64(row.date))
    half = {"flood": -4, "clearing": -1.5, "building": 5}[kind] / 20
    seen = change[first] / half > 1
    real = truth.dates[kind].values == np.datetime64(row.date)
    assert real.sum() == row.n_pixels
    assert row.area_ha == pytest.approx(row.n_pixels / 100)
    assert (seen & real).sum() / real.sum() > 0.9
    assert (change[first - 1] / half > 1)[real].mean() < 0.02


def test_optical_events_look_like_what_they_are():
    sim = made(cloud=0.0, misregistration_px=0.0, size=128)
    o, truth = sim.optical, sim.truth
    ndvi = ((o.nir - o.red) / (o.nir + o.red)).values
    wet = ((o.green - o.swir1) / (o.green + o.swir1)).values
    times = o.time.values[:, None, None]
    flooded = (times >= truth.dates.flood.values) & (times < truth.flood_end.values)
    assert np.median(wet[flooded]) > 0.3
    cleared = truth.dates.clearing.values
    before, after = (times < cleared) & ~np.isnat(cleared), times >= cleared
    assert np.median(ndvi[before]) > 0.7
    assert np.median(ndvi[after]) < 0.5
    assert np.median(ndvi[times >= truth.dates.building.values]) < 0.2


def test_a_year_of_optical_history_lies_before_the_first_event_by_default():
    recipe = simulate().recipe
    first = recipe.start + pd.Timedelta(days=min(e.start for e in recipe.events))
    history = [s for s in recipe.of("optical") if s.time < first]
    assert (history[-1].time - history[0].time).days > 365
    assert {e.kind for e in recipe.events} == {"flood", "clearing", "building"}
    for event in recipe.events:
        day = recipe.start + pd.Timedelta(days=event.start)
        times = [s.time for s in recipe.of("sar")]
        assert sum(t < day for t in times) >= 6
        assert sum(t >= day for t in times) >= 8


def test_the_ground_is_the_same_however_it_is_cut():
    whole = maths.ground(-20, 40, 80, 60, 4, 256.0, 77)
    part = maths.ground(0, 60, 30, 30, 4, 256.0, 77)
    for a, b in zip(whole, part):
        np.testing.assert_array_equal(a[20:50, 20:50], b)


def test_hashing_under_python_is_hashing_under_numba():
    plain = getattr(maths.hash01, "py_func", maths.hash01)
    for i, j, salt in ((0, 0, 1), (-5, 123456, 99), (10**6, -(10**6), 2**28 - 1)):
        assert maths.hash01(i, j, salt) == plain(i, j, salt)
    many = np.array([maths.hash01(i, 7, 3) for i in range(4000)])
    assert abs(many.mean() - 0.5) < 0.02
    assert abs(many.std() - 12**-0.5) < 0.01


def test_a_pixel_is_the_gaussian_mean_of_the_ground_around_its_place():
    rng = np.random.default_rng(0)
    values = rng.random((2, 60, 64)).astype(np.float32)
    rows, cols = np.array([[7.3, 6.0]]), np.array([[8.1, 7.75]])
    got = maths.render(values, rows, cols, 0, 0, 4, 0.5, 0.6)
    i, j = (np.mgrid[0:60, 0:64] + 0.5) / 4 - 0.5
    for p in range(2):
        weight = np.exp(-0.5 * ((i - rows[0, p]) / 0.5) ** 2 - 0.5 * ((j - cols[0, p]) / 0.6) ** 2)
        expected = (values * weight).sum((1, 2)) / weight.sum()
        np.testing.assert_allclose(got[:, 0, p], expected, rtol=3e-3)


def test_a_pixel_does_not_depend_on_the_tile_it_is_rendered_in():
    recipe = make_recipe(**(OPTIONS | {"size": 160, "looks": 1e6, "noise": 0.0}))
    for sensor in ("optical", "sar"):
        scenes = recipe.of(sensor)[:3]
        whole = {k: b for k, b, _ in render_tile(recipe, scenes, ((0, 160), (0, 160)), native=True)}
        part = {k: b for k, b, _ in render_tile(recipe, scenes, ((64, 96), (32, 96)), native=True)}
        for k, block in part.items():
            # the noise, seeded for a tile, is all that may differ: speckle of 1e6 looks, and 0.5 % of the reflectance
            np.testing.assert_allclose(block, whole[k][:, 64:96, 32:96], rtol=0.06 if sensor == "optical" else 1e-2)


OPTIONS = {
    "size": SIZE, "seed": 3, "sensors": ("optical", "sar"), "n_optical": 12, "n_sar": 10, "start": "2023-01-05",
    "cloud": 0.0, "looks": 4.4, "noise": 0.004, "misregistration_px": 1.5, "warps": ("shift", "affine", "field"),
    "events": True, "season_db": 1.0, "mixed_grids": False, "oversample": 4, "crs": "EPSG:32633",
    "origin": (500000.0, 5400000.0), "resolution_m": 10.0,
}  # fmt: skip


def test_the_same_seed_gives_the_same_scenes_and_another_seed_others():
    again = simulate(**SMALL)
    np.testing.assert_array_equal(again.sar.vv.values, made().sar.vv.values)
    np.testing.assert_array_equal(again.optical.nir.values, made().optical.nir.values)
    assert not np.array_equal(simulate(**{**SMALL, "seed": 4, "n_optical": 1}).sar.vv.values, made().sar.vv.values)


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ConfigError) as err:
        simulate(size=8, cloud=2, events=("flood", "fire"), warps=("twist",))
    assert len(err.value.problems) == 4
    with pytest.raises(ConfigError, match="no sar scenes"):
        _ = made(sensors=("optical",), n_optical=2).sar


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return simulate(folder, **{**SMALL, "looks": 1e6, "cloud": 0.0, "mixed_grids": True})


def on_project(path, geobox):
    from odc.geo.geobox import GeoBox

    with rasterio.open(path) as file:
        grid = GeoBox(file.shape, file.transform, file.crs)
        data, tags, names = file.read().astype(np.float32), file.tags(), file.descriptions
        scales = file.scales
    pulled = [chunked.pull(band, GridMap(geobox, grid), geobox.shape) for band in data]
    return np.stack(pulled), tags, names, scales, grid


def test_files_opened_on_the_project_grid_show_what_the_stack_in_memory_shows(written):
    grids = set()
    for sensor, stack in (("optical", written.optical), ("sar", written.sar)):
        for k, name in enumerate(stack.scene.values):
            path = written.folder / sensor / f"{name}.tif"
            data, tags, names, scales, grid = on_project(path, written.geobox)
            grids.add((str(grid.crs), grid.resolution.x))
            assert (tags["scene"], pd.Timestamp(tags["datetime"]).tz_localize(None)) == (name, stack.time.values[k])
            if sensor == "optical":
                assert names == (*OPTICAL_BANDS, "scl")
                assert (tags["product"], tags["processing_baseline"]) == ("sentinel2-l2a", "05.10")
                got, expected = (data[3] - 1000) / 10000, stack.nir.values[k]
            else:
                assert names == ("vv", "vh")
                assert tags["units"] == "power"
                assert scales == SAR_SCALE
                got, expected = data[0] * scales[0], stack.vv.values[k]
            inner = np.s_[6:-6, 6:-6]
            assert np.isfinite(got[inner]).all()
            same = 0.8 if grid.resolution.x > 10 else 0.95  # walls of a town blur at 20 m
            assert np.corrcoef(got[inner].ravel(), expected[inner].ravel())[0, 1] > same
            found, _, _ = phase_cross_correlation(expected[inner], got[inner], upsample_factor=20)
            assert np.abs(found).max() <= (0.2 if grid.resolution.x > 10 else 0.1)
    assert len(grids) == 3  # its own, another zone, another resolution


def test_the_truth_read_back_is_the_truth(written):
    back, truth = Truth.load(written.folder), written.truth
    assert back.dates.identical(truth.dates)
    np.testing.assert_array_equal(back.flood_end.values, truth.flood_end.values)
    assert back.geobox == truth.geobox
    assert (back.references, back.warp_kinds) == (truth.references, truth.warp_kinds)
    rows, cols = np.mgrid[0:SIZE:9, 0:SIZE:9].astype(float)
    for name, warp in truth.warps.items():
        np.testing.assert_allclose(back.warps[name].pull(rows, cols), warp.pull(rows, cols), atol=1e-9)
    assert list(back.events.kind) == list(truth.events.kind)
    assert (back.events.date.dt.date == truth.events.date.dt.date).all()
    np.testing.assert_allclose(back.events.area, truth.events.area, rtol=1e-4)
    assert Truth.load(written.folder / "truth").references == truth.references


def test_no_truth_is_an_error(tmp_path):
    with pytest.raises(StateError, match="no truth"):
        Truth.load(tmp_path)


def test_relative_warps_and_dates_in_the_frame_of_a_scene():
    truth = made().truth
    names = [n for n, kind in truth.warp_kinds.items() if kind == "affine"][:2]
    rows, cols = np.array([40.0, 50.0]), np.array([30.0, 60.0])
    shown = truth.warps[names[0]].pull(rows, cols)
    expected = truth.warps[names[1]].pull(rows, cols)
    np.testing.assert_allclose(truth.relative(*names).pull(*shown), expected, atol=1e-6)
    control = truth.on(truth.references["sar"])
    assert control.identical(truth.dates)
    other = truth.on(names[0]).clearing.values
    i, j = np.argwhere(~np.isnat(truth.dates.clearing.values)).mean(0).round()
    r, c = truth.warps[names[0]].pull(i, j)
    assert other[round(float(r)), round(float(c))] == truth.dates.clearing.values[int(i), int(j)]


def test_the_site_file_is_a_valid_configuration(written):
    from geoalign.config import load_config

    config = load_config(written.folder / "site.toml")
    assert set(config.sources) == {"optical", "sar"}
    assert config.truth_folder == written.folder / "truth"
    assert config.register_of("sar").reference == written.truth.references["sar"]
    assert {d.detector for d in config.detect} == {"flood", "deforestation", "urbanization"}


def test_a_failed_write_leaves_no_half_file(tmp_path, monkeypatch):
    from geoalign.simulation import files

    def broken(*args, **options):
        raise OSError("disk full")
        yield

    monkeypatch.setattr(files, "render_tile", broken)
    with pytest.raises(OSError, match="disk full"):
        simulate(tmp_path, size=32, n_sar=2, sensors=("sar",), events=False)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_the_small_set_in_data_is_made_again(tmp_path):
    data = Path(__file__).parents[1] / "data"
    if not data.is_dir():
        pytest.skip("the set in data/ lies in a checkout only")
    recipe = simulate(**DEMO).recipe
    stored = {p.stem for p in data.glob("*/*.tif")} - {"flood", "clearing", "building", "flood_end"}
    assert stored == {s.name for s in recipe.scenes}
    assert sum(p.stat().st_size for p in data.rglob("*") if p.is_file()) < 8e6
    keep = tuple(recipe.of("optical")[4:6] + recipe.of("sar")[9:11])
    Simulation(replace(recipe, scenes=keep)).write(tmp_path)
    for path in sorted(tmp_path.rglob("*.tif")):
        with rasterio.open(path) as new, rasterio.open(data / path.relative_to(tmp_path)) as old:
            a, b = new.read().astype(int), old.read().astype(int)
            assert (new.transform, new.crs, new.tags()) == (old.transform, old.crs, old.tags())
        if path.parent.name == "optical":
            a[:6], b[:6] = a[:6] // DN_STEP, b[:6] // DN_STEP
        assert np.abs(a - b).max() <= 1
    assert Truth.load(data).references == recipe.references


@pytest.mark.parametrize("sensor", ["optical", "sar"])
def test_files_open_as_the_stack_in_memory(written, sensor):
    from geoalign import open_stack

    opened = open_stack(str(written.folder / sensor / "*.tif"), like=written.geobox)
    made_in_memory = getattr(written, sensor)
    assert set(opened) == set(made_in_memory)
    for name in ("time", "scene", "sensor", "orbit", "y", "x"):
        np.testing.assert_array_equal(opened[name].values, made_in_memory[name].values)
    band = "nir" if sensor == "optical" else "vv"
    got, expected = (stack[band].isel(time=0).values[8:-8, 8:-8] for stack in (opened, made_in_memory))
    assert np.nanmedian(np.abs(got - expected) / expected) < 0.06
