"""Histories of arrival as they happen to whole visits: files that come late, twice, and reprocessed, in any order."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import strategies as st

from geoalign.monitor import Monitor
from tests.monitor.watched import Watched

PLAIN, REPROCESSED, AGAIN = 0, 1, 2
"""A delivery of a scene: the first, a newer processing under a name of its own, the same bytes under another name."""


@st.composite
def histories(draw, ks):
    """Visits, each a list of (scene, delivery): every scene of `ks` comes at least once, in any order."""
    ks = list(ks)
    reprocessed = draw(st.sets(st.sampled_from(ks), max_size=2))
    deliveries = [(k, PLAIN) for k in ks] + [(k, REPROCESSED) for k in sorted(reprocessed)]
    deliveries += draw(st.lists(st.sampled_from([(k, v) for k in ks for v in (PLAIN, AGAIN)]), max_size=3))
    order = draw(st.permutations(deliveries))
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1), max_size=4)))
    return [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)])]


@dataclass
class Histories:
    """A site that was visited once, and what arrival in order makes of each set of deliveries that count.

    at_once : scenes a visit of the arrival in order
    """

    folder: Path
    plain: Watched
    at_once: int = 1
    truth: dict[frozenset, dict] = field(default_factory=dict)
    said: Counter = field(default_factory=Counter)
    n_visits: int = 0

    @classmethod
    def of(cls, folder: Path, *, at_once: int = 1, **options) -> Histories:
        """The site is small, its scenes move by half a pixel where they are registered (`register=True`)."""
        plain = Watched(folder / "plain", n_history=16, **options)
        plain.write_site("tile_px = 16\n")
        plain.write_many(plain.history())
        Monitor(plain.site, threads=1).visit(now=cls._now(plain))
        for k in plain.watched():  # every file is written once: GDAL may lay the same values out in another order
            pool = replace(plain, folder=folder / "pool")
            path = pool.write(k, processing="01.00")
            shutil.copy2(path, path.with_name(f"{plain.name(k)}_again.tif"))
            pool.write(k, name=f"{plain.name(k)}_new", processing="05.00")
        return cls(folder, plain, at_once)

    def check(self, visits) -> None:
        """Assert that a history gives what arrival in order gives: states, rasters and alerts, bit for bit."""
        newer = frozenset(k for visit in visits for k, delivery in visit if delivery == REPROCESSED)
        if newer not in self.truth:
            wanted = [(k, REPROCESSED if k in newer else PLAIN) for k in self.plain.watched()]
            self.truth[newer] = self._run([wanted[a : a + self.at_once] for a in range(0, len(wanted), self.at_once)])
        assert self._run(visits) == self.truth[newer], visits

    def _run(self, visits) -> dict:
        site = replace(self.plain, folder=self.folder / "mine")
        shutil.rmtree(site.folder, ignore_errors=True)
        shutil.copytree(self.plain.folder, site.folder, symlinks=True)
        monitor = Monitor(site.site, threads=1)
        for visit in visits:
            for k, delivery in visit:
                name = site.name(k) + {PLAIN: "", REPROCESSED: "_new", AGAIN: "_again"}[delivery]
                shutil.copy2(self.folder / "pool" / "scenes" / f"{name}.tif", site.folder / "scenes")
            result = monitor.visit(now=self._now(site))
            self.n_visits += 1
            self.said.update(s["status"] for s in result.scenes)
            self.said.update(f"alert {c['status']}" for c in result.changes)
        return monitor.fingerprint()

    @staticmethod
    def _now(site) -> float:
        return float(site.times[-1].astype("datetime64[s]").astype(int))
