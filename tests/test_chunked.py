import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from geoalign import Chain, Field, Shift, StackError, chunked, new_stack
from geoalign.kernels.resample import KINDS
from tests.strategies import chunkings, images, warps


@given(
    image=images(shape=(41, 53)),
    warp=warps(),
    chunks=chunkings((41, 53)),
    out=st.tuples(st.integers(3, 60), st.integers(3, 60)),
    kind=st.sampled_from(KINDS),
)
def test_a_lazy_pull_is_an_eager_one(image, warp, chunks, out, kind):
    lazy = chunked.pull(da.from_array(image, chunks=chunks), warp, (50, 47), resampling=kind, chunks=out)
    assert isinstance(lazy, da.Array)
    np.testing.assert_array_equal(lazy.compute(), chunked.pull(image, warp, (50, 47), resampling=kind))


@pytest.mark.parametrize("chain", [False, True])
def test_a_field_with_close_nodes_is_pulled_the_same_lazily(chain):
    rng = np.random.default_rng(3)
    image = rng.random((160, 150)).astype(np.float32)
    rough = Field(rng.normal(0, 12, (41, 39)), rng.normal(0, 12, (41, 39)), step_row=4.0, step_col=4.0)
    warp = Chain((Shift(0.5, 3.0), rough)) if chain else rough
    lazy = chunked.pull(da.from_array(image, chunks=(16, 20)), warp, (160, 150), chunks=(32, 40))
    np.testing.assert_array_equal(lazy.compute(), chunked.pull(image, warp, (160, 150)))


def test_a_warp_that_jumps_between_two_pixels_is_refused_by_name():
    class Jump(Shift):
        def pull(self, rows, cols):
            return rows, np.where((rows % 32 == 7) & (cols % 40 == 11), cols + 60, cols)

    with pytest.raises(StackError, match=r"Jump\) reaches .* bends too sharply"):
        chunked.pull(da.ones((160, 150), chunks=20, dtype="f4"), Jump(0, 0), (160, 150), chunks=(32, 40)).compute()


