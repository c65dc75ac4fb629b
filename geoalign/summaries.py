"""Changes in short: how much changed, when, how sure, and what could not be seen. `summary(changes)`."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from geoalign.record import summary as figures_of
from geoalign.types.changes import WHY_TEXT, check_changes
from geoalign.types.show import card, table


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """Figures of Changes, which print as text and show themselves with a map in a notebook.

    kind, detector : what was looked for, and how; pixels : by name of status; why : by name of reason; dates : pixels
    by day of change; area_ha : changed, None on a grid without metres
    """

    kind: str
    detector: str
    pixels: dict[str, int]
    why: dict[str, int]
    dates: dict[str, int]
    area_ha: float | None
    changes: object = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """The same in words."""
        n, total = self.pixels["confirmed"] + self.pixels["ended"], sum(self.pixels.values())
        area = "" if self.area_ha is None else f" = {self.area_ha:,.2f} ha"
        days = list(self.dates)
        when = "" if not days else f", on {days[0]}" if len(days) == 1 else f", from {days[0]} to {days[-1]}"
        out = [f"{n:,} of {total:,} pixels changed{area}{when}" if n else f"none of {total:,} pixels changed"]
        watching = [f"{self.pixels[name]:,} {name}" for name in ("first", "provisional") if self.pixels[name]]
        out += [f"not confirmed: {', '.join(watching)}"] if watching else []
        unseen = self.pixels["not_observable"]
        out.append(f"{unseen:,} pixels ({100 * unseen / max(total, 1):.1f} %) could not be seen")
        return out

    def __repr__(self):
        reasons = [f"{WHY_TEXT.get(name, name)}: {n:,} pixels" for name, n in self.why.items()]
        return "\n  ".join([f"<{self.kind} by {self.detector}", *self.lines, *reasons]) + ">"

    def _repr_html_(self):
        from geoalign import plot

        figure = plot.change_dates(self.changes)
        figure.set_size_inches(4.6, 3.9)
        image = base64.b64encode(figure._repr_png_()).decode()
        tables = []
        if self.why:
            rows = [[WHY_TEXT.get(name, name), n] for name, n in self.why.items()]
            tables.append(table(["not observable, or doubtful, because", "pixels"], rows))
        if self.dates:
            best = sorted(sorted(self.dates.items(), key=lambda item: -item[1])[:8])
            tables.append(table(["day of change", "pixels"], best))
        picture = f"<img alt='dates of change' style='max-width:420px' src='data:image/png;base64,{image}'>"
        return card(self.kind, [self.detector, *self.lines], tables, picture)


def summary(changes) -> Summary:
    """What Changes say in short. Lazy ones are computed, block by block.

    Parameters
    ----------
    changes : Changes (y, x)

    Returns
    -------
    Summary

    Examples
    --------
    >>> import numpy as np
    >>> from geoalign import detect, new_stack
    >>> time = np.arange("2020-01-01", "2023-01-01", 8, "datetime64[D]")
    >>> ndvi = np.random.default_rng(0).normal(0.7, 0.02, (time.size, 1, 4))
    >>> ndvi[90:, 0, 0] -= 0.3
    >>> summary(detect(new_stack({"ndvi": ndvi}, time), "harmonic_cusum")).lines[0]
    '1 of 4 pixels changed, on 2021-12-21'
    """
    check_changes(changes)
    found = figures_of(changes)
    return Summary(
        str(changes.attrs["kind"]), str(changes.attrs["detector"]), found["pixels"], found["why"], found["dates"],
        found["area_ha"], changes,
    )  # fmt: skip
