"""Patches and their outlines against a reference: `objects`, `boundary`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from geoalign.errors import StackError
from geoalign.types.changes import changed

EIGHT = np.ones((3, 3), bool)


def objects(mapped, real, *, iou=(0.1, 0.5)) -> pd.DataFrame:
    """Precision, recall and F1 of patches: one counts as found where it overlaps enough with one of the reference.

    Parameters
    ----------
    mapped : Changes, or bool (y, x)
    real : bool (y, x), or datetime64 (y, x) with NaT where nothing changed
    iou : least intersection over union; each patch is matched once, the best overlaps first

    Returns
    -------
    DataFrame, a row a threshold: iou, n_mapped, n_real, n_matched, precision, recall, f1

    Examples
    --------
    >>> from geoalign.accuracy import objects
    >>> real, mapped = np.zeros((2, 6, 9), bool)
    >>> real[1:5, 1:4] = mapped[1:5, 1:5] = True
    >>> mapped[2, 7] = True
    >>> objects(mapped, real, iou=(0.5,))[["precision", "recall"]].values.tolist()
    [[0.5, 1.0]]
    """
    mapped, real = _masks(mapped, real)
    ours, n_ours = ndimage.label(mapped, EIGHT)
    theirs, n_theirs = ndimage.label(real, EIGHT)
    both = (ours > 0) & (theirs > 0)
    pairs, shared = np.unique(np.stack([ours[both], theirs[both]]), axis=1, return_counts=True)
    size_ours = np.bincount(ours.ravel(), minlength=n_ours + 1)
    size_theirs = np.bincount(theirs.ravel(), minlength=n_theirs + 1)
    overlap = shared / (size_ours[pairs[0]] + size_theirs[pairs[1]] - shared)
    order = np.argsort(-overlap, kind="stable")
    rows = []
    for least in iou:
        used_ours, used_theirs = set(), set()
        for k in order:
            if overlap[k] >= least and pairs[0, k] not in used_ours and pairs[1, k] not in used_theirs:
                used_ours.add(pairs[0, k])
                used_theirs.add(pairs[1, k])
        n = len(used_ours)
        rows.append((least, n_ours, n_theirs, n, *_scores(n, n_ours, n_theirs)))
    return pd.DataFrame(rows, columns=["iou", "n_mapped", "n_real", "n_matched", "precision", "recall", "f1"])


def boundary(mapped, real, *, px=(1, 2, 3)) -> pd.DataFrame:
    """Precision, recall and F1 of outlines: an edge pixel is right where one of the other's lies within some pixels.

    Parameters
    ----------
    mapped, real : as in `objects`
    px : distances between pixel centres that still count

    Returns
    -------
    DataFrame, a row a distance: px, precision, recall, f1

    Examples
    --------
    >>> from geoalign.accuracy import boundary
    >>> real = np.zeros((9, 9), bool)
    >>> real[2:6, 2:6] = True
    >>> boundary(np.roll(real, 1, axis=1), real, px=(1,)).f1.tolist()
    [1.0]
    """
    mapped, real = _masks(mapped, real)
    edges = [m & ~ndimage.binary_erosion(m, border_value=1) for m in (mapped, real)]
    rows = []
    for limit in px:
        near = [_within(e, limit) for e in edges]
        precision = float(near[1][edges[0]].mean()) if edges[0].any() else np.nan
        recall = float(near[0][edges[1]].mean()) if edges[1].any() else np.nan
        total = precision + recall
        rows.append((limit, precision, recall, 2 * precision * recall / total if total > 0 else total))
    return pd.DataFrame(rows, columns=["px", "precision", "recall", "f1"])


def _within(edge, limit):
    if not edge.any():
        return np.zeros(edge.shape, bool)
    return ndimage.distance_transform_edt(~edge) <= limit


def _scores(n, n_ours, n_theirs):
    precision = n / n_ours if n_ours else np.nan
    recall = n / n_theirs if n_theirs else np.nan
    return precision, recall, 2 * n / (n_ours + n_theirs) if n_ours + n_theirs else np.nan


def _masks(mapped, real):
    mapped = changed(mapped).values if isinstance(mapped, xr.Dataset) else np.asarray(mapped, bool)
    real = np.asarray(getattr(real, "values", real))
    real = ~np.isnat(real) if real.dtype.kind == "M" else real.astype(bool)
    if mapped.shape != real.shape:
        raise StackError(f"the map is {mapped.shape} and the reference {real.shape} (y, x); they must be the same.")
    return mapped, real
