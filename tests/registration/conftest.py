"""A ground whose value is known at every point, so that a displaced scene is rendered and never resampled."""

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Ground:
    """Random waves of 6 to 90 px, bent into soft-edged patches: `ground(rows, cols)` is exact anywhere."""

    seed: int = 0

    def __call__(self, rows, cols):
        rng = np.random.default_rng(self.seed)
        total = np.zeros(np.broadcast(rows, cols).shape)
        for _ in range(90):
            length, angle, phase = 6 * 15 ** rng.random(), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
            along = np.sin(angle) * rows + np.cos(angle) * cols
            total += (length / 20) ** 0.6 * np.cos(2 * np.pi * along / length + phase)
        return 1.0 + 0.5 * np.tanh(total / 5)

    def scene(self, warp, shape, *, noise=0.02, looks=None, seed=0):
        """What a sensor sees whose pixel W(x) shows ground x. `looks`: gamma speckle instead of noise."""
        rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
        image = self(*warp.inverse().pull(rows, cols))
        rng = np.random.default_rng((self.seed, seed, 7))
        if looks is None:
            return (image + noise * rng.standard_normal(shape)).astype(np.float32)
        return (10 ** (1.2 * (image - 1.5)) * rng.gamma(looks, 1 / looks, shape)).astype(np.float32)

    def clouds(self, shape, share, seed):
        """Mask, True where covered: blobs over about `share` of the image."""
        rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
        rng = np.random.default_rng((self.seed, seed, 11))
        total = np.zeros(shape)
        for _ in range(12):
            length, angle, phase = rng.uniform(40, 120), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
            total += np.cos(2 * np.pi * (np.sin(angle) * rows + np.cos(angle) * cols) / length + phase)
        return total > np.quantile(total, 1 - share)


@pytest.fixture(scope="session")
def ground():
    return Ground()


def rms_px(found, true, shape):
    """Root mean square length of the difference of two warps over an image."""
    rows, cols = np.mgrid[0 : shape[0] : 8, 0 : shape[1] : 8].astype(float)
    a, b = found.pull(rows, cols), true.pull(rows, cols)
    return float(np.sqrt(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2).mean()))


@pytest.fixture(scope="session")
def error_px():
    return rms_px
