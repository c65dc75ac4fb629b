"""Alignments against planted warps: `registration`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoalign.errors import StackError
from geoalign.types.grid import GridMap
from geoalign.types.warp import Chain


def registration(alignment, truth, *, step_px: int = 4) -> pd.DataFrame:
    """Residual misalignment of every scene against the planted warps.

    Parameters
    ----------
    alignment : Alignment
        On a scene as its reference, the true warp is that from this scene (`truth.relative`); on anything else
        ("median", an image) it is the one from the ground.
    truth : simulation.Truth
    step_px : px between the points at which the warps are compared, over the whole image

    Returns
    -------
    DataFrame, a row a scene of the alignment's report: scene, status, warp_kind (planted: none, shift, affine, field),
    planted_rms_px (before), rmse_px (after: root mean square length of the residual, px), max_px, sigma_px (as the
    alignment predicted it, an axis); NaN where the scene has no warp.

    Raises
    ------
    StackError : a scene of the alignment is not in the truth

    Examples
    --------
    >>> from geoalign import Alignment, simulate
    >>> from geoalign.accuracy import registration
    >>> import pandas as pd
    >>> truth = simulate(size=64, n_sar=2, sensors=("sar",)).truth
    >>> report = pd.DataFrame({"scene": list(truth.warps), "status": "aligned", "sigma_px": 0.1})
    >>> exact = Alignment("median", dict(truth.warps), report, truth.geobox, truth.geobox.shape)
    >>> float(registration(exact, truth).rmse_px.max())
    0.0
    """
    scenes = list(alignment.report.scene)
    unknown = [s for s in scenes if s not in truth.warps]
    if unknown:
        raise StackError(f"the truth knows nothing of {', '.join(unknown[:3])}; it is of other scenes.")
    shape = tuple(alignment.shape) if min(alignment.shape) > 0 else tuple(truth.geobox.shape)
    axes = [np.unique(np.append(np.arange(0, n, step_px), n - 1)).astype(float) for n in shape]
    points = np.meshgrid(*axes, indexing="ij")
    ends = ()
    if alignment.geobox is not None and alignment.geobox != truth.geobox:
        ends = (GridMap(alignment.geobox, truth.geobox), GridMap(truth.geobox, alignment.geobox))
    rows = []
    for _, line in alignment.report.iterrows():
        on_scene = alignment.reference in truth.warps
        true = truth.relative(alignment.reference, line.scene) if on_scene else truth.warps[line.scene]
        true = np.array((Chain((ends[0], true, ends[1])) if ends else true).pull(*points))
        before = np.hypot(*(true - points))
        after = np.full(1, np.nan)
        if line.scene in alignment.warps:
            after = np.hypot(*(np.array(alignment.warps[line.scene].pull(*points)) - true))
        rows.append(
            {
                "scene": line.scene,
                "status": line.status,
                "warp_kind": truth.warp_kinds[line.scene],
                "planted_rms_px": float(np.sqrt((before**2).mean())),
                "rmse_px": float(np.sqrt((after**2).mean())),
                "max_px": float(after.max()),
                "sigma_px": float(line.get("sigma_px", np.nan)),
            }
        )
    columns = ["scene", "status", "warp_kind", "planted_rms_px", "rmse_px", "max_px", "sigma_px"]
    return pd.DataFrame(rows, columns=columns)
