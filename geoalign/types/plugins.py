"""What a matcher and a detector must be able to do. Frozen dataclasses whose fields are their options fit these."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import xarray as xr

from geoalign.types.alignment import Match


@runtime_checkable
class Matcher(Protocol):
    """Two images in, a Match or MatchError out; there is no third state."""

    def __call__(self, reference, moving, *, valid=None, seed: int = 0) -> Match:
        """Match two arrays (row, col), NaN = not observed; `valid`: one mask, or (reference's, moving's)."""
        ...


@runtime_checkable
class Detector(Protocol):
    """A Stack in, Changes out, lazy where the stack is.

    kind : what it finds ("change", "flood", ...); needs : bands it can't do without
    """

    kind: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def detect(self, stack: xr.Dataset) -> xr.Dataset: ...


@runtime_checkable
class Online(Detector, Protocol):
    """A detector that can also watch; its `detect` is one start, update and report."""

    def start(self, history: xr.Dataset) -> xr.Dataset: ...

    def update(self, state: xr.Dataset, scenes: xr.Dataset) -> xr.Dataset: ...

    def report(self, state: xr.Dataset) -> xr.Dataset: ...


@runtime_checkable
class Selective(Online, Protocol):
    """One whose report of a pixel depends on that pixel alone, and that knows quickly which pixels are worth it.

    suspects : bool (y, x), True wherever `report` may say status 1 to 4; its state holds `n_obs` as the report does
    reads : variables of the state that `report` takes; those of the suspects are all that it has to be given
    """

    reads: ClassVar[tuple[str, ...]]

    def suspects(self, state: xr.Dataset): ...
