"""Small pictures of a stack before and after: medians of its first and last clear scenes, as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 900
"""Longest side of a picture, px."""


def before_after(stack, folder, name) -> dict[str, str]:
    """Write NAME_before.webp and NAME_after.webp of a stack; returns their places, captions and step.

    Up to eight scenes at each end are combined by their median (two at large sizes), so that most clouds are gone.
    Both pictures have one stretch, so that they can be compared.
    """
    from matplotlib.image import imsave

    step = max(1, -(-max(stack.sizes["y"], stack.sizes["x"]) // SIDE))
    n = stack.sizes["time"]
    ends = max(1, min(n // 3, 8 if step < 4 else 2))
    first, last = stack.isel(time=slice(0, ends)), stack.isel(time=slice(n - ends, n))
    bands = _bands(stack)
    before, after = (_composite(part, bands, step) for part in (first, last))
    low, high = _stretch(np.concatenate([before, after], axis=1))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"bands": " ".join(bands), "step": step}
    for key, picture, part in (("before", before, first), ("after", after, last)):
        path = folder / f"{name}_{key}.webp"
        imsave(path, _rgba(picture, low, high), pil_kwargs={"quality": 82})
        record[key] = f"pictures/{path.name}"
        record[f"{key}_dates"] = f"{str(part.time.values[0])[:10]} to {str(part.time.values[-1])[:10]}"
    return record


def _bands(stack) -> list[str]:
    names = list(map(str, stack.data_vars))
    for wanted in (("red", "green", "blue"), ("vv", "vh")):
        if all(band in names for band in wanted):
            return list(wanted)
    return names[:1]


def _composite(part, bands, step):
    """(row, col, 3) float: the median over time of each band; SAR in dB as vv, vh and their difference."""
    import dask

    small = [part[band].isel(y=slice(None, None, step), x=slice(None, None, step)) for band in bands]
    arrays = [np.asarray(a) for a in dask.compute(*(s.data for s in small))]
    merged = [_median(a) for a in arrays]
    if bands[0] in ("vv", "vh", "hh", "hv"):
        merged = [10 * np.log10(np.where(m > 0, m, np.nan)) for m in merged]
        if len(merged) == 2:
            merged.append(merged[0] - merged[1])
    return np.stack(merged if len(merged) == 3 else merged[:1] * 3, axis=-1)


def _median(series):
    """Median over time where anything was observed, NaN elsewhere."""
    out = np.full(series.shape[1:], np.nan, np.float32)
    seen = np.isfinite(series).any(axis=0)
    out[seen] = np.nanmedian(series[:, seen], axis=0)
    return out


def _stretch(picture):
    """Low and high of each channel: 2nd and 98th percentile of what was observed."""
    flat = picture.reshape(-1, 3)
    flat = flat[np.isfinite(flat).all(axis=1)]
    if flat.size == 0:
        return np.zeros(3), np.ones(3)
    low, high = np.percentile(flat, (2, 98), axis=0)
    return low, np.where(high > low, high, low + 1)


def _rgba(picture, low, high):
    seen = np.isfinite(picture).all(axis=-1)
    scaled = np.clip((np.where(seen[..., None], picture, low) - low) / (high - low), 0, 1)
    out = np.zeros((*picture.shape[:2], 4), np.uint8)
    out[..., :3] = np.round(255 * scaled**0.8)
    out[..., 3] = np.where(seen, 255, 0)
    return out
