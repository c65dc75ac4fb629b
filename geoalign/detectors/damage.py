"""Buildings that were hit: backscatter that steps up or down and stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geoalign.detectors.patches import check_area
from geoalign.detectors.series import check_options
from geoalign.errors import StackError
from geoalign.types.stack import check_stack, is_sar


@dataclass(frozen=True)
class Damage:
    """Damage with its date, from SAR series: a step of 1.5 dB or more, either way, that stays.

    Walls that fall take their double bounce with them (a drop), rubble scatters to all sides (a rise). The step is
    found by likelihood over 3 x 3 px, in the speckle's own statistics, and drawn pixel by pixel; what the whole scene
    does together (rain) is taken out before, and orbits are brought to one level. See `sar_themes.damage_sar`.
    `geoalign.footprints` gives each building its share, date and probability; `pwtt` is the published test.

    Parameters
    ----------
    alpha : float
        Chance of a false alarm at a stable pixel over the whole time searched.
    prior : float
        Share of change that `probability` assumes.
    since : date, optional
        Damage is searched from this date on (the event, or the start of the fighting). None searches the whole series.
    until, history : see `HarmonicCusum`
    enl : float, optional
        Looks; None estimates them.
    min_area_m2 : float
        Smaller patches are left out (grids in metres only).

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> power = 0.3 * np.random.default_rng(0).gamma(4.4, 1 / 4.4, (30, 32, 32))
    >>> power[22:, 8:14, 8:14] /= 2
    >>> time = np.datetime64("2023-01-02") + 12 * np.arange(30)
    >>> found = Damage(since="2023-08-01").detect(new_stack({"vv": power}, time))
    >>> int(found.status[10, 10]), bool(found.date.values[10, 10] == time[22]), int(found.direction[10, 10])
    (3, True, -1)
    """

    alpha: float = 0.01
    prior: float = 0.02
    since: str | None = None
    until: str | None = None
    history: float | None = None
    enl: float | None = None
    min_area_m2: float = 0.0

    kind: ClassVar[str] = "damage"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_options(self)
        check_area(self.min_area_m2)

    def detect(self, stack):
        """Changes (y, x) of a Stack of SAR scenes; lazy where the stack is."""
        check_stack(stack)
        if not is_sar(stack):
            raise StackError(
                f"damage needs SAR (vv or vh); the stack has {', '.join(map(str, stack.data_vars))}. Optical images of "
                "10 m and coarser don't show it."
            )
        from geoalign.detectors.sar_themes import damage_sar

        return damage_sar(self, stack)
