"""Change between two optical dates by the length of the change vector, after the second was normalised to the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geoalign.detectors.two_dates import check_two_dates, detect_two_dates
from geoalign.kernels.cva import fit


@dataclass(frozen=True)
class Cva:
    """Change vector analysis: simpler than `irmad`, for few bands and for changes that most bands show.

    The second date is brought to the first one's radiometry by orthogonal regression over the pixels that did not
    change, band by band; differences are divided by their noise there, and the length of the vector of differences is
    cut as in `irmad`. It sees changes along the bands' common brightness better, and weak ones in single combinations
    of bands worse.

    Parameters
    ----------
    since, prior, alpha : see `Irmad`

    Notes
    -----
    Layers as in `Irmad`; `sector` is the direction of the change vector by its bands' signs.

    References
    ----------
    Malila (1980), Change vector analysis: an approach for detecting forest changes with Landsat. We add the
    normalisation over unchanged pixels, and the threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import new_stack
    >>> rng = np.random.default_rng(0)
    >>> ground = rng.normal(0.2, 0.05, (2, 1, 60, 60))
    >>> pair = np.concatenate([ground, 1.3 * ground - 0.02], axis=1) + rng.normal(0, 0.004, (2, 2, 60, 60))
    >>> pair[:, 1, 20:30, 20:30] += 0.2
    >>> found = Cva().detect(new_stack(dict(zip(("red", "nir"), pair)), ["2024-05-01", "2025-05-01"]))
    >>> int(found.status[25, 25]), int(found.direction[25, 25]), int(found.status[50, 5])
    (3, 1, 0)
    """

    since: str | None = None
    prior: float | None = None
    alpha: float | None = None

    kind: ClassVar[str] = "change"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        check_two_dates(self)

    def detect(self, stack):
        """Changes (y, x) between the two dates of a Stack; lazy where the stack is."""
        return detect_two_dates(self, stack, fit, least_bands=1)
