"""Whole stacks: every scene has its row and its reason, and laziness changes no bit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox

from geoalign import coregister, new_stack
from geoalign.errors import ConfigError, NoUsableData, StackError
from geoalign.registration.network import best_scene
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import REPORT_COLUMNS, Alignment
from geoalign.types.warp import Affine, Chain, Shift, mean_displacement

SHAPE = (160, 152)
WARPS = [
    Shift(0.8, -1.3), Shift(), Affine([[1.004, 0.003, -1.2], [-0.004, 0.996, 0.9]]), Shift(-2.1, 0.4), Shift(1.6, 1.9),
    Shift(-0.45, -0.7),
]  # fmt: skip


def times(n):
    return np.datetime64("2024-01-01", "ns") + np.arange(n) * np.timedelta64(12, "D")


@pytest.fixture(scope="module")
def geobox():
    from affine import Affine as Transform

    return GeoBox(SHAPE, Transform(10, 0, 500000, 0, -10, 5000000), "EPSG:32633")


@pytest.fixture(scope="module")
def optical(ground, geobox):
    scenes = np.stack([ground.scene(w, SHAPE, seed=k) for k, w in enumerate(WARPS)])
    for k in (0, 2, 3, 4):
        scenes[k][ground.clouds(SHAPE, 0.25, k)] = np.nan
    return new_stack({"nir": scenes}, times(6), geobox=geobox, scene=list("abcdef"))


@pytest.fixture(scope="module")
def aligned(optical):
    return coregister(optical, reference="b")


def test_every_scene_is_aligned_to_the_truth(aligned, error_px):
    assert aligned.reference == "b"
    for name, true in zip("abcdef", WARPS):
        assert error_px(aligned.warps[name], true, SHAPE) < 0.05


def test_the_report_has_a_row_a_scene(aligned):
    report = aligned.report.set_index("scene")
    assert tuple(aligned.report.columns) == REPORT_COLUMNS
    assert list(report.index) == list("abcdef")
    assert report.status.to_dict() == {**dict.fromkeys("acdef", "aligned"), "b": "reference"}
    assert report.model.to_dict() == {"a": "shift", "b": "", "c": "affine", "d": "shift", "e": "shift", "f": "shift"}
    assert abs(report.dy["a"] - 0.8) < 0.03
    np.testing.assert_allclose(report.rmse_m["a"], 10 * report.rmse_px["a"])
    assert (report.sigma_px.drop("b") < 0.05).all()
    assert set(aligned.points.scene) == set("acdef")


def test_lazy_is_eager_for_any_chunks(optical, aligned):
    for chunks in ({"time": 1, "y": 47, "x": 61}, {"time": 4, "y": 160, "x": 33}):
        lazy = coregister(optical.chunk(chunks), reference="b")
        assert lazy.warps == aligned.warps
        xr.testing.assert_identical(xr.Dataset.from_dataframe(lazy.report), xr.Dataset.from_dataframe(aligned.report))
        assert lazy.points.equals(aligned.points)


def test_large_images_are_read_by_tiles_and_chunks_change_no_bit(ground, monkeypatch, error_px):
    """The path of large images, on a small one: decimated search, then tiles around the windows."""
    from geoalign.registration import tiepoints

    monkeypatch.setattr(tiepoints, "WHOLE_PX", 100)
    monkeypatch.setattr(tiepoints, "COARSE_PX", 128)
    shape, true = (260, 300), Affine([[1.002, 0.004, 7.3], [-0.003, 0.998, -5.2]])
    scenes = np.stack([ground.scene(w, shape, seed=k) for k, w in enumerate((Shift(), true))])
    stack = new_stack({"red": scenes}, times(2), scene=["r", "m"])
    eager = coregister(stack, reference="r")
    assert error_px(eager.warps["m"], true, shape) < 0.03
    lazy = coregister(stack.chunk({"time": 1, "y": 71, "x": 90}), reference="r")
    assert lazy.warps == eager.warps


def test_the_inputs_are_not_changed(optical):
    before = optical.copy(deep=True)
    coregister(optical, reference="b", model="shift")
    xr.testing.assert_identical(before, optical)


def test_a_bad_scene_keeps_its_reason_and_the_others_go_on(ground, optical):
    scenes = optical.nir.values.copy()
    scenes[2] = np.nan
    scenes[4] = np.random.default_rng(0).standard_normal(SHAPE)
    stack = optical.assign(nir=(("time", "y", "x"), scenes))
    found = coregister(stack, reference="b")
    report = found.report.set_index("scene")
    assert report.status["c"] == "failed"
    assert "no valid pixels" in report.reason["c"]
    assert report.status["e"] == "rejected"
    assert "stands out" in report.reason["e"]
    assert set(found.warps) == set("abdf")


def test_a_scene_that_is_aligned_already_is_not_rejected(ground):
    scenes = np.stack([ground.scene(Shift(), SHAPE, seed=k) for k in range(3)])
    found = coregister(new_stack({"red": scenes}, times(3), scene=list("abc")))
    assert set(found.report.status) == {"aligned", "reference"}
    assert (found.report[["dy", "dx"]].abs() < 0.02).all().all()


def test_speckled_scenes_gain_from_the_mean_of_the_others(ground, error_px):
    shape = (192, 192)
    rng = np.random.default_rng(1)
    warps = [Shift()] + [Shift(*rng.uniform(-2, 2, 2)) for _ in range(11)]
    scenes = np.stack([ground.scene(w, shape, looks=2, seed=k) for k, w in enumerate(warps)])
    stack = new_stack({"vv": scenes}, times(12), scene=[f"s{k:02d}" for k in range(12)])
    errors = {}
    for refine in (False, True):
        found = coregister(stack, reference="s00", refine=refine, model="shift", network=False)
        errors[refine] = [error_px(found.warps[f"s{k:02d}"], warps[k], shape) for k in range(1, 12)]
        predicted = found.report.sigma_px[1:].to_numpy() * np.sqrt(2)
        ratio = np.sqrt(np.mean(np.square(errors[refine])) / np.mean(predicted**2))
        assert 0.5 < ratio < 2
    assert np.mean(errors[True]) < np.mean(errors[False])
    assert max(errors[True]) < 0.3


def test_references_of_every_kind(ground, optical, error_px):
    clear = ground.scene(Shift(), SHAPE, seed=99)
    image = optical.nir.isel(time=0, drop=True).copy(data=clear)
    other = optical.isel(time=[1]).copy()
    for reference, label in (("median", "median"), (image, "nir"), (clear, "image"), (other, "stack")):
        found = coregister(optical, reference=reference)
        assert found.reference == label
        assert not {"failed", "rejected"} & set(found.report.status)
        relative = Chain((found.warps["b"].inverse(), found.warps["a"]))
        assert error_px(relative, WARPS[0], SHAPE) < 0.05
        if label != "median":
            assert error_px(found.warps["a"], WARPS[0], SHAPE) < 0.05
        else:
            middle = np.median([mean_displacement(w, SHAPE) for w in found.warps.values()], axis=0)
            np.testing.assert_allclose(middle, 0, atol=0.02)
    with pytest.raises(StackError, match="shape"):
        coregister(optical, reference=clear[:50])
    with pytest.raises(ConfigError, match="Did you mean 'median'"):
        coregister(optical, reference="medain")


def test_the_clearest_and_sharpest_scene_is_the_reference(ground):
    from scipy.ndimage import gaussian_filter

    scenes = [ground.scene(Shift(), SHAPE, seed=k) for k in range(4)]
    scenes[0] = gaussian_filter(scenes[0], 2.5)
    scenes[1][ground.clouds(SHAPE, 0.4, 1)] = np.nan
    scenes[3] = scenes[3] + 0.3 * np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    assert best_scene([Image(s) for s in scenes]) == 2


def test_wrong_options_name_the_nearest(optical):
    with pytest.raises(ConfigError, match="Did you mean 'phase'"):
        coregister(optical, matcher="phas")
    with pytest.raises(ConfigError, match="Did you mean 'affine'"):
        coregister(optical, model="afine")
    with pytest.raises(StackError, match="band 'blue'"):
        coregister(optical, band="blue")
    with pytest.raises(NoUsableData):
        coregister(optical.where(False))


def test_a_matcher_of_ones_own(optical):
    from geoalign.types.alignment import Match

    def still(reference, moving, *, valid=None, seed=0):
        return Match(Shift(0.5, 0.0), np.eye(2) * 0.01, 1.0, 0.0, 1, "still", optical_points)

    optical_points = coregister(optical, reference="b", matcher="phase").points.drop(columns="scene").iloc[:1]
    found = coregister(optical, reference="b", matcher=still)  # it is given whole images, and the reference only
    assert found.warps["a"] == Shift(0.5, 0.0)
    assert set(found.report.method) == {"still", ""}


def test_saved_and_loaded_it_is_the_same(aligned, tmp_path):
    loaded = Alignment.load(aligned.save(tmp_path / "alignment.json"))
    assert loaded.warps == aligned.warps
    assert loaded.geobox == aligned.geobox


def test_the_second_pass_by_tiles_and_chunks(ground, monkeypatch, error_px):
    from geoalign.registration import tiepoints

    monkeypatch.setattr(tiepoints, "WHOLE_PX", 100)
    monkeypatch.setattr(tiepoints, "COARSE_PX", 200)
    shape, rng = (288, 260), np.random.default_rng(2)
    warps = [Shift()] + [Shift(*rng.uniform(-3, 3, 2)) for _ in range(4)]
    scenes = np.stack([ground.scene(w, shape, looks=4.4, seed=k) for k, w in enumerate(warps)])
    stack = new_stack({"vv": scenes}, times(5), scene=list("abcde"))
    eager = coregister(stack, reference="a")
    for name, true in zip("abcde", warps):
        assert error_px(eager.warps[name], true, shape) < 0.15
    lazy = coregister(stack.chunk({"time": 2, "y": 90, "x": 71}), reference="a")
    assert lazy.warps == eager.warps


def test_a_stack_of_one_scene_is_its_own_reference(ground):
    stack = new_stack({"red": ground.scene(Shift(), SHAPE)[None], "nir": ground.scene(Shift(), SHAPE)[None]}, times(1))
    found = coregister(stack)
    assert list(found.report.status) == ["reference"]
    assert list(found.warps.values()) == [Shift(0.0, 0.0)]


def test_the_band_that_ties_scenes_best_is_matched(ground):
    from geoalign.registration.network import sharpest_band

    good = np.stack([ground.scene(Shift(k, 0), SHAPE, seed=k) for k in range(4)])
    poor = np.stack([ground.scene(Shift(k, 0), SHAPE, noise=0.4, seed=9 + k) for k in range(4)])
    assert sharpest_band(new_stack({"red": poor, "nir": poor, "swir1": good}, times(4)), 0) == "swir1"
    assert sharpest_band(new_stack({"red": good, "nir": poor}, times(4)), 0) == "red"
    assert sharpest_band(new_stack({"vv": good, "vh": good}, times(4)), 0) == "sar"


def test_the_mean_displacement_is_that_of_the_valid_area(ground, monkeypatch):
    from geoalign.registration import tiepoints

    monkeypatch.setattr(tiepoints, "COARSE_PX", 128)
    shape, true = (205, 187), Affine([[1.02, 0.0, 0.0], [0.0, 1.0, 0.5]])
    scenes = np.stack([ground.scene(w, shape, seed=k) for k, w in enumerate((Shift(), true))])
    scenes[1][140:] = np.nan
    found = coregister(new_stack({"red": scenes}, times(2), scene=["r", "m"]), reference="r", model="affine")
    row = found.report.set_index("scene").loc["m"]
    assert abs(row.dy - 0.02 * 69.5) < 0.1
    assert abs(row.dx - 0.5) < 0.1


@pytest.fixture(scope="module")
def seasons():
    """24 scenes of two years, 6 of them decorrelated; aligned to the reference alone, and as a network."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from network import series

    made = series(192)
    return made, *(coregister(made.stack, network=network, model="affine") for network in (False, True))


