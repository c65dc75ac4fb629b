"""Who does the work: threads of this process, a local cluster of processes, or any dask.distributed scheduler.

The tasks are the same and pure: they read immutable files and write files named by their content, so that one that a
dying worker lost is run again without harm, and all ways give the same bits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from geoalign.errors import ConfigError, GeoalignError
from geoalign.monitor.store import stopping

log = logging.getLogger("geoalign")

ANSWER_S = 10
"""Seconds in which a scheduler has to answer."""
RETRIES = 2
"""How often a task that failed with its worker is run again elsewhere, beyond what the scheduler does by itself."""


class Runner:
    """Maps a task over jobs; `client` is None for threads. The results come in the order of the jobs."""

    def __init__(self, threads: int, client=None):
        self.threads, self.client = threads, client

    @property
    def dashboard(self) -> str:
        """Address of the dashboard, "" where there is none."""
        return "" if self.client is None else str(self.client.dashboard_link or "")

    def map(self, task: Callable[[Any], Any], jobs: list[Any], *, at_once: int | None = None) -> list[Any]:
        """Results of `task` on all jobs; the first error stops what has not begun. at_once : threads to use at most."""
        if self.client is not None:
            return self._spread(task, jobs)
        with ThreadPoolExecutor(max(1, min(at_once or self.threads, len(jobs)))) as pool:
            try:
                return list(pool.map(task, jobs))
            except BaseException:
                stopping.set()
                pool.shutdown(wait=True, cancel_futures=True)
                stopping.clear()
                raise

    def _spread(self, task, jobs):
        from distributed import KilledWorker

        futures = self.client.map(task, jobs, retries=RETRIES, pure=False)
        try:
            return self.client.gather(futures)
        except KilledWorker as err:
            raise GeoalignError(
                f"a task killed its worker again and again ({err}). Give workers more memory, or use a smaller "
                "[monitor] tile_px. Nothing published has changed; the next visit goes on from what is done."
            ) from err
        finally:
            try:
                self.client.cancel(futures)
            except (OSError, RuntimeError) as err:
                log.debug("tasks can't be cancelled: %s", err)


@contextmanager
def runner(*, threads: int | None = None, workers: int | None = None, scheduler: str | None = None) -> Iterator[Runner]:
    """A Runner for as long as the block lasts.

    Parameters
    ----------
    threads : of this process, or of each worker; None is the number of processors (shared among the workers)
    workers : processes of a cluster on this machine; its dashboard listens on 127.0.0.1 alone
    scheduler : address of a running one, e.g. "tcp://10.0.0.5:8786"; its workers must see the same folders
    """
    import dask

    cores = threads or os.cpu_count() or 1
    if workers and scheduler:
        raise ConfigError("give either --workers, for a cluster on this machine, or --scheduler, for one that runs.")
    if not workers and not scheduler:
        with dask.config.set(scheduler="threads", num_workers=cores):
            yield Runner(cores)
        return
    from distributed import Client, LocalCluster

    settings = {"distributed.scheduler.allowed-failures": 3, "distributed.comm.timeouts.connect": f"{ANSWER_S}s"}
    with dask.config.set(settings):
        if scheduler:
            try:
                client = Client(scheduler, timeout=ANSWER_S)
            except (OSError, ValueError, TimeoutError) as err:
                raise GeoalignError(f"no scheduler answers at {scheduler}: {err}. Is it running there?") from err
            with client, _told(scheduler):
                log.info("dashboard: %s", client.dashboard_link)
                yield Runner(1, client)
            return
        each = max(1, cores // workers)
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=each, host="127.0.0.1", dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
            _told(cluster.scheduler_address),
        ):  # fmt: skip
            log.info("dashboard: %s", client.dashboard_link)
            yield Runner(each, client)


@contextmanager
def _told(address) -> Iterator[None]:
    """What is raised when a scheduler dies, in words."""
    from concurrent.futures import CancelledError

    from distributed.client import FutureCancelledError
    from distributed.comm.core import CommClosedError

    try:
        yield
    except (CommClosedError, CancelledError, FutureCancelledError) as err:
        raise GeoalignError(
            f"the scheduler at {address} is gone ({type(err).__name__}: {err}). Nothing published has changed; the "
            "next visit goes on from what is done."
        ) from err
