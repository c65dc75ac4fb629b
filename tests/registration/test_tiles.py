"""Images too large to be held: tiles and one decimating pass give what whole images give, lazily as eagerly."""

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from geoalign import match
from geoalign.registration import tiepoints
from geoalign.registration.tiepoints import Image, block_mean
from geoalign.types.warp import Affine, Field, Shift

SHAPE = (420, 396)
TURN = Affine([[1.0004, -0.0006, 2.3], [0.0005, 0.9997, -1.7]])


@pytest.fixture
def small(monkeypatch):
    """Images from 140 px on count as large."""
    monkeypatch.setattr(tiepoints, "WHOLE_PX", 140)
    monkeypatch.setattr(tiepoints, "COARSE_PX", 140)
    monkeypatch.setattr(tiepoints, "DENSE_PX", 32)


@pytest.fixture(scope="module")
def turned(ground):
    return ground.scene(Shift(), SHAPE), ground.scene(TURN, SHAPE, seed=1)


def lazy(image, chunks=(97, 131)):
    return xr.DataArray(da.from_array(image, chunks=chunks), dims=("y", "x"))


def test_decimations_do_not_depend_on_what_was_asked_before_nor_on_chunks(small, turned):
    image = turned[0].copy()
    image[30:170, 50:220] = np.nan
    one, other = Image(image), Image(lazy(image, (61, 200)).data)
    assert one.by_tiles
    assert one.base == 3
    factors = (3, 6, 12, 5)
    found = {f: one.coarse(f) for f in factors}
    for f in reversed(factors):
        np.testing.assert_array_equal(found[f], other.coarse(f))
        np.testing.assert_allclose(found[f], block_mean(image, f), rtol=1e-5)


@pytest.mark.parametrize("matcher", ["phase", "ecc", "mutual_information", "ncc"])
def test_tiles_of_lazy_images_give_the_same_warp(small, turned, error_px, matcher):
    reference, moving = turned
    moving = moving.copy()
    moving[200:260, 100:190] = np.nan
    valid = np.ones(SHAPE, bool)
    valid[:40, :70] = False
    options = {"matcher": matcher, "model": "affine"}
    eager = match(reference, moving, valid=(valid, None), **options)
    found = match(lazy(reference), lazy(moving, (150, 60)), valid=(lazy(valid, (77, 400)), None), **options)
    assert found.warp == eager.warp
    np.testing.assert_array_equal(found.covariance, eager.covariance)
    assert error_px(eager.warp, TURN, SHAPE) < 0.05


def test_a_linear_match_reads_every_chunk_once(small, turned):
    reads = Counter()

    def counted(image, which):
        def read(block, block_info=None):
            reads[which, block_info[0]["chunk-location"]] += 1
            return block

        array = da.from_array(image, chunks=(100, 100)).map_blocks(read, dtype=image.dtype, meta=np.empty((0, 0), "f4"))
        return xr.DataArray(array, dims=("y", "x"))

    match(*(counted(image, k) for k, image in enumerate(turned)), model="affine")
    assert set(reads.values()) == {1}


def test_a_field_by_tiles_is_as_good_as_full_resolution_allows(small, ground, error_px):
    rng = np.random.default_rng(4)
    bent = Field(*(2.5 * rng.uniform(-1, 1, (2, 7, 7))), -105.0, -99.0, 105.0, 99.0)
    reference, moving = ground.scene(Shift(), SHAPE), ground.scene(bent, SHAPE, seed=1)
    found = match(lazy(reference), lazy(moving), matcher="phase", model="field")
    assert isinstance(found.warp, Field)
    assert error_px(found.warp, bent, SHAPE) < 0.08
    rows, cols = np.mgrid[10:400:10, 10:390:10].astype(float)
    error = np.stack(found.warp.pull(rows, cols)) - np.stack(bent.pull(rows, cols))
    sigma = found.sigma_px(rows, cols)
    assert (np.abs(error) < sigma).mean() > 0.5  # of so small an image little more is known than that it is good
    assert np.median(sigma) < 0.3
    assert found.warp == match(reference, moving, matcher="phase", model="field").warp


def test_windows_at_full_resolution_mend_a_field_that_decimated_images_got_wrong(small, ground, error_px, monkeypatch):
    from geoalign.registration import field, field_tiles

    bent = Field(*(1.5 * np.random.default_rng(5).uniform(-1, 1, (2, 7, 7))), -105.0, -99.0, 105.0, 99.0)
    reference, moving = ground.scene(Shift(), SHAPE), ground.scene(bent, SHAPE, seed=1)
    before = []

    def led_astray(one, other, nodes, *rest):
        waves = 0.6 * np.cos(np.arange(nodes.coef.shape[1]) * 0.9)
        nodes = type(nodes)(nodes.grid, nodes.coef + waves[None, :, None])
        before.append(error_px(nodes.warp(), bent, SHAPE))
        return field_tiles.field_by_tiles(one, other, nodes, *rest)

    monkeypatch.setattr(field, "field_by_tiles", led_astray)
    found = match(reference, moving, matcher="phase", model="field")
    assert before[0] > 0.5
    assert error_px(found.warp, bent, SHAPE) < 0.5 * before[0]


@pytest.mark.parametrize("shape", [(200,), (200, 200, 2)])
def test_what_is_no_pair_of_images_is_refused_before_anything_is_read(shape):
    from geoalign import MatchError

    with pytest.raises(MatchError, match="two images"):
        match(da.zeros(shape), da.zeros(shape))
