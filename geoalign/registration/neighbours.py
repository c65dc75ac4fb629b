"""Which pairs of scenes are matched, and matching them: each pair once, each scene read a bounded number of times."""

from __future__ import annotations

import inspect
import logging
from dataclasses import is_dataclass, replace

import numpy as np

from geoalign.errors import MatchError
from geoalign.registration.auto import AutoMatcher, polished
from geoalign.registration.phase import PhaseMatcher, first_limit, refine
from geoalign.registration.tiepoints import Image
from geoalign.types.alignment import Match

log = logging.getLogger("geoalign")

KEEP_BYTES = 256 * 2**20
"""Scenes are remembered between pairs as far as they fit into this; those used longest ago are read again."""
ANCHORS = 3
"""Neighbours of its season that a weak scene is tied to."""
OTHER_YEAR_DAYS = 180
"""Days apart from which a scene of the same season is one of another year."""


class Pairs:
    """Matches between scenes, made on demand and remembered.

    scenes : the images of a stack, and whatever else they are tied to; matcher : with `model` and `max_shift_px` where
        it has `align`; across : they may come from sensors of different kinds, which those of one stack do not
    """

    def __init__(self, scenes: list[Image], matcher, seed, across=False):
        self.matcher = replace(matcher, across=across) if isinstance(matcher, AutoMatcher) else matcher
        self.scenes, self.seed = scenes, seed
        self.found: dict[tuple[int, int], Match | Exception] = {}
        self._recent: list[int] = []

    def match(self, i, j, *, start=None, model=None) -> Match | Exception:
        """How scene j lies on scene i: a Match, or the error that says why not.

        start : a warp known to be near, which spares the search; model : instead of the matcher's own
        """
        if (i, j) not in self.found:
            self._make_room(i, j)
            try:
                self.found[i, j] = self._measured(self.scenes[i], self.scenes[j], start, model)
            except (MatchError, OSError) as err:
                self.found[i, j] = err
        return self.found[i, j]

    def _measured(self, one, other, start, model):
        matcher = self.matcher
        if model is not None and is_dataclass(matcher):
            matcher = replace(matcher, model=model)
        if not hasattr(matcher, "align"):
            return matcher(*(image.tiles([None])[0] for image in (one, other)), seed=self.seed)
        if start is None:
            return matcher.align(one, other, seed=self.seed)
        if isinstance(matcher, AutoMatcher | PhaseMatcher):
            # each may lie as far from the reference as was allowed, to either side
            limit = 2 * first_limit(one.shape, matcher.max_shift_px)
            found = refine(one, other, start, matcher.model, limit, self.seed, "phase")
            return polished(one, other, found, self.seed) if isinstance(matcher, AutoMatcher) else found
        near = {"starts": (start,)} if "starts" in inspect.signature(matcher.align).parameters else {}
        return matcher.align(one, other, seed=self.seed, **near)

    def _make_room(self, i, j):
        """Forget the scenes used longest ago, so that those held fit into `KEEP_BYTES`, and two at the least."""
        for k, image in enumerate(self.scenes):
            if k != i:
                image.prepared.clear()  # filtered copies, many times the size of the scene
        self._recent = [k for k in self._recent if k not in (i, j)] + [i, j]
        size = max(self.scenes[i].bytes, 1)
        while len(self._recent) > max(2, KEEP_BYTES // size):
            self.scenes[self._recent.pop(0)].forget()


def pairs_along_time(times, able, weak) -> list[tuple[int, int]]:
    """Pairs besides those with the reference: the next two in time, the same season in another year, and anchors.

    times : datetime64 (time,), sorted; able : scenes that hold something to match; weak : those of them that match the
        reference badly, which are tied to `ANCHORS` well matched scenes of their season besides

    About three pairs a scene and three more for a weak one, in a fixed order.
    """
    able = sorted(able)
    out = set()
    for place, k in enumerate(able):
        out.update((k, other) for other in able[place + 1 : place + 3])
        years = [a for a in able if abs(days_between(times[a], times[k])) > OTHER_YEAR_DAYS]
        if years:
            other = min(years, key=lambda a: (season_days(times[a], times[k]), a))
            out.add((min(k, other), max(k, other)))
    for k in weak:
        strong = [a for a in able if a not in weak and a != k]
        for a in sorted(strong, key=lambda a: (season_days(times[a], times[k]), a))[:ANCHORS]:
            out.add((min(a, k), max(a, k)))
    return sorted(out)


def days_between(one, other) -> float:
    """Days from one date to another."""
    return float((other - one) / np.timedelta64(1, "D"))


def season_days(one, other) -> float:
    """Days between two dates within the year, and a little for every year between them."""
    days = abs(days_between(one, other))
    within = days % 365.25
    return min(within, 365.25 - within) + 0.05 * days
