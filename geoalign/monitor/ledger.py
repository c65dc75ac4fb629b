"""The ledger: one SQLite file that says what has arrived, what was made of it, and which generation is published.

It is the only commit point. All else lies in immutable files named by their content, which count for nothing until a
row names them; a kill at any time leaves the ledger as it was before or after a transaction, never between.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoalign.errors import GeoalignError, StateError

VERSION = 1
"""Version of the tables (`PRAGMA user_version`). An older ledger is brought up, a newer one refused."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (                    -- every file looked at; one with the same size and time is not opened again
    path TEXT NOT NULL, stack TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL, product TEXT NOT NULL, PRIMARY KEY (path, stack));
CREATE TABLE products (                 -- one delivery of one scene: all its files, with their content
    key TEXT PRIMARY KEY, stack TEXT NOT NULL, scene TEXT NOT NULL, acquisition TEXT NOT NULL, time TEXT NOT NULL,
    sensor TEXT NOT NULL, orbit INTEGER NOT NULL, tile TEXT NOT NULL, processing TEXT NOT NULL, bands TEXT NOT NULL,
    paths TEXT NOT NULL, rank TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    arrived REAL NOT NULL, visit INTEGER NOT NULL);
CREATE INDEX products_acquisition ON products (stack, acquisition);
CREATE TABLE evidence (                 -- one aligned, masked scene, cut in tiles, immutable
    key TEXT PRIMARY KEY, stack TEXT NOT NULL, scene TEXT NOT NULL, acquisition TEXT NOT NULL, time TEXT NOT NULL,
    sensor TEXT NOT NULL, orbit INTEGER NOT NULL, products TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    sigma_px REAL, observed REAL, partial INTEGER NOT NULL, history INTEGER NOT NULL, visit INTEGER NOT NULL);
CREATE INDEX evidence_acquisition ON evidence (stack, acquisition);
CREATE TABLE baselines (                -- the frozen frame of a stack; later versions refit the models, not the frame
    stack TEXT PRIMARY KEY, key TEXT NOT NULL, document TEXT NOT NULL, visit INTEGER NOT NULL);
CREATE TABLE visits (
    id INTEGER PRIMARY KEY AUTOINCREMENT, started TEXT NOT NULL, finished TEXT NOT NULL, generation TEXT NOT NULL,
    status TEXT NOT NULL, summary TEXT NOT NULL);
CREATE TABLE events (                   -- what was decided about whom, in words: duplicates, refusals, repairs
    id INTEGER PRIMARY KEY AUTOINCREMENT, visit INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL,
    subject TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE revisions (                -- the log of deliveries: every version of every alert that was ever published
    alert TEXT NOT NULL, revision INTEGER NOT NULL, theme TEXT NOT NULL, status TEXT NOT NULL, change TEXT NOT NULL,
    record TEXT NOT NULL, visit INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (alert, revision));
CREATE TABLE outbox (                   -- what is to be sent where; filled in the transaction that publishes
    id INTEGER PRIMARY KEY AUTOINCREMENT, alert TEXT NOT NULL, revision INTEGER NOT NULL, endpoint TEXT NOT NULL,
    body TEXT NOT NULL, created TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0,
    delivered TEXT, error TEXT NOT NULL DEFAULT '', UNIQUE (alert, revision, endpoint));
CREATE TABLE seen (                     -- digest: up to which visit an area's reader has seen the log
    area TEXT PRIMARY KEY, visit INTEGER NOT NULL);
"""

MIGRATIONS: dict[int, str] = {}
"""Version -> the statements that bring its tables to the next one."""


class Ledger:
    """The ledger of one site, open. Write only inside `with ledger.writing() as db:`, which is one transaction.

    Parameters
    ----------
    path : of the SQLite file
    readonly : for those who only look (status, history, digests); they never wait for a writer
    """

    def __init__(self, path: Path, *, readonly: bool = False):
        self.path = Path(path)
        if readonly and not self.path.is_file():
            raise StateError(
                f"{path} is not there: the site has not been visited yet, or the ledger was lost. Run `geoalign "
                "monitor` first; it makes a lost one again from the scenes."
            )
        try:
            self.db = _connect(self.path, readonly)
            _bring_up(self.db, self.path, readonly)
        except sqlite3.DatabaseError as err:
            raise _told(err, self.path) from err

    @classmethod
    def empty(cls) -> Ledger:
        """A ledger in memory, of a site that was never visited."""
        ledger = cls.__new__(cls)
        ledger.path, ledger.db = Path(":memory:"), _connect(":memory:", False)
        _bring_up(ledger.db, ledger.path, False)
        return ledger

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk when the block ends, or none of it."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")
        except sqlite3.DatabaseError as err:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise _told(err, self.path) from err

    def rows(self, sql: str, *values) -> list[dict[str, Any]]:
        """Rows as dicts."""
        try:
            return [dict(row) for row in self.db.execute(sql, values)]
        except sqlite3.DatabaseError as err:
            raise _told(err, self.path) from err

    def row(self, sql: str, *values) -> dict[str, Any] | None:
        """The first row, None where there is none."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    def get(self, key: str, default: Any = None) -> Any:
        """A value of `meta`."""
        found = self.row("SELECT value FROM meta WHERE key = ?", key)
        return default if found is None else json.loads(found["value"])

    @staticmethod
    def put(db: sqlite3.Connection, key: str, value: Any) -> None:
        """Set a value of `meta`, inside a transaction."""
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file; empty where nothing is."""
        try:
            found = [row[0] for row in self.db.execute("PRAGMA integrity_check")]
        except sqlite3.DatabaseError as err:
            return [str(err)]
        return [] if found == ["ok"] else found


def insert(db: sqlite3.Connection, table: str, row: dict[str, Any], *, replace: bool = False) -> None:
    """Insert a dict as a row; the names are ours, the values are bound."""
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    names = ", ".join(row)
    db.execute(f"{verb} INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def _connect(path, readonly):
    if readonly:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30, isolation_level=None)
    else:
        db = sqlite3.connect(path, timeout=30, isolation_level=None)
    db.row_factory = sqlite3.Row
    return db


def _bring_up(db, path, readonly):
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StateError(
            f"{path} is of version {version}; this geoalign reads up to {VERSION}. Upgrade geoalign, or give another "
            "output."
        )
    if readonly:
        if version < VERSION:
            raise StateError(f"{path} is of version {version}; the next visit brings it to {VERSION}. Run one first.")
        return
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    if version == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        for statement in TABLES.split(";\n"):
            if statement.strip():
                db.execute(statement)
    else:
        for old in range(version, VERSION):
            for statement in MIGRATIONS[old].split(";"):
                if statement.strip():
                    db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _told(err, path) -> GeoalignError:
    text = str(err)
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        hint = "it can't be written to. Change the permissions of its folder, or give another output"
        if not os.access(path.parent, os.W_OK):
            hint = f"the folder {path.parent} can't be written to. Change its permissions, or give another output"
        return GeoalignError(f"{path}: {hint}.")
    if "full" in text or "I/O" in text:
        return GeoalignError(f"{path}: {text}. Free space on the disk and run again; nothing published has changed.")
    if "locked" in text:
        return GeoalignError(f"{path}: {text}. Another program holds it open for writing; run again later.")
    return StateError(f"{path} is damaged ({text}). Put back a copy, or remove the monitor folder to start anew.")
