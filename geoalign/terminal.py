"""Lines, tables and JSON: what every command of the command line says its results with."""

from __future__ import annotations

import json
import sys


def print_json(document) -> int:
    """A document as JSON; NaN becomes null."""
    from geoalign.publish import finite

    out(json.dumps(finite(document), indent=1, default=str))
    return 0


def out(text) -> int:
    """A line of results."""
    sys.stdout.write(text.rstrip() + "\n")
    return 0


def say(text) -> None:
    """A line to the person at the keyboard, on the standard error output."""
    sys.stderr.write(text.rstrip() + "\n")


def announce(address) -> None:
    """A line that is there at once."""
    out(address)
    sys.stdout.flush()  # what waits for it may be a program


def table(title, rows, columns=()) -> None:
    """Rows (dicts) under a title, without columns that hold nothing; nothing at all where there is no row."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    names = [name for name in columns or rows[0] if any(row.get(name) not in (None, "", []) for row in rows)]
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for name in names:
        number = all(isinstance(row.get(name), int | float | None) for row in rows)
        shown.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(short(row.get(name)) for name in names))
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    console.print(shown)


def short(value) -> str:
    """A value as people read it."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        return (
            f"{value:.4g}"
            if abs(value) < 0.01
            else f"{value:.3f}".rstrip("0").rstrip(".")
            if abs(value) < 1e4
            else f"{value:,.0f}"
        )
    if isinstance(value, dict):
        return ", ".join(f"{k} {short(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(short(v) for v in value)
    return str(value)
