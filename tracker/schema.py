"""What stands in `ledger.sqlite`: its tables, and how a ledger of an older version becomes one of this.

Invariants: a migration is one transaction, whole or not at all, and touches no fact; what it cannot take over is
derived from the facts (snapshots, ids of ended tasks) and is made anew from them when the folds are next restored.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

VERSION = 4
OLDEST = 1
"""The oldest version that can be read, and migrated by a writer."""

_facts = """CREATE TABLE facts (
    position INTEGER PRIMARY KEY, source TEXT NOT NULL, incarnation TEXT NOT NULL, sequence INTEGER NOT NULL,
    time INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (source, incarnation, sequence))"""
_sources = """CREATE TABLE sources (
    source TEXT NOT NULL, incarnation TEXT NOT NULL, last_sequence INTEGER NOT NULL,
    PRIMARY KEY (source, incarnation)) WITHOUT ROWID"""
_ended = """CREATE TABLE ended (
    fold TEXT NOT NULL, task TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (fold, task)) WITHOUT ROWID"""
_snapshots = """CREATE TABLE snapshots (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID"""

_parts = """CREATE TABLE snapshot_parts (
    name TEXT NOT NULL, position INTEGER NOT NULL, part INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (name, position, part))"""

_views = Path(__file__).with_name("views.sql").read_text("utf-8").strip().split(";\n")
_since_1 = (_ended, _parts)
"""What version 2 has and version 1 has not, but for the views."""
_no_views = [
    f"DROP {kind} IF EXISTS {name}" for view in _views for kind, name in re.findall(r"CREATE (\w+) (\w+)", view)
]
"""Views and their indexes are made anew with every version: nothing else depends on them."""


def create(connection: sqlite3.Connection) -> None:
    """Everything, in an empty file, or what is missing in one of an older version. Within a transaction."""
    found = version(connection)
    # A version of 0 with tables is somebody else's database: left as it is, refused by its version.
    if found == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        statements: tuple[str, ...] = (_facts, _sources, _snapshots, *_since_1, *_views)
    elif OLDEST <= found < VERSION:
        statements = (*(_since_1 if found == 1 else _no_views), *_views)
    else:
        return
    for statement in statements:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def version(connection: sqlite3.Connection) -> int:
    """The version that the file says it has; 0 if it says nothing."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