@pytest.mark.slow
def test_scenes_of_snow_flood_and_cloud_are_tied_through_the_network(seasons):
    made, alone, together = seasons
    lonely, errors = made.errors_px(alone), made.errors_px(together)
    assert sum(not e <= 0.1 for e in lonely.values()) >= 2  # NaN where it was rejected
    assert max(errors.values()) <= 0.1
    report = together.report.set_index("scene")
    snow = [name for name, word in made.odd.items() if word == "snow"]
    assert report.reason[snow].str.contains("tied through").all()
    assert (report.closure_px < 0.5).all()
    assert alone.report.closure_px.isna().all()


@pytest.mark.slow
def test_the_error_of_the_network_is_as_predicted(seasons):
    made, _, together = seasons
    errors = np.array([made.errors_px(together)[name] for name in made.truths])
    predicted = np.sqrt(2) * together.report.sigma_px.to_numpy()
    moved = predicted > 0
    assert 0.5 < np.sqrt(np.mean(errors[moved] ** 2) / np.mean(predicted[moved] ** 2)) < 1.6
    assert np.mean(errors[moved] < 2 * predicted[moved]) > 0.85


def test_new_scenes_are_tied_to_a_frozen_baseline_in_any_order(ground, error_px):
    shape = (128, 128)
    warps = [*WARPS, Shift(0.3, 1.1), Affine([[1.003, 0.0, 0.2], [0.002, 0.998, -0.8]]), Shift(-1.4, 0.6)]
    scenes = np.stack([ground.scene(w, shape, seed=k) for k, w in enumerate(warps)])
    stack = new_stack({"red": scenes}, times(9), scene=list("abcdefghi"))
    baseline, new = stack.isel(time=slice(0, 6)), stack.isel(time=slice(6, 9))
    frozen = coregister(baseline, reference="b", model="affine")
    found = coregister(new, reference=baseline, frozen=frozen, model="affine")
    assert list(found.warps) == list("ghi")
    assert found.reference == "b"
    for name, true in zip("ghi", warps[6:]):
        assert error_px(found.warps[name], true, shape) < 0.05
    assert (found.report.sigma_px < 0.05).all()
    assert (found.report.closure_px < 0.2).all()
    late = coregister(new.isel(time=[1]), reference=baseline, frozen=frozen, model="affine")
    assert late.warps["h"] == found.warps["h"]
    row = found.report.iloc[[1]].reset_index(drop=True)
    xr.testing.assert_identical(xr.Dataset.from_dataframe(late.report), xr.Dataset.from_dataframe(row))
    with pytest.raises(ConfigError, match="baseline's Stack"):
        coregister(new, reference="b", frozen=frozen)


