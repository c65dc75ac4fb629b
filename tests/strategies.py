"""Hypothesis strategies: warps, images with gaps, and random chunkings."""

import numpy as np
from hypothesis import strategies as st

from geoalign import Affine, Chain, Field, Projective, Shift

small = st.floats(-3, 3, allow_nan=False)


def shifts():
    return st.builds(Shift, small, small)


@st.composite
def affines(draw):
    tilt = [draw(st.floats(-0.02, 0.02)) for _ in range(4)]
    return Affine(((1 + tilt[0], tilt[1], draw(small)), (tilt[2], 1 + tilt[3], draw(small))))


@st.composite
def projectives(draw):
    a = np.vstack([np.array(draw(affines()).matrix), [draw(st.floats(-1e-4, 1e-4)), draw(st.floats(-1e-4, 1e-4)), 1]])
    return Projective(a)


@st.composite
def fields(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shape = (draw(st.integers(2, 5)), draw(st.integers(2, 5)))
    dy, dx = rng.uniform(-2, 2, (2, *shape))
    return Field(dy, dx, draw(small), draw(small), 24.0, 24.0, draw(st.booleans()))


def warps():
    """One of every kind, and chains of them."""
    single = st.one_of(shifts(), affines(), projectives(), fields())
    return st.one_of(single, st.lists(single, min_size=0, max_size=3).map(lambda parts: Chain(tuple(parts))))


@st.composite
def chunkings(draw, shape):
    """Random chunk sizes for an array of this shape."""
    out = []
    for n in shape:
        sizes = []
        while sum(sizes) < n:
            sizes.append(draw(st.integers(1, n - sum(sizes))))
        out.append(tuple(sizes))
    return tuple(out)


@st.composite
def images(draw, shape=(40, 37), gaps=True):
    """float32 images with some NaN."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    image = rng.gamma(4, 0.25, shape).astype(np.float32)
    if gaps:
        image[rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.3]))] = np.nan
    return image
