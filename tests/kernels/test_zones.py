"""Runs, components and outlines against flood filling and unions of squares."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geoalign.kernels import zones
from tests import naive


def runs_of(codes):
    return zones.row_runs(codes.astype(np.uint8), 0)


@st.composite
def code_images(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    codes = rng.integers(1, draw(st.integers(2, 3)), shape)
    return np.where(rng.random(shape) < draw(st.sampled_from([0.3, 0.5, 0.7])), codes, 0).astype(np.uint8)


@given(code_images())
def test_runs_are_the_image(codes):
    rows, starts, stops, code = runs_of(codes)
    again = np.zeros_like(codes)
    for r, a, b, v in zip(rows, starts, stops, code):
        assert (again[r, a:b] == 0).all()
        again[r, a:b] = v
    np.testing.assert_array_equal(again, codes)


@given(code_images(), st.sampled_from([4, 8]))
def test_labels_are_those_of_flood_filling(codes, connectivity):
    rows, starts, stops, code = runs_of(codes)
    labels = zones.label_runs(rows, starts, stops, code, 1 if connectivity == 8 else 0)
    expected = naive.zones(codes, connectivity)
    found = [set() for _ in expected]
    for r, a, b, label in zip(rows, starts, stops, labels):
        found[label] |= {(r, c) for c in range(a, b)}
    assert found == expected


@given(code_images())
def test_outlines_are_valid_and_cover_the_pixels(codes):
    rows, starts, stops, code = runs_of(codes)
    labels = zones.label_runs(rows, starts, stops, code, 1)
    parts = zones.label_runs(rows, starts, stops, code, 0)
    order = np.argsort(labels, kind="stable")
    n = labels.max(initial=-1) + 1
    pointer = np.append(0, np.cumsum(np.bincount(labels, minlength=n))).astype(np.int64)
    vertices, ends, ring_zone, ring_part = zones.outlines(order, pointer, rows, starts, stops, parts)
    rings = np.split(vertices, ends[:-1]) if ends.size else []
    for zone, pixels in enumerate(naive.zones(codes, 8)):
        polygons = []
        for part in dict.fromkeys(ring_part[ring_zone == zone]):
            outer, *holes = [ring[:, ::-1] for ring, z, p in zip(rings, ring_zone, ring_part) if (z, p) == (zone, part)]
            assert shapely.LinearRing(outer * (1, -1)).is_ccw, "outer rings turn counter-clockwise with y upwards"
            assert not any(shapely.LinearRing(hole * (1, -1)).is_ccw for hole in holes)
            assert all(shapely.LinearRing(ring).is_simple for ring in (outer, *holes))
            polygons.append(shapely.Polygon(outer, holes))
        shape = shapely.MultiPolygon(polygons)
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.equals(naive.outline(pixels))


def test_outlines_have_no_needless_points():
    codes = np.ones((3, 5), np.uint8)
    rows, starts, stops, code = runs_of(codes)
    none = np.zeros(3, np.int32)
    vertices = zones.outlines(np.arange(3), np.array([0, 3]), rows, starts, stops, none)[0]
    assert vertices.tolist() == [[0, 0], [3, 0], [3, 5], [0, 5], [0, 0]]


def test_more_rings_and_points_than_the_first_guess():
    codes = np.zeros((60, 60), np.uint8)
    codes[::2, ::2] = 1
    rows, starts, stops, code = runs_of(codes)
    labels = zones.label_runs(rows, starts, stops, code, 0)
    n = labels.size
    vertices, ends, _, _ = zones.outlines(np.arange(n), np.arange(n + 1), rows, starts, stops, labels)
    assert ends.size == n == 900
    assert len(vertices) == 5 * n


@pytest.mark.parametrize("known", [[3, 1, 2], [1, 2], [7], []])
def test_median_is_a_day_that_was_seen(known):
    days = np.array([*known, zones.NO_DAY], np.int32)
    one = np.array([0])
    found = zones.zone_medians(one, np.array([0, 1]), one, np.array([days.size]), days)[0]
    assert found == (sorted(known)[(len(known) - 1) // 2] if known else zones.NO_DAY)


def test_sums_leave_out_what_is_not_finite():
    total, count = zones.run_sums(np.array([3, 1]), np.array([1.5, np.nan, 2.0, np.nan], np.float32))
    assert total.tolist() == [3.5, 0.0]
    assert count.tolist() == [2, 0]


def test_extremes_skip_unknown_days_and_tell_the_first_place():
    days = np.array([zones.NO_DAY, 4, 2, 2, zones.NO_DAY], np.int32)
    low, high, at = zones.run_extremes(np.array([4, 1]), days)
    assert low.tolist() == [2, zones.NO_DAY]
    assert high.tolist() == [4, zones.NO_DAY]
    assert at.tolist() == [2, 0]