def test_a_stack_of_another_sensor_is_tied_by_composites(ground, error_px):
    shape, common = (192, 192), Shift(2.6, -3.4)
    own = [Shift(0.4, -0.9), Shift(-1.2, 0.3), Shift(0.8, 1.5), Shift(), Shift(-0.6, -0.2)]
    sar = [Shift(common.dy + w.dy, common.dx + w.dx) for w in own]
    radar = np.stack([ground.scene(w, shape, looks=4.4, seed=k) for k, w in enumerate(sar)])
    clear = np.stack([ground.scene(Shift(), shape, seed=20 + k) for k in range(3)])
    clear[0][ground.clouds(shape, 0.3, 1)] = np.nan
    optical = new_stack({"red": clear}, times(3), scene=list("xyz"))
    stack = new_stack({"vv": radar}, times(5), scene=list("abcde"))
    found = coregister(stack, reference=optical, matcher="phase", model="shift")
    assert set(found.report.status) == {"aligned"}
    for name, true in zip("abcde", sar):
        assert error_px(found.warps[name], true, shape) < 0.15
    noise = new_stack({"red": np.random.default_rng(0).random((2, *shape))}, times(2), scene=list("xy"))
    lost = coregister(stack, reference=noise, matcher="phase", model="shift")
    assert set(lost.report.status) == {"rejected"}
    assert lost.report.reason.str.contains("composite").all()
    assert lost.warps == {}