def test_pull_stays_lazy_and_reads_only_its_window(no_compute):
    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.ones(block_info[None]["chunk-shape"], np.float32)

    image = da.map_blocks(block, chunks=((100,) * 10, (100,) * 10), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    with no_compute():
        moved = chunked.pull(image, Shift(10.3, 15.5), (1000, 1000), chunks=(100, 100))
    moved[450:460, 450:460].compute()
    assert set(read) <= {(4, 4), (4, 5), (5, 4), (5, 5)}


def test_the_same_pull_has_the_same_name():
    image = da.ones((50, 50), chunks=20, dtype="f4")
    assert chunked.pull(image, Shift(1, 2), (50, 50)).name == chunked.pull(image, Shift(1, 2), (50, 50)).name


def test_pull_beyond_the_image_is_not_observed():
    assert np.isnan(chunked.pull(da.ones((20, 20), chunks=7, dtype="f4"), Shift(500, 0), (20, 20)).compute()).all()


def test_an_unknown_kernel_is_named():
    with pytest.raises(StackError, match="'sinc' is unknown"):
        chunked.pull(np.ones((3, 3)), Chain(), (3, 3), resampling="sinc")


def kernel(series, level, factor=1.0):
    total = np.nansum(series, axis=1) * factor + level
    return total, series[:, :3], np.isfinite(series).sum(axis=1)


OUTPUTS = {"total": np.float32, "head": (np.float32, "k", 3), "n": np.int16}


@given(chunks=chunkings((5, 9, 11)))
def test_per_pixel_is_the_same_under_any_chunking(chunks):
    rng = np.random.default_rng(4)
    stack = new_stack({"a": np.where(rng.random((5, 9, 11)) < 0.2, np.nan, rng.normal(size=(5, 9, 11)))}, _days(5))
    level = stack.a.isel(time=0, drop=True).fillna(0)
    eager = chunked.per_pixel(kernel, stack.a, level, outputs=OUTPUTS, factor=2.0)
    assert eager["head"].dims == ("k", "y", "x")
    lazy = chunked.per_pixel(
        kernel, stack.a.chunk(dict(zip(("time", "y", "x"), chunks))), level, outputs=OUTPUTS, factor=2.0
    )
    assert chunked.is_lazy(lazy)
    xr.testing.assert_identical(eager, lazy.compute())


def blur(image, gain=1.0):
    padded = np.pad(image, 1, mode="edge")
    return sum(padded[i : i + image.shape[0], j : j + image.shape[1]] for i in range(3) for j in range(3)) * gain


@given(chunks=chunkings((23, 31)))
def test_neighbourhood_is_the_same_under_any_chunking(chunks):
    array = xr.DataArray(np.random.default_rng(2).normal(size=(23, 31)), dims=("y", "x"))
    eager = chunked.neighbourhood(blur, array, depth=1, outputs={"b": np.float64})
    lazy = chunked.neighbourhood(blur, array.chunk(y=chunks[0], x=chunks[1]), depth=1, outputs={"b": np.float64})
    xr.testing.assert_identical(eager, lazy.compute())
    np.testing.assert_array_equal(eager.b, blur(array.values))


def test_several_statistics_together_reach_a_kernel_whole():
    """Side by side they are a dask array of one chunk each; a kernel read beyond the first of them once."""
    array = xr.DataArray(np.random.default_rng(2).normal(size=(3, 20, 30)), dims=("band", "y", "x"))

    def run(data):
        mean = [chunked.whole_image(np.mean, np.mean, data.isel(band=k)) for k in range(3)]
        means = xr.concat(mean, "band")
        total = chunked.derived(lambda m: np.append(m, m.sum()), means, size=4)
        return chunked.neighbourhood(
            lambda block, means, total: (block - means[:, None, None], block * 0 + total[-1]), data, depth=1,
            outputs={"a": (np.float64, "band", 3), "b": (np.float64, "band", 3)}, means=means, total=total,
        )  # fmt: skip

    eager = run(array)
    np.testing.assert_allclose(eager.a.mean(("y", "x")), 0, atol=1e-12)
    xr.testing.assert_identical(run(array.chunk(y=7, x=11)).compute(), eager)


def test_whole_image_statistics_do_not_know_chunks(no_compute):
    array = xr.DataArray(np.random.default_rng(2).normal(size=(2, 70, 50)).astype("f4"), dims=("time", "y", "x"))

    def run(data):
        return chunked.whole_image(lambda block: block.sum(dtype=float), sum, data, block=32)

    with no_compute():
        lazy = run(array.chunk(time=1, y=13, x=17))
    assert float(lazy) == float(run(array)) == pytest.approx(float(array.astype(float).sum()))
    scaled = chunked.per_pixel(
        lambda series, gain: series[:, 0] * gain, array.chunk(y=20), outputs={"a": np.float64}, gain=lazy
    )
    np.testing.assert_allclose(scaled.a, array[0] * float(run(array)))


def test_a_sample_of_blocks_is_spread_evenly_and_does_not_know_chunks():
    row, col = np.meshgrid(np.arange(90), np.arange(70), indexing="ij")
    array = xr.DataArray((row * 1000 + col).astype(float), dims=("y", "x"))

    def corners(data, most):
        found = []
        chunked.whole_image(
            lambda b: b[0, 0], lambda parts: found.extend(parts) or 0.0, data, block=10, most=most
        ).load()
        return sorted(int(v) for v in found)

    assert corners(array, 4) == corners(array.chunk(y=7, x=23), 4) == [20010, 20050, 60010, 60050]
    assert len(corners(array, None)) == len(corners(array, 63)) == 63
    assert 1 <= len(corners(array, 3)) <= 3
    assert len(corners(array.isel(x=slice(0, 10)), 5)) == 5


def _days(n):
    return np.datetime64("2024-01-01") + np.arange(n)
