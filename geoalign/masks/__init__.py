"""Screening beyond the masks that come with a product. What is not usable becomes NaN; nothing else is changed."""

from __future__ import annotations

import inspect

from geoalign.errors import ConfigError
from geoalign.types.stack import check_stack, is_sar

__all__ = ["mask", "masked_share"]


def mask(stack, **options):
    """A Stack with NaN where its values are not usable, by the room of its sensor.

    The defaults only take what no ground can show (reflectance outside -0.2..1.6, power below -50 dB). Everything that
    could take a real change along is off unless asked for: a flood is dark for a date, as a shadow is.

    Parameters
    ----------
    stack : Dataset (time, y, x)
        Lazy or not; not changed.
    **options
        Optical (`masks.optical.screen`): `valid_range`, `dilate_px`, `cloud_sigma`, `shadow_sigma`.
        SAR (`masks.sar.screen`): `floor_db`, `dilate_px`, `layover`, `incidence`, `incidence_range`.

    Returns
    -------
    Dataset (time, y, x), lazy where the stack is. `attrs["masked"]` records the options; `masked_share(before, after)`
    says how much they took.

    Raises
    ------
    ConfigError
        An option that the sensor's room does not have.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> stack = new_stack({"red": np.array([[[0.1, 3.0]]])}, ["2024-01-01"])
    >>> mask(stack).red.values.ravel().tolist()
    [0.10000000149011612, nan]
    """
    check_stack(stack)
    if is_sar(stack):
        from geoalign.masks.sar import screen
    else:
        from geoalign.masks.optical import screen
    known = [name for name in inspect.signature(screen).parameters if name != "stack"]
    unknown = [name for name in options if name not in known]
    if unknown:
        kind = "SAR" if is_sar(stack) else "optical"
        raise ConfigError(f"mask has no option {', '.join(unknown)} for {kind} stacks; it has {', '.join(known)}.")
    return screen(stack, **options)


def masked_share(before, after):
    """Share of the observed pixels of each scene that screening took: DataArray (time), 0..1, as lazy as the stacks.

    NaN where a scene had no observed pixel. A pixel is observed where any band is.
    """
    import xarray as xr

    def seen(stack):
        return xr.concat([stack[name].notnull() for name in stack.data_vars], "band").any("band")

    had, has = seen(before), seen(after)
    return 1.0 - has.sum(("y", "x")) / had.sum(("y", "x"))
