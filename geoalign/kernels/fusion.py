"""Evidence of several sensors for one change: log likelihood ratios added where place and date agree."""

from __future__ import annotations

import numpy as np
from numba import njit

NEVER = np.iinfo(np.int64).min
"""No date (NaT as an integer)."""


@njit(nogil=True, cache=True)
def fuse_window(ratio, date, after, reach, window, base):
    """Log odds of change from all sensors, and the earliest date that they agree on.

    Parameters
    ----------
    ratio : (sensor, row, col) float32, ln likelihood ratio, tempered and capped; NaN = not observable
    date, after : (sensor, row, col) int64, ns since 1970, NEVER = none
    reach : px that another sensor's change may lie apart
    window : ns that its date may lie apart
    base : log odds of change before any evidence

    Returns
    -------
    odds (row, col) float64, NaN where no sensor saw; day, day_after int64; lead int8, the sensor whose own evidence is
    strongest, -1 for none; n_agree int8, sensors with evidence for change.

    Notes
    -----
    A pixel takes its own evidence from one sensor and from the others the strongest within reach: so a change seen a
    little apart counts for both places, but grows in neither. Evidence against change is taken from the pixel itself.
    Sensors that put a change at another time tell nothing of this one.
    """
    n_sensor, n_row, n_col = ratio.shape
    odds = np.full((n_row, n_col), np.nan)
    day = np.full((n_row, n_col), NEVER, np.int64)
    day_after = np.full((n_row, n_col), NEVER, np.int64)
    lead = np.full((n_row, n_col), -1, np.int8)
    agree = np.zeros((n_row, n_col), np.int8)
    for r in range(n_row):
        for c in range(n_col):
            for s in range(n_sensor):
                own = ratio[s, r, c]
                if not np.isfinite(own):
                    continue
                total = base + own
                first, before = date[s, r, c], after[s, r, c]
                count = 1 if own > 0 else 0
                for o in range(n_sensor):
                    if o == s:
                        continue
                    best, best_date, best_after = ratio[o, r, c], date[o, r, c], after[o, r, c]
                    for i in range(max(0, r - reach), min(n_row, r + reach + 1)):
                        for j in range(max(0, c - reach), min(n_col, c + reach + 1)):
                            if ratio[o, i, j] > 0 and not best >= ratio[o, i, j]:
                                best, best_date, best_after = ratio[o, i, j], date[o, i, j], after[o, i, j]
                    if not np.isfinite(best):
                        continue
                    dated = first != NEVER and best_date != NEVER
                    if best > 0 and dated and abs(best_date - first) > window:
                        continue
                    total += best
                    if best > 0:
                        count += 1
                        if best_date != NEVER:
                            if first == NEVER or best_date < first:
                                first = best_date
                            if best_after != NEVER and (before == NEVER or best_after > before):
                                before = best_after
                if np.isnan(odds[r, c]) or total > odds[r, c]:
                    odds[r, c] = total
                    day[r, c] = first
                    day_after[r, c] = before if before < first else NEVER
                    lead[r, c] = s
                    agree[r, c] = count
    return odds, day, day_after, lead, agree
