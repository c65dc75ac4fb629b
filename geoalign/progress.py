"""A progress bar on a terminal; elsewhere the log lines of the steps are all there is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def progress(*, on: bool | None = None) -> Iterator[Callable[[str], None]]:
    """Show what runs, how many of its tasks are done, how long the rest will take, and what was read so far.

    on : None shows a bar where the error stream is a terminal

    Yields a function to call with the name of each step as it starts (the `on_step` of `pipeline.run`).
    """
    if not (sys.stderr.isatty() if on is None else on):
        yield lambda name: None
        return
    from dask.callbacks import Callback
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[read]}"),
    )
    with Progress(*columns, console=Console(stderr=True, force_terminal=on), transient=True) as bar:
        shown = bar.add_task("start", total=None, read="")
        done = {"tasks": 0, "all": 0}

        def step(name):
            done.update(tasks=0, all=0)
            bar.reset(shown, description=name, total=None)

        def begin(graph):
            done["all"] += len(graph)
            bar.update(shown, total=done["all"])

        def finished(*_):
            done["tasks"] += 1
            bar.update(shown, completed=done["tasks"], read=_bytes_read())

        with Callback(start=begin, posttask=finished):
            yield step


def _bytes_read():
    """What this process has read so far, in words; nothing where the system does not tell."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    read = dict(line.split(": ") for line in lines)
    return f"{int(read['rchar']) / 1e6:,.0f} MB read"
