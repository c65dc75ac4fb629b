import geopandas as gpd
import numpy as np
import pytest
from shapely import LineString, box

from geoalign import ConfigError, footprints, forms, polygons
from tests.handmade import changes_at, day


def road(shape=(80, 90)):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return np.abs(cols - 20 - 15 * np.sin(rows / 12)) < 1.5


def test_roads_bend_and_estates_are_large():
    flag = road()
    flag[20:50, 55:85] = True
    flag[70:74, 60:64] = True
    frame = forms(polygons(changes_at(flag)))
    assert sorted(frame.form) == ["large", "line", "small"]
    line = frame[frame.form == "line"].iloc[0]
    assert 20 < line.width_m < 45
    assert line.length_m > 900
    estate = frame[frame.form == "large"].iloc[0]
    assert estate.elongation < 2


@pytest.mark.parametrize("angle", [0, 20, 45, 70])
def test_the_direction_of_a_road_does_not_matter(angle):
    rows, cols = np.mgrid[:100, :100] - 50
    a = np.radians(angle)
    along, across = rows * np.cos(a) + cols * np.sin(a), -rows * np.sin(a) + cols * np.cos(a)
    flag = (np.abs(across) < 2) & (np.abs(along) < 35)
    frame = forms(polygons(changes_at(flag)))
    assert frame.form.to_list() == ["line"]
    assert 8 < frame.elongation[0] < 30


def test_frames_in_degrees_are_measured_in_metres():
    frame = gpd.GeoDataFrame(geometry=[LineString([(15, 45), (15.02, 45)]).buffer(0.0001)], crs=4326)
    out = forms(frame)
    assert out.form[0] == "line"
    assert 1300 < out.length_m[0] < 1900
    assert frame.columns.to_list() == ["geometry"]
    assert forms(frame.iloc[:0]).form.to_list() == []


def hit_map():
    flag = np.zeros((20, 30), bool)
    flag[5:10, 5:10] = True
    dates = np.full(flag.shape, day("2024-05-01"))
    dates[5:10, 8:10] = day("2024-05-13")
    return changes_at(flag, date=dates)


def test_a_footprint_gets_its_share_date_and_probability():
    changes = hit_map()
    x0, y0 = float(changes.x[5]) - 5, float(changes.y[5]) + 5
    houses = gpd.GeoDataFrame(
        {"name": list("abcd")},
        geometry=[
            box(x0, y0 - 50, x0 + 50, y0),  # all of it
            box(x0 - 50, y0 - 50, x0 + 50, y0),  # a half
            box(x0 + 100, y0 - 50, x0 + 150, y0),  # none
            box(x0 - 5000, y0, x0 - 4900, y0 + 50),  # elsewhere
        ],
        crs=str(changes.odc.geobox.crs),
    )
    out = footprints(changes, houses.to_crs(4326))
    np.testing.assert_allclose(out.share[:3], [1, 0.5, 0], atol=0.03)
    assert out.changed.to_list() == [True, True, False, False]
    np.testing.assert_allclose(out.observed, [1, 1, 1, 0], atol=1e-6)
    assert out.date.dt.date.astype(str).to_list()[0] == "2024-05-01"
    assert out.date_by.dt.date.astype(str).to_list()[0] == "2024-05-13"
    assert out.date[2:].isna().all()
    assert out.probability[0] == pytest.approx(0.9, abs=0.02)
    assert np.isnan(out.share[3])
    assert footprints(changes, houses, min_share=0.6).changed.to_list() == [True, False, False, False]


def test_a_hut_smaller_than_a_pixel_has_its_place():
    changes = hit_map()
    x, y = float(changes.x[7]), float(changes.y[7])
    hut = gpd.GeoDataFrame(geometry=[box(x, y, x + 0.5, y + 0.5)], crs=str(changes.odc.geobox.crs))
    assert footprints(changes, hut).share[0] == 1


def test_what_was_not_observed_does_not_count():
    changes = hit_map()
    changes.status[5:10, 5:8] = 255
    x0, y0 = float(changes.x[5]) - 5, float(changes.y[5]) + 5
    out = footprints(changes, gpd.GeoDataFrame(geometry=[box(x0, y0 - 50, x0 + 50, y0)], crs=32633))
    assert out.observed[0] == pytest.approx(0.4)
    assert out.share[0] == 1


def test_wrong_input_is_named():
    changes = hit_map()
    frame = gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)])
    with pytest.raises(ConfigError, match="CRS"):
        footprints(changes, frame)
    with pytest.raises(ConfigError, match="min_share"):
        footprints(changes, frame, min_share=2)
    with pytest.raises(ConfigError, match="elongation"):
        forms(frame, elongation=0)
