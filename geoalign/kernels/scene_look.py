"""What the sensor and the air add to rendered ground: cloud, shadow, haze, noise; speckle."""

import numpy as np

from geoalign.kernels import scene as maths

_CLOUD = np.array([0.56, 0.57, 0.58, 0.61, 0.46, 0.36])
_MISSED = 0.82
_SHADE = np.array([0.42, 0.48, 0.52, 0.62, 0.62, 0.60])


def optical_look(bands, shown, rng, *, salt, shadow, level, gain, offset, noise):
    """Cloud, shadow, haze and noise over the ground as rendered.

    bands : (6, row, col); shown : (rows, cols) project pixels at which the scene shows its pixels (clouds do not share
        the ground's misregistration); salt, shadow, level : as in `scene.cloud_fields`; gain, offset : by band
    noise : reflectance, 1 sigma; 0.5 % of the signal is added
    Returns reflectance float32 (6, row, col) and the scene classification uint8 (Sentinel-2 codes).
    """
    opacity, depth, _ = maths.cloud_fields(*shown, salt, *shadow, level)
    bright = 0.75 + 0.5 * maths.smooth_field(*shown, 9.0, salt + 31)
    gain, offset = (np.array(v)[:, None, None] for v in (gain, offset))
    bands = bands * gain + offset
    bands *= 1 - _SHADE[:, None, None] * depth
    bands += (_CLOUD[:, None, None] * bright - bands) * opacity
    bands += rng.standard_normal(bands.shape, np.float32) * (noise + 0.005 * bands)
    ndvi = (bands[3] - bands[2]) / np.maximum(bands[3] + bands[2], 0.01)
    classes = np.where(ndvi > 0.35, 4, 5)
    classes[(bands[3] < 0.09) & (ndvi < 0.2)] = 6
    # a cloud mask misses some places altogether, but no overcast sky
    seen = (maths.smooth_field(*shown, 16.0, salt + 57) < _MISSED) | np.isneginf(level)
    classes[(depth > 0.15) & seen] = 3
    classes[(opacity > 0.15) & seen] = 8
    classes[(opacity > 0.60) & seen] = 9
    return np.maximum(bands, 1e-4).astype(np.float32), classes.astype(np.uint8)


def sar_look(bands, rng, *, looks, gain):
    """Speckle of L looks, drawn on the scene's own pixels, over a noise floor of -32 dB; power (2, row, col)."""
    speckle = rng.standard_gamma(looks, bands.shape) / looks
    return ((bands * np.array(gain)[:, None, None] + 10**-3.2) * speckle).astype(np.float32)


def lost(classes):
    """Where the scene classification says that the ground is not seen: shadow and cloud."""
    return (classes == 3) | (classes >= 8)
