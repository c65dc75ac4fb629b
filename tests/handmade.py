"""Changes made by hand, for the tests of what comes after detection."""

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from geoalign import new_changes
from geoalign.types.stack import grid_coords

NAT = np.datetime64("NaT", "ns")
UTM = "EPSG:32633"


def day(text):
    return np.datetime64(text, "ns")


def geobox(shape, crs=UTM, resolution=10.0, x=500000.0, y=5000000.0):
    return GeoBox(shape, Affine(resolution, 0, x, 0, -resolution, y), crs)


def changes_at(flag, *, box="utm", date="2024-05-01", status=3, direction=-1, magnitude=-4.0, probability=0.9, **extra):
    """Changes that are `status` where `flag` (row, col) is set; every other argument is one value or an array."""
    flag = np.asarray(flag, bool)
    box = geobox(flag.shape) if isinstance(box, str) else box
    coords = grid_coords(box, flag.shape)

    def layer(values, none=0):
        return xr.DataArray(np.where(flag, values, none), dims=("y", "x"), coords=coords)

    dates = day(date) if isinstance(date, str) else np.asarray(date, "datetime64[ns]")
    layers = {
        "status": layer(status),
        "date": layer(dates, NAT),
        "date_after": layer(dates - np.timedelta64(12, "D"), NAT),
        "date_by": layer(dates, NAT),
        "magnitude": layer(magnitude, np.nan).astype(np.float32),
        "direction": layer(direction),
        "probability": layer(probability).astype(np.float32),
        "n_obs": layer(9, 9),
        "why": layer(0),
    }
    layers |= {
        name: layer(values, NAT if np.asarray(values).dtype.kind == "M" else 0) for name, values in extra.items()
    }
    return new_changes(layers, kind="flood", detector="by hand", prior=0.1, magnitude_units="dB", inputs=("a", "b"))


def random_changes(shape=(30, 40), share=0.4, seed=0, **options):
    """Noise: everything differs from pixel to pixel."""
    rng = np.random.default_rng(seed)
    dates = day("2024-01-01") + rng.integers(0, 20, shape) * np.timedelta64(12, "D")
    values = {
        "date": dates,
        "direction": rng.choice([-1, 1], shape),
        "magnitude": rng.normal(size=shape),
        "probability": rng.random(shape),
        "status": rng.choice([3, 4], shape),
        "date_end": dates + np.timedelta64(30, "D"),
    }
    return changes_at(rng.random(shape) < share, **(values | options))
