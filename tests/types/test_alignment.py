import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from odc.geo.geobox import GeoBox

from geoalign import Affine, Alignment, Chain, Field, Match, Projective, Shift, StateError
from geoalign.types.alignment import REPORT_COLUMNS, TIE_POINT_COLUMNS

BOX = GeoBox.from_bbox((500000, 4000000, 500700, 4000500), "EPSG:32633", resolution=10)


def example():
    warps = {
        "a": Shift(),
        "b": Affine(((1, 0.001, 0.5), (0, 1, 0.1 + 0.2))),
        "c": Chain((Projective(((1, 0, 1), (0, 1, 2), (1e-5, 0, 1))), Field(np.eye(3), np.ones((3, 3)), 1, 2, 30, 40))),
    }
    rows = [
        ("a", "reference", 0.0, 0.0, 0.0, 0.0, 9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "phase", "shift", ""),
        (
            "d",
            "failed",
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            0,
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            np.nan,
            "phase",
            "",
            "no valid pixels",
        ),
    ]
    points = pd.DataFrame(
        [["b", 3.0, 4.0, 3.5, 4.5, 0.01, -0.02, 0.05, 0.9, "fit", ""]], columns=["scene", *TIE_POINT_COLUMNS]
    )
    return Alignment("a", warps, pd.DataFrame(rows, columns=list(REPORT_COLUMNS)), BOX, BOX.shape, points)


def test_saving_and_loading_loses_nothing(tmp_path):
    alignment = example()
    again = Alignment.load(alignment.save(tmp_path / "deep" / "a.json"))
    assert again.warps == alignment.warps
    assert again.geobox == BOX
    assert again.reference == "a"
    pd.testing.assert_frame_equal(again.report, alignment.report, check_dtype=False)
    pd.testing.assert_frame_equal(again.points, alignment.points, check_dtype=False)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_what_is_not_an_alignment_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(StateError, match="not an alignment"):
        Alignment.load(path)
    with pytest.raises(StateError, match="can't be read"):
        Alignment.load(tmp_path / "none.json")
    path.write_text(example().save(path).read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(StateError, match="version 99"):
        Alignment.load(path)


def test_tie_points_lie_at_pixel_centres():
    frame = example().tie_points()
    assert frame.crs.to_epsg() == 32633
    assert (frame.geometry.x[0], frame.geometry.y[0]) == (500045, 4000465)


def test_displacement_is_pull_minus_identity():
    shown = example().displacement()
    np.testing.assert_allclose(shown.dy.sel(scene="b")[3, 10], 0.001 * 10 + 0.5, rtol=1e-5)
    assert shown.dx.attrs["units"] == "px"


def test_predicted_error_follows_from_the_covariance():
    rng = np.random.default_rng(5)
    sd = np.array([1e-3, 2e-3, 0.1, 1e-3, 1e-3, 0.2])
    truth = np.array([[1, 0, 2], [0, 1, 3.0]])
    errors = []
    for _ in range(2000):
        r, c = Affine(truth + rng.normal(size=6).reshape(2, 3) * sd.reshape(2, 3)).pull(40.0, 30.0)
        errors.append([(r - 42) ** 2, (c - 33) ** 2])
    match = Match(Affine(truth), np.diag(sd**2), 1, 0, 9, "test", pd.DataFrame())
    assert match.sigma_px(40.0, 30.0) == pytest.approx(np.sqrt(np.mean(errors)), rel=0.05)
    shift = Match(Shift(1, 1), np.diag([0.01, 0.03]), 1, 0, 9, "test", pd.DataFrame())
    np.testing.assert_allclose(shift.sigma_px(np.zeros((2, 2)), 0), np.sqrt(0.02))
    field = Match(Field(np.eye(3), np.eye(3)), np.full((3, 3), 0.04), 1, 0, 9, "test", pd.DataFrame())
    assert field.sigma_px(10.0, 10.0) == pytest.approx(0.2)


def test_circular_error_is_of_held_out_points_and_of_used_ones_where_there_are_none():
    def match_of(uses, lengths):
        columns = {"use": uses, "dy_residual": 0.6 * np.array(lengths), "dx_residual": 0.8 * np.array(lengths)}
        return Match(Shift(), np.eye(2), 1, 0, 9, "test", pd.DataFrame(columns))

    ten = list(range(1, 12))
    assert match_of(["check"] * 11 + ["fit"], [*ten, 99.0]).ce90_px == pytest.approx(10)
    assert match_of(["fit"] * 11 + ["rejected"], [*ten, 99.0]).ce90_px == pytest.approx(10)
    assert np.isnan(match_of(["rejected"], [99.0]).ce90_px)
    assert np.isnan(Match(Shift(), np.eye(2), 1, 0, 9, "test", pd.DataFrame()).ce90_px)


def test_an_alignment_saved_before_circular_errors_is_read(tmp_path):
    path = example().save(tmp_path / "a.json")
    document = json.loads(path.read_text())
    for row in document["report"]:
        del row["ce90_px"], row["ce90_m"]
    path.write_text(json.dumps(document))
    report = Alignment.load(path).report
    assert tuple(report.columns) == REPORT_COLUMNS
    assert report.ce90_px.isna().all()
    assert report.ce90_px.dtype == float


def test_tie_points_survive_a_geopackage(tmp_path):
    frame = example().tie_points()
    # dx -0.02 px of 10 m is 0.2 m to the west, dy 0.01 px is 0.1 m to the south
    assert frame[["east_m", "north_m"]].values.tolist() == pytest.approx(np.array([[-0.2, -0.1]]))
    frame.to_file(tmp_path / "points.gpkg")
    again = gpd.read_file(tmp_path / "points.gpkg")
    assert again.crs == frame.crs
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(frame)[list(again.columns)], check_dtype=False)
    empty = Alignment("a", {}, example().report, BOX, BOX.shape).tie_points()
    empty.to_file(tmp_path / "none.gpkg")
    kinds = gpd.read_file(tmp_path / "none.gpkg").dtypes
    assert (kinds[["dy_residual", "east_m"]] == np.float64).all()
    lonlat = GeoBox.from_bbox((15, 50, 16, 51), "EPSG:4326", resolution=0.1)
    assert "east_m" not in Alignment("a", {}, example().report, lonlat, lonlat.shape, example().points).tie_points()
