"""One map of change from several sensors: `fuse`."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geoalign.chunked import neighbourhood
from geoalign.errors import ConfigError, StateError
from geoalign.kernels.fusion import NEVER, fuse_window
from geoalign.types.changes import CONFIRMED, ENDED, NO_CHANGE, NOT_OBSERVABLE, WHY, changed, check_changes, new_changes

WINDOW_DAYS = 180.0
CAP = 6.0
"""ln likelihood ratio that one sensor may bring, for or against: a model that is never wrong by more than 1 in 400."""

ROUNDING = 1e-3
"""ln likelihood ratio that is none: a probability at its prior, stored in single precision, is no word against."""

ALONE = 8.0
"""ln likelihood ratio, uncapped, from which a change stands that only one of the sensors that looked has seen."""


def fuse(
    sources: dict, *, prior: float = 0.02, window_days: float = WINDOW_DAYS, sigma_px: float = 0.0, weights=None,
    cap: float = CAP,
) -> xr.Dataset:  # fmt: skip
    """Changes of several sensors as one, each with the weight of its evidence.

    A sensor's probability, freed of the prior it was made with, is a likelihood ratio; these are tempered by `weights`,
    capped, and added to the log odds of `prior`. A sensor that could not see a pixel says nothing. One sensor's sure
    change stands where the others are blind or doubtful, and falls where they surely saw none.

    Parameters
    ----------
    sources : dict name -> Changes (y, x), on one grid, of one kind of change
    prior : share of change that the fused probability assumes
    window_days : changes further apart in time are not one change
    sigma_px : px, 1 sigma of the sensors' misregistration; changes up to ceil(2 sigma_px) apart are one
    weights : dict name -> 0..1, optional
        Tempering: (1 - r) / (1 + r) for a sensor whose errors have the autocorrelation r over time; 1 by default.
    cap : largest ln likelihood ratio, for or against, that a sensor can bring

    Returns
    -------
    Changes (y, x), lazy where a source is: changed where the odds are above even. A change that one sensor alone shows,
    where another saw nothing of it, has odds above even only if its own ln likelihood ratio is 8 or more: the false
    alarms of all sensors would add up otherwise. `date` is the earliest of the sensors that agree, `date_after` the
    latest day on which one of them still saw no change. `magnitude` is the fused ln likelihood ratio, `n_sensors` how
    many sensors show the change, `status` and `direction` those of the strongest.

    Raises
    ------
    StateError : no Changes, or of different grids
    ConfigError : an option out of its range, an unknown name in `weights`

    References
    ----------
    Reiche et al. (2015), doi:10.1016/j.rse.2014.10.001, for probabilities of several sensors in one update; we add the
    cap on either side and the window.

    Examples
    --------
    >>> from geoalign import detect, new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> rng = np.random.default_rng(0)
    >>> found = {}
    >>> for name, first in (("one", 90), ("other", 92)):
    ...     series = rng.normal(0.7, 0.02, (time.size, 1, 2))
    ...     series[first:, 0, 0] -= 0.3
    ...     found[name] = detect(new_stack({"ndvi": series}, time), "harmonic_cusum")
    >>> both = fuse(found)
    >>> both.status.values.tolist(), both.date.values[0, 0] == time[90]
    ([[3, 0]], np.True_)
    """
    names = list(sources)
    weights = dict(weights or {})
    _check(sources, prior, window_days, sigma_px, weights, cap)
    parts = [sources[n] for n in names]
    ratios = [_ratio(c, weights.get(n, 1.0), cap) for n, c in zip(names, parts)]
    ratio = xr.concat(ratios, "sensor")
    date, after = (xr.concat([_stamps(c, layer) for c in parts], "sensor") for layer in ("date", "date_after"))
    base = float(np.log(prior / (1 - prior)))
    found = neighbourhood(
        fuse_window,
        ratio,
        date,
        after,
        depth=int(np.ceil(2 * sigma_px)),
        outputs={"odds": "float64", "day": "int64", "after": "int64", "lead": "int8", "n_sensors": "uint8"},
        reach=int(np.ceil(2 * sigma_px)),
        window=int(window_days * 86400e9),
        base=base,
    )
    own = xr.concat([_evidence(c, weights.get(n, 1.0)) for n, c in zip(names, parts)], "sensor")
    # the other sensors' evidence against lies at the pixel; a change seen a little apart counts in n_sensors
    doubted = (found.n_sensors < 2) & (own < -ROUNDING).any("sensor") & (own.max("sensor") < ALONE)
    odds = xr.where(doubted, np.minimum(found.odds, 0.0), found.odds)
    hit = (odds > 0) & (found.day != NEVER)
    of_lead = {k: _pick([c[k] for c in parts], found.lead) for k in ("status", "direction")}
    ended = of_lead["status"] == ENDED
    day = xr.where(hit, found.day, NEVER).astype("datetime64[ns]")
    why = parts[0].why.drop_vars(list(parts[0].why.coords))
    for c in parts[1:]:
        why = why | c.why.drop_vars(list(c.why.coords))
    blind = odds.isnull()
    layers = {
        "status": xr.where(blind, NOT_OBSERVABLE, xr.where(hit, xr.where(ended, ENDED, CONFIRMED), NO_CHANGE)),
        "date": day,
        "date_after": xr.where(hit, found.after, NEVER).astype("datetime64[ns]"),
        "date_by": day,
        "magnitude": (odds - base).astype("float32"),
        "direction": xr.where(hit, of_lead["direction"], 0),
        "probability": (1 / (1 + np.exp(-odds))).astype("float32"),
        "n_obs": sum(c.n_obs.drop_vars(list(c.n_obs.coords)).astype("uint16") for c in parts),
        "why": xr.where(blind, why, why & (WHY["misregistered"] | WHY["not_detectable"])),
        "n_sensors": xr.where(hit, found.n_sensors, 0).astype("uint8"),
    }
    return new_changes(
        layers,
        kind=parts[0].attrs["kind"],
        detector="fuse(" + ", ".join(f"{n}={c.attrs['detector']}" for n, c in zip(names, parts)) + ")",
        prior=prior,
        inputs=[i for c in parts for i in c.attrs["inputs"].split()],
        coords=parts[0].coords,
    )


def _check(sources, prior, window_days, sigma_px, weights, cap):
    if len(sources) < 1:
        raise StateError("fuse needs Changes of one sensor or more, as {'sar': ..., 'optical': ...}.")
    first = None
    for name, changes in sources.items():
        check_changes(changes)
        first = changes if first is None else first
        same = changes.status.shape == first.status.shape and all(
            np.array_equal(changes[k], first[k]) for k in ("y", "x") if k in changes.coords and k in first.coords
        )
        if not same:
            raise StateError(f"{name} lies on another grid than {next(iter(sources))}; open both with like=.")
        if not np.isfinite(changes.attrs["prior"]):
            raise StateError(
                f"{name} states no prior; give its detector one, so that its evidence can be told from it."
            )
    for option, value, least, most in (
        ("prior", prior, 1e-9, 1 - 1e-9), ("window_days", window_days, 0, 36500), ("sigma_px", sigma_px, 0, 50),
        ("cap", cap, 0.1, 50),
    ):  # fmt: skip
        if not (np.isscalar(value) and least <= value <= most):
            raise ConfigError(f"{option} is {value!r}; it lies between {least:g} and {most:g}.")
    unknown = [k for k in weights if k not in sources]
    if unknown or any(not 0 < w <= 1 for w in weights.values()):
        raise ConfigError(f"weights is {weights}; it gives sources ({', '.join(sources)}) numbers above 0, up to 1.")


def _ratio(changes, weight, cap):
    """Tempered, capped ln likelihood ratio (y, x) float32; NaN where not observable."""
    ratio = weight * _evidence(changes, 1.0)
    return ratio.clip(-cap, cap).astype("float32")


def _evidence(changes, weight):
    """Tempered ln likelihood ratio (y, x) without coordinates; NaN where not observable."""
    base = float(np.log(changes.attrs["prior"] / (1 - changes.attrs["prior"])))
    p = changes.probability.astype("float64").clip(1e-12, 1 - 1e-12)
    ratio = weight * (np.log(p / (1 - p)) - base)
    return ratio.where(changes.status != NOT_OBSERVABLE).drop_vars(list(ratio.coords))


def _stamps(changes, layer):
    """Dates of what changed as int64 ns (y, x); NEVER elsewhere."""
    return changes[layer].where(changed(changes)).astype("datetime64[ns]").astype("int64").drop_vars(
        list(changes[layer].coords)
    )  # fmt: skip


def _pick(layers, lead):
    out = layers[0].drop_vars(list(layers[0].coords))
    for k, layer in enumerate(layers[1:], 1):
        out = xr.where(lead == k, layer.drop_vars(list(layer.coords)), out)
    return out
