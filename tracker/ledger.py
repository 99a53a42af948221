"""The ledger: every fact of a run, in the order in which it was made durable (SQLite, WAL, synchronous=FULL).

Invariants: only one process writes it (see `tracker.lock`); positions are 1, 2, 3, ... without holes; of each
(source, incarnation) the sequences are 1, 2, 3, ... in the order of positions; what a `commit()` block wrote is on disk
whole when the block has ended without an error, and not there at all when it ended with one.

The UNIQUE constraint costs a third of the rate (measured, batches of 1,000: 410,000 facts/s without, 270,000 with it,
330,000 with sources interned in a table of their own). It stays: that is still well above what is wanted, the file
keeps the promise by itself, and other tools read one plain table.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from broker import files
from broker.errors import RequestError, RunError
from tracker import schema
from tracker.disk import LedgerDamaged, LedgerFull
from tracker.facts import Row
from tracker.ledger_files import LedgerFiles
from tracker.reader import LEDGER, LedgerReader, StoredFact, check_files, check_mended

CHECKED_WHOLE = 32 * 1024 * 1024
"""A file up to this size (bytes) is checked through when it is opened; of a larger one the newest facts are."""

GROUP = 256
"""Facts of one statement, where there are so many: two thirds of the time that as many statements take, and the
interpreter lock is let go once for all of them, so that the sockets' thread goes on meanwhile."""

FALSE_ALARMS = 10
"""How often a sound ledger is read through because its files seem modified: some filesystems update that time late, and
other programs may copy the WAL into the ledger. A ledger that became shorter is always read through."""

MAX_CACHED_SOURCES = 4096
"""Most sources whose last sequences are cached between commits."""

PAGE = 8192
"""Bytes: half as many pages to write and to sum as with SQLite's own 4,096, a tenth of the tracker's time."""

_insert = "INSERT INTO facts (source, incarnation, sequence, time, kind, body) VALUES (?, ?, ?, ?, ?, ?)"
_insert_group = _insert + ", (?, ?, ?, ?, ?, ?)" * (GROUP - 1)
_clear = """DELETE FROM snapshot_parts WHERE rowid IN (SELECT rowid FROM snapshot_parts AS part WHERE NOT EXISTS (
    SELECT 1 FROM snapshots WHERE snapshots.name = part.name AND snapshots.position = part.position) LIMIT ?)"""
_upsert = "INSERT INTO sources VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last_sequence = excluded.last_sequence"


