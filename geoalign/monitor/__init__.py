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
from geoalign.monitor.cluster import runner
from geoalign.monitor.ledger import Ledger
from geoalign.monitor.lock import held
from geoalign.monitor.store import sweep
from geoalign.monitor.visit import Visit, Work, visit
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
                yield Work(
                    self.config,
                    root,
                    ledger,
                    hands,
                    time.time() if now is None else now,
                    on_step or (lambda name: None),
                )


def _check(config) -> None:
    """ConfigError where the site can't be watched."""
    from geoalign.detectors import DETECTORS, make
    from geoalign.types.plugins import Online

    problems = []
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
