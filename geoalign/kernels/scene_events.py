"""What happens on the simulated ground, where and when: floods by the river, clearings in woods, building on fields."""

from dataclasses import dataclass

import numpy as np

from geoalign.kernels import scene

ALLOWED = {
    "flood": (scene.CROP, scene.GRASS, scene.BARE, scene.ROAD),
    "clearing": (scene.FOREST,),
    "building": (scene.CROP, scene.GRASS),
}
"""Classes that an event of a kind changes; cells of other classes inside its outline stay what they are."""

_AREAS_PX = {"clearing": (1400, 900, 500, 260, 120, 45), "building": (1300, 800, 450, 240, 110, 40)}
_EDGE_PX = 8


@dataclass(frozen=True, eq=False)
class Event:
    """One planted event. start, end: days since the first of the simulation, from and until which it shows; end None
    where it stays. outline: (vertex, 2) project pixels (row, col)."""

    kind: str
    outline: np.ndarray
    start: float
    end: float | None


def plan_events(rng, size, macro, salt, kinds, window):
    """Events for a square of `size` px.

    kinds : subset of flood, clearing, building; window : (first, last) day of the time in which things happen
    The objects keep their sizes (0.4 to 14 ha at 10 m) up to 256 px and grow in number with the area beyond, to at
    most 60 of a kind; below 256 px they shrink.
    """
    first, last = window
    span = last - first
    events = []
    if "flood" in kinds:
        n = int(np.clip(round(2 * (size / 256) ** 2), 2 if size >= 128 else 1, 60))
        events += _floods(rng, size, macro, salt, n, first, span)
    for kind in ("clearing", "building"):
        if kind not in kinds:
            continue
        share = (size / 256) ** 2
        areas = [a * min(1.0, share) for a in _AREAS_PX[kind]]
        areas = [a for a in areas if a >= 36] or areas[:1]
        areas = (areas * int(np.clip(round(share), 1, 10)))[:60]
        starts = first + span * rng.permutation(np.linspace(0.28, 0.64, len(areas)))
        for area, start in zip(areas, starts):
            outline = _place(rng, size, macro, salt, kind, area, [e.outline for e in events])
            if outline is not None:
                events.append(Event(kind, outline, float(np.round(start)), None))
    return tuple(events)


def _floods(rng, size, macro, salt, n, first, span):
    """Reaches of the rivers, each over its banks on both sides by a width that varies along it."""
    rivers = range(int(np.ceil(size / macro)))
    per_river = int(np.ceil(n / len(rivers)))
    slot = (size - 2 * _EDGE_PX) / per_river
    starts = first + span * np.linspace(0.22, 0.40, n)
    events = []
    for number in range(n):
        river, place = divmod(number, per_river)
        length = min(slot * 0.8, 90.0)
        top = _EDGE_PX + slot * place + rng.uniform(0.1, 0.9) * (slot - length)
        rows = np.linspace(top, top + length, 25)
        centre = np.array([scene.river_col(r, river, macro, salt + 2) for r in rows])
        taper = np.sin(np.pi * np.linspace(0.06, 0.94, rows.size)) ** 0.5
        scale = min(1.0, size / 192)
        sides = [
            taper * scale * (23 + 6 * np.interp(np.arange(rows.size), np.linspace(0, 24, 6), rng.uniform(-1, 1, 6)))
            for _ in range(2)
        ]
        outline = np.concatenate([np.stack([rows, centre - sides[0]], 1), np.stack([rows, centre + sides[1]], 1)[::-1]])
        outline = np.clip(outline, _EDGE_PX, size - 1 - _EDGE_PX)
        start = float(np.round(starts[number]))
        events.append(Event("flood", outline, start, float(np.round(start + 0.25 * span))))
    return events


def _place(rng, size, macro, salt, kind, area, taken):
    """An outline of `area` px on the right cover and apart from the others, or None where there is no room."""
    allowed = np.isin(np.arange(len(scene.CLASSES)), ALLOWED[kind])
    best, best_share = None, 0.6
    for _ in range(400):
        ratio = rng.uniform(1.0, 1.7)
        half = np.sqrt(area) / 2 * np.array([np.sqrt(ratio), 1 / np.sqrt(ratio)])
        turn = rng.uniform(0, np.pi)
        centre = rng.uniform(_EDGE_PX + half.max(), size - _EDGE_PX - half.max(), 2)
        square = np.array([(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)], float)
        square *= 1 + rng.uniform(-0.12, 0.12, square.shape)
        matrix = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
        outline = (square * half) @ matrix.T + centre
        if outline.min() < _EDGE_PX or outline.max() > size - 1 - _EDGE_PX:
            continue
        # a grid over the outline widened by 3 px, so that neighbours keep apart
        u = np.linspace(-1, 1, 9)
        grid = np.stack(np.meshgrid(u, u, indexing="ij"), -1).reshape(-1, 2)
        near = (grid * (half * 1.12 + 3.0)) @ matrix.T + centre
        if any(scene.inside(other, near[:, 0].copy(), near[:, 1].copy()).any() for other in taken):
            continue
        points = (grid * half * 0.95) @ matrix.T + centre
        share = allowed[scene.covers_at(points[:, 0].copy(), points[:, 1].copy(), macro, salt)].mean()
        if share > best_share:
            best, best_share = outline, share
        if share > 0.98:
            break
    return best