class Ledger(LedgerReader):
    """The ledger as its one writer holds it. Every write stands within `with ledger.commit():`."""

    def __init__(self, path: Path) -> None:
        """Open or create. RequestError: another version. LedgerDamaged: what is wrong and what to do."""
        self.path = Path(path)
        self.damaged = {}
        self._open()

    def _open(self) -> None:
        check_mended(self.path)
        if not check_files(self.path):
            os.close(files.create(self.path))  # SQLite gives the files beside it the same mode
        self._files = LedgerFiles(self.path)
        with self._mapped():
            self._connection = self._connect(self.path.absolute().as_uri())
            self._connection.execute(f"PRAGMA page_size = {PAGE}")  # of a new file: one that is there keeps its own
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA wal_autocheckpoint = 4096")  # pages: copied every 32 MiB, not every 4
            self._connection.execute("PRAGMA cache_size = -65536")  # KiB: the index's pages stay at hand
            self._create()
        self._check_version()
        if self.path.stat().st_size <= CHECKED_WHOLE:
            self.verify()
        self._sequences: dict[tuple[str, str], int] = {}
        """Last sequences of sources that wrote recently; those of others are read from the file."""
        self._position = super().last_position
        self.check_newest()
        self._files.begin()
        self._seen = self._data_version()
        self._alarms_left = FALSE_ALARMS

    def change(self) -> str:
        """Describe a change that another process made to the ledger's files since the last write; "" without one."""
        change = self._files.change()
        if change:
            return change
        if self._data_version() != self._seen:  # another process has committed something
            self._seen = self._data_version()
            with self._mapped():
                if super().last_position != self._position:
                    return f"{self.path} was written to by another process"
        suspicion = self._files.cut or (self._files.modified if self._alarms_left else "")
        if not suspicion:
            return ""
        self._files.written()
        try:
            with LedgerReader(self.path) as reader:
                reader.verify()
                reader.check_newest()
        except (RunError, RequestError):
            return suspicion
        self._alarms_left = max(0, self._alarms_left - 1)
        return ""

    def _data_version(self) -> int:
        """Return SQLite's counter that grows when another connection commits."""
        with self._mapped():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def copy(self, path: Path) -> None:
        """Copy the ledger as this process sees it into a new file, even if its own files are gone. RunError if not."""
        os.close(files.create(path))
        with self._mapped():
            connection = self._connect(path.absolute().as_uri())
            try:
                self._connection.backup(connection)
            finally:
                connection.close()
        files.sync(path)

    def reopen(self) -> None:
        """Open the ledger that has replaced the one that was open."""
        self._connection.close()
        self._files.close()
        self._open()

    def _create(self) -> None:
        connection = self._connection
        if schema.version(connection) < schema.VERSION:
            connection.execute("BEGIN IMMEDIATE")
            try:
                schema.create(connection)
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @property
    def last_position(self) -> int:
        """The position of the newest fact, 0 if there is none."""
        return self._position

    @contextmanager
    def commit(self) -> Iterator[None]:
        """One transaction: all that is written within is on disk when it ends, or, after any error, none of it is."""
        before = self._position
        with self._mapped():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
                self._files.written()
            except BaseException:
                self._position = before
                self._sequences.clear()
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def append(self, batch: Sequence[Row]) -> range:
        """Append facts in order and give their positions. ValueError if one is not the next of its source."""
        sequences = self._sequences
        if len(sequences) > MAX_CACHED_SOURCES:
            sequences.clear()
        touched: set[tuple[str, str]] = set()
        key = ("", "")
        expected = 0
        for row in batch:
            if row[0] != key[0] or row[1] != key[1]:
                if expected:
                    sequences[key] = expected
                key = (row[0], row[1])
                expected = sequences[key] if key in sequences else self.last_sequence(*key)
                touched.add(key)
            expected += 1
            if row[2] != expected:
                raise ValueError(f"fact {row[2]} of {row[0]} ({row[1]}) is out of order: {expected} is the next")
        if expected:
            sequences[key] = expected
        grouped = len(batch) // GROUP * GROUP
        for start in range(0, grouped, GROUP):
            self._connection.execute(_insert_group, tuple(chain.from_iterable(batch[start : start + GROUP])))
        self._connection.executemany(_insert, batch[grouped:])
        self._connection.executemany(_upsert, [(*key, sequences[key]) for key in touched])
        first = self._position + 1
        self._position += len(batch)
        return range(first, self._position + 1)

    def store_ended(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Keep ids of tasks that ended: (fold, id, position of the fact that ended it)."""
        self._connection.executemany("INSERT OR IGNORE INTO ended VALUES (?, ?, ?)", rows)

    def settle(self, rows: Iterable[tuple[str, str, int]], anew: Iterable[str] = ()) -> bool:
        """`store_ended` in a commit of its own; False where there is no room, and they must be kept in mind.

        What was stored before of the folds `anew`, their snapshots too, is forgotten: they begin again.
        """
        try:
            with self.commit():
                for fold in anew:
                    self._connection.execute("DELETE FROM ended WHERE fold = ?", (fold,))
                    self._connection.execute("DELETE FROM snapshots WHERE name = ?", (fold,))
                self.store_ended(rows)
        except LedgerFull:
            return False
        return True

    def store_parts(self, position: int, parts: Iterable[tuple[str, int, str]]) -> None:
        """Keep parts (name, number, text) of snapshots that describe `position`. They count from `store_heads` on.

        One that was never whole may have left parts of the same position: a tracker that fell with nothing to add.
        """
        rows = [(name, position, number, part) for name, number, part in parts]
        self._connection.executemany("INSERT OR REPLACE INTO snapshot_parts VALUES (?, ?, ?, ?)", rows)

    def clear_parts(self, most: int) -> bool:
        """Remove up to `most` parts that belong to no snapshot. True if there may be more."""
        return self._connection.execute(_clear, (most,)).rowcount == most

    def store_heads(self, position: int, heads: Mapping[str, str]) -> None:
        """Make the parts that are stored the newest snapshots, in place of the older ones."""
        rows = [(name, position, head) for name, head in heads.items()]
        self._connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", rows)

    def store_snapshots(self, snapshots: Mapping[str, Any], position: int) -> None:
        """Keep each fold's snapshot, which describes the facts up to `position`, in place of its older one."""
        rows = [(name, position, json.dumps(state, allow_nan=False)) for name, state in snapshots.items()]
        self._connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Fold the WAL into the file, so that one file holds the run, and close it."""
        if self.change():
            return  # closing would write into the changed files, which are left for `headrace mend`
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the WAL stays beside the file, and is as good
        finally:
            self._connection.close()
            self._files.close()


__all__ = ["LEDGER", "PAGE", "Ledger", "LedgerDamaged", "LedgerFull", "LedgerReader", "StoredFact"]