def test_the_reference_is_not_the_one_scene_that_is_bent(ground, error_px):
    from geoalign.registration.network import _simple_reference
    from geoalign.types.alignment import Match
    from geoalign.types.warp import Field

    straight, bent = Shift(0.5, 0.5), Field(np.eye(4), np.eye(4))

    class Told:
        def match(self, i, j):
            warp = bent if 1 in (i, j) else straight
            return Match(warp, np.eye(2), 1.0, 0.1, 99, "told", None)

    assert _simple_reference(Told(), np.array([0.6, 0.9, 0.8, 0.5])) == 2


def test_large_scenes_of_a_network_are_read_once_as_far_as_they_fit(ground, monkeypatch):
    from geoalign.registration import tiepoints

    monkeypatch.setattr(tiepoints, "WHOLE_PX", 100)
    image = ground.scene(Shift(), (300, 280))
    held, plain = Image(image), Image(image)
    windows = tiepoints.windows_for(image.shape)
    low, high = windows.start - 5, windows.start + windows.size + 9
    for _ in range(2):
        for one, other in zip(tiepoints.cut(held, low, high)[0], tiepoints.cut(plain, low, high)[0]):
            np.testing.assert_array_equal(one, other)
    held.data = None  # what was read is enough
    tiepoints.cut(held, low, high)
    held.forget()
    with pytest.raises(TypeError):
        tiepoints.cut(held, low, high)


