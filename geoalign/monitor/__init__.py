"""Monitoring: a site watched for years, visit by visit. What is published is a pure function of the valid scenes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoalign.config import Config, load_config
from geoalign.errors import ConfigError
from geoalign.monitor import inspect
from geoalign.monitor.cluster import runner
from geoalign.monitor.ledger import Ledger
from geoalign.monitor.lock import held
from geoalign.monitor.mirror import filesystem
from geoalign.monitor.store import sweep
from geoalign.monitor.visit import failed, rebuild, visit
from geoalign.monitor.work import Visit, Work
from geoalign.publish import make_folder

log = logging.getLogger("geoalign")

FOLDER, LEDGER = "monitor", "ledger.sqlite"


@dataclass(frozen=True)
class Monitor:
    """A site that is watched.

    Parameters
    ----------
    site : path of a site's TOML file, or a Config; it needs `[monitor] since` and detectors that can watch
    threads, workers, scheduler : who does the work, see `cluster.runner`

    Examples
    --------
    >>> from geoalign.monitor import Monitor
    >>> Monitor("valley.toml").visit().alerts  # doctest: +SKIP
    {'provisional': 2, 'confirmed': 5}
    """

    site: Any
    threads: int | None = None
    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self):
        config = self.site if isinstance(self.site, Config) else load_config(self.site)
        _check(config)
        object.__setattr__(self, "site", config)

    @property
    def config(self) -> Config:
        return self.site

    @property
    def folder(self) -> Path:
        """Where everything of the monitoring lies: OUTPUT/monitor."""
        return self.config.output_folder / FOLDER

    def visit(self, *, now: float | None = None, on_step: Callable[[str], None] | None = None, again=()) -> Visit:
        """Take in what is new, fold it, publish.

        Parameters
        ----------
        now : seconds since 1970 to take for the present (replays, tests); only grace times, freshness and what is
            written down about the visit depend on it
        on_step : called with the name of each step as it starts
        again : ids of scenes to look at again although they were refused

        Raises
        ------
        publish.Locked
            Another visit is at work (exit code 75).
        NoUsableData
            There is no baseline to learn from (exit code 4).
        """
        with self._work(now, on_step) as work:
            return visit(work, again=again)

    def status(self, *, now: float | None = None) -> dict[str, Any]:
        """Health, what is published, the last visit, what could not be used; needs no lock and waits for nobody."""
        with Ledger(self.folder / LEDGER, readonly=True) as ledger:
            return inspect.status(self.config, self.folder, ledger, now)

    def history(self, what: str | None = None) -> dict[str, Any]:
        """What is known of an alert, of a scene, or (None) of the last visits."""
        with Ledger(self.folder / LEDGER, readonly=True) as ledger:
            return inspect.history(ledger, what)

    def digest(self, *areas: str, seen: bool = False) -> list[dict[str, Any]]:
        """What is new in each area of interest since it was last seen; all of the site's areas by default.

        seen : note that it was seen, so that the next digest begins after it
        """
        from geoalign.monitor import digest as digests

        names = areas or tuple(a.name for a in self.config.monitor.area)
        if not names:
            raise ConfigError("the site file has no [[monitor.area]]: give one, with name and path (GeoJSON).")
        with Ledger(self.folder / LEDGER, readonly=not seen) as ledger:
            out = [digests.digest(ledger, self.config, name, inspect.grid_of(ledger)) for name in names]
            for document in out if seen else ():
                digests.mark_seen(ledger, document["area"], document["visit"])
        return out

    def plan(self, *, now: float | None = None) -> dict[str, Any]:
        """What a visit would take in (`--dry-run`); nothing is written, and no pixel is read."""
        path = self.folder / LEDGER
        with Ledger(path, readonly=True) if path.is_file() else Ledger.empty() as ledger:
            return inspect.plan(self.config, ledger, now)

    def doctor(self) -> list[inspect.Finding]:
        """Whether all that the site holds is whole: every checksum is looked at."""
        with Ledger(self.folder / LEDGER, readonly=True) as ledger:
            return inspect.doctor(self.config, self.folder, ledger)

    def fingerprint(self) -> dict[str, Any]:
        """Hashes of states, rasters and current alerts: the same for every order in which the same scenes came."""
        with Ledger(self.folder / LEDGER, readonly=True) as ledger:
            return inspect.fingerprint(self.config, self.folder, ledger)

    def retry(self, *scenes: str, now: float | None = None, on_step: Callable[[str], None] | None = None) -> Visit:
        """A visit that looks again at scenes that were refused: those named, or all of them."""
        with self._work(now, on_step) as work:
            rows = work.ledger.rows("SELECT scene FROM products WHERE status IN ('quarantined', 'waiting')")
            rows += work.ledger.rows("SELECT scene FROM evidence WHERE status = 'rejected'")
            refused = {r["scene"] for r in rows}
            unknown = [s for s in scenes if s not in refused]
            if unknown:
                known = ", ".join(sorted(refused)) or "there are none"
                raise ConfigError(f"{', '.join(unknown)}: not among the scenes that were refused ({known}).")
            return visit(work, again=scenes or tuple(sorted(refused)))

    def rebuild(self, *, now: float | None = None, on_step: Callable[[str], None] | None = None) -> Visit:
        """Fold everything again from the evidence; evidence that is damaged is made again from its scenes."""
        with self._work(now, on_step) as work:
            return rebuild(work)

    @contextmanager
    def _work(self, now, on_step) -> Iterator[Work]:
        root = make_folder(self.folder)
        lease = self.config.monitor.lease_minutes * 60
        with held(root, lease_seconds=lease):
            left = sweep(root)
            if left:
                log.info("removed %d unfinished files of a visit that was interrupted", left)
            with (
                Ledger(root / LEDGER) as ledger,
                runner(threads=self.threads, workers=self.workers, scheduler=self.scheduler) as hands,
            ):
                moment = time.time() if now is None else now
                work = Work(self.config, root, ledger, hands, moment, on_step or (lambda name: None))
                try:
                    yield work
                except BaseException as err:
                    failed(work, err)
                    raise


def _check(config) -> None:
    """ConfigError where the site can't be watched."""
    from geoalign.detectors import DETECTORS, make
    from geoalign.types.plugins import Online

    problems = []
    if "://" in config.output:
        problems.append(
            f"output: {config.output} is an object store, which has neither locks nor renaming in one step: what is "
            "published could be half of one thing and half of another. Give a folder on a disk for the ledger and the "
            f'state, and [monitor] mirror = "{config.output}" to have what is published copied there'
        )
    if config.monitor.mirror:
        try:
            filesystem(config.monitor.mirror)
        except ConfigError as err:
            problems.append(str(err))
    if config.monitor.since is None:
        problems.append('[monitor] since is missing: when watching starts, e.g. since = "2024-01-01"')
    if not config.detect:
        problems.append("there is no [[detect]]: say what to watch for")
    able = sorted(
        name for name, kind in DETECTORS.items() if all(hasattr(kind, m) for m in ("start", "update", "report"))
    )
    for name, item in config.layers.items():
        try:
            detector = make(item.detector, **item.options)
        except (ConfigError, TypeError, ValueError) as err:
            problems.append(f"{name}: {err}")
            continue
        if not isinstance(detector, Online):
            problems.append(
                f"{name}: {item.detector} looks back and can't watch. Those that can: {', '.join(able)}; or use "
                "`geoalign run`"
            )
    if problems:
        raise ConfigError("\n".join(problems), tuple(problems))