def test_three_points_that_any_affine_passes_through_are_not_sure(ground):
    from geoalign.kernels.fit import fit_model

    points = np.array([[10.0, 10.0], [20.0, 140.0], [130.0, 60.0]])
    found = points + np.array([[1.0, 0.2], [-0.5, 0.4], [0.8, -0.9]])
    fitted = fit_model("affine", points, found, np.broadcast_to(0.3**2 * np.eye(2), (3, 2, 2)))
    assert np.abs(fitted["residual"]).max() < 1e-9
    assert np.sqrt(fitted["covariance"][2, 2]) > 0.1


def test_a_cloudy_scene_is_looked_at_in_all_bands(ground, error_px):
    warps = [Shift(0.8, -1.3), Shift(), Shift(-2.1, 0.4), Shift(1.6, 1.9), Shift(-0.45, -0.7), Shift(1.1, 0.3)]
    rng = np.random.default_rng(3)
    hidden = ground.clouds(SHAPE, 0.7, 9)
    bands = {}
    for number, name in enumerate(("nir", "red", "swir1")):
        scenes = np.stack([ground.scene(w, SHAPE, seed=20 * number + k) for k, w in enumerate(warps)])
        scenes[5] += rng.normal(0, 1.5 * scenes.std(), SHAPE)
        scenes[5][hidden] = np.nan
        bands[name] = scenes
    stack = new_stack(bands, times(6), scene=list("abcdef"))
    one = coregister(stack, reference="b", band="nir")
    every = coregister(stack, reference="b")
    error = [error_px(found.warps["f"], warps[5], SHAPE) for found in (one, every)]
    assert error[1] < 0.12
    assert error[1] < 0.75 * error[0]
